"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const gallery = document.querySelector(".cards");
  const dialog = document.querySelector("dialog");
  const stage = dialog.querySelector(".stage");
  const chosen = { product: "", tag: "all" };
  const shown = new Set(["heat", "regions", "ignored"]);
  let current = 0;

  const visible = () => cards.filter((card) => !card.hidden);

  function filter() {
    const counts = {};
    for (const card of cards) {
      const tags = card.dataset.tags.split("|");
      const ofProduct = !chosen.product || card.dataset.product === chosen.product;
      if (ofProduct) for (const tag of tags) counts[tag] = (counts[tag] || 0) + 1;
      card.hidden = !(ofProduct && tags.includes(chosen.tag));
    }
    for (const button of document.querySelectorAll("[data-tag-filter]")) {
      button.setAttribute("aria-pressed", button.dataset.tagFilter === chosen.tag);
      button.querySelector(".count").textContent = counts[button.dataset.tagFilter] || 0;
    }
    for (const button of document.querySelectorAll("[data-product-filter]"))
      button.setAttribute("aria-pressed", button.dataset.productFilter === chosen.product);
    document.querySelector(".empty").hidden = visible().length > 0;
  }

  function setLayer(name, on) {
    if (on) shown.add(name); else shown.delete(name);
    for (const box of document.querySelectorAll("[data-layer]")) box.checked = shown.has(box.dataset.layer);
    gallery.dataset.show = stage.dataset.show = [...shown].join(" ");
  }

  function enlarge(card) {
    const list = visible();
    current = list.indexOf(card);
    stage.replaceChildren(card.querySelector(".picture").cloneNode(true), card.querySelector(".facts").cloneNode(true));
    dialog.querySelector(".where").textContent = `${current + 1} of ${list.length}`;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function step(by) {
    const list = visible();
    if (list.length) enlarge(list[(current + by + list.length) % list.length]);
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button");
    if (event.target === dialog) dialog.close();
    if (!target) return;
    if ("productFilter" in target.dataset) { chosen.product = target.dataset.productFilter; filter(); }
    else if ("tagFilter" in target.dataset) { chosen.tag = target.dataset.tagFilter; filter(); }
    else if (target.classList.contains("open")) enlarge(target.closest(".card"));
    else if ("step" in target.dataset) step(Number(target.dataset.step));
    else if ("close" in target.dataset) dialog.close();
  });
  document.addEventListener("change", (event) => {
    if (event.target.dataset.layer) setLayer(event.target.dataset.layer, event.target.checked);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const layer = { h: "heat", r: "regions", m: "mask", t: "truth", i: "ignored" }[event.key.toLowerCase()];
    if (layer) setLayer(layer, !shown.has(layer));
    else if (dialog.open && event.key === "ArrowLeft") step(-1);
    else if (dialog.open && event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    const card = visible()[current];
    if (card) card.querySelector(".open").focus();
  });
})();
