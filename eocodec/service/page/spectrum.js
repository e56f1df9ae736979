/**
 * A model's spectrum: explained entropy against the rank of the latents, with the cut at C or the level of the noise.
 *
 * In: ranks and entropies. Out: an SVG, and C where the user points at it.
 */

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 204; // as in style.css
const MARGIN = { left: 34, right: 10, top: 24, bottom: 38 };

function make(parent, name, attributes = {}, text = "") {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  parent.append(element);
  return element;
}

/** Entropy in nats of white Gaussian noise of deviation `sigma`, 8-bit levels: ½ log(2πe σ²), pictures in 0 to 1. */
export function noiseFloor(sigma) {
  return 0.5 * Math.log(2 * Math.PI * Math.E * (sigma / 255) ** 2);
}

export class Spectrum {
  #data = null;
  #cut = null;
  #sigma = null;

  /**
   * @param {HTMLElement} host
   * @param {((rate: number) => void) | null} onpick told C when the user points at the plot
   */
  constructor(host, onpick = null) {
    this.svg = make(host, "svg", { role: "img", ...(onpick && { class: "pick" }) });
    this.onpick = onpick;
    new ResizeObserver(() => this.#draw()).observe(host);
    if (onpick) {
      const pick = (event) => this.#data && onpick(this.#rateAt(event));
      this.svg.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        this.svg.setPointerCapture(event.pointerId);
        pick(event);
      });
      this.svg.addEventListener("pointermove", (event) => {
        if (this.svg.hasPointerCapture(event.pointerId)) pick(event);
      });
    }
  }

  /** @param {{block: number, rank: number[], entropy: number[]} | null} data as /v1/models/NAME/spectrum gives it */
  set data(data) {
    this.#data = data;
    this.#draw();
  }

  /** C, or null for no cut. */
  set cut(rate) {
    this.#cut = rate;
    this.#draw();
  }

  get cut() {
    return this.#cut;
  }

  /** The noise in 8-bit levels, or null for none. */
  set sigma(sigma) {
    this.#sigma = sigma;
    this.#draw();
  }

  /** Entropy at a rank, between bands along the line that is drawn. */
  entropyAt(rate) {
    const { rank, entropy } = this.#data;
    const next = rank.findIndex((r) => r >= rate);
    if (next === 0) return entropy[0];
    if (next < 0) return entropy.at(-1);
    const [a, b] = [Math.log(rank[next - 1]), Math.log(rank[next])];
    const t = b > a ? (Math.log(rate) - a) / (b - a) : 1;
    return entropy[next - 1] + t * (entropy[next] - entropy[next - 1]);
  }

  /** How many latents have more entropy than noise of deviation `sigma`. */
  above(sigma) {
    const { block, rank, entropy } = this.#data;
    const floor = noiseFloor(sigma);
    const below = entropy.findIndex((h) => h <= floor);
    if (below < 0) return block;
    return below === 0 ? 0 : Math.round((rank[below - 1] + rank[below]) / 2);
  }

  get block() {
    return this.#data?.block ?? 0;
  }

  get #width() {
    return Math.max(160, this.svg.clientWidth || this.svg.parentElement.clientWidth);
  }

  #x(rate) {
    const inner = this.#width - MARGIN.left - MARGIN.right;
    return MARGIN.left + (inner * Math.log(rate)) / Math.log(this.#data.block);
  }

  #rateAt(event) {
    const box = this.svg.getBoundingClientRect();
    const inner = this.#width - MARGIN.left - MARGIN.right;
    const t = (event.clientX - box.left - MARGIN.left) / inner;
    return this.#data.block ** Math.min(1, Math.max(0, t));
  }

  #draw() {
    const svg = this.svg;
    svg.replaceChildren();
    if (!this.#data || !svg.clientWidth) return;
    const { block, rank, entropy } = this.#data;
    svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    const bottom = HEIGHT - MARGIN.bottom;
    const right = this.#width - MARGIN.right;
    const low = Math.floor(Math.min(...entropy));
    const high = Math.ceil(Math.max(...entropy));
    const y = (h) => MARGIN.top + ((high - h) / (high - low)) * (bottom - MARGIN.top);
    const points = rank.map((r, i) => [this.#x(r), y(entropy[i])]);
    points.push([this.#x(block), points.at(-1)[1]]);
    const path = (list) => list.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
    const under = (from, to, kind) => {
      const inner = points.filter(([a]) => a > from.x && a < to.x);
      const corners = [[from.x, bottom], [from.x, from.y], ...inner, [to.x, to.y], [to.x, bottom]];
      make(svg, "polygon", { class: kind, points: path(corners) });
    };
    const first = { x: points[0][0], y: points[0][1] };
    const last = { x: points.at(-1)[0], y: points.at(-1)[1] };

    const step = high - low > 5 ? 2 : 1;
    for (let h = Math.ceil(low / step) * step; h <= high; h += step) {
      make(svg, "line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(h), y2: y(h) });
      make(svg, "text", { x: MARGIN.left - 7, y: y(h) + 4, "text-anchor": "end" }, String(h).replace("-", "−"));
    }
    for (const rateMark of ticks(block)) {
      const at = this.#x(rateMark);
      make(svg, "line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 });
      const anchor = rateMark === block ? "end" : "middle";
      make(svg, "text", { x: at, y: bottom + 17, "text-anchor": anchor }, String(rateMark));
    }

    const cut = this.#cut ?? (this.#sigma > 0 ? Math.max(1, this.above(this.#sigma)) : null);
    if (cut !== null) {
      const at = { x: this.#x(Math.min(block, Math.max(1, cut))), y: y(this.entropyAt(cut)) };
      under(first, at, "kept");
      under(at, last, "dropped");
    }
    make(svg, "line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom });
    make(svg, "polyline", { class: "curve", points: path(points) });
    if (this.#cut !== null) {
      const at = this.#x(Math.min(block, Math.max(1, this.#cut)));
      make(svg, "line", { class: "cut", x1: at, x2: at, y1: MARGIN.top, y2: bottom });
      make(svg, "circle", { class: "knob", cx: at, cy: y(this.entropyAt(this.#cut)), r: 6 });
    }
    if (this.#sigma > 0) {
      const at = Math.min(bottom, Math.max(MARGIN.top, y(noiseFloor(this.#sigma))));
      make(svg, "line", { class: "floor", x1: MARGIN.left, x2: right, y1: at, y2: at });
      make(svg, "text", { class: "over", x: MARGIN.left + 8, y: at - 6 }, `noise, σ = ${this.#sigma.toFixed(1)}`);
    }
    make(svg, "text", { x: right, y: HEIGHT - 4, "text-anchor": "end" }, "rank of the latent (log scale)");
    make(svg, "text", { x: 0, y: 10 }, "explained entropy (nats)");
    svg.setAttribute("aria-label", this.#words());
  }

  #words() {
    const { block, entropy } = this.#data;
    const [first, last] = [entropy[0].toFixed(1), entropy.at(-1).toFixed(1)];
    const range = `Explained entropy falls from ${first} to ${last} nats over ${block} latents`;
    if (this.#cut !== null) return `${range}; cut at C = ${Math.round(this.#cut)}.`;
    if (this.#sigma > 0) return `${range}; ${this.above(this.#sigma)} of them lie above the noise.`;
    return `${range}.`;
  }
}

/** Marks of a logarithmic axis: 1, 10, 100, and its end. */
function ticks(block) {
  const marks = [];
  for (let mark = 1; mark < block / 2.5; mark *= 10) marks.push(mark);
  return [...marks, block];
}
