/** The viewer: a frame with a saliency map over it. It knows nothing of the page around it. */

import { annotate, closed, paintCrosshair, paintDivider, paintRegion, stroke } from "./annotations.js";
import { contoursOf, paintFrame, paintMap } from "./painting.js";
import { Gestures } from "./gestures.js";
import { panesOf, Placement, scaleBar } from "./placement.js";

/**
 * @typedef {import("./painting.js").Frame} Frame
 * @typedef {import("./painting.js").SaliencyMap} SaliencyMap
 * @typedef {import("./painting.js").Style} Style
 *
 * @typedef {Object} Scene
 * @property {Frame} frame
 * @property {SaliencyMap | null} [map]
 * @property {SaliencyMap | null} [other] what `map` is compared with.
 * @property {{lines: [number, number][][], colour: string}[]} [outlines] closed lines over image and map, in pixels of the frame.
 * @property {boolean} [keep] keep window, zoom and place: the next slice of the same series.
 *
 * @typedef {Style & {compare: "off" | "side" | "swipe", split: number, tool: "window" | "pan"}} Settings
 *
 * @typedef {Object} Probe what is under the cursor.
 * @property {number} column of the frame.
 * @property {number} row of the frame.
 * @property {number} value of the frame.
 * @property {SaliencyMap | null} map that is shown there.
 * @property {number | null} saliency the raw value of the map's cell there; null outside its region.
 * @property {number | null} interval half-width of the value's 95 % confidence interval.
 * @property {[number, number] | null} cell row and column of it.
 */

/** @type {Settings} */
export const DEFAULTS = Object.freeze({
  colours: "inferno", opacity: 0.5, threshold: 0.1, show: "colour", smooth: true, compare: "off", split: 0.5, tool: "window",
});

/**
 * Fills `element` with a canvas and shows frames in it.
 *
 * Events of the viewer (an EventTarget):
 *   `probe`   detail: Probe, or null where the cursor left the image
 *   `change`  window, zoom or settings changed by hand; read `window`, `zoom`, `settings`
 *   `slice`   detail: by how many slices the wheel or a key wants to go on
 *
 * The canvas takes the focus. Its keys: arrows move the cursor (shift: move the image), + and - zoom, 0 shows all,
 * w and W make the window narrower and wider, l and L move its level, page up and down change the slice.
 */
