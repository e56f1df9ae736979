/**
 * The page of `eocodec serve`: opens pictures and .eoc files and hands them to the tabs.
 */

import { connect, ServiceError } from "./api.js";
import { CompressPanel } from "./compress.js";
import { DenoisePanel } from "./denoise.js";
import { FilePanel } from "./file.js";
import { unhurried } from "./latest.js";
import { OpenPicture } from "./opened.js";
import * as pixels from "./pixels.js";
import { SplitView } from "./viewer.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);
const LARGE = 6e6; // pixels for which an answer takes its time
const STATIC = new URL("./", import.meta.url);

function notify(text, quiet = false) {
  byId("notice").hidden = text === "";
  byId("notice").classList.toggle("quiet", quiet);
  byId("notice-text").textContent = text;
  (quiet ? byId("spoken") : byId("alarm")).textContent = text;
}

function fail(error) {
  if (!(error instanceof ServiceError)) console.warn(error);
  notify(error instanceof ServiceError || error.plain ? error.message : `Something went wrong: ${error.message}`);
}

/** An error of the page's own whose message is a sentence for the user. */
function plainly(sentence) {
  return Object.assign(new Error(sentence), { plain: true });
}

byId("notice-close").addEventListener("click", () => notify(""));

const dialog = byId("key-dialog");

function askForKey(refused) {
  byId("key-hint").textContent = refused
    ? "The server did not accept that key."
    : "It is kept in this tab only, until you close it.";
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? byId("key").value.trim() : ""), {
      once: true,
    });
  });
}

const service = connect({ askForKey, onwait: (text) => notify(text, true) });
const spectra = new Map();
const page = {
  service,
  models: [],
  rivals: [],
  view: new SplitView(byId("view")),
  busy: unhurried(byId("busy"), document.querySelector(".side")),
  fail,
  notify,
  done: () => notify(""),
  say: (text) => (byId("spoken").textContent = text),
  save(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  },
  /** The spectrum of a model; asked for once. */
  async spectrum(name) {
    if (!spectra.has(name)) {
      const answer = await service.request(`v1/models/${encodeURIComponent(name)}/spectrum`);
      spectra.set(name, await answer.json());
    }
    return spectra.get(name);
  },
};

/** Ask which models there are, once. */
async function models() {
  if (page.models.length === 0) {
    const { models: known, rivals } = await (await service.request("v1/models")).json();
    page.rivals = rivals;
    page.models = [...known.filter((m) => !m.size), ...known.filter((m) => m.size)]; // those for any picture first
  }
  if (page.models.length === 0) throw plainly("This server has no model.");
}

const panels = { compress: new CompressPanel(page), denoise: new DenoisePanel(page) };
const tabs = Object.keys(panels).map((name) => byId(`tab-${name}`));
let chosen = "compress";

function choose(name, focus = false) {
  chosen = name;
  for (const [other, panel] of Object.entries(panels)) {
    const selected = other === name;
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    byId(`panel-${other}`).hidden = !selected;
    if (selected && focus) tab.focus();
    if (!selected) panel.deactivate();
  }
  panels[name].activate();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => choose(tab.id.replace("tab-", "")));
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const goal = { ArrowLeft: i === 0 ? last : i - 1, ArrowRight: i === last ? 0 : i + 1, Home: 0, End: last }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    choose(tabs[goal].id.replace("tab-", ""), true);
  });
});

let batch = []; // what was opened together: {blob, name}
let opening = 0; // only the latest counts
let source = null; // the picture as it was opened: {name, blob, bitmap}
let picture = null; // what is worked on: {name, stem, blob, bitmap, width, height, scale}
const file = new FilePanel(Object.assign(page, { open: openAlone }));

/** Show a state of the page: "empty", "picture" or "file". */
function enter(state) {
  const lost = byId("landing").contains(document.activeElement);
  document.body.dataset.state = state;
  byId("landing").hidden = state !== "empty";
  byId("view").hidden = state === "empty";
  byId("open").hidden = byId("name").hidden = state === "empty";
  document.querySelector(".tabs").hidden = byId("scale-row").hidden = state !== "picture";
  byId("panel-file").hidden = state !== "file";
  if (state !== "file") file.deactivate();
  if (state !== "picture") {
    for (const [name, panel] of Object.entries(panels)) {
      panel.deactivate();
      byId(`panel-${name}`).hidden = true;
    }
  }
  if (lost && state !== "empty") byId(state === "picture" ? `tab-${chosen}` : "open").focus({ preventScroll: true });
}

function describe(name, width, height, blob) {
  byId("name").textContent = byId("name").title = `${name} · ${width}×${height} · ${words.size(blob.size)}`;
  document.title = `${name} – eocodec`;
}

/** Whether bytes are an .eoc file: by their first bytes, or, being tiny, by name. */
async function isEoc(blob, name) {
  const head = new Uint8Array(await blob.slice(0, 3).arrayBuffer());
  return String.fromCharCode(...head) === "EOC" || /\.eoc$/i.test(name);
}

