/** What was found, in words and bars, and what it is worth. */

import { element, percent } from "./dom.js";
import { extent } from "./outlines.js";
import { short } from "./painting.js";

// What GET /v1/models calls the measures of a method's maps, in words, and which direction is better.
const QUALITY = {
  pointing_game: ["Peak inside the outlined lesion", "higher"],
  mass: ["Positive values inside the outline", "higher"],
  insertion: ["Insertion", "higher"],
  deletion: ["Deletion", "lower"],
  road: ["Still called the same with the peak imputed (ROAD)", "lower"],
  randomisation: ["Like the map of a network of shuffled weights", "lower"],
  noise: ["Stays under noise", "higher"],
  shift: ["Stays when the image is shifted", "higher"],
  repeat: ["Stays under another seed", "higher"],
};
const ACCURACY = {
  accuracy: "Accuracy, all classes", balanced_accuracy: "Balanced accuracy", auroc: "AUROC", kappa: "Cohen's kappa",
  ece_after: "Calibration error",
};

/**
 * Fill the panel for what is looked at.
 * @param {HTMLElement} panel
 * @param {import("./reading.js").Reading} reading
 * @param {string} notice of research use
 * @param {Object<string, (...arguments: any[]) => void>} act what buttons do: png, npz, json, pdf, insist, slice, outline
 * @param {any[]} models that are served: what is shown while nothing is open
 */
export function showFindings(panel, reading, notice, act, models) {
  const opened = new Set([...panel.querySelectorAll("details[open]")].map((each) => each.id));
  panel.replaceChildren(...(reading.current ? sections(reading, act) : welcome(models)), element("p.notice", {}, notice));
  for (const each of panel.querySelectorAll("details")) each.open = opened.has(each.id);
}

function welcome(models) {
  const served = models.map(({ task, title, kind, label, evaluation: { metrics, images } }) => element("li", {},
    element("strong", {}, title), element("p.small.muted", {}, kind.description,
      metrics.accuracy ? ` Accuracy ${interval(metrics.accuracy)} on ${images} test images.` : "",
      task === "segmentation" && ` Outlines beside the evidence: ${label.display}.`,
      metrics.dice && ` Dice ${interval(metrics.dice)} on its test part.`)));
  return [
    element("h2", {}, "A prediction, and the evidence for it"),
    element("p.muted", {}, "Open an image to see what the model calls it, how sure it is, and which parts of the image speak for it."),
    element("h3", {}, "Models served here"), element("ul.models", {}, ...served),
  ];
}

function sections({ current: one, model, outlined }, act) {
  const head = [element("h2", {}, one.name), one.note && element("p.notice", {}, one.note)];
  if (one.state === "failed") return [...head, ...failure(one, act)].filter(Boolean);
  if (one.state !== "ready") return [...head, element("p.muted", {}, one.state === "reading" ? "Reading…" : "Predicting…")].filter(Boolean);
  if (!one.answer) return [...head, ...unmatched(one, act)].filter(Boolean);
  return [
    ...head,
    ...assessment(one.answer),
    ...besides(one.answer).map((text) => element("p.warning", { role: "alert" }, `⚠ ${sentence(text)}`)),
    ...verdict(one, model, act),
    evidence(one, model),
    outlined && outline(outlined, act),
    downloads(one, act),
    about(one, model),
  ].filter(Boolean);
}

/** Why the model cannot answer, or may not. */
function assessment({ assessable, reasons }) {
  const words = { no: "Not assessable", doubtful: "Doubtful", yes: "Note" }[assessable];
  return reasons.map((reason) => element("p.warning.assessment", { role: "alert" }, `⚠ ${words}: ${sentence(reason)}`));
}

/** Warnings that say more than the reasons of the assessment. */
const besides = ({ warnings, reasons }) => warnings.filter((text) => !reasons.some((reason) => text.startsWith(reason)));

/** Why, and another try where the file itself could be read. */
function failure(one, act) {
  const again = element("button", { type: "button", onclick: () => act.insist(one.model) }, "Try again");
  return [element("p.problem", { role: "alert" }, one.problem), one.frames.length > 0 && element("div.row", {}, again)];
}

