"use strict";

// Strokes by mouse in Neuroglancer's slices. Where the mouse is follows from the transformation of a
// panel's last frame, which is no documented interface: it stands on release 2.41.2. Points are z, y,
// x in voxels of level 0, whole numbers being voxel centres.

const NEAREST_VOXELS = 0.5;

class Drawing {
  /** @param {HTMLIFrameElement} frame  @param {(points: number[][]) => void} onStroke
   *  @param {(nPoints: number) => void} onProgress  @param {(event: KeyboardEvent) => void} onKey */
  constructor(frame, onStroke, onProgress, onKey) {
    this.frame = frame;
    this.onStroke = onStroke;
    this.onProgress = onProgress;
    this.tool = "move";
    this.points = [];
    this.isPressed = false;
    const page = frame.contentDocument;
    // The values under the mouse must not change the height of the bar above the panels, or the
    // panels would move under the mouse.
    const style = page.createElement("style");
    style.textContent =
      ".neuroglancer-layer-panel { flex-wrap: nowrap; overflow: hidden; white-space: nowrap; }";
    page.head.append(style);
    page.addEventListener("mousedown", (event) => this.press(event), true);
    page.addEventListener("dblclick", (event) => this.doubleClick(event), true);
    page.addEventListener("mousemove", (event) => this.move(event), true);
    page.addEventListener("mouseup", (event) => this.release(event), true);
    page.addEventListener("keydown", onKey, true);
  }

  choose(tool) {
    this.tool = tool;
    this.drop();
  }

  drop() {
    this.points = [];
    this.isPressed = false;
    this.onProgress(0);
  }

  finish() {
    const points = this.points;
    this.drop();
    if (points.length) this.onStroke(points);
  }

  /** The slice under an event, or undefined. */
  slice(event) {
    const { panels } = this.frame.contentWindow.viewer.display;
    return [...panels].find((panel) => panel.sliceView && panel.element.contains(event.target));
  }

  /** Where the middle of the pixel under the mouse is. */
  position(panel, event) {
    const { left, top } = panel.element.getBoundingClientRect();
    const [a, b] = panel.pickingData;
    const frame = a.frameNumber > b.frameNumber ? a : b;
    const across = event.clientX + 0.5 - left - panel.element.clientLeft;
    const down = event.clientY + 0.5 - top - panel.element.clientTop;
    const right = (2 * across) / frame.viewportWidth - 1;
    const up = 1 - (2 * down) / frame.viewportHeight;
    const m = frame.invTransform;
    const { navigationState } = panel;
    const { names } = navigationState.coordinateSpace.value;
    const point = Array.from(navigationState.position.value);
    const { displayDimensionIndices } = navigationState.pose.displayDimensions.value;
    [0, 1, 2].forEach((i) => {
      point[displayDimensionIndices[i]] = m[i] * right + m[4 + i] * up + m[12 + i];
    });
    return ["z", "y", "x"].map((axis) => point[names.indexOf(axis)]);
  }

  press(event) {
    const isPlain = event.button === 0 && !event.ctrlKey && !event.altKey && !event.metaKey;
    if (this.tool === "move" || !isPlain || !this.slice(event)) return;
    event.stopPropagation();
    event.preventDefault();
    this.frame.contentWindow.focus();
    if (!this.add(event)) return;
    this.isPressed = this.tool === "freehand" || this.tool === "line";
    if (this.tool === "dab" || (this.tool === "line" && this.points.length > 1)) this.finish();
  }

  move(event) {
    if (this.isPressed && this.tool === "freehand") this.add(event);
  }

  release(event) {
    if (!this.isPressed) return;
    this.isPressed = false;
    if (this.tool === "freehand") this.finish();
    // A line is drawn by dragging, or by two clicks.
    else if (this.add(event)) this.finish();
  }

  doubleClick(event) {
    if (this.tool === "move" || !this.slice(event)) return;
    event.stopPropagation();
    if (this.tool === "polyline") this.finish();
  }

  /** Add where the mouse is; tell whether that is another place than the last. */
  add(event) {
    const panel = this.slice(event);
    if (!panel) return false;
    const point = this.position(panel, event);
    const last = this.points[this.points.length - 1];
    if (last && Math.hypot(...point.map((p, i) => p - last[i])) < NEAREST_VOXELS) return false;
    this.points.push(point);
    this.onProgress(this.points.length);
    return true;
  }
}
