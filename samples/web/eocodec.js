/**
 * Decode `.eoc` pictures with ONNX Runtime Web, all at once or while their bytes arrive.
 *
 * In: bytes of a file (or a stream of them) and a model bundle. Out: RGBA pixels, or drawings on a canvas. Names of
 * sections in comments are those of docs/FORMAT.md, which this module follows.
 *
 *     import * as ort from 'onnxruntime-web/wasm';
 *     import { Bundle, decode, drawProgressively } from './eocodec.js';
 *
 *     const bundle = await Bundle.load('photo.eocm', ort);
 *     const { width, height, data } = await decode(bytes, bundle);
 *     await drawProgressively((await fetch('picture.eoc')).body, bundle, canvas);
 *
 * @module
 */

/**
 * @typedef {Uint8Array | ArrayBuffer} Bytes
 * @typedef {Int8Array | Uint8Array | Int16Array | Float32Array} TensorData
 *
 * @typedef {object} Picture
 * @property {number} width
 * @property {number} height
 * @property {Uint8ClampedArray<ArrayBuffer>} data R, G, B, alpha of every pixel, row by row; 16 bits are rounded to 8
 * @property {Uint16Array} [samples] the same with 16 bits, of files that have so many
 * @property {boolean} alpha whether the file holds transparency
 * @property {boolean} grey whether R = G = B
 * @property {boolean} complete whether the file ends where an encoder ended it, as far as that can be told
 * @property {Int32Array} [symbols] the integers of the file, see "Test vectors"; only if asked for
 *
 * @typedef {object} Options
 * @property {number} [maxPixels] larger pictures are refused; default 2²⁶
 * @property {boolean} [symbols] also return the integers of the file; not while it arrives
 * @property {AbortSignal} [signal] ends decoding while the file arrives
 *
 * @typedef {object} Update
 * @property {number} bytes of the file that are there
 * @property {number} bitsPerPixel these bytes in bits over pixels
 * @property {number} width of the picture
 * @property {number} height of the picture
 * @property {number} drawings that were made, this one included
 * @property {boolean} done whether this is the last drawing
 *
 * @typedef {object} BundleOptions
 * @property {object} [session] options of ONNX Runtime's sessions
 * @property {() => Promise<any>} [zstd] loads the module `fzstd`, which is needed for transparency and lossless
 *   files
 * @property {(file: Uint8Array) => Promise<{ data: ArrayLike<number> }>} [webp] R, G, B, alpha of the pixels of a
 *   lossless `.webp` file, exactly; by default what the module `@jsquash/webp` makes of it
 *
 * @typedef {{ id: string | null, tiny: number }} Need the model that a file was made with: its id (eight hexadecimal
 *   digits), or null and the number that stands for it in tiny files
 * @typedef {Bundle | ((need: Need) => Bundle | Promise<Bundle>)} BundleLike
 */

/** What went wrong, in one sentence for the user. */
export class EocodecError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "EocodecError";
  }
}

/** @param {string} what */
const damaged = (what) => new EocodecError(`the file is damaged: ${what}`);

const PHASES = [
  [0, 0],
  [1, 1],
  [0, 1],
  [1, 0],
]; // of a quad, (row, column)
const PHASE_OF = [0, 2, 3, 1]; // of 2 · (row & 1) + (column & 1)
const STRIP = 65536; // grid positions that nets and coder take at once
const SLICE = 12; // milliseconds of work after which the event loop gets a turn

/** @type {() => Promise<void>} */
const pause =
  typeof globalThis.setImmediate === "function"
    ? () => new Promise((done) => globalThis.setImmediate(done))
    : () =>
        new Promise((done) => {
          const { port1, port2 } = new MessageChannel(); // timers are throttled, messages are not
          port1.onmessage = () => {
            port1.close();
            done();
          };
          port2.postMessage(0);
        });
let rested = 0;

/** Lets the page breathe if it has not for a while. */
async function breathe() {
  if (performance.now() - rested > SLICE) {
    await pause();
    rested = performance.now();
  }
}

/** @param {number} a @param {number} lowest @param {number} highest */
const clamp = (a, lowest, highest) => Math.min(Math.max(a, lowest), highest);

/** @param {number} a */
const bitLength = (a) => 32 - Math.clz32(a);

/** @param {Bytes} bytes */
const bytesOf = (bytes) => (bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));

/** @param {Uint8Array} bytes */
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

/** @param {Uint8Array} bytes */
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** CRC-32 of parts, one after another. @param {ArrayLike<number>[]} parts */
export function crc32(...parts) {
  let crc = -1;
  for (const part of parts) for (let i = 0; i < part.length; i++) crc = (crc >>> 8) ^ CRC[(crc ^ part[i]) & 255];
  return ~crc >>> 0;
}

// ---------------------------------------------------------------------------------------------- the bytes of a file

const FLAGS = { grey: 1, sides: 2, embedded: 4, lossless: 8, tuned: 16, deep: 32, luma: 64, webp: 128 };
const [PAGE_KIND, ONE_AXIS_KIND, SPAN_KIND, DEEP_AXIS_KIND] = [1, 2, 3, 4];
/** What a kind may have besides the flags that all of them may. @type {Record<number, number>} */
const KIND_FLAGS = {
  [PAGE_KIND]: 0,
  [ONE_AXIS_KIND]: FLAGS.tuned,
  [SPAN_KIND]: FLAGS.deep | FLAGS.luma,
  [DEEP_AXIS_KIND]: FLAGS.deep,
};
const GREY_FOLDER = "grey/"; // of the model for grey pictures in a bundle
const SIDES = { end: 0, alpha: 1, map: 2, shifts: 3 };
const SIDE_NAMES = ["end", "transparency", "map of steps", "shifts of tables"];
const MAX_TUNING = 32;
const LARGEST_OFFSET = 32; // of a map's entry, 1/16 octave
const MAX_SIDE = 2 ** 20;
const MAX_PIXELS = 2 ** 28;
const MAX_SIDE_ELEMENT = 2 ** 30; // bytes
const MAX_ELEMENT = 4096; // bytes of lossless parameters or of a choice of tables
const MAX_LAYER = 2 ** 30; // bytes of a page's exact layer
const MAX_PHOTOGRAPHS = 64; // on a page
const MAX_TINY = 32768; // bytes
const PIECE = 2048; // bytes of an embedded stream between two checksums
const LOSSLESS_UNITS = 37;
const WEBP = 3; // first byte of packed samples: a WebP stream comes
const WEBP_SIGNATURE = 0x2f; // first byte of such a stream
const WEBP_EDGE = 16383; // pixels
const WEBP_PIXELS = 2 ** 26;
const SHORT = new EocodecError("the file is cut off before its first segment");

/**
 * @typedef {object} Header
 * @property {string} model id, hexadecimal
 * @property {number} width
 * @property {number} height
 * @property {number} step code
 * @property {number} tuning 0: the file is not tuned
 * @property {boolean} grey
 * @property {boolean} embedded
 * @property {boolean} deep samples have 16 bits
 * @property {number[]} span the levels that 0 and 1 stand for
 * @property {boolean} luma there are no chroma units
 * @property {boolean} page segments are files of photographs
 * @property {number} axes of colour: 3, or 1 of grey pictures by the model for them in the bundle
 * @property {boolean} webp WebP streams are allowed
 *
 * @typedef {{ units: number, payload: Uint8Array }} Segment
 * @typedef {{ number: number, step: number, grey: boolean, payload: Uint8Array }} Tiny
 */