function unmatched(one, act) {
  const reasons = one.mismatches.map((each) =>
    element("li", {}, element("strong", {}, each.rule), `: ${each.reasons.join("; ")}`));
  const models = [...new Set(one.mismatches.map((each) => each.model))];
  return [
    element("p.warning", {}, "No rule says which model answers this series, so none did."),
    element("ul.reasons.small", {}, ...reasons),
    element("div.row", {}, ...models.map((id) => element("button", { type: "button", onclick: () => act.insist(id) }, `Ask ${id} anyway`))),
  ];
}

function verdict(one, model, act) {
  const { answer } = one;
  const display = (name) => model.labels.find((label) => label.name === name).display;
  const bars = model.labels.map(({ name, display: text }) => {
    const share = answer.probabilities[name];
    const bar = element("meter", { min: 0, max: 1, value: share, "aria-label": `${text}: ${percent(share)}` });
    return element(name === answer.label ? "li.best" : "li", {}, element("span", {}, text), bar, element("span.figure", {}, percent(share)));
  });
  const findings = model.findings.map((finding) => {
    const { probability, present, decision, carriers = [] } = answer.findings[finding.name];
    return element("div.finding", {},
      element(present ? "p.present" : "p", {}, element("strong", {}, `${finding.display}: ${decision}`),
        ` (${percent(probability)}; ${limits(finding, model)})`),
      carriers.length > 0 && element("p.small", {}, "Carried by slice ",
        ...carriers.slice(0, 5).map((index) => element("button.carrier", { type: "button", onclick: () => act.slice(index) }, String(index + 1)))));
  });
  const error = model.evaluation.metrics.ece_after;
  const pooled = one.frames.length > 1;
  return [
    element("div.verdict", {},
      element("p.label", {}, display(answer.label)),
      element("p.muted", {}, `calibrated confidence ${percent(answer.probabilities[answer.label])}${pooled ? ", of the whole series" : ""}`)),
    element("ul.bars", { "aria-label": "Class probabilities" }, ...bars),
    ...findings,
    element("p.small.muted", {}, "Calibrated: of test images given some confidence, about that share was called right"
      + (error ? ` (off by ${(100 * error.value).toFixed(1)} points on average, single slices)` : "")
      + ". The 100 % are divided among these classes: anything else is still called one of them."),
    pooled && sliceVerdict(one, display),
    answer.notes.length > 0 && element("details", { id: "notes" }, element("summary", {}, `Notes (${answer.notes.length})`),
      element("ul.reasons.small", {}, ...answer.notes.map((note) => element("li", {}, note)))),
  ];
}

/** From where on a finding is present, and to where it is absent. */
function limits({ name, operating_point: at }, { conformal }) {
  if (!conformal) return `operating point ${percent(at.threshold)}`;
  const { present_from: from, absent_to: to } = conformal.findings[name];
  return `present from ${percent(from)}, absent to ${percent(to)}`;
}

function sliceVerdict(one, display) {
  const slice = one.answer.slices[one.slice];
  return element("p.small", { id: "slice-verdict" }, `This slice alone: ${display(slice.label)} ${percent(slice.probabilities[slice.label])}`);
}

function evidence(one, model) {
  const { method, target, against } = one.wish;
  const described = model.explanations.find((each) => each.method === method);
  const map = one.answer.slices[one.slice].maps.get([method, target, against].join("|"));
  const display = (name) => model.labels.find((label) => label.name === name).display;
  const measures = Object.entries(QUALITY).filter(([name]) => name in described.quality);
  const rows = measures.map(([name, [words, better]]) => [`${words} (${better} is better)`, interval(described.quality[name])]);
  return element("section", {},
    element("h3", {}, `Evidence for ${display(target)}${against ? `, and not ${display(against)}` : ""}`),
    element("p.evidence-note", {}, "Evidence for the prediction, not a lesion outline."),
    element("p.small", {}, `${method}: ${described.meaning}. ${described.targeted ? "" : "It is the same for every class. "}`,
      element("span.muted", {}, described.source)),
    map && element("p.small.muted", {}, worth(map)),
    element("p.small.muted", {}, seen(one.answer, one.slice)),
    element("details", { id: "quality" }, element("summary", {}, "How good are such maps?"),
      rows.length ? table(["Measured on the test part", "value (95 %)"], rows) : element("p.small", {}, "Not measured."),
      model.evaluation.localisation.pointing_game_random && element("p.small.muted", {},
        `By chance the peak lies inside an outline with probability ${short(model.evaluation.localisation.pointing_game_random.value)}.`)));
}

