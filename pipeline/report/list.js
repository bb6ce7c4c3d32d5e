// The list of items below the map: what search, facets and lasso leave, in three columns with a chooser each.
(() => {
  if (!shop) return;
  const { data, state } = shop;
  const [entries, form, query, count, more, facets] = ["entries", "search", "query", "count", "more", "facets"].map(
    (id) => document.getElementById(id));
  const PAGE = 24;
  let shown = PAGE;

  const row = (item) => {
    const node = make("tr"), head = make("th");
    head.scope = "row";
    const box = make("div", "item");
    box.append(shop.button(item, "big"), make("span", "title", data.titles[item]), make("span", "path", shop.note(item)));
    head.append(box);
    node.append(head);
    for (const name of state.columns) {
      const cell = make("td"), near = make("div", "near");
      cell.dataset.set = name;
      near.append(...data.near[name][item].map((other) => shop.button(other, "")));
      cell.append(near);
      node.append(cell);
    }
    return node;
  };

  const number = (n) => n.toLocaleString("en");
  const words = ({ items, found }) => {
    if (!items) return "";
    const some = found && found.most && found.most < found.words ? `no item has all words; with ${found.most} of ${found.words}: ` : "";
    return `${some}${number(items.length)} found${items.length > shown ? `, ${number(shown)} shown` : ""}`;
  };

  const list = () => {
    const kept = shop.kept(), items = kept.items || data.first;
    entries.replaceChildren(...items.slice(0, shown).map(row));
    count.textContent = words(kept);
    more.hidden = items.length <= shown;
    if (state.ring || state.facet || state.asked) {
      const clear = make("button", "", "clear");
      clear.type = "button";
      clear.addEventListener("click", () => {
        Object.assign(state, { ring: null, facet: "", asked: null });
        shop.tell("kept");
      });
      count.append(" ", clear);
    }
    for (const chip of facets.children) chip.setAttribute("aria-pressed", chip.dataset.facet === state.facet);
  };

  for (const cell of document.querySelectorAll("th[data-column]")) {
    const chooser = make("select"), column = Number(cell.dataset.column);
    chooser.setAttribute("aria-label", `Feature set of column ${column + 1}`);
    for (const name of Object.keys(data.near)) {
      const option = make("option", "", name);
      option.selected = name === state.columns[column];
      chooser.append(option);
    }
    chooser.addEventListener("change", () => {
      state.columns[column] = chooser.value;
      shop.tell("columns");
    });
    if (Object.keys(data.near).length > 1) cell.replaceChildren(chooser);
  }
  for (const [name, items] of Object.entries(data.facets)) {
    const chip = make("button", "facet", name);
    chip.type = "button";
    chip.dataset.facet = name;
    chip.append(make("span", "", number(items.length)));
    chip.addEventListener("click", () => {
      state.facet = state.facet === name ? "" : name;
      shop.tell("kept");
    });
    facets.append(chip);
  }
  facets.hidden = !facets.children.length;
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", () => {
    state.query = query.value;
    shop.tell("kept");
  });
  more.addEventListener("click", () => {
    shown += PAGE;
    list();
  });
  shop.on((what) => {
    if (what === "kept") shown = PAGE;
    if (what === "kept" || what === "columns") list();
    if (what === "chosen" && state.chosen >= 0) {
      const box = document.getElementById("panel").getBoundingClientRect();
      if (box.bottom < 80 || box.top > innerHeight - 80) document.getElementById("panel").scrollIntoView({ block: "center" });
    }
  });
  list();
})();
