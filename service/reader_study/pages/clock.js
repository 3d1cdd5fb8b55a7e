/** Counts the seconds that a case is on the screen while its reader is there. */

const IDLE = 120_000; // ms without any input after which the reader is taken to be away
const SIGNS = ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "input"];

export class ActiveClock {
  /** @param {number} seconds counted before @param {() => number} [now] ms */
  constructor(seconds, now = () => performance.now()) {
    this.now = now;
    this.counted = seconds * 1000;
    this.sign = this.from = now();
    this.running = document.visibilityState === "visible";
    this.stop = new AbortController();
    const options = { signal: this.stop.signal, passive: true, capture: true };
    for (const kind of SIGNS) document.addEventListener(kind, () => this.#alive(), options);
    document.addEventListener("visibilitychange", () => this.#turned(), options);
  }

  /** Seconds so far. */
  get seconds() {
    return Math.round(this.#total()) / 1000;
  }

  /** Stop for good. @returns {number} seconds */
  end() {
    this.stop.abort();
    this.counted = this.#total();
    this.running = false;
    return this.seconds;
  }

  #total() {
    return this.running ? this.counted + Math.max(0, Math.min(this.now(), this.sign + IDLE) - this.from) : this.counted;
  }

  #alive() {
    this.counted = this.#total();
    this.sign = this.from = this.now();
  }

  #turned() {
    this.counted = this.#total();
    this.sign = this.from = this.now();
    this.running = document.visibilityState === "visible";
  }
}
