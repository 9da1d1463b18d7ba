"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const frame = document.getElementById("viewer");
const api = `../api/${facts.tomogram}/`;
const POLL_MILLISECONDS = 1000;
const LEAST_PIXELS_WITH_SLIDERS = 700;
const byId = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];

let drawing = null;
let chosenClass = facts.classes[Math.min(1, facts.classes.length - 1)];
let sending = Promise.resolve();
let poll = 0;

function say(text) {
  byId("message").textContent = text;
}

async function ask(action, document_) {
  const answer = await fetch(api + action, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(document_ || {}),
  });
  if (!answer.ok) throw new Error((await answer.text()) || `${answer.status}`);
  return answer;
}

/** Send one after the other, show what comes back, and say that it is done. */
function act(action, document_, done = "") {
  sending = sending.then(async () => {
    try {
      show(await (await ask(action, document_)).json());
      say(done);
    } catch (error) {
      say(error.message);
    }
  });
  return sending;
}

/** Offer products to choose from, at least so many; where there are fewer there is no choice. */
function fill(select, products, chosen, none, least) {
  select.closest("label").hidden = products.length < least;
  const wanted = none === null ? products : ["", ...products];
  if (wanted.join() !== [...select.options].map((o) => o.value).join()) {
    select.replaceChildren(...wanted.map((p) => new Option(p || none, p)));
  }
  select.value = chosen || "";
}

function show(status) {
  fill(byId("segmentation"), status.segmentations, status.segmentation, null, 1);
  fill(byId("beside"), status.segmentations, status.beside, "none", 2);
  const { n_strokes: nStrokes } = status;
  byId("strokes").textContent = nStrokes === 1 ? "1 stroke" : `${nStrokes} strokes`;
  for (const button of all(".layout")) {
    button.ariaPressed = String(button.dataset.layout === status.layout);
  }
  byId("problems").replaceChildren(
    ...status.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  byId("curves").hidden = status.segmentation !== facts.status.segmentation;
  const { job } = status;
  const took = job && `${job.name}: ${job.state}, ${Math.round(job.seconds)} s`;
  byId("job").textContent = job ? [took, job.text].filter(Boolean).join(": ") : "";
  byId("job").className = job ? job.state : "";
  byId("label").disabled = job?.state === "running";
  clearTimeout(poll);
  if (job?.state === "running") poll = setTimeout(() => act("status"), POLL_MILLISECONDS);
}

function choose(tool) {
  drawing?.choose(tool);
  for (const button of all(".tool")) button.ariaPressed = String(button.dataset.tool === tool);
}

function chooseClass(name) {
  chosenClass = name;
  for (const button of all(".class")) button.ariaPressed = String(button.dataset.class === name);
}

function chooseRadius(voxels) {
  byId("radius").value = String(voxels);
  byId("radius-voxels").value = byId("radius").value;
}

function draw(points) {
  const stroke = { class: chosenClass, radius: Number(byId("radius").value), points };
  const { tomogram, classes } = facts;
  act("draw", { schema: 1, tomogram, classes, strokes: [stroke] });
}

function save() {
  act("save", {}, "saved: it opens like this from now on, and otzi render draws so");
}

async function saveFigure() {
  try {
    say("drawing the figure");
    const answer = await ask("figure");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${facts.tomogram}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say("");
  } catch (error) {
    say(error.message);
  }
}

/** Open or close the controls of the chosen layer, beside the panels. */
function showSliders(isShown) {
  const { selectedLayer } = frame.contentWindow.viewer;
  selectedLayer.visible = isShown ?? !selectedLayer.visible;
}

const KEYS = {
  u: () => act("undo"),
  j: () => act("label"),
  g: () => save(),
  q: () => nextClass(-1),
  w: () => nextClass(1),
  "[": () => chooseRadius(Number(byId("radius").value) - 0.5),
  "]": () => chooseRadius(Number(byId("radius").value) + 0.5),
  Enter: () => drawing?.finish(),
  Escape: () => drawing?.drop(),
};

function nextClass(step) {
  const n = facts.classes.length;
  chooseClass(facts.classes[(facts.classes.indexOf(chosenClass) + step + n) % n]);
}

function key(event) {
  const isTyping = /^(input|select|textarea)$/i.test(event.target.tagName);
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (isTyping && event.target.type !== "range") return;
  const tool = all(".tool").find((button) => button.title === `key ${event.key}`);
  const does = tool ? () => choose(tool.dataset.tool) : KEYS[event.key];
  if (!does) return;
  event.preventDefault();
  event.stopPropagation();
  does();
}

function listen() {
  for (const button of all(".tool")) {
    button.addEventListener("click", () => choose(button.dataset.tool));
  }
  for (const button of all(".class")) {
    button.addEventListener("click", () => chooseClass(button.dataset.class));
  }
  for (const button of all(".layout")) {
    button.addEventListener("click", () => act("show", { layout: button.dataset.layout }));
  }
  for (const name of ["segmentation", "beside"]) {
    byId(name).addEventListener("change", () => act("show", { [name]: byId(name).value }));
  }
  for (const action of ["undo", "label"]) {
    byId(action).addEventListener("click", () => act(action));
  }
  byId("save").addEventListener("click", save);
  byId("sliders").addEventListener("click", () => showSliders());
  byId("figure").addEventListener("click", saveFigure);
  byId("radius").addEventListener("input", () => chooseRadius(byId("radius").value));
  document.addEventListener("keydown", key);
}

function begin() {
  const progress = (n) => say(n > 1 ? `${n} points` : "");
  drawing = new Drawing(frame, draw, progress, key);
  watchProblems(frame, (problems) => act("report", { problems }));
  choose("move");
  if (frame.clientWidth < LEAST_PIXELS_WITH_SLIDERS) showSliders(false);
  document.body.dataset.ready = "true";
}

listen();
chooseClass(chosenClass);
show(facts.status);
const isLoaded = () => frame.contentWindow.viewer && frame.contentDocument.readyState === "complete";
if (isLoaded()) begin();
else frame.addEventListener("load", begin);
