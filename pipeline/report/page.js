"use strict";
// What is folded opens where a link leads into it, and for print; words appear under a pointer.
(() => {
  const tip = document.getElementById("tip");
  const show = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  };
  const hide = () => { tip.hidden = true; };
  const say = (event) => {
    const told = event.target.closest && event.target.closest("[data-tip]");
    if (told) show(told.dataset.tip, event);
    else hide();
  };
  for (const kind of ["pointerover", "pointerdown"]) document.addEventListener(kind, say);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();

(() => {
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.querySelector(":scope > details:first-child");
    if (fold) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
  unfold();
})();
