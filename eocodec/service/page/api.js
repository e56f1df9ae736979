/**
 * Requests to the service. In: a path, parameters, a body. Out: the answer, what is remarked on it (`remarks`), or a
 * `ServiceError` with one sentence.
 *
 * A busy server (503) is asked again after the time it names; where it wants an API key, `askForKey` is called.
 */

const ROOT = new URL("../", import.meta.url); // the page may stand below a path of its own
const RETRIES = 5;
const LONGEST_WAIT = 20; // seconds
const ADVICE = "Scale it down and try again.";
const KEY = "eocodec-key";

/** One sentence for the user, and the HTTP status it came with (0: no answer at all). */
export class ServiceError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/** @param {{askForKey: (refused: boolean) => Promise<string>, onwait: (text: string) => void}} hooks */
export function connect({ askForKey, onwait }) {
  let asking = null;

  /**
   * @param {string} path such as "v1/compress"
   * @param {{parameters?: Record<string, unknown>, body?: Blob, accept?: string, signal?: AbortSignal}} options
   *     parameters that are undefined, false or "" are left out
   */
  async function request(path, { parameters = {}, body, accept = "*/*", signal } = {}) {
    const url = new URL(path, ROOT);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined && value !== false && value !== "") url.searchParams.set(name, String(value));
    }
    for (let attempt = 1; ; attempt++) {
      const key = stored();
      const headers = { Accept: accept, ...(key && { Authorization: `Bearer ${key}` }) };
      let response;
      try {
        response = await fetch(url, { method: body ? "POST" : "GET", body, headers, signal });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw await unanswered(body);
      }
      if (response.ok) return response;
      if (response.status === 401) {
        const refused = key !== "" && key === stored();
        if (refused || !stored()) {
          asking ??= askForKey(key !== "").finally(() => (asking = null));
          const given = await asking;
          if (!given) throw new ServiceError("Without an API key this server does nothing.", 401);
          store(given);
        }
        continue;
      }
      if (response.status === 503 && attempt <= RETRIES) {
        const seconds = Math.min(LONGEST_WAIT, Math.max(0.5, Number(response.headers.get("Retry-After")) || 1));
        onwait(`The server is busy; trying again in ${seconds} s (${attempt} of ${RETRIES}).`);
        await pause(seconds * 1000, signal).finally(() => onwait(""));
        continue;
      }
      throw new ServiceError(await sentence(response), response.status);
    }
  }
  return { request };
}

/** What the service remarks on a result: sentences on what it does not keep or what is unusual, mostly none. */
export function remarks(answer) {
  return JSON.parse(answer.headers.get("X-Eocodec-Warnings") ?? "[]").map(punctuated);
}

/** Why there was no answer: a server that refuses a large body may hang up before all of it is sent. */
async function unanswered(body) {
  const alive = await fetch(new URL("healthz", ROOT)).then(
    (response) => response.ok,
    () => false,
  );
  return body && alive
    ? new ServiceError(`The server hung up on the picture, which may be too large for it. ${ADVICE}`, 413)
    : new ServiceError("The server cannot be reached.", 0);
}

async function sentence(response) {
  const { status } = response;
  let detail;
  try {
    detail = (await response.json()).detail;
  } catch {
    detail = undefined; // not JSON: a proxy's page, for instance
  }
  if (typeof detail !== "string" || !detail) {
    detail = status === 413 ? "The picture is too large for this server" : `The server answered with an error (${status})`;
  }
  detail = punctuated(detail);
  return status === 413 && !/smaller/.test(detail) ? `${detail} ${ADVICE}` : detail;
}

function punctuated(text) {
  return text[0].toUpperCase() + text.slice(1).replace(/[.\s]+$/, "") + ".";
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
  });
}

let unstored = ""; // where the browser keeps nothing

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? unstored;
  } catch {
    return unstored;
  }
}

function store(key) {
  unstored = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // kept in `unstored`
  }
}
