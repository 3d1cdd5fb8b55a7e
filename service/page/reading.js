/** The case that is looked at: which slice, which maps, what they are compared with. */

import { keyOf } from "./cases.js";
import { COLOURS } from "./colours.js";
import { COLOUR } from "./outlines.js";

/** Joins a desk and a viewer. Tells `change` (what is looked at), `working` (detail: {share, text} or null) and `problem` (detail: text). */
export class Reading extends EventTarget {
  /**
   * @param {import("./cases.js").Desk} desk @param {import("./viewer.js").Viewer} viewer
   * @param {import("./outlines.js").Outlines} outlines
   */
  constructor(desk, viewer, outlines) {
    super();
    this.desk = desk;
    this.viewer = viewer;
    this.outlines = outlines;
    /** @type {import("./cases.js").Case | null} */
    this.current = null;
    /** @type {import("./cases.js").Wish | null} what the map is compared with */
    this.other = null;
    /** @type {import("./outlines.js").Outlined | null} what is outlined in the slice shown */
    this.outlined = null;
    this.shown = null;
    outlines.addEventListener("change", () => this.refresh());
    this.converted = new WeakMap();
  }

  /** The description of the model that answered. */
  get model() {
    return this.desk.models.get(this.current?.answer?.model.id) ?? null;
  }

  /** The frame that is shown. */
  get frame() {
    return this.current?.frames[this.current.slice] ?? null;
  }

  /** @param {import("./cases.js").Case | null} one */
  open(one) {
    this.stop();
    this.current = one;
    this.other = null;
    this.refresh();
    this.#compareWithSecond();
  }

  /** Show what there is; called whenever the desk learned something. */
  refresh() {
    if (this.current && !this.desk.cases.includes(this.current)) this.current = this.desk.cases[0] ?? null;
    const one = this.current;
    const slice = one && Math.max(0, Math.min(one.frames.length - 1, one.slice));
    const frame = one?.frames[slice];
    this.outlined = this.outlines.of(frame, this.model);
    if (!frame) {
      this.viewer.clear();
      this.shown = null;
    } else {
      if (one.answer && !this.other && this.viewer.settings.compare !== "off") this.#compareWithSecond();
      const [map, other] = this.#maps(slice);
      const lines = this.outlined?.found?.contours;
      this.viewer.show({ frame, map, other, outlines: lines && [{ lines, colour: COLOUR }], keep: this.shown === one });
      this.shown = one;
    }
    this.#tell("change");
  }

  /** Look at another method or class. @param {Partial<import("./cases.js").Wish>} change */
  async ask(change) {
    const one = this.current;
    const wish = this.#fitting({ ...one.wish, ...change });
    if (await this.#get(one, wish)) one.wish = wish;
    this.refresh();
  }

  /** Compare with another method or class. @param {Partial<import("./cases.js").Wish>} change */
  async compareWith(change) {
    const one = this.current;
    const wish = this.#fitting({ ...(this.other ?? one.wish), ...change });
    if (await this.#get(one, wish)) this.other = wish;
    this.refresh();
  }

  /** @param {"off" | "side" | "swipe"} compare */
  async setCompare(compare) {
    this.viewer.set({ compare });
    if (compare !== "off") await this.#compareWithSecond();
    this.refresh();
  }

  /** @param {number} slice from 0 */
  setSlice(slice) {
    if (!this.current?.frames.length) return;
    this.current.slice = Math.max(0, Math.min(this.current.frames.length - 1, slice));
    this.refresh();
  }

  /** End what is waited for. */
  stop() {
    this.waiting?.abort();
  }

  /** The class most probable besides the one shown, by the same method. */
  async #compareWithSecond() {
    const one = this.current;
    if (!one?.answer || this.other || this.viewer.settings.compare === "off") return;
    const ranked = Object.entries(one.answer.probabilities).sort((a, b) => b[1] - a[1]).map(([name]) => name);
    this.other = { ...one.wish, target: ranked.find((name) => name !== one.wish.target), against: "" };
    await this.compareWith({});
  }

  /** A class cannot be contrasted with itself, nor where the method knows no classes. */
  #fitting(wish) {
    const described = this.model.explanations.find((each) => each.method === wish.method);
    const series = this.current.frames.length > 1;
    return { ...wish, against: described.contrast && wish.against !== wish.target && !series ? wish.against : "" };
  }

  async #get(one, wish) {
    this.stop();
    const waiting = new AbortController();
    this.waiting = waiting;
    const text = `${wish.method}…`;
    const late = setTimeout(() => this.#tell("working", { text, share: null }), 250);
    try {
      await this.desk.explain(one, wish, waiting.signal, (share) => this.#tell("working", { text, share }));
      return true;
    } catch (error) {
      if (error.name !== "AbortError") this.#tell("problem", error.message);
      return false;
    } finally {
      clearTimeout(late);
      if (this.waiting === waiting) this.#tell("working", null);
    }
  }

  #maps(slice) {
    const { answer, wish } = this.current;
    if (!answer || !wish) return [null, null];
    const map = this.#map(slice, wish);
    const other = this.viewer.settings.compare === "off" || !this.other ? null : this.#map(slice, this.other);
    if (map && other && wish.method === this.other.method) map.peak = other.peak = Math.max(map.peak, other.peak);
    return [map, other];
  }

  /** The map in the viewer's terms, its colours on one scale for all slices. */
  #map(slice, wish) {
    const { answer } = this.current;
    const all = answer.slices.map((each) => each.maps.get(keyOf(wish)));
    if (!all[slice]) return null;
    const { diverging } = COLOURS[this.viewer.settings.colours];
    const cells = this.#cells(all[slice]);
    const peak = Math.max(...all.map((each) => most(this.#cells(each).values, diverging)));
    const display = (name) => this.model.labels.find((label) => label.name === name).display;
    const described = this.model.explanations.find((each) => each.method === wish.method);
    const title = `${wish.method} · ${display(wish.target)}${wish.against ? `, not ${display(wish.against)}` : ""}`;
    return { ...cells, region: answer.slices[slice].region, unit: described.unit, title, peak };
  }

  #cells(explanation) {
    if (!this.converted.has(explanation)) {
      const [rows, columns] = explanation.shape;
      const flat = (rows) => rows && Float32Array.from(rows.flat());
      this.converted.set(explanation, { rows, columns, values: flat(explanation.saliency), interval: flat(explanation.interval) });
    }
    return this.converted.get(explanation);
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

const most = (values, diverging) => values.reduce((peak, value) => Math.max(peak, diverging ? Math.abs(value) : value), 0);
