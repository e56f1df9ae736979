/** The package as others install it: what it exports has types, and its small model decodes a placeholder. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-web";
import * as eocodec from "eocodec-web";

const PLACEHOLDER = "+Or7bfP/aYbo4p9l3MG+e50ouCPKWNc3"; // 24 bytes

const resolved = (name) => fileURLToPath(import.meta.resolve(name));

test("every export has a type, and nothing else has", () => {
  const types = readFileSync(resolved("eocodec-web").replace(/\.js$/, ".d.ts"), "utf8");
  const declared = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual(declared.sort(), Object.keys(eocodec).sort());
});

test("a placeholder is decoded by a bundle of less than two megabytes", async () => {
  const content = readFileSync(resolved("eocodec-web/face64-tiny.eocm"));
  assert.ok(content.length < 2_000_000);
  const bundle = await eocodec.Bundle.load(content, ort);
  const picture = await eocodec.decode(PLACEHOLDER, bundle, { symbols: true });
  assert.deepEqual([picture.width, picture.height, picture.alpha, picture.grey], [64, 64, false, false]);
  assert.ok(picture.symbols.subarray(0, 4).every((v) => v !== 0) && picture.symbols.subarray(128).every((v) => v === 0));
  const finer = Buffer.from(PLACEHOLDER, "base64");
  finer[1] = 100;
  await assert.rejects(eocodec.decode(finer, bundle), /takes the whole model/);
});
