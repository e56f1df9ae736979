/**
 * Two pictures in one place with a divider between them. In: bitmaps and labels. Zoom and position are the same for both.
 *
 * Each picture has a canvas as large as the view, drawn anew when it moves; the divider only clips.
 */

const LARGEST_FIT = 8; // small pictures are enlarged at most so much to fit
const LARGEST = 32;
const MARGIN = 24; // around a picture that is fitted into a wide view, CSS pixels
const CHECK = 10; // squares behind transparency, CSS pixels
const NARROW = matchMedia("(max-width: 820px)");

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class SplitView {
  #bitmaps = [null, null];
  #names = ["", ""];
  #transparent = false;
  #split = 50; // percent of the view
  #fit = true;
  #scale = 1; // CSS pixels per picture pixel
  #centre = { x: 0, y: 0 }; // of the view, in picture pixels
  #pointers = new Map();
  #pending = 0;

  /** @param {HTMLElement} root the element `.view` */
  constructor(root) {
    this.root = root;
    this.canvases = [...root.querySelectorAll("canvas")];
    this.chips = [...root.querySelectorAll(".chip")];
    this.surface = root.querySelector(".surface");
    this.divider = root.querySelector(".divider");
    this.percent = root.querySelector(".percent");
    this.radios = [...root.querySelectorAll("[name=zoom]")];
    new ResizeObserver(() => this.#changed()).observe(root);
    for (const radio of this.radios) {
      radio.addEventListener("change", () => this.zoom(radio.value === "fit" ? null : Number(radio.value)));
    }
    this.divider.addEventListener("keydown", (event) => this.#slide(event));
    this.surface.addEventListener("keydown", (event) => this.#press(event));
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      root.addEventListener(type, (event) => this.#point(event));
    }
    this.surface.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.divider.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#changed());
  }

  /** Width and height of what is shown, picture pixels. */
  get size() {
    const { width = 0, height = 0 } = this.#bitmaps[0] ?? this.#bitmaps[1] ?? {};
    return { width, height };
  }

  /**
   * Show two pictures of one size, or one of them. A new size is fitted into the view, of an old one the position stays.
   *
   * @param {{bitmap: ImageBitmap, label: string} | null} left the label such as "Original · 440 kB": its first part is
   *     the picture's name
   * @param {{bitmap: ImageBitmap, label: string} | null} right
   */
  show(left, right) {
    const before = this.size;
    const pictures = [left, right];
    this.#bitmaps = pictures.map((p) => p?.bitmap ?? null);
    this.#names = pictures.map((p) => p?.label.split(" · ")[0] ?? "");
    this.#transparent = this.#bitmaps.some((b) => b && transparent(b));
    pictures.forEach((p, side) => (this.chips[side].textContent = p?.label ?? ""));
    const both = this.#bitmaps.every(Boolean);
    this.root.toggleAttribute("data-single", !both);
    this.divider.hidden = !both;
    this.#announce();
    const { width, height } = this.size;
    if (width !== before.width || height !== before.height) {
      this.#fit = true;
      this.#centre = { x: width / 2, y: height / 2 };
      this.split = 50;
    }
    this.#changed();
  }

  /** Share of the view that the left picture has, percent. */
  set split(percent) {
    this.#split = clamp(percent, 0, 100);
    this.root.style.setProperty("--split", `${this.#split}%`);
    this.#announce();
  }

  get split() {
    return this.#split;
  }

  /** CSS pixels per picture pixel, about a point of the view; null fits the picture into it. */
  zoom(scale, about = null) {
    this.#fit = scale === null;
    if (scale !== null) {
      const { x, y } = about ?? { x: 0, y: 0 }; // from the middle of the view
      const next = clamp(scale, Math.min(1, this.#fitting()), LARGEST);
      this.#centre.x += x / this.#scale - x / next;
      this.#centre.y += y / this.#scale - y / next;
      this.#scale = next;
    }
    this.#changed();
  }

  /** The scale at which all of the picture is seen. */
  #fitting() {
    const { width, height } = this.size;
    const view = this.root.getBoundingClientRect();
    const margin = NARROW.matches ? 0 : 2 * MARGIN;
    return clamp(Math.min((view.width - margin) / width, (view.height - margin) / height), 0.001, LARGEST_FIT);
  }

  #announce() {
    const value = Math.round(this.#split);
    this.divider.setAttribute("aria-valuenow", String(value));
    this.divider.setAttribute("aria-valuetext", `${value} % ${this.#names[0]}, ${100 - value} % ${this.#names[1]}`);
  }

  /** Put everything right that depends on size, scale and position, and draw with the next frame. */
  #changed() {
    const { width, height } = this.size;
    const view = this.root.getBoundingClientRect();
    if (!width || !view.width) return;
    if (this.#fit) this.#scale = this.#fitting();
    const room = { x: view.width / this.#scale / 2, y: view.height / this.#scale / 2 };
    const inside = (at, half, length) => (2 * half >= length ? length / 2 : clamp(at, half, length - half));
    this.#centre = { x: inside(this.#centre.x, room.x, width), y: inside(this.#centre.y, room.y, height) };
    this.root.toggleAttribute("data-pan", 2 * room.x < width - 0.01 || 2 * room.y < height - 0.01);
    for (const radio of this.radios) {
      radio.checked = radio.value === "fit" ? this.#fit : !this.#fit && Number(radio.value) === this.#scale;
    }
    this.percent.textContent = `${Math.round(100 * this.#scale)} %`;
    if (!this.#pending) {
      this.#pending = requestAnimationFrame(() => {
        this.#pending = 0;
        this.#draw();
      });
    }
  }

  #draw() {
    const { width, height } = this.size;
    const view = this.root.getBoundingClientRect();
    const dense = devicePixelRatio;
    const left = view.width / 2 - this.#centre.x * this.#scale;
    const top = view.height / 2 - this.#centre.y * this.#scale;
    const x0 = clamp(Math.floor(-left / this.#scale) - 1, 0, width);
    const y0 = clamp(Math.floor(-top / this.#scale) - 1, 0, height);
    const x1 = clamp(Math.ceil((view.width - left) / this.#scale) + 1, 0, width);
    const y1 = clamp(Math.ceil((view.height - top) / this.#scale) + 1, 0, height);
    this.canvases.forEach((canvas, side) => {
      canvas.width = Math.round(view.width * dense);
      canvas.height = Math.round(view.height * dense);
      const bitmap = this.#bitmaps[side];
      if (!bitmap || x1 <= x0 || y1 <= y0) return;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = this.#scale < 1 || (this.#fit && this.#scale < 2);
      context.imageSmoothingQuality = "high";
      // Whole pixels of the screen, so that 1:1 shows every pixel of the picture as it is.
      const at = (origin, pixel) => Math.round((origin + pixel * this.#scale) * dense);
      const [a, b, c, d] = [at(left, x0), at(top, y0), at(left, x1), at(top, y1)];
      if (this.#transparent) {
        context.fillStyle = this.#checks(context, dense);
        context.fillRect(a, b, c - a, d - b);
      }
      const [sx, sy] = [bitmap.width / width, bitmap.height / height];
      context.drawImage(bitmap, x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy, a, b, c - a, d - b);
    });
  }

  #checks(context, dense) {
    const style = getComputedStyle(this.root);
    const edge = Math.round(CHECK * dense);
    const tile = new OffscreenCanvas(2 * edge, 2 * edge);
    const paint = tile.getContext("2d");
    paint.fillStyle = style.getPropertyValue("--surface");
    paint.fillRect(0, 0, 2 * edge, 2 * edge);
    paint.fillStyle = style.getPropertyValue("--check");
    paint.fillRect(0, 0, edge, edge);
    paint.fillRect(edge, edge, edge, edge);
    return context.createPattern(tile, "repeat");
  }

  #slide(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const step = steps[event.key] ?? { Home: -100, End: 100 }[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.split = Math.round(this.#split) + step * (event.shiftKey ? 5 : 1);
  }

  #press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = 60 / this.#scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key] && this.root.hasAttribute("data-pan")) {
      this.#centre.x += moves[event.key][0];
      this.#centre.y += moves[event.key][1];
      this.#changed();
    } else if (event.key === "+" || event.key === "=") {
      this.zoom(2 ** (Math.floor(Math.log2(this.#scale) + 1e-6) + 1));
    } else if (event.key === "-") {
      this.zoom(2 ** (Math.ceil(Math.log2(this.#scale) - 1e-6) - 1));
    } else if (event.key === "0") {
      this.zoom(null);
    } else {
      return;
    }
    event.preventDefault();
  }

  #wheel(event) {
    if (NARROW.matches && !event.ctrlKey) return; // there the page scrolls
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    this.zoom(this.#scale * 2 ** clamp((-event.deltaY * lines) / (event.ctrlKey ? 100 : 300), -1, 1), this.#from(event));
  }

  /** Where a pointer is, from the middle of the view. */
  #from(event) {
    const view = this.root.getBoundingClientRect();
    return { x: event.clientX - view.left - view.width / 2, y: event.clientY - view.top - view.height / 2 };
  }

  #point(event) {
    const { type, pointerId } = event;
    if (type === "pointerdown") {
      if (event.button !== 0 || event.target.closest(".zoom")) return;
      const onDivider = this.divider.contains(event.target);
      const pans = !onDivider && this.root.hasAttribute("data-pan");
      this.#pointers.set(pointerId, { ...this.#from(event), does: pans ? "pan" : "split" });
      this.root.setPointerCapture(pointerId);
      if (onDivider) this.divider.focus({ preventScroll: true });
      return;
    }
    const last = this.#pointers.get(pointerId);
    if (!last) return;
    if (type !== "pointermove") {
      this.#pointers.delete(pointerId);
      return;
    }
    const now = this.#from(event);
    const other = [...this.#pointers].find(([id]) => id !== pointerId)?.[1];
    if (other) {
      const apart = (p) => Math.hypot(p.x - other.x, p.y - other.y);
      const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
      this.#centre.x -= (now.x - last.x) / 2 / this.#scale;
      this.#centre.y -= (now.y - last.y) / 2 / this.#scale;
      this.zoom((this.#scale * apart(now)) / Math.max(1, apart(last)), middle);
    } else if (last.does === "pan") {
      this.#centre.x -= (now.x - last.x) / this.#scale;
      this.#centre.y -= (now.y - last.y) / this.#scale;
      this.#changed();
    } else {
      this.split = 50 + (100 * now.x) / this.root.getBoundingClientRect().width;
    }
    this.#pointers.set(pointerId, { ...now, does: last.does });
  }
}

/** Whether a part of a picture that can be seen is transparent. */
function transparent(bitmap) {
  const context = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, 64, 64);
  return context.getImageData(0, 0, 64, 64).data.some((value, i) => i % 4 === 3 && value < 255);
}
