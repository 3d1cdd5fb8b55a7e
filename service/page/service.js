/** The HTTP API of the service, as this page uses it. Addresses are relative to this file, so that a prefix does no harm. */

const ROOT = new URL("../", import.meta.url);
const POLL = 700; // ms between looks at a job
const KEY = "radiolucent-key"; // in this tab's storage, until it is closed

/** Whether a key is kept. */
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

/** Keep a key (or an access token) for this tab; an empty one is forgotten. @param {string} key */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** A refusal of the service (RFC 9457), or no answer at all. */
export class Refusal extends Error {
  /** @param {{title: string, detail?: string, status?: number}} problem */
  constructor({ title, detail = "", status = 0 }) {
    super(detail && detail !== title ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

/** @param {string} path @param {RequestInit} [request] */
async function ask(path, request = {}) {
  let answer;
  const headers = new Headers(request.headers);
  if (hasKey()) headers.set("Authorization", `Bearer ${sessionStorage.getItem(KEY)}`);
  try {
    answer = await fetch(new URL(path, ROOT), { ...request, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ title: "The service does not answer" });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ title: `The service answers ${answer.status}` }));
  throw new Refusal(problem);
}

const json = async (path, request) => (await ask(path, request)).json();

/** Form fields; files travel without their names, which may be patients'. */
function form(fields, files = {}) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) body.append(name, value);
  for (const [name, file] of Object.entries(files)) body.append(name, file, "image");
  return body;
}

/** What is served. @returns {Promise<{models: any[], refused: Object<string, string>}>} */
export const models = () => json("v1/models");

/** Decoded frames of a file. @param {Blob} file @returns {Promise<Object[]>} */
export async function frames(file) {
  const answer = await json("v1/frames", { method: "POST", body: form({}, { image: file }) });
  return Promise.all(answer.frames.map(unpacked));
}

async function unpacked(frame) {
  const packed = Uint8Array.from(atob(frame.pixels), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  return { ...frame, pixels: frame.bits === 8 ? new Uint8Array(bytes) : new Uint16Array(bytes) };
}

/** Results of one file, one for each frame. @param {{model: string, method?: string, target?: string, against?: string}} wish */
export async function explain(file, wish, signal) {
  return (await json("v1/explain", { method: "POST", body: form(wish, { images: file }), signal })).results;
}

/** The same in the background. @param {(share: number) => void} progress */
export async function explainSlowly(file, wish, signal, progress) {
  let job = await json("v1/explanations", { method: "POST", body: form(wish, { images: file }), signal });
  try {
    while (job.status === "queued" || job.status === "running") {
      progress(job.progress);
      await new Promise((resolve) => setTimeout(resolve, POLL));
      signal.throwIfAborted();
      job = await json(job.url.slice(1), { signal });
    }
  } finally {
    ask(job.url.slice(1), { method: "DELETE" }).catch(() => {}); // it expires by itself
  }
  if (job.error) throw new Refusal(job.error);
  return job.result.results;
}

/** The answer for the series of some DICOM files. @param {Blob[]} files */
export async function study(files, { model = "", method = "", target = "" }, signal) {
  const boundary = `radiolucent-${Math.random().toString(36).slice(2)}-${Date.now()}`;
  const parts = files.flatMap((file) => [`--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`, file, "\r\n"]);
  const query = new URLSearchParams({ results: "report" });
  for (const [name, value] of Object.entries({ model, method, target })) if (value) query.set(name, value);
  return json(`v1/studies?${query}`, {
    method: "POST",
    headers: { "Content-Type": `multipart/related; type="application/dicom"; boundary=${boundary}` },
    body: new Blob([...parts, `--${boundary}--\r\n`]),
    signal,
  });
}

/** Outlines in one file, one result for each frame. @param {Blob} file @param {string} model of task `segmentation` */
export async function segment(file, model, signal) {
  return (await json("v1/segment", { method: "POST", body: form({ model }, { images: file }), signal })).results;
}

/** A case on one page. @returns {Promise<Blob>} */
export async function report(file, wish, frame) {
  const body = form({ ...wish, frame }, { image: file });
  return (await ask("v1/report", { method: "POST", body })).blob();
}

/** A file that the service brings along. @param {string} path @returns {Promise<Blob>} */
export const bundled = async (path) => (await ask(path)).blob();
