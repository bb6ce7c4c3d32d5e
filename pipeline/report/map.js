// The map: dots and pictures of all items on one canvas. d3-zoom moves it, KDBush finds the item under a pointer.
(() => {
  const canvas = document.getElementById("plane");
  if (!shop || !canvas) return;
  const { data, count, state } = shop;
  const ink = canvas.getContext("2d");
  const [WIDE, HIGH] = data.size;
  const SLACK = 8, MARGIN = 20;
  let pictured = 28; // pixels of a picture
  const byId = (id) => document.getElementById(id);
  const panel = byId("panel"), legend = byId("legend"), sheets = [];
  let places, tree, view = { k: 1, x: 0, y: 0 }, fit = { k: 1, x: 0, y: 0 }, size = [0, 0], scale = 1, waiting = false;
  let shades, kept = 0, bright = null, loop = null, lassoing = false, buffer = null;

  // colours: name of the class -> its shade, by what is chosen
  const CATEGORY = ["#4c72c4", "#dd7c33", "#3d9a63", "#c44a4d", "#8a63b8", "#a67c52", "#d57db0", "#2aa5a8"];
  const RAMP = ["#9aa0ac", "#bcd3e8", "#7fb0d6", "#3f86bd", "#13568f"], OTHER = "#9a9ca3";
  const STATUS = { complete: "#4c72c4", "no image": "#dd7c33", "no text": "#c9a227", neither: "#c44a4d" };

  const colours = {
    category: () => ({
      names: [...data.classes.map((name, at) => [name, CATEGORY[at]]), ...(data.colour.some((c) => c < 0) ? [[data.classes.length ? "other" : "items", OTHER]] : [])],
      of: (item) => (data.colour[item] < 0 ? data.classes.length : data.colour[item]),
    }),
    popularity: () => {
      const sorted = data.popularity.filter(Boolean).sort((a, b) => a - b);
      const cuts = [0.25, 0.5, 0.75].map((share) => sorted[Math.floor(share * (sorted.length - 1))] || 1);
      const most = sorted.at(-1) || 1, from = [1, ...cuts.map((cut) => cut + 1)], to = [...cuts, most];
      const names = from.map((low, at) => [`${low} to ${to[at]} train users`, RAMP[at + 1]]);
      return { names: [["none in train", RAMP[0]], ...names], of: (item) => {
        const n = data.popularity[item];
        return n ? 1 + cuts.filter((cut) => n > cut).length : 0;
      } };
    },
    status: () => {
      const [images, texts] = ["no image", "no text"].map((name) => shop.facets[name] || new Set());
      return { names: Object.entries(STATUS), of: (item) => images.has(item) + 2 * texts.has(item) };
    },
  };

  const rgba = (hex, alpha) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  };

  const paint = () => {
    const { names, of } = colours[byId("by").value]();
    const used = new Set();
    shades = { of: new Uint8Array(count), full: [], faint: [], hex: names.map(([, hex]) => hex) };
    for (let item = 0; item < count; item++) used.add(shades.of[item] = of(item));
    for (const [, hex] of names) {
      shades.full.push(rgba(hex, 225));
      shades.faint.push(rgba(hex, 42));
    }
    legend.replaceChildren(...names.flatMap(([name, hex], at) => {
      if (!used.has(at)) return [];
      const entry = make("li", "", name);
      entry.style.setProperty("--c", hex);
      return [entry];
    }));
    redraw();
  };

  const arrange = () => {
    places = Float32Array.from(data.maps[state.set]);
    tree = new vendor.KDBush(count);
    for (let item = 0; item < count; item++) tree.add(places[2 * item], places[2 * item + 1]);
    tree.finish();
    canvas.setAttribute("aria-label", `Map of the items under ${state.set}`);
    redraw();
  };

  const at = (item) => [
    (places[2 * item] * fit.k + fit.x) * view.k + view.x,
    (places[2 * item + 1] * fit.k + fit.y) * view.k + view.y,
  ];
  const world = (x, y) => [((x - view.x) / view.k - fit.x) / fit.k, ((y - view.y) / view.k - fit.y) / fit.k];

  // Pixels of a disc with soft edges, around its middle: their offsets, and for each shade their colours.
  const disc = (radius, colours, wide) => {
    const reach = Math.ceil(radius), offsets = [], strengths = [];
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const inside = Math.min(1, radius + 0.5 - Math.hypot(x, y));
        if (inside <= 0.05) continue;
        offsets.push(y * wide + x);
        strengths.push(inside);
      }
    }
    const tints = colours.map((colour) => Uint32Array.from(
      strengths, (inside) => ((Math.round((colour >>> 24) * inside) << 24) | (colour & 0xffffff)) >>> 0));
    return { reach, offsets: Int32Array.from(offsets), tints };
  };

  // All items, or those that search and lasso left, as discs into an array of pixels.
  const stamp = (pixels, wide, high, { reach, offsets, tints }, wanted) => {
    const k = fit.k * view.k * scale, left = (fit.x * view.k + view.x) * scale, top = (fit.y * view.k + view.y) * scale;
    const right = wide - reach, bottom = high - reach, length = offsets.length, of = shades.of;
    for (let item = 0; item < count; item++) {
      if (bright && bright[item] !== wanted) continue;
      const x = Math.round(places[2 * item] * k + left), y = Math.round(places[2 * item + 1] * k + top);
      if (x < reach || y < reach || x >= right || y >= bottom) continue;
      const tint = tints[of[item]], middle = y * wide + x;
      for (let i = 0; i < length; i++) {
        const place = middle + offsets[i], colour = tint[i];
        if (colour >>> 24 >= pixels[place] >>> 24) pixels[place] = colour;
      }
    }
  };

  const dots = () => {
    const [wide, high] = [canvas.width, canvas.height];
    if (!buffer || buffer.width !== wide || buffer.height !== high) buffer = new ImageData(wide, high);
    const pixels = new Uint32Array(buffer.data.buffer);
    pixels.fill(0);
    const crowd = Math.sqrt((size[0] * size[1]) / count);
    const radius = Math.max(1.1, Math.min(7, crowd * 0.2 * Math.sqrt(view.k))) * scale;
    stamp(pixels, wide, high, disc(radius, bright ? shades.faint : shades.full, wide), 0);
    if (bright) {
      const solid = shades.full.map((colour) => (colour | 0xff000000) >>> 0);
      stamp(pixels, wide, high, disc(Math.max(radius * 1.35, 3 * scale), solid, wide), 1);
    }
    ink.putImageData(buffer, 0, 0);
  };

  // Pictures where there is room, the most popular items first. Which ones depends only on the step of the zoom, so that
  // none flickers in a pan.
  let order = null, roomy = { key: "", items: [] };
  const withRoom = (step, room) => {
    const key = [state.set, step, room, fit.k, kept].join();
    if (roomy.key === key) return roomy.items;
    order = order || [...Array(count).keys()].filter((item) => data.cells[item] >= 0)
      .sort((a, b) => (data.popularity[b] || 0) - (data.popularity[a] || 0) || a - b);
    const taken = new Map(), items = [];
    for (const item of order) {
      if (bright && !bright[item]) continue;
      const x = places[2 * item] * fit.k * step, y = places[2 * item + 1] * fit.k * step;
      const [column, row] = [Math.floor(x / room), Math.floor(y / room)];
      const free = [-1, 0, 1].every((i) => [-1, 0, 1].every((j) => {
        const other = taken.get((column + i) * 100003 + row + j);
        return !other || Math.max(Math.abs(other[0] - x), Math.abs(other[1] - y)) >= room;
      }));
      if (!free) continue;
      taken.set(column * 100003 + row, [x, y]);
      items.push(item);
    }
    roomy = { key, items };
    return items;
  };
  const pictures = () => {
    if (!sheets.length) return;
    const step = 2 ** Math.floor(Math.log2(view.k));
    const own = pictured * Math.min(1.5, 1 + Math.log2(step) * 0.2), side = own * (view.k / step);
    for (const item of withRoom(step, own + 4)) {
      const [x, y] = at(item);
      if (x < -side || y < -side || x > size[0] + side || y > size[1] + side) continue;
      picture(item, x - side / 2, y - side / 2, side);
    }
  };

  const picture = (item, x, y, side) => {
    const cell = data.cells[item], sheet = sheets[Math.floor(cell / 400)];
    if (!sheet || !sheet.complete || !sheet.naturalWidth) return;
    const unit = sheet.naturalWidth / 20, round = side * 0.2;
    ink.save();
    ink.beginPath();
    ink.roundRect(x, y, side, side, round);
    ink.fillStyle = "#fff";
    ink.fill();
    ink.clip();
    ink.drawImage(sheet, (cell % 20) * unit, (Math.floor(cell / 20) % 20) * unit, unit, unit, x, y, side, side);
    ink.restore();
    ink.lineWidth = 2;
    ink.strokeStyle = shades.hex[shades.of[item]];
    ink.stroke();
  };

  const draw = () => {
    waiting = false;
    ink.setTransform(1, 0, 0, 1, 0, 0);
    dots();
    ink.setTransform(scale, 0, 0, scale, 0, 0);
    pictures();
    const style = getComputedStyle(canvas), accent = style.getPropertyValue("--accent");
    if (state.chosen >= 0) {
      const [x, y] = at(state.chosen);
      const near = (data.near[state.set] || [])[state.chosen] || [];
      ink.strokeStyle = accent;
      ink.lineWidth = 1.5;
      for (const other of near) {
        const [ox, oy] = at(other);
        ink.beginPath();
        ink.moveTo(x, y);
        ink.lineTo(ox, oy);
        ink.stroke();
      }
      for (const other of near) if (data.cells[other] >= 0) picture(other, at(other)[0] - 15, at(other)[1] - 15, 30);
      if (data.cells[state.chosen] >= 0) picture(state.chosen, x - 22, y - 22, 44);
      ink.strokeStyle = accent;
      ink.lineWidth = 3;
      ink.beginPath();
      if (data.cells[state.chosen] >= 0) ink.roundRect(x - 24, y - 24, 48, 48, 11);
      else ink.arc(x, y, 9, 0, 7);
      ink.stroke();
    }
    if (loop && loop.length > 1) {
      ink.beginPath();
      loop.forEach(([x, y], i) => (i ? ink.lineTo(x, y) : ink.moveTo(x, y)));
      ink.closePath();
      ink.fillStyle = "rgb(128 140 200 / .18)";
      ink.fill();
      ink.strokeStyle = accent;
      ink.lineWidth = 1.5;
      ink.stroke();
    }
  };
  const redraw = () => {
    if (waiting || !places || !shades || !size[0]) return;
    waiting = true;
    requestAnimationFrame(draw);
  };

  const resize = () => {
    const box = canvas.getBoundingClientRect();
    if (!box.width) return;
    size = [box.width, box.height];
    scale = Math.min(2, devicePixelRatio || 1);
    [canvas.width, canvas.height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
    pictured = box.width < 600 ? 22 : 28;
    const k = Math.min((box.width - 2 * MARGIN) / WIDE, (box.height - 2 * MARGIN) / HIGH);
    fit = { k, x: (box.width - WIDE * k) / 2, y: (box.height - HIGH * k) / 2 };
    redraw();
  };

  const under = (event) => {
    const [x, y] = pointer(event), [wx, wy] = world(x, y);
    const near = tree.within(wx, wy, (pictured * 0.7) / (fit.k * view.k));
    const far = (item) => (places[2 * item] - wx) ** 2 + (places[2 * item + 1] - wy) ** 2;
    return near.length ? near.reduce((best, item) => (far(item) < far(best) ? item : best)) : -1;
  };
  const pointer = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const zoom = vendor.zoom().scaleExtent([1, 64]).filter((event) => {
    if (event.type === "wheel") return event.ctrlKey || event.metaKey || document.activeElement === canvas;
    return !lassoing && !event.shiftKey && !event.button;
  }).on("zoom", (event) => {
    view = event.transform;
    redraw();
  });
  const plane = vendor.select(canvas).call(zoom).on("dblclick.zoom", null);
  byId("home").addEventListener("click", () => plane.call(zoom.transform, vendor.zoomIdentity));

  // Lasso: a loop drawn with Shift, or with the button pressed.
  const lasso = byId("lasso");
  lasso.addEventListener("click", () => {
    lassoing = !lassoing;
    lasso.setAttribute("aria-pressed", lassoing);
    canvas.classList.toggle("lassoing", lassoing);
  });
  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    start = pointer(event);
    if (!lassoing && !event.shiftKey) return;
    loop = [start];
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (loop) {
      loop.push(pointer(event));
      redraw();
      return;
    }
    if (event.buttons) return;
    const item = under(event);
    canvas.style.cursor = lassoing ? "crosshair" : item < 0 ? "grab" : "pointer";
    if (item < 0) globalThis.hideTip();
    else globalThis.showTip([shop.image(item, "big"), make("span", "title", data.titles[item]), make("span", "path", shop.note(item))], event);
  });
  canvas.addEventListener("pointerleave", () => globalThis.hideTip());
  canvas.addEventListener("pointerup", (event) => {
    const end = pointer(event);
    if (loop) {
      const ring = loop.length > 3 ? inside(loop.map(([x, y]) => world(x, y))) : null;
      loop = null;
      if (lassoing) lasso.click();
      state.ring = ring;
      shop.tell("kept");
    } else if (start && Math.hypot(end[0] - start[0], end[1] - start[1]) < SLACK) {
      shop.choose(under(event));
    }
    start = null;
  });
  canvas.addEventListener("keydown", (event) => {
    const factor = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (factor) plane.call(zoom.scaleBy, factor);
    else if (step) plane.call(zoom.translateBy, step[0] / view.k, step[1] / view.k);
    else return;
    event.preventDefault();
  });

  const inside = (ring) => {
    const [xs, ys] = [ring.map(([x]) => x), ring.map(([, y]) => y)];
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    return tree.range(...box).filter((item) => {
      const [x, y] = [places[2 * item], places[2 * item + 1]];
      let within = false;
      for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
        const [[xi, yi], [xj, yj]] = [ring[i], ring[j]];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
      }
      return within;
    }).sort((a, b) => a - b);
  };

  const show = () => {
    const item = state.chosen;
    if (item < 0) {
      panel.replaceChildren(make("p", "note", "Click an item on the map, or an image in the list below."));
      return;
    }
    const head = make("div", "head"), said = make("div"), badges = make("p", "badges");
    const times = data.popularity.length ? [`${data.popularity[item]} train user${data.popularity[item] === 1 ? "" : "s"}`] : [];
    badges.append(...[...times, ...shop.tags(item)].map((tag) => make("span", "badge", tag)));
    said.append(make("h3", "", data.titles[item]), make("span", "path", shop.note(item)));
    head.append(shop.image(item, "big"), said);
    const strips = (names) => names.filter((name) => data.near[name]).map((name) => {
      const strip = make("div", "strip"), row = make("div");
      row.append(...data.near[name][item].map((other) => shop.button(other, "")));
      if (!row.children.length) row.append(make("span", "note", "no neighbours"));
      strip.append(make("span", "name", name), row);
      return strip;
    });
    panel.replaceChildren(head, badges, ...strips(state.columns));
    const rest = Object.keys(data.near).filter((name) => !state.columns.includes(name));
    if (rest.length) {
      const more = make("details"), summary = make("summary", "", `${rest.length} more feature set${rest.length > 1 ? "s" : ""}`);
      more.append(summary, ...strips(rest));
      panel.append(more);
    }
  };

  shop.on((what) => {
    if (what === "kept") {
      const { items } = shop.kept();
      bright = items && new Uint8Array(count);
      for (const item of items || []) bright[item] = 1;
      kept++;
    }
    if (["chosen", "shown", "columns"].includes(what)) show();
    if (what === "set") arrange();
    redraw();
  });
  byId("set").addEventListener("change", (event) => {
    state.set = event.target.value;
    shop.tell("set");
  });
  byId("by").addEventListener("change", paint);
  document.querySelector(".explore").hidden = false;
  const last = data.cells.reduce((most, cell) => Math.max(most, cell), -1);
  for (let number = 0; number <= last / 400; number++) { // the sheets, read from the style
    const probe = make("span", `pic s${number} probe`), sheet = new Image();
    document.body.append(probe);
    const url = getComputedStyle(probe).backgroundImage.slice(5, -2);
    probe.remove();
    sheet.addEventListener("load", redraw);
    if (url.startsWith("data:image/jpeg;base64,")) sheet.src = url;
    sheets.push(sheet);
  }
  new ResizeObserver(resize).observe(canvas);
  state.chosen = data.first.find((item) => data.cells[item] >= 0) ?? data.first[0] ?? -1;
  arrange();
  paint();
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  globalThis.plane = { at, places: () => places }; // for tests
})();
