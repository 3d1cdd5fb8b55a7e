/** The reader's requests. What fails because the service is away is sent again until it arrives: every request may be repeated. */

const WAITS = [500, 1000, 2000, 4000]; // ms before the next try; the last one again and again

/** The service's refusal: its problem+json. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Client {
  /** @param {string} code the reader's @param {(away: boolean) => void} onAway told when the service goes and comes back */
  constructor(code, onAway) {
    this.code = code;
    this.onAway = onAway;
  }

  session = () => this.#json("GET", "");
  next = () => this.#json("POST", "/next");
  answer = (id, opinion) => this.#json("POST", `/cases/${id}/answer`, opinion);

  /** One try: a later draft is on its way anyway. */
  draft = async (id, draft, leaving = false) => (await this.#send("PUT", `/cases/${id}/draft`, draft, leaving)).json();

  /** @param {{id: string, pixels: {width: number, height: number, bits: number}}} shown @returns {Promise<Uint8Array | Uint16Array>} */
  async pixels({ id, pixels: { width, height, bits } }) {
    const bytes = await (await this.#patiently(() => this.#send("GET", `/cases/${id}/pixels`))).arrayBuffer();
    if (bytes.byteLength !== (width * height * bits) / 8) throw new Error("the image arrived incomplete");
    if (bits === 8) return new Uint8Array(bytes);
    const view = new DataView(bytes);
    return Uint16Array.from({ length: width * height }, (_, at) => view.getUint16(2 * at, true));
  }

  async #json(method, path, body) {
    return (await this.#patiently(() => this.#send(method, path, body))).json();
  }

  /** Try until there is an answer: one of the service's own, or a refusal of what was asked. */
  async #patiently(attempt) {
    for (let tries = 0; ; tries++) {
      try {
        const answer = await attempt();
        this.onAway(false);
        return answer;
      } catch (error) {
        if (error instanceof Problem && error.status < 500) {
          this.onAway(false);
          throw error;
        }
        this.onAway(true);
        await new Promise((resolve) => setTimeout(resolve, WAITS[Math.min(tries, WAITS.length - 1)]));
      }
    }
  }

  async #send(method, path, body, keepalive = false) {
    const headers = { Authorization: `Bearer ${this.code}`, ...(body && { "Content-Type": "application/json" }) };
    const options = { method, headers, body: body && JSON.stringify(body), keepalive, cache: "no-store" };
    const answer = await fetch(`/v1/reading${path}`, options);
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new Problem(answer.status, problem.detail ?? `HTTP ${answer.status}`);
  }
}
