/** Keeps what is filled in: in this browser at once, at the service a moment later, whoever of the two dies. */

import { Problem } from "./client.js";

const PAUSE = 400; // ms after the last change
const RETRY = 2000; // ms after a failure
const BEAT = 10_000; // ms between savings of the time alone

const keyOf = (id) => `radiolucent-reading-${id}`;

export class Drafts {
  /**
   * @param {import("./client.js").Client} client
   * @param {{id: string, revision: number, draft: Object | null}} shown the case
   * @param {() => Object} read the opinion as it stands
   * @param {(state: "saving" | "saved" | "waiting" | "refused") => void} tell
   */
  constructor(client, shown, read, tell) {
    Object.assign(this, { client, id: shown.id, revision: shown.revision, read, tell });
    this.timer = 0;
    this.ended = false;
    this.beat = setInterval(() => document.visibilityState === "visible" && this.#later(), BEAT);
    this.leaving = () => document.visibilityState === "hidden" && this.#push(true);
    document.addEventListener("visibilitychange", this.leaving);
  }

  /** The later one of the service's draft and this browser's; null where there is none. */
  static latest(shown) {
    const here = JSON.parse(localStorage.getItem(keyOf(shown.id)) ?? "null");
    if (!here || here.revision <= shown.revision) return { revision: shown.revision, opinion: shown.draft };
    return here;
  }

  /** Something was filled in. */
  changed() {
    if (this.ended) return;
    this.tell("saving");
    this.#later();
  }

  /** The answer is saved: there is nothing more to keep. */
  end() {
    this.pause();
    localStorage.removeItem(keyOf(this.id));
  }

  /** Save no more; what is in this browser stays. */
  pause() {
    this.ended = true;
    clearTimeout(this.timer);
    clearInterval(this.beat);
    document.removeEventListener("visibilitychange", this.leaving);
  }

  #later() {
    this.revision += 1;
    localStorage.setItem(keyOf(this.id), JSON.stringify({ revision: this.revision, opinion: this.read() }));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#push(), PAUSE);
  }

  async #push(leaving = false) {
    if (this.ended) return;
    const { revision } = this;
    if (revision === 0) return;
    try {
      const kept = await this.client.draft(this.id, { ...this.read(), revision }, leaving);
      if (this.ended) return;
      this.client.onAway(false);
      if (kept.revision > this.revision) this.revision = kept.revision; // another window was here
      if (revision === this.revision) this.tell("saved");
    } catch (error) {
      if (this.ended) return;
      if (error instanceof Problem && error.status < 500) return this.tell("refused");
      this.tell("waiting");
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#push(), RETRY);
    }
  }
}
