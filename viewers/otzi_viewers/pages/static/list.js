"use strict";

const cards = [...document.querySelectorAll("article")];
const search = document.getElementById("search");
const kinds = [...document.querySelectorAll(".kind")];

function filter() {
  const text = search.value.toLowerCase();
  const wanted = kinds.filter((kind) => kind.checked).map((kind) => kind.value);
  let n = 0;
  for (const card of cards) {
    const isFound =
      card.dataset.id.toLowerCase().includes(text) && wanted.includes(card.dataset.kind);
    card.hidden = !isFound;
    n += isFound;
  }
  document.getElementById("found").textContent = n === 1 ? "1 tomogram" : `${n} tomograms`;
}

for (const input of [search, ...kinds]) input.addEventListener("input", filter);
filter();
