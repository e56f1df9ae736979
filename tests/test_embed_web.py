"""The decoder for browsers gives what the library gives: in Node, and on a canvas while the bytes arrive.

Needs Node, `npm ci --prefix samples/web` (or EOCODEC_NODE_MODULES, a folder `node_modules` with the same), and for the
pages Playwright and Chromium.
"""

import base64
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import constriction
import cv2
import numpy as np
import pytest
from bundles import (
    HOSTILE,
    MANIFESTS,
    MOST,
    SPOILED,
    STRIPPED,
    UNFIT,
    exact_files,
    looking_wrongly,
    named,
    without_grey,
    zipped,
)
from clashes import CLASHES, clash, contents
from paths import MODELS, ROOT, SAMPLES, VECTORS, Decoded, Maker, bundle_of, environment, in_rgb
from PIL import Image
from streams import (
    beginnings,
    frames,
    hostile_pages,
    webp_picture,
    with_transparent_layer,
    with_webp_alpha,
    without_its_flag,
)

import eocodec
from eocodec import regions
from eocodec.coding.symbols import symbols
from eocodec.metrics import psnr

WEB = SAMPLES / "web"
NODE_MODULES = Path(os.environ.get("EOCODEC_NODE_MODULES", WEB / "node_modules"))
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Optimising 14 MB of WebAssembly takes V8 longer than running it for a few files as it is compiled at first. What it
# computes is the same. The package's own tests and those of all vectors run it optimised, as its users do.
UNOPTIMISED = "--liftoff-only"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--js-flags={UNOPTIMISED}"]  # fmt: skip
pytestmark = [
    pytest.mark.ports,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (NODE_MODULES / "onnxruntime-web").is_dir(), reason="npm ci --prefix samples/web has not been run"
    ),
]

INDEX: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
MODEL_OF = {v["name"]: v["model"] for v in INDEX}
WEBP = {"alpha": with_webp_alpha(), "lossless": webp_picture(False), "grey": webp_picture(True)}
SHAPES = {"segments": (200, 100, 203, 151), "embedded": (240, 120, 130, 98)}  # left, top, width, height in coffee.png
PIECES = 12  # that the slow server sends a file in

# Decodes {name: [model, bytes]}; prints what came out, and writes R, G, B, alpha to files.
DECODE = """
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web';
import { Bundle, decode } from './eocodec.js';

const [list, folder] = process.argv.slice(2);
const bundles = {};
for (const { name, model, data } of JSON.parse(readFileSync(list))) {
  bundles[model] ??= await Bundle.load(readFileSync(model), ort);
  const picture = await decode(data.text ?? Buffer.from(data, 'base64'), bundles[model], { symbols: true });
  const { symbols, data: rgba, samples, ...rest } = picture;
  writeFileSync(`${folder}/${name}.rgba`, samples ? new Uint8Array(samples.buffer) : rgba);
  if (samples) rest.rounded = samples.every((v, k) => Math.floor((v + 128) / 257) === rgba[k]);
  writeFileSync(`${folder}/${name}.v`, new Uint8Array(symbols.buffer));
  const sha256 = createHash('sha256').update(new Uint8Array(symbols.buffer)).digest('hex');
  console.log(JSON.stringify({ name, symbols: symbols.length, sha256, ...rest }));
}
"""

# Sends files segment by segment, each when the one before is drawn; all drawings must be those of the prefixes.
PREFIXES = """
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web';
import { Bundle, decode, decodeProgressively } from './eocodec.js';

const [list] = process.argv.slice(2);
performance.now = () => 0; // nothing takes long enough to be drawn before all that is there is decoded
for (const { model, data, ends } of JSON.parse(readFileSync(list))) {
  const bundle = await Bundle.load(readFileSync(model), ort);
  const file = Buffer.from(data, 'base64');
  let drawn = () => {};
  async function* slowly() {
    for (let k = 0; k < ends.length; k++) {
      const next = new Promise((done) => (drawn = done));
      yield file.subarray(ends[k - 1] ?? 0, ends[k]);
      await next;
    }
  }
  const results = [];
  const last = await decodeProgressively(slowly(), bundle, async (picture, update) => {
    const expected = await decode(file.subarray(0, update.bytes), bundle);
    const same = Buffer.from(picture.data).equals(Buffer.from(expected.data));
    results.push({ bytes: update.bytes, done: update.done, same });
    drawn();
  });
  console.log(JSON.stringify({ results, complete: last.complete }));
}
"""

