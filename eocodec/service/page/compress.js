/**
 * The tab "Compress". In: a picture. Out: an .eoc file made as the controls say, beside its decoded picture in the view.
 */

import { ServiceError } from "./api.js";
import { Latest } from "./latest.js";
import { CLEAN } from "./noise.js";
import { Spectrum } from "./spectrum.js";
import * as words from "./words.js";

const PAUSE = 150; // ms after the last change of a slider
const STEPS = 1000; // of the slider
const byId = (id) => document.getElementById(id);

/** What a file can aim for: ends of the slider for a picture and model, and how a value reads. */
const TARGETS = {
  rate: {
    label: (model) => (model.size ? "C: latents kept in all" : "C: latents kept in a block"),
    ends: (picture, model) => [1, model.block],
    round: (v) => Number(words.rate(v)),
    unit: (v, model) => `C = ${words.rate(v)} of ${model.block}`,
  },
  bpp: {
    label: () => "Bits per pixel, at most",
    ends: () => [0.02, 12],
    round: (v) => Number(v.toPrecision(3)),
    unit: (v) => `${v} bits per pixel`,
  },
  bytes: {
    label: () => "Bytes, at most",
    ends: ({ width, height }) => [Math.min(100, width * height), Math.max(200, width * height * 2)],
    round: (v) => Math.round(v < 1000 ? v : Number(v.toPrecision(3))),
    unit: (v) => words.size(v),
  },
  psnr: {
    label: () => "PSNR in dB, at least",
    ends: () => [20, 50],
    linear: true,
    round: (v) => Number(v.toFixed(1)),
    unit: (v) => `${v} decibels`,
  },
};

export class CompressPanel {
  #picture = null;
  #model = null;
  #target = "rate";
  #value = 0;
  #last = null; // numbers of the last file
  #file = null; // the last .eoc file
  #decoded = null; // its picture, PNG
  #stale = true;
  #active = false;

