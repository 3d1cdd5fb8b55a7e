/** What can be taken away. File names name neither file nor patient. */

import { lettering } from "./painting.js";
import { npz } from "./npz.js";
import { report } from "./service.js";

const FOOT = 10; // CSS pixels below the picture, and for each line in it
const LINE = 18;
const SCALE = 2; // pixels for each CSS pixel

/** What the viewer shows. @param {import("./viewer.js").Viewer} viewer @param {string[]} lines below: what it is, and the notice */
export async function savePicture(viewer, name, lines) {
  const [width, height] = viewer.size();
  const foot = FOOT + LINE * lines.length;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * SCALE, (height + foot) * SCALE];
  const context = canvas.getContext("2d");
  context.scale(SCALE, SCALE);
  viewer.paint(context, width, height);
  context.fillStyle = "#000";
  context.fillRect(0, height, width, foot);
  lines.forEach((text, index) => {
    context.font = index ? "10.5px system-ui, sans-serif" : "12px system-ui, sans-serif";
    lettering(context, text, 10, height + LINE * (index + 1));
  });
  save(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), `${name}.png`);
}

/**
 * Image and maps for NumPy: `image` [S, H, W], `saliency` [S, h, w], `region` [S, 4] (x, y, width, height in pixels of
 * the image), `interval` [S, h, w] where the method samples, and texts.
 */
export function saveArrays(name, frames, slices, maps, texts) {
  const [{ height, width }] = frames;
  const [{ shape }] = maps;
  const flat = (rows) => Float32Array.from(rows.flat(2));
  const image = new Float32Array(frames.length * height * width);
  frames.forEach((frame, index) => image.set(valuesOf(frame), index * height * width));
  const arrays = {
    image: { shape: [frames.length, height, width], data: image },
    saliency: { shape: [maps.length, ...shape], data: flat(maps.map((map) => map.saliency)) },
    region: { shape: [slices.length, 4], data: flat(slices.map((slice) => slice.region)) },
  };
  if (maps.every((map) => map.interval)) {
    arrays.interval = { shape: [maps.length, ...shape], data: flat(maps.map((map) => map.interval)) };
  }
  for (const [key, text] of Object.entries(texts)) arrays[key] = { shape: [], data: text };
  save(npz(arrays), `${name}.npz`);
}

const valuesOf = (frame) => Float32Array.from(frame.pixels, (stored) => stored * frame.slope + frame.intercept);

/** @param {string} name @param {any} content */
export function saveJson(name, content) {
  save(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), `${name}.json`);
}

/** A page made by the service. @param {any} frame @param {{model: string, method: string, target: string, against: string}} wish */
export async function saveReport(name, frame, wish) {
  save(await report(frame.file, wish, frame.number), `${name}.pdf`);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