# Decodes [bundle, file] pairs; prints the sum of the pixels, or the sentence that says why not.
ATTEMPT = """
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web';
import { Bundle, decode } from './eocodec.js';

const bundles = {};
for (const [bundle, file, options] of JSON.parse(readFileSync(process.argv[2]))) {
  try {
    const found = await decode(Buffer.from(file, 'base64'), await Bundle.load(readFileSync(bundle), ort), options);
    console.log(JSON.stringify((found.samples ?? found.data).reduce((a, b, k) => a + b * ((k % 251) + 1), 0)));
  } catch (e) {
    console.log(JSON.stringify(e.name === 'EocodecError' ? e.message : String(e.stack)));
  }
}
"""

READ = """
import { readFileSync } from 'node:fs';
import { RangeDecoder, Table } from './eocodec.js';

for (const { words, bigEndian, tables, asked } of JSON.parse(readFileSync(process.argv[2]))) {
  const made = tables.map((frequencies) => new Table(frequencies));
  const coder = new RangeDecoder(Buffer.from(words, 'base64'), 0, bigEndian);
  const read = { t: (k) => coder.symbol(made[k]), u: (n) => coder.uniform(n), p: (p) => coder.decide(p) };
  console.log(JSON.stringify(asked.map(([kind, argument]) => read[kind](argument))));
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample and its packages, wherever these are."""
    folder = tmp_path_factory.mktemp("web")
    for name in ("eocodec.js", "decode.mjs", "index.html", "package.json"):
        shutil.copy(WEB / name, folder)
    (folder / "node_modules").symlink_to(NODE_MODULES.resolve())
    return folder


