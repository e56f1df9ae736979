/**
 * Changes of a compressed face along named paths in its latents, and on towards another face. In: the file that is open
 * and the names of its model's paths. Out: the changed picture beside the face, and the changed file.
 */

import { Latest } from "./latest.js";
import * as words from "./words.js";

const PAUSE = 100; // ms after the last change of a slider
const FARTHEST = 3; // steps along a path
const byId = (id) => document.getElementById(id);

/** An amount with its sign: +1.5, 0, −2. */
const signed = (amount) => (amount > 0 ? `+${amount}` : String(amount).replace("-", "−"));

export class FacePaths {
  #blob = null;
  #name = "";
  #other = null;
  #before = null; // the face, as {bitmap, label}
  #after = null;
  #sliders = new Map();

  /** @param {object} page what the tabs share, see app.js */
  constructor(page) {
    this.page = page;
    this.latest = new Latest({ onbusy: (busy) => page.busy(this, busy), onerror: page.fail });
    byId("f-share").addEventListener("input", () => this.#changed());
    byId("f-other").addEventListener("change", () => this.#take(byId("f-other").files[0]));
    byId("f-edited").addEventListener("click", () => this.#save());
    byId("f-reset").addEventListener("click", () => this.#reset());
  }

  /**
   * Offer the paths for a face; none hides them.
   *
   * @param {{name: string, blob: Blob, names: string[], shown: {bitmap: ImageBitmap, label: string}}} face
   */
  open({ name, blob, names, shown }) {
    this.latest.stop();
    [this.#name, this.#blob, this.#before] = [name, blob, shown];
    byId("f-paths").hidden = names.length === 0;
    this.#sliders.clear();
    byId("f-steps").replaceChildren(...names.map((path, k) => this.#slider(path, k)));
    this.#take(null);
    byId("f-other").value = "";
  }

  stop() {
    this.latest.stop();
  }

  #slider(path, k) {
    const row = document.createElement("div");
    const [label, amount, input] = ["label", "output", "input"].map((tag) => document.createElement(tag));
    row.className = "slider";
    input.id = label.htmlFor = `f-step-${k}`;
    amount.htmlFor = input.id;
    label.textContent = path[0].toUpperCase() + path.slice(1);
    amount.textContent = "0";
    Object.assign(input, { type: "range", min: -FARTHEST, max: FARTHEST, step: 0.25, value: 0 });
    input.addEventListener("input", () => this.#changed());
    row.append(label, amount, input);
    this.#sliders.set(path, { input, amount });
    return row;
  }

  #take(other) {
    this.#other = other ?? null;
    byId("f-share-row").hidden = !other;
    byId("f-share").value = other ? "0.5" : "0";
    if (this.#blob && !byId("f-paths").hidden) this.#changed();
  }

  #reset() {
    for (const { input } of this.#sliders.values()) input.value = "0";
    byId("f-other").value = "";
    this.#take(null);
  }

  /** What the service is asked for. */
  #request(parameters) {
    const paths = [...this.#sliders]
      .filter(([, { input }]) => Number(input.value) !== 0)
      .map(([path, { input }]) => `${path}=${Number(input.value)}`)
      .join(";");
    let body = this.#blob;
    const share = this.#other ? Number(byId("f-share").value) : 0;
    if (share) {
      body = new FormData();
      body.append("face", this.#blob);
      body.append("other", this.#other);
    }
    return { parameters: { paths, share: share || undefined, ...parameters }, body, unchanged: !paths && !share };
  }

  #changed() {
    for (const { input, amount } of this.#sliders.values()) {
      amount.textContent = signed(Number(input.value));
      input.setAttribute("aria-valuetext", amount.textContent);
    }
    const share = `${Math.round(100 * Number(byId("f-share").value))} %`;
    byId("f-share-text").textContent = share;
    byId("f-share").setAttribute("aria-valuetext", share);
    const { parameters, body, unchanged } = this.#request({});
    byId("f-edited").disabled = byId("f-reset").disabled = unchanged;
    if (unchanged) {
      this.latest.stop();
      this.#show(null);
      return;
    }
    this.latest.run(async (signal) => {
      const answer = await this.page.service.request("v1/edit", { parameters, body, accept: "image/png", signal });
      const bitmap = await createImageBitmap(await answer.blob());
      if (signal.aborted) return bitmap.close();
      this.page.done();
      this.#show(bitmap);
      this.page.say("The face is changed.");
    }, PAUSE);
  }

  /** Show the changed face beside the one of the file, or that alone. */
  #show(bitmap) {
    const before = this.#after;
    this.#after = bitmap;
    if (bitmap) this.page.view.show(this.#before, { bitmap, label: "Changed" });
    else if (before) this.page.view.show(null, this.#before);
    before?.close();
  }

  async #save() {
    const { parameters, body } = this.#request({ format: "eoc" });
    try {
      const answer = await this.page.service.request("v1/edit", { parameters, body });
      this.page.save(await answer.blob(), `${words.stem(this.#name)}-changed.eoc`);
    } catch (error) {
      this.page.fail(error);
    }
  }
}
