#!/usr/bin/env node
/**
 * Decode an `.eoc` file to a PNG: node decode.mjs BUNDLE.eocm FILE.eoc OUT.png [--symbols FILE] [--max-pixels N]
 *
 * `--symbols` writes the integers of the file, int32 little-endian ("Test vectors" in docs/FORMAT.md). What goes wrong
 * is one line on standard error; the exit code is then 1, or 2 if the command line is wrong.
 */

import { readFileSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { deflateSync } from "node:zlib";
import * as ort from "onnxruntime-web";
import { Bundle, EocodecError, crc32, decode } from "./eocodec.js";

const USAGE = "usage: node decode.mjs BUNDLE.eocm FILE.eoc OUT.png [--symbols FILE] [--max-pixels N]";

const OPTIONS = /** @type {const} */ ({ symbols: { type: "string" }, "max-pixels": { type: "string" } });

/**
 * A PNG file: RGB, or RGBA if the picture has transparency, with 16 bits a sample if it has.
 *
 * @param {import('./eocodec.js').Picture} picture
 */
export function toPng({ width, height, data, samples, alpha }) {
  const [channels, size] = [alpha ? 4 : 3, samples ? 2 : 1];
  const rows = Buffer.alloc(height * (1 + size * channels * width));
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    rows[to++] = 1; // less the pixel to the left, byte by byte
    for (let x = 0; x < width; x++, from += 4) {
      for (let c = from; c < from + channels; c++) {
        if (samples) rows[to++] = (samples[c] >> 8) - (x ? samples[c - 4] >> 8 : 0);
        rows[to++] = samples ? (samples[c] & 255) - (x ? samples[c - 4] & 255 : 0) : data[c] - (x ? data[c - 4] : 0);
      }
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8 * size, alpha ? 6 : 2], 8);
  const chunk = (/** @type {string} */ name, /** @type {Uint8Array} */ content) => {
    const result = Buffer.alloc(12 + content.length);
    result.writeUInt32BE(content.length, 0);
    result.write(name, 4, "latin1");
    result.set(content, 8);
    result.writeUInt32BE(crc32(result.subarray(4, 8 + content.length)), 8 + content.length);
    return result;
  };
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/**
 * Whether two names, or links, are one file; devices and pipes may well be read and written at once.
 *
 * @param {string} one
 * @param {string} other
 */
function same(one, other) {
  const [a, b] = [one, other].map((path) => statSync(path, { bigint: true, throwIfNoEntry: false }));
  if (a && b) return a.isFile() && a.dev === b.dev && a.ino === b.ino;
  return !a && !b && resolve(one) === resolve(other);
}

/**
 * Refuse to write a file that is read, or one file twice.
 *
 * @param {string} model
 * @param {string} file
 * @param {string[]} outputs
 */
function keep(model, file, ...outputs) {
  const taken = [[model, "the bundle itself"], [file, "the input itself"]];
  for (const output of outputs) {
    const found = taken.find(([path]) => same(output, path));
    if (found) throw new EocodecError(`${output} is ${found[1]}; choose another output`);
    taken.push([output, "what the picture is written to"]);
  }
}

/** @param {string[]} args @returns {Promise<number>} exit code */
async function main(args) {
  let parsed;
  try {
    parsed = parseArgs({ args, options: OPTIONS, allowPositionals: true });
    if (parsed.positionals.length !== 3 || !(Number(parsed.values["max-pixels"] ?? 1) > 0)) throw new Error();
  } catch {
    console.error(USAGE);
    return 2;
  }
  const [model, file, output] = parsed.positionals;
  const { symbols } = parsed.values;
  const limit = parsed.values["max-pixels"];
  try {
    keep(model, file, output, ...(symbols ? [symbols] : []));
    const bundle = await Bundle.load(readFileSync(model), ort);
    const picture = await decode(readFileSync(file), bundle, {
      symbols: symbols !== undefined,
      ...(limit && { maxPixels: Number(limit) }),
    });
    writeFileSync(output, toPng(picture));
    if (symbols && picture.symbols) writeFileSync(symbols, new Uint8Array(picture.symbols.buffer));
    return 0;
  } catch (e) {
    const expected = e instanceof EocodecError || (e instanceof Error && "syscall" in e);
    console.error(expected ? `decode.mjs: ${e.message}` : e);
    return 1;
  }
}

// npm links to this file from where it keeps commands.
if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  process.exitCode = await main(process.argv.slice(2));
}
