// The box: a text or an image goes to the server that this page came from; the nearest items come back.
(() => {
  const [form, words, picture, encoder, answer, answers] = ["question", "words", "picture", "encoder", "answer", "answers"].map(
    (id) => document.getElementById(id));
  if (!form) return;

  // Text from data only ever becomes text nodes and attributes, never markup.
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const pictured = new Set(JSON.parse(document.getElementById("pictured").textContent));

  // Where the page has no image of an item, its title.
  const image = (item, title) => {
    const node = make("span", "pic big", pictured.has(item) ? "" : title);
    node.classList.add(pictured.has(item) ? `i${item}` : "words");
    node.title = title;
    if (pictured.has(item)) node.setAttribute("role", "img");
    return node;
  };

  const card = ({ item, title, category, cosine }) => {
    const node = make("figure"), caption = make("figcaption");
    node.append(image(item, title));
    caption.append(make("span", "title", title), make("span", "path", category), make("span", "path", `cosine ${cosine.toFixed(3)}`));
    node.append(caption);
    return node;
  };

  const ask = async () => {
    const asked = new URLSearchParams({ encoder: encoder.value, text: words.value });
    answer.textContent = "Asking …";
    try {
      const reply = await fetch(`nearest?${asked}`, { method: "POST", body: picture.files[0] || "", headers: { "x-alignrec": "1" } });
      const told = await reply.json();
      if (!reply.ok) throw new Error(told.error);
      answer.textContent = `The nearest ${told.items.length} items, nearest first`;
      answers.replaceChildren(...told.items.map(card));
    } catch (error) {
      answers.replaceChildren();
      answer.textContent = `Not answered: ${error instanceof TypeError ? "the server cannot be reached" : error.message}`;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  words.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    ask();
  });
})();
