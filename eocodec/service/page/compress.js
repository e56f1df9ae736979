/**
 * The tab "Compress". In: a picture. Out: an .eoc file made as the controls say, beside its decoded picture in the view.
 */

import { remarks, ServiceError } from "./api.js";
import { Latest } from "./latest.js";
import { CLEAN } from "./noise.js";
import { Spectrum } from "./spectrum.js";
import * as words from "./words.js";

const PAUSE = 60; // ms after the last change of a slider; what is outdated is given up by the service as well
const SMALL = 3 << 16; // pixels up to which the picture itself is there as soon as a preview
const KEPT = "eocodec-compress"; // name of the settings in the browser's store
const UNDONE = 50; // settings that can be gone back to
const UNMET = 422; // status of a target that is out of reach
const RIVALS = { avif: "AVIF", webp: "WebP", jpeg: "JPEG", jxl: "JPEG XL" };
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
  #rival = null; // another codec's picture: {bitmap, label}
  #past = []; // settings that were, the last one the present
  #restoring = false;

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
    byId("c-rival").addEventListener("change", () => this.#request(0));
    byId("c-undo").addEventListener("click", () => this.#undo());
    byId("c-command").addEventListener("click", () => this.#copy(this.#command(), "The command"));
    byId("c-url").addEventListener("click", () => this.#copy(this.#url(), "The URL"));
    addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLInputElement && event.target.type === "number";
      if (!this.#active || typing || !(event.ctrlKey || event.metaKey) || event.key !== "z") return;
      event.preventDefault();
      this.#undo();
    });
  }

  /** Take a new picture. */
  open(picture) {
    this.#picture = picture;
    this.#last = this.#file = this.#decoded = null;
    this.#stale = true;
    this.#rival?.bitmap.close();
    this.#rival = null;
    this.#blank();
    byId("c-rival").replaceChildren(
      new Option("the original", ""),
      ...this.page.rivals.map((name) => new Option(`${RIVALS[name] ?? name}, as many bytes`, name)),
    );
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
    if (name && this.#past.length === 0) {
      const kept = stored();
      const known = fitting.find((m) => m.name === kept?.model);
      this.#choose(known?.name ?? name).catch(this.page.fail);
      if (kept) this.#restore({ ...kept, model: known?.name ?? name });
    } else if (name) {
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
    this.#blank();
    this.#keep();
    const picture = this.#picture;
    const rival = byId("c-rival").value;
    if (this.#rival) this.#rival.label = `${this.#rival.label.split(" · ")[0]} · of the setting before`;
    this.latest.run(async (signal) => {
      const { measure, ...parameters } = this.#parameters();
      const wanted = this.#target === "rate" && !parameters.lossless ? this.#value : null;
      if (wanted !== null) {
        await this.#preview(picture, wanted, signal);
        await this.#estimate(picture, parameters, signal);
      }
      const answer = await picture.opened.ask("file", parameters, signal);
      const file = await answer.blob();
      const number = (name) => Number(answer.headers.get(`X-Eocodec-${name}`) ?? NaN);
      const sigma = answer.headers.get("X-Eocodec-Sigma");
      const last = {
        rate: number("Rate"),
        bpp: number("Bpp"),
        bytes: file.size,
        psnr: null,
        sigma: sigma === null ? null : Number(sigma),
        remarks: remarks(answer),
      };
      if (signal.aborted) return;
      this.#last = last;
      this.#figures(byId("c-psnr").textContent);
      if (wanted === null && !parameters.lossless) await this.#preview(picture, last.rate, signal);
      await this.#decode(picture, file, { ...parameters, scores: rival !== "" }, signal);
      if (rival !== "") await this.#compare(picture, rival, file.size, signal);
    }, pause);
  }

  /** Show about what the picture at C will be, coarse and at once, where the picture itself takes longer. */
  async #preview(picture, rate, signal) {
    if (picture.width * picture.height <= SMALL || this.#model.size) return;
    const untuned = this.#target === "psnr" || byId("c-progressive").checked; // as the file will be
    const parameters = {
      model: this.#model.name,
      rate: Math.min(rate, this.#model.block),
      tune: untuned ? "psnr" : undefined,
    };
    const blob = await (await picture.opened.ask("preview", parameters, signal)).blob();
    const size = { resizeWidth: picture.width, resizeHeight: picture.height, resizeQuality: "medium" };
    const bitmap = await createImageBitmap(blob, size);
    if (signal.aborted) return bitmap.close();
    this.#take(bitmap, "eocodec · coarse preview");
  }

  /** Show about what numbers the file will have, as far as files of the picture that were made before tell. */
  async #estimate(picture, { model, rate, denoise, progressive }, signal) {
    if (progressive || picture.width * picture.height <= SMALL || this.#model.size) return;
    const found = await (await picture.opened.ask("estimate", { model, rate, denoise }, signal)).json();
    if (signal.aborted || found.bytes === null) return;
    const about = found.exact ? "" : "≈ ";
    const bytes = found.exact ? found.bytes : Number(found.bytes.toPrecision(2));
    byId("c-size").textContent = about + words.size(bytes);
    byId("c-bytes").textContent = about + words.count(bytes);
    byId("c-bpp").textContent = about + words.bitsPerPixel((8 * bytes) / (picture.width * picture.height));
    if (found.psnr === null) return;
    byId("c-psnr").textContent = about + (found.exact ? words.decibels(found.psnr) : `${found.psnr.toFixed(1)} dB`);
  }

  /** Show the picture that the file decodes to. */
  async #decode(picture, file, parameters, signal) {
    const answer = await picture.opened.ask("picture", parameters, signal);
    const png = await answer.blob();
    const bitmap = await createImageBitmap(png);
    if (signal.aborted) return bitmap.close();
    const psnr = answer.headers.get("X-Eocodec-Psnr");
    this.#last.psnr = psnr === "inf" ? Infinity : Number(psnr);
    const score = answer.headers.get("X-Eocodec-Ssimulacra2");
    this.#last.ssimulacra2 = score === null ? null : Number(score);
    [this.#file, this.#decoded, this.#stale] = [file, png, false];
    this.page.done();
    this.#figures();
    this.#take(bitmap, `eocodec · ${words.size(this.#last.bytes)}`);
    this.page.say(this.#spoken());
  }

  /** Show what another codec makes of as many bytes on the other side. */
  async #compare(picture, codec, bytes, signal) {
    const answer = await picture.opened.ask("rival", { codec, bytes }, signal);
    const bitmap = await createImageBitmap(await answer.blob());
    if (signal.aborted) return bitmap.close();
    const number = (name) => Number(answer.headers.get(`X-Eocodec-${name}`) ?? NaN);
    const before = this.#rival;
    this.#rival = { bitmap, label: `${RIVALS[codec]} · ${words.size(number("Bytes"))}` };
    const scores = (psnr, score) => `${words.decibels(psnr)} · ${words.score(score)}`;
    const rows = {
      [`${RIVALS[codec]}: PSNR · SSIMULACRA2`]: scores(number("Psnr"), number("Ssimulacra2")),
      eocodec: scores(this.#last.psnr, this.#last.ssimulacra2 ?? NaN),
    };
    byId("c-scores").replaceChildren(
      ...Object.entries(rows).map(([term, value]) => {
        const row = document.createElement("div");
        const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
        [dt.textContent, dd.textContent] = [term, value];
        row.append(dt, dd);
        return row;
      }),
    );
    byId("c-scores").hidden = false;
    this.#display();
    before?.bitmap.close();
  }

  /** Show a bitmap on the right side. */
  #take(bitmap, label) {
    const before = this.bitmap;
    this.bitmap = bitmap;
    this.label = label;
    this.#display();
    before?.close();
  }

  /** What the controls say, to be kept and to be gone back to. */
  #settings() {
    return {
      target: this.#target,
      value: this.#value,
      model: this.#model.name,
      denoise: byId("c-denoise").value,
      level: byId("c-level").value,
      progressive: byId("c-progressive").checked,
      lossless: byId("c-lossless").checked,
    };
  }

  #keep() {
    if (this.#restoring) return;
    const settings = this.#settings();
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    if (same(this.#past.at(-1), settings)) return;
    clearTimeout(this.settling);
    const note = () => {
      if (same(this.#past.at(-1), settings)) return;
      this.#past = [...this.#past, settings].slice(-UNDONE);
      byId("c-undo").disabled = this.#past.length < 2;
      store(settings);
    };
    if (this.#past.length === 0) note();
    else this.settling = setTimeout(note, 300); // a move of a slider is one change
  }

  #undo() {
    clearTimeout(this.settling);
    const now = JSON.stringify(this.#settings());
    while (this.#past.length > 1 && JSON.stringify(this.#past.at(-1)) === now) this.#past.pop();
    byId("c-undo").disabled = this.#past.length < 2;
    this.#restore(this.#past.at(-1));
    store(this.#past.at(-1));
  }

  #restore(settings) {
    const model = this.page.models.find((m) => m.name === settings.model) ?? this.#model;
    this.#restoring = true;
    if (model !== this.#model) this.#choose(model.name).catch(this.page.fail);
    this.#target = settings.target in TARGETS ? settings.target : "rate";
    this.#value = Number(settings.value) > 0 ? Number(settings.value) : model.default_rate;
    document.querySelector(`[name=target][value=${this.#target}]`).checked = true;
    byId("c-denoise").value = settings.denoise;
    byId("c-level").value = settings.level;
    byId("c-progressive").checked = Boolean(settings.progressive && model.progressive);
    byId("c-lossless").checked = Boolean(settings.lossless && model.lossless);
    this.#options(0);
    this.#restoring = false;
    if (this.#past.length === 0) this.#keep();
  }

  /** What is asked for as a command line. */
  #command() {
    const { measure, model, lossless, denoise, progressive, ...target } = this.#parameters();
    const { name, stem, scale } = this.#picture;
    const quoted = (text) => (/^[\w.@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
    const parts = ["eocodec compress", quoted(name), "-o", quoted(`${stem}.eoc`)];
    for (const [key, value] of Object.entries(target)) parts.push(`--${key} ${value}`);
    if (model !== this.page.models[0].name) parts.push(`--model ${quoted(model)}`);
    if (denoise !== undefined && denoise !== "") parts.push(`--denoise ${denoise}`);
    if (progressive) parts.push("--progressive");
    if (lossless) parts.push("--lossless");
    return parts.join(" ") + (scale === 1 ? "" : `  # of the picture at ${100 * scale} % scale`);
  }

  /** What is asked for as a URL to which pictures may be posted. */
  #url() {
    const { measure, ...parameters } = this.#parameters();
    const url = new URL("../v1/compress", import.meta.url);
    for (const [key, value] of Object.entries(parameters)) {
      if (value !== undefined && value !== false && value !== "") url.searchParams.set(key, String(value));
    }
    return url.href;
  }

  async #copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.page.notify(`${what} is copied: ${text}`, true);
    } catch {
      this.page.notify(text, true); // where pages may not write to the clipboard, it can be copied from here
    }
  }

  #blank() {
    for (const id of ["c-size", "c-bytes", "c-bpp", "c-psnr", "c-rate"]) byId(id).textContent = "–";
    byId("c-share").textContent = "";
    byId("c-note").hidden = byId("c-reach").hidden = byId("c-scores").hidden = true;
  }

  #fail(error) {
    this.#blank();
    this.page.view.show({ bitmap: this.#picture.bitmap, label: "Original" }, null);
    if (error instanceof ServiceError && error.status === UNMET && this.#target !== "rate") {
      byId("c-reach").textContent = error.message; // where the slider ends, for this picture
      byId("c-reach").hidden = false;
      return;
    }
    this.page.fail(error);
  }

  /** @param {string} unknown what stands in its place until it is known */
  #figures(unknown = "–") {
    const { rate, bpp, bytes, psnr, sigma } = this.#last;
    byId("c-size").textContent = words.size(bytes);
    const { scale, blob } = this.#picture;
    byId("c-share").textContent = scale === 1 ? words.share(bytes / blob.size) : `at ${100 * scale} % scale`;
    byId("c-bytes").textContent = words.count(bytes);
    byId("c-bpp").textContent = words.bitsPerPixel(bpp);
    byId("c-psnr").textContent = psnr === null ? unknown : words.decibels(psnr);
    byId("c-rate").textContent = byId("c-lossless").checked ? "all" : words.rate(rate);
    const removed =
      sigma < CLEAN
        ? "The picture is clean already; no noise was removed."
        : `Noise of σ = ${sigma?.toFixed(1)} levels was removed; PSNR counts against the clean picture.`;
    words.note(byId("c-note"), [...(sigma === null ? [] : [removed]), ...this.#last.remarks]);
    if (this.#target !== "rate") this.#show(document.activeElement === byId("c-number"));
  }

  #display() {
    const { bitmap, blob, scale } = this.#picture;
    const original = { bitmap, label: scale === 1 ? `Original · ${words.size(blob.size)}` : "Original, scaled" };
    const left = byId("c-rival").value !== "" && this.#rival ? this.#rival : original;
    this.page.view.show(left, this.bitmap ? { bitmap: this.bitmap, label: this.label } : null);
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

let unstored = null; // where the browser keeps nothing

/** The settings that were kept. */
function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? unstored;
  } catch {
    return unstored;
  }
}

function store(settings) {
  unstored = settings;
  try {
    localStorage.setItem(KEPT, JSON.stringify(settings));
  } catch {
    // kept in `unstored`
  }
}
