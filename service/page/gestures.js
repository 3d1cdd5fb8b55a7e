/** Mouse, pen, touch and keys of a viewer. */

const ZOOM_STEP = 1.2;
const NEAR = 14; // CSS pixels around the divider that move it

/** Listens on a viewer's canvas and tells the viewer what to do. */
export class Gestures {
  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
    /** @type {Map<number, [number, number]>} */
    this.fingers = new Map();
    this.turned = 0;
    const on = (kind, act) => viewer.canvas.addEventListener(kind, act.bind(this), { passive: false });
    on("pointerdown", this.#down);
    on("pointermove", this.#move);
    on("pointerup", this.#up);
    on("pointercancel", this.#up);
    on("pointerleave", () => this.fingers.size || viewer.point(null));
    on("wheel", this.#wheel);
    on("dblclick", () => (viewer.fit(), viewer.resetWindow()));
    on("contextmenu", (event) => event.preventDefault());
    on("keydown", this.#key);
  }

  #down(event) {
    this.viewer.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, at(event));
    const { settings, scene } = this.viewer;
    const divider = settings.split * this.viewer.size()[0];
    const swiping = settings.compare === "swipe" && scene?.other && Math.abs(event.offsetX - divider) < NEAR;
    const panning = event.button !== 0 || event.shiftKey || settings.tool === "pan";
    this.doing = swiping ? "swipe" : panning ? "pan" : "window";
    if (this.viewer.crosshair) {
      this.viewer.crosshair = false;
      this.viewer.draw();
    }
  }

  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) {
      this.viewer.point(at(event));
      return;
    }
    const spread = this.#spread();
    this.fingers.set(event.pointerId, at(event));
    const [dx, dy] = [event.offsetX - before[0], event.offsetY - before[1]];
    if (this.fingers.size > 1) {
      this.viewer.panBy(dx / 2, dy / 2);
      if (spread) this.viewer.zoomBy(this.#spread() / spread, this.#middle());
    } else {
      this.#drag(dx, dy, event.offsetX);
    }
    if (this.doing !== "window") this.viewer.point(at(event));
  }

  #drag(dx, dy, x) {
    if (this.doing === "pan") this.viewer.panBy(dx, dy);
    else if (this.doing === "swipe") this.viewer.set({ split: Math.max(0, Math.min(1, x / this.viewer.size()[0])) });
    else this.#window(dx, dy);
  }

  /** To the right wider, down darker, as viewers of radiology do. */
  #window(dx, dy) {
    if (!this.viewer.scene) return;
    const [least, most] = this.viewer.scene.frame.window;
    const step = (most - least) / 400;
    const [low, high] = this.viewer.window;
    const [level, half] = [(low + high) / 2 + dy * step, Math.max((high - low) / 2 + dx * step, step / 2)];
    this.viewer.setWindow(level - half, level + half);
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
  }

  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey || !this.viewer.scrolls()) {
      this.viewer.zoomBy(Math.exp(-event.deltaY / 400), at(event));
      return;
    }
    this.turned += event.deltaY * (event.deltaMode === 1 ? 40 : 1); // lines or pixels
    const slices = Math.trunc(this.turned / 40);
    this.turned -= slices * 40;
    if (slices) this.viewer.slice(Math.sign(slices) * Math.min(Math.abs(slices), 3));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.viewer.scene) return;
    const act = this.#keys(event.shiftKey)[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #keys(shift) {
    const viewer = this.viewer;
    const step = viewer.scene.frame.width / 50;
    const arrow = (x, y) => () => (shift ? viewer.panBy(-40 * x, -40 * y) : viewer.moveCursor(step * x, step * y));
    return {
      ArrowLeft: arrow(-1, 0), ArrowRight: arrow(1, 0), ArrowUp: arrow(0, -1), ArrowDown: arrow(0, 1),
      "+": () => viewer.zoomBy(ZOOM_STEP), "=": () => viewer.zoomBy(ZOOM_STEP), "-": () => viewer.zoomBy(1 / ZOOM_STEP),
      0: () => (viewer.fit(), viewer.resetWindow()),
      w: () => this.#window(-20, 0), W: () => this.#window(20, 0), l: () => this.#window(0, -20), L: () => this.#window(0, 20),
      PageDown: () => viewer.slice(1), PageUp: () => viewer.slice(-1),
    };
  }

  #spread() {
    const [a, b] = [...this.fingers.values()];
    return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
  }

  #middle() {
    const [a, b] = [...this.fingers.values()];
    return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  }
}

const at = (event) => [event.offsetX, event.offsetY];
