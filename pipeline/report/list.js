// The list of items below the map: what the search leaves.
(() => {
  if (!shop) return;
  const { data, state } = shop;
  const [entries, form, query, count, more, panel] = ["entries", "search", "query", "count", "more", "panel"].map(
    (id) => document.getElementById(id));
  const PAGE = 24;
  let shown = PAGE;

  const row = (item) => {
    const node = make("tr"), head = make("th"), box = make("div", "item");
    head.scope = "row";
    box.append(shop.button(item, "big"), make("span", "title", data.titles[item]), make("span", "path", shop.note(item)));
    head.append(box);
    node.append(head, ...data.columns.map((name) => {
      const cell = make("td"), near = make("div", "near");
      cell.dataset.set = name;
      near.append(...data.near[name][item].map((other) => shop.button(other, "")));
      cell.append(near);
      return cell;
    }));
    return node;
  };

  const list = () => {
    const kept = shop.kept(), items = kept || data.first;
    entries.replaceChildren(...items.slice(0, shown).map(row));
    count.textContent = kept ? `${kept.length.toLocaleString("en")} found${kept.length > shown ? `, ${shown} shown` : ""}` : "";
    more.hidden = items.length <= shown;
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", () => {
    Object.assign(state, { query: query.value, asked: null });
    shop.tell("kept");
  });
  more.addEventListener("click", () => {
    shown += PAGE;
    list();
  });
  shop.on((what) => {
    if (what === "kept") {
      shown = PAGE;
      list();
    } else if (what === "chosen" && state.chosen >= 0) {
      const box = panel.getBoundingClientRect();
      if (box.bottom < 80 || box.top > innerHeight - 80) panel.scrollIntoView({ block: "center" });
    }
  });
  list();
})();
