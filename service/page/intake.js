/** Files from wherever they come: dropped, pasted, picked, in folders, in zip archives. */

import { readZip } from "./zip.js";

/** @typedef {{name: string, file: Blob, problem?: string}} Incoming */

/** What was dropped, folders with all that is in them. Must be called before the drop event ends. @param {DataTransfer} transfer */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return named(transfer.files);
  return (await Promise.all(entries.map(walk))).flat();
}

/** @param {FileList | File[]} files @returns {Incoming[]} */
export function named(files) {
  return [...files].filter((file) => !file.name.startsWith(".")).map((file) => ({ name: file.name || "pasted picture", file }));
}

async function walk(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ name: entry.name, file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives at most 100 entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return (await Promise.all(found.map(walk))).flat();
    found.push(...some);
  }
}

/** The same with zip archives replaced by what they hold; a damaged one carries its problem. @param {Incoming[]} files */
export async function unpacked(files) {
  const opened = await Promise.all(files.map(async (incoming) => {
    if (!(await isZip(incoming.file))) return [incoming];
    try {
      return await readZip(incoming.file);
    } catch (error) {
      return [{ ...incoming, problem: error.message }];
    }
  }));
  return opened.flat();
}

async function isZip(file) {
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  return start[0] === 0x50 && start[1] === 0x4b && (start[2] === 3 || start[2] === 5);
}
