"use strict";
// The items that the page carries, what is searched and chosen of them, and how one is drawn. Text from data only ever
// becomes text nodes and attributes, never markup.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const shop = (() => {
  const carried = document.getElementById("items");
  if (!carried) return null;
  const data = JSON.parse(carried.textContent);
  const COLUMNS = 20, count = data.titles.length;
  const note = (item) => data.paths[data.notes[item]];
  const plain = (text) => ` ${text.toLowerCase().split(/[^\p{L}\p{N}]+/u).join(" ")}`;
  const titles = data.titles.map(plain);
  const haystack = titles.map((title, item) => `${title} ${plain(note(item))} ${plain(data.words[item])}`);

  const image = (item, size) => {
    const cell = data.cells[item];
    const node = make("span", `pic ${size}`);
    node.title = data.titles[item];
    if (cell < 0) {
      node.classList.add("words");
      node.textContent = data.titles[item];
      return node;
    }
    node.classList.add(`s${Math.floor(cell / (COLUMNS * COLUMNS))}`);
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", data.titles[item]);
    node.style.setProperty("--x", cell % COLUMNS);
    node.style.setProperty("--y", Math.floor(cell / COLUMNS) % COLUMNS);
    return node;
  };

  // The same as a button, which chooses the item.
  const button = (item, size) => {
    const node = make("button", "pick");
    node.type = "button";
    node.append(image(item, size));
    node.setAttribute("aria-label", data.titles[item]);
    node.addEventListener("click", () => choose(item));
    return node;
  };

  // Items with all words, each as the beginning of a word of title, category or text; without any, those with the most.
  const search = (text) => {
    const words = plain(text).split(" ").filter(Boolean);
    if (!words.length) return null;
    const number = words.length === 1 && /^\d+$/.test(words[0]) ? Number(words[0]) : -1;
    const found = [];
    let most = 0;
    for (let item = 0; item < count; item++) {
      let hits = 0, titled = 0;
      for (const word of words) {
        if (!haystack[item].includes(` ${word}`)) continue;
        hits++;
        if (titles[item].includes(` ${word}`)) titled++;
      }
      if (item === number) [hits, titled] = [words.length, words.length + 1];
      if (hits) found.push([hits, titled, item]);
      most = Math.max(most, hits);
    }
    const best = found.filter(([hits]) => hits === most).sort((a, b) => b[1] - a[1] || a[2] - b[2]);
    return { items: best.map(([, , item]) => item), words: words.length, most };
  };

  const state = { query: "", facet: "", ring: null, asked: null, chosen: -1, set: data.columns[0], columns: [...data.columns] };
  const listeners = [];
  const tell = (what) => { for (const listener of listeners) listener(what); };

  // What search, facet, lasso and question leave, in order; null where nothing was asked for.
  const kept = () => {
    const found = search(state.query);
    const parts = [state.asked, found && found.items, state.facet ? data.facets[state.facet] : null, state.ring].filter(Boolean);
    const items = parts.length ? parts.slice(1).reduce((left, part) => {
      const inside = new Set(part);
      return left.filter((item) => inside.has(item));
    }, parts[0]) : null;
    return { items, found };
  };

  const choose = (item) => {
    state.chosen = item;
    tell("chosen");
  };

  const tags = (item) => Object.keys(data.facets).filter((name) => facets[name].has(item));
  const facets = Object.fromEntries(Object.entries(data.facets).map(([name, items]) => [name, new Set(items)]));
  return { data, count, note, image, button, state, kept, choose, tell, tags, facets, on: (listener) => listeners.push(listener) };
})();
