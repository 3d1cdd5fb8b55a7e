/** The form of a case: what the reader is asked, what was filled in, what is missing. */

/** @typedef {{diagnosis: string | null, confidence: number | null, ratings: Object<string, number>, comment: string}} Filled */

const QUESTIONS = {
  clear: ["Clear", "I understand what it shows"],
  plausible: ["Plausible", "it makes medical sense"],
  relevant: ["Relevant", "it marks what matters here"],
  useful: ["Useful", "it helped me decide"],
  trust: ["Trust", "I would rely on this answer"],
};

const find = (id) => document.getElementById(id);

/** @param {string} tag @param {Object} [properties] @param {...(Node | string)} children */
export function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export class CaseForm {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.form = find("form");
    this.slider = find("confidence-slider");
    this.number = find("confidence");
    this.form.addEventListener("input", (event) => {
      if (event.target === this.slider) this.#sure(this.slider.value);
      if (event.target === this.number) this.#sure(this.number.value, false);
      find("missing").hidden = true;
      onChange();
    });
    // A click on where the slider stands is an answer too, and is no input to the browser.
    for (const kind of ["pointerup", "keyup"]) {
      this.slider.addEventListener(kind, (event) => {
        if (event.key === "Tab" || event.key === "Shift" || this.number.value !== "") return;
        this.#sure(this.slider.value);
        onChange();
      });
    }
  }

  /** Ask about a case. @param {Object} shown @param {{name: string, display: string}[]} classes @param {string[]} items @param {Filled | null} filled */
  show(shown, classes, items, filled) {
    this.items = shown.arm === "with" ? items : [];
    this.form.reset();
    find("missing").hidden = true;
    find("training").hidden = !shown.training;
    find("diagnosis").querySelector(".choices")?.remove();
    find("diagnosis").append(made("div", { className: "choices" }, ...classes.map((one) => this.#choice(one))));
    find("ratings").hidden = !this.items.length;
    find("ratings").querySelectorAll(".rating").forEach((row) => row.remove());
    find("ratings").append(...this.items.map((item) => this.#rating(item)));
    this.#sure(filled?.confidence ?? "");
    if (filled) this.#fill(filled);
  }

  /** What is filled in. @returns {Filled} */
  read() {
    const data = new FormData(this.form);
    const rated = this.items.filter((item) => data.get(item)).map((item) => [item, Number(data.get(item))]);
    const sure = this.number.value === "" || !this.number.checkValidity() ? null : Number(this.number.value);
    return {
      diagnosis: data.get("diagnosis"),
      confidence: sure,
      ratings: Object.fromEntries(rated),
      comment: find("comment").value,
    };
  }

  /** Say what is missing and go there. @returns {boolean} whether nothing is */
  complete() {
    const filled = this.read();
    const gaps = [
      ...(filled.diagnosis ? [] : [["your diagnosis", this.form.querySelector("[name=diagnosis]")]]),
      ...(filled.confidence === null ? [["how sure you are (0 to 100)", this.number]] : []),
      ...this.items.filter((item) => !(item in filled.ratings))
        .map((item) => [QUESTIONS[item][0].toLowerCase(), this.form.querySelector(`[name=${item}]`)]),
    ];
    find("missing").hidden = !gaps.length;
    find("missing").textContent = `Still missing: ${gaps.map(([name]) => name).join(", ")}.`;
    gaps[0]?.[1].focus();
    return !gaps.length;
  }

  /** Nothing can be changed while the answer is on its way. @param {boolean} busy */
  busy(busy) {
    for (const control of this.form.elements) control.disabled = busy;
  }

  #choice({ name, display }) {
    return made("label", { className: "choice" }, made("input", { type: "radio", name: "diagnosis", value: name }), display);
  }

  #rating(item) {
    const [title, meaning] = QUESTIONS[item] ?? [item, ""];
    const name = made("span", { className: "name", id: `item-${item}` }, made("strong", {}, title), made("span", { className: "muted small" }, meaning));
    const scale = made("div", { className: "scale", role: "radiogroup" }, ...[1, 2, 3, 4, 5].map((value) =>
      made("label", {}, made("input", { type: "radio", name: item, value: String(value) }), String(value))));
    scale.setAttribute("aria-labelledby", name.id);
    return made("div", { className: "rating" }, name, scale);
  }

  #fill({ diagnosis, ratings, comment }) {
    const check = (name, value) => {
      const radio = [...this.form.querySelectorAll(`[name=${name}]`)].find((each) => each.value === String(value));
      if (radio) radio.checked = true;
    };
    check("diagnosis", diagnosis);
    for (const [item, value] of Object.entries(ratings)) check(item, value);
    find("comment").value = comment;
  }

  #sure(value, both = true) {
    const given = value !== "";
    if (both) this.number.value = value;
    this.slider.value = given ? value : 50;
    this.slider.classList.toggle("untouched", !given);
    this.slider.setAttribute("aria-valuetext", given ? `${value}` : "not given yet");
  }
}

/** What the model says, as bars. @param {HTMLElement} element @param {Object} prediction @param {{name: string, display: string}[]} classes */
export function showPrediction(element, prediction, classes) {
  const display = Object.fromEntries(classes.map((one) => [one.name, one.display]));
  const ranked = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  const rows = ranked.flatMap(([name, share], rank) => {
    const first = rank === 0 ? " first" : "";
    const fill = made("div", { className: `fill${first}` });
    fill.style.width = `${100 * share}%`;
    return [
      made("dt", { className: first.trim() }, display[name]),
      made("dd", { className: "track", ariaHidden: "true" }, fill),
      made("dd", { className: `figure small${first}` }, `${(100 * share).toFixed(share < 0.995 && share >= 0.0005 ? 1 : 0)} %`),
    ];
  });
  const words = { no: "Not assessable", doubtful: "Doubtful", yes: "Note" }[prediction.assessable];
  element.replaceChildren(
    ...prediction.reasons.map((reason) => made("p", { className: "small" }, `${words}: ${reason}`)),
    made("h3", {}, `The model says: ${display[prediction.label]}`),
    made("dl", { className: "bars" }, ...rows),
    made("p", { className: "small muted" }, "The model can be wrong. The heat-map is evidence for its answer, not a lesion outline."),
  );
}
