/**
 * Of several tasks, only the latest counts: it starts after a pause, ends the one before, and shows that it is at work.
 */

const PATIENCE = 250; // ms before work is shown as such
const CALM = 400; // ms for which it is shown at least

export class Latest {
  #timer = 0;
  #controller = null;

  /** @param {{onbusy: (busy: boolean) => void, onerror: (error: Error) => void}} hooks */
  constructor({ onbusy, onerror }) {
    this.onbusy = onbusy;
    this.onerror = onerror;
  }

  /**
   * @param {(signal: AbortSignal) => Promise<void>} work must not show anything once its signal is aborted
   * @param {number} delay ms
   */
  run(work, delay = 0) {
    this.stop();
    this.onbusy(true);
    const controller = (this.#controller = new AbortController());
    this.#timer = setTimeout(async () => {
      try {
        await work(controller.signal);
      } catch (error) {
        if (!controller.signal.aborted) this.onerror(error);
      } finally {
        if (this.#controller === controller) {
          this.#controller = null;
          this.onbusy(false);
        }
      }
    }, delay);
  }

  stop() {
    clearTimeout(this.#timer);
    if (this.#controller) {
      this.#controller.abort();
      this.#controller = null;
      this.onbusy(false);
    }
  }
}

/** A function that shows or hides an element without flicker: late to come, and never for a blink only. */
export function unhurried(element) {
  let timer = 0;
  let shown = 0;
  return (busy) => {
    clearTimeout(timer);
    if (busy === !element.hidden) return;
    const wait = busy ? PATIENCE : Math.max(0, shown + CALM - performance.now());
    timer = setTimeout(() => {
      element.hidden = !busy;
      if (busy) shown = performance.now();
    }, wait);
  };
}
