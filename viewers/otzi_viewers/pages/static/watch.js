"use strict";

// What Neuroglancer shows in a tab that may not be open, or not at all: data and shaders that fail.
// Names of release 2.41.2.

const WATCH_MILLISECONDS = 1000;
// Of ChunkState 6, failed, in tier 0, visible, the number of chunks: three tiers, three numbers each.
const FAILED_VISIBLE_CHUNKS = 6 * 3 * 3;
const ERROR_SEVERITY = 2;

/** What a layer, its sources and what they draw say is an error, each once. */
function errorTexts(layer) {
  const sources = layer.dataSources.flatMap((source) => [
    source,
    ...(source.loadState?.subsources ?? []),
  ]);
  const messages = [layer, ...sources, ...layer.renderLayers].flatMap((one) => [...one.messages]);
  return new Set(messages.filter((m) => m.severity === ERROR_SEVERITY).map((m) => m.message));
}

/** What is wrong in a viewer now: `kind` is data, shader, chunks or graphics. */
async function findProblems(viewer) {
  const problems = [];
  for (const { name, layer } of viewer.layerManager.managedLayers) {
    if (!layer) continue;
    for (const text of errorTexts(layer)) problems.push({ kind: "data", layer: name, text });
    const shaderError = layer.shaderError?.value;
    if (shaderError) problems.push({ kind: "shader", layer: name, text: shaderError.message });
    for (const { message } of layer.shaderControlState?.parseErrors?.value ?? []) {
      problems.push({ kind: "shader", layer: name, text: message });
    }
  }
  let failed = 0;
  for (const statistics of (await viewer.chunkQueueManager.getStatistics()).values()) {
    failed += statistics[FAILED_VISIBLE_CHUNKS];
  }
  if (failed) problems.push({ kind: "chunks", layer: "", text: `${failed} chunks cannot be read` });
  if (viewer.display.gl.isContextLost()) problems.push({ kind: "graphics", layer: "", text: "" });
  return problems;
}

/** Call `report` whenever what is wrong has changed. */
async function watchProblems(frame, report) {
  let before = "[]";
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, WATCH_MILLISECONDS));
    const problems = await findProblems(frame.contentWindow.viewer);
    const now = JSON.stringify(problems);
    if (now !== before) report(problems);
    before = now;
  }
}
