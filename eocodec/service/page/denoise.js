/**
 * The tab "Denoise". In: a picture, to which noise can be added for a try. Out: the picture without noise, in the view.
 */

import { remarks } from "./api.js";
import { Latest } from "./latest.js";
import { CLEAN, noisy } from "./noise.js";
import * as pixels from "./pixels.js";
import { Spectrum } from "./spectrum.js";
import * as words from "./words.js";

const PAUSE = 200; // ms after the last change of a slider
const METHODS = {
  net: "net (learned gains)",
  shrink: "shrink (posterior mean)",
  drop: "drop (keep or drop)",
};
const byId = (id) => document.getElementById(id);

export class DenoisePanel {
  #picture = null;
  #input = null; // what is denoised: the picture, or it with noise
  #clean = null; // result, PNG
  #sigma = null;
  #method = "";
  #remarks = [];
  #stale = true;
  #active = false;

  /** @param {object} page what the tabs share, see app.js */
  constructor(page) {
    this.page = page;
    this.latest = new Latest({ onbusy: (busy) => page.busy(this, busy), onerror: (error) => this.#fail(error) });
    this.spectrum = new Spectrum(byId("d-spectrum"));
    for (const radio of document.querySelectorAll("[name=level]")) {
      radio.addEventListener("change", () => {
        if (this.#auto === false && this.#sigma >= CLEAN) this.#level(Math.round(2 * this.#sigma) / 2);
        this.#arrange();
        this.#request(0);
      });
    }
    this.#pair("d-level", () => this.#request(PAUSE));
    this.#pair("d-strength", () => this.#request(PAUSE));
    this.#pair("d-noise", () => {
      this.#arrange();
      this.#refresh(PAUSE);
    });
    byId("d-seed").addEventListener("input", () => byId("d-seed").value !== "" && this.#refresh(PAUSE));
    byId("d-method").addEventListener("change", () => this.#request(0));
    byId("d-save").addEventListener("click", () => this.#save());
    byId("d-level-number").value = byId("d-level").value;
  }

  open(picture) {
    this.#picture = picture;
    this.#input = null;
    this.#clean = null;
    this.#sigma = null;
    this.#stale = true;
    this.#blank();
    const { models } = this.page;
    this.model = models.find((m) => !m.size) ?? models.find((m) => m.size === `${picture.width}x${picture.height}`);
    byId("d-method").replaceChildren(
      new Option("best there is", "auto"),
      ...(this.model?.methods ?? []).map((name) => new Option(METHODS[name] ?? name, name)),
    );
    if (this.model) {
      const { name } = this.model;
      this.page.spectrum(name).then((data) => (this.spectrum.data = data), this.page.fail);
    }
  }

  activate() {
    this.#active = true;
    if (!this.#picture) return;
    if (this.#stale) this.#refresh(0);
    else this.#display();
  }

  deactivate() {
    this.#active = false;
    this.latest.stop();
  }

  /** A slider and the number beside it. */
  #pair(id, changed) {
    const [slider, number] = [byId(id), byId(`${id}-number`)];
    slider.addEventListener("input", () => {
      number.value = slider.value;
      changed();
    });
    number.addEventListener("input", () => {
      if (number.value === "" || !number.validity.valid) return;
      slider.value = number.value;
      changed();
    });
    number.addEventListener("change", () => {
      if (number.value === "" || !number.validity.valid) number.value = slider.value;
    });
  }

  get #auto() {
    return document.querySelector("[name=level]:checked").value === "auto";
  }

  get #added() {
    return Number(byId("d-noise-number").value) || 0;
  }

  #level(sigma) {
    byId("d-level").value = byId("d-level-number").value = String(sigma);
  }

  #arrange() {
    byId("d-level-row").hidden = this.#auto;
    byId("d-seed-row").hidden = this.#added === 0;
  }

  /** Make the input anew, then denoise it. */
  #refresh(pause) {
    this.#input = null;
    this.#request(pause);
  }

