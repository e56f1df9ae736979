/** Types of the decoder; `eocodec.js` has the documentation of its parts. */

export type Bytes = Uint8Array | ArrayBuffer;

export interface Picture {
  width: number;
  height: number;
  /** R, G, B, alpha of every pixel, row by row, as `ImageData` takes them; samples of 16 bits are rounded to 8. */
  data: Uint8ClampedArray<ArrayBuffer>;
  /** The same with 16 bits, of files that have so many. */
  samples?: Uint16Array;
  /** Whether the file holds transparency. */
  alpha: boolean;
  /** Whether R = G = B. */
  grey: boolean;
  /** Whether the file ends where an encoder ended it, as far as that can be told. */
  complete: boolean;
  /** The integers of the file; only if asked for. */
  symbols?: Int32Array;
}

export interface Options {
  /** Larger pictures are refused; default 2²⁶. */
  maxPixels?: number;
  /** Also return the integers of the file; not while it arrives. */
  symbols?: boolean;
  /** Ends decoding while the file arrives. */
  signal?: AbortSignal;
}

export interface Update {
  /** Bytes of the file that are there. */
  bytes: number;
  /** These bytes in bits over pixels. */
  bitsPerPixel: number;
  width: number;
  height: number;
  /** Drawings that were made, this one included. */
  drawings: number;
  /** Whether this is the last drawing. */
  done: boolean;
}

/** The model that a file was made with: its id, or null and the number that stands for it in tiny files. */
export interface Need {
  id: string | null;
  tiny: number;
}

export interface BundleOptions {
  /** Options of ONNX Runtime's sessions. */
  session?: object;
  /** Loads the module `fzstd`, which transparency, maps of steps, packed lossless files and most of 16 bits need. */
  zstd?: () => Promise<unknown>;
  /** R, G, B, alpha of the pixels of a lossless `.webp` file, exactly; default: what `@jsquash/webp` makes of it. */
  webp?: (file: Uint8Array) => Promise<{ data: ArrayLike<number> }>;
}

export type BundleLike = Bundle | ((need: Need) => Bundle | Promise<Bundle>);
export type Source = ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

/** What went wrong, in one sentence for the user. */
export class EocodecError extends Error {}

/** A model bundle (`.eocm`). */
export class Bundle {
  private constructor();
  /** Load a bundle from its address, the answer to a request for it, or its bytes; `ort` is `onnxruntime-web`. */
  static load(source: string | URL | Response | Blob | Bytes, ort: object, options?: BundleOptions): Promise<Bundle>;
  /** Several bundles as one: each is loaded when those before it do not fit a file. */
  static anyOf(sources: (string | URL)[], ort: object, options?: BundleOptions): (need: Need) => Promise<Bundle>;
  /** First four bytes of the content hash, hexadecimal: what files carry. */
  readonly id: string;
  readonly name: string;
  /** Whether this is the model that a file was made with. */
  fits(need: Need): boolean;
  /** Frees the sessions; they are made again when needed. */
  release(): Promise<void>;
}

/** Decode a file or a prefix of one; a tiny file may be base64 text. */
export function decode(file: Bytes | string, bundle: BundleLike, options?: Options): Promise<Picture>;

/** Decode a file while it arrives; the last picture is that of {@link decode}. */
export function decodeProgressively(
  source: Source,
  bundle: BundleLike,
  onPicture: (picture: Picture, update: Update) => void | Promise<void>,
  options?: Options,
): Promise<Picture>;

/** Draw a file on a canvas while it arrives. */
export function drawProgressively(
  source: Source,
  bundle: BundleLike,
  canvas: HTMLCanvasElement | OffscreenCanvas,
  options?: Options & { onUpdate?: (update: Update) => void },
): Promise<Picture>;

/** CRC-32 of parts, one after another. */
export function crc32(...parts: ArrayLike<number>[]): number;

/** Frequencies of a symbol, their sum 2²⁴: what the range coder looks up. */
export class Table {
  constructor(frequencies: ArrayLike<number>);
}

/** The range decoder of `constriction`. */
export class RangeDecoder {
  constructor(bytes: Uint8Array, at?: number, bigEndian?: boolean);
  symbol(table: Table): number;
  uniform(count: number): number;
  shared(shares: Float64Array, rest: number): number;
  decide(p: number): 0 | 1;
}