  /** @param {object} page what the tabs share, see app.js */
  constructor(page) {
    this.page = page;
    this.latest = new Latest({ onbusy: (busy) => page.busy(this, busy), onerror: (error) => this.#fail(error) });
    this.spectrum = new Spectrum(byId("c-spectrum"), (rate) => this.#pick(rate));
    for (const radio of document.querySelectorAll("[name=target]")) {
      radio.addEventListener("change", () => this.#aim(radio.value));
    }
    byId("c-slider").addEventListener("input", () => this.#set(this.#fromSlider(), PAUSE));
    byId("c-number").addEventListener("input", () => this.#typed());
    byId("c-number").addEventListener("change", () => this.#show());
    byId("c-model").addEventListener("change", () => {
      this.#choose(byId("c-model").value).catch(page.fail);
    });
    byId("c-denoise").addEventListener("change", () => this.#options());
    byId("c-progressive").addEventListener("change", () => this.#options());
    byId("c-lossless").addEventListener("change", () => this.#options());
    byId("c-level").addEventListener("input", () => byId("c-level").value !== "" && this.#options(2 * PAUSE));
    byId("c-save").addEventListener("click", () => this.#save(() => this.#file, ".eoc"));
    byId("c-png").addEventListener("click", () => this.#save(() => this.#decoded, "-eocodec.png"));
  }

  /** Take a new picture. */
  open(picture) {
    this.#picture = picture;
    this.#last = this.#file = this.#decoded = null;
    this.#stale = true;
    this.#blank();
    const fitting = this.page.models.filter((m) => !m.size || m.size === `${picture.width}x${picture.height}`);
    byId("c-model").replaceChildren(
      ...this.page.models.map((m) => {
        const option = new Option(m.size ? `${m.name} (only ${m.size.replace("x", "×")})` : m.name, m.name);
        option.disabled = !fitting.includes(m);
        return option;
      }),
    );
    byId("c-model-row").hidden = this.page.models.length < 2;
    const name = fitting.some((m) => m.name === this.#model?.name) ? this.#model.name : fitting[0]?.name;
    if (name) {
      this.#choose(name).catch(this.page.fail);
    } else {
      this.#model = null;
      this.page.fail(new ServiceError("This server has no model for a picture of this size.", 0));
    }
  }

  activate() {
    this.#active = true;
    if (!this.#model) return;
    if (this.#stale) this.#request(0);
    else this.#display();
  }

  deactivate() {
    this.#active = false;
    this.latest.stop();
  }

  async #choose(name) {
    const model = this.page.models.find((m) => m.name === name);
    if (this.#target === "rate" && model !== this.#model) this.#value = model.default_rate;
    this.#model = model;
    byId("c-model").value = name;
    const hint = byId("c-model-hint");
    hint.hidden = !model.size;
    const size = model.size?.replace("x", "×");
    hint.textContent = size ? `${name} is for aligned faces of ${size} pixels and makes very small files of them.` : "";
    if (!model.lossless) byId("c-lossless").checked = false;
    if (!model.progressive) byId("c-progressive").checked = false;
    this.#last = null;
    this.#options(0);
    const data = await this.page.spectrum(name);
    if (this.#model === model) {
      this.spectrum.data = data;
      this.#show();
    }
  }

  /** Take another target, beginning where the last file was. */
  #aim(target) {
    this.#target = target;
    const { width, height } = this.#picture;
    const start = { rate: this.#model.default_rate, bpp: 1, bytes: (width * height) / 8, psnr: 36 };
    const known = this.#last?.[target];
    this.#value = TARGETS[target].round(Number.isFinite(known) && known > 0 ? known : start[target]);
    this.#show();
    this.#request(0);
  }

  #pick(rate) {
    if (byId("c-lossless").checked) return;
    if (this.#target !== "rate") {
      this.#target = "rate";
      document.querySelector("[name=target][value=rate]").checked = true;
    }
    this.#set(TARGETS.rate.round(rate), PAUSE);
  }

  #typed() {
    const value = Number(byId("c-number").value);
    if (byId("c-number").value === "" || !(value > 0)) return;
    this.#set(this.#target === "bytes" ? Math.ceil(value) : value, 2 * PAUSE, true);
  }

  #set(value, pause, typing = false) {
    this.#value = value;
    this.#show(typing);
    this.#request(pause);
  }

  #options(pause = PAUSE) {
    const lossless = byId("c-lossless").checked;
    byId("c-targets").disabled = lossless;
    byId("c-denoise").disabled = lossless;
    byId("c-progressive").disabled = lossless || !this.#model.progressive;
    byId("c-lossless").disabled = !this.#model.lossless;
    byId("c-level").hidden = lossless || byId("c-denoise").value !== "level";
    this.#show();
    this.#request(pause);
  }

  /** Put slider, number and spectrum where the value is. */
  #show(typing = false) {
    const target = TARGETS[this.#target];
    const slider = byId("c-slider");
    byId("c-label").textContent = target.label(this.#model);
    slider.value = String(this.#toSlider(this.#value));
    slider.setAttribute("aria-valuetext", target.unit(this.#value, this.#model));
    if (!typing) byId("c-number").value = String(this.#value);
    const { block } = this.#model;
    const wanted = this.#target === "rate" ? this.#value : this.#last?.rate;
    const rate = byId("c-lossless").checked ? block : wanted;
    this.spectrum.cut = rate ?? null;
    byId("c-kept").textContent =
      rate === undefined ? "" : `${words.rate(Math.min(rate, block))} of ${block} latents kept`;
  }

  #fromSlider() {
    const { ends, linear, round } = TARGETS[this.#target];
    const [low, high] = ends(this.#picture, this.#model);
    const t = Number(byId("c-slider").value) / STEPS;
    return round(linear ? low + t * (high - low) : low * (high / low) ** t);
  }

  #toSlider(value) {
    const { ends, linear } = TARGETS[this.#target];
    const [low, high] = ends(this.#picture, this.#model);
    return STEPS * (linear ? (value - low) / (high - low) : Math.log(value / low) / Math.log(high / low));
  }

  #parameters() {
    const lossless = byId("c-lossless").checked;
    const denoise = byId("c-denoise").value;
    return {
      model: this.#model.name,
      measure: true,
      ...(lossless
        ? { lossless }
        : {
            [this.#target]: this.#value,
            denoise: denoise === "level" ? Number(byId("c-level").value) : denoise,
            progressive: byId("c-progressive").checked,
          }),
    };
  }

  #request(pause) {
    this.#stale = true;
    if (!this.#active || !this.#model) return;
    const { service } = this.page;
    const [picture, parameters] = [this.#picture, this.#parameters()];
    this.latest.run(async (signal) => {
      const answer = await service.request("v1/compress", { parameters, body: picture.blob, signal });
      const file = await answer.blob();
      const number = (name) => Number(answer.headers.get(`X-Eocodec-${name}`) ?? NaN);
      const sigma = answer.headers.get("X-Eocodec-Sigma");
      const last = {
        rate: number("Rate"),
        bpp: number("Bpp"),
        bytes: file.size,
        psnr: answer.headers.get("X-Eocodec-Psnr") === "inf" ? Infinity : number("Psnr"),
        sigma: sigma === null ? null : Number(sigma),
      };
      if (signal.aborted) return;
      this.#last = last;
      this.#figures();
      const png = await (await service.request("v1/decompress", { body: file, accept: "image/png", signal })).blob();
      const bitmap = await createImageBitmap(png);
      if (signal.aborted) return bitmap.close();
      const before = this.bitmap;
      this.bitmap = bitmap;
      [this.#file, this.#decoded, this.#stale] = [file, png, false];
      this.page.done();
      this.#display();
      before?.close();
      this.page.say(this.#spoken());
    }, pause);
  }

  #blank() {
    for (const id of ["c-size", "c-bytes", "c-bpp", "c-psnr", "c-rate"]) byId(id).textContent = "–";
    byId("c-share").textContent = "";
    byId("c-note").hidden = true;
  }

  #fail(error) {
    this.#blank();
    this.page.view.show({ bitmap: this.#picture.bitmap, label: "Original" }, null);
    this.page.fail(error);
  }

  #figures() {
    const { rate, bpp, bytes, psnr, sigma } = this.#last;
    byId("c-size").textContent = words.size(bytes);
    const { scale, blob } = this.#picture;
    byId("c-share").textContent = scale === 1 ? words.share(bytes / blob.size) : `at ${100 * scale} % scale`;
    byId("c-bytes").textContent = words.count(bytes);
    byId("c-bpp").textContent = words.bitsPerPixel(bpp);
    byId("c-psnr").textContent = words.decibels(psnr);
    byId("c-rate").textContent = byId("c-lossless").checked ? "all" : words.rate(rate);
    const note = byId("c-note");
    note.hidden = sigma === null;
    note.textContent =
      sigma < CLEAN
        ? "The picture is clean already; no noise was removed."
        : `Noise of σ = ${sigma?.toFixed(1)} levels was removed; PSNR counts against the clean picture.`;
    if (this.#target !== "rate") this.#show(document.activeElement === byId("c-number"));
  }

  #display() {
    const { bitmap, blob, scale } = this.#picture;
    this.page.view.show(
      { bitmap, label: scale === 1 ? `Original · ${words.size(blob.size)}` : "Original, scaled" },
      { bitmap: this.bitmap, label: `eocodec · ${words.size(this.#last.bytes)}` },
    );
  }

  #spoken() {
    const { bytes, bpp, psnr } = this.#last;
    const quality = Number.isFinite(psnr) ? `${psnr.toFixed(1)} decibels` : "every value kept";
    return `${words.size(bytes)}, ${words.bitsPerPixel(bpp)} bits per pixel, ${quality}.`;
  }

  #save(blob, ending) {
    if (this.#stale || !blob()) {
      this.page.notify("The file is not ready yet.", true);
      return;
    }
    this.page.save(blob(), this.#picture.stem + ending);
  }
}
