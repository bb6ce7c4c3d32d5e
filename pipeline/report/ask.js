// The box: a text or an image goes to the server that this page came from; the nearest items come back.
(() => {
  const [form, words, picture, encoder, answer, answers] = ["question", "words", "picture", "encoder", "answer", "answers"].map(
    (id) => document.getElementById(id));
  if (!form) return;

  const card = ({ item, title, category, cosine }) => {
    const node = make("figure"), caption = make("figcaption");
    node.append(shop ? shop.button(item, "big") : make("span", "pic words big", title));
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
      if (!shop) return;
      const items = told.items.map(({ item }) => item);
      Object.assign(shop.state, { asked: items, chosen: items[0] ?? -1 });
      shop.tell("kept");
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
