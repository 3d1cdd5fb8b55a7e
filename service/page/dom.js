/** Elements, without ever parsing HTML. */

/**
 * Make an element.
 * @param {string} tag with classes, such as "p.muted.small".
 * @param {Object<string, any>} attributes `on...` are listeners, the others attributes; false and null leave one out.
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** Fill a select, keeping what is chosen where it is still there. @param {[string, string][]} options value, text */
export function fill(select, options, chosen) {
  const same = select.options.length === options.length
    && options.every(([value, text], index) => select.options[index].value === value && select.options[index].text === text);
  if (!same) select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}

/** Radio buttons that look like one control. @param {HTMLElement} fieldset @param {[string, string][]} options */
export function choices(fieldset, options, onchange) {
  for (const [value, text] of options) {
    const input = element("input.visually-hidden", { type: "radio", name: fieldset.id, value, onchange: () => onchange(value) });
    fieldset.append(element("label", {}, input, element("span", {}, text)));
  }
}

/** Mark the chosen one of them. */
export function choose(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === value;
}

/** Tell those who listen instead of looking. @param {string} text */
export function say(text) {
  byId("live").textContent = text;
}

/** @param {number} share */
export const percent = (share) => {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return `${value.toFixed(1)} %`;
};