@pytest.fixture(scope="module")
def node(site: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Node on a file of the site or on a script."""
    if NODE is None:
        pytest.skip("there is no Node")
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"Node is {version}, the decoder needs 20")

    def run(script: str, *arguments: object, many: bool = False) -> subprocess.CompletedProcess[str]:
        """`many`: it decodes many files."""
        if not script.endswith(".mjs"):
            (site / "script.mjs").write_text(script)
            script = "script.mjs"
        command = [NODE, *([] if many else [UNOPTIMISED]), script, *map(str, arguments)]
        return subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=600)

    return run


def lines(process: subprocess.CompletedProcess[str]) -> list[Any]:
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(name: str) -> bytes:
    return (VECTORS / f"{name}.eoc").read_bytes()


def webps() -> dict[str, bytes]:
    """Files with WebP streams inside, of `photo`; and a page, of `small.eocm`, whose stream has a transparency."""
    return {**{f"webp-{name}": data for name, data in WEBP.items()}, "transparent": with_transparent_layer()}


def cuts() -> dict[str, bytes]:
    """Prefixes of vectors that end at any byte."""
    result = {}
    for name, lengths in (
        ("segments", (18, 700, 2500, 6000)),
        ("embedded", (17, 40, 333, 2047, 2054)),
        ("lossless", (900, 3000)),
        ("luma", (700, 1500)),
        ("deep", (900, 7000)),
        ("lossless-deep", (2000, 9500)),
    ):
        for n in lengths:
            result[f"{name}-{n}"] = read(name)[:n]
    for name in ("embedded", "embedded-grey"):
        result |= {f"{name}-begins-{n}": data for n, data in beginnings(name).items()}
    return result


@pytest.fixture(scope="module")
def decoded(node: Callable[..., subprocess.CompletedProcess[str]], made_once: Maker) -> dict[str, Any]:
    """What the module makes of all vectors, of prefixes, and of a tiny file as text."""
    files: list[dict[str, Any]] = []
    files += [{"name": v["name"], "model": v["model"], "data": text(read(v["name"]))} for v in INDEX]
    files += [{"name": name, "model": "photo", "data": text(data)} for name, data in cuts().items()]
    files += [{"name": name, "model": "photo", "data": text(data)} for name, data in webps().items()]
    files[-1]["model"] = "small.eocm"
    files += [{"name": f"page-{n}", "model": "small.eocm", "data": text(data)} for n, data in enumerate(begun_pages())]
    files.append({"name": "text", "model": "face64", "data": {"text": text(read("face-tiny"))}})
    for file in files:
        file["model"] = str(bundle_of(file["model"]))

    def decode(folder: Path) -> None:
        (folder / "list.json").write_text(json.dumps(files))
        (folder / "result.json").write_text(json.dumps(lines(node(DECODE, folder / "list.json", folder, many=True))))

    folder = made_once("decoded-in-node", decode)
    result = {entry["name"]: entry for entry in json.loads((folder / "result.json").read_text())}
    for name, entry in result.items():
        shape = entry["height"], entry["width"], 4
        kind = "<u2" if "rounded" in entry else np.uint8
        entry["pixels"] = np.fromfile(folder / f"{name}.rgba", kind).reshape(shape)
    return result


def begun_pages() -> list[bytes]:
    """A page that ends behind its layer, and within its photographs."""
    data = read("small-page")
    start, first, *_ = eocodec.format.segment_ends(eocodec.format.parse(data))
    return [data[:start], data[: start + 9], data[:first], data[:-1]]


def assert_equal_pixels(pixels: np.ndarray, expected: np.ndarray, within: int) -> None:
    if expected.shape[2] == 3:
        assert (pixels[..., 3] == np.iinfo(pixels.dtype).max).all()
    assert np.abs(pixels[..., : expected.shape[2]].astype(int) - expected).max() <= within


@pytest.mark.parametrize("vector", INDEX, ids=lambda v: v["name"])
def test_vectors_decode_in_node(decoded: dict[str, Any], decoded_once: Decoded, vector: dict[str, Any]) -> None:
    result = decoded[vector["name"]]
    assert (result["symbols"], result["sha256"]) == (vector["symbols"], vector["sha256"])
    assert (result["width"], result["height"], result["alpha"]) == tuple(
        vector[k] for k in ("width", "height", "alpha")
    )
    expected = decoded_once(vector)
    assert_equal_pixels(result["pixels"], expected, 0 if vector["exact"] else 1)
    assert result["pixels"].dtype == expected.dtype and result.get("rounded", True)


@pytest.mark.parametrize("name", cuts())
def test_files_may_end_anywhere(decoded: dict[str, Any], name: str) -> None:
    data = cuts()[name]
    values = symbols(data).astype("<i4")
    assert decoded[name]["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    assert_equal_pixels(decoded[name]["pixels"], eocodec.decompress(data), 0 if "lossless" in name else 1)
    assert decoded[name]["complete"] == eocodec.codec.decode_file(data).complete


@pytest.mark.parametrize("name", webps())
def test_webp_streams_inside_are_read_exactly(decoded: dict[str, Any], name: str) -> None:
    data, bundle = webps()[name], bundle_of("small.eocm" if name == "transparent" else "photo")
    values = symbols(data, eocodec.load_model(bundle)).astype("<i4")
    assert decoded[name]["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    expected, pixels = eocodec.decompress(data, bundle), decoded[name]["pixels"]
    assert_equal_pixels(pixels, expected, 0 if name in ("webp-lossless", "webp-grey") else 1)
    assert np.array_equal(pixels[..., 3:][..., : expected.shape[2] - 3], expected[..., 3:])


@pytest.mark.parametrize("name", ["small-page", "small-page-grey", "transparent"])
def test_the_exact_layer_of_a_page_is_exact(decoded: dict[str, Any], name: str) -> None:
    data = webps()[name] if name == "transparent" else read(name)
    file = eocodec.format.parse(data)
    exact = np.ones((file.header.height, file.header.width), bool)
    for place in regions.unpack(file.page or b"", file.header.width, file.header.height)[0]:
        exact[place.place] = False
    expected = eocodec.decompress(data, bundle_of("small.eocm"))
    assert exact.any() and np.array_equal(decoded[name]["pixels"][exact][:, :3], expected[exact][:, :3])


@pytest.mark.parametrize("number", range(4))
def test_pages_may_end_anywhere_behind_their_layer(decoded: dict[str, Any], number: int) -> None:
    result, data, bundle = decoded[f"page-{number}"], begun_pages()[number], bundle_of("small.eocm")
    values = symbols(data, eocodec.load_model(bundle)).astype("<i4")
    assert result["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    assert_equal_pixels(result["pixels"], eocodec.decompress(data, bundle), 1)
    assert result["complete"] is False


def test_hostile_pages_are_refused(node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    pages = hostile_pages()
    jobs = [(str(bundle_of("small.eocm")), text(data), {}) for data, _ in pages.values()]
    limited = {"maxPixels": 190 * 130 - 1}
    jobs.append((str(bundle_of("small.eocm")), text(read("small-page")), limited))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    *refused, large = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    for (name, (_, said)), sentence in zip(pages.items(), refused, strict=True):
        assert isinstance(sentence, str) and "\n" not in sentence and re.search(said, sentence), (name, sentence)
    assert "190x130 pixels, more than the limit" in large


def test_a_tiny_file_may_be_text(decoded: dict[str, Any]) -> None:
    assert decoded["text"]["sha256"] == decoded["face-tiny"]["sha256"]


def test_the_range_decoder_reads_what_constriction_writes(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    random = np.random.default_rng(7)
    models = constriction.stream.model
    jobs, wanted = [], []
    for trial in range(6):
        tables = []
        for radius in (1, 2, 40, 700):
            f = np.maximum(1, np.floor(np.exp(random.normal(0, 4, 2 * radius + 1))))
            f = np.maximum(1, np.floor(f / f.sum() * ((1 << 24) - len(f)))).astype(np.int64)
            f[radius] += (1 << 24) - f.sum()
            tables.append(f)
        coder = constriction.stream.queue.RangeEncoder()
        asked, values = [], []
        for _ in range(4000):
            kind = "tup"[random.integers(3)]
            if kind == "t":
                argument = int(random.integers(len(tables)))
                model = models.Categorical(tables[argument].astype(np.float64) - 1, perfect=False, lazy=False)
                coder.encode(value := int(random.integers(len(tables[argument]))), model)
            elif kind == "u":
                argument = int(random.choice([2, 25, 32, 4096, 1 << 22]))
                coder.encode(value := int(random.integers(argument)), models.Uniform(argument))
            else:
                argument = int(random.choice([1, 77, 20000, 32767, 32768, 60001, 65535]))
                value = int(random.integers(2))
                coder.encode(value, models.Bernoulli(argument / 65536, perfect=False))
            asked.append((kind, argument))
            values.append(value)
        words = coder.get_compressed().astype("<u4" if trial % 2 else ">u4").tobytes()
        frequencies = [f.tolist() for f in tables]
        jobs.append({"words": text(words), "bigEndian": trial % 2 == 0, "tables": frequencies, "asked": asked})
        wanted.append(values)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    assert lines(node(READ, tmp_path / "jobs.json")) == wanted


def test_drawings_are_those_of_the_prefixes(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, coffee: np.ndarray
) -> None:
    exact = eocodec.compress(coffee[90:150, 200:290], lossless=True, model=bundle_of("photo"))
    files = {"segments": read("segments"), "exact": exact, "page": read("small-page")}
    jobs = []
    for name, data in files.items():
        file = eocodec.format.parse(data)
        assert len(file.segments) >= (2 if name == "page" else 4)
        ends = eocodec.format.segment_ends(file)[name != "page" :]  # a page's layer is a picture
        model = bundle_of("small.eocm" if name == "page" else "photo")
        jobs.append({"model": str(model), "data": text(data), "ends": ends})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    for job, outcome in zip(jobs, lines(node(PREFIXES, tmp_path / "jobs.json")), strict=True):
        results = outcome["results"]
        assert all(r["same"] for r in results)
        assert [r["bytes"] for r in results] == [*job["ends"], job["ends"][-1]]
        assert [r["done"] for r in results] == [False] * len(job["ends"]) + [True]
        assert outcome["complete"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_the_command_writes_16_bits(node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    for name in ("deep-alpha", "lossless-deep"):
        process = node("decode.mjs", bundle_of("photo"), VECTORS / f"{name}.eoc", tmp_path / "out.png")
        assert (process.returncode, process.stderr) == (0, "")
        picture = in_rgb(cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED))
        expected = eocodec.decompress(read(name), bundle_of("photo"))
        assert picture.dtype == np.uint16 and picture.shape == expected.shape
        assert np.abs(picture.astype(int) - expected).max() <= (0 if "lossless" in name else 1)


def test_the_command_writes_picture_and_symbols(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, values = tmp_path / "out.png", tmp_path / "symbols"
    process = node("decode.mjs", bundle_of("photo"), VECTORS / "alpha.eoc", out, "--symbols", values)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert_equal_pixels(np.asarray(Image.open(out)), eocodec.decompress(read("alpha")), 1)
    assert values.read_bytes() == symbols(read("alpha"), eocodec.load_model(bundle_of("photo"))).astype("<i4").tobytes()


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (flipped(read("segments"), 3000), "photo", "checksum of segment"),
        (flipped(read("embedded"), 300), "photo", "checksum of piece 1"),
        (flipped(read("alpha"), 100), "photo", "checksum of its transparency"),
        (read("colour")[:11], "photo", "cut off before its first segment"),
        (read("colour"), "face64", "made with model 26cc94c0, not with face64"),
        (b"\x89PNG\r\n\x1a\n", "photo", "not an .eoc file"),
        (read("colour")[:8] + b"\x30" + read("colour")[9:], "photo", "16 bits a sample, but a form that has none"),
        (b"EOC\3" + read("colour")[4:], "photo", "format version 3"),
        (read("axis")[:8] + b"\0" + read("axis")[9:], "small-grey.eocm", "one colour axis, but colours"),
        (b"EOC\2" + read("colour")[4:], "photo", "features that this program does not know"),
        (hostile_pages()["layer cut off"][0], "small.eocm", "its exact layer is a WebP stream that cannot be read"),
        (without_its_flag(with_webp_alpha()), "photo", "of a kind that its flags do not name"),
        (without_its_flag(webp_picture(True)), "photo", "of a kind that its flags do not name"),
    ],
    ids=[
        "segment",
        "piece",
        "alpha",
        "truncated",
        "model",
        "other",
        "flag",
        "version",
        "axis",
        "features",
        "layer",
        "unnamed-alpha",
        "unnamed",
    ],
)
def test_damage_is_one_sentence(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, data: bytes, model: str, message: str
) -> None:
    (tmp_path / "file.eoc").write_bytes(data)
    process = node("decode.mjs", bundle_of(model), tmp_path / "file.eoc", tmp_path / "out.png")
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1 and message in process.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("case", CLASHES)
def test_the_command_writes_over_nothing_that_it_reads(
    node: Callable[..., subprocess.CompletedProcess[str]], case: str, tmp_path: Path
) -> None:
    arguments, said = clash(case, tmp_path)
    before = contents(tmp_path)
    process = node("decode.mjs", *arguments)
    assert (process.returncode, process.stdout) == (1, "")
    assert said in process.stderr and process.stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_the_command_writes_into_devices_and_pipes(node: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    process = node("decode.mjs", bundle_of("small.eocm"), VECTORS / "small.eoc", os.devnull, "--symbols", os.devnull)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_maker_of_the_small_bundle_keeps_the_model(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx, of the extra train, is not installed")
    model = tmp_path / "face64.eocm"
    model.write_bytes(b"the model")
    (tmp_path / "link.eocm").symlink_to(model)
    command = [sys.executable, WEB / "make_face64_tiny.py", model, tmp_path / "link.eocm"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "is the model itself" in done.stderr and done.stderr.count("\n") == 1
    assert contents(tmp_path) == {"face64.eocm": b"the model", "link.eocm": b"the model"}


def test_a_bundle_without_its_part_for_grey_pictures_says_so(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "less.eocm").write_bytes(zipped(without_grey()))
    process = node("decode.mjs", tmp_path / "less.eocm", VECTORS / "axis.eoc", tmp_path / "out.png")
    assert process.returncode == 1 and "lacks its part for grey pictures" in process.stderr


def test_lossless_files_of_the_shipped_model_are_exact(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    path = str(MODELS / "photo.eocm")
    (tmp_path / "jobs.json").write_text(json.dumps([(path, text(data), {}) for _, data in exact_files().values()]))
    found = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    for (kind, (picture, _)), total in zip(exact_files().items(), found, strict=True):
        opaque = np.full((*picture.shape[:2], 1), np.iinfo(picture.dtype).max, picture.dtype)
        assert total == weighed(np.concatenate([picture, opaque], 2)), kind


def weighed(data: np.ndarray) -> int:
    """As `ATTEMPT` prints a picture: a sum that another value or another order changes."""
    values = data.ravel().astype(np.int64)
    return int((values * (np.arange(values.size) % 251 + 1)).sum())


def test_a_damaged_bundle_is_one_sentence(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    content = bundle_of("photo").read_bytes()
    (tmp_path / "bad.eocm").write_bytes(flipped(content, 500_000))
    process = node("decode.mjs", tmp_path / "bad.eocm", VECTORS / "grey.eoc", tmp_path / "out.png")
    assert (process.returncode, process.stderr) == (1, "decode.mjs: the model bundle is damaged\n")


def test_bundles_and_limits_are_checked(node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    jobs: list[Any] = []
    for kind, (files, _) in HOSTILE.items():
        (tmp_path / f"{kind}.eocm").write_bytes(zipped(files))
        jobs.append((f"{tmp_path / kind}.eocm", text(named("small-tuned-coarse", files)), {}))
    (tmp_path / "less.eocm").write_bytes(zipped(STRIPPED))
    for name in ("small-tuned-grey", "small-embedded"):
        jobs.append((str(tmp_path / "less.eocm"), text(named(name, STRIPPED)), {}))
    jobs.append((str(bundle_of("small.eocm")), text(read("small-tuned-grey")), {}))
    jobs.append((str(bundle_of("small.eocm")), text(read("small-tuned-grey")), {"maxPixels": 41 * 33 - 1}))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    *refused, less, embedded, whole, large = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    for sentence, (_, said) in zip(refused, HOSTILE.values(), strict=True):
        assert said in sentence
    assert less == whole > 41 * 33 * 255
    assert "lacks progressive.bin" in embedded
    assert "41x33 pixels, more than the limit of 1352" in large


def test_bundles_that_no_export_writes_are_refused(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    wrong = [(case, files, named(vector, files), SPOILED) for case, (vector, files) in MANIFESTS.items()]
    wrong += [(case, files, data, UNFIT) for case, (files, data) in looking_wrongly().items()]
    jobs = []
    for k, (_, files, data, _) in enumerate(wrong):
        (tmp_path / f"{k}.eocm").write_bytes(zipped(files))
        jobs.append((str(tmp_path / f"{k}.eocm"), text(data), {}))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    sentences = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    for (case, _, _, said), sentence in zip(wrong, sentences, strict=True):
        assert isinstance(sentence, str) and "\n" not in sentence and re.match(said, sentence), (case, sentence)


def test_a_bundle_may_have_256_entries(node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "many.eocm").write_bytes(zipped(MOST))
    jobs = [(str(tmp_path / "many.eocm"), text(named("small-tuned-coarse", MOST)), {}),
            (str(bundle_of("small.eocm")), text(read("small-tuned-coarse")), {})]  # fmt: skip
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    many, few = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    assert many == few > 0


def test_zstd_frames_are_single_and_may_have_a_checksum_and_a_size(
    node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    refused, kept = frames(refused=True), frames(refused=False)
    names = {name for name, _ in kept.values()}
    files = [*refused.values(), *kept.values(), *((name, read(name)) for name in names)]
    jobs = [(str(bundle_of(MODEL_OF[name])), text(data), {}) for name, data in files]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    found = lines(node(ATTEMPT, tmp_path / "jobs.json"))
    for case, said in zip(refused, found, strict=False):
        assert isinstance(said, str) and re.match("the file is damaged: its [^\n]*$", said), (case, said)
    plain = dict(zip(names, found[-len(names) :], strict=True))
    for (case, (name, _)), total in zip(kept.items(), found[len(refused) :], strict=False):
        assert total == plain[name] and isinstance(total, int), (case, total)


@pytest.fixture(scope="module")
def face64_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle for placeholders, made from the shipped one."""
    pytest.importorskip("onnx", reason="onnx, of the extra train, is not installed")
    path = tmp_path_factory.mktemp("tiny") / "face64-tiny.eocm"
    command = [sys.executable, WEB / "make_face64_tiny.py", MODELS / "face64.eocm", path]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    assert path.stat().st_size < 2_000_000
    return path


def test_the_package_is_what_it_says_and_its_tests_pass(
    node: Callable[..., subprocess.CompletedProcess[str]], face64_tiny: Path, tmp_path: Path
) -> None:
    files = json.loads((WEB / "package.json").read_text())["files"]
    source, modules = tmp_path / "source", tmp_path / "node_modules"
    source.mkdir()
    for name in (*files, "package.json", "README.md"):
        shutil.copy(face64_tiny if name == face64_tiny.name else WEB / name, source)
    packed = subprocess.run(
        ["npm", "pack", "--offline", "--silent", "--json"], cwd=source, capture_output=True, text=True, timeout=600
    )
    assert packed.returncode == 0, packed.stderr
    (archive,) = json.loads(packed.stdout)
    assert {f["path"] for f in archive["files"]} == {*files, "package.json", "README.md"}
    (modules / "eocodec-web").mkdir(parents=True)
    command = ["tar", "-xzf", source / archive["filename"], "-C", modules / "eocodec-web", "--strip-components=1"]
    subprocess.run(command, check=True)
    for name in ("onnxruntime-web", "onnxruntime-common", "fzstd", "@jsquash"):
        (modules / name).symlink_to((NODE_MODULES / name).resolve())
    shutil.copy(WEB / "package.test.mjs", tmp_path)
    done = subprocess.run(
        [NODE, "--test", "package.test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout


def test_the_small_bundle_has_the_symbols_of_the_model_and_nearly_its_pictures(
    node: Callable[..., subprocess.CompletedProcess[str]], face64_tiny: Path, tmp_path: Path
) -> None:
    face = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))
    files = {
        "a": face,
        "b": np.ascontiguousarray(face[:, ::-1]),
        "c": np.clip(face * 0.8 + 20, 0, 255).astype(np.uint8),
    }
    data = {name: eocodec.compress(picture, max_bytes=24, tiny=True) for name, picture in files.items()}
    jobs = [{"name": name, "model": str(face64_tiny), "data": text(content)} for name, content in data.items()]
    (tmp_path / "list.json").write_text(json.dumps(jobs))
    assert len(lines(node(DECODE, tmp_path / "list.json", tmp_path))) == len(jobs)
    for name, content in data.items():
        values, expected = np.fromfile(tmp_path / f"{name}.v", "<i4"), symbols(content)
        assert np.array_equal(values[:128], expected[:128]) and not values[128:].any()
        pixels = np.fromfile(tmp_path / f"{name}.rgba", np.uint8).reshape(64, 64, 4)[..., :3]
        assert psnr(eocodec.decompress(content), np.ascontiguousarray(pixels)) > 39


class _Handler(SimpleHTTPRequestHandler):
    """The checkout with the site as samples/web; /slow/NAME sends a vector in pieces."""

    def __init__(self, *arguments: Any, site: Path, drawn: threading.Event, **options: Any) -> None:
        self.site, self.drawn = site, drawn
        super().__init__(*arguments, **options)

    def log_message(self, *arguments: Any) -> None:
        pass

    def translate_path(self, path: str) -> str:
        head, _, tail = path.split("?")[0].lstrip("/").partition("samples/web/")
        return super().translate_path(path) if head or not tail else str(self.site / tail)

    def do_GET(self) -> None:
        if self.path == "/drawn":
            self.drawn.set()
            self.send_response(204)
            self.end_headers()
        elif self.path.startswith("/slow/"):
            data = read(self.path.removeprefix("/slow/"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            ends = np.linspace(0, len(data), PIECES + 1).astype(int).tolist()
            for start, end in pairwise(ends):
                self.wfile.write(data[start:end])
                self.wfile.flush()
                self.drawn.wait(0.4)  # a piece need not lead to a drawing
                self.drawn.clear()
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = partial(_Handler, directory=str(ROOT), site=site, drawn=threading.Event())
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


WATCH = """async (name) => {
  const { Bundle, decode, drawProgressively } = await import('./eocodec.js');
  const ort = await import('onnxruntime-web');
  const bundle = await Bundle.load('../../eocodec/models/earlier/photo-26cc94c0.eocm', ort);
  const whole = await decode(await (await fetch(`../../tests/vectors/${name}.eoc`)).arrayBuffer(), bundle);
  const canvas = document.createElement('canvas');
  const drawings = [];
  const last = await drawProgressively((await fetch(`/slow/${name}`)).body, bundle, canvas, {
    onUpdate: (update) => {
      drawings.push({ ...update, picture: canvas.toDataURL('image/png') });
      fetch('/drawn');
    },
  });
  const same = last.data.every((value, k) => value === whole.data[k]);
  return { drawings, same };
}"""


@pytest.mark.parametrize("name", SHAPES)
def test_the_canvas_is_drawn_while_bytes_arrive(browser: Any, address: str, name: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/samples/web/index.html")
    result = page.evaluate(WATCH, name)
    page.close()
    left, top, width, height = SHAPES[name]
    original = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))[top : top + height, left : left + width]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(d["picture"].split(",")[1]))))
                for d in result["drawings"]]  # fmt: skip
    quality = [psnr(original, np.ascontiguousarray(p[..., :3])) for p in pictures]
    size = len(read(name))
    early = [d for d in result["drawings"] if d["bytes"] < size]
    assert early  # how many depends on how busy the machine is
    assert not any(d["done"] for d in result["drawings"][:-1]) and result["drawings"][-1]["done"]
    assert all(later > earlier - 0.05 for earlier, later in pairwise(quality)), quality
    assert quality[-1] > quality[0] + 3
    assert all(math.isclose(d["bitsPerPixel"], 8 * d["bytes"] / (width * height)) for d in result["drawings"])
    assert_equal_pixels(pictures[-1], eocodec.decompress(read(name)), 1)
    assert result["same"]  # as `decode` of the whole file


