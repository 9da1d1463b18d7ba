"use strict";

// Neuroglancer's Python client without Python: what stands in for the server is here. The address
// ends with #TOMOGRAM or #TOMOGRAM/LAYOUT; the state of the tomogram is a file, in which
// {collection} stands for where the collection is served.

(() => {
  const scripts = document.currentScript.dataset.scripts.split(" ");
  const root = new URL("../../", document.baseURI);

  // The server's events never come; the client would show that it waits for them.
  window.EventSource = class {
    constructor() {
      setTimeout(() => this.onopen?.(), 0);
    }
    close() {}
  };
  // What it would tell the server is told to nobody.
  const { fetch } = window;
  const isForPython = (url) => /\/(action|state|credentials)\/otzi$/.test(url.pathname);
  window.fetch = (resource, options) =>
    options?.method === "POST" && isForPython(new URL(resource, document.baseURI))
      ? Promise.resolve(new Response('{"g": ""}'))
      : fetch(resource, options);

  function fail(text) {
    document.body.textContent = text;
  }

  async function open() {
    const [tomogram, layout] = decodeURIComponent(window.location.hash.slice(1)).split("/");
    const answer = await fetch(new URL(`states/${encodeURIComponent(tomogram)}.json`, root));
    if (!answer.ok) return fail(`there is no tomogram ${tomogram}`);
    const collection = new URL("collection", root).href;
    const text = (await answer.text()).replaceAll("{collection}", collection);
    const state = JSON.parse(text);
    if (layout) state.layout = { ...state.layout, type: layout };
    window.history.replaceState(null, "", `#!${encodeURIComponent(JSON.stringify(state))}`);
    load();
  }

  function load() {
    for (const name of scripts) {
      const script = document.createElement("script");
      script.src = name;
      script.async = false;
      document.head.append(script);
    }
  }

  window.addEventListener("DOMContentLoaded", () => {
    // A state in the address, as Neuroglancer writes it, stays.
    if (window.location.hash.startsWith("#!")) load();
    else open().catch((error) => fail(error.message));
  });
  window.addEventListener("hashchange", () => {
    if (!window.location.hash.startsWith("#!")) window.location.reload();
  });
})();
