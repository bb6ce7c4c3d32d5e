// The map: dots and pictures of all items on one canvas. d3-zoom moves it, KDBush finds the item under a pointer.
(() => {
  const canvas = document.getElementById("plane");
  if (!shop || !canvas) return;
  const { data, count, state } = shop;
  const ink = canvas.getContext("2d");
  const [WIDE, HIGH] = data.size;
  const SLACK = 8, MARGIN = 20, ROUND = 5000; // most dots that are round; more are squares, which draw faster
  const CATEGORY = ["#4c72c4", "#dd7c33", "#3d9a63", "#c44a4d", "#8a63b8", "#a67c52", "#d57db0", "#2aa5a8"];
  const RAMP = ["#9aa0ac", "#bcd3e8", "#7fb0d6", "#3f86bd", "#13568f"], OTHER = "#9a9ca3";
  const byId = (id) => document.getElementById(id);
  const panel = byId("panel"), sheets = [];
  let pictured = 28; // pixels of a picture
  let places, tree, shades, groups, classOf, bright = null, waiting = false;
  let view = { k: 1, x: 0, y: 0 }, fit = { k: 1, x: 0, y: 0 }, size = [0, 0], scale = 1;

  // By what is chosen: names and shades of the classes, and the class of an item.
  const colours = {
    category: () => ({
      names: [...data.classes.map((name, at) => [name, CATEGORY[at]]), [data.classes.length ? "other" : "items", OTHER]],
      of: (item) => (data.colour[item] < 0 ? data.classes.length : data.colour[item]),
    }),
    popularity: () => {
      const sorted = data.popularity.filter(Boolean).sort((a, b) => a - b), most = sorted.at(-1) || 1;
      const cuts = [0.25, 0.5, 0.75].map((share) => sorted[Math.floor(share * (sorted.length - 1))] || 1);
      const names = [1, ...cuts.map((cut) => cut + 1)].map((low, at) => [`${low} to ${[...cuts, most][at]} train users`, RAMP[at + 1]]);
      const of = (item) => (data.popularity[item] ? 1 + cuts.filter((cut) => data.popularity[item] > cut).length : 0);
      return { names: [["none in train", RAMP[0]], ...names], of };
    },
  };

  const paint = () => {
    const { names, of } = colours[byId("by").value]();
    [groups, classOf] = [names.map(() => []), of];
    shades = names.map(([, shade]) => shade);
    for (let item = 0; item < count; item++) groups[of(item)].push(item);
    byId("legend").replaceChildren(...names.flatMap(([name, shade], at) => {
      if (!groups[at].length) return [];
      const entry = make("li", "", name);
      entry.style.setProperty("--c", shade);
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
  const outside = (x, y, side) => x < -side || y < -side || x > size[0] + side || y > size[1] + side;

  // Dots of all items; those that the search left are drawn last, larger and solid.
  const dots = () => {
    const radius = Math.max(1.1, Math.min(7, Math.sqrt((size[0] * size[1]) / count) * 0.2 * Math.sqrt(view.k)));
    for (const left of bright ? [false, true] : [false]) {
      const own = left ? Math.max(radius * 1.35, 3) : radius;
      ink.globalAlpha = left ? 1 : bright ? 0.16 : 0.88;
      groups.forEach((items, group) => {
        ink.fillStyle = shades[group];
        for (const item of items) {
          const [x, y] = at(item);
          if (outside(x, y, own) || (bright && Boolean(bright[item]) !== left)) continue;
          if (count > ROUND) ink.fillRect(x - own, y - own, 2 * own, 2 * own);
          else {
            ink.beginPath();
            ink.arc(x, y, own, 0, 7);
            ink.fill();
          }
        }
      });
    }
    ink.globalAlpha = 1;
  };

  // Pictures where there is room, the most popular items first. Which ones depends only on the step of the zoom, so that
  // none flickers in a pan.
  const order = [...Array(count).keys()].filter((item) => data.cells[item] >= 0)
    .sort((a, b) => (data.popularity[b] || 0) - (data.popularity[a] || 0) || a - b);
  let roomy = { key: "", items: [] };
  const withRoom = (step, room) => {
    const key = [state.set, step, room, fit.k].join();
    if (roomy.key === key) return roomy.items;
    const taken = new Map();
    const items = order.filter((item) => {
      if (bright && !bright[item]) return false;
      const x = places[2 * item] * fit.k * step, y = places[2 * item + 1] * fit.k * step;
      const cell = (i, j) => `${Math.floor(x / room) + i} ${Math.floor(y / room) + j}`;
      const around = [-1, 0, 1].flatMap((i) => [-1, 0, 1].map((j) => taken.get(cell(i, j)))).filter(Boolean);
      if (around.some(([ox, oy]) => Math.max(Math.abs(ox - x), Math.abs(oy - y)) < room)) return false;
      taken.set(cell(0, 0), [x, y]);
      return true;
    });
    roomy = { key, items };
    return items;
  };
  const pictures = () => {
    const step = 2 ** Math.floor(Math.log2(view.k));
    const own = pictured * Math.min(1.5, 1 + Math.log2(step) * 0.2), side = own * (view.k / step);
    for (const item of withRoom(step, own + 4)) if (!outside(...at(item), side)) picture(item, side);
  };

  const picture = (item, side) => {
    const cell = data.cells[item], sheet = sheets[Math.floor(cell / 400)], [x, y] = at(item).map((middle) => middle - side / 2);
    if (cell < 0 || !sheet.complete || !sheet.naturalWidth) return;
    const unit = sheet.naturalWidth / 20;
    ink.save();
    ink.beginPath();
    ink.roundRect(x, y, side, side, side * 0.2);
    ink.fillStyle = "#fff";
    ink.fill();
    ink.clip();
    ink.drawImage(sheet, (cell % 20) * unit, (Math.floor(cell / 20) % 20) * unit, unit, unit, x, y, side, side);
    ink.restore();
    ink.lineWidth = 2;
    ink.strokeStyle = shades[classOf(item)];
    ink.stroke();
  };

  const chosen = () => {
    const [x, y] = at(state.chosen), near = (data.near[state.set] || [])[state.chosen] || [];
    const accent = getComputedStyle(canvas).getPropertyValue("--accent");
    for (const other of near) {
      ink.beginPath();
      ink.moveTo(x, y);
      ink.lineTo(...at(other));
      ink.lineWidth = 1.5;
      ink.strokeStyle = accent;
      ink.stroke();
    }
    for (const other of near) picture(other, 30);
    picture(state.chosen, 44);
    ink.beginPath();
    ink.roundRect(x - 24, y - 24, 48, 48, 11);
    ink.lineWidth = 3;
    ink.strokeStyle = accent;
    ink.stroke();
  };

  const draw = () => {
    waiting = false;
    ink.setTransform(scale, 0, 0, scale, 0, 0);
    ink.clearRect(0, 0, ...size);
    dots();
    pictures();
    if (state.chosen >= 0) chosen();
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
    [canvas.width, canvas.height] = size.map((length) => Math.round(length * scale));
    pictured = box.width < 600 ? 22 : 28;
    const k = Math.min((box.width - 2 * MARGIN) / WIDE, (box.height - 2 * MARGIN) / HIGH);
    fit = { k, x: (box.width - WIDE * k) / 2, y: (box.height - HIGH * k) / 2 };
    redraw();
  };

  const pointer = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const under = (event) => {
    const [x, y] = pointer(event);
    const wx = ((x - view.x) / view.k - fit.x) / fit.k, wy = ((y - view.y) / view.k - fit.y) / fit.k;
    const far = (item) => (places[2 * item] - wx) ** 2 + (places[2 * item + 1] - wy) ** 2;
    return tree.within(wx, wy, (pictured * 0.7) / (fit.k * view.k)).reduce((best, item) => (best < 0 || far(item) < far(best) ? item : best), -1);
  };

  const zoom = vendor.zoom().scaleExtent([1, 64]).filter((event) => {
    if (event.type === "wheel") return event.ctrlKey || event.metaKey || document.activeElement === canvas;
    return !event.button;
  }).on("zoom", (event) => {
    view = event.transform;
    redraw();
  });
  const plane = vendor.select(canvas).call(zoom).on("dblclick.zoom", null);
  byId("home").addEventListener("click", () => plane.call(zoom.transform, vendor.zoomIdentity));

  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    start = pointer(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) return;
    const item = under(event);
    canvas.style.cursor = item < 0 ? "grab" : "pointer";
    if (item < 0) hideTip();
    else showTip([shop.image(item, "big"), make("span", "title", data.titles[item]), make("span", "path", shop.note(item))], event);
  });
  canvas.addEventListener("pointerleave", () => hideTip());
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = pointer(event);
    if (start && Math.hypot(x - start[0], y - start[1]) < SLACK) shop.choose(under(event));
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

  // The panel: the chosen item, and its neighbours under each feature set.
  const show = () => {
    const item = state.chosen;
    if (item < 0) {
      panel.replaceChildren(make("p", "note", "Click an item on the map, or an image in the list below."));
      return;
    }
    const head = make("div", "head"), said = make("div"), badges = make("p", "badges");
    const times = data.popularity.length ? [`${data.popularity[item]} train user${data.popularity[item] === 1 ? "" : "s"}`] : [];
    badges.append(...times.map((tag) => make("span", "badge", tag)));
    said.append(make("h3", "", data.titles[item]), make("span", "path", shop.note(item)));
    head.append(shop.image(item, "big"), said);
    const strips = (names) => names.map((name) => {
      const strip = make("div", "strip"), row = make("div", "near");
      row.append(...data.near[name][item].map((other) => shop.button(other, "")));
      strip.append(make("span", "name", name), row.children.length ? row : make("span", "note", "no neighbours"));
      return strip;
    });
    panel.replaceChildren(head, badges, ...strips(data.columns));
    const rest = Object.keys(data.near).filter((name) => !data.columns.includes(name));
    if (!rest.length) return;
    const more = make("details");
    more.append(make("summary", "", `${rest.length} more feature set${rest.length > 1 ? "s" : ""}`), ...strips(rest));
    panel.append(more);
  };

  shop.on((what) => {
    if (what === "kept") {
      const items = shop.kept();
      bright = items && new Uint8Array(count);
      for (const item of items || []) bright[item] = 1;
      roomy.key = "";
    }
    show();
    redraw();
  });
  byId("set").addEventListener("change", (event) => {
    state.set = event.target.value;
    arrange();
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
