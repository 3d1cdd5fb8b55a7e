/** The readers' page: sign in, one case after the other, pause, end. */

import { ActiveClock } from "./clock.js";
import { Client, Problem } from "./client.js";
import { Drafts } from "./drafts.js";
import { CaseForm, showPrediction } from "./form.js";
import { Viewer } from "/page/viewer.js";

const CODE = "radiolucent-reader-code"; // of this tab alone: closing it forgets the code
const SECTIONS = ["sign-in", "welcome", "reading", "washout", "finished"];
const KEPT = { saving: "Saving …", saved: "Saved", waiting: "Not saved yet; trying again", refused: "Not saved: the service refuses it" };
const find = (id) => document.getElementById(id);

/** @type {Viewer | null} */
let viewer = null;
/** @type {Client} */
let client;
/** The case on the screen. @type {{shown: Object, drafts: Drafts, clock: ActiveClock} | null} */
let current = null;
let session = null;
const form = new CaseForm(() => current?.drafts.changed());

function show(section) {
  for (const id of SECTIONS) find(id).hidden = id !== section;
  find("leave").hidden = section === "sign-in";
  find("where").textContent = "";
  find("kept").textContent = "";
  if (section !== "sign-in") find("main").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function trouble(text) {
  find("trouble").hidden = !text;
  find("trouble").textContent = text;
}

const away = (is) => trouble(is ? "The service does not answer. What you entered is kept here and sent as soon as it does." : "");

function told(answer) {
  session = answer;
  document.title = `${answer.study} - reader study`;
  find("title").textContent = answer.study;
  find("progress").hidden = false;
  find("progress").max = answer.total;
  find("progress").value = answer.done;
}

/** Where the reader is, before the clock of any case starts. */
async function enter(code) {
  client = new Client(code, away);
  try {
    told(await client.session());
  } catch (error) {
    sessionStorage.removeItem(CODE);
    show("sign-in");
    trouble(error instanceof Problem && error.status === 401 ? "This code opens no study. Check it, or ask the coordinator for a new one." : error.message);
    find("code").focus();
    return;
  }
  trouble("");
  sessionStorage.setItem(CODE, code);
  if (session.state !== "reading") return pauseOrEnd();
  const { done, total, reader } = session;
  find("welcome-title").textContent = done ? "Welcome back" : "Welcome";
  find("welcome-text").textContent = done
    ? `${reader}, you have answered ${done} of ${total} cases. You go on where you stopped.`
    : `${reader}, there are ${total} cases to read${session.design === "crossover" ? `, in two parts of ${total / 2}${pause()}` : ""}.`;
  find("begin").textContent = done ? "Go on" : "Begin";
  show("welcome");
}

const pause = () => (session.washout_days ? ` with ${session.washout_days === 1 ? "a day" : `${session.washout_days} days`} between them` : "");

function pauseOrEnd() {
  if (session.state === "washout") {
    const opens = new Date(session.opens_at);
    const format = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "short" });
    find("washout-text").textContent = `The second part opens on ${format.format(opens)} (your local time).`;
  }
  show(session.state);
}

async function next() {
  trouble("");
  told(await client.next());
  if (session.state !== "reading") return pauseOrEnd();
  const shown = session.case;
  const pixels = await client.pixels(shown);
  show("reading");
  const part = session.total > shown.count ? `Part ${shown.period}, case ${shown.position} of ${shown.count}` : `Case ${shown.position} of ${shown.count}`;
  find("where").textContent = `${part}${shown.training ? " (training)" : ""}`;
  find("reading-title").textContent = part;
  find("feedback").hidden = true;
  showImage(shown, pixels);
  const { revision, opinion } = Drafts.latest(shown);
  form.show(shown, session.classes, session.items, opinion);
  form.busy(false);
  const clock = new ActiveClock(opinion?.active_seconds ?? 0);
  const drafts = new Drafts(client, { ...shown, revision }, read, (state) => (find("kept").textContent = KEPT[state]));
  current = { shown, drafts, clock };
  if (revision > shown.revision) drafts.changed();
  find("main").focus({ preventScroll: true });
}

const read = () => ({ ...form.read(), active_seconds: current.clock.seconds });

function showImage({ pixels: layout, prediction }, pixels) {
  viewer ??= new Viewer(find("viewer"), { label: "Image of the case" });
  const frame = { ...layout, pixels };
  find("heat").hidden = find("model").hidden = !prediction;
  let map = null;
  if (prediction) {
    const [rows, columns] = prediction.map.shape;
    const display = session.classes.find((one) => one.name === prediction.map.target)?.display ?? prediction.map.target;
    map = { rows, columns, values: Float32Array.from(prediction.map.saliency.flat()), region: prediction.map.region,
      title: `Evidence for: ${display}`, unit: prediction.map.unit };
    showPrediction(find("model"), prediction, session.classes);
    find("heat-shown").checked = true;
  }
  viewer.set({ show: "colour" });
  find("opacity").value = viewer.settings.opacity;
  viewer.show({ frame, map });
}

async function save(event) {
  event.preventDefault();
  if (!current || !form.complete()) return;
  const { shown, drafts, clock } = current;
  const opinion = read();
  form.busy(true);
  drafts.pause();
  find("kept").textContent = KEPT.saving;
  let saved;
  try {
    saved = await client.answer(shown.id, opinion);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 409) {
      form.busy(false);
      trouble(error.message);
      return;
    }
    saved = { truth: null }; // answered in another window: that answer holds
  }
  clock.end();
  drafts.end();
  current = null;
  if (saved.truth === null) return next().catch(failed);
  const truth = session.classes.find((one) => one.name === saved.truth)?.display;
  const agreed = saved.truth === opinion.diagnosis;
  find("feedback-text").textContent = agreed ? `${truth}, as you said.` : `${truth}. Your diagnosis was another one.`;
  find("kept").textContent = "";
  find("feedback").hidden = false;
  find("training").hidden = true;
  find("feedback").scrollIntoView({ block: "center" });
  find("go-on").focus();
}

function failed(error) {
  if (error instanceof Problem && error.status === 401) return enter(client.code);
  trouble(error.message);
}

function leave() {
  sessionStorage.removeItem(CODE);
  location.replace("/study");
}

find("code-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const code = find("code").value.trim();
  if (code) enter(code);
});
find("begin").addEventListener("click", () => next().catch(failed));
find("go-on").addEventListener("click", () => next().catch(failed));
find("leave").addEventListener("click", leave);
find("form").addEventListener("submit", save);
find("heat-shown").addEventListener("change", (event) => viewer.set({ show: event.target.checked ? "colour" : "hidden" }));
find("opacity").addEventListener("input", (event) => viewer.set({ opacity: Number(event.target.value) }));
find("reset").addEventListener("click", () => (viewer.fit(), viewer.resetWindow()));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && current) find("form").requestSubmit();
});

const linked = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname); // the code stays out of the history
const known = linked || sessionStorage.getItem(CODE);
show("sign-in");
if (known) enter(known);
else find("code").focus();