/** The bitmap of a picture; of a type that the browser does not know (TIFF, PPM), as the server sees it. */
async function bitmapOf(blob) {
  try {
    return await createImageBitmap(blob);
  } catch {
    const parameters = { model: page.models[0].name, sigma: 0 }; // removes nothing
    const answer = await service.request("v1/denoise", { parameters, body: blob, accept: "image/png" });
    return createImageBitmap(await answer.blob());
  }
}

async function open(blob, name) {
  const turn = ++opening;
  page.busy(open, true);
  try {
    if (blob.size === 0) throw plainly("The file is empty.");
    await models();
    if (await isEoc(blob, name)) await openEoc(blob, name, turn);
    else await openPicture(blob, name, turn);
  } catch (error) {
    if (turn === opening) fail(error);
  } finally {
    if (turn === opening) page.busy(open, false);
  }
}

async function openPicture(blob, name, turn) {
  const bitmap = await bitmapOf(blob);
  if (turn !== opening) return bitmap.close();
  source?.bitmap.close();
  source = { name, blob, bitmap };
  byId("scale").value = "1";
  take({ blob, bitmap }, 1);
  if (bitmap.width * bitmap.height > LARGE) {
    notify("This is a large picture, and every change takes a while. For a quick look choose a smaller scale.", true);
  }
}

/** Work on the opened picture or on a smaller copy of it. */
function take({ blob, bitmap }, scale) {
  const before = picture;
  const { width, height } = bitmap;
  const opened = new OpenPicture(service, blob);
  picture = { name: source.name, stem: words.stem(source.name), blob, bitmap, width, height, scale, opened };
  notify("");
  enter("picture");
  describe(source.name, width, height, source.blob);
  page.view.show({ bitmap, label: scale === 1 ? `Original · ${words.size(blob.size)}` : "Original, scaled" }, null);
  if (before && before.scale !== 1) before.bitmap.close(); // at full scale it is the source's
  for (const panel of Object.values(panels)) panel.open(picture);
  choose(chosen);
}

async function rescale() {
  const turn = ++opening;
  const scale = Number(byId("scale").value);
  page.busy(open, true);
  try {
    if (scale === 1) {
      take(source, 1);
      return;
    }
    const { width, height } = source.bitmap;
    const size = {
      resizeWidth: Math.max(1, Math.round(width * scale)),
      resizeHeight: Math.max(1, Math.round(height * scale)),
    };
    const bitmap = await createImageBitmap(source.bitmap, { ...size, resizeQuality: "high" });
    const blob = await pixels.png(pixels.read(bitmap));
    if (turn === opening) take({ blob, bitmap }, scale);
    else bitmap.close();
  } catch (error) {
    if (turn === opening) fail(error);
  } finally {
    if (turn === opening) page.busy(open, false);
  }
}

byId("scale").addEventListener("change", rescale);

async function openEoc(blob, name, turn) {
  const read = await file.read(blob);
  if (turn !== opening) return read.bitmap.close();
  notify("");
  enter("file");
  describe(name, read.bitmap.width, read.bitmap.height, blob);
  file.show(name, read);
}

for (const id of ["open", "choose"]) byId(id).addEventListener("click", () => byId("file").click());
/** Take what is opened together: the first is shown, the others are in the list beside its name. */
async function openTogether(given) {
  if (given.length === 0) return;
  batch = given;
  byId("files").replaceChildren(...given.map(({ name }, k) => new Option(name, String(k))));
  byId("files").hidden = given.length < 2;
  await open(given[0].blob, given[0].name);
}

function openAll(files) {
  return openTogether([...files].map((blob) => ({ blob, name: blob.name })));
}

/** Take one that is in no list; the list of others goes, as none of it is shown any more. */
function openAlone(blob, name) {
  return openTogether([{ blob, name }]);
}

byId("files").addEventListener("change", () => {
  const given = batch[Number(byId("files").value)];
  if (given) open(given.blob, given.name);
});
byId("file").addEventListener("change", () => {
  openAll(byId("file").files);
  byId("file").value = ""; // the same file may be chosen again
});
byId("sample").addEventListener("click", async () => {
  try {
    const answer = await fetch(new URL("sample.webp", STATIC));
    if (!answer.ok) throw plainly("The sample cannot be had from this server.");
    await openAlone(await answer.blob(), "coffee.webp");
  } catch (error) {
    fail(error);
  }
});

addEventListener("paste", (event) => {
  const [given] = event.clipboardData?.files ?? [];
  if (!given) return;
  event.preventDefault();
  openAlone(given, given.name === "image.png" ? "pasted.png" : given.name);
});

const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  byId("dropping").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("dropping").hidden = true;
});
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  byId("dropping").hidden = true;
  openAll(event.dataTransfer.files);
});

enter("empty");
