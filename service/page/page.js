/** The page: joins what comes in, what is open, what is looked at and what is known of it. */

import { withKey } from "./access.js";
import { Desk } from "./cases.js";
import { setColours, showAsked, wire } from "./controls.js";
import { COLOURS } from "./colours.js";
import { byId, say } from "./dom.js";
import { saveArrays, saveJson, savePicture, saveReport } from "./downloads.js";
import { showFindings } from "./findings.js";
import { dropped, named, unpacked } from "./intake.js";
import { listen } from "./keys.js";
import { extent, Outlines } from "./outlines.js";
import { Reading } from "./reading.js";
import * as service from "./service.js";
import { Viewer } from "./viewer.js";
import { Worklist } from "./worklist.js";

const EXAMPLES = [
  { path: "page/examples/mni152-slice.png", name: "MNI152 template, one slice", model: "brain-mri-resnet50",
    note: "An average of many healthy brains and nobody's image, without contrast agent: not quite what the model is for." },
  { path: "page/examples/oct-phantom.png", name: "Drawing of an OCT scan", model: "retinal-oct-oculusnet",
    note: "A drawing to try the page with, not a retina: what the model says of it means nothing." },
  { path: "v1/examples/series.zip", name: "Series made of one slice", model: "",
    note: "The template's slice in eleven sizes, as DICOM: it shows how a series is read, not an anatomy." },
];

async function start() {
  const { models, notice } = await withKey(service.models);
  const of = (task) => models.filter((model) => model.task === task);
  const desk = new Desk(of("classification"));
  const outlines = new Outlines(of("segmentation"));
  const viewer = new Viewer(byId("viewer"), { scrolls: () => (reading.current?.frames.length ?? 0) > 1 });
  const reading = new Reading(desk, viewer, outlines);
  const worklist = new Worklist(desk, (one) => reading.open(one));
  const show = () => {
    byId("empty").hidden = Boolean(reading.current);
    byId("desk").classList.toggle("is-empty", !desk.cases.length);
    worklist.update(reading.current);
    showAsked(reading, desk);
    showFindings(byId("findings"), reading, notice, actions(desk, reading, notice), models);
    describe(reading);
  };
  reading.addEventListener("change", show);
  reading.addEventListener("working", ({ detail }) => showWorking(detail));
  outlines.addEventListener("change", () => tellOutline(reading));
  reading.addEventListener("problem", ({ detail }) => showProblem(detail));
  desk.addEventListener("reading", ({ detail }) => showIntake(detail));
  desk.addEventListener("change", ({ detail: one }) => {
    if (!reading.current && desk.cases.includes(one)) reading.open(one);
    else if (one === reading.current) reading.refresh();
    else show();
    announce(desk, one);
  });
  wire(reading, desk);
  takeFiles(desk);
  theme();
  listen(keys(desk, reading));
  show();
}

/** All the ways in. @param {Desk} desk */
function takeFiles(desk) {
  const add = async (files, known) => desk.add(await unpacked(files), known);
  const picked = (id) => byId(id).addEventListener("change", ({ target }) => {
    add(named(target.files));
    target.value = "";
  });
  picked("files");
  picked("folder");
  for (const id of ["pick", "empty-pick"]) byId(id).addEventListener("click", () => byId("files").click());
  byId("pick-folder").addEventListener("click", () => byId("folder").click());
  const load = async () => {
    const files = await Promise.all(EXAMPLES.map(({ path }) => service.bundled(path)));
    await Promise.all(EXAMPLES.map((known, index) => {
      const model = desk.models.has(known.model) ? known.model : "";
      return add([{ name: known.name, file: files[index] }], { ...known, model });
    }));
  };
  for (const id of ["examples", "empty-examples"]) byId(id).addEventListener("click", () => load().catch((error) => showProblem(error.message)));
  document.addEventListener("paste", (event) => add(named(event.clipboardData.files)));
  let depth = 0;
  const over = (by) => (event) => {
    event.preventDefault();
    depth = Math.max(0, depth + by);
    byId("drop").hidden = depth === 0;
  };
  document.addEventListener("dragenter", over(1));
  document.addEventListener("dragleave", over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    over(-depth)(event);
    add(await dropped(event.dataTransfer));
  });
}

/** What the buttons of the findings do. */
function actions(desk, reading, notice) {
  const { current: one, viewer, model } = reading;
  const wish = one?.wish;
  const name = wish && ["radiolucent", model.id, wish.method, wish.target].join("-").replace(/[^\w+.-]/g, "_");
  const maps = () => one.answer.slices.map((slice) => slice.maps.get([wish.method, wish.target, wish.against].join("|")));
  const texts = () => ({ model: `${model.id} ${model.version}`, ...wish, notice });
  return {
    insist: (id) => desk.predict(one, id),
    slice: (index) => reading.setSlice(index),
    outline: () => reading.outlines.again(reading.frame, reading.outlined.model),
    png: () => savePicture(viewer, name, [
      `${model.id} ${model.version}: ${viewer.scene.map.title}`, ...outlineLine(reading.outlined), notice]),
    npz: () => saveArrays(name, one.frames, one.answer.slices, maps(), texts()),
    json: () => saveJson(name, {
      ...texts(), label: one.answer.label, probabilities: one.answer.probabilities, findings: one.answer.findings,
      assessable: one.answer.assessable, reasons: one.answer.reasons, warnings: one.answer.warnings, notes: one.answer.notes,
      slices: one.answer.slices.map(({ label, probabilities, region }, index) => ({ label, probabilities, region, explanation: maps()[index] })),
    }),
    pdf: () => saveReport(name, one.frames[one.slice], { model: model.id, ...wish }).catch((error) => showProblem(error.message)),
  };
}

