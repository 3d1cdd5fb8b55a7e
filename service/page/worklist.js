/** The list of what is open, with thumbnails and what was found. */

import { byId, element, percent } from "./dom.js";
import { paintFrame } from "./painting.js";

const SIDE = 88; // pixels of a thumbnail

/** Keeps one item for each case, so that the focus stays where it is. */
export class Worklist {
  /** @param {import("./cases.js").Desk} desk @param {(one: import("./cases.js").Case) => void} open */
  constructor(desk, open) {
    this.desk = desk;
    this.open = open;
    this.items = new Map();
    this.list = byId("cases");
  }

  /** @param {import("./cases.js").Case | null} current */
  update(current) {
    for (const [one, item] of this.items) {
      if (!this.desk.cases.includes(one)) {
        item.remove();
        this.items.delete(one);
      }
    }
    for (const one of this.desk.cases) {
      if (!this.items.has(one)) this.#make(one);
      this.#refresh(one, this.items.get(one), one === current);
    }
  }

  #make(one) {
    const picture = element("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" });
    const button = element("button.case", { type: "button", onclick: () => this.open(one) },
      picture, element("span.case-text", {}, element("span.case-name", {}, one.name), element("span.case-found")));
    const close = element("button.plain.case-close", { type: "button", onclick: () => this.desk.remove(one) }, "×");
    const item = element("li", {}, button, close);
    this.items.set(one, item);
    this.list.append(item);
  }

  #refresh(one, item, current) {
    const [button, close] = item.children;
    button.setAttribute("aria-current", current ? "true" : "false");
    button.querySelector(".case-name").textContent = one.name;
    close.setAttribute("aria-label", `Close ${one.name}`);
    const found = button.querySelector(".case-found");
    found.textContent = this.#found(one);
    found.className = `case-found ${one.state}`;
    found.classList.toggle("warned", Boolean(one.answer?.warnings.length || one.answer?.reasons.length));
    this.#thumbnail(one, button.querySelector("canvas"));
  }

  #found(one) {
    if (one.state === "failed") return one.problem;
    if (one.state === "reading") return "reading…";
    if (one.state === "predicting") return "predicting…";
    if (!one.answer) return "no rule matches";
    const { labels } = this.desk.models.get(one.answer.model.id);
    const shown = labels.find((label) => label.name === one.answer.label).display;
    const { warnings, reasons } = one.answer;
    return `${warnings.length || reasons.length ? "⚠ " : ""}${shown} ${percent(one.answer.probabilities[one.answer.label])}`;
  }

  async #thumbnail(one, canvas) {
    const frame = one.frames[one.answer ? one.slice : Math.floor(one.frames.length / 2)];
    if (frame ? canvas.shown === frame : canvas.shown === one.preview) return;
    canvas.shown = frame ?? one.preview;
    const picture = frame ? paintFrame(frame, frame.window) : await createImageBitmap(one.preview).catch(() => null);
    if (!picture || canvas.shown !== (frame ?? one.preview)) return;
    const scale = Math.min(SIDE / picture.width, SIDE / picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    context.drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  }
}
