// Groups the items by the prefix of their semantic ID. Text from data only ever becomes text nodes and attributes.
(() => {
  const packed = document.getElementById("code-data");
  if (!packed || !shop) return;
  const codes = JSON.parse(packed.textContent);
  const { titles } = shop.data;
  const haystack = titles.map((title, item) => `${title} ${shop.note(item)}`.toLowerCase());
  const [form, set, query, count, box] = ["code-search", "code-set", "code-query", "code-count", "code-groups"].map(
    (id) => document.getElementById(id));
  const GROUPS = 12, SHOWN = 24;

  // prefix -> items, the largest first
  const grouped = (items, length) => {
    const groups = new Map();
    for (const item of items) {
      const prefix = codes[set.value][item].slice(0, length).join("-");
      if (!groups.has(prefix)) groups.set(prefix, []);
      groups.get(prefix).push(item);
    }
    const byNumber = { numeric: true };
    return [...groups].sort((a, b) => b[1].length - a[1].length || a[0].localeCompare(b[0], "en", byNumber));
  };

  const group = (prefix, items, found) => {
    const node = make("section"), head = make("h3"), link = make("button", "", prefix), near = make("div");
    const ordered = [...items].sort((a, b) => found.has(b) - found.has(a));
    node.className = "group";
    near.className = "near";
    link.type = "button";
    link.addEventListener("click", () => {
      query.value = prefix;
      show();
    });
    head.append(link, ` ${items.length} item${items.length === 1 ? "" : "s"}`);
    near.append(...ordered.slice(0, SHOWN).map((item) => {
      const image = shop.image(item, found.has(item) ? "found" : "");
      image.title = `${titles[item]} · ${codes[set.value][item].join("-")}`;
      return image;
    }));
    node.append(head, near);
    return node;
  };

  const show = () => {
    const text = query.value.trim().toLowerCase();
    const coded = codes[set.value].flatMap((own, item) => (own.length ? [item] : []));
    const levels = coded.length ? codes[set.value][coded[0]].length : 1;
    const prefix = /^\d+(-\d+)*$/.test(text) ? text.split("-").map(Number) : [];
    const words = prefix.length ? [] : text.split(/\s+/).filter(Boolean);
    let found = new Set(), groups;
    if (words.length) {
      found = new Set(coded.filter((item) => words.every((word) => haystack[item].includes(word))));
      groups = grouped(coded, 1).map(([name, items]) => [name, items, items.filter((item) => found.has(item)).length]);
      groups = groups.filter(([, , hits]) => hits).sort((a, b) => b[2] - a[2]);
      count.textContent = `${found.size} item${found.size === 1 ? "" : "s"} found, of ${groups.length} first code${groups.length === 1 ? "" : "s"}`;
    } else {
      const inside = coded.filter((item) => prefix.every((code, level) => codes[set.value][item][level] === code));
      groups = grouped(inside, Math.min(prefix.length + 1, levels));
      count.textContent = prefix.length ? `${inside.length} item${inside.length === 1 ? "" : "s"} begin with ${prefix.join("-")}` : "";
    }
    if (groups.length > GROUPS) count.textContent += `${count.textContent && "; "}${GROUPS} of ${groups.length} groups shown`;
    box.replaceChildren(...groups.slice(0, GROUPS).map(([name, items]) => group(name, items, found)));
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", show);
  set.addEventListener("change", show);
  show();
})();
