/** Keys of the page, and the list of them. The viewer has its own while it has the focus. */

import { byId, element } from "./dom.js";

const VIEWER = [
  ["arrows", "Move the cursor: values are read out"], ["Shift + arrows", "Move the image"], ["+ −", "Zoom"],
  ["0", "Reset the view"], ["w W", "Window narrower, wider"], ["l L", "Level lower, higher"], ["Page ↑ ↓", "Slice before, after"],
];

/**
 * Listen.
 * @param {[string, string, () => void][]} keys key, what it does, and how
 */
export function listen(keys) {
  const acts = new Map(keys.map(([key, , act]) => [key, act]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !acts.has(event.key)) return;
    const single = event.key.length === 1;
    if (single && event.key !== "?" && !byId("single-keys").checked) return;
    if (event.target.closest("input:not([type=checkbox]):not([type=radio]), select, textarea, dialog[open]")) return;
    event.preventDefault();
    acts.get(event.key)();
  });
  const rows = (some) => some.flatMap(([key, does]) => [
    element("dt", {}, ...key.split(" ").map((each) => (each === "+" && key.includes("Shift") ? " + " : element("kbd", {}, each)))),
    element("dd", {}, does)]);
  byId("help-keys").append(
    element("h3", {}, "Anywhere"), element("dl.keys", {}, ...rows(keys)),
    element("h3", {}, "On the image"), element("dl.keys", {}, ...rows(VIEWER)),
    element("p.small.muted", {}, "Mouse: drag for window and level, Shift or the right button to move, wheel for slices "
      + "(Ctrl for zoom), double click to reset. Touch: two fingers zoom and move."));
}
