/** NumPy's file formats (NEP 1): arrays as .npy, several of them as .npz. */

import { writeZip } from "./zip.js";

/** @typedef {{shape: number[], data: Float32Array | string}} Values float32 in C order, or one text */

/** @param {Object<string, Values>} arrays by name @returns {Blob} what `numpy.load` reads */
export function npz(arrays) {
  return writeZip(Object.entries(arrays).map(([name, values]) => ({ name: `${name}.npy`, bytes: npy(values) })));
}

/** @param {Values} values */
function npy({ shape, data }) {
  const text = typeof data === "string";
  const points = text ? Uint32Array.from([...data], (letter) => letter.codePointAt(0)) : data;
  const kind = text ? `<U${Math.max(1, points.length)}` : "<f4";
  const body = text && !points.length ? new Uint8Array(4) : new Uint8Array(points.buffer, points.byteOffset, points.byteLength);
  const shapes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const header = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${shapes}), }`;
  const length = Math.ceil((10 + header.length + 1) / 64) * 64 - 10;
  const start = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, length & 0xff, length >> 8];
  const bytes = new Uint8Array(10 + length + body.length);
  bytes.set(start);
  bytes.set(new TextEncoder().encode(`${header.padEnd(length - 1)}\n`), 10);
  bytes.set(body, 10 + length);
  return bytes;
}
