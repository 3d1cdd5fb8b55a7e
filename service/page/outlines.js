/** What segmentation models outline: which of them fits a case, and its outlines of the image that is shown. */

import { segment } from "./service.js";

export const COLOUR = "#ff80e5"; // pink: no colour map's contours have it

/**
 * @typedef {Object} Outlined an outline of one frame that is wanted.
 * @property {any} model that draws it, as GET /v1/models describes it
 * @property {any} found the frame's result of POST /v1/segment; null while it is waited for, and where there is none
 * @property {string} problem why there is none
 */

/** Asks for one file at a time, and keeps what was found of it. Tells `change`. */
export class Outlines extends EventTarget {
  /** @param {any[]} models of task `segmentation` */
  constructor(models) {
    super();
    this.models = models;
    this.wanted = false;
    /** @type {Map<string, WeakMap<Blob, any[] | Error>>} answers of each model */
    this.answers = new Map(models.map(({ id }) => [id, new WeakMap()]));
    /** @type {AbortController | null} of the file that is waited for */
    this.waiting = null;
  }

  /** The model for what a classifier is for, unless the image is known to be something else. @returns {any | null} */
  fitting(frame, classifier) {
    if (!frame || !classifier) return null;
    const { modalities, body_part: part } = classifier.kind;
    return this.models.find(({ kind }) => kind.body_part.scheme === part.scheme && kind.body_part.value === part.value
      && kind.modalities.some((each) => modalities.includes(each))
      && (!frame.modality || kind.modalities.includes(frame.modality))) ?? null;
  }

  /** @param {boolean} wanted */
  want(wanted) {
    this.wanted = wanted;
    if (!wanted) this.waiting?.abort();
    this.#tell();
  }

  /** The outline of a frame, which is asked for where it is not known. @returns {Outlined | null} null where none is wanted, or no model fits */
  of(frame, classifier) {
    const model = this.wanted ? this.fitting(frame, classifier) : null;
    if (!model) return null;
    const answer = this.answers.get(model.id).get(frame.file);
    if (!answer) this.#ask(model, frame.file);
    return { model, ...(answer ? read(answer, frame) : { found: null, problem: "" }) };
  }

  /** Ask once more where that failed. */
  again(frame, { id }) {
    this.answers.get(id).delete(frame.file);
    this.#tell();
  }

  /** Whoever listens asks for what is shown by then, so that hurrying through slices makes no queue. */
  async #ask(model, file) {
    if (this.waiting) return;
    this.waiting = new AbortController();
    const answers = this.answers.get(model.id);
    try {
      answers.set(file, await segment(file, model.id, this.waiting.signal));
    } catch (error) {
      if (error.name !== "AbortError") answers.set(file, error);
    }
    this.waiting = null;
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** What an answer says of one of its file's frames; a file that could not be read has one result. */
function read(answer, frame) {
  if (answer instanceof Error) return { found: null, problem: answer.message };
  const result = answer.length === 1 ? answer[0] : answer[frame.number - 1];
  if (result.status === "failed") return { found: null, problem: result.error.detail };
  return { found: result, problem: "" };
}

/** What was outlined and how large it is. @param {Outlined} outlined with something found */
export function extent({ model, found }) {
  const { display } = model.label;
  if (!found.present) return `${display}: nothing outlined`;
  const area = found.area_mm2 === null ? "" : `, ${Math.round(found.area_mm2).toLocaleString("en")} mm²`;
  return `${display}: ${found.area_pixels.toLocaleString("en")} pixels${area}`;
}
