/** Where the frame lies in the viewer: panes, zoom, place, and the scale bar. */

import { lettering } from "./painting.js";

const MOST = 40; // times the whole frame's size

/**
 * @typedef {Object} Pane
 * @property {"map" | "other"} which of the scene's maps is shown here.
 * @property {[number, number, number, number]} frame x, y, width, height that the image is centred in.
 * @property {[number, number, number, number]} clip the part of it that is painted.
 * @property {boolean} first
 * @property {boolean} titleRight
 */

/** The panes of a scene: one, two beside each other (or above, where that is larger), or two under one divider. @returns {Pane[]} */
export function panesOf(scene, { compare, split }, width, height) {
  const whole = [0, 0, width, height];
  const one = { which: "map", frame: whole, clip: whole, first: true, titleRight: false };
  if (compare === "off" || !scene.other) return [one];
  if (compare === "swipe") {
    const at = split * width;
    return [
      { ...one, clip: [0, 0, at, height] },
      { ...one, which: "other", clip: [at, 0, width - at, height], first: false, titleRight: true },
    ];
  }
  const beside = width >= height;
  const [w, h] = beside ? [width / 2 - 1, height] : [width, height / 2 - 1];
  const second = beside ? [w + 2, 0, w, h] : [0, h + 2, w, h];
  return [
    { ...one, frame: [0, 0, w, h], clip: [0, 0, w, h] },
    { ...one, which: "other", frame: second, clip: second, first: false },
  ];
}

/** Zoom and place, the same in every pane. */
export class Placement {
  constructor() {
    this.zoom = 1;
    this.x = this.y = 0; // the frame's point in the middle of a pane
    this.width = this.height = 1;
    this.aspect = 1; // height of a pixel by its width
  }

  /** @param {import("./painting.js").Frame} frame */
  fit(frame) {
    this.width = frame.width;
    this.height = frame.height;
    this.aspect = frame.spacing ? frame.spacing[0] / frame.spacing[1] : 1;
    this.zoom = 1;
    this.x = frame.width / 2;
    this.y = frame.height / 2;
  }

  /** CSS pixels of a frame pixel's width. @param {Pane} pane */
  scale(pane) {
    return this.zoom * Math.min(pane.frame[2] / this.width, pane.frame[3] / (this.height * this.aspect));
  }

  /** @param {number} factor @param {Pane | null} pane @param {[number, number]} [at] */
  zoomBy(factor, pane, at) {
    if (!pane) return;
    const before = at && this.toFrame(at, pane);
    this.zoom = Math.max(1, Math.min(MOST, this.zoom * factor));
    if (before) {
      const after = this.toFrame(at, pane);
      this.x += before[0] - after[0];
      this.y += before[1] - after[1];
    }
    this.#bound();
  }

  panBy(dx, dy, pane) {
    if (!pane) return;
    this.x -= dx / this.scale(pane);
    this.y -= dy / (this.scale(pane) * this.aspect);
    this.#bound();
  }

  /** The frame's point under one of the canvas. @returns {[number, number]} */
  toFrame([x, y], pane) {
    const [left, top, width, height] = pane.frame;
    const scale = this.scale(pane);
    return [this.x + (x - left - width / 2) / scale, this.y + (y - top - height / 2) / (scale * this.aspect)];
  }

  /** Let a context paint in pixels of the frame. */
  apply(context, pane) {
    const [left, top, width, height] = pane.frame;
    const scale = this.scale(pane);
    context.translate(left + width / 2, top + height / 2);
    context.scale(scale, scale * this.aspect);
    context.translate(-this.x, -this.y);
  }

  #bound() {
    if (this.zoom === 1) [this.x, this.y] = [this.width / 2, this.height / 2];
    this.x = Math.max(0, Math.min(this.width, this.x));
    this.y = Math.max(0, Math.min(this.height, this.y));
  }
}

/** A bar of a round length, where the frame's spacing is known. */
export function scaleBar(context, frame, scale, x, y) {
  if (!frame.spacing) return;
  const perMillimetre = scale / frame.spacing[1];
  const length = [100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1].find((mm) => mm * perMillimetre <= 110);
  if (!length) return;
  const right = x + length * perMillimetre;
  for (const [width, colour] of [[4, "rgba(0,0,0,0.85)"], [1.5, "#e8eef1"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(x, y - 5);
    context.lineTo(x, y);
    context.lineTo(right, y);
    context.lineTo(right, y - 5);
    context.stroke();
  }
  lettering(context, `${length} mm`, x + 4, y - 8);
}
