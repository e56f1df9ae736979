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

/**
 * A function that shows an element while anyone is busy, without flicker: late to come, and never for a blink only.
 *
 * @param {HTMLElement} element
 * @param {HTMLElement} region what is being changed: marked as busy (`aria-busy`) at once
 */
export function unhurried(element, region) {
  const working = new Set();
  let timer = 0;
  let shown = 0;
  return (who, busy) => {
    if (busy) working.add(who);
    else working.delete(who);
    const wanted = working.size > 0;
    region.setAttribute("aria-busy", String(wanted));
    clearTimeout(timer);
    if (wanted === !element.hidden) return;
    const wait = wanted ? PATIENCE : Math.max(0, shown + CALM - performance.now());
    timer = setTimeout(() => {
      element.hidden = !wanted;
      if (wanted) shown = performance.now();
    }, wait);
  };
}
