// What is folded opens where a link leads into it, and for print; the contents show where the reader is; words under a pointer.
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

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const bar = document.querySelector("nav > div");
  let here = null;
  const mark = () => {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < 120).at(-1);
    const link = passed && links.get(passed.id);
    if (link === here) return;
    if (here) here.removeAttribute("aria-current");
    here = link;
    if (!here) return;
    here.setAttribute("aria-current", "true");
    bar.scrollTo({ left: here.offsetLeft - bar.clientWidth / 2 });
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  const tip = document.getElementById("tip");
  globalThis.showTip = (nodes, event) => {
    tip.replaceChildren(...nodes);
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  };
  globalThis.hideTip = () => { tip.hidden = true; };
  const say = (event) => {
    const told = event.target.closest && event.target.closest("[data-tip]");
    if (!told) {
      if (event.target.id !== "plane") globalThis.hideTip();
      return;
    }
    const box = told.getBoundingClientRect();
    const where = event.clientX === undefined ? { clientX: box.left, clientY: box.bottom } : event;
    globalThis.showTip([make("span", "said", told.dataset.tip)], where);
  };
  for (const kind of ["pointerover", "pointerdown", "focusin"]) document.addEventListener(kind, say);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") globalThis.hideTip(); });
})();
