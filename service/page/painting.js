/** Pixels and saliency maps to pictures: the only place of the page where values become colours. */

import { COLOURS } from "./colours.js";
import { contour } from "./contours.js";

/**
 * @typedef {Object} Frame a grey image; its values are pixels * slope + intercept.
 * @property {number} width in pixels.
 * @property {number} height in pixels.
 * @property {Uint8Array | Uint16Array} pixels rows, top first.
 * @property {number} slope of the values.
 * @property {number} intercept of the values.
 * @property {[number, number]} window lowest and highest value that are told apart by default.
 * @property {[number, number] | null} [spacing] millimetres between rows and between columns.
 */

/**
 * @typedef {Object} SaliencyMap cells in equal parts over a rectangle of the frame.
 * @property {number} rows of cells.
 * @property {number} columns of cells.
 * @property {Float32Array} values rows * columns, top first; positive speaks for the target.
 * @property {[number, number, number, number]} region x, y, width, height in pixels of the frame.
 * @property {string} title what the map is, such as "gradcam: glioma".
 * @property {string} unit of the values, such as "logit"; empty where they have none.
 * @property {Float32Array | null} [interval] half-widths of the values' 95 % confidence intervals.
 * @property {number} [peak] value of the strongest colour; left out, the largest of this map.
 */

/**
 * @typedef {Object} Style how a map is shown.
 * @property {string} colours a key of COLOURS.
 * @property {number} opacity 0..1.
 * @property {number} threshold share of the peak below which nothing is shown, 0..1.
 * @property {"colour" | "contour" | "hidden"} show
 * @property {boolean} smooth between cell centres, or cells as they are.
 */

const MAP_SIDE = 448; // pixels of a painted map's longer side, about
const CONTOUR_SIDE = 112; // points of the grid on which contours are followed
const LEVELS = [0.25, 0.5, 0.75]; // of the peak: contours beside the one at the threshold

