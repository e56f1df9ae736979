/**
 * The page of `eocodec serve`: opens pictures and .eoc files and hands them to the tabs.
 */

import { connect, ServiceError } from "./api.js";
import { CompressPanel } from "./compress.js";
import { DenoisePanel } from "./denoise.js";
import { unhurried } from "./latest.js";
import { SplitView } from "./viewer.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);
const STATIC = new URL("./", import.meta.url);
const ADVICE_SECONDS = 8; // for which an announcement of no lasting worth stays

// ---- what the page says

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

// ---- the API key

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

// ---- what the tabs share

const service = connect({ askForKey, onwait: (text) => notify(text, true) });
const spectra = new Map();
const page = {
  service,
  models: [],
  view: new SplitView(byId("view")),
  busy: unhurried(byId("busy")),
  fail,
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

async function models() {
  if (page.models.length === 0) page.models = (await (await service.request("v1/models")).json()).models;
  if (page.models.length === 0) throw plainly("This server has no model.");
}