def test_the_page_shows_a_file_on_a_phone(browser: Any, address: str) -> None:
    wrong = []
    with browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="light") as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"{address}/samples/web/index.html?src=../../tests/vectors/face.eoc")
        page.wait_for_selector("[data-state=done]")
        assert page.locator("#bytes").inner_text() == "267 of 267"
        assert page.locator("#size").inner_text() == "64 × 64"
        backgrounds = set()
        for scheme in ("light", "dark"):  # what follows happens in the dark
            page.emulate_media(color_scheme=scheme)
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert len(backgrounds) == 2
        drawn = page.evaluate("document.querySelector('canvas').toDataURL()")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.split(",")[1]))))
        assert_equal_pixels(pixels, eocodec.decompress(read("face")), 1)
        page.locator("[type=file]").set_input_files(
            {"name": "bad.eoc", "mimeType": "image/x-eoc", "buffer": flipped(read("segments"), 3000)}
        )
        page.wait_for_selector("[data-state=failed]")
        alert = page.locator("[role=alert]").inner_text()
        assert alert.startswith("The file is damaged: the checksum of segment") and alert.endswith(".")
        page.locator("[name=example]").select_option("lossless")
        page.wait_for_selector("[data-state=done]")
        assert page.locator("[role=alert]").inner_text() == ""
        vectors = "../../tests/vectors"
        page.goto(f"{address}/samples/web/index.html?model={vectors}/small.eocm&src={vectors}/small-page-grey.eoc")
        page.wait_for_selector("[data-state=done]")
        drawn = page.evaluate("document.querySelector('canvas').toDataURL()")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.split(",")[1]))))
        assert_equal_pixels(pixels, eocodec.decompress(read("small-page-grey"), bundle_of("small.eocm")), 1)
    assert wrong == []
