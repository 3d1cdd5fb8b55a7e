/** What has been opened, what was found in it, and what is asked of the service. */

import { explain, explainSlowly, frames as decode, study } from "./service.js";

const READERS = 3; // files decoded at once
const ASKERS = 4; // cases predicted at once; the service makes batches of them

/**
 * @typedef {Object} Found one slice's answer.
 * @property {string} label @property {Object<string, number>} probabilities
 * @property {Object<string, {probability: number, present: boolean, decision: string}>} findings
 * @property {[number, number, number, number]} region
 * @property {Map<string, any>} maps explanations as they came, by `keyOf`
 *
 * @typedef {Object} Answer
 * @property {{id: string, version: string}} model
 * @property {string} label @property {Object<string, number>} probabilities
 * @property {Object<string, {probability: number, present: boolean, decision: string, carriers?: number[]}>} findings
 * @property {"yes" | "doubtful" | "no"} assessable @property {string[]} reasons
 * @property {string[]} warnings @property {string[]} notes
 * @property {Found[]} slices in the order of the case's frames
 * @property {string} explained class that the first maps are about
 *
 * @typedef {{method: string, target: string, against: string}} Wish
 */

/** @param {Wish} wish */
export const keyOf = ({ method, target, against }) => [method, target, against].join("|");

/** One image, or one series. */
export class Case {
  static #count = 0;

  /** @param {string} name @param {{model?: string, note?: string}} [known] */
  constructor(name, { model = "", note = "" } = {}) {
    this.id = `case-${++Case.#count}`;
    this.name = name;
    this.note = note;
    this.model = model;
    this.series = "";
    /** @type {"reading" | "predicting" | "ready" | "failed"} */
    this.state = "reading";
    this.problem = "";
    /** @type {any[]} decoded frames, each with its `file` */
    this.frames = [];
    /** @type {Blob | null} shown until there are frames */
    this.preview = null;
    /** @type {Answer | null} */
    this.answer = null;
    /** @type {any[]} why rules did not choose their models for a series */
    this.mismatches = [];
    /** @type {string[] | null} models that the rules chose; null where they were not asked */
    this.ruled = null;
    this.slice = 0;
    /** @type {Wish | null} what is looked at */
    this.wish = null;
  }

  get files() {
    return [...new Set(this.frames.map((frame) => frame.file))];
  }
}

/** Everything that is open. Tells `change` (detail: the case, if it is one's) and `reading` (detail: {done, all}). */
export class Desk extends EventTarget {
  /** @param {any[]} models as GET /v1/models describes them */
  constructor(models) {
    super();
    this.models = new Map(models.map((model) => [model.id, model]));
    /** @type {Case[]} */
    this.cases = [];
    this.preferred = models[0]?.id ?? "";
    this.reading = { done: 0, all: 0 };
  }

  /** Decode files, make cases of them, and predict. @param {import("./intake.js").Incoming[]} files */
  async add(files, known = {}) {
    this.#count(0, files.length);
    const series = new Map();
    const predictions = [];
    await pooled(READERS, files, async (incoming) => {
      const made = await this.#read(incoming, series, known);
      if (made) predictions.push(() => this.predict(made));
      this.#count(1, 0);
    });
    for (const one of series.values()) predictions.push(() => this.predict(one));
    await pooled(ASKERS, predictions, (predict) => predict());
  }

