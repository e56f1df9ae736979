/**
 * What an opened .eoc file shows. In: the file. Out: its picture in the view, its facts, and of a progressive file the
 * picture that any first bytes of it give.
 */

import { remarks } from "./api.js";
import { FacePaths } from "./face.js";
import { Latest } from "./latest.js";
import * as words from "./words.js";

const PAUSE = 150; // ms after the last change of the slider
const STEPS = 1000; // of the slider
const SHORTEST = 64; // bytes that the slider begins with
const byId = (id) => document.getElementById(id);

export class FilePanel {
  #name = "";
  #blob = null;
  #png = null;

  /** @param {object} page what the tabs share, see app.js, with `open`, which takes a picture into the tabs */
  constructor(page) {
    this.page = page;
    this.paths = new FacePaths(page);
    this.latest = new Latest({ onbusy: (busy) => page.busy(this, busy), onerror: page.fail });
    byId("f-slider").addEventListener("input", () => this.#cut());
    byId("f-save").addEventListener("click", () => page.save(this.#png, `${words.stem(this.#name)}.png`));
    byId("f-use").addEventListener("click", () => page.open(this.#png, `${words.stem(this.#name)}.png`));
  }

  /** Ask the service about a file and for its picture: what `show` takes. */
  async read(blob, signal) {
    const { service } = this.page;
    const facts = await (await service.request("v1/info", { body: blob, signal })).json();
    const parameters = { salvage: Boolean(facts.damaged) };
    const answer = await service.request("v1/decompress", { parameters, body: blob, accept: "image/png", signal });
    const png = await answer.blob();
    return { blob, facts, png, bitmap: await createImageBitmap(png), remarks: remarks(answer) };
  }

  show(name, read) {
    const { blob, facts, bitmap } = read;
    [this.#name, this.#blob] = [name, blob];
    byId("f-cut").hidden = !facts.progressive || blob.size <= SHORTEST;
    byId("f-slider").value = String(STEPS);
    this.#size(blob.size);
    this.#show(read);
    const names = this.page.models.find((m) => m.name === facts.model && m.size === `${facts.width}x${facts.height}`)?.paths ?? [];
    this.paths.open({ name, blob, names, shown: { bitmap, label: `eocodec · ${words.size(blob.size)}` } });
    this.page.say(`${name} opened: ${words.size(blob.size)}, ${facts.width} by ${facts.height} pixels.`);
  }

  deactivate() {
    this.latest.stop();
    this.paths.stop();
  }

  #size(bytes) {
    byId("f-size").textContent = words.size(bytes);
    byId("f-bytes").textContent = `${words.count(bytes)} of ${words.count(this.#blob.size)}`;
    byId("f-slider").setAttribute("aria-valuetext", `${bytes} bytes`);
  }

  #show({ blob, facts, png, bitmap, remarks }) {
    byId("f-kind").textContent = ["lossless", "progressive", "tiny"].find((kind) => facts[kind]) ?? "";
    const fields = {
      Pixels: `${facts.width}×${facts.height}`,
      "Bits per pixel": words.bitsPerPixel(facts.bpp),
      Model: facts.model ?? facts.model_id,
      C: facts.lossless ? "all" : typeof facts.rate === "number" ? words.rate(facts.rate) : "–",
      Channels: (facts.grey ? "grey" : "colour") + (facts.alpha ? ", transparent" : ""),
      State: facts.damaged ? "damaged" : facts.complete === false ? "cut off" : "whole",
    };
    byId("f-fields").replaceChildren(
      ...Object.entries(fields).map(([term, value]) => {
        const row = document.createElement("div");
        const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
        [dt.textContent, dd.textContent] = [term, value];
        row.append(dt, dd);
        return row;
      }),
    );
    words.note(byId("f-note"), remarks);
    const before = this.bitmap;
    [this.#png, this.bitmap] = [png, bitmap];
    this.page.view.show(null, { bitmap, label: `eocodec · ${words.size(blob.size)}` });
    before?.close();
  }

  #cut() {
    const t = Number(byId("f-slider").value) / STEPS;
    const bytes = Math.round(SHORTEST * (this.#blob.size / SHORTEST) ** t);
    this.#size(bytes);
    this.latest.run(async (signal) => {
      const read = await this.read(this.#blob.slice(0, bytes), signal);
      if (signal.aborted) return read.bitmap.close();
      this.page.done();
      this.#show(read);
      this.page.say(`The first ${words.size(bytes)}.`);
    }, PAUSE);
  }
}
