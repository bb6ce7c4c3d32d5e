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
  const haystack = data.titles.map((title, item) => plain(`${title} ${note(item)} ${data.asins[item]} ${item}`));

  const image = (item, size) => {
    const cell = data.cells[item], node = make("span", `pic ${size}`);
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

  const state = { query: "", asked: null, chosen: -1, set: data.columns[0] };
  const listeners = [];
  const tell = (what) => { for (const listener of listeners) listener(what); };
  const choose = (item) => {
    state.chosen = item;
    tell("chosen");
  };

  // Items of the question's answer with all words of the search; null where nothing was asked for.
  const kept = () => {
    const words = plain(state.query).split(" ").filter(Boolean);
    if (!words.length && !state.asked) return null;
    const items = state.asked || [...Array(count).keys()];
    return items.filter((item) => words.every((word) => haystack[item].includes(` ${word}`)));
  };
  return { data, count, note, image, button, state, kept, choose, tell, on: (listener) => listeners.push(listener) };
})();
