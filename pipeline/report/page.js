"use strict";
// What is folded opens where a link leads into it, and for print.
(() => {
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const folds = [target.closest("details"), target.matches("details") ? target : target.querySelector(":scope > details:first-child")];
    for (const fold of folds) if (fold) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
  unfold();
})();
// Searches the items that the page carries. Text from data only ever becomes text nodes and attributes, never markup.
(() => {
  const items = document.getElementById("items");
  if (!items) return;
  const data = JSON.parse(items.textContent);
  const entries = document.getElementById("entries");
  const form = document.getElementById("search");
  const query = document.getElementById("query");
  const count = document.getElementById("count");
  const COLUMNS = 20, LIMIT = 24;
  const first = [...entries.children];
  const haystack = data.titles.map((title, i) => `${title} ${data.notes[i]}`.toLowerCase());

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };

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

  const entry = (item) => {
    const row = make("tr");
    const head = make("th");
    head.scope = "row";
    head.append(image(item, "big"), make("span", "title", data.titles[item]), make("span", "path", data.notes[item]));
    row.append(head);
    for (const [name, near] of Object.entries(data.near)) {
      const cell = make("td"), box = make("div", "near");
      cell.dataset.set = name;
      box.append(...near[item].map((other) => image(other, "")));
      cell.append(box);
      row.append(cell);
    }
    return row;
  };

  const search = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) {
      entries.replaceChildren(...first);
      count.textContent = "";
      return;
    }
    const matches = [];
    const number = words.length === 1 && /^\d+$/.test(words[0]) ? Number(words[0]) : -1;
    haystack.forEach((text, item) => {
      if (item === number || words.every((word) => text.includes(word))) matches.push(item);
    });
    entries.replaceChildren(...matches.slice(0, LIMIT).map(entry));
    count.textContent = matches.length > LIMIT ? `${LIMIT} of ${matches.length} shown` : `${matches.length} found`;
  };

  const fill = (node, item) => {
    node.replaceChildren(image(item, "big"), make("span", "title", data.titles[item]), make("span", "path", data.notes[item]));
  };

  const dots = document.getElementById("dots");
  if (dots) {
    const circles = [...dots.querySelectorAll("circle")];
    const number = new Map(circles.map((circle, item) => [circle, item]));
    const tip = document.getElementById("tip");
    const which = document.getElementById("set");
    const show = (event) => {
      const item = number.get(event.target);
      tip.hidden = item === undefined;
      if (tip.hidden) return;
      fill(tip, item);
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - 148)}px`;
      tip.style.top = `${Math.max(8, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8))}px`;
    };
    dots.addEventListener("pointerover", show);
    dots.addEventListener("pointerdown", show);
    dots.addEventListener("pointerleave", () => { tip.hidden = true; });
    which.addEventListener("change", () => {
      data.maps[which.value].forEach(([x, y], item) => {
        circles[item].setAttribute("cx", x);
        circles[item].setAttribute("cy", y);
      });
      dots.setAttribute("aria-label", `Map of the items under ${which.value}`);
    });
    document.getElementById("which").hidden = false;
  }

  globalThis.itemImage = image; // for codes.js
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", search);
})();