/** Which part of a slice the model saw, and in which plane. */
function seen({ plane, slices }, slice) {
  const { unseen } = slices[slice];
  const part = unseen ? `The model saw ${percent(1 - unseen)} of the image, inside the thin line.` : "The model saw the whole image.";
  return plane ? `${part} Plane: ${plane}.` : part;
}

/** What another model draws in the image shown: how large, from where on, and how well it does so. */
function outline({ model, found, problem }, act) {
  const { dice } = model.evaluation.metrics;
  const again = element("button", { type: "button", onclick: act.outline }, "Try again");
  const name = `${model.id} ${model.version}`;
  return element("section", { id: "outlined" },
    element("h3", {}, element("span.outline-key", { "aria-hidden": "true" }), "Outline"),
    problem && element("p.problem", { role: "alert" }, problem),
    problem && element("div.row", {}, again),
    !found && !problem && element("p.muted", {}, "Outlining…"),
    found && element("p", {}, element("strong", {}, extent({ model, found }))),
    ...(found?.warnings ?? []).map((text) => element("p.warning", {}, `⚠ ${sentence(text)}`)),
    found && element("p.small", {}, `${name}: inside where it gives a probability of at least ${percent(found.threshold)}`
      + ` (largest here ${percent(found.peak)}).`),
    dice && element("p.small.muted", {}, `Mean Dice ${interval(dice)} with the outlines of its test part.`),
    element("p.evidence-note", {}, "A model's output for research, not a measured lesion, and no explanation of the prediction."));
}

function worth(map) {
  const parts = [map.exact ? "Computed exactly." : `An estimate from ${map.evaluations} evaluations (${map.stopped}).`];
  if (map.additivity_error !== null) parts.push(`Its sum is off by ${short(map.additivity_error)} logit.`);
  if (map.interval) parts.push("With 95 % intervals, in the downloads.");
  return parts.join(" ");
}

function downloads(one, act) {
  const button = (kind, text, title) => element("button", { type: "button", id: `save-${kind}`, title, onclick: act[kind] }, text);
  return element("section", {}, element("h3", {}, "Download"), element("div.row", {},
    button("png", "Picture", "What is shown, as PNG"), button("npz", "Values (NPZ)", "Image and map for NumPy"),
    button("json", "Values (JSON)", "The answer and its maps"),
    button("pdf", one.frames.length > 1 ? "Report of this slice (PDF)" : "Report (PDF)", "The case on one page")));
}

function about(one, model) {
  const { evaluation, provenance } = model;
  const rows = Object.entries(ACCURACY).filter(([name]) => name in evaluation.metrics)
    .map(([name, words]) => [words, interval(evaluation.metrics[name])]);
  return element("details", { id: "about" }, element("summary", {}, "What is this model?"),
    element("p", {}, element("strong", {}, model.title)),
    element("p.small.muted", {}, `${model.id} ${model.version}, ${model.precision} on ${model.provider}; ${model.licence}`),
    element("dl.small", {},
      element("dt", {}, "For"), element("dd", {}, model.kind.description),
      element("dt", {}, "Trained on"), element("dd", {}, provenance.training_data),
      element("dt", {}, "Use"), element("dd", {}, model.intended_use)),
    table([`Measured on ${evaluation.images} test images (${evaluation.groups} groups)`, "value (95 %)"], rows),
    element("h3", {}, "Limits"),
    element("ul.reasons.small", {}, ...model.limits.map((limit) => element("li", {}, limit))));
}

function table(head, rows) {
  return element("table.small", {},
    element("thead", {}, element("tr", {}, ...head.map((text) => (text ? element("th", { scope: "col" }, text) : element("td"))))),
    element("tbody", {}, ...rows.map(([first, ...rest]) =>
      element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((text) => element("td", {}, text))))));
}

function interval({ value, low, high }) {
  const shown = value.toFixed(2);
  return low === null || low === undefined ? shown : `${shown} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
