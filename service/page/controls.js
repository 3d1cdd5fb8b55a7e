/** Selects, sliders and buttons around the viewer. */

import { COLOURS } from "./colours.js";
import { byId, choices, choose, fill, say } from "./dom.js";
import { short } from "./painting.js";

/** @param {import("./reading.js").Reading} reading @param {import("./cases.js").Desk} desk */
export function wire(reading, desk) {
  const { viewer } = reading;
  choices(byId("show"), [["colour", "Colour"], ["contour", "Contour"], ["hidden", "Off"]], (show) => viewer.set({ show }));
  choices(byId("tool"), [["window", "Window"], ["pan", "Move"]], (tool) => viewer.set({ tool }));
  choices(byId("compare"), [["off", "Off"], ["side", "Side by side"], ["swipe", "Swipe"]], (compare) => reading.setCompare(compare));
  fill(byId("colours"), Object.entries(COLOURS).map(([name, { title }]) => [name, title]), viewer.settings.colours);
  byId("colours").addEventListener("change", ({ target }) => setColours(reading, target.value));
  for (const name of ["opacity", "threshold", "split"]) {
    byId(name).addEventListener("input", ({ target }) => viewer.set({ [name]: Number(target.value) }));
  }
  byId("smooth").addEventListener("change", ({ target }) => viewer.set({ smooth: target.checked }));
  byId("outline").addEventListener("change", ({ target }) => reading.outlines.want(target.checked));
  byId("fit").addEventListener("click", () => (viewer.fit(), viewer.resetWindow()));
  byId("slice").addEventListener("input", ({ target }) => reading.setSlice(Number(target.value) - 1));
  byId("model").addEventListener("change", ({ target }) => reading.current && desk.answerWith(reading.current, target.value));
  for (const name of ["method", "target", "against"]) {
    byId(name).addEventListener("change", ({ target }) => reading.ask({ [name]: target.value }));
  }
  byId("other-method").addEventListener("change", ({ target }) => reading.compareWith({ method: target.value }));
  byId("other-target").addEventListener("change", ({ target }) => reading.compareWith({ target: target.value }));
  byId("working-stop").addEventListener("click", () => reading.stop());
  viewer.addEventListener("change", () => showSettings(viewer));
  viewer.addEventListener("probe", ({ detail }) => showProbe(viewer, detail));
  viewer.addEventListener("slice", ({ detail }) => reading.setSlice((reading.current?.slice ?? 0) + detail));
  showSettings(viewer);
}

/** Another colour map may need another scale. */
export function setColours(reading, colours) {
  reading.viewer.set({ colours });
  reading.refresh();
}

function showSettings({ settings }) {
  for (const name of ["show", "tool", "compare"]) choose(byId(name), settings[name]);
  for (const name of ["colours", "opacity", "threshold", "split"]) byId(name).value = settings[name];
  byId("smooth").checked = settings.smooth;
  byId("comparison").hidden = settings.compare === "off";
  byId("split-label").hidden = settings.compare !== "swipe";
}

/** What can be asked of the case that is looked at. @param {import("./reading.js").Reading} reading */
export function showAsked(reading, desk) {
  const { current, model, other } = reading;
  const wish = current?.wish;
  for (const control of byId("asked").querySelectorAll("select")) control.disabled = !wish;
  const models = [...desk.models.values()].map(({ id, title }) => [id, title]);
  fill(byId("model"), current && !current.answer ? [["", "none"], ...models] : models, current?.model || desk.preferred);
  byId("model").disabled = !current?.frames.length || current.state === "reading" || current.state === "predicting";
  showSlices(current);
  showOutline(reading);
  if (!wish || !model) return;
  const classes = model.labels.map(({ name, display }) => [name, display]);
  const methods = model.explanations.map((each) => [each.method, each.method + cost(each)]);
  const described = model.explanations.find((each) => each.method === wish.method);
  fill(byId("method"), methods, wish.method);
  fill(byId("target"), classes, wish.target);
  fill(byId("against"), [["", "none"], ...classes.filter(([name]) => name !== wish.target)], wish.against);
  byId("against").disabled = !described.contrast || current.frames.length > 1;
  fill(byId("other-method"), methods, (other ?? wish).method);
  fill(byId("other-target"), classes, (other ?? wish).target);
}

function cost({ tier, typical_ms: milliseconds }) {
  if (tier === "inline") return "";
  const seconds = milliseconds / 1000;
  return seconds < 90 ? ` (about ${Math.round(seconds)} s)` : ` (about ${Math.round(seconds / 60)} min)`;
}

function showSlices(current) {
  const count = current?.frames.length ?? 0;
  byId("slices").hidden = count < 2;
  if (count < 2) return;
  const slider = byId("slice");
  slider.max = count;
  slider.value = current.slice + 1;
  slider.setAttribute("aria-valuetext", `${current.slice + 1} of ${count}`);
  byId("slice-text").textContent = `${current.slice + 1} / ${count}`;
}

/** Offered where a segmentation model fits what is shown. */
function showOutline({ outlines, frame, model }) {
  const fitting = outlines.fitting(frame, model);
  byId("outline-label").hidden = !fitting;
  for (const id of ["outline-label", "outline"]) byId(id).title = fitting?.title ?? "";
  byId("outline").checked = outlines.wanted;
}

/** Value of image and map under the cursor; without a cursor, what the map is made of. */
function showProbe(viewer, probe) {
  const { scene } = viewer;
  const text = probe ? probed(probe) : scene ? resolution(scene) : "";
  byId("readout").textContent = text;
  if (probe && viewer.crosshair) say(text);
}

function probed({ column, row, value, map, saliency, interval, cell }) {
  const image = `x ${column}  y ${row}   image ${short(value)}`;
  if (!map) return image;
  if (saliency === null) return `${image}   outside of the map`;
  const sure = interval === null ? "" : ` ± ${short(interval)}`;
  return `${image}   map ${saliency > 0 ? "+" : ""}${short(saliency)}${sure} ${map.unit}   cell ${cell[0] + 1}, ${cell[1] + 1} of ${map.rows} × ${map.columns}`;
}

function resolution({ frame, map }) {
  const size = `${frame.width} × ${frame.height} pixels`;
  if (!map) return size;
  const [width, height] = [map.region[2] / map.columns, map.region[3] / map.rows];
  return `${size}   map ${map.rows} × ${map.columns} cells, each ${short(width)} × ${short(height)} pixels`;
}