  /** A case of its own, or null where the file joined a series. @returns {Promise<Case | null>} */
  async #read({ name, file, problem }, series, known) {
    const picture = /^image\//.test(file.type) || /\.(png|jpe?g)$/i.test(name);
    const one = new Case(name, known);
    if (picture) {
      one.preview = file;
      this.#open(one);
    }
    try {
      if (problem) throw new Error(problem);
      const found = (await decode(file)).map((frame) => ({ ...frame, file }));
      const uid = found[0].series;
      if (!uid) one.frames = found;
      else return this.#join(uid, found, series, name, known);
    } catch (error) {
      this.#fail(one, error);
    }
    this.#open(one);
    return one.state === "failed" ? null : one;
  }

  #join(uid, found, series, name, known) {
    if (!series.has(uid)) {
      const one = new Case(known.name ?? name, known);
      one.series = uid;
      series.set(uid, one);
      this.#open(one);
    }
    const one = series.get(uid);
    one.frames.push(...found);
    if (one.frames.length > 1 && !known.name) one.name = `Series of ${one.frames.length} slices`;
    this.#tell(one);
    return null;
  }

  #open(one) {
    if (!this.cases.includes(one)) this.cases.push(one);
    this.#tell(one);
  }

  /** Predict, and explain by the model's default method. @param {Case} one @param {string} [model] insists on it */
  async predict(one, model = "") {
    Object.assign(one, { state: "predicting", problem: "" });
    this.#tell(one);
    try {
      const whole = one.frames.length > 1;
      one.model = model || one.model || (whole ? "" : this.#modelFor(one.frames[0]));
      one.answer = whole ? await this.#askSeries(one, one.model) : await this.#askImage(one, one.model);
      if (one.answer) this.#answered(one);
      one.state = "ready";
    } catch (error) {
      this.#fail(one, error);
    }
    this.#tell(one);
  }

  #answered(one) {
    one.model = one.answer.model.id;
    const method = [...one.answer.slices[0].maps.values()][0].method;
    one.wish = { method, target: one.answer.explained, against: "" };
    one.slice = Object.values(one.answer.findings).find((found) => found.carriers?.length)?.carriers[0]
      ?? Math.floor(one.frames.length / 2);
  }

  /** The model of the frame's modality, else the one used last. */
  #modelFor({ modality }) {
    const fitting = modality && [...this.models.values()].find((model) => model.kind.modalities.includes(modality));
    return fitting ? fitting.id : this.preferred;
  }

  /** Get the maps of a wish, where the case does not have them yet. @param {Case} one @param {Wish} wish */
  async explain(one, wish, signal, progress) {
    if (!one.answer || one.answer.slices[0].maps.has(keyOf(wish))) return;
    const { answer } = one;
    if (one.frames.length > 1) {
      const found = await this.#askSeries(one, one.model, wish, signal);
      found.slices.forEach((slice, index) => slice.maps.forEach((map) => answer.slices[index].maps.set(keyOf(wish), map)));
      return;
    }
    const [result] = await this.#askMaps(one, wish, signal, progress);
    if (result.status === "failed") throw new Error(result.error.detail);
    for (const map of result.explanations) answer.slices[0].maps.set(keyOf(asked(map, wish)), map);
  }

  #askMaps(one, wish, signal, progress) {
    const described = this.models.get(one.model).explanations.find((each) => each.method === wish.method);
    const target = described.default_budget === 0 && described.targeted ? "all" : wish.target;
    const fields = { model: one.model, method: wish.method, target, against: wish.against };
    const [frame] = one.frames;
    return described.tier === "job" ? explainSlowly(frame.file, fields, signal, progress) : explain(frame.file, fields, signal);
  }

  async #askImage(one, model) {
    const [result] = await explain(one.frames[0].file, { model, target: "all" });
    if (result.status === "failed") throw new Error(result.error.detail);
    const maps = new Map(result.explanations.map((map) => [keyOf(asked(map)), map]));
    const { version } = this.models.get(model);
    return { ...result, model: { id: model, version }, notes: [], slices: [{ ...result, maps }], explained: result.label };
  }

  async #askSeries(one, model, wish = {}, signal) {
    const { series } = await study(one.files, { model, ...wish }, signal);
    const [found] = series;
    const [answer] = found?.answers ?? [];
    if (!model) {
      one.mismatches = found?.mismatches ?? [];
      one.ruled = found?.answers.map((each) => each.model.id) ?? [];
    }
    if (!answer) {
      if (!one.mismatches.length) throw new Error(found?.left_out[0]?.reason ?? "nothing of the series can be answered");
      return null;
    }
    one.frames = answer.slices.map(({ sop_instance: instance, frame }) =>
      one.frames.find((each) => each.instance === instance && each.number === frame));
    const slices = answer.slices.map((slice) => ({ ...slice, maps: new Map([[keyOf(asked(slice.explanation)), slice.explanation]]) }));
    const left = found.left_out.length ? [`${found.left_out.length} of the instances are left out: ${found.left_out[0].reason}`] : [];
    const insisted = one.ruled && !one.ruled.includes(answer.model.id)
      ? ["no rule chose this model for this series: do not rely on the prediction"] : [];
    return { ...answer, plane: found.plane, warnings: insisted, notes: [...found.notes, ...answer.notes, ...left], slices,
      explained: answer.slices[0].explanation.target };
  }

  /** Ask another model. @param {Case} one @param {string} model */
  async answerWith(one, model) {
    this.preferred = model;
    one.answer = one.wish = null;
    await this.predict(one, model);
  }

  /** Close a case. @param {Case} one */
  remove(one) {
    this.cases = this.cases.filter((each) => each !== one);
    this.#tell(one);
  }

  #fail(one, error) {
    one.state = "failed";
    one.problem = error.message;
  }

  #count(done, all) {
    if (this.reading.done === this.reading.all) this.reading = { done: 0, all: 0 };
    this.reading = { done: this.reading.done + done, all: this.reading.all + all };
    this.dispatchEvent(new CustomEvent("reading", { detail: this.reading }));
  }

  #tell(one) {
    this.dispatchEvent(new CustomEvent("change", { detail: one }));
  }
}

/** The wish that a map answers; a method without targets gives one map for every class. */
const asked = (map, wish = {}) => ({ method: map.method, target: map.target, against: map.against ?? wish.against ?? "" });

/** Do something with each, a few at a time. */
async function pooled(count, items, act) {
  const waiting = [...items];
  const worker = async () => {
    while (waiting.length) await act(waiting.shift());
  };
  await Promise.all(Array.from({ length: count }, worker));
}