/** A canvas of the frame in grey. @param {Frame} frame @param {[number, number]} window values of black and white */
export function paintFrame(frame, [low, high]) {
  const canvas = sized(frame.width, frame.height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(frame.width, frame.height);
  const out = new Uint32Array(picture.data.buffer);
  const shades = new Uint32Array(frame.pixels.BYTES_PER_ELEMENT === 1 ? 256 : 65536);
  const gain = 255 / Math.max(high - low, 1e-9);
  for (let stored = 0; stored < shades.length; stored++) {
    const grey = Math.max(0, Math.min(255, Math.round((stored * frame.slope + frame.intercept - low) * gain)));
    shades[stored] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  for (let at = 0; at < out.length; at++) out[at] = shades[frame.pixels[at]];
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** The value of the strongest colour. @param {SaliencyMap} map @param {Style} style */
export function peakOf(map, style) {
  if (map.peak !== undefined) return map.peak;
  const diverging = COLOURS[style.colours].diverging;
  return map.values.reduce((most, value) => Math.max(most, diverging ? Math.abs(value) : value), 0);
}

/** A canvas of the map in colour, transparent where there is nothing to see. @param {SaliencyMap} map @param {Style} style */
export function paintMap(map, style) {
  const { diverging, table } = COLOURS[style.colours];
  const peak = peakOf(map, style);
  const factor = Math.max(1, Math.round(MAP_SIDE / Math.max(map.rows, map.columns)));
  const canvas = sized(map.columns * factor, map.rows * factor);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const values = style.smooth ? enlarged(map, canvas.width, canvas.height) : null;
  for (let y = 0, at = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, at++) {
      const value = values ? values[at] : map.values[Math.floor(y / factor) * map.columns + Math.floor(x / factor)];
      const share = peak > 0 ? Math.max(-1, Math.min(1, value / peak)) : 0;
      const strength = diverging ? Math.abs(share) : Math.max(share, 0);
      if (strength <= 0 || strength < style.threshold) continue;
      const colour = 3 * Math.round(255 * (diverging ? (share + 1) / 2 : strength));
      picture.data.set(table.subarray(colour, colour + 3), 4 * at);
      picture.data[4 * at + 3] = Math.round(255 * style.opacity * Math.sqrt(strength));
    }
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/**
 * Contours of the map as a path in pixels of the frame, one for each level.
 * @param {SaliencyMap} map @param {Style} style
 * @returns {{path: Path2D, colour: string, negative: boolean}[]}
 */
export function contoursOf(map, style) {
  const { diverging, table } = COLOURS[style.colours];
  const peak = peakOf(map, style);
  if (peak <= 0) return [];
  const shares = [...new Set([Math.max(style.threshold, 0.05), ...LEVELS])].filter((share) => share >= style.threshold);
  const signs = diverging ? [1, -1] : [1];
  return shares.flatMap((share) => signs.map((sign) => {
    const colour = 3 * Math.round(255 * (diverging ? (sign * share + 1) / 2 : 0.35 + 0.65 * share));
    return { path: outline(map, sign * share * peak), colour: `rgb(${table.subarray(colour, colour + 3).join(",")})`,
      negative: sign < 0 };
  }));
}

/** The line on which a map takes a value, in pixels of the frame. @param {SaliencyMap} map @param {number} level */
function outline(map, level) {
  const [x, y, width, height] = map.region;
  const coarse = Math.max(map.rows, map.columns) < CONTOUR_SIDE;
  const columns = coarse ? CONTOUR_SIDE : map.columns;
  const rows = coarse ? Math.round((CONTOUR_SIDE * map.rows) / map.columns) : map.rows;
  const grid = coarse ? enlarged(map, columns, rows) : map.values;
  const path = new Path2D();
  const segments = contour(grid, rows, columns, level);
  for (let at = 0; at < segments.length; at += 4) {
    path.moveTo(x + ((segments[at] + 0.5) / columns) * width, y + ((segments[at + 1] + 0.5) / rows) * height);
    path.lineTo(x + ((segments[at + 2] + 0.5) / columns) * width, y + ((segments[at + 3] + 0.5) / rows) * height);
  }
  return path;
}

/**
 * The bar that says which value has which colour, with its unit, standing.
 * @param {CanvasRenderingContext2D} context @param {SaliencyMap} map @param {Style} style
 * @param {number} right edge of the pane @param {number} bottom edge of the pane @param {number} length of the bar
 */
export function paintColourBar(context, map, style, right, bottom, length) {
  const { diverging, table } = COLOURS[style.colours];
  const peak = peakOf(map, style);
  const [left, top, width] = [right - 22, bottom - length, 10];
  for (let step = 0; step < length; step++) {
    const share = 1 - step / (length - 1);
    const colour = 3 * Math.round(255 * share);
    const strength = diverging ? Math.abs(2 * share - 1) : share;
    context.fillStyle = strength < style.threshold ? "#000" : `rgb(${table.subarray(colour, colour + 3).join(",")})`;
    context.fillRect(left, top + step, width, 1.5);
  }
  context.strokeStyle = "rgba(255,255,255,0.55)";
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, width + 1, length + 1);
  const ends = peak > 0 ? [short(peak), diverging ? "0" : short(peak / 2), diverging ? short(-peak) : "0"] : ["no", "positive", "values"];
  context.textAlign = "right";
  ends.forEach((text, index) => lettering(context, text, left - 5, top + 4 + (index * length) / 2));
  lettering(context, map.unit || "no unit", right - 12, top - 10);
  context.textAlign = "left";
}

/** Text that can be read on any image. */
export function lettering(context, text, x, y) {
  context.lineWidth = 3;
  context.strokeStyle = "rgba(0,0,0,0.85)";
  context.lineJoin = "round";
  context.strokeText(text, x, y);
  context.fillStyle = "#e8eef1";
  context.fillText(text, x, y);
}

/** A number in three digits. @param {number} value */
export const short = (value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toString().replace("-", "\u2212"));

/** The map on a finer grid, bilinear between cell centres. @param {SaliencyMap} map */
function enlarged(map, columns, rows) {
  const out = new Float32Array(rows * columns);
  for (let y = 0, at = 0; y < rows; y++) {
    const v = Math.max(0, Math.min(map.rows - 1, ((y + 0.5) * map.rows) / rows - 0.5));
    const [top, down] = [Math.floor(v), v - Math.floor(v)];
    const bottom = Math.min(top + 1, map.rows - 1);
    for (let x = 0; x < columns; x++, at++) {
      const u = Math.max(0, Math.min(map.columns - 1, ((x + 0.5) * map.columns) / columns - 0.5));
      const [left, along] = [Math.floor(u), u - Math.floor(u)];
      const right = Math.min(left + 1, map.columns - 1);
      const above = map.values[top * map.columns + left] * (1 - along) + map.values[top * map.columns + right] * along;
      const below = map.values[bottom * map.columns + left] * (1 - along) + map.values[bottom * map.columns + right] * along;
      out[at] = above * (1 - down) + below * down;
    }
  }
  return out;
}

function sized(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}
