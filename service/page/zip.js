/** Zip archives (APPNOTE.TXT): read with the browser's own inflater, written without compression. */

const [LOCAL, CENTRAL, END] = [0x04034b50, 0x02014b50, 0x06054b50];
const MOST_BYTES = 2 ** 31; // unpacked, of all entries
const DOS_DATE = 0x21; // 1980-01-01: archives tell nothing of when they were made

/**
 * The files of an archive.
 * @param {Blob} blob
 * @returns {Promise<{name: string, file: Blob}[]>}
 * @throws {Error} where it is damaged, encrypted, or larger than a browser should hold.
 */
export async function readZip(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("The zip archive is damaged: it has no directory");
  const found = [];
  let [at, total] = [view.getUint32(end + 16, true), 0];
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== CENTRAL) throw new Error("The zip archive is damaged");
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    const [packed, size] = [view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [nameLength, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const local = view.getUint32(at + 42, true);
    at += 46 + nameLength + extra + comment;
    if (name.endsWith("/") || name.startsWith("__MACOSX/")) continue;
    if (flags & 1) throw new Error("The zip archive is encrypted");
    total += size;
    if (total > MOST_BYTES) throw new Error("The zip archive is too large for a browser; send it to POST /v1/studies");
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    found.push({ name, file: await inflated(bytes.subarray(start, start + packed), method, size) });
  }
  return found;
}

/** One entry, never more of it than its directory says. */
async function inflated(packed, method, size) {
  if (method === 0) return new Blob([packed]);
  if (method !== 8) throw new Error("The zip archive uses a compression that browsers do not have");
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const chunks = [];
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      length += part.value.length;
      if (length > size) break;
      chunks.push(part.value);
    }
  } catch {
    throw new Error("The zip archive is damaged");
  }
  if (length !== size) throw new Error("The zip archive is damaged: an entry has another size than its directory says");
  return new Blob(chunks);
}

/**
 * An archive of stored files.
 * @param {{name: string, bytes: Uint8Array}[]} entries names in ASCII
 * @returns {Blob}
 */
export function writeZip(entries) {
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const { name, bytes } of entries) {
    const letters = new TextEncoder().encode(name);
    const shared = [20, 0, 0, 0, DOS_DATE].map((value) => [value, 2]);
    const sizes = [[crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4], [letters.length, 2], [0, 2]];
    const local = packed([[LOCAL, 4], ...shared, ...sizes]);
    parts.push(local, letters, bytes);
    const rest = [[0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]];
    directory.push(packed([[CENTRAL, 4], [20, 2], ...shared, ...sizes, ...rest]), letters);
    offset += local.length + letters.length + bytes.length;
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0);
  const count = [entries.length, 2];
  const end = packed([[END, 4], [0, 2], [0, 2], count, count, [length, 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Little-endian numbers. @param {[number, number][]} fields value and bytes of each */
function packed(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, width]) => sum + width, 0)));
  let at = 0;
  for (const [value, width] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRCS[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