export class Viewer extends EventTarget {
  /** @param {HTMLElement} element @param {{label?: string, scrolls?: () => boolean}} [options] `scrolls`: the wheel means slices */
  constructor(element, { label = "Image viewer", scrolls = () => false } = {}) {
    super();
    this.canvas = document.createElement("canvas");
    this.canvas.className = "viewer-canvas";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "image viewer");
    this.canvas.setAttribute("aria-label", label);
    element.append(this.canvas);
    this.label = label;
    this.scrolls = scrolls;
    /** @type {Settings} */
    this.settings = { ...DEFAULTS };
    /** @type {Scene | null} */
    this.scene = null;
    /** @type {[number, number]} values shown black and white */
    this.window = [0, 255];
    this.placement = new Placement();
    /** @type {[number, number] | null} frame pixel under the cursor */
    this.cursor = null;
    this.painted = {};
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(element);
    this.gestures = new Gestures(this);
  }

  /** Show a scene. @param {Scene} scene */
  show(scene) {
    const before = this.scene;
    this.scene = scene;
    this.painted = before?.frame === scene.frame ? { grey: this.painted.grey, greyKey: this.painted.greyKey } : {};
    if (!scene.keep || !before) {
      this.window = [...scene.frame.window];
      this.placement.fit(scene.frame);
      this.cursor = null;
    }
    this.draw();
    this.#probed();
  }

  /** Show nothing. */
  clear() {
    this.scene = null;
    this.painted = {};
    this.draw();
  }

  /** Change some settings. @param {Partial<Settings>} settings */
  set(settings) {
    this.settings = { ...this.settings, ...settings };
    if ("colours" in settings || "opacity" in settings || "threshold" in settings || "smooth" in settings) {
      this.painted.map = this.painted.other = undefined;
    }
    this.draw();
    this.#tell("change");
  }

  /** Values shown black and white. @param {number} low @param {number} high */
  setWindow(low, high) {
    const least = this.scene ? this.scene.frame.slope : 1;
    this.window = high - low < least ? [(low + high - least) / 2, (low + high + least) / 2] : [low, high];
    this.draw();
    this.#tell("change");
  }

  /** The frame's own window. */
  resetWindow() {
    if (this.scene) this.setWindow(...this.scene.frame.window);
  }

  /** 1 shows the whole frame. */
  get zoom() {
    return this.placement.zoom;
  }

  /** Enlarge. @param {number} factor @param {[number, number]} [at] canvas point that stays in place; the middle by default */
  zoomBy(factor, at) {
    this.placement.zoomBy(factor, this.#pane(at), at);
    this.draw();
    this.#tell("change");
  }

  /** Move the image. @param {number} dx @param {number} dy in CSS pixels */
  panBy(dx, dy) {
    this.placement.panBy(dx, dy, this.#pane());
    this.draw();
  }

  /** Show the whole frame. */
  fit() {
    if (this.scene) this.placement.fit(this.scene.frame);
    this.draw();
    this.#tell("change");
  }

  /** Ask for another slice. @param {number} by */
  slice(by) {
    this.#tell("slice", by);
  }

  /** Put the cursor on a point of the canvas; null takes it away. @param {[number, number] | null} at CSS pixels */
  point(at) {
    const pane = at && this.#pane(at);
    this.cursor = pane ? this.placement.toFrame(at, pane) : null;
    this.cursorPane = pane;
    this.#probed();
  }

  /** Move the cursor over the frame. @param {number} dx @param {number} dy in frame pixels */
  moveCursor(dx, dy) {
    if (!this.scene) return;
    const { width, height } = this.scene.frame;
    const [x, y] = this.cursor ?? [width / 2, height / 2];
    this.cursor = [Math.max(0.5, Math.min(width - 0.5, x + dx)), Math.max(0.5, Math.min(height - 0.5, y + dy))];
    this.cursorPane = this.cursorPane ?? this.#pane();
    this.crosshair = true;
    this.draw();
    this.#probed();
  }

  /** What is under the cursor. @returns {Probe | null} */
  probe() {
    if (!this.scene || !this.cursor) return null;
    const { frame } = this.scene;
    const [column, row] = this.cursor.map(Math.floor);
    if (column < 0 || row < 0 || column >= frame.width || row >= frame.height) return null;
    const map = this.#mapAt();
    const value = frame.pixels[row * frame.width + column] * frame.slope + frame.intercept;
    const here = { column, row, value, map, saliency: null, interval: null, cell: null };
    if (!map) return here;
    const [x, y, width, height] = map.region;
    const cell = [Math.floor(((this.cursor[1] - y) / height) * map.rows), Math.floor(((this.cursor[0] - x) / width) * map.columns)];
    const inside = cell[0] >= 0 && cell[1] >= 0 && cell[0] < map.rows && cell[1] < map.columns;
    if (!inside) return here;
    const at = cell[0] * map.columns + cell[1];
    return { ...here, saliency: map.values[at], interval: map.interval?.[at] ?? null, cell };
  }

  /** Paint everything anew, now. */
  draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = this.size();
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.paint(context, width, height);
  }

  /** Paint into any context. @param {CanvasRenderingContext2D} context @param {number} width @param {number} height */
  paint(context, width, height) {
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (!this.scene) return;
    context.font = "12px system-ui, sans-serif";
    for (const pane of panesOf(this.scene, this.settings, width, height)) this.#paintPane(context, pane);
    if (this.settings.compare === "swipe" && this.scene.other) paintDivider(context, this.settings.split, width, height);
  }

  /** CSS pixels of the canvas. @returns {[number, number]} */
  size() {
    return [Math.max(1, this.canvas.clientWidth), Math.max(1, this.canvas.clientHeight)];
  }

  #paintPane(context, pane) {
    const { frame, outlines = [] } = this.scene;
    const map = this.scene[pane.which];
    context.save();
    context.beginPath();
    context.rect(...pane.clip);
    context.clip();
    context.save();
    this.placement.apply(context, pane);
    context.beginPath();
    context.rect(0, 0, frame.width, frame.height);
    context.clip();
    context.imageSmoothingEnabled = this.placement.scale(pane) < 3;
    context.drawImage(this.#grey(), 0, 0);
    context.imageSmoothingEnabled = this.settings.smooth;
    if (map && this.settings.show === "colour") context.drawImage(this.#coloured(pane.which), ...map.region);
    const thin = 1 / this.placement.scale(pane);
    if (map && this.settings.show !== "hidden") paintRegion(context, map.region, thin);
    if (map && this.settings.show === "contour") contoursOf(map, this.settings).forEach((line) => stroke(context, line, thin));
    outlines.forEach((each) => stroke(context, { path: closed(each.lines), colour: each.colour }, 1.4 * thin));
    if (this.crosshair && this.cursor) paintCrosshair(context, this.cursor, thin);
    context.restore();
    annotate(context, pane, this.settings.show === "hidden" ? null : map, this.settings, this.#hasOwnScale(pane));
    if (pane.first) scaleBar(context, frame, this.placement.scale(pane), pane.clip[0] + 10, pane.clip[1] + pane.clip[3] - 12);
    context.restore();
  }

  /** While swiping, one bar serves both maps where their scales are the same. */
  #hasOwnScale(pane) {
    const { map, other } = this.scene;
    return !(pane.first && this.settings.compare === "swipe" && other && map.peak === other.peak && map.unit === other.unit);
  }

  #grey() {
    const key = this.window.join();
    if (this.painted.greyKey !== key) {
      this.painted.grey = paintFrame(this.scene.frame, this.window);
      this.painted.greyKey = key;
    }
    return this.painted.grey;
  }

  #coloured(which) {
    this.painted[which] ??= paintMap(this.scene[which], this.settings);
    return this.painted[which];
  }

  #pane(at) {
    const panes = this.scene ? panesOf(this.scene, this.settings, ...this.size()) : [];
    const inside = ({ clip: [x, y, width, height] }) =>
      at[0] >= x && at[0] < x + width && at[1] >= y && at[1] < y + height;
    return (at && panes.find(inside)) || panes[0] || null;
  }

  #mapAt() {
    return this.scene[this.cursorPane?.which ?? "map"] ?? null;
  }

  #probed() {
    this.#tell("probe", this.probe());
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
