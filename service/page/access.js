/** Asks for a key where the service wants one. */

import { byId } from "./dom.js";
import { hasKey, Refusal, useKey } from "./service.js";

/** Repeat a call until the service takes the key, or wants none. @template T @param {() => Promise<T>} call @returns {Promise<T>} */
export async function withKey(call) {
  byId("key-open").addEventListener("click", forget);
  for (;;) {
    try {
      const answer = await call();
      byId("key-open").hidden = !hasKey();
      return answer;
    } catch (error) {
      if (!(error instanceof Refusal) || !isAboutTheKey(error)) throw error;
      await asked(hasKey() ? error.message : "");
    }
  }
}

const isAboutTheKey = ({ status }) => status === 401 || (status === 403 && hasKey());

/** @param {string} problem with the key before */
function asked(problem) {
  const dialog = byId("key");
  byId("key-problem").hidden = !problem;
  byId("key-problem").textContent = problem;
  dialog.showModal();
  byId("key-value").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      useKey(byId("key-value").value.trim());
      byId("key-value").value = "";
      resolve();
    }, { once: true });
  });
}

/** Nothing of what the key opened stays in the tab. */
function forget() {
  useKey("");
  location.reload();
}