  async #prepare() {
    const picture = this.#picture;
    const sigma = this.#added;
    if (sigma === 0) return { blob: picture.blob, bitmap: picture.bitmap, reference: null };
    const reference = pixels.read(picture.bitmap);
    const data = noisy(reference, sigma, Number(byId("d-seed").value) || 0);
    const [blob, bitmap] = await Promise.all([pixels.png(data), createImageBitmap(data)]);
    return { blob, bitmap, reference, before: pixels.psnr(reference, data) };
  }

  #request(pause) {
    this.#stale = true;
    if (!this.#active || !this.#picture) return;
    this.latest.run(async (signal) => {
      const input = this.#input ?? (await this.#prepare());
      if (signal.aborted) return;
      this.#input = input;
      const parameters = {
        model: this.model?.name,
        sigma: this.#auto ? "auto" : Number(byId("d-level-number").value),
        strength: Number(byId("d-strength-number").value),
        method: byId("d-method").value,
      };
      const answer = await this.page.service.request("v1/denoise", {
        parameters,
        body: input.blob,
        accept: "image/png",
        signal,
      });
      const clean = await answer.blob();
      const bitmap = await createImageBitmap(clean);
      if (signal.aborted) return bitmap.close();
      const before = this.bitmap;
      this.bitmap = bitmap;
      const sigma = answer.headers.get("X-Eocodec-Sigma");
      this.#sigma = sigma === null ? null : Number(sigma);
      this.#method = answer.headers.get("X-Eocodec-Method") ?? "";
      this.#remarks = remarks(answer);
      this.#clean = clean;
      this.#stale = false;
      this.after = input.reference ? pixels.psnr(input.reference, pixels.read(bitmap)) : null;
      this.page.done();
      this.#display();
      before?.close();
      this.page.say(this.#spoken());
    }, pause);
  }

  #blank() {
    byId("d-sigma").textContent = "–";
    byId("d-how").textContent = byId("d-kept").textContent = "";
    byId("d-measured").hidden = byId("d-note").hidden = true;
    this.spectrum.sigma = null;
  }

  #fail(error) {
    this.#blank();
    this.page.view.show({ bitmap: this.#picture.bitmap, label: "Original" }, null);
    this.page.fail(error);
  }

  #display() {
    const input = this.#input;
    const level = this.#sigma === null ? "" : `σ = ${this.#sigma.toFixed(1)}`;
    byId("d-sigma").textContent = level || "–";
    byId("d-how").textContent =
      this.#sigma !== null && this.#sigma < CLEAN
        ? "clean already"
        : `${this.#auto ? "estimated" : "removed"} · ${this.#method}`;
    byId("d-measured").hidden = this.after === null;
    if (this.after !== null) {
      byId("d-before").textContent = words.decibels(input.before);
      byId("d-after").textContent = words.decibels(this.after);
    }
    words.note(byId("d-note"), this.#remarks);
    this.spectrum.sigma = this.#sigma;
    byId("d-kept").textContent =
      this.#sigma > 0 && this.spectrum.block
        ? `${this.spectrum.above(this.#sigma)} of ${this.spectrum.block} latents above the noise`
        : "";
    this.page.view.show(
      { bitmap: input.bitmap, label: this.#added > 0 ? `Noisy · σ = ${this.#added} added` : "Original" },
      { bitmap: this.bitmap, label: "Denoised" },
    );
  }

  #spoken() {
    const level = this.#sigma === null ? "" : `Noise level ${this.#sigma.toFixed(1)}${this.#auto ? ", estimated" : ""}. `;
    return `${level}Denoised${this.after === null ? "" : `, ${this.after.toFixed(1)} decibels`}.`;
  }

  #save() {
    if (this.#stale || !this.#clean) {
      this.page.notify("The picture is not ready yet.", true);
      return;
    }
    this.page.save(this.#clean, `${this.#picture.stem}-clean.png`);
  }
}