/** Takes elements from the front of the bytes that are there; throws {@link SHORT} at their end. */
class Cursor {
  /** @param {Uint8Array} bytes @param {number} at */
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
  }

  /** @param {number} count */
  take(count) {
    if (this.at + count > this.bytes.length) throw SHORT;
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  /** @param {number} count */
  number(count) {
    return this.take(count).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  varint() {
    for (let value = 0, k = 0; k < 5; k++) {
      const byte = this.take(1)[0];
      value += (byte & 127) * 128 ** k;
      if (byte >= 128) continue;
      if (k && !byte) throw damaged("a number is not in its shortest form");
      return value;
    }
    throw damaged("a number is longer than five bytes");
  }
}

/** A file as it arrives: parses what is there, and lets a decoder wait for more. */
class Feed {
  #buffer = new Uint8Array(4096);
  #at = 0; // start of the first element that is not there as a whole
  #ordinal = 0;
  #head = new Uint8Array(0);
  #failure = /** @type {unknown} */ (null);
  #wake = () => {};
  #pieces = new Uint8Array(0); // of an embedded stream, without checksums
  #intact = 0; // bytes of it whose checksums match

  length = 0;
  ended = false;
  complete = true;
  header = /** @type {Header | null} */ (null);
  tiny = /** @type {Tiny | null} */ (null);
  alpha = /** @type {Uint8Array | null} */ (null);
  map = /** @type {Uint8Array | null} */ (null); // of steps
  lossless = /** @type {Uint8Array | null} */ (null);
  choice = /** @type {Uint8Array | null} */ (null); // of tables
  layer = /** @type {Uint8Array | null} */ (null); // of a page: places of photographs, and what is exact
  segments = /** @type {Segment[]} */ ([]);
  /** An embedded stream as far as it is there. */
  stream = new Uint8Array(0);
  #elements = 0; // 0: before the side elements, 1: before the lossless element, 2: before the segments
  #taken = 0; // segments that the decoder has
  /** Called before the decoder waits for bytes. @type {() => Promise<void>} */
  idle = async () => {};
  /** Called now and then where the decoder could draw. @type {() => Promise<void>} */
  checkpoint = async () => {};

  get #bytes() {
    return this.#buffer.subarray(0, this.length);
  }

  /** @param {Uint8Array} chunk */
  append(chunk) {
    if (this.length + chunk.length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(2 * this.#buffer.length, this.length + chunk.length));
      larger.set(this.#bytes);
      this.#buffer = larger;
    }
    this.#buffer.set(chunk, this.length);
    this.length += chunk.length;
    this.#advance();
  }

  end() {
    this.ended = true;
    this.#advance();
  }

  /** @param {unknown} reason */
  fail(reason) {
    this.#failure ??= reason;
    this.#wake();
  }

  /** Waits until there are more bytes than there were at the call; false at the end of the file. */
  async more() {
    const before = this.length;
    this.check();
    if (this.ended) return false;
    await this.idle();
    while (!this.ended && this.length === before) {
      this.check();
      await new Promise((/** @type {(_: void) => void} */ done) => (this.#wake = done));
    }
    this.check();
    return true;
  }

  /** Throws what is wrong with the file, if anything. */
  check() {
    if (this.#failure) throw this.#failure;
  }

  /** Waits until it is known what kind of file this is, and its side and lossless elements are there. */
  async begin() {
    this.check();
    while (!this.tiny && !(this.header && this.#elements === 2)) if (!(await this.more())) throw SHORT;
  }

  /** The next segment, or null after the last. @returns {Promise<Segment | null>} */
  async segment() {
    while (this.#taken === this.segments.length) if (!(await this.more())) return null;
    return this.segments[this.#taken++];
  }

  #advance() {
    try {
      if (!this.#failure) this.#parse();
    } catch (e) {
      this.#failure = e === SHORT && this.ended ? new EocodecError(SHORT.message) : e;
      if (this.#failure === SHORT) this.#failure = null;
    }
    this.#wake();
  }

  #parse() {
    if (this.tiny || (!this.length && !this.ended)) return;
    const bytes = this.#bytes;
    if (!this.header) {
      const text = this.length > 0 && "+/-_".includes(String.fromCharCode(bytes[0]));
      if (text || (bytes[0] >= 0xf8 && bytes[0] < 0xfe)) {
        if (!this.ended && this.length <= 2 * MAX_TINY) return;
        this.tiny = parseTiny(text ? fromBase64(bytes) : bytes);
        return;
      }
      this.#parseHeader(bytes);
    }
    if (this.#elements < 2) this.#parseElements(bytes);
    if (this.header?.embedded) this.#parsePieces(bytes);
    else this.#parseSegments(bytes);
  }

  /** @param {Uint8Array} bytes */
  #parseHeader(bytes) {
    if (!bytes.length || bytes.subarray(0, 3).some((b, k) => b !== "EOC".charCodeAt(k))) {
      throw new EocodecError("not an .eoc file");
    }
    const cursor = new Cursor(bytes, 3);
    const version = cursor.take(1)[0];
    if (version !== 1 && version !== 2) {
      throw new EocodecError(`the file has format version ${version}; this program reads versions 1 and 2`);
    }
    const model = hex(cursor.take(4));
    const flags = cursor.take(1)[0];
    const kind = version === 2 ? cursor.number(1) : 0;
    const [page, axes] = [kind === PAGE_KIND, kind === ONE_AXIS_KIND || kind === DEEP_AXIS_KIND ? 1 : 3];
    const spanned = kind === SPAN_KIND || kind === DEEP_AXIS_KIND;
    const known = FLAGS.grey | FLAGS.sides | FLAGS.webp | KIND_FLAGS[kind];
    if (version === 2 && (!(kind in KIND_FLAGS) || flags & ~known)) {
      throw new EocodecError("the file uses features that this program does not know");
    }
    const [width, height] = [cursor.varint(), cursor.varint()];
    if (!(width && height && width <= MAX_SIDE && height <= MAX_SIDE && width * height <= MAX_PIXELS)) {
      throw new EocodecError(`the file claims ${width}x${height} pixels, beyond the format's limits`);
    }
    const [rate, step] = [cursor.number(2), cursor.number(2)];
    const [grey, embedded] = [Boolean(flags & FLAGS.grey), Boolean(flags & FLAGS.embedded)];
    if (axes === 1 && !grey) throw damaged("it has one colour axis, but colours");
    if (flags & FLAGS.lossless && (embedded || step !== 32768)) {
      throw damaged("its lossless parameters cannot be read");
    }
    if (embedded && (rate || step)) throw damaged("an embedded stream has no rate");
    const tuning = flags & FLAGS.tuned ? cursor.number(1) : 0;
    const stepped = !(flags & (FLAGS.embedded | FLAGS.lossless));
    if (flags & FLAGS.tuned && !(tuning >= 1 && tuning <= MAX_TUNING && stepped)) {
      throw damaged("its tuning is out of range");
    }
    const deep = Boolean(flags & FLAGS.deep);
    if (deep && (embedded || tuning)) throw damaged("it has 16 bits a sample, but a form that has none");
    const span = spanned ? [cursor.number(2), cursor.number(2)] : [0, deep ? 65535 : 255];
    if (spanned && !(deep && span[0] < span[1])) throw damaged("its range of values cannot be read");
    const luma = axes === 1 || Boolean(flags & FLAGS.luma);
    if (luma && !(grey && stepped)) throw damaged("it has luma alone, but colours or another form");
    this.#at = cursor.at;
    this.#head = bytes.slice(0, cursor.at);
    const webp = Boolean(flags & FLAGS.webp);
    this.header = { model, width, height, step, tuning, grey, embedded, deep, luma, page, axes, webp, span };
  }

  /** The elements before the segments. @param {Uint8Array} bytes */
  #parseElements(bytes) {
    const flags = this.#head[8];
    while (this.#elements === 0) {
      const cursor = new Cursor(bytes, this.#at);
      const kind = flags & FLAGS.sides ? cursor.number(1) : SIDES.end;
      if (kind === SIDES.end) {
        this.#at = cursor.at;
        this.#elements = 1;
        break;
      }
      const known = [null, this.alpha, this.map, this.shifts];
      if (kind > SIDES.shifts || known[kind]) {
        throw damaged("unknown or repeated side segment");
      }
      if (kind !== SIDES.alpha && (this.header?.page || flags & (FLAGS.embedded | FLAGS.lossless | FLAGS.deep))) {
        throw damaged(`a ${SIDE_NAMES[kind]} in a file that has none`);
      }
      const length = cursor.varint();
      if (length > MAX_SIDE_ELEMENT) throw damaged("a side segment is too long");
      const content = cursor.take(length).slice();
      if (!this.#passes(cursor)) throw damaged(`the checksum of its ${SIDE_NAMES[kind]} does not match`);
      if (kind === SIDES.alpha) this.alpha = content;
      else if (kind === SIDES.map) this.map = content;
      else this.shifts = content;
      this.#ordinal++;
      this.#at = cursor.at;
    }
    if (flags & FLAGS.lossless) this.lossless = this.#element(bytes, "lossless parameters", MAX_ELEMENT);
    else if (flags & FLAGS.deep) this.choice = this.#element(bytes, "choice of tables", MAX_ELEMENT);
    if (this.header?.page) this.layer = this.#element(bytes, "exact layer", MAX_LAYER);
    this.#elements = 2;
  }

  /**
   * The content of the element before the segments.
   *
   * @param {Uint8Array} bytes @param {string} name @param {number} most bytes that it may have
   */
  #element(bytes, name, most) {
    const cursor = new Cursor(bytes, this.#at);
    const length = cursor.varint();
    if (length > most) throw damaged(`its ${name} cannot be read`);
    const content = cursor.take(length).slice();
    if (!this.#passes(cursor)) throw damaged(`the checksum of its ${name} does not match`);
    this.#ordinal++;
    this.#at = cursor.at;
    return content;
  }

  /** Whether the element from `#at` to the cursor has the checksum that comes next. @param {Cursor} cursor */
  #passes(cursor) {
    const element = cursor.bytes.subarray(this.#at, cursor.at);
    return cursor.number(4) === crc32(this.#head, [this.#ordinal & 255], element);
  }

  /** @param {Uint8Array} bytes */
  #parseSegments(bytes) {
    try {
      while (this.#at < bytes.length) {
        const cursor = new Cursor(bytes, this.#at);
        const [units, length] = [cursor.varint(), cursor.varint()];
        const payload = cursor.take(length);
        if (!this.#passes(cursor)) throw damaged(`the checksum of segment ${this.#ordinal + 1} does not match`);
        if (!units) throw damaged("a segment without coding units");
        if (this.header?.page && units !== 1) throw damaged("a photograph of a page has one coding unit");
        this.segments.push({ units, payload: payload.slice() });
        this.#ordinal++;
        this.#at = cursor.at;
      }
    } catch (e) {
      if (e !== SHORT) throw e;
      if (this.ended) this.complete = false;
    }
    if (this.ended && this.lossless && this.segments.reduce((sum, s) => sum + s.units, 0) < LOSSLESS_UNITS) {
      this.complete = false;
    }
  }

  /**
   * Of the last piece only so much is used as cannot be its checksum, until the file has ended.
   *
   * @param {Uint8Array} bytes
   */
  #parsePieces(bytes) {
    const room = this.#intact + bytes.length - this.#at;
    if (room > this.#pieces.length) {
      const larger = new Uint8Array(2 * room);
      larger.set(this.#pieces.subarray(0, this.#intact));
      this.#pieces = larger;
    }
    const matches = (/** @type {Uint8Array} */ whole) => {
      const end = whole.length - 4;
      return (
        end > 0 &&
        viewOf(whole).getUint32(end, true) === crc32(this.#head, [this.#ordinal & 255], whole.subarray(0, end))
      );
    };
    for (; bytes.length - this.#at >= PIECE + 4; this.#at += PIECE + 4, this.#ordinal++) {
      const whole = bytes.subarray(this.#at, this.#at + PIECE + 4);
      if (!matches(whole)) throw damaged(`the checksum of piece ${this.#ordinal + 1} does not match`);
      this.#pieces.set(whole.subarray(0, PIECE), this.#intact);
      this.#intact += PIECE;
    }
    const rest = bytes.subarray(this.#at);
    let usable = Math.max(0, rest.length - 4);
    if (this.ended && rest.length && !matches(rest)) {
      this.complete = false;
      usable = Math.min(rest.length, PIECE);
    }
    this.#pieces.set(rest.subarray(0, usable), this.#intact);
    this.stream = this.#pieces.subarray(0, this.#intact + usable);
  }
}

/** @param {Uint8Array} bytes @returns {Tiny} */
function parseTiny(bytes) {
  const tag = bytes[0] - 0xf8;
  if (bytes.length < 2 || bytes.length > MAX_TINY || !(tag >= 0 && tag < 6)) throw new EocodecError("not an .eoc file");
  return {
    number: (tag >> 1) + 1,
    step: 32768 + 3072 + 64 * bytes[1],
    grey: Boolean(tag & 1),
    payload: bytes.slice(2),
  };
}

/** The bytes of base64 text, standard or URL-safe; none if it is something else. @param {Uint8Array} text */
function fromBase64(text) {
  if (text.length > 2 * MAX_TINY) return new Uint8Array(0);
  const standard = new TextDecoder().decode(text).trim().replace(/=+$/, "").replaceAll("-", "+").replaceAll("_", "/");
  try {
    return Uint8Array.from(atob(standard), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array(0);
  }
}

// ------------------------------------------------------------------------------------------------ the range coder

const HIGH = 2 ** 24;
const TOTAL = 2 ** 24; // sum of a table's frequencies

/** What is read was never written. */
class Impossible extends EocodecError {
  constructor() {
    super("the file is damaged: a segment cannot be decoded");
  }
}

/** Frequencies of a symbol s = m + R: what the range coder looks up. */
export class Table {
  /** @param {ArrayLike<number>} frequencies f(−R) … f(R), their sum 2²⁴ */
  constructor(frequencies) {
    this.radius = (frequencies.length - 1) / 2;
    this.cumulative = new Uint32Array(frequencies.length + 1);
    for (let s = 0; s < frequencies.length; s++) this.cumulative[s + 1] = this.cumulative[s] + frequencies[s];
    this.guide = new Uint16Array(1024); // the symbol at every 2¹⁴
    for (let k = 0, s = 0; k < 1024; k++) {
      while (this.cumulative[s + 1] <= k << 14) s++;
      this.guide[k] = s;
    }
  }
}

/**
 * The range decoder of `constriction`: 32-bit words, 64-bit state, 24-bit probabilities. Beyond the end are zeros.
 *
 * Its 64-bit numbers are kept as high · 2²⁴ + low, so the scale range / 2²⁴ is `high`, and all arithmetic is exact in
 * doubles. What is kept of the point is its distance from the lower end of the range.
 */
export class RangeDecoder {
  #rangeHigh = 2 ** 40 - 1;
  #rangeLow = 2 ** 24 - 1;
  #high = 0;
  #low = 0;
  #rest = 0; // distance − quantile · scale

  /** @param {Uint8Array} bytes @param {number} [at] where the stream begins @param {boolean} [bigEndian] */
  constructor(bytes, at = 0, bigEndian = false) {
    this.bytes = bytes;
    this.at = at;
    this.bigEndian = bigEndian;
    const [first, second] = [this.#word(), this.#word()];
    this.#high = first * 256 + (second >>> 24);
    this.#low = second & 0xffffff;
  }

  #word() {
    const { bytes, at } = this;
    this.at += 4;
    return this.bigEndian
      ? ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0
      : (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
  }

  /** The state, for {@link restore}. */
  save() {
    return [this.#rangeHigh, this.#rangeLow, this.#high, this.#low, this.at];
  }

  /** @param {number[]} state */
  restore(state) {
    [this.#rangeHigh, this.#rangeLow, this.#high, this.#low, this.at] = state;
  }

  /** Where the point lies, in 0 … 2²⁴ − 1. */
  #quantile() {
    const scale = this.#rangeHigh;
    let q = Math.floor((this.#high * HIGH + this.#low) / scale); // the sum is rounded: off by one at most
    const upper = Math.floor(scale / 65536);
    const product = upper * q;
    const carried = Math.floor(product / 256);
    let rest =
      (this.#high - carried) * HIGH + (this.#low - (product - carried * 256) * 65536 - (scale - upper * 65536) * q);
    if (rest < 0) {
      q--;
      rest += scale;
    } else if (rest >= scale) {
      q++;
      rest -= scale;
    }
    if (q >= TOTAL) throw new Impossible();
    this.#rest = rest;
    return q;
  }

  /** Narrows the range to a symbol. @param {number} offset quantile − start @param {number} probability */
  #consume(offset, probability) {
    const scale = this.#rangeHigh;
    const upper = Math.floor(scale / 65536);
    const lower = scale - upper * 65536;
    let product = upper * offset;
    let high = Math.floor(product / 256);
    let low = (product - high * 256) * 65536 + lower * offset + this.#rest;
    let carry = Math.floor(low / HIGH);
    this.#high = high + carry;
    this.#low = low - carry * HIGH;
    product = upper * probability;
    high = Math.floor(product / 256);
    low = (product - high * 256) * 65536 + lower * probability;
    carry = Math.floor(low / HIGH);
    high += carry;
    low -= carry * HIGH;
    if (high < 256) {
      high = (high * HIGH + low) * 256;
      low = 0;
      const word = this.#word();
      this.#high = (this.#high * HIGH + this.#low) * 256 + (word >>> 24);
      this.#low = word & 0xffffff;
    }
    this.#rangeHigh = high;
    this.#rangeLow = low;
  }

  /** A symbol of a table. @param {Table} table */
  symbol(table) {
    const q = this.#quantile();
    const { cumulative } = table;
    let s = table.guide[q >>> 14];
    while (cumulative[s + 1] <= q) s++;
    this.#consume(q - cumulative[s], cumulative[s + 1] - cumulative[s]);
    return s;
  }

  /**
   * A symbol with a frequency of 1 and its share of what is left of 2²⁴; one has the rest.
   *
   * @param {Float64Array} shares integers, below 2²⁹ in all @param {number} rest
   */
  shared(shares, rest) {
    const free = TOTAL - shares.length;
    let [sum, left] = [0, free];
    for (const share of shares) sum += share;
    for (let s = 0; s < shares.length; s++) left -= Math.floor((shares[s] * free) / sum);
    const q = this.#quantile();
    for (let [s, start] = [0, 0]; ; s++) {
      const own = 1 + Math.floor((shares[s] * free) / sum) + (s === rest ? left : 0);
      if (q < start + own) {
        this.#consume(q - start, own);
        return s;
      }
      start += own;
    }
  }

  /** A number from 0 to count − 1, all equally likely; the last one has what is left of 2²⁴. @param {number} count */
  uniform(count) {
    const q = this.#quantile();
    const width = Math.floor(TOTAL / count);
    const s = Math.min(Math.floor(q / width), count - 1);
    this.#consume(q - s * width, s < count - 1 ? width : TOTAL - s * width);
    return s;
  }

  /** Yes or no, yes with probability p / 65536: `Bernoulli` of `constriction`, `perfect=False`. @param {number} p */
  decide(p) {
    const q = this.#quantile();
    const yes = 256 * p + (p < 32768 ? 1 : 0); // each has 1, the other 2²⁴ − 2 are divided, what is left is for yes
    const no = TOTAL - yes;
    if (q < no) {
      this.#consume(q, no);
      return 0;
    }
    this.#consume(q - no, yes);
    return 1;
  }
}

const MAX_ESCAPE = 22;

const LAST = 63; // table of scales
const MAX_REST = 12;

/** @typedef {{ take: (index: Uint8Array) => Promise<Int32Array> }} Residuals what reads them */

/**
 * Low bits that are coded as they are: beyond the last table five more are one.
 *
 * @param {number} wanted table
 */
const restOf = (wanted) => clamp(Math.ceil((wanted - LAST) / 5), 0, MAX_REST);

/** A segment being read: residuals with their escapes ("Symbols"). */
class Reader {
  /** @param {Table[]} tables @param {Uint8Array} payload @param {boolean} [bigEndian] */
  constructor(tables, payload, bigEndian = false) {
    this.tables = tables;
    this.coder = new RangeDecoder(payload, 0, bigEndian);
  }

  /** Residuals of places with these table indices. @param {Uint8Array} index */
  async take(index) {
    const { tables, coder } = this;
    const starts = new Uint32Array(tables.length + 1);
    for (let i = 0; i < index.length; i++) starts[index[i] + 1]++;
    for (let k = 0; k < tables.length; k++) starts[k + 1] += starts[k];
    const [next, order] = [starts.slice(), new Uint32Array(index.length)];
    for (let i = 0; i < index.length; i++) order[next[index[i]]++] = i;
    const m = new Int32Array(index.length);
    for (let k = 0; k < tables.length; k++) {
      const escaped = [];
      const { radius } = tables[k];
      for (let j = starts[k]; j < starts[k + 1]; j++) {
        const value = coder.symbol(tables[k]) - radius;
        m[order[j]] = value;
        if (value === radius || value === -radius) escaped.push(order[j]);
      }
      if (escaped.length) this.#escape(escaped, m);
      await breathe();
    }
    return m;
  }

  /**
   * Residuals of which some low bits are coded as they are, behind the symbols of what is above them.
   *
   * @param {Uint8Array} index tables @param {Uint8Array} rest how many bits
   */
  async takeDeep(index, rest) {
    const m = (await this.take(index)).map((above, k) => above << rest[k]);
    for (let r = 1; r <= MAX_REST; r++) {
      for (let k = 0; k < m.length; k++) if (rest[k] === r) m[k] |= this.coder.uniform(2 ** r);
      await breathe();
    }
    return m;
  }

  /**
   * Residuals of places that have a table each; those beyond the window follow, grouped by table.
   *
   * @param {Uint8Array} index tables @param {Windows} windows
   * @param {(place: number, shares: Float64Array) => void} share fills in what every symbol's frequency is to be like
   */
  async takeEach(index, { tails }, share) {
    const m = new Int32Array(index.length);
    const shares = new Float64Array(2 * WINDOW + 3);
    /** @type {number[][]} */
    const outside = tails.map(() => []);
    for (let at = 0; at < index.length; at++) {
      share(at, shares);
      m[at] = this.coder.shared(shares, WINDOW + 1) - WINDOW - 1;
      if (Math.abs(m[at]) > WINDOW) outside[index[at]].push(at);
      if (at % 16384 === 0) await breathe();
    }
    tails.forEach((table, k) => {
      const last = table.cumulative.length - 2;
      const escaped = outside[k].filter((at) => {
        const distance = this.coder.symbol(table);
        m[at] += Math.sign(m[at]) * distance;
        return distance === last;
      });
      if (escaped.length) this.#escape(escaped, m);
    });
    return m;
  }

  /** @param {number[]} places @param {Int32Array} m */
  #escape(places, m) {
    const { coder } = this;
    /** @type {number[][]} */
    const classes = Array.from({ length: MAX_ESCAPE + 1 }, () => []);
    const lengths = places.map(() => coder.uniform(32));
    lengths.forEach((n, k) => {
      if (n > MAX_ESCAPE) throw damaged("a latent is out of range");
      classes[n].push(places[k]);
    });
    classes.forEach((members, n) => {
      if (!n) return;
      const extra = members.map(() => 2 ** n - 1 + coder.uniform(2 ** Math.min(n, 12)));
      if (n > 12) members.forEach((_, k) => (extra[k] += coder.uniform(2 ** (n - 12)) * 4096));
      members.forEach((place, k) => (m[place] += Math.sign(m[place]) * extra[k]));
    });
  }
}

const LOOK_AHEAD = 16; // bytes that stand for those that are missing

/**
 * A low-pass that was cut off: residuals that are certain, and zeros after them ("A low-pass that is cut off").
 *
 * A strip is certain if it comes out alike whether zeros or ones follow what is there: the range decoder is monotone, so
 * that all other continuations give the same.
 */
class PrefixReader {
  #readers;
  certain = 0; // strips

  /** @param {Table[]} tables @param {Uint8Array} payload @param {number} missing bytes */
  constructor(tables, payload, missing) {
    const ahead = Math.min(missing, LOOK_AHEAD);
    this.#readers = [0, 255].map((fill) => {
      const bytes = new Uint8Array(payload.length + ahead).fill(fill);
      bytes.set(payload);
      return new Reader(tables, bytes);
    });
  }

  /** Residuals of places with these table indices. @param {Uint8Array} index */
  async take(index) {
    if (this.#readers.length) {
      try {
        const [first, second] = [await this.#readers[0].take(index), await this.#readers[1].take(index)];
        if (first.every((m, k) => m === second[k])) {
          this.certain++;
          return first;
        }
      } catch (e) {
        if (!(e instanceof EocodecError)) throw e; // what no encoder writes, or a guess at the end
      }
      this.#readers = [];
    }
    return new Int32Array(index.length);
  }
}

// ---------------------------------------------------------------------------------------------------- the model

const MAX_ENTRIES = 256;
const MAX_ENTRY = 64 * 2 ** 20; // bytes
const MAX_BUNDLE = 256 * 2 ** 20; // bytes of all entries
const REFLECTIONS = 128;
const PRECISE = 64; // reflections that are kept in 16 bits
const TYPES = new Map(
  /** @type {[Function, string][]} */ ([
    [Int8Array, "int8"],
    [Uint8Array, "uint8"],
    [Int16Array, "int16"],
    [Float32Array, "float32"],
  ]),
);

/** Ids of bundles older than lists of parts, by the SHA-256 that their list would have: photo, face64. */
const ANCESTORS = new Map([
  [
    "ba6e0980bd42ebfc17190da20b1e138fb0528c5ee51cbbba310c59a08e70178b",
    "26cc94c0a96a772cb349dacacae13926043a63b49bbfff6929a775e6f18c6a36",
  ],
  [
    "03e904950c432b339ba6bc8e8255cda6a035373e91167504c1a854f1a44ce709",
    "5f2b99a22f894e653d293ae8afc0baa7711a14d9e28e54c83335e3ff52c4c90a",
  ],
]);

/** Arithmetic on tensors: none of it runs other graphs, calls out of the runtime, or touches files. */
const OPERATORS = new Set(
  (
    "Abs Add Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose DepthToSpace DequantizeLinear Div Equal " +
    "Exp Expand Flatten Floor Gather Gemm Greater Identity Less Log MatMul Max Min Mul Neg Pad Pow QLinearConv " +
    "QuantizeLinear Reciprocal ReduceMean ReduceSum Relu Reshape Shape Sigmoid Sign Slice Softplus SpaceToDepth " +
    "Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where"
  ).split(" "),
);

/** @param {string} what */
const forbidden = (what) => new EocodecError(`the model's graph holds what a bundle must not: ${what}`);
const BROKEN_GRAPH = new EocodecError("the model's graph is damaged");

/**
 * The fields of a protocol buffer's message: numbers, or the bytes of anything else.
 *
 * @param {Uint8Array} message @returns {[number, number | Uint8Array][]}
 */
function fieldsOf(message) {
  const fields = /** @type {[number, number | Uint8Array][]} */ ([]);
  let at = 0;
  const varint = () => {
    for (let value = 0, k = 0; k < 10 && at < message.length; k++) {
      const byte = message[at++];
      value += (byte & 127) * 128 ** k;
      if (byte < 128) return value;
    }
    throw BROKEN_GRAPH;
  };
  while (at < message.length) {
    const key = varint();
    const kind = key % 8;
    if (key >= 2 ** 32 || ![0, 1, 2, 5].includes(kind)) throw BROKEN_GRAPH; // 32 bits of a larger key are another's
    const number = Math.floor(key / 8);
    if (kind === 0) {
      fields.push([number, varint()]);
      continue;
    }
    const length = kind === 2 ? varint() : kind === 1 ? 8 : 4;
    if (at + length > message.length) throw BROKEN_GRAPH;
    fields.push([number, message.subarray(at, at + length)]);
    at += length;
  }
  return fields;
}

/** Contents of the fields with these numbers. @param {Uint8Array} message @param {number[]} numbers */
function messagesOf(message, ...numbers) {
  return fieldsOf(message).flatMap(([number, value]) => {
    if (!numbers.includes(number)) return [];
    if (typeof value === "number") throw BROKEN_GRAPH;
    return [value];
  });
}

/**
 * Refuses graphs that hold anything but arithmetic of the standard operators on tensors of their own. The numbers are
 * those of the fields in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 *
 * @param {Uint8Array} content
 */
function checkGraph(content) {
  const text = new TextDecoder();
  if (fieldsOf(content).some(([number]) => number === 20 || number === 25)) throw forbidden("functions or training");
  const graphs = messagesOf(content, 7);
  if (graphs.length !== 1) throw BROKEN_GRAPH;
  const [graph] = graphs;
  const nodes = messagesOf(graph, 1);
  if (nodes.length > 20000) throw forbidden("more than 20000 nodes");
  const tensors = messagesOf(graph, 5);
  const others = messagesOf(graph, 15);
  for (const node of nodes) {
    const operators = messagesOf(node, 4).map((name) => text.decode(name));
    const standard = messagesOf(node, 7).every((domain) => ["", "ai.onnx"].includes(text.decode(domain)));
    if (!standard || operators.length !== 1 || !OPERATORS.has(operators[0])) {
      throw forbidden(`the operator ${operators.join(", ").slice(0, 40)}`);
    }
    for (const attribute of messagesOf(node, 5)) {
      others.push(...messagesOf(attribute, 6, 11, 22, 23));
      tensors.push(...messagesOf(attribute, 5, 10));
    }
  }
  if (others.length) throw forbidden("subgraphs or sparse tensors");
  for (const tensor of tensors) {
    const fields = fieldsOf(tensor);
    if (fields.some(([number, value]) => number === 13 || (number === 14 && value !== 0))) {
      throw forbidden("tensors from other files");
    }
    if (fields.filter(([number]) => number === 1).length > 8) {
      throw forbidden("tensors of more than eight dimensions");
    }
  }
}

const UNFIT = new EocodecError("the model bundle's graphs do not give what they should");
const SPOILED = "the model bundle lacks or spoils its manifest";

/** What is said of a bundle that cannot be taken in. @param {unknown} e what went wrong */
const damagedBundle = (e) => (e instanceof EocodecError ? e : new EocodecError("the model bundle is damaged"));

/**
 * Whether a value is a list of integers in a range.
 *
 * @param {unknown} value @param {number} lowest @param {number} highest
 * @param {number} [count] of them; without it at least one
 * @param {boolean} [real] whether they may be other numbers, too
 */
function areNumbers(value, lowest, highest, count, real = false) {
  if (!Array.isArray(value) || value.length !== (count ?? Math.max(1, value.length))) return false;
  return value.every((v) => (real ? typeof v === "number" : Number.isInteger(v)) && v >= lowest && v <= highest);
}

/**
 * Whether the numbers of a manifest fit one another, so many colour axes and tables.
 *
 * @param {any} m @param {number} axes @param {number} tables
 */
function consistent(m, axes, tables) {
  if (!Array.isArray(m.shift) || m.shift.length !== tables || tables > 64) return false;
  if (!m.shift.every((/** @type {unknown} */ row) => areNumbers(row, -65536, 65536, 3))) return false;
  if (m.kind === "flat") {
    if (!areNumbers([m.size], 8, 128)) return false;
    const latents = 3 * m.size ** 2;
    if (!areNumbers(m.gain, -100, 100, latents, true)) return false;
    if (!areNumbers(m.scale, -(2 ** 30), 2 ** 30, latents) || !areNumbers(m.blocks, 1, latents)) return false;
    if (m.blocks.some((/** @type {number} */ v, /** @type {number} */ k) => v <= m.blocks[k - 1])) return false;
    return areNumbers([m.rest_step, m.from_step ?? 0], 0, 65535) && areNumbers([m.tiny], 0, 3);
  }
  if (!areNumbers([m.levels], 1, 8) || !areNumbers([m.refine_from], 0, 1e9, 1, true)) return false;
  if (![m.gain, m.low_index].every(Array.isArray)) return false;
  if (m.gain.length !== m.levels + 1 || m.low_index.length !== axes) return false;
  const count = (/** @type {number} */ k) => axes * (k ? 3 : 1);
  for (let k = 0; k <= m.levels; k++) if (!areNumbers(m.gain[k], -100, 100, count(k), true)) return false;
  for (const kinds of m.low_index) {
    if (!Array.isArray(kinds) || kinds.length !== 6) return false;
    if (!kinds.every((kind) => areNumbers(kind, 0, tables - 1))) return false;
  }
  if (![m.rotated ?? false, m.tuned ?? false].every((v) => typeof v === "boolean")) return false;
  return !m.tuned || areNumbers(m.eye, -64, 64, m.levels + 1);
}

/** A model bundle (`.eocm`). ONNX Runtime's sessions are made when they are first needed. */
export class Bundle {
  #sessions = /** @type {Map<string, Promise<any>>} */ (new Map());
  #probabilities = /** @type {Probabilities | null} */ (null);
  #losslessTables = /** @type {Table[] | null} */ (null);
  #losslessWindows = /** @type {Windows | null} */ (null);
  #basis = /** @type {Promise<Record<string, [TensorData, number[]]>> | null} */ (null);
  #grey = /** @type {Bundle | null} */ (null);

  /**
   * Use {@link Bundle.load}.
   *
   * @param {Map<string, Uint8Array>} files
   * @param {string} id content hash, hexadecimal
   * @param {any} ort
   * @param {BundleOptions} options
   * @param {object} [whole] the manifest of the bundle, in which these are the files of the model for grey pictures
   */
  constructor(files, id, ort, options, whole) {
    this.files = files;
    this.fullId = id;
    this.ort = ort;
    this.options = options;
    const own = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(this.file("manifest.json")));
    if (!own || typeof own !== "object" || Array.isArray(own)) throw new EocodecError(SPOILED);
    this.manifest = { ...whole, ...own };
    /** "photo": pictures of any size; "flat": of one size, coded as one vector. @type {string} */
    this.kind = this.manifest.kind ?? "photo";
    if (this.manifest.format !== 1 || !["photo", "flat"].includes(this.kind)) {
      throw new EocodecError("the model bundle has another format version than this program reads");
    }
    this.compandTable = this.file("compand.bin");
    this.tables = unpackTables(this.file("tables.bin"), true);
    /** @type {number[][]} */
    this.shift = this.manifest.shift;
    /** Colour axes of pictures: 1 in the model for grey ones. */
    this.axes = whole ? 1 : 3;
    if ((whole && this.kind !== "photo") || !consistent(this.manifest, this.axes, this.tables.length)) {
      throw new EocodecError(SPOILED);
    }
    if (this.compandTable.length < 2 || this.compandTable.some((v) => v > 127)) throw damagedBundle(null);
  }

  /**
   * Load a bundle.
   *
   * @param {string | URL | Response | Blob | Bytes} source its address, the answer to a request for it, or its bytes
   * @param {any} ort the module `onnxruntime-web`
   * @param {BundleOptions} [options]
   * @returns {Promise<Bundle>}
   */
  static async load(source, ort, options = {}) {
    if (typeof source === "string" || source instanceof URL) {
      const response = await fetch(source).catch(() => null);
      if (!response?.ok) throw new EocodecError(`the model bundle ${source} cannot be loaded`);
      source = response;
    }
    const bytes = "arrayBuffer" in source ? await source.arrayBuffer() : source;
    try {
      const { files, id } = await unzip(bytesOf(bytes));
      return new Bundle(files, id, ort, options);
    } catch (e) {
      throw damagedBundle(e);
    }
  }

  /**
   * Several bundles as one: each is loaded when those before it do not fit a file.
   *
   * @param {(string | URL)[]} sources
   * @param {any} ort
   * @param {BundleOptions} [options]
   * @returns {(need: Need) => Promise<Bundle>}
   */
  static anyOf(sources, ort, options) {
    const loaded = /** @type {Promise<Bundle>[]} */ ([]);
    return async (need) => {
      for (let k = 0; k < sources.length; k++) {
        loaded[k] ??= Bundle.load(sources[k], ort, options);
        loaded[k].catch(() => delete loaded[k]); // the next file tries again
        const bundle = await loaded[k];
        if (bundle.fits(need)) return bundle;
      }
      throw new EocodecError(`the file needs ${modelName(need)}, which is not at hand`);
    };
  }

  /** First four bytes of the content hash, hexadecimal: what files carry. */
  get id() {
    return this.fullId.slice(0, 8);
  }

  /** @type {string} */
  get name() {
    return this.manifest.name;
  }

  /** Whether this is the model that a file was made with. @param {Need} need */
  fits(need) {
    return need.id === null ? this.kind === "flat" && this.manifest.tiny === need.tiny : this.id === need.id;
  }

  /** The model for grey pictures alone in the bundle: what it does not say itself, the whole one does. */
  get grey() {
    if (this.#grey) return this.#grey;
    const files = new Map([["compand.bin", this.file("compand.bin")]]);
    for (const [name, content] of this.files) {
      if (name.startsWith(GREY_FOLDER)) files.set(name.slice(GREY_FOLDER.length), content);
    }
    if (this.kind !== "photo" || !files.has("manifest.json")) {
      throw new EocodecError("this bundle lacks its part for grey pictures, which the file needs");
    }
    try {
      return (this.#grey = new Bundle(files, this.fullId, this.ort, this.options, this.manifest));
    } catch (e) {
      throw damagedBundle(e);
    }
  }

  /** @param {string} name */
  file(name) {
    const content = this.files.get(name);
    if (!content) throw new EocodecError(`the model bundle lacks ${name}`);
    return content;
  }

  /** What the nets see of a value in 1/16 steps. @param {number} v */
  compand(v) {
    const t = this.compandTable;
    return v < 0 ? -t[Math.min(-v, t.length - 1)] : t[Math.min(v, t.length - 1)];
  }

  /** Tables of the embedded stream. */
  get probabilities() {
    return (this.#probabilities ??= new Probabilities(this.file("progressive.bin")));
  }

  /** Tables of lossless files. */
  get losslessTables() {
    return (this.#losslessTables ??= unpackTables(this.file("lossless/tables.bin"), false));
  }

  /** What weighted samples of lossless files take instead. */
  get losslessWindows() {
    return (this.#losslessWindows ??= windowsOf(this.losslessTables));
  }

  /**
   * Runs a graph.
   *
   * @param {string} graph its name without `.onnx`
   * @param {Record<string, [TensorData, number[]]>} inputs data and shape of each
   * @param {Record<string, (number | null)[]>} [shapes] that outputs must have, null being any number
   * @returns {Promise<Record<string, any>>} data of its outputs
   */
  async run(graph, inputs, shapes = {}) {
    const { ort } = this;
    try {
      if (!this.#sessions.has(graph)) this.#sessions.set(graph, this.#open(graph));
      const session = await this.#sessions.get(graph);
      /** @type {Record<string, any>} */
      const feeds = {};
      for (const [name, [data, shape]] of Object.entries(inputs)) {
        const own = ort.env.wasm.proxy ? data.slice() : data; // a proxy takes buffers away
        feeds[name] = new ort.Tensor(TYPES.get(own.constructor), own, shape);
      }
      const outputs = await session.run(feeds);
      for (const [name, shape] of Object.entries(shapes)) {
        const { dims } = outputs[name];
        if (dims.length !== shape.length || shape.some((n, k) => n !== null && n !== dims[k])) throw UNFIT;
      }
      return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
    } catch (e) {
      if (e instanceof EocodecError) throw e;
      const reason = String(e instanceof Error ? e.message : e).split("\n")[0];
      throw new EocodecError(`the model's graph ${graph} failed: ${reason}`);
    }
  }

  /** @param {string} graph */
  #open(graph) {
    const { ort } = this;
    ort.env.wasm.numThreads ||= 1; // more need headers that isolate the page
    const content = this.file(`${graph}.onnx`);
    checkGraph(content);
    return ort.InferenceSession.create(content, {
      executionProviders: ["wasm"],
      enableMemPattern: false, // shapes differ from run to run
      logSeverityLevel: 3,
      ...this.options.session,
    });
  }

  /** Frees the sessions; they are made again when needed. */
  async release() {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) await (await session).release();
    await this.#grey?.release();
  }

  /**
   * The `size` bytes that exactly one zstd frame to the end of the data holds ("zstd" in docs/FORMAT.md), or null.
   *
   * @param {Uint8Array} data @param {number} size
   */
  async unpack(data, size) {
    const frame = zstdFrame(data);
    if (!frame || frame.window > 2 ** 27 || (frame.size ?? size) !== size) return null;
    const load = this.options.zstd ?? (() => import("fzstd"));
    const { Decompress } = await load().catch(() => {
      throw new EocodecError("the file needs the module fzstd, which cannot be loaded");
    });
    const result = new Uint8Array(size);
    let at = 0;
    try {
      const stream = new Decompress((/** @type {Uint8Array} */ chunk) => {
        result.set(chunk, at); // throws if it is too much
        at += chunk.length;
      });
      for (let k = 0; k < data.length; k += 16384) {
        stream.push(data.subarray(k, k + 16384), k + 16384 >= data.length);
        await breathe();
      }
    } catch {
      return null;
    }
    if (at !== size || (frame.checksum !== null && frame.checksum !== (await xxHash(result)))) return null;
    return result;
  }

  /**
   * R, G, B of the pixels of a WebP stream, each with a byte that means nothing behind it, or null.
   *
   * @param {Uint8Array} stream @param {number} width @param {number} height
   */
  async unwebp(stream, width, height) {
    if (Math.max(width, height) > WEBP_EDGE || width * height > WEBP_PIXELS) return null;
    if (stream.length < 5 || stream[0] !== WEBP_SIGNATURE) return null;
    const sides = viewOf(stream).getUint32(1, true);
    if ((sides & 0x3fff) !== width - 1 || ((sides >>> 14) & 0x3fff) !== height - 1) return null;
    const even = stream.length + (stream.length & 1);
    const file = new Uint8Array(20 + even);
    file.set(new TextEncoder().encode("RIFF    WEBPVP8L"));
    viewOf(file).setUint32(4, 12 + even, true);
    viewOf(file).setUint32(16, stream.length, true);
    file.set(stream, 20);
    try {
      const { data } = await (this.options.webp ?? decodeWebp)(file);
      return data.length === 4 * width * height ? data : null;
    } catch (e) {
      if (e instanceof EocodecError || e instanceof RangeError) throw e;
      return null;
    }
  }

  /** A flat model's rotation, as its graphs take it: `reflections`, `middles`, `signs` ("Flat models"). */
  basis() {
    return (this.#basis ??= unpackBasis(this.file("basis.bin")));
  }
}

/**
 * The pixels of a `.webp` file by libwebp as WASM, in an instance that nothing else uses: what a stream may do to it
 * ends with it, and its memory is given back.
 *
 * @param {Uint8Array} file
 */
async function decodeWebp(file) {
  const missing = () => {
    throw new EocodecError("the file needs the module @jsquash/webp, which cannot be loaded");
  };
  const { default: decodeFile, init } = await import("@jsquash/webp/decode.js").catch(missing);
  const silent = { printErr() {} };
  if (globalThis.process?.versions?.node) {
    const name = "node:fs/promises"; // by a name that bundlers for browsers do not follow
    const { readFile } = await import(/* @vite-ignore */ /* webpackIgnore: true */ name);
    const address = new URL(import.meta.resolve("@jsquash/webp/codec/dec/webp_dec.wasm"));
    init(await WebAssembly.compile(await readFile(address)), silent);
  } else init(silent);
  return decodeFile(file); // at once, or another call's instance would be taken
}

/** @param {Bundle} bundle */
const notMadeBy = (bundle) => damaged(`the model ${bundle.name} does not make such files`);

/** @param {Need} need */
const modelName = (need) => (need.id === null ? `model number ${need.tiny}` : `model ${need.id}`);

/**
 * Window, size and checksum of a zstd frame without a dictionary, null if it says none; or null if the data are no such
 * frame, or do not end where it does (RFC 8878, section 3.1.1).
 *
 * @param {Uint8Array} data
 */
function zstdFrame(data) {
  const cursor = new Cursor(data, 0);
  try {
    if (cursor.number(4) !== 0xfd2fb528) return null;
    const flags = cursor.number(1);
    const scale = flags & 32 ? null : cursor.number(1); // null: the content is the window
    const dictionary = cursor.number([0, 1, 2, 4][flags & 3]);
    const length = [scale === null ? 1 : 0, 2, 4, 8][flags >> 6];
    const size = length ? cursor.number(length) + (length === 2 ? 256 : 0) : null;
    if (flags & 8 || dictionary) return null;
    for (let last = false; !last; ) {
      const block = cursor.number(3);
      const kind = (block >> 1) & 3;
      if (kind === 3) return null;
      cursor.take(kind === 1 ? 1 : block >> 3); // of a run there is one byte
      last = Boolean(block & 1);
    }
    const checksum = flags & 4 ? cursor.number(4) : null;
    const window = scale === null ? (size ?? 0) : 2 ** (10 + (scale >> 3)) * (1 + (scale & 7) / 8);
    return cursor.at === data.length ? { window, size, checksum } : null;
  } catch (e) {
    if (e === SHORT) return null;
    throw e;
  }
}

/**
 * The lower half of XXH64, which is the checksum of zstd: https://github.com/Cyan4973/xxHash
 *
 * @param {Uint8Array} data
 */
async function xxHash(data) {
  const [a, b, c, d, e] = [
    0x9e3779b185ebca87n,
    0xc2b2ae3d27d4eb4fn,
    0x165667b19e3779f9n,
    0x85ebca77c2b2ae63n,
    0x27d4eb2f165667c5n,
  ];
  const cut = (/** @type {bigint} */ v) => BigInt.asUintN(64, v);
  const turn = (/** @type {bigint} */ v, /** @type {bigint} */ n) => cut(v << n) | (v >> (64n - n));
  const round = (/** @type {bigint} */ sum, /** @type {bigint} */ word) => cut(turn(cut(sum + word * b), 31n) * a);
  const view = viewOf(data);
  let [at, hash] = [0, e];
  if (data.length >= 32) {
    const sums = [cut(a + b), b, 0n, cut(-a)];
    while (at + 32 <= data.length) {
      for (let k = 0; k < 4; k++, at += 8) sums[k] = round(sums[k], view.getBigUint64(at, true));
      if (!(at & 0xffff)) await breathe();
    }
    hash = cut(turn(sums[0], 1n) + turn(sums[1], 7n) + turn(sums[2], 12n) + turn(sums[3], 18n));
    for (const sum of sums) hash = cut((hash ^ round(0n, sum)) * a + d);
  }
  hash = cut(hash + BigInt(data.length));
  for (; at + 8 <= data.length; at += 8) {
    hash = cut(turn(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * a + d);
  }
  for (; at + 4 <= data.length; at += 4) {
    hash = cut(turn(hash ^ cut(BigInt(view.getUint32(at, true)) * a), 23n) * b + c);
  }
  for (; at < data.length; at++) hash = cut(turn(hash ^ cut(BigInt(data[at]) * e), 11n) * a);
  hash = cut((hash ^ (hash >> 33n)) * b);
  hash = cut((hash ^ (hash >> 29n)) * c);
  return Number((hash ^ (hash >> 32n)) & 0xffffffffn);
}

/** Files and id of a bundle, all but those for denoising. @param {Uint8Array} bytes */
async function unzip(bytes) {
  const view = viewOf(bytes);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new EocodecError("not a model bundle");
  const count = view.getUint16(end + 10, true);
  if (count > MAX_ENTRIES) throw new EocodecError("the model bundle is larger than allowed");
  const text = new TextDecoder();
  /** @type {Map<string, Uint8Array>} */
  const files = new Map();
  for (let k = 0, total = 0, at = view.getUint32(end + 16, true); k < count; k++) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new EocodecError("the model bundle is damaged");
    const [method, crc] = [view.getUint16(at + 10, true), view.getUint32(at + 16, true)];
    const [packed, size] = [view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const lengths = [28, 30, 32].map((field) => view.getUint16(at + field, true));
    const name = text.decode(bytes.subarray(at + 46, at + 46 + lengths[0]));
    const local = view.getUint32(at + 42, true);
    at += 46 + lengths[0] + lengths[1] + lengths[2];
    total += size;
    if (size > MAX_ENTRY || total > MAX_BUNDLE) throw new EocodecError("the model bundle is larger than allowed");
    if (files.has(name)) throw new EocodecError("the model bundle repeats a name");
    if (name.startsWith("denoise/")) continue;
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const data = bytes.subarray(start, start + packed);
    const content = method === 8 ? await inflate(data, size) : data;
    if (![0, 8].includes(method) || content.length !== size || crc32(content) !== crc) {
      throw new EocodecError("the model bundle is damaged");
    }
    files.set(name, content);
  }
  const noted = text.decode(bytes.subarray(end + 22)).trim();
  const id = await contentHash(files);
  if (id !== null && noted && id !== noted) throw new EocodecError("the model bundle is damaged");
  if (id === null && !/^[0-9a-f]{64}$/.test(noted)) throw new EocodecError("the model bundle does not say its id");
  return { files, id: id ?? noted };
}

/** @param {Uint8Array} data @param {number} size */
async function inflate(data, size) {
  const stream = new Blob([/** @type {BlobPart} */ (data)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate-raw"));
  const result = new Uint8Array(size);
  let at = 0;
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return at === size ? result : result.subarray(0, at);
    result.set(value, at);
    at += value.length;
  }
}

/** SHA-256 in hexadecimal. @param {BlobPart[]} parts */
async function sha256(...parts) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer())));
}

/**
 * SHA-256 over names and contents, or over the list of parts ("Bundle"); null where pages have no cryptography.
 *
 * @param {Map<string, Uint8Array>} files
 */
async function contentHash(files) {
  if (!globalThis.crypto?.subtle) return null;
  const list = files.get("parts.json");
  if (list) return partsHash(files, list);
  const parts = [];
  for (const name of [...files.keys()].sort()) {
    const [label, content] = [new TextEncoder().encode(name), files.get(name) ?? new Uint8Array(0)];
    const lengths = [new Uint8Array(4), new Uint8Array(8)];
    viewOf(lengths[0]).setUint32(0, label.length, true);
    viewOf(lengths[1]).setBigUint64(0, BigInt(content.length), true);
    parts.push(lengths[0], label, lengths[1], content);
  }
  return sha256(.../** @type {BlobPart[]} */ (parts));
}

/**
 * The id of a list of parts; what is there must be on it.
 *
 * @param {Map<string, Uint8Array>} files @param {Uint8Array} list
 */
async function partsHash(files, list) {
  /** @type {Map<string, [number, string]>} */
  const known = new Map();
  let text = "";
  try {
    const { decoding, beside } = JSON.parse(new TextDecoder().decode(list));
    for (const group of [beside, decoding]) {
      for (const name of Object.keys(group).sort()) {
        const [size, hash] = group[name];
        if (/[ \n]/.test(name) || known.has(name)) throw new Error(name);
        known.set(name, [size, hash]);
        if (group === decoding) text += `${name} ${size} ${hash}\n`;
      }
    }
  } catch {
    throw new EocodecError("the model bundle's list of parts cannot be read");
  }
  for (const [name, content] of files) {
    if (name === "parts.json") continue;
    const [size, hash] = known.get(name) ?? [-1, ""];
    if (size !== content.length || hash !== (await sha256(/** @type {BlobPart} */ (content)))) {
      throw new EocodecError(`the model bundle is damaged: ${name} is not what its list of parts says`);
    }
  }
  const found = await sha256(text);
  return ANCESTORS.get(found) ?? found;
}

/** @param {Uint8Array} content @param {boolean} halves whether only f(0) … f(R) are given @returns {Table[]} */
function unpackTables(content, halves) {
  const cursor = new Cursor(content, 0);
  const tables = [];
  const word = () => {
    if (content.length < cursor.at + 4) throw new EocodecError("the model bundle's tables are damaged");
    return cursor.number(4);
  };
  for (let count = word(); count > 0; count--) {
    const given = Array.from({ length: word() }, word);
    const frequencies = halves ? [...given.slice(1).reverse(), ...given] : given;
    const sum = frequencies.reduce((a, b) => a + b, 0);
    if (frequencies.length < 3 || sum !== TOTAL || frequencies.includes(0)) {
      throw new EocodecError("the model bundle's tables are damaged");
    }
    tables.push(new Table(frequencies));
  }
  return tables;
}

/** @param {Uint8Array} content @returns {Promise<Record<string, [TensorData, number[]]>>} */
async function unpackBasis(content) {
  const view = viewOf(content);
  const [size, rank] = [view.getUint32(0, true), view.getUint32(4, true)];
  const signsAt = 8 + 8 * rank;
  const blocks = Math.ceil(rank / REFLECTIONS);
  const rows = new Float32Array(blocks * REFLECTIONS * size);
  for (let k = 0, at = signsAt + size; k < rank; k++) {
    const scale = view.getFloat32(8 + 4 * k, true);
    const row = rows.subarray(k * size, (k + 1) * size);
    if (k < PRECISE) for (let i = 0; i < size; i++, at += 2) row[i] = view.getInt16(at, true) * scale;
    else for (let i = 0; i < size; i++, at++) row[i] = view.getInt8(at) * scale;
    row[k] = view.getFloat32(8 + 4 * rank + 4 * k, true);
  }
  const middles = new Float32Array(blocks * REFLECTIONS ** 2);
  const upper = new Float64Array(REFLECTIONS ** 2);
  for (let b = 0; b < blocks; b++) {
    const vectors = Array.from({ length: REFLECTIONS }, (_, k) => {
      const start = (b * REFLECTIONS + k) * size;
      return rows.subarray(start, start + size);
    });
    for (let r = 0; r < REFLECTIONS; r++) {
      for (let s = r; s < REFLECTIONS; s += 4) {
        products(vectors[r], vectors.slice(s, s + 4)).forEach((p, k) => (upper[r * REFLECTIONS + s + k] = p));
      }
      upper[r * (REFLECTIONS + 1)] = upper[r * (REFLECTIONS + 1)] / 2 || 1;
      await breathe();
    }
    invert(upper, middles.subarray(b * REFLECTIONS ** 2, (b + 1) * REFLECTIONS ** 2));
  }
  const signs = Float32Array.from({ length: size }, (_, i) => view.getInt8(signsAt + i));
  return {
    reflections: [rows, [blocks, REFLECTIONS, size]],
    middles: [middles, [blocks, REFLECTIONS, REFLECTIONS]],
    signs: [signs, [size]],
  };
}

/** Scalar products of a vector with up to four others. @param {Float32Array} a @param {Float32Array[]} others */
function products(a, others) {
  const [b, c = b, d = b, e = b] = others;
  let [p, q, r, s] = [0, 0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    p += x * b[i];
    q += x * c[i];
    r += x * d[i];
    s += x * e[i];
  }
  return [p, q, r, s].slice(0, others.length);
}

/** The inverse of an upper triangular matrix. @param {Float64Array} u @param {Float32Array} result */
function invert(u, result) {
  const n = REFLECTIONS;
  const column = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    for (let i = j; i >= 0; i--) {
      let sum = i === j ? 1 : 0;
      for (let k = i + 1; k <= j; k++) sum -= u[i * n + k] * column[k];
      column[i] = sum / u[i * n + i];
      result[i * n + j] = column[i];
    }
  }
}

/** Tables of the embedded stream. */
class Probabilities {
  /** @param {Uint8Array} content */
  constructor(content) {
    const sizes = [2 * 64 * 4 * 10, 12, 4 * 16 * 10, 3 * 33, 5 * 16, 64];
    const view = viewOf(content);
    let at = 0;
    const parts = sizes.map((size) => Uint16Array.from({ length: size }, () => view.getUint16((at += 2) - 2, true)));
    if (at !== content.length || parts.slice(0, 4).some((part) => part.includes(0))) {
      throw new EocodecError("the model bundle's tables of the embedded stream are damaged");
    }
    this.significance = parts[0]; // (2, 64, 4, 10)
    this.sign = parts[1];
    this.upper = parts[2]; // (4, 16, 10)
    this.low = parts[3]; // (3, 33)
    this.centre = parts[4]; // (5, 16)
    this.zero = parts[5];
    /** Rank of every entry of `significance` by falling probability; equal ones have the same. */
    const values = [...new Set(this.significance)].sort((a, b) => b - a);
    const ranks = new Map(values.map((p, rank) => [p, rank]));
    this.rank = this.significance.map((p) => ranks.get(p) ?? 0);
    this.ranks = values.length;
  }
}

// --------------------------------------------------------------------------------------- units and the entropy model

const LEVEL_UNITS = 6;
const LUMA_PLANES = 12; // of a level's strips, which its chroma nets see
const LOW_LIMIT = 2 ** 24;

/**
 * @typedef {{ phase: number, channel: number, channels: number, plane: number }} Part what a unit codes at one phase:
 *   channels from the first on, planes of the strip from the first on
 * @typedef {{ level: number, graph: string, seen: number, parts: Part[], planes: number }} Unit `seen`: planes that its
 *   net sees of units before
 *
 * @typedef {object} Strip rows of a unit, with what its net says of them
 * @property {Unit} unit
 * @property {number} number of the unit
 * @property {number} start first row in the quad grid
 * @property {number} stop
 * @property {number} width columns of the quad grid
 * @property {number} rows that the net has seen
 * @property {number} skip rows of these that are before `start`
 * @property {Int16Array} mean
 * @property {Uint8Array} index
 * @property {[number, number][]} valid rows and columns of every part that are coded
 *
 * @typedef {(strip: Strip, values: Int32Array) => Promise<void>} StripCoder fills in the values, 1/16 steps
 */

/**
 * Runs of places (phase, channel) at one phase with channels in a row.
 *
 * @param {[number, number][]} places @returns {Part[]}
 */
function partsOf(places) {
  const parts = /** @type {Part[]} */ ([]);
  places.forEach(([phase, channel], plane) => {
    const last = parts[parts.length - 1];
    if (last?.phase === phase && last.channel + last.channels === channel) last.channels++;
    else parts.push({ phase, channel, channels: 1, plane });
  });
  return parts;
}

/** Coding units 1, 2, … of L levels. @param {number} levels @param {boolean} rotated @returns {Unit[]} */
function unitsOf(levels, rotated) {
  const turn = rotated ? 1 : 0;
  const luma = [0, 1, 2, 3].map((k) => [0, 1, 2].map((o) => /** @type {[number, number]} */ ([k ^ (turn * o), o])));
  const chroma = [0, 1].map((k) =>
    [0, 1].flatMap((p) =>
      [3, 4, 5, 6, 7, 8].map((channel) => {
        const aside = (Math.floor(channel / 3) + (channel % 3)) % 2; // axis + orientation
        return /** @type {[number, number]} */ ([(2 * k + p + 2 * turn * aside) % 4, channel]);
      }),
    ),
  );
  /** @type {Unit[]} */
  const units = [];
  for (let level = levels; level > 0; level--) {
    luma.forEach((places, k) => {
      units.push({ level, graph: `luma${level}_${k}`, seen: 3 * k, parts: partsOf(places), planes: 3 });
    });
    chroma.forEach((places, k) => {
      units.push({ level, graph: `chroma${level}_${k}`, seen: 12 + 12 * k, parts: partsOf(places), planes: 12 });
    });
  }
  return units;
}

/**
 * Planes `(count, bottom − top, width)`: the first `count`, some rows of them.
 *
 * @template {TensorData} T
 * @param {T} planes `(…, height, width)` @param {number} count @param {number} height @param {number} width
 * @param {number} top @param {number} bottom
 * @returns {T}
 */
function rowsOf(planes, count, height, width, top, bottom) {
  const size = (bottom - top) * width;
  if (bottom - top === height) return /** @type {T} */ (planes.subarray(0, count * size));
  const result = /** @type {T} */ (new /** @type {any} */ (planes).constructor(count * size));
  for (let c = 0; c < count; c++) {
    result.set(planes.subarray((c * height + top) * width, (c * height + bottom) * width), c * size);
  }
  return result;
}

/**
 * Visit the first rows and columns of a part in coding order.
 *
 * @param {Strip} strip
 * @param {Part} part of its unit
 * @param {[number, number]} inside rows and columns
 * @param {[number, number]} band its height and width
 * @param {(source: number, place: number, channel: number) => void} visit gets places in the strip's planes and in the
 *   band, and the band's channel
 */
function visitPart(strip, part, [rows, columns], [bandHeight, bandWidth], visit) {
  const [i, j] = PHASES[part.phase];
  for (let c = 0; c < part.channels; c++) {
    for (let r = 0; r < rows; r++) {
      let source = ((part.plane + c) * strip.rows + strip.skip + r) * strip.width;
      let place = ((part.channel + c) * bandHeight + 2 * (strip.start + r) + i) * bandWidth + j;
      for (let k = 0; k < columns; k++, source++, place += 2) visit(source, place, part.channel + c);
    }
  }
}

/**
 * Rows and columns of a strip's part that are coded.
 *
 * @param {Strip} strip @param {[number, number]} valid those of the whole part @returns {[number, number]}
 */
const insideOf = (strip, [bottom, right]) => [clamp(bottom - strip.start, 0, strip.stop - strip.start), right];

/** What the nets see of a step's code, in 1/16 octave around 32 levels. @param {number} step */
const conditionOf = (step) => Math.floor((step - 32768 - 5 * 2048 + 64) / 128);

/** The steps of a file: Δ and, with `tuned` models, how much the bands follow the eye, and the map of steps. */
class Fineness {
  /**
   * @param {number} step code
   * @param {boolean} [tuned] whether the nets are told of the tuning
   * @param {number} [tuning] 0 to 32
   * @param {number[]} [eye] what the steps of the bands differ by at full tuning, 1/16 octave
   * @param {{ values: Int8Array, columns: number } | null} [map] entries of blocks in 1/16 octave
   * @param {boolean} [deep] whether the file has 16 bits
   */
  constructor(step, tuned = false, tuning = 0, eye = [], map = null, deep = false) {
    /** k: the nets see latents in steps that are 2^k times those of the file ("Fine steps"). */
    this.fine = deep ? Math.max(0, Math.ceil((32768 - step) / 2048)) : 0;
    this.step = step;
    this.tuned = tuned;
    this.tuning = tuning;
    this.eye = eye;
    this.map = map;
  }

  /** Code of the step of a band; it may lie outside the range of a header's. @param {number} band */
  code(band) {
    return this.step + (this.tuning ? Math.floor((this.tuning * this.eye[band] * 128) / MAX_TUNING) : 0);
  }

  /**
   * The map on a grid of 2^log places a block; 0 without one.
   *
   * @param {number} row @param {number} column @param {number} log
   */
  at(row, column, log) {
    return this.map ? this.map.values[(row >> log) * this.map.columns + (column >> log)] : 0;
  }

  /**
   * What nets see of rows of a level's quads; L − l + 1 is the level's band.
   *
   * @param {number} band @param {number} top @param {number} bottom @param {number} columns
   * @returns {[Int8Array, number[]]}
   */
  condition(band, top, bottom, columns) {
    const size = (bottom - top) * columns;
    const planes = new Int8Array((this.tuned ? 2 : 1) * size).fill(this.tuning);
    const base = conditionOf(this.code(band) + 2048 * this.fine);
    if (!this.map) planes.fill(clamp(base, -80, 48), 0, size);
    for (let y = top, at = 0; this.map && y < bottom; y++) {
      for (let x = 0; x < columns; x++) planes[at++] = clamp(base + this.at(y, x, band - 1), -80, 48);
    }
    return [planes, [1, planes.length / size, bottom - top, columns]];
  }
}

/**
 * The steps of an ordinary file.
 *
 * @param {Feed} feed @param {Bundle} bundle @returns {Promise<Fineness>}
 */
async function finenessOf(feed, bundle) {
  const { width, height, step, tuning, deep } = /** @type {Header} */ (feed.header);
  const { levels, tuned = false, eye } = bundle.manifest;
  if ((tuning || feed.map) && !tuned) throw damaged("its steps differ, which its model does not know");
  if (!feed.map) return new Fineness(step, tuned, tuning, eye, null, deep);
  const [rows, columns] = [height, width].map((n) => Math.ceil(n / 2 ** (levels + 1)));
  const bytes = await bundle.unpack(feed.map, rows * columns);
  if (!bytes) throw damaged("its map of steps cannot be read");
  for (let at = columns; at < bytes.length; at++) bytes[at] += bytes[at - columns]; // differences of rows
  const values = new Int8Array(bytes.buffer);
  if (values.some((a) => Math.abs(a) > LARGEST_OFFSET)) throw damaged("its map of steps is out of range");
  return new Fineness(step, tuned, tuning, eye, { values, columns });
}

/** The order of coding: nets say means and table indices of every unit, a coder the values. */
class Walk {
  feature = /** @type {Uint8Array | null} */ (null);
  channels = 0; // of the feature
  coarser = new Int8Array(0); // what the next level's feature net sees of the level before
  seen = new Int8Array(0);
  level = 0;
  number = 0; // of the unit in progress
  strip = 0; // in progress
  luma = false; // whether chroma units are not there, and zero

  /**
   * @param {Bundle} bundle
   * @param {number} width
   * @param {number} height
   * @param {Fineness} fineness
   * @param {string} folder
   */
  constructor(bundle, width, height, fineness, folder = "entropy") {
    this.bundle = bundle;
    this.axes = bundle.axes;
    this.levels = /** @type {number} */ (bundle.manifest.levels);
    this.units = unitsOf(this.levels, folder === "entropy" && Boolean(bundle.manifest.rotated));
    this.width = width;
    this.height = height;
    this.fineness = fineness;
    this.folder = folder;
  }

  /** Rows and columns of a level's quad grid. @param {number} level @returns {[number, number]} */
  grid(level) {
    const multiple = 2 ** (this.levels + 1);
    const n = 2 ** (this.levels - level);
    return [Math.ceil(this.height / multiple) * n, Math.ceil(this.width / multiple) * n];
  }

  /** Rows and columns of a level's bands, padding included. @param {number} level @returns {[number, number]} */
  bandSize(level) {
    const [rows, columns] = this.grid(level);
    return [2 * rows, 2 * columns];
  }

  /**
   * Rows and columns of a level's bands that are coded; 0 is the low-pass.
   *
   * @param {number} level
   * @returns {[number, number]}
   */
  size(level) {
    const n = 2 ** (level || this.levels);
    const [rows, columns] = this.grid(level || this.levels);
    if (this.fineness.fine) return [2 * rows, 2 * columns];
    return [Math.min(Math.ceil(this.height / n) + 1, 2 * rows), Math.min(Math.ceil(this.width / n) + 1, 2 * columns)];
  }

  /** Latents of every band, the low-pass first, then from coarse to fine. */
  bandLengths() {
    const levels = Array.from({ length: this.levels + 1 }, (_, k) => (k ? this.levels - k + 1 : this.levels));
    const channels = (/** @type {number} */ k) => this.axes * (k ? 3 : 1);
    return levels.map((level, k) => channels(k) * this.bandSize(level)[0] * this.bandSize(level)[1]);
  }

  /** Rows of the quad grid that are coded at once. @param {number} level @returns {[number, number][]} */
  #strips(level) {
    const [height, width] = this.grid(level);
    const rows = Math.max(2, Math.floor(Math.floor(STRIP / width) / 2) * 2);
    return Array.from({ length: Math.ceil(height / rows) }, (_, k) => [k * rows, Math.min((k + 1) * rows, height)]);
  }

  /** The low-pass integers `(axes, h, w)`, padding included ("Low-pass integers"). @param {Residuals} reader */
  async lowPass(reader) {
    const [height, width] = this.size(0);
    const q = Array.from({ length: this.axes }, () => new Int32Array(height * width));
    const corner = clamp(69 - Math.floor((5 * (this.fineness.code(0) - 32768)) / 2048), 0, 63);
    for (const plane of q) plane[0] = (await reader.take(Uint8Array.of(corner)))[0];
    for (let half = 1 << (bitLength(Math.max(height, width) - 1) - 1); half >= 1 && height * width > 1; half >>= 1) {
      for (let c = 0; c < this.axes; c++) {
        const tables = this.bundle.manifest.low_index[c];
        for (const lattice of lattices(height, width, half)) {
          await refineLattice(q[c], width, lattice, tables[lattice.kind], reader);
        }
      }
    }
    const [rows, columns] = this.bandSize(this.levels);
    const result = new Int32Array(this.axes * rows * columns);
    for (let c = 0, at = 0; c < this.axes; c++) {
      for (let r = 0; r < rows; r++) {
        const start = Math.min(r, height - 1) * width;
        for (let k = 0; k < columns; k++) result[at++] = q[c][start + Math.min(k, width - 1)];
      }
    }
    return result;
  }

  /** Go to the first level. @param {ArrayLike<number>} low `(axes, h, w)` in 1/16 steps */
  begin(low) {
    const [height, width] = this.bandSize(this.levels);
    this.coarser = new Int8Array(2 * this.axes * height * width);
    let at = 0;
    for (const [i, j] of PHASES) {
      for (const [down, right] of [
        [0, 1],
        [1, 0],
      ]) {
        for (let c = 0; c < this.axes; c++) {
          for (let r = i; r < height; r += 2) {
            for (let k = j; k < width; k += 2, at++) {
              const place = (c * height + r) * width + k;
              const inside = r + down < height && k + right < width;
              if (inside) this.coarser[at] = this.#compand(low[place + down * width + right] - low[place]);
            }
          }
        }
      }
    }
  }

  /** Run a level's feature net. @param {number} level @param {Int8Array | null} known planes of the quad grid */
  async enter(level, known = null) {
    const [height, width] = this.grid(level);
    const inputChannels = this.axes * (level === this.levels ? 8 : 3);
    const [previous, before] = [this.feature, this.channels];
    let feature = new Uint8Array(0);
    for (const [start, stop] of this.#strips(level)) {
      const [top, bottom] = [Math.max(0, start - 2), Math.min(height, stop + 2)];
      const rows = bottom - top;
      /** @type {Record<string, [TensorData, number[]]>} */
      const inputs = {
        coarser: [rowsOf(this.coarser, inputChannels, height, width, top, bottom), [1, inputChannels, rows, width]],
        condition: this.#condition(level, top, bottom),
      };
      if (previous) {
        const planes = rowsOf(previous, before, height / 2, width / 2, top / 2, bottom / 2);
        inputs.previous = [planes, [1, before, rows / 2, width / 2]];
      }
      if (known) {
        const count = known.length / (height * width);
        inputs.known = [rowsOf(known, count, height, width, top, bottom), [1, count, rows, width]];
      }
      const output = (await this.bundle.run(`${this.folder}/feature${level}`, inputs)).feature;
      const channels = (this.channels = output.length / (rows * width));
      if (stop - start === height) {
        feature = output;
        break;
      }
      if (!feature.length) feature = new Uint8Array(channels * height * width);
      for (let c = 0; c < channels; c++) {
        const from = (c * rows + start - top) * width;
        feature.set(output.subarray(from, from + (stop - start) * width), (c * height + start) * width);
      }
    }
    this.feature = feature;
    this.level = level;
    this.seen = new Int8Array(24 * height * width);
    this.coarser = new Int8Array(12 * this.axes * height * width);
  }

  /** What the nets see of a value in 1/16 steps of the file. @param {number} v */
  #compand(v) {
    const { fine } = this.fineness;
    return this.bundle.compand(fine ? Math.floor((v + 2 ** (fine - 1)) / 2 ** fine) : v);
  }

  /** @param {number} level @param {number} top @param {number} bottom rows of its quad grid */
  #condition(level, top, bottom) {
    return this.fineness.condition(1 + this.levels - level, top, bottom, this.grid(level)[1]);
  }

  /**
   * Code a unit of the level that was entered, from a strip on.
   *
   * @param {number} number of the unit, from 1 @param {StripCoder} coder @param {number} from
   */
  async code(number, coder, from = 0) {
    const unit = this.units[number - 1];
    if (this.luma && unit.seen >= LUMA_PLANES) return;
    const [height, width] = this.grid(unit.level);
    const [bandRows, bandColumns] = this.size(unit.level);
    const valid = /** @type {[number, number][]} */ (
      unit.parts.map(({ phase }) => {
        const [i, j] = PHASES[phase];
        return [(bandRows - i + 1) >> 1, (bandColumns - j + 1) >> 1];
      })
    );
    const strips = this.#strips(unit.level);
    for (let s = from; s < strips.length; s++) {
      const [start, stop] = strips[s];
      const [top, bottom] = [Math.max(0, start - 2), Math.min(height, stop + 2)];
      const rows = bottom - top;
      /** @type {Record<string, [TensorData, number[]]>} */
      const inputs = {
        feature: [
          rowsOf(/** @type {Uint8Array} */ (this.feature), this.channels, height, width, top, bottom),
          [1, this.channels, rows, width],
        ],
        condition: this.#condition(unit.level, top, bottom),
      };
      if (unit.seen) {
        inputs.seen = [rowsOf(this.seen, unit.seen, height, width, top, bottom), [1, unit.seen, rows, width]];
      }
      const { mean, index } = await this.bundle.run(`${this.folder}/${unit.graph}`, inputs);
      const strip = { unit, number, start, stop, width, rows, skip: start - top, mean, index, valid };
      [this.number, this.strip] = [number, s];
      const values = new Int32Array(mean.length);
      await coder(strip, values);
      this.#store(strip, values, height);
      await breathe();
    }
  }

  /**
   * Keep what later nets see of a strip.
   *
   * @param {Strip} strip
   * @param {Int32Array} values
   * @param {number} height of the grid
   */
  #store(strip, values, height) {
    const { unit, width } = strip;
    const rows = strip.stop - strip.start;
    const keep = unit.seen + unit.planes <= 24;
    for (const part of unit.parts) {
      visitPart(strip, part, [rows, width], [2 * height, 2 * width], (source, place) => {
        this.coarser[place] = this.#compand(values[source]);
      });
    }
    if (!keep) return;
    for (let k = 0; k < unit.planes; k++) {
      const from = (k * strip.rows + strip.skip) * width;
      const to = ((unit.seen + k) * height + strip.start) * width;
      for (let x = 0; x < rows * width; x++) this.seen[to + x] = this.#compand(values[from + x]);
    }
  }

  /**
   * Visit the rest of the level, as if nothing more were coded. A later call of {@link code} overwrites all of it.
   *
   * @param {number} number @param {number} strip to begin with @param {StripCoder} coder @param {() => void} check
   */
  async rest(number, strip, coder, check) {
    const position = [this.number, this.strip];
    try {
      for (let k = number; ; k++) {
        check();
        await this.code(k, coder, k === number ? strip : 0);
        if (k % LEVEL_UNITS === 0) return;
      }
    } finally {
      [this.number, this.strip] = position;
    }
  }
}

/**
 * @typedef {{ kind: number, rows: number, columns: number, top: number, left: number, stride: number,
 *   neighbours: (row: number, column: number) => [number, number, number, number] }} LowLattice positions of the
 *   low-pass that are refined at once, and places of the four neighbours of each
 */

/**
 * The lattices that halve a stride.
 *
 * @param {number} height
 * @param {number} width
 * @param {number} half
 * @returns {LowLattice[]}
 */
function lattices(height, width, half) {
  const stride = 2 * half;
  const scale = 2 * Math.min(bitLength(half) - 1, 2);
  const count = (/** @type {number} */ length, /** @type {number} */ from) =>
    Math.max(0, Math.ceil((length - from) / stride));
  const [evenRows, evenColumns] = [count(height, 0), count(width, 0)];
  const [oddRows, oddColumns] = [count(height, half), count(width, half)];
  const even = (/** @type {number} */ k, /** @type {number} */ n) => stride * clamp(k, 0, n - 1);
  const odd = (/** @type {number} */ k, /** @type {number} */ n) => half + stride * clamp(k, 0, n - 1);
  const diagonal = oddRows > 0 && oddColumns > 0;
  /** @type {LowLattice[]} */
  const result = [
    {
      kind: scale,
      rows: oddRows,
      columns: oddColumns,
      top: half,
      left: half,
      stride,
      neighbours: (r, c) => {
        const [above, below] = [even(r, evenRows) * width, even(r + 1, evenRows) * width];
        const [left, right] = [even(c, evenColumns), even(c + 1, evenColumns)];
        return [above + left, above + right, below + left, below + right];
      },
    },
    {
      kind: scale + 1,
      rows: evenRows,
      columns: oddColumns,
      top: 0,
      left: half,
      stride,
      neighbours: (r, c) => {
        const row = even(r, evenRows) * width;
        const [left, right] = [row + even(c, evenColumns), row + even(c + 1, evenColumns)];
        if (!diagonal) return [left, right, left, right];
        const column = odd(c, oddColumns);
        return [left, right, odd(r - 1, oddRows) * width + column, odd(r, oddRows) * width + column];
      },
    },
    {
      kind: scale + 1,
      rows: oddRows,
      columns: evenColumns,
      top: half,
      left: 0,
      stride,
      neighbours: (r, c) => {
        const column = even(c, evenColumns);
        const [above, below] = [even(r, evenRows) * width + column, even(r + 1, evenRows) * width + column];
        if (!diagonal) return [above, below, above, below];
        const row = odd(r, oddRows) * width;
        return [above, below, row + odd(c - 1, oddColumns), row + odd(c, oddColumns)];
      },
    },
  ];
  return result.filter((lattice) => lattice.rows && lattice.columns);
}

/**
 * @param {Int32Array} q
 * @param {number} width
 * @param {LowLattice} lattice
 * @param {number[]} classes
 * @param {Residuals} reader
 */
async function refineLattice(q, width, lattice, classes, reader) {
  const predicted = new Int32Array(lattice.rows * lattice.columns);
  const index = new Uint8Array(predicted.length);
  for (let r = 0, at = 0; r < lattice.rows; r++) {
    for (let c = 0; c < lattice.columns; c++, at++) {
      const four = lattice.neighbours(r, c).map((place) => q[place]);
      predicted[at] = (four[0] + four[1] + four[2] + four[3] + 2) >> 2;
      const activity = Math.min(Math.max(...four) - Math.min(...four), 2 ** 20);
      const n = bitLength(activity);
      const found = activity < 4 ? activity : 2 * n + ((activity >> (n - 2)) & 1) - 2;
      index[at] = classes[Math.min(found, classes.length - 1)];
    }
  }
  const m = await reader.take(index);
  for (let r = 0, at = 0; r < lattice.rows; r++) {
    const start = (lattice.top + r * lattice.stride) * width + lattice.left;
    for (let c = 0; c < lattice.columns; c++, at++) q[start + c * lattice.stride] = predicted[at] + m[at];
  }
}

// ------------------------------------------------------------------------------------------- latents to a picture

const TILE = 1024; // pixels
const HALO = 128;
const WHOLE = 2 ** 21; // pixels up to which a picture is one tile
const TOO_FINE = 1e-4; // what the decoder is told where Δ is too fine for its refinement
const FLOW_ALONE = 1e-6; // … in files whose picture then is that of the flow alone

/** Δ of a header's code, in 8-bit levels. @param {number} code */
const levelsOf = (code) => 2 ** ((code - 32768) / 2048);

/** The 8-bit level of a value, or another one. @param {number} x @param {number} [most] the highest */
const levelOf = (x, most = 255) => Math.floor(clamp(x, 0, 1) * most + 0.5);

/** @typedef {Uint8ClampedArray | Uint16Array} Samples R, G, B, alpha of every pixel, of 8 or 16 bits */

/**
 * Fill in R, G, B of a picture of dequantised latents.
 *
 * @param {Walk} walk knows all sizes @param {Float32Array[]} latents @param {number} delta Δ in 8-bit levels
 * @param {Samples} rgba @param {number} [tooFine] what the decoder is told of steps too fine to refine at
 * @param {number[]} [span] the levels that 0 and 1 stand for
 */
async function synthesise(walk, latents, delta, rgba, tooFine = TOO_FINE, span = [0, 255]) {
  const { bundle, levels, width, height, fineness } = walk;
  const [fullHeight, fullWidth] = walk.grid(levels).map((n) => n * 2 ** (levels + 1));
  const told = (/** @type {number} */ a) => {
    const step = delta * 2 ** (a / 16); // of a place where the map says a
    return step < bundle.manifest.refine_from ? tooFine : step / 255;
  };
  const [least, most] = [span[0], span[1] - span[0]];
  const whole = fullWidth * fullHeight <= WHOLE;
  const [tileHeight, tileWidth] = whole ? [fullHeight, fullWidth] : [TILE, TILE];
  for (let top = 0; top < height; top += tileHeight) {
    for (let left = 0; left < width; left += tileWidth) {
      const [bottom, right] = [Math.min(top + tileHeight, fullHeight), Math.min(left + tileWidth, fullWidth)];
      const outer = {
        top: Math.max(0, top - HALO),
        bottom: Math.min(fullHeight, bottom + HALO),
        left: Math.max(0, left - HALO),
        right: Math.min(fullWidth, right + HALO),
      };
      /** @type {Record<string, [TensorData, number[]]>} */
      const inputs = { step: [Float32Array.of(told(0)), [1]] };
      if (bundle.manifest.tuned) {
        inputs.tune = [Float32Array.of(fineness.tuning / MAX_TUNING), [1, 1, 1, 1]];
        inputs.step[1] = [1, 1, 1, 1];
      }
      if (fineness.map) {
        // On the grid of half the resolution, where a block has 2^levels places.
        const [rows, columns] = [(outer.bottom - outer.top) / 2, (outer.right - outer.left) / 2];
        const steps = new Float32Array(rows * columns);
        for (let y = 0, at = 0; y < rows; y++) {
          for (let x = 0; x < columns; x++) {
            steps[at++] = told(fineness.at(outer.top / 2 + y, outer.left / 2 + x, levels));
          }
        }
        inputs.step = [steps, [1, 1, rows, columns]];
      }
      latents.forEach((band, k) => {
        const factor = 2 ** (k ? levels - k + 1 : levels);
        const [channels, bandHeight, bandWidth] = [walk.axes * (k ? 3 : 1), fullHeight / factor, fullWidth / factor];
        const [y, x] = [outer.top / factor, outer.left / factor];
        const [rows, columns] = [(outer.bottom - outer.top) / factor, (outer.right - outer.left) / factor];
        const piece = new Float32Array(channels * rows * columns);
        for (let c = 0, at = 0; c < channels; c++) {
          for (let r = 0; r < rows; r++, at += columns) {
            const start = (c * bandHeight + y + r) * bandWidth + x;
            piece.set(band.subarray(start, start + columns), at);
          }
        }
        inputs[k ? `detail${levels - k + 1}` : "low"] = [piece, [1, channels, rows, columns]];
      });
      const { picture } = await bundle.run("decoder", inputs);
      const [rows, columns] = [outer.bottom - outer.top, outer.right - outer.left];
      for (let y = top; y < Math.min(bottom, height); y++) {
        let from = (y - outer.top) * columns + left - outer.left;
        let to = 4 * (y * width + left);
        for (let x = left; x < Math.min(right, width); x++, from++, to += 4) {
          // With one axis pictures are grey.
          for (let c = 0; c < 3; c++) {
            rgba[to + c] = least + levelOf(picture[(c % walk.axes) * rows * columns + from], most);
          }
        }
      }
      await breathe();
    }
  }
}

// --------------------------------------------------------------------------------------------------- kinds of files

/** A file being decoded. */
class Job {
  /** Grows with everything that changes the picture; 0 as long as there is none. */
  progress = 0;

  /** @param {Feed} feed @param {Bundle} bundle @param {number} width @param {number} height */
  constructor(feed, bundle, width, height) {
    this.feed = feed;
    this.bundle = bundle;
    this.width = width;
    this.height = height;
  }

  /** Decode all there is, waiting for bytes. @returns {Promise<void>} */
  async run() {
    throw new Error("not implemented");
  }

  /**
   * Fill in R, G, B of what is known; `check` is called where it can be given up.
   *
   * @param {Samples} _rgba @param {() => void} _check @returns {Promise<void>}
   */
  async paint(_rgba, _check) {
    throw new Error("not implemented");
  }

  /** The integers of the file, after {@link run} and {@link paint}. @returns {Int32Array} */
  symbols() {
    throw new Error("not implemented");
  }
}

/**
 * The pixels of a WebP stream inside a job's file ("WebP inside"), see {@link Bundle.unwebp}.
 *
 * @param {Job} job @param {Uint8Array} stream @param {string} what it is
 */
async function webpOf({ feed, bundle, width, height }, stream, what) {
  if (!feed.header?.webp) throw damaged(`${what} is of a kind that its flags do not name`);
  const pixels = await bundle.unwebp(stream, width, height);
  if (!pixels) throw damaged(`${what} is a WebP stream that cannot be read`);
  return pixels;
}

/** @param {ArrayLike<number>[]} parts */
function joined(parts) {
  const result = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

/** An ordinary file of a model for pictures of any size. */
class OrdinaryJob extends Job {
  #walk;
  #end = 0; // units that segments so far hold
  #next = 1; // the first unit that is not decoded
  #reader = /** @type {Reader | null} */ (null);
  #low;
  #values = /** @type {Int32Array[]} */ ([]);
  #deep;
  #span;
  #corrections; // of table indices, by level and axis
  #shifts; // of table indices, by unit

  /**
   * @param {Feed} feed @param {Bundle} bundle @param {Header} header @param {Fineness} fineness
   * @param {Int8Array} corrections of table indices, 64 for every level and axis
   * @param {number[]} shifts of table indices, by unit @param {boolean} symbols
   */
  constructor(feed, bundle, header, fineness, corrections, shifts, symbols) {
    super(feed, bundle, header.width, header.height);
    this.#deep = header.deep;
    this.#span = header.span;
    this.#corrections = corrections;
    this.#shifts = shifts;
    this.#walk = new Walk(bundle, header.width, header.height, fineness);
    this.#walk.luma = header.luma;
    this.delta = levelsOf(header.step);
    const sizes = this.#walk.bandLengths();
    this.latents = sizes.map((size) => new Float32Array(size));
    this.#low = new Int32Array(sizes[0]);
    if (symbols) this.#values = sizes.slice(1).map((size) => new Int32Array(size));
    this.steps = /** @type {number[][]} */ (bundle.manifest.gain).map((band, k) =>
      band.map((gain) => Math.fround((levelsOf(fineness.code(k)) / 255) * Math.exp(gain))),
    ); // where the map has nothing to say
  }

  async run() {
    const walk = this.#walk;
    const reader = await this.#open(0);
    if (reader) {
      const [shift] = this.#shifts;
      this.#low = await walk.lowPass({ take: (index) => reader.take(shifted(index, shift)) });
      const size = this.#low.length / walk.axes;
      this.#low.forEach((q, i) => (this.latents[0][i] = q * this.steps[0][Math.floor(i / size)]));
      walk.begin(Float64Array.from(this.#low, (q) => 16 * clamp(q, -LOW_LIMIT, LOW_LIMIT)));
      this.progress++;
    }
    for (; reader && this.#next <= walk.units.length; this.#next++) {
      await this.feed.checkpoint();
      const found = await this.#open(this.#next);
      if (!found) break;
      if ((this.#next - 1) % LEVEL_UNITS === 0) await walk.enter(walk.units[this.#next - 1].level);
      await walk.code(this.#next, (strip, values) => this.#strip(strip, values, found));
      this.progress++;
    }
    if (await this.feed.segment()) this.#tooMany();
  }

  #tooMany() {
    throw damaged("it has more coding units than the model");
  }

  /** The stream that holds a unit, or null after the end. @param {number} unit */
  async #open(unit) {
    while (unit >= this.#end) {
      const segment = await this.feed.segment();
      if (!segment) return null;
      this.#end += segment.units;
      if (this.#end > 1 + this.#walk.units.length) this.#tooMany();
      this.#reader = new Reader(this.bundle.tables, segment.payload);
    }
    return this.#reader;
  }

  /** Residuals of places with these table indices. @param {Reader} reader @param {Unit} unit @param {Uint8Array} index */
  async #take(reader, unit, index) {
    const { fine } = this.#walk.fineness;
    if (!fine) return reader.take(shifted(index, this.#shifts[this.#next]));
    const group = 64 * (2 * (unit.level - 1) + (unit.seen >= LUMA_PLANES ? 1 : 0));
    const wanted = Int32Array.from(index, (i) => i + 5 * fine + this.#corrections[group + i]);
    const rest = Uint8Array.from(wanted, restOf);
    return reader.takeDeep(
      Uint8Array.from(wanted, (w, k) => clamp(w - 5 * rest[k], 0, LAST)),
      rest,
    );
  }

  /**
   * Read and dequantise a strip; without a reader all residuals are zero.
   *
   * @param {Strip} strip @param {Int32Array} values @param {Reader | null} reader
   */
  async #strip(strip, values, reader) {
    const { unit, mean, index } = strip;
    const size = this.#walk.bandSize(unit.level);
    const insides = strip.valid.map((valid) => insideOf(strip, valid));
    const residuals = new Int32Array(mean.length);
    if (reader) {
      const counts = unit.parts.map(({ channels }, n) => channels * insides[n][0] * insides[n][1]);
      const asked = new Uint8Array(counts.reduce((sum, count) => sum + count, 0));
      let at = 0;
      unit.parts.forEach((p, n) => visitPart(strip, p, insides[n], size, (k) => (asked[at++] = index[k])));
      const m = await this.#take(reader, unit, asked);
      at = 0;
      unit.parts.forEach((p, n) => visitPart(strip, p, insides[n], size, (k) => (residuals[k] = m[at++])));
    }
    const band = 1 + this.#walk.levels - unit.level;
    const [latents, steps, known, { shift }] = [
      this.latents[band],
      this.steps[band],
      this.#values[band - 1],
      this.bundle,
    ];
    const { fineness } = this.#walk;
    unit.parts.forEach((part, n) => {
      visitPart(strip, part, [strip.stop - strip.start, strip.width], size, (source, place, channel) => {
        const [m, around] = [residuals[source], mean[source] << fineness.fine];
        values[source] = 16 * m + around;
        let value = m + around / 16;
        if (m && !fineness.fine) value -= (Math.sign(m) * shift[index[source]][Math.min(Math.abs(m), 3) - 1]) / 256;
        if (fineness.map) {
          const [row, column] = [Math.floor(place / size[1]) % size[0], place % size[1]];
          value *= 2 ** (fineness.at(row, column, band) / 16);
        }
        latents[place] = value * steps[channel];
      });
      if (known) visitPart(strip, part, insides[n], size, (source, place) => (known[place] = values[source]));
    });
  }

  /** @param {Samples} rgba @param {() => void} check */
  async paint(rgba, check) {
    if ((this.#next - 1) % LEVEL_UNITS) {
      await this.#walk.rest(this.#next, 0, (strip, values) => this.#strip(strip, values, null), check);
    }
    check();
    const alone = (this.#walk.luma || this.#deep) && !this.#walk.fineness.map;
    await synthesise(this.#walk, this.latents, this.delta, rgba, alone ? FLOW_ALONE : TOO_FINE, this.#span);
  }

  symbols() {
    return joined([this.#low, ...this.#values]);
  }
}

const LAYERS = 14;
const GROUP = 1024; // decisions between two places where a stream may end
const COST_UNIT = 4096; // information is counted in 1/4096 bit
const MARGIN = 32 * COST_UNIT;
const LIKELY = 14; // table index from which on a latent is decided in stage 0
const LOW_STEP = 128; // levels, of the low-pass at the start
const LOW_CODE = 47104; // its code
const MAX_LOW = 2 ** 15;
const LIMIT = 10; // of a mean inside the dead zone, 1/16 of the nets' steps
const ENDED = new Error("the stream has no further whole group");
/** What a decision of probability P / 65536 costs; powers of two must not depend on the last bit of log2. */
const COSTS = Uint32Array.from({ length: 65537 }, (_, p) =>
  p ? Math.ceil((16 - Math.log2(p)) * COST_UNIT - 1e-6) + 1 : 0,
);
const MEAN_CLASS = Uint8Array.from({ length: 10 }, (_, a) => (a < 2 ? 0 : a < 5 ? 1 : a < 9 ? 2 : 3));
const COUNT_CLASS = Uint8Array.of(0, 1, 2, 3, 3, 4, 4, 4, 4);

/** What is known of a level's latents `(9, height, width)`; cells in half levels. */
class Cells {
  touched = false; // anything was coded

  /** @param {[number, number]} size */
  constructor([height, width]) {
    const count = 9 * height * width;
    this.height = height;
    this.width = width;
    this.sign = new Int8Array(count); // 0: in the dead zone
    this.lower = new Int16Array(count);
    this.extent = new Int16Array(count); // width of the cell
    this.fresh = new Uint8Array(count);
    this.settled = new Uint8Array(count); // decided in this layer
    this.origin = new Uint8Array(count); // ⌊table index / 4⌋ of when it became significant
    this.guess = new Float32Array(count); // levels, of those in the dead zone
  }

  /** Class of every latent's neighbourhood. @param {Cells | undefined} finer the level below */
  neighbourhood(finer) {
    const { height, width, sign } = this;
    const result = new Uint8Array(sign.length);
    const rows = new Uint8Array((height + 2) * width); // significant ones among three in a row
    for (let c = 0; c < 9; c++) {
      const start = c * height * width;
      for (let y = 0; y < height; y++) {
        const row = sign.subarray(start + y * width, start + (y + 1) * width);
        for (let x = 0; x < width; x++) {
          const near = (row[x] ? 1 : 0) + (x && row[x - 1] ? 1 : 0) + (x + 1 < width && row[x + 1] ? 1 : 0);
          rows[(y + 1) * width + x] = near;
        }
      }
      for (let y = 0, at = start; y < height; y++) {
        for (let x = 0, k = y * width; x < width; x++, k++, at++) {
          result[at] = COUNT_CLASS[rows[k] + rows[k + width] + rows[k + 2 * width] - (sign[at] ? 1 : 0)];
        }
      }
    }
    if (finer?.touched) {
      for (let row = 0, at = 0; row < 9 * height; row++) {
        for (let x = 0, k = 4 * row * width; x < width; x++, k += 2, at++) {
          const { sign: below } = finer;
          if (below[k] || below[k + 1] || below[k + 2 * width] || below[k + 2 * width + 1]) result[at] += 5;
        }
      }
    }
    return result;
  }
}

const CORNER_STRIPS = 3; // the first ones of the low-pass: a single place, in three colours
const MIDDLE = 128; // 8-bit level of a picture of which nothing is known
const COARSEST_STEP = 256; // levels: the largest that the decoder is told

/** An embedded stream ("Embedded streams"). */
class EmbeddedJob extends Job {
  #sizes; // the walk that knows them
  #tables;
  #bands; // detail bands from coarse to fine
  #low;
  #lowExtent = 0; // 1/16 levels
  #certain = 0; // strips of the low-pass, of one that is cut off; infinite of a whole one
  #coder = /** @type {RangeDecoder | null} */ (null);
  #start = 0; // of the decisions
  #spent = 0;
  #depth = -1;
  #walk = /** @type {Walk | null} */ (null); // of the stage in progress
  #layer = 0;
  #stage = 0;
  #active = 0; // the last unit in which anything becomes significant
  #classes = new Uint8Array(0);
  #shares; // of all detail latents, those before every unit

  /** @param {Feed} feed @param {Bundle} bundle @param {Header} header */
  constructor(feed, bundle, header) {
    super(feed, bundle, header.width, header.height);
    this.#tables = bundle.probabilities;
    const walk = (this.#sizes = new Walk(bundle, header.width, header.height, new Fineness(LOW_CODE), "embedded"));
    this.#bands = walk
      .bandLengths()
      .slice(1)
      .map((_, k) => new Cells(walk.bandSize(walk.levels - k)));
    this.#low = new Int32Array(walk.bandLengths()[0]);
    const counts = walk.units.map(({ level, planes }) => {
      const [rows, columns] = walk.size(level);
      return (rows * columns * planes) / 4;
    });
    const total = counts.reduce((a, b) => a + b, 0);
    let before = 0;
    this.#shares = [0, 0, ...counts.map((n) => (before += n) / total)]; // of unit k: from [k] to [k + 1]
  }

  async run() {
    if (!(await this.#begin())) return;
    try {
      for (this.#layer = 0; this.#layer < LAYERS; this.#layer++) {
        await this.#significance();
        await this.#refinement();
      }
    } catch (e) {
      if (e !== ENDED) throw e;
    }
  }

  /** Read the low-pass and open the decisions; false if the file ends before them. */
  async #begin() {
    const { feed } = this;
    for (;;) {
      const { stream } = feed;
      let [count, at] = [0, 0];
      do count += (stream[at] & 127) * 128 ** at;
      while (stream[at++] >= 128 && at < 5);
      if (at === 5 && stream[4] >= 128) throw damaged("a number is longer than five bytes");
      if (at > 1 && stream[at - 1] === 0) throw damaged("a number is not in its shortest form");
      if (at + count <= stream.length) {
        await this.#startLow(new Reader(this.bundle.tables, stream.slice(at, at + count)));
        this.#certain = Infinity;
        this.#start = at + count;
        break;
      }
      if (await feed.more()) continue;
      if (at > feed.stream.length) return false; // not even the number is there
      const reader = new PrefixReader(this.bundle.tables, stream.slice(at), at + count - stream.length);
      const untouched = this.#low;
      await this.#startLow(reader);
      this.#certain = reader.certain;
      if (this.#certain < CORNER_STRIPS) this.#low = untouched;
      this.progress++;
      return false;
    }
    this.#lowExtent = LOW_STEP * 16;
    this.#depth = 0;
    this.progress++;
    while (!feed.ended && feed.stream.length < this.#start + 8) await feed.more();
    this.#coder = new RangeDecoder(feed.stream, this.#start);
    return true;
  }

  /** @param {Residuals} reader of the low-pass */
  async #startLow(reader) {
    const q = await this.#sizes.lowPass(reader);
    this.#low = q.map((v) => clamp(v, -MAX_LOW, MAX_LOW) * LOW_STEP * 16);
  }

  /**
   * Decode a group of decisions once all its bytes are there.
   *
   * While the file arrives no state is kept that has read beyond what is there.
   *
   * @template T
   * @param {(coder: RangeDecoder) => T} decide
   * @returns {Promise<T>}
   */
  async #group(decide) {
    const { feed } = this;
    const coder = /** @type {RangeDecoder} */ (this.#coder);
    await feed.checkpoint();
    for (;;) {
      const [state, spent] = [coder.save(), this.#spent];
      coder.bytes = feed.stream;
      const available = feed.stream.length - this.#start;
      try {
        const result = decide(coder);
        const needed = Math.ceil((this.#spent + MARGIN) / (8 * COST_UNIT));
        if (needed <= available && (feed.ended || coder.at - this.#start <= available)) {
          this.progress++;
          return result;
        }
      } catch (e) {
        if (!(e instanceof Impossible)) throw e;
        if (coder.at - this.#start <= available) throw ENDED;
      }
      coder.restore(state);
      this.#spent = spent;
      if (!(await feed.more())) throw ENDED;
    }
  }

  /** Yes or no, and its price. @param {RangeDecoder} coder @param {number} p */
  #decide(coder, p) {
    const yes = coder.decide(p);
    this.#spent += COSTS[yes ? p : 65536 - p];
    return yes;
  }

  /**
   * How far coding is with a part of a unit.
   *
   * @param {number} number
   * @param {number} stage 2 for refinement
   * @param {number} part
   */
  #mark(number, stage, part) {
    const share = this.#shares[number] + part * (this.#shares[number + 1] - this.#shares[number]);
    this.#depth = this.#layer + [0.3 * share, 0.3 + 0.4 * share, 0.7 + 0.3 * share][stage];
  }

  async #significance() {
    const half = 8192 >> this.#layer;
    const count = 1 + this.#sizes.units.length;
    this.#active = await this.#group((coder) => {
      const value = coder.uniform(count);
      this.#spent += Math.ceil(Math.log2(count) * COST_UNIT);
      return value;
    });
    this.#depth = this.#layer;
    if (!this.#active) return;
    for (const band of this.#bands) band.settled.fill(0);
    const code = 32768 + Math.round(Math.log2((half * 3) / 4) * 2048);
    for (this.#stage = 0; this.#stage < 2; this.#stage++) {
      const walk = new Walk(this.bundle, this.width, this.height, new Fineness(code), "embedded");
      walk.begin(Float64Array.from(this.#low, (q) => Math.floor((4 * q) / (3 * half))));
      for (let number = 1; number <= walk.units.length; number++) {
        const { level } = walk.units[number - 1];
        if ((number - 1) % LEVEL_UNITS === 0) {
          if (number > this.#active) break;
          await walk.enter(level, this.#known(level));
          const k = walk.levels - level;
          this.#classes = this.#bands[k].neighbourhood(this.#bands[k + 1]);
          this.#walk = walk;
        }
        await walk.code(number, (strip, values) => this.#strip(strip, values, true));
      }
      this.#walk = null;
    }
  }

  /** What a level's feature net sees of what is known. @param {number} level */
  #known(level) {
    const k = this.#sizes.levels - level;
    const [height, width] = this.#sizes.grid(level);
    const size = height * width;
    const result = new Int8Array((level > 1 ? 72 : 36) * size);
    const [own, finer] = [this.#bands[k], this.#bands[k + 1]];
    const half = 8192 >> this.#layer;
    const seen = (/** @type {Cells} */ band, /** @type {number} */ i) =>
      band.sign[i] * this.bundle.compand(Math.floor((16 * (2 * band.lower[i] + band.extent[i])) / (3 * half)));
    for (let row = 0, at = 0; row < 9 * 2 * height; row++) {
      const [c, y] = [Math.floor(row / (2 * height)), row % (2 * height)];
      for (let x = 0; x < 2 * width; x++, at++) {
        const place = ((PHASE_OF[2 * (y & 1) + (x & 1)] * 9 + c) * height + (y >> 1)) * width + (x >> 1);
        if (own.sign[at]) result[place] = seen(own, at);
        if (level > 1 && finer.touched) {
          const below = 2 * row * 4 * width + 2 * x;
          let most = 0;
          for (const i of [below, below + 1, below + 4 * width, below + 4 * width + 1]) {
            if (finer.sign[i]) most = Math.max(most, Math.abs(seen(finer, i)));
          }
          result[36 * size + place] = most;
        }
      }
    }
    return result;
  }

  /**
   * Code which latents of a strip leave the dead zone, or take it that none does.
   *
   * @param {Strip} strip
   * @param {Int32Array} values
   * @param {boolean} real
   */
  async #strip(strip, values, real) {
    const { unit, mean, index } = strip;
    const band = this.#bands[this.#sizes.levels - unit.level];
    const half = 8192 >> this.#layer;
    const scale = (half * 3) / 64 / 256;
    band.touched = true;
    for (let n = 0; n < unit.parts.length; n++) {
      if (real && strip.number <= this.#active) await this.#decideStrip(strip, n, band);
      const all = /** @type {[number, number]} */ ([strip.stop - strip.start, strip.width]);
      visitPart(strip, unit.parts[n], all, [band.height, band.width], (source, place) => {
        if (band.sign[place]) {
          const cell = Math.floor((16 * (2 * band.lower[place] + band.extent[place])) / (3 * half));
          values[source] = band.sign[place] * cell;
        } else {
          values[source] = clamp(mean[source], -LIMIT, LIMIT);
          band.guess[place] = values[source] * this.#tables.zero[index[source]] * scale;
        }
      });
    }
  }

  /** @param {Strip} strip @param {number} n ordinal of the part @param {Cells} band */
  async #decideStrip(strip, n, band) {
    const { unit, mean, index, valid } = strip;
    const { significance, sign, rank, ranks } = this.#tables;
    const [half, stage, classes] = [8192 >> this.#layer, this.#stage, this.#classes];
    const inside = insideOf(strip, valid[n]);
    const part = unit.parts[n];
    const capacity = part.channels * inside[0] * inside[1];
    const [sources, places, entries] = [
      new Uint32Array(capacity),
      new Uint32Array(capacity),
      new Uint16Array(capacity),
    ];
    const starts = new Uint32Array(ranks + 1);
    let count = 0;
    visitPart(strip, part, inside, [band.height, band.width], (source, place) => {
      if (band.sign[place] || (stage ? band.settled[place] : index[source] < LIKELY)) return;
      const of = MEAN_CLASS[Math.min(Math.abs(mean[source]), 9)];
      entries[count] = ((stage * 64 + index[source]) * 4 + of) * 10 + classes[place];
      sources[count] = source;
      places[count] = place;
      starts[rank[entries[count]] + 1]++;
      count++;
    });
    for (let k = 0; k < ranks; k++) starts[k + 1] += starts[k];
    const order = new Uint32Array(count);
    for (let k = 0; k < count; k++) order[starts[rank[entries[k]]]++] = k;
    const height = unit.parts.length * valid[0][0];
    for (let start = 0; start < count; start += GROUP) {
      const group = order.subarray(start, start + GROUP);
      const found = await this.#group((coder) => {
        const significant = group.filter((k) => this.#decide(coder, significance[entries[k]]));
        return Array.from(significant, (k) => {
          const center = mean[sources[k]];
          const agrees = this.#decide(coder, sign[Math.min(Math.abs(center), 11)]);
          return { k, sign: center >= 0 === Boolean(agrees) ? 1 : -1 };
        });
      });
      for (const k of group) band.settled[places[k]] = 1;
      for (const { k, sign: value } of found) {
        const place = places[k];
        band.sign[place] = value;
        band.lower[place] = band.extent[place] = half;
        band.fresh[place] = 1;
        band.origin[place] = index[sources[k]] >> 2;
      }
      const done = (inside[0] * Math.min(start + GROUP, count)) / count;
      this.#mark(strip.number, stage, (n * valid[0][0] + strip.start + done) / height);
    }
  }

  async #refinement() {
    const half = 8192 >> this.#layer;
    const { levels, units } = this.#sizes;
    await this.#refineLow();
    for (let number = 1; number <= units.length; number++) {
      const { level, parts } = units[number - 1];
      const k = levels - level;
      const band = this.#bands[k];
      if ((number - 1) % LEVEL_UNITS === 0) {
        const wide = band.touched && band.extent.includes(2 * half);
        this.#classes = wide ? band.neighbourhood(this.#bands[k + 1]) : new Uint8Array(0);
      }
      if (!this.#classes.length) continue;
      for (let n = 0; n < parts.length; n++) {
        const { phase, channel, channels } = parts[n];
        const [i, j] = PHASES[phase];
        const places = [];
        for (let c = channel; c < channel + channels; c++) {
          for (let y = i; y < band.height; y += 2) {
            const row = (c * band.height + y) * band.width;
            for (let x = j; x < band.width; x += 2) if (band.extent[row + x] === 2 * half) places.push(row + x);
          }
        }
        for (let start = 0; start < places.length; start += GROUP) {
          const group = places.slice(start, start + GROUP);
          const upper = await this.#group((coder) =>
            group.map((place) => {
              const nearness = Math.min(Math.floor(band.lower[place] / (2 * half)), 4) - 1;
              const entry = (nearness * 16 + band.origin[place]) * 10 + this.#classes[place];
              return this.#decide(coder, this.#tables.upper[entry]);
            }),
          );
          group.forEach((place, g) => {
            band.lower[place] += upper[g] * half;
            band.extent[place] = half;
            band.fresh[place] = 0;
          });
          this.#mark(number, 2, (n + Math.min(start + GROUP, places.length) / places.length) / parts.length);
        }
      }
    }
    this.#depth = this.#layer + 1;
  }

  /** Halve the cells of the low-pass if they are wider than Z. */
  async #refineLow() {
    const extent = this.#lowExtent;
    if (extent <= 16 * (4096 >> this.#layer) || extent < 4) return;
    const [rows, columns] = this.#sizes.size(0);
    const [fullRows, fullColumns] = this.#sizes.bandSize(this.#sizes.levels);
    const low = this.#low;
    for (let c = 0; c < 3; c++) {
      const at = (/** @type {number} */ y, /** @type {number} */ x) =>
        (c * fullRows + clamp(y, 0, rows - 1)) * fullColumns + clamp(x, 0, columns - 1);
      const upper = await this.#group((coder) => {
        const result = new Uint8Array(rows * columns);
        for (let y = 0, k = 0; y < rows; y++) {
          for (let x = 0; x < columns; x++, k++) {
            const mean = (low[at(y - 1, x)] + low[at(y + 1, x)] + low[at(y, x - 1)] + low[at(y, x + 1)] + 2) >> 2;
            const distance = clamp(Math.floor((8 * (mean - low[at(y, x)])) / extent) + 16, 0, 32);
            result[k] = this.#decide(coder, this.#tables.low[c * 33 + distance]);
          }
        }
        return result;
      });
      upper.forEach(
        (up, k) => (low[at(Math.floor(k / columns), k % columns)] += (up ? 1 : -1) * Math.floor(extent / 4)),
      );
      this.#mark(1, 2, 0);
    }
    for (let c = 0, k = 0; c < 3; c++) {
      for (let y = 0; y < fullRows; y++) {
        const row = (c * fullRows + Math.min(y, rows - 1)) * fullColumns;
        for (let x = 0; x < fullColumns; x++, k++) low[k] = low[row + Math.min(x, columns - 1)];
      }
    }
    this.#lowExtent = extent / 2;
  }

  /** @param {Samples} rgba @param {() => void} check */
  async paint(rgba, check) {
    if (this.#certain < CORNER_STRIPS) {
      rgba.fill(MIDDLE);
      return;
    }
    const walk = this.#walk;
    if (walk) await walk.rest(walk.number, walk.strip, (strip, values) => this.#strip(strip, values, false), check);
    check();
    const gain = /** @type {number[][]} */ (this.bundle.manifest.gain).map((band) =>
      band.map((g) => Math.exp(g) / 255),
    );
    const { centre } = this.#tables;
    const size = this.#low.length / 3;
    const latents = [Float32Array.from(this.#low, (q, i) => (q / 16) * gain[0][Math.floor(i / size)])];
    this.#bands.forEach((band, k) => {
      const values = new Float32Array(band.sign.length);
      const plane = band.height * band.width;
      for (let i = 0; band.touched && i < values.length; i++) {
        let value = band.guess[i];
        if (band.sign[i]) {
          const [lower, extent] = [band.lower[i], band.extent[i]];
          const place = band.fresh[i] ? 4 : Math.min(Math.floor(lower / extent), 4) - 1;
          value = (band.sign[i] * (lower + (extent * centre[place * 16 + band.origin[i]]) / 256)) / 2;
        }
        values[i] = value * gain[k + 1][Math.floor(i / plane)];
      }
      latents.push(values);
    });
    const delta = Math.min(4096 * 2 ** (1 - Math.max(this.#depth, 0)), COARSEST_STEP);
    await synthesise(this.#sizes, latents, delta, rgba);
    if (this.#certain < 2 * CORNER_STRIPS) {
      if (this.feed.header?.grey) makeGrey(rgba);
      rgba.forEach((v, k) => (rgba[k] = (v + MIDDLE) >> 1));
    }
  }

  symbols() {
    const cells = this.#bands.map((band) =>
      Int32Array.from(band.sign, (sign, i) => sign * (2 * band.lower[i] + band.extent[i])),
    );
    return joined([this.#low, ...cells]);
  }
}

const LARGEST = 510; // difference that the nets know
const FARTHER = 4; // rows above and below that nets see which look around
const MOST_FEATURES = 255;
const FIRST_TUNED = 19;
const AROUND = [
  [0, 0],
  [-1, -1],
  [-1, 0],
  [-1, 1],
  [0, -1],
  [0, 1],
  [1, -1],
  [1, 0],
  [1, 1],
];

/** Offsets from a sample of a phase to its known neighbours, the nearest four first ("Context"). */
const OFFSETS = [1, 2, 3].map((phase) => {
  const known = [[0], [0, 1], [0, 1, 2]][phase - 1];
  const [limit, nearest] = [[6, 5, 4][phase - 1], [2, 1, 1][phase - 1]];
  const result = [];
  for (let a = -3; a <= 3; a++) {
    for (let b = -3; b <= 3; b++) {
      const at = PHASE_OF[2 * ((PHASES[phase][0] + a) & 1) + ((PHASES[phase][1] + b) & 1)];
      if (known.includes(at) && Math.abs(a) + Math.abs(b) <= limit) result.push([a, b]);
    }
  }
  const far = (/** @type {number[]} */ [a, b]) => Number(Math.abs(a) + Math.abs(b) !== nearest);
  return result.sort((p, q) => far(p) - far(q) || p[0] - q[0] || p[1] - q[1]);
});

/** Inputs of a net. @param {number} phase @param {number} axis */
const contextChannels = (phase, axis) => OFFSETS[phase - 1].length + 4 + 10 * axis;

/** @typedef {{ rows: number, columns: number, values: Int32Array, residuals: Int32Array }} Plane of a phase */

/** One axis while it goes from stride 2h to h. */
class Lattice {
  /** @param {number} rows @param {number} columns @param {Plane[]} phases those that are known */
  constructor(rows, columns, phases) {
    this.rows = rows;
    this.columns = columns;
    this.phases = phases;
    /** What the net that looks around made of phase 0. @type {{ values: Uint8Array, channels: number } | null} */
    this.features = null;
  }

  /** The same, to go on from here in another way. */
  copy() {
    const result = new Lattice(this.rows, this.columns, [...this.phases]);
    result.features = this.features;
    return result;
  }

  /** Rows and columns of a phase. @param {number} phase */
  size(phase) {
    return [(this.rows - PHASES[phase][0] + 1) >> 1, (this.columns - PHASES[phase][1] + 1) >> 1];
  }

  /** Values and residuals of the whole lattice. @returns {Plane} */
  whole() {
    const { rows, columns } = this;
    const result = { rows, columns, values: new Int32Array(rows * columns), residuals: new Int32Array(rows * columns) };
    this.phases.forEach((plane, p) => {
      const [i, j] = PHASES[p];
      for (let y = 0, k = 0; y < plane.rows; y++) {
        for (let x = 0, at = (2 * y + i) * columns + j; x < plane.columns; x++, k++, at += 2) {
          result.values[at] = plane.values[k];
          result.residuals[at] = plane.residuals[k];
        }
      }
    });
    return result;
  }

  /**
   * What is known around some rows of phase 0 before phase 1, in levels.
   *
   * @param {number} top @param {number} bottom
   * @param {Plane[]} coarser lattices of stride 2h, by axis
   * @param {{ lattice: Lattice }[]} before axes of which this lattice is finished
   */
  around(top, bottom, coarser, before) {
    const columns = this.size(0)[1];
    const count = (bottom - top) * columns;
    const result = new Int32Array((9 + 6 * before.length) * count);

    /**
     * @param {number} channel
     * @param {number} rows @param {number} width where there are values
     * @param {(y: number, x: number) => number} value
     */
    const fill = (channel, rows, width, value) => {
      for (let y = top, start = channel * count; y < Math.min(bottom, rows); y++, start += columns) {
        for (let x = 0; x < width; x++) result[start + x] = value(y, x);
      }
    };
    coarser.forEach(({ rows, values, residuals }, axis) => {
      const at = (/** @type {number} */ y, /** @type {number} */ x) => values[y * columns + x];
      fill(3 * axis, rows, columns - 1, (y, x) => at(y, x + 1) - at(y, x));
      fill(3 * axis + 1, rows - 1, columns, (y, x) => at(y + 1, x) - at(y, x));
      fill(3 * axis + 2, rows, columns, (y, x) => residuals[y * columns + x]);
    });
    before.forEach(({ lattice }, axis) => {
      const zero = lattice.phases[0].values;
      for (let phase = 1; phase <= 3; phase++) {
        const { rows, columns: width, values, residuals } = lattice.phases[phase];
        const channel = 7 + 6 * axis + 2 * phase;
        fill(channel, rows, width, (y, x) => values[y * width + x] - zero[y * columns + x]);
        fill(channel + 1, rows, width, (y, x) => residuals[y * width + x]);
      }
    });
    return result;
  }

  /**
   * Reference values of some rows of a phase, and differences around them in levels.
   *
   * @param {number} phase @param {number} top @param {number} bottom
   * @param {{ lattice: Lattice, whole: Plane }[]} before axes of which this lattice is finished
   */
  context(phase, top, bottom, before) {
    const [i, j] = PHASES[phase];
    const columns = this.size(phase)[1];
    const count = (bottom - top) * columns;
    const offsets = OFFSETS[phase - 1];
    const result = new Int32Array(contextChannels(phase, before.length) * count);

    /**
     * Copy what lies at steps of `stride` from (y, x), the plane going on with its edge.
     *
     * @param {Plane} plane
     * @param {Int32Array} samples its values or residuals
     * @param {number} y
     * @param {number} x
     * @param {number} stride
     * @param {Int32Array} target
     */
    const gather = (plane, samples, y, x, stride, target) => {
      for (let r = 0, at = 0; r < bottom - top; r++) {
        const row = clamp(y + stride * r, 0, plane.rows - 1) * plane.columns;
        for (let c = 0, k = x; c < columns; c++, at++, k += stride)
          target[at] = samples[row + clamp(k, 0, plane.columns - 1)];
      }
    };
    const channel = (/** @type {number} */ k) => result.subarray(k * count, (k + 1) * count);
    const near = /** @type {number[]} */ ([]);
    offsets.forEach(([a, b], k) => {
      const plane = this.phases[PHASE_OF[2 * ((i + a) & 1) + ((j + b) & 1)]];
      if (!plane.values.length) return;
      const [y, x] = [top + ((i + a) >> 1), (j + b) >> 1];
      gather(plane, plane.values, y, x, 1, channel(k));
      if (k >= 4) return;
      near.push(k);
      gather(plane, plane.residuals, y, x, 1, channel(offsets.length + k));
    });
    const reference = new Int32Array(count);
    const weight = 4 / near.length; // 2 if there is a single row or column
    for (let at = 0; at < count; at++) {
      let sum = 2;
      for (const k of near) sum += weight * result[k * count + at];
      reference[at] = sum >> 2;
    }
    offsets.forEach(([a, b], k) => {
      if (!this.phases[PHASE_OF[2 * ((i + a) & 1) + ((j + b) & 1)]].values.length) return;
      for (let at = 0; at < count; at++) result[k * count + at] -= reference[at];
    });
    before.forEach(({ lattice, whole }, axis) => {
      const first = offsets.length + 4 + 10 * axis;
      const sum = new Int32Array(count).fill(2);
      AROUND.forEach(([a, b], k) => {
        gather(whole, whole.values, 2 * top + i + a, j + b, 2, channel(first + k));
        if (Math.abs(a) + Math.abs(b) === (phase === 1 ? 2 : 1)) channel(first + k).forEach((v, at) => (sum[at] += v));
      });
      AROUND.forEach((_, k) => {
        const values = channel(first + k);
        for (let at = 0; at < count; at++) values[at] -= sum[at] >> 2;
      });
      channel(first + 9).set(lattice.phases[phase].residuals.subarray(top * columns, bottom * columns));
    });
    return { reference, context: result };
  }
}

/**
 * Some rows of features, and as many of their columns as a phase has.
 *
 * @param {{ values: Uint8Array, channels: number }} features @param {number[]} size rows and columns of phase 0
 * @param {number} top @param {number[]} shape rows and columns to be cut out
 */
function cutOut({ values, channels }, [rows, columns], top, [height, width]) {
  const result = new Uint8Array(channels * height * width);
  for (let k = 0, to = 0; k < channels; k++) {
    for (let y = top; y < top + height; y++, to += width) {
      const from = (k * rows + y) * columns;
      result.set(values.subarray(from, from + width), to);
    }
  }
  return result;
}

/**
 * @typedef {object} Position where a walk over the lattices is
 * @property {number} half stride of the lattice in progress, 0 at the end
 * @property {number} axis
 * @property {number} phase the next one
 * @property {Plane[]} planes lattices of stride 2 · half, by axis
 * @property {{ lattice: Lattice, whole: Plane }[]} done axes of which the lattice is finished
 * @property {Lattice | null} lattice in progress
 */

const WINDOW = 8; // residuals up to here may be weighted
const UNWEIGHTED = 136; // first table whose residuals are not
const [LIGHTEST, HEAVIEST] = [-64, 24]; // weights, in 1/8 octaves
const FACTORS = Float64Array.from({ length: HEAVIEST - LIGHTEST + 1 }, (_, k) =>
  Math.floor(256 * 2 ** ((k + LIGHTEST) / 8) + 0.5),
);
const WEIGHED = [256, 511, 511, 256, 256, 256]; // how many values Y, Co, Cg, R, G, B have, the last of them 255

/**
 * What weighted samples take instead of tables: frequencies in 2¹⁸ parts below, in and above the window, and tables of
 * how far beyond it a residual lies.
 *
 * @typedef {{ near: number[][], tails: Table[] }} Windows
 */

/** @param {Table[]} tables @returns {Windows} */
function windowsOf(tables) {
  const [near, tails] = [/** @type {number[][]} */ ([]), /** @type {Table[]} */ ([])];
  for (const { cumulative, radius } of tables) {
    const f = new Array(2 * WINDOW + 3).fill(0);
    const g = new Array(Math.max(2, radius - WINDOW)).fill(0);
    for (let m = -radius; m <= radius; m++) {
      const own = cumulative[m + radius + 1] - cumulative[m + radius];
      f[clamp(m + WINDOW + 1, 0, 2 * WINDOW + 2)] += own;
      if (Math.abs(m) > WINDOW) g[Math.abs(m) - WINDOW - 1] += own;
    }
    near.push(f.map((own) => own >> 6));
    const sum = Math.max(1, g.reduce((a, b) => a + b));
    const shares = g.map((own) => 1 + Math.floor((own * (TOTAL - g.length)) / sum));
    shares[0] += TOTAL - shares.reduce((a, b) => a + b);
    tails.push(new Table(shares));
  }
  return { near, tails };
}

/** A lossless file ("Lossless files"). */
class LosslessJob extends Job {
  #element;
  #packed;
  #axes;
  #top; // highest sample
  #scale = 0; // s: 2^s levels count as one to the nets
  #levels = /** @type {number[]} */ ([]); // that ranks stand for; none: all
  #corrections = new Int8Array(9 * 64); // of indices, by group
  #tunings = /** @type {Map<number, Int8Array>} */ (new Map());
  #weights = /** @type {Map<number, Int8Array>} */ (new Map()); // of values of Y, Co, Cg, R, G, B
  #position = /** @type {Position | null} */ (null);
  #rgb = /** @type {Uint8Array | Uint16Array | null} */ (null);
  #end = 0; // units that segments so far hold
  #reader = /** @type {Reader | null} */ (null);

  /** @param {Feed} feed @param {Bundle} bundle @param {Header} header */
  constructor(feed, bundle, header) {
    super(feed, bundle, header.width, header.height);
    this.#element = /** @type {Uint8Array} */ (feed.lossless);
    const flags = this.#element[4];
    this.#packed = this.#element.length === 5 && (flags === 2 || flags === 3);
    this.#axes = flags & 1 ? 3 : 1;
    this.#top = header.deep ? 65535 : 255;
  }

  get #deep() {
    return this.#top > 255;
  }

  /** Take the lossless element apart. */
  async begin() {
    if (this.#packed) return;
    const wrong = damaged("its lossless parameters cannot be read");
    const cursor = new Cursor(this.#element, 4);
    const unpack = async (/** @type {Uint8Array} */ frame, /** @type {number} */ size) => {
      const bytes = await this.bundle.unpack(frame, size);
      if (!bytes) throw wrong;
      return bytes;
    };
    try {
      const flags = cursor.number(1);
      if (flags > 7 || flags & 2) throw wrong;
      if (!this.#deep) {
        const halves = [...cursor.take(5)].flatMap((byte) => [byte & 15, byte >> 4]);
        if (halves[9]) throw wrong;
        for (let k = 0; k < 9; k++) this.#corrections.fill((halves[k] ^ 8) - 8, 64 * k, 64 * k + 64);
      }
      if (this.#deep && flags & 4) {
        const bits = await unpack(cursor.take(cursor.number(2)), 8192);
        for (let v = 0; v <= this.#top; v++) if ((bits[v >> 3] >> (7 - (v & 7))) & 1) this.#levels.push(v);
        if (!this.#levels.length) throw wrong;
      }
      if (this.#deep) this.#scale = cursor.number(1);
      if (this.#scale > 8) throw wrong;
      this.#readTunings(cursor);
      const mask = !this.#deep && flags & 4 ? cursor.number(1) : 0;
      const rest = this.#element.subarray(cursor.at);
      if (!this.#deep && flags & 4) {
        if (!mask || mask >> (this.#axes > 1 ? 6 : 1)) throw wrong;
        const chosen = WEIGHED.map((_, k) => k).filter((k) => (mask >> k) & 1);
        const bytes = await unpack(
          rest,
          chosen.reduce((sum, k) => sum + WEIGHED[k], 0),
        );
        let at = 0;
        for (const k of chosen) this.#weights.set(k, Int8Array.from(bytes.subarray(at, (at += WEIGHED[k]))));
        if ([...this.#weights.values()].some((w) => w.some((v) => v < LIGHTEST || v > HEAVIEST))) throw wrong;
      } else if (!this.#deep && rest.length) throw wrong;
      else if (rest.length) this.#corrections = new Int8Array((await unpack(rest, 9 * 64)).buffer);
    } catch (e) {
      throw e === SHORT ? wrong : e;
    }
  }

  /** @param {Cursor} cursor */
  #readTunings(cursor) {
    const mask = cursor.number(3);
    if (mask >> (LOSSLESS_UNITS - FIRST_TUNED)) throw SHORT;
    for (let unit = FIRST_TUNED; unit < LOSSLESS_UNITS; unit++) {
      if (!((mask >> (unit - FIRST_TUNED)) & 1)) continue;
      const count = contextChannels(((unit - 1) % 3) + 1, Math.floor(((unit - 1) % 9) / 3));
      this.#tunings.set(unit, Int8Array.from(cursor.take(count)));
    }
  }

  /** The lowest value of an axis. @param {number} axis */
  #lowest(axis) {
    return axis ? -this.#top : 0;
  }

  async run() {
    if (this.#packed) await this.#unpack();
    else await this.#decode();
    while (await this.feed.segment()) this.#count(1);
    if (this.#end === LOSSLESS_UNITS && this.#rgb) {
      const rgb = this.#rgb;
      const bytes = rgb instanceof Uint16Array ? new Uint8Array(2 * rgb.length) : rgb;
      if (rgb instanceof Uint16Array) rgb.forEach((v, k) => viewOf(bytes).setUint16(2 * k, v, true));
      if (crc32(bytes) !== viewOf(this.#element).getUint32(0, true)) {
        throw damaged("its pixels are not those that were compressed");
      }
    }
  }

  /** @param {number} units of a segment */
  #count(units) {
    this.#end += units;
    if (this.#end > LOSSLESS_UNITS) throw damaged("it has more coding units than a lossless file");
  }

  async #unpack() {
    const segment = await this.feed.segment();
    if (!segment) return;
    const wrong = damaged("its packed samples cannot be read");
    this.#count(segment.units);
    const [kind, { width, height }, channels] = [segment.payload[0], this, this.#axes];
    if (segment.units !== LOSSLESS_UNITS || !(kind <= (this.#deep ? WEBP - 1 : WEBP))) throw wrong;
    if (kind === WEBP) {
      const colours = await webpOf(this, segment.payload.subarray(1), "what the file holds");
      this.#rgb = new Uint8Array(3 * width * height);
      for (let to = 0; to < this.#rgb.length; to++) {
        this.#rgb[to] = colours[4 * Math.floor(to / 3) + (channels === 1 ? 1 : to % 3)];
      }
      this.progress++;
      return;
    }
    const count = width * height * channels;
    const bytes = await this.bundle.unpack(segment.payload.subarray(1), count * (this.#deep ? 2 : 1));
    if (!bytes) throw wrong;
    // Of 16 bits the upper bytes come first.
    const samples = this.#deep ? Uint16Array.from({ length: count }, (_, k) => bytes[k] * 256 + bytes[count + k]) : bytes;
    const row = width * channels;
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < row; x++, at++) if (kind === 2 && x >= channels) samples[at] += samples[at - channels];
    }
    for (let at = row; kind && at < count; at++) samples[at] += samples[at - row];
    this.#rgb = samples;
    if (channels === 1) {
      this.#rgb = new (this.#deep ? Uint16Array : Uint8Array)(3 * count).map((_, i) => samples[Math.floor(i / 3)]);
    }
    this.progress++;
  }

  async #decode() {
    const size = Math.max(this.width, this.height);
    const planes = [];
    for (let axis = 0; axis < this.#axes; axis++) {
      const reader = await this.#open(0);
      const m = reader ? (await reader.take(Uint8Array.of(this.bundle.losslessTables.length - 1)))[0] : 0;
      const value = clamp((axis ? 0 : (this.#top + 1) / 2) + m, this.#lowest(axis), this.#top);
      planes.push({ rows: 1, columns: 1, values: Int32Array.of(value), residuals: new Int32Array(1) });
    }
    const half = size > 1 ? 2 ** (bitLength(size - 1) - 1) : 0;
    this.#position = { half, axis: 0, phase: 1, planes, done: [], lattice: null };
    await this.#walk(
      this.#position,
      (unit) => this.#open(unit),
      () => {},
    );
    this.#rgb = this.#toRgb(this.#position.planes);
  }

  /** The stream that holds a unit, or null after the end. @param {number} unit */
  async #open(unit) {
    if (this.#position) await this.feed.checkpoint();
    while (unit >= this.#end) {
      const segment = await this.feed.segment();
      if (!segment) return null;
      this.#count(segment.units);
      this.#reader = new Reader(this.bundle.losslessTables, segment.payload);
    }
    this.progress++;
    return this.#reader;
  }

  /**
   * Visit samples from a position to the end.
   *
   * @param {Position} s moves on
   * @param {(unit: number) => Promise<Reader | null>} open the stream of a unit
   * @param {() => void} check
   */
  async #walk(s, open, check) {
    for (; s.half >= 1; s.half = Math.floor(s.half / 2)) {
      const [rows, columns] = [Math.ceil(this.height / s.half), Math.ceil(this.width / s.half)];
      for (; s.axis < this.#axes; s.axis++) {
        s.lattice ??= new Lattice(rows, columns, [s.planes[s.axis]]);
        for (; s.phase <= 3; s.phase++) {
          const log = bitLength(s.half) - 1;
          const unit = log > 3 ? 0 : 1 + 9 * (3 - log) + 3 * s.axis + s.phase - 1;
          const [height, width] = s.lattice.size(s.phase);
          const plane = {
            rows: height,
            columns: width,
            values: new Int32Array(height * width),
            residuals: new Int32Array(height * width),
          };
          const reader = height * width ? await open(unit) : null;
          const step = Math.max(1, Math.floor(STRIP / Math.max(1, width)));
          for (let top = 0; width && top < height; top += step) {
            await this.#strip(s, s.lattice, plane, unit, top, Math.min(top + step, height), reader);
            check();
            await breathe();
          }
          s.lattice.phases.push(plane);
        }
        s.done.push({ lattice: s.lattice, whole: s.lattice.whole() });
        [s.lattice, s.phase] = [null, 1];
      }
      [s.planes, s.done, s.axis] = [s.done.map(({ whole }) => whole), [], 0];
    }
  }

  /**
   * Decode some rows of a phase; without a reader they are what is predicted.
   *
   * @param {Position} s @param {Lattice} lattice @param {Plane} plane to be filled in
   * @param {number} unit @param {number} top @param {number} bottom @param {Reader | null} reader
   */
  async #strip({ half, axis, phase, planes, done }, lattice, plane, unit, top, bottom, reader) {
    const { reference, context: differences } = lattice.context(phase, top, bottom, done);
    const [count, scale] = [reference.length, this.#scale];
    const channels = differences.length / count;
    const context = this.#seen(differences);
    const set = Math.min(bitLength(half), 3);
    const shape = [bottom - top, plane.columns];
    const inputs = { context: [context, [1, channels, ...shape]] };
    const around = `lossless/${set}_${axis}_features`;
    if (this.bundle.files.has(`${around}.onnx`)) {
      lattice.features ??= await this.#features(around, lattice, planes, done);
      const features = cutOut(lattice.features, lattice.size(0), top, shape);
      Object.assign(inputs, { features: [features, [1, lattice.features.channels, ...shape]] });
    }
    const { mean, index } = await this.bundle.run(`lossless/${set}_${axis}_${phase}`, inputs);
    const [lowest, highest, tuning] = [this.#lowest(axis), this.#top, this.#tunings.get(unit)];
    const corrections = this.#corrections.subarray(64 * (3 * (set - 1) + axis));
    const [untuned, predicted, turned] = [new Int32Array(count), new Int32Array(count), new Uint8Array(count)];
    const [tables, rest] = [new Uint8Array(count), new Uint8Array(count)];
    for (let at = 0; at < count; at++) {
      let centre = clamp(16 * reference[at] + mean[at] * 2 ** scale, 16 * lowest, 16 * highest);
      untuned[at] = (centre + 8) >> 4;
      if (tuning) {
        let shift = 8;
        for (let k = 0; k < channels; k++) shift += tuning[k] * context[k * count + at];
        centre = clamp(centre + (shift >> 4) * 2 ** scale, 16 * lowest, 16 * highest);
      }
      predicted[at] = (centre + 8) >> 4;
      const fraction = centre - 16 * predicted[at];
      turned[at] = fraction < 0 ? 1 : 0;
      const wanted = index[at] + 5 * scale + corrections[index[at]];
      rest[at] = this.#deep ? restOf(wanted) : 0;
      const k = clamp(wanted - 5 * rest[at], 0, LAST);
      tables[at] = k < 32 ? 4 * k + Math.min((Math.abs(fraction) + 1) >> 1, 3) : 96 + k;
    }
    let m = new Int32Array(count);
    if (reader && unit >= FIRST_TUNED && this.#weighed(axis)) {
      const before = done.map(({ lattice }) => lattice.phases[phase].values.subarray(top * plane.columns));
      m = await this.#takeWeighted(reader, axis, tables, turned, predicted, before);
    } else if (reader) m = await reader.takeDeep(tables, rest);
    for (let at = 0, to = top * plane.columns; at < count; at++, to++) {
      plane.values[to] = clamp(predicted[at] + (turned[at] ? -m[at] : m[at]), lowest, highest);
      plane.residuals[to] = plane.values[to] - untuned[at];
    }
  }

  /** Whether values of an axis have weights. @param {number} axis */
  #weighed(axis) {
    return (axis < 2 ? [axis] : [2, 3, 4, 5]).some((k) => this.#weights.has(k));
  }

  /**
   * The weight of a value.
   *
   * @param {number} axis @param {number} value @param {number} y of the axes before @param {number} co
   */
  #weight(axis, value, y, co) {
    let total = 0;
    const add = (/** @type {number} */ k, /** @type {number} */ v) => {
      const weights = this.#weights.get(k);
      if (weights) total += v > 255 || v < 256 - weights.length ? LIGHTEST : weights[v + weights.length - 256];
    };
    add(axis, value);
    if (axis === 2) {
      const t = y - (value >> 1);
      const b = t - (co >> 1);
      add(3, b + co);
      add(4, value + t);
      add(5, b);
    }
    return FACTORS[clamp(total, LIGHTEST, HEAVIEST) - LIGHTEST];
  }

  /**
   * Residuals of which those with the first tables are weighted.
   *
   * @param {Reader} reader @param {number} axis @param {Uint8Array} tables @param {Uint8Array} turned
   * @param {Int32Array} predicted @param {Int32Array[]} before values of the axes before
   */
  async #takeWeighted(reader, axis, tables, turned, predicted, [y, co]) {
    const windows = this.bundle.losslessWindows;
    const [weighted, others] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
    tables.forEach((table, at) => (table < UNWEIGHTED ? weighted : others).push(at));
    const chosen = Uint8Array.from(weighted, (at) => tables[at]);
    const near = await reader.takeEach(chosen, windows, (place, shares) => {
      const [at, f, last] = [weighted[place], windows.near[chosen[place]], 2 * WINDOW + 2];
      for (let s = 0; s <= last; s++) {
        const value = predicted[at] + s - WINDOW - 1;
        const factor = s && s < last ? this.#weight(axis, value, y?.[at], co?.[at]) : 256;
        shares[s] = f[turned[at] ? last - s : s] * factor;
      }
    });
    const rest = await reader.take(Uint8Array.from(others, (at) => tables[at]));
    const m = new Int32Array(tables.length);
    weighted.forEach((at, k) => (m[at] = turned[at] ? -near[k] : near[k]));
    others.forEach((at, k) => (m[at] = rest[k]));
    return m;
  }

  /** What nets see of differences. @param {Int32Array} differences */
  #seen(differences) {
    const middle = this.#scale ? 2 ** (this.#scale - 1) : 0;
    return Int16Array.from(differences, (d) => clamp((d + middle) >> this.#scale, -LARGEST, LARGEST));
  }

  /**
   * What the net that looks around makes of phase 0.
   *
   * @param {string} graph @param {Lattice} lattice @param {Plane[]} planes lattices of stride 2h, by axis
   * @param {{ lattice: Lattice }[]} done axes of which this lattice is finished
   */
  async #features(graph, lattice, planes, done) {
    const [rows, columns] = lattice.size(0);
    const step = Math.max(1, Math.floor(STRIP / columns));
    let [values, channels] = [new Uint8Array(0), 0];
    for (let top = 0; top < rows; top += step) {
      const [first, stop] = [Math.max(0, top - FARTHER), Math.min(rows, top + step + FARTHER)];
      const context = this.#seen(lattice.around(first, stop, planes, done));
      const count = (stop - first) * columns;
      const { features } = await this.bundle.run(
        graph,
        { context: [context, [1, context.length / count, stop - first, columns]] },
        { features: [1, top ? channels : null, stop - first, columns] },
      );
      const found = features instanceof Uint8Array ? features.length / count : 0;
      if (found < 1 || found > MOST_FEATURES) throw UNFIT;
      if (!top) [channels, values] = [found, new Uint8Array(found * rows * columns)];
      const wanted = Math.min(step, rows - top) * columns;
      for (let k = 0; k < channels; k++) {
        const from = k * count + (top - first) * columns;
        values.set(features.subarray(from, from + wanted), (k * rows + top) * columns);
      }
      await breathe();
    }
    return { values, channels };
  }

  /** @param {Samples} rgba @param {() => void} check */
  async paint(rgba, check) {
    let rgb = this.#rgb;
    if (!rgb && this.#position) {
      const s = { ...this.#position, done: [...this.#position.done] };
      if (s.lattice) s.lattice = s.lattice.copy();
      await this.#walk(s, async () => null, check);
      rgb = this.#toRgb(s.planes);
    }
    rgb ??= new Uint8Array(3 * this.width * this.height);
    for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
      [rgba[to], rgba[to + 1], rgba[to + 2]] = [rgb[from], rgb[from + 1], rgb[from + 2]];
    }
  }

  /** R, G, B of every pixel, from Y and, if there are, Co and Cg ("Colour"). @param {Plane[]} planes */
  #toRgb([y, co, cg]) {
    const [count, levels] = [y.values.length, this.#levels];
    const rgb = new (this.#deep ? Uint16Array : Uint8Array)(3 * count);
    const sample = (/** @type {number} */ value) => {
      const rank = clamp(value, 0, this.#top);
      return levels.length ? levels[Math.min(rank, levels.length - 1)] : rank;
    };
    for (let k = 0; k < count; k++) {
      const [orange, green] = co ? [co.values[k], cg.values[k]] : [0, 0];
      const t = y.values[k] - (green >> 1);
      const blue = t - (orange >> 1);
      rgb[3 * k] = sample(orange + blue);
      rgb[3 * k + 1] = sample(green + t);
      rgb[3 * k + 2] = sample(blue);
    }
    return rgb;
  }

  symbols() {
    return Int32Array.from(this.#rgb ?? new Uint8Array(3 * this.width * this.height));
  }
}

/**
 * A page: an exact layer, and photographs that take the place of parts of it ("Pages").
 *
 * @typedef {{ x: number, y: number, width: number, height: number }} Region
 */
class PageJob extends Job {
  #header;
  #withSymbols;
  #places = /** @type {Region[]} */ ([]);
  #stream; // of the layer
  #photographs = /** @type {Feed[]} */ ([]); // those that were looked at
  #rgba = new Uint8ClampedArray(0);
  #symbols = /** @type {Int32Array[]} */ ([]);

  /** @param {Feed} feed @param {Bundle} bundle @param {Header} header @param {boolean} symbols */
  constructor(feed, bundle, header, symbols) {
    super(feed, bundle, header.width, header.height);
    this.#header = header;
    this.#withSymbols = symbols;
    const cursor = new Cursor(/** @type {Uint8Array} */ (feed.layer), 0);
    try {
      const count = cursor.number(1);
      if (count < 1 || count > MAX_PHOTOGRAPHS) throw SHORT;
      while (this.#places.length < count) {
        const [x, y, width, height] = [cursor.varint(), cursor.varint(), cursor.varint(), cursor.varint()];
        this.#places.push({ x, y, width, height });
      }
    } catch (e) {
      throw e === SHORT ? damaged("the places of its photographs cannot be read") : e;
    }
    this.#places.forEach(({ x, y, width, height }, k) => {
      if (!width || !height || x + width > this.width || y + height > this.height) {
        throw damaged("a photograph is empty or lies outside the page");
      }
      for (const other of this.#places.slice(0, k)) {
        const across = x < other.x + other.width && other.x < x + width;
        if (across && y < other.y + other.height && other.y < y + height) throw damaged("two photographs overlap");
      }
    });
    this.#stream = cursor.bytes.subarray(cursor.at);
    for (const { payload } of feed.segments) this.#open(payload); // none is decoded before all that are there are checked
  }

  /** The next photograph's file. @param {Uint8Array} payload */
  #open(payload) {
    if (this.#photographs.length === this.#places.length) {
      throw damaged("it has more photographs than places for them");
    }
    const part = new Feed();
    part.append(payload);
    part.end();
    part.check();
    const { header } = part;
    if (!header) throw damaged("a photograph is of another kind or model than the page can hold");
    const others = header.page || header.embedded || header.deep || part.lossless || part.alpha;
    if (others || header.model !== this.#header.model || (this.#header.grey && !header.grey)) {
      throw damaged("a photograph is of another kind or model than the page can hold");
    }
    const { width, height } = this.#places[this.#photographs.length];
    if (header.width !== width || header.height !== height) {
      throw damaged("a photograph has another size than its place");
    }
    this.#photographs.push(part);
  }

  async run() {
    const layer = await webpOf(this, this.#stream, "its exact layer");
    const { grey } = this.#header;
    this.#rgba = Uint8ClampedArray.from(layer, grey ? (_, k) => layer[(k & ~3) + 1] : undefined);
    if (this.#withSymbols) this.#symbols.push(Int32Array.from(this.#rgba.filter((_, k) => (k & 3) < 3)));
    this.progress++;
    for (let k = 0; ; k++) {
      await this.feed.checkpoint();
      const segment = await this.feed.segment();
      if (!segment) break;
      if (k === this.#photographs.length) this.#open(segment.payload);
      await this.#place(this.#photographs[k], this.#places[k]);
      this.progress++;
    }
    if (this.#photographs.length < this.#places.length) this.feed.complete = false;
  }

  /** Decode a photograph to its place. @param {Feed} part @param {Region} place */
  async #place(part, { x, y, width, height }) {
    const header = /** @type {Header} */ (part.header);
    await part.begin();
    const job = await ordinaryJob(part, this.bundle, header, this.#withSymbols);
    await job.run();
    const rgba = new Uint8ClampedArray(4 * width * height);
    await job.paint(rgba, () => {});
    if (header.grey) makeGrey(rgba);
    for (let row = 0; row < height; row++) {
      this.#rgba.set(rgba.subarray(4 * row * width, 4 * (row + 1) * width), 4 * ((y + row) * this.width + x));
    }
    if (this.#withSymbols) this.#symbols.push(job.symbols());
  }

  /** @param {Samples} rgba */
  async paint(rgba) {
    rgba.set(this.#rgba);
  }

  symbols() {
    return joined(this.#symbols);
  }
}

const REST_INDEX = 6;

/** A file of a model with one latent vector, with or without a header ("Flat models"). */
class FlatJob extends Job {
  #step;
  #payload = /** @type {Uint8Array | null} */ (null);
  #latents;
  #values;

  /**
   * @param {Feed} feed
   * @param {Bundle} bundle
   * @param {number} step code
   * @param {Uint8Array | null} payload of a tiny file
   */
  constructor(feed, bundle, step, payload) {
    const { size } = bundle.manifest;
    super(feed, bundle, size, size);
    this.#step = step;
    this.#payload = payload;
    this.#latents = new Float32Array(3 * size * size);
    this.#values = new Int32Array(3 * size * size);
  }

  async run() {
    if (!this.feed.tiny) {
      const segment = await this.feed.segment();
      const most = this.bundle.manifest.blocks.length + 1;
      if (segment && (segment.units > most || (await this.feed.segment()))) throw notMadeBy(this.bundle);
      this.#payload = segment?.payload ?? null;
    }
    const { scale, blocks, rest_step: rest, from_step: from = 0 } = this.bundle.manifest;
    if (this.#step < from) {
      throw new EocodecError("the file says more than this small bundle can decode; it takes the whole model");
    }
    const reader = this.#payload && new Reader(this.bundle.tables, this.#payload, true);
    const own = Int32Array.from(scale, (s) => Math.floor((s - 5 * (this.#step - 32768) + 1024) / 2048));
    const core = blocks[blocks.length - 1];
    const seen = new Int8Array(1 + core);
    seen[0] = clamp(Math.floor((this.#step - 32768 - 5 * 2048 + 64) / 128), -80, 96);
    for (let k = 0, start = 0; k < blocks.length; start = blocks[k++]) {
      const inputs = { seen: /** @type {[TensorData, number[]]} */ ([seen.slice(0, 1 + start), [1, 1 + start, 1, 1]]) };
      const { mean, index } = await this.bundle.run(`entropy/block${k}`, inputs);
      const tables = Uint8Array.from(index, (offset, i) => clamp(own[start + i] + offset, 0, 63));
      const m = reader ? await reader.take(tables) : new Int32Array(mean.length);
      m.forEach((residual, i) => {
        this.#set(start + i, residual, mean[i], tables[i]);
        seen[1 + start + i] = this.bundle.compand(this.#values[start + i]);
      });
    }
    if (this.#step <= rest && reader) {
      const places = Array.from(own.keys()).filter((i) => i >= core && own[i] >= REST_INDEX);
      const tables = Uint8Array.from(places, (i) => Math.min(own[i], 63));
      const m = await reader.take(tables);
      places.forEach((i, k) => this.#set(i, m[k], 0, tables[k]));
    }
    this.progress++;
  }

  /** @param {number} i @param {number} m @param {number} mean @param {number} table */
  #set(i, m, mean, table) {
    const { shift, manifest } = this.bundle;
    let value = m + mean / 16;
    if (m) value -= (Math.sign(m) * shift[table][Math.min(Math.abs(m), 3) - 1]) / 256;
    this.#values[i] = 16 * m + mean;
    this.#latents[i] = ((value * levelsOf(this.#step)) / 255) * Math.exp(manifest.gain[i]);
  }

  /** @param {Uint8ClampedArray} rgba */
  async paint(rgba) {
    const { bundle } = this;
    const step = this.#step <= bundle.manifest.rest_step ? TOO_FINE : Math.max(levelsOf(this.#step), 20) / 255;
    const { picture } = await bundle.run("decoder", {
      latents: [this.#latents, [1, this.#latents.length]],
      step: [Float32Array.of(step), [1]],
      ...(await bundle.basis()),
    });
    const size = picture.length / 3;
    for (let c = 0; c < 3; c++) for (let k = 0; k < size; k++) rgba[4 * k + c] = levelOf(picture[c * size + k]);
  }

  symbols() {
    return this.#values;
  }
}

// ------------------------------------------------------------------------------------------------- what pages call

const DEFAULT_MAX_PIXELS = 2 ** 26;
const GROWTH = 1.12; // of an embedded stream between drawings
const SHARE = 4; // a drawing while bytes are at hand may take this part of the time
const FIRST = 2000; // milliseconds after which there is a first drawing even so
const ABANDONED = new Error("the drawing is no longer wanted");

/**
 * A file's decoder, once its header is there.
 *
 * @param {Feed} feed
 * @param {BundleLike} model
 * @param {Options} options
 * @returns {Promise<Job>}
 */
async function open(feed, model, { maxPixels = DEFAULT_MAX_PIXELS, symbols = false }) {
  await feed.begin();
  const { header, tiny } = feed;
  const refuse = (/** @type {number} */ width, /** @type {number} */ height) => {
    if (width * height <= maxPixels) return;
    throw new EocodecError(`the file holds ${width}x${height} pixels, more than the limit of ${maxPixels}`);
  };
  if (header) refuse(header.width, header.height);
  const need = { id: header?.model ?? null, tiny: tiny?.number ?? 0 };
  const bundle = typeof model === "function" ? await model(need) : model;
  if (!bundle.fits(need)) {
    throw new EocodecError(`the file was made with ${modelName(need)}, not with ${bundle.name} (${bundle.id})`);
  }
  if (!header) {
    refuse(bundle.manifest.size, bundle.manifest.size);
    return new FlatJob(feed, bundle, tiny?.step ?? 0, tiny?.payload ?? null);
  }
  if (bundle.kind === "flat") {
    const { size } = bundle.manifest;
    if (header.width !== size || header.height !== size || header.embedded || feed.lossless) throw notMadeBy(bundle);
    const special = header.tuning || header.deep || header.luma || header.page;
    if (special || feed.map || feed.shifts) throw notMadeBy(bundle);
    return new FlatJob(feed, bundle, header.step, null);
  }
  if (feed.lossless) {
    const job = new LosslessJob(feed, bundle, header);
    await job.begin();
    return job;
  }
  if (header.embedded) return new EmbeddedJob(feed, bundle, header);
  return header.page ? new PageJob(feed, bundle, header, symbols) : ordinaryJob(feed, bundle, header, symbols);
}

/**
 * @param {Feed} feed @param {Bundle} bundle @param {Header} header @param {boolean} symbols
 * @returns {Promise<OrdinaryJob>}
 */
async function ordinaryJob(feed, bundle, header, symbols) {
  if (header.axes === 1) bundle = bundle.grey;
  const fineness = await finenessOf(feed, bundle);
  const groups = 128 * bundle.manifest.levels;
  const choice = fineness.fine && feed.choice?.length ? await bundle.unpack(feed.choice, groups) : new Uint8Array(groups);
  if (!choice) throw damaged("its choice of tables cannot be read");
  const shifts = shiftsOf(feed.shifts ?? null, 1 + LEVEL_UNITS * bundle.manifest.levels);
  return new OrdinaryJob(feed, bundle, header, fineness, new Int8Array(choice.buffer), shifts, symbols);
}

/**
 * What is added to the table indices of every unit, the low-pass first ("Shifts of tables").
 *
 * @param {Uint8Array | null} bytes @param {number} units
 */
function shiftsOf(bytes, units) {
  const halves = Array.from(bytes ?? []).flatMap((byte) => [byte & 15, byte >> 4]);
  if (halves.some((half) => !half) || halves.length > units + (units % 2) || halves.slice(units).some((h) => h !== 8)) {
    throw damaged("its shifts of tables are out of range");
  }
  return Array.from({ length: units }, (_, k) => (halves[k] ?? 8) - 8);
}

/** Table indices with the shift of their unit. @param {Uint8Array} index @param {number} shift */
function shifted(index, shift) {
  return shift ? index.map((i) => clamp(i + shift, 0, LAST)) : index;
}

/** The alpha channel of a file, or null ("alpha"). @param {Job} job */
async function alphaOf(job) {
  const { feed, bundle, width, height } = job;
  if (!feed.alpha) return null;
  if (feed.alpha[0] === WEBP_SIGNATURE) {
    const colours = await webpOf(job, feed.alpha, "its transparency");
    return Uint8Array.from({ length: width * height }, (_, k) => colours[4 * k + 1]);
  }
  const alpha = await bundle.unpack(feed.alpha, width * height);
  if (!alpha) throw damaged("its transparency cannot be decoded");
  for (let at = width; at < alpha.length; at++) alpha[at] += alpha[at - width];
  return alpha;
}

/** The rounded mean of every pixel's three levels in place of each. @param {Samples} rgba */
function makeGrey(rgba) {
  for (let at = 0; at < rgba.length; at += 4) {
    rgba[at] = rgba[at + 1] = rgba[at + 2] = Math.floor((rgba[at] + rgba[at + 1] + rgba[at + 2] + 1) / 3);
  }
}

/**
 * What is known of a picture.
 *
 * @param {Job} job
 * @param {Uint8Array | null} alpha
 * @param {() => void} check
 * @returns {Promise<Picture>}
 */
async function pictureOf(job, alpha, check) {
  const { feed, width, height } = job;
  const deep = feed.header?.deep ?? false;
  const samples = deep ? new Uint16Array(4 * width * height) : new Uint8ClampedArray(4 * width * height);
  await job.paint(samples, check);
  const grey = feed.header?.grey ?? feed.tiny?.grey ?? false;
  if (grey) makeGrey(samples);
  for (let at = 0, k = 0; at < samples.length; at += 4, k++) {
    samples[at + 3] = (alpha ? alpha[k] : 255) * (deep ? 257 : 1);
  }
  const data = samples instanceof Uint16Array ? Uint8ClampedArray.from(samples, (v) => v / 257) : samples; // rounds
  const complete = feed.ended && feed.complete;
  const picture = { width, height, data, alpha: alpha !== null, grey, complete };
  return samples instanceof Uint16Array ? { ...picture, samples } : picture;
}

/**
 * Decode a file or a prefix of one.
 *
 * @param {Bytes | string} file bytes, or the base64 text of a tiny file
 * @param {BundleLike} bundle of the model that it was made with, or a function that finds it
 * @param {Options} [options]
 * @returns {Promise<Picture>}
 * @throws {EocodecError} not an `.eoc` file, damaged, too large, or of another model
 */
export async function decode(file, bundle, options = {}) {
  const feed = new Feed();
  feed.append(typeof file === "string" ? new TextEncoder().encode(file) : bytesOf(file));
  feed.end();
  return explained(async () => {
    const job = await open(feed, bundle, options);
    const alpha = await alphaOf(job);
    await job.run();
    const picture = await pictureOf(job, alpha, () => {});
    if (options.symbols) picture.symbols = job.symbols();
    return picture;
  });
}

/** Says in a sentence that memory is short. @template T @param {() => Promise<T>} work @returns {Promise<T>} */
async function explained(work) {
  try {
    return await work();
  } catch (e) {
    if (e instanceof RangeError) throw new EocodecError("there is not enough memory for this picture");
    throw e;
  }
}

/**
 * Decode a file while it arrives.
 *
 * `onPicture` gets a picture as soon as there is one, better ones when more of the file is there, and in the end
 * exactly the picture of {@link decode}. Decoding goes on from where it was; while it is slower than the bytes come,
 * pictures are left out.
 *
 * @param {ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>} source
 * @param {BundleLike} bundle of the model that it was made with, or a function that finds it
 * @param {(picture: Picture, update: Update) => void | Promise<void>} onPicture
 * @param {Options} [options]
 * @returns {Promise<Picture>} the last one
 * @throws {EocodecError} as {@link decode}
 */
export async function decodeProgressively(source, bundle, onPicture, options = {}) {
  const feed = new Feed();
  const stop = pump(source, feed);
  const abort = () => feed.fail(options.signal?.reason);
  if (options.signal?.aborted) abort();
  options.signal?.addEventListener("abort", abort);
  try {
    return await explained(async () => {
      const job = await open(feed, bundle, options);
      return new Drawing(job, await alphaOf(job), onPicture).run();
    });
  } finally {
    options.signal?.removeEventListener("abort", abort);
    stop();
  }
}

/** Decides when to draw what a job knows so far. */
class Drawing {
  #count = 0;
  #picture = /** @type {Picture | null} */ (null); // the last one
  #progress = 0; // of the job then
  #bytes = 0; // of the file then
  #end = performance.now(); // when it was drawn
  #duration = FIRST / SHARE; // milliseconds that it took

  /**
   * @param {Job} job
   * @param {Uint8Array | null} alpha
   * @param {(picture: Picture, update: Update) => void | Promise<void>} onPicture
   */
  constructor(job, alpha, onPicture) {
    this.job = job;
    this.alpha = alpha;
    this.onPicture = onPicture;
  }

  /** Decode and draw until the file ends. */
  async run() {
    const { job } = this;
    const { feed } = job;
    feed.idle = async () => {
      const enough = !feed.header?.embedded || feed.length >= GROWTH * this.#bytes;
      if (job.progress > this.#progress && enough) await this.#attempt();
    };
    feed.checkpoint = async () => {
      await breathe();
      feed.check();
      const waited = performance.now() - this.#end;
      if (job.progress > this.#progress && waited > SHARE * this.#duration) await this.#attempt();
    };
    await job.run();
    return this.#draw(() => feed.check(), true);
  }

  /** Draw, unless the file turns out to have ended before the drawing is ready. */
  async #attempt() {
    const { feed } = this.job;
    const { ended } = feed;
    try {
      await this.#draw(() => {
        feed.check();
        if (feed.ended && !ended) throw ABANDONED;
      }, false);
    } catch (e) {
      if (e !== ABANDONED) throw e;
    }
  }

  /** @param {() => void} check @param {boolean} done */
  async #draw(check, done) {
    const { job } = this;
    const { feed } = job;
    const [start, progress, bytes] = [performance.now(), job.progress, feed.length];
    const again = this.#picture !== null && progress === this.#progress;
    const picture = again ? /** @type {Picture} */ (this.#picture) : await pictureOf(job, this.alpha, check);
    picture.complete = feed.ended && feed.complete;
    [this.#picture, this.#progress, this.#bytes] = [picture, progress, bytes];
    this.#count++;
    const { width, height } = picture;
    const bitsPerPixel = (8 * bytes) / (width * height);
    await this.onPicture(picture, { bytes, bitsPerPixel, width, height, drawings: this.#count, done });
    this.#end = performance.now();
    this.#duration = this.#end - start;
    return picture;
  }
}

/**
 * Draw a file on a canvas while it arrives; see {@link decodeProgressively}.
 *
 * @param {ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>} source such as the body of a response
 * @param {BundleLike} bundle
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas gets the picture's size
 * @param {Options & { onUpdate?: (update: Update) => void }} [options]
 * @returns {Promise<Picture>} the last one
 */
export async function drawProgressively(source, bundle, canvas, options = {}) {
  return decodeProgressively(
    source,
    bundle,
    ({ data, width, height }, update) => {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = /** @type {CanvasRenderingContext2D | null} */ (canvas.getContext("2d"));
      if (!context) throw new EocodecError(`this browser has no canvas of ${width}x${height} pixels`);
      context.putImageData(new ImageData(data, width, height), 0, 0);
      options.onUpdate?.(update);
    },
    options,
  );
}

/**
 * Feeds chunks as they come; returns how to stop.
 *
 * @param {ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>} source
 * @param {Feed} feed
 */
function pump(source, feed) {
  const reader = "getReader" in source ? source.getReader() : null;
  const chunks = reader ? null : /** @type {AsyncIterable<Uint8Array>} */ (source)[Symbol.asyncIterator]();
  let stopped = false;
  (async () => {
    try {
      for (;;) {
        const { done, value } = await (reader
          ? reader.read()
          : /** @type {AsyncIterator<Uint8Array>} */ (chunks).next());
        if (stopped) return;
        if (done) return feed.end();
        feed.append(value);
      }
    } catch (e) {
      feed.fail(e);
    }
  })();
  return () => {
    stopped = true;
    if (reader) reader.cancel().catch(() => {});
    else chunks?.return?.();
  };
}
