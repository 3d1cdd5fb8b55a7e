/** What is drawn over image and map: title, colour bar, lines, cursor, divider. */

import { lettering, paintColourBar } from "./painting.js";

/**
 * Title and colour bar of a pane.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./placement.js").Pane} pane
 * @param {import("./painting.js").SaliencyMap | null} map that is shown
 * @param {import("./painting.js").Style} style
 * @param {boolean} bar whether the pane has a colour bar of its own
 */
export function annotate(context, { clip: [x, y, width, height], titleRight }, map, style, bar) {
  if (!map) return;
  context.textAlign = titleRight ? "right" : "left";
  lettering(context, map.title, titleRight ? x + width - 10 : x + 10, y + 18);
  context.textAlign = "left";
  if (bar) paintColourBar(context, map, style, x + width - 6, y + height - 16, Math.min(150, height / 3));
}

/** A line that can be seen on any image; dashed where it stands for a negative value. @param {number} thin a CSS pixel in the context's unit */
export function stroke(context, { path, colour, negative = false }, thin) {
  context.setLineDash(negative ? [4 * thin, 3 * thin] : []);
  context.lineWidth = 3.6 * thin;
  context.strokeStyle = "rgba(0,0,0,0.65)";
  context.stroke(path);
  context.lineWidth = 1.7 * thin;
  context.strokeStyle = colour;
  context.stroke(path);
  context.setLineDash([]);
}

/** What the model saw of a frame. @param {[number, number, number, number]} region x, y, width, height in pixels */
export function paintRegion(context, region, thin) {
  context.strokeStyle = "rgba(184,196,204,0.8)";
  context.lineWidth = thin;
  context.strokeRect(...region);
}

/** Closed lines as one path. @param {[number, number][][]} lines points in pixels of the frame, the first not repeated */
export function closed(lines) {
  const path = new Path2D();
  for (const [first, ...rest] of lines) {
    path.moveTo(...first);
    for (const point of rest) path.lineTo(...point);
    path.closePath();
  }
  return path;
}

/** The cursor that keys move. */
export function paintCrosshair(context, [x, y], thin) {
  context.strokeStyle = "#fff";
  context.lineWidth = 1.2 * thin;
  const [gap, arm] = [4 * thin, 14 * thin];
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + gap * dx, y + gap * dy);
    context.lineTo(x + arm * dx, y + arm * dy);
  }
  context.stroke();
}

/** The line between two maps, to be dragged. @param {number} split share of the width */
export function paintDivider(context, split, width, height) {
  const x = Math.round(split * width);
  context.fillStyle = "#fff";
  context.fillRect(x - 1, 0, 2, height);
  context.beginPath();
  context.arc(x, height / 2, 9, 0, 7);
  context.fill();
  context.fillStyle = "#000";
  context.textAlign = "center";
  context.fillText("\u21d4", x, height / 2 + 4);
  context.textAlign = "left";
}
