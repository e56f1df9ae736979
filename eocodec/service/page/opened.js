/**
 * A picture that is sent to the service once and stays open there. In: its blob. Out: answers to questions about it.
 */

import { ServiceError } from "./api.js";

const GONE = 404; // the service has made room for others

export class OpenPicture {
  #identity = null; // a promise

  /**
   * @param {{request: Function}} service see api.js
   * @param {Blob} blob
   */
  constructor(service, blob) {
    this.service = service;
    this.blob = blob;
  }

  /** Send the picture, if that has not been done yet; its id. */
  #opened() {
    this.#identity ??= this.service
      .request("v1/open", { body: this.blob })
      .then((answer) => answer.json())
      .then(({ id }) => id);
    this.#identity.catch(() => (this.#identity = null));
    return this.#identity;
  }

  /**
   * Ask for a view of it.
   *
   * @param {"file" | "picture" | "preview" | "estimate" | "rival"} view
   * @param {Record<string, unknown>} parameters
   * @param {AbortSignal} signal the service gives up the work as well
   */
  async ask(view, parameters, signal) {
    for (let again = true; ; again = false) {
      const path = `v1/open/${await this.#opened()}/${view}`;
      signal.throwIfAborted();
      try {
        return await this.service.request(path, { parameters, signal });
      } catch (error) {
        if (!(again && error instanceof ServiceError && error.status === GONE)) throw error;
        this.#identity = null;
      }
    }
  }
}