/** Below a picture with an outline. */
function outlineLine(outlined) {
  if (!outlined?.found) return [];
  const { model: { id, version }, found } = outlined;
  return [`Outline by ${id} ${version} from probability ${found.threshold}: ${extent(outlined)}. A model's output, not a measured lesion.`];
}

function tellOutline({ outlined }) {
  if (outlined) say(outlined.found ? `Outline. ${extent(outlined)}` : outlined.problem);
}

function describe({ viewer, current, model, outlined }) {
  const map = viewer.scene?.map;
  const found = current?.answer ? `, called ${model.labels.find(({ name }) => name === current.answer.label).display}` : "";
  const evidence = map ? `. Evidence: ${map.title}, ${map.rows} by ${map.columns} cells` : "";
  const outline = outlined?.found ? `. Outline: ${extent(outlined)}` : "";
  viewer.canvas.setAttribute("aria-label", current ? `${current.name}${found}${evidence}${outline}` : "Image viewer, empty");
}

function announce(desk, one) {
  if (one.state === "failed") say(`${one.name}: ${one.problem}`);
  if (one.state === "ready" && one.answer) {
    const display = desk.models.get(one.answer.model.id).labels.find(({ name }) => name === one.answer.label).display;
    say(`${one.name}: ${display}`);
  }
}

function showIntake({ done, all }) {
  byId("intake").hidden = all < 2 || done === all;
  byId("intake-bar").value = all ? done / all : 0;
  byId("intake-text").textContent = `${done} of ${all} files read`;
}

function showWorking(detail) {
  if (detail === null && byId("working").classList.contains("is-problem")) return;
  byId("working").classList.remove("is-problem");
  byId("working").hidden = detail === null;
  if (detail === null) return;
  if (detail.share === null) byId("working-bar").removeAttribute("value");
  else byId("working-bar").value = detail.share;
  byId("working-text").textContent = detail.share ? `${detail.text} ${Math.round(100 * detail.share)} %` : detail.text;
}

function showProblem(text) {
  byId("working").hidden = false;
  byId("working").classList.add("is-problem");
  byId("working-text").textContent = text;
  say(text);
  setTimeout(() => {
    byId("working").classList.remove("is-problem");
    byId("working").hidden = true;
  }, 8000);
}

function theme() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
  });
}

function keys(desk, reading) {
  const { viewer } = reading;
  const next = (list, value, by = 1) => list[(list.indexOf(value) + by + list.length) % list.length];
  const go = (by) => () => desk.cases.length && reading.open(next(desk.cases, reading.current, by));
  const nudge = (name, by) => () => viewer.set({ [name]: Math.round(100 * Math.max(0, Math.min(1, viewer.settings[name] + by))) / 100 });
  const asked = (act) => () => reading.current?.wish && act(reading.current.wish);
  const slice = (by) => () => reading.setSlice((reading.current?.slice ?? 0) + by);
  return [
    ["?", "These keys", () => byId("help").showModal()],
    ["u", "Open files", () => byId("files").click()],
    ["e", "Load the examples", () => byId("examples").click()],
    ["j", "Next image", go(1)],
    ["k", "Image before", go(-1)],
    ["v", "To the image", () => viewer.canvas.focus()],
    ["f", "To the findings", () => byId("findings").focus()],
    ["n", "Next slice", slice(1)],
    ["p", "Slice before", slice(-1)],
    ["o", "Evidence: colour, contour, off", () => viewer.set({ show: next(["colour", "contour", "hidden"], viewer.settings.show) })],
    ["b", "Outline of a segmentation model, on or off", () => byId("outline-label").hidden || reading.outlines.want(!reading.outlines.wanted)],
    ["h", "Next colours", () => setColours(reading, next(Object.keys(COLOURS), viewer.settings.colours))],
    ["s", "Smooth, or cells as they are", () => viewer.set({ smooth: !viewer.settings.smooth })],
    [",", "Less opaque", nudge("opacity", -0.1)],
    [".", "More opaque", nudge("opacity", 0.1)],
    ["<", "Lower threshold", nudge("threshold", -0.05)],
    [">", "Higher threshold", nudge("threshold", 0.05)],
    ["m", "Next method", asked(({ method }) => reading.ask({ method: next(inline(reading.model), method) }))],
    ["t", "Next class", asked(({ target }) => reading.ask({ target: next(reading.model.labels.map(({ name }) => name), target) }))],
    ["c", "Compare: off, side by side, swipe", asked(() => reading.setCompare(next(["off", "side", "swipe"], viewer.settings.compare)))],
    ["d", "Light or dark", () => byId("theme").click()],
  ];
}

const inline = ({ explanations }) => explanations.filter(({ tier }) => tier === "inline").map(({ method }) => method);

byId("help-open").addEventListener("click", () => byId("help").showModal());
start().catch((error) => {
  byId("findings").append(Object.assign(document.createElement("p"), { className: "problem", textContent: error.message }));
});
