"""The C++ decoder in samples/cpp: it gives what the library gives, and one sentence for what is damaged."""

import base64
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import (
    HOSTILE,
    STRIPPED,
    exact_files,
    named,
    without_grey,
    zipped,
)
from clashes import CLASHES, clash, contents, linked
from paths import MODELS, ROOT, SAMPLES, VECTORS, Decoded, Maker, bundle_of, in_rgb
from streams import (
    beginnings,
    hostile_pages,
    webp_picture,
    with_transparent_layer,
    with_webp_alpha,
    without_its_flag,
)

import eocodec
from eocodec import format, regions
from eocodec.coding import ordinary
from eocodec.coding.residuals import Encoder
from eocodec.coding.symbols import symbols
from eocodec.coding.walk import Walk
from eocodec.errors import EocodecError
from eocodec.format import File, Header
from eocodec.model.library import load_model, shipped_models

INDEX: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
MODEL_OF = {v["name"]: v["model"] for v in INDEX}
BUNDLES = {**shipped_models(), "photo": bundle_of("photo")}
RUNTIME = os.environ.get("ONNXRUNTIME_ROOT", "")
# Pictures whose decoding takes the sanitizers a second at most; the rotation of face64 alone takes them ten.
FUZZED = [v for v in INDEX if v["model"] != "face64" and v["symbols"] <= 20000 and not v.get("webp")]


def missing() -> str | None:
    """What building the decoder lacks here."""
    for tool in ("g++", "cmake", "pkg-config"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    for package in ("nlohmann_json", "libwebp", "libzstd", "libpng", "zlib", "libcrypto"):
        if subprocess.run(["pkg-config", "--exists", package]).returncode:
            return f"no development package of {package}"
    if not (Path(RUNTIME) / "include" / "onnxruntime_cxx_api.h").is_file():
        return "ONNXRUNTIME_ROOT is not a folder with ONNX Runtime's include/ and lib/ (samples/cpp/get-onnxruntime)"
    return None


REASON = missing()
pytestmark = [pytest.mark.ports, pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


def build(folder: Path, *options: str) -> None:
    source = ["-S", SAMPLES / "cpp", "-B", folder, "-DEOCODEC_STRICT=ON", f"-DONNXRUNTIME_ROOT={RUNTIME}"]
    for command in (["cmake", *source, *options], ["cmake", "--build", folder]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr


def built(made_once: Maker, name: str, *options: str) -> Path:
    """The decoder, built once; from a folder that `.ci/decoders` has made there is nothing left to build."""
    before = os.environ.get("EOCODEC_DECODERS")
    made = made_once(name, lambda folder: build(Path(before) / name if before else folder, *options))
    return (Path(before) / name if before else made) / "eocodec_decode"


@pytest.fixture(scope="session")
def decoder(made_once: Maker) -> Path:
    return built(made_once, "cpp")


@pytest.fixture(scope="session")
def sanitised(made_once: Maker) -> Path:
    return built(made_once, "sanitised", "-DEOCODEC_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug")


@pytest.fixture(scope="session")
def without_libwebp(made_once: Maker) -> Path:
    return built(made_once, "without-libwebp", "-DEOCODEC_WEBP=OFF", "-DCMAKE_BUILD_TYPE=Debug")


def run(decoder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # A fault ends with code 99. ONNX Runtime itself leaks some bytes; to note where memory comes from takes longest.
    options = {"ASAN_OPTIONS": "exitcode=99:detect_leaks=0:malloc_context_size=1", "UBSAN_OPTIONS": "exitcode=99"}
    command = [str(decoder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **options})


def decode(decoder: Path, bundle: Path, data: bytes, folder: Path) -> tuple[np.ndarray, np.ndarray] | str:
    """Symbols and picture of a file, or the sentence that it is refused with; then nothing else may be left."""
    folder.mkdir(exist_ok=True)
    source, picture, integers = (folder / name for name in ("in.eoc", "out.png", "out.symbols"))
    source.write_bytes(data)
    done = run(decoder, bundle, source, picture, "--symbols", integers)
    left = sorted(p.name for p in folder.iterdir())
    if done.returncode == 0:
        assert left == ["in.eoc", "out.png", "out.symbols"] and not done.stderr
        result = np.fromfile(integers, "<i4"), in_rgb(cv2.imread(str(picture), cv2.IMREAD_UNCHANGED))
        picture.unlink()
        integers.unlink()
        return result
    assert done.returncode == 1, done.stderr
    assert left == ["in.eoc"]
    assert done.stderr.startswith("eocodec_decode: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("vector", INDEX, ids=lambda v: v["name"])
def test_symbols_and_pixels_are_those_of_the_vectors(
    vector: dict[str, Any], decoder: Path, decoded_once: Decoded, tmp_path: Path
) -> None:
    data = (VECTORS / f"{vector['name']}.eoc").read_bytes()
    bundle = bundle_of(vector["model"])
    result = decode(decoder, bundle, data, tmp_path)
    assert not isinstance(result, str), result
    values, picture = result
    assert len(values) == vector["symbols"]
    assert hashlib.sha256(values.tobytes()).hexdigest() == vector["sha256"]
    expected = decoded_once(vector)
    assert picture.shape == expected.shape and picture.dtype == expected.dtype
    assert np.abs(picture.astype(int) - expected).max() <= (0 if vector["exact"] else 1)


def test_large_pictures_are_decoded_in_tiles_as_by_the_library(decoder: Path, tmp_path: Path) -> None:
    bundle = bundle_of("small.eocm")
    model = load_model(bundle)
    header = Header(model.id, 1500, 1480, 0, 32768 + 5 * format.STEP_UNIT)  # padded it has 2 ** 21 pixels and some more
    walk = Walk(model, header)
    targets = [np.zeros((9, 2 * h, 2 * w), np.float32) for h, w in map(walk.grid_size, range(walk.levels, 0, -1))]
    low = np.random.default_rng(0).normal(0, 4, (3, *targets[0].shape[1:])).cumsum(2).astype(np.float32)

    class OnlyLow(Encoder):
        def wants(self, unit: int) -> bool:
            return False

    coder = OnlyLow(model, [low, *targets])
    walk.run(coder)
    data = format.serialise(File(header, None, ordinary.finish(header, coder)))
    result = decode(decoder, bundle, data, tmp_path)
    assert not isinstance(result, str), result
    assert np.array_equal(result[0], symbols(data, model))
    assert np.abs(result[1].astype(int) - eocodec.decompress(data, model)).max() <= 1


@pytest.mark.parametrize(
    "name", ["segments", "embedded", "lossless", "face", "luma", "deep", "lossless-deep", "small-page"]
)
def test_prefixes_decode_as_by_the_library(name: str, decoder: Path, tmp_path: Path) -> None:
    vector = next(v for v in INDEX if v["name"] == name)
    data, bundle = (VECTORS / f"{name}.eoc").read_bytes(), bundle_of(vector["model"])
    start = format.segment_ends(format.parse(data))[0]
    for end in (start, start + 1, start + len(data) // 3, len(data) - 1):
        result = decode(decoder, bundle, data[:end], tmp_path)
        assert not isinstance(result, str), result
        assert np.array_equal(result[0], symbols(data[:end], load_model(bundle)))
        assert np.abs(result[1].astype(int) - eocodec.decompress(data[:end], bundle)).max() <= 1


@pytest.mark.parametrize("name", ["embedded", "embedded-grey"])
def test_streams_that_hardly_began_decode_as_by_the_library(name: str, decoder: Path, tmp_path: Path) -> None:
    model = load_model(BUNDLES["photo"])
    for data in beginnings(name).values():
        result = decode(decoder, BUNDLES["photo"], data, tmp_path)
        assert not isinstance(result, str), result
        assert np.array_equal(result[0], symbols(data, model))
        assert np.abs(result[1].astype(int) - eocodec.decompress(data, BUNDLES["photo"])).max() <= 1


WEBP = {"alpha": with_webp_alpha(), "lossless": webp_picture(False), "grey": webp_picture(True)}


@pytest.mark.parametrize("data", WEBP.values(), ids=WEBP)
def test_webp_streams_inside_are_read(data: bytes, decoder: Path, tmp_path: Path) -> None:
    result = decode(decoder, BUNDLES["photo"], data, tmp_path)
    assert not isinstance(result, str), result
    expected = eocodec.decompress(data, BUNDLES["photo"])
    assert np.array_equal(result[1][..., 3:], expected[..., 3:])
    assert np.abs(result[1].astype(int) - expected).max() <= (expected.shape[2] == 4)
    result = decode(decoder, BUNDLES["photo"], without_its_flag(data), tmp_path)
    assert isinstance(result, str) and "of a kind that its flags do not name" in result


def outside(data: bytes) -> np.ndarray:
    """Where a page has no photograph."""
    file = format.parse(data)
    places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
    mask = np.ones((file.header.height, file.header.width), bool)
    for place in places:
        mask[place.place] = False
    return mask


@pytest.mark.parametrize("name", ["small-page", "small-page-grey", "transparent"])
def test_the_exact_layer_of_a_page_is_exact(name: str, decoder: Path, tmp_path: Path) -> None:
    data = with_transparent_layer() if name == "transparent" else (VECTORS / f"{name}.eoc").read_bytes()
    result = decode(decoder, bundle_of("small.eocm"), data, tmp_path)
    assert not isinstance(result, str), result
    expected, exact = eocodec.decompress(data, bundle_of("small.eocm")), outside(data)
    assert np.array_equal(result[1][exact], expected[exact]) and exact.any()
    assert np.abs(result[1].astype(int) - expected).max() <= 1


def test_without_libwebp_only_webp_streams_are_refused(without_libwebp: Path, tmp_path: Path) -> None:
    page = (VECTORS / "small-page.eoc").read_bytes()
    for data, model in ((WEBP["alpha"], "photo"), (WEBP["lossless"], "photo"), (page, "small.eocm")):
        result = decode(without_libwebp, bundle_of(model), data, tmp_path)
        assert isinstance(result, str) and "is a WebP stream, which this program was built without a reader" in result
    data = (VECTORS / "small-map.eoc").read_bytes()
    result = decode(without_libwebp, bundle_of("small.eocm"), data, tmp_path)
    assert not isinstance(result, str) and np.array_equal(result[0], symbols(data, load_model(bundle_of("small.eocm"))))


def test_hostile_pages_are_refused(sanitised: Path, tmp_path: Path) -> None:
    for name, (data, said) in hostile_pages().items():
        result = decode(sanitised, bundle_of("small.eocm"), data, tmp_path)
        assert isinstance(result, str) and re.search(said, result), (name, result)


def test_damaged_pages_are_safe_and_read_as_by_the_library(sanitised: Path, tmp_path: Path) -> None:
    rng, data = random.Random(6), (VECTORS / "small-page.eoc").read_bytes()
    file, bundle = format.parse(data), bundle_of("small.eocm")
    element, places = file.page or b"", len(file.page or b"") - len(regions.unpack(file.page or b"", 190, 130)[1])
    for k in range(16):
        if k % 4 == 0:
            damaged = flipped(data, rng)
        elif k % 4 == 1:  # the places
            damaged = format.serialise(replace(file, page=flipped(element[:places], rng) + element[places:]))
        elif k % 4 == 2:  # a photograph, with and without checksums that match
            change = flipped if k % 8 == 2 else behind_its_checksums
            segment = replace(file.segments[0], payload=change(file.segments[0].payload, rng))
            damaged = format.serialise(replace(file, segments=(segment, *file.segments[1:])))
        else:  # the stream, which versions of libwebp need not refuse alike
            damaged = format.serialise(replace(file, page=element[:places] + flipped(element[places:], rng)))
        result = decode(sanitised, bundle, damaged, tmp_path)
        if k % 4 == 3:
            continue
        try:
            eocodec.decompress(damaged, bundle)  # also looks at the transparency
            expected = symbols(damaged, load_model(bundle))
        except EocodecError:
            assert isinstance(result, str)
            continue
        assert not isinstance(result, str), result
        assert np.array_equal(result[0], expected)


def test_the_flag_of_webp_streams_may_be_set_without_one(decoder: Path, tmp_path: Path) -> None:
    file = format.parse((VECTORS / "lossless-grey.eoc").read_bytes())
    data = format.serialise(replace(file, header=replace(file.header, webp=True)))
    assert data[8] & format.FLAG_WEBP
    result = decode(decoder, BUNDLES["photo"], data, tmp_path)
    assert not isinstance(result, str) and np.array_equal(result[1], eocodec.decompress(data, BUNDLES["photo"]))


def test_what_cannot_be_decoded_gets_one_sentence(decoder: Path, tmp_path: Path) -> None:
    colour, lossless, tiny = ((VECTORS / f"{n}.eoc").read_bytes() for n in ("colour", "lossless-packed", "face-tiny"))
    photo, face = BUNDLES["photo"], BUNDLES["face64"]
    huge = format.serialise(File(Header(b"\x26\xcc\x94\xc0", 1, 1, 0, 0), None, ())).replace(
        b"\0\1\1", b"\0\x80\x80\x40\x80\x80\x40"
    )
    axis = (VECTORS / "axis.eoc").read_bytes()
    less = tmp_path / "less.eocm"
    less.write_bytes(zipped(without_grey()))
    cases = [
        (less, axis, "lacks its part for grey pictures"),
        (less, axis[:8] + b"\0" + axis[9:], "one colour axis, but colours"),
        (photo, b"", "not an .eoc file"),
        (photo, b"\x89PNG\r\n\x1a\n", "not an .eoc file"),
        (photo, colour[:9], "cut off before its first segment"),
        (photo, colour[:3] + b"\3" + colour[4:], "format version 3"),
        (photo, colour[:3] + b"\2" + colour[4:], "features that this program does not know"),
        (photo, colour[:8] + b"\x24" + colour[9:], "an embedded stream has no rate"),
        (photo, colour[:8] + b"\x30" + colour[9:], "16 bits a sample, but a form that has none"),
        (photo, colour[:8] + b"\x40" + colour[9:], "luma alone, but colours"),
        (photo, huge, "1048576x1048576 pixels, beyond the format's limits"),
        (photo, colour[:-1] + bytes([colour[-1] ^ 1]), "the checksum of segment 1 does not match"),
        (photo, lossless[:25] + bytes([lossless[25] ^ 4]) + lossless[26:], "does not match"),
        (face, colour, "made with model 26cc94c0, not with 5f2b99a2"),
        (photo, tiny, "needs model number 1"),
        (tmp_path / "none.eocm", colour, "no such file"),
        (VECTORS / "colour.png", colour, "it is no bundle"),
    ]
    for bundle, data, sentence in cases:
        result = decode(decoder, bundle, data, tmp_path / "case")
        assert isinstance(result, str) and sentence in result, (result, sentence)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused(kind: str, decoder: Path, tmp_path: Path) -> None:
    files, said = HOSTILE[kind]
    (tmp_path / "bad.eocm").write_bytes(zipped(files))
    result = decode(decoder, tmp_path / "bad.eocm", named("small-tuned-coarse", files), tmp_path / "case")
    assert isinstance(result, str) and said in result, result


def test_lossless_files_of_the_shipped_model_are_exact(decoder: Path, tmp_path: Path) -> None:
    for kind, (picture, data) in exact_files().items():
        result = decode(decoder, MODELS / "photo.eocm", data, tmp_path / "case")
        assert not isinstance(result, str) and np.array_equal(result[1], picture), kind


def test_bundles_may_lack_parts(decoder: Path, tmp_path: Path) -> None:
    (tmp_path / "less.eocm").write_bytes(zipped(STRIPPED))
    result = decode(decoder, tmp_path / "less.eocm", named("small-tuned-grey", STRIPPED), tmp_path / "case")
    assert not isinstance(result, str), result
    expected = symbols((VECTORS / "small-tuned-grey.eoc").read_bytes(), load_model(bundle_of("small.eocm")))
    assert np.array_equal(result[0], expected)
    result = decode(decoder, tmp_path / "less.eocm", named("small-embedded", STRIPPED), tmp_path / "case")
    assert isinstance(result, str) and "has no progressive.bin" in result


def test_pictures_beyond_the_limit_are_refused(decoder: Path, tmp_path: Path) -> None:
    arguments = BUNDLES["photo"], VECTORS / "grey.eoc", tmp_path / "out.png", "--max-pixels"
    refused = run(decoder, *arguments, 33 * 17 - 1)
    assert refused.returncode == 1 and "33x17 pixels, more than the limit of 560" in refused.stderr
    for wrong in ("many", "1e9", "0", "-5", ""):
        assert run(decoder, *arguments, wrong).returncode == 2
    assert list(tmp_path.iterdir()) == []
    assert run(decoder, *arguments, 33 * 17).returncode == 0


def test_missing_files_and_folders_get_one_sentence(decoder: Path, tmp_path: Path) -> None:
    vector = VECTORS / "one-pixel.eoc"
    for source, target in ((tmp_path / "none.eoc", tmp_path / "a.png"), (vector, tmp_path / "none" / "a.png"),
                           (tmp_path, tmp_path / "a.png"), (vector, tmp_path)):  # fmt: skip
        done = run(decoder, BUNDLES["photo"], source, target)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert list(tmp_path.iterdir()) == []
    assert run(decoder, vector).returncode == 2


@pytest.mark.parametrize("case", CLASHES)
def test_the_command_writes_over_nothing_that_it_reads(case: str, decoder: Path, tmp_path: Path) -> None:
    arguments, said = clash(case, tmp_path)
    before = contents(tmp_path)
    done = run(decoder, *arguments)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert contents(tmp_path) == before


def test_outputs_that_are_links_stay_links(decoder: Path, tmp_path: Path) -> None:
    link, picture = linked(tmp_path)
    assert run(decoder, bundle_of("small.eocm"), VECTORS / "small.eoc", link).returncode == 0
    assert link.is_symlink() and picture.read_bytes().startswith(b"\x89PNG") and len(os.listdir(tmp_path)) == 2


def test_the_command_writes_into_pipes(decoder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        done = run(decoder, bundle_of("small.eocm"), VECTORS / "small.eoc", tmp_path / "pipe")
        assert done.returncode == 0 and (tmp_path / "pipe").is_fifo(), done.stderr
        assert os.read(pipe, 1 << 16).startswith(b"\x89PNG")
        assert os.listdir(tmp_path) == ["pipe"]
    finally:
        os.close(pipe)


def test_tiny_files_come_as_base64_too(decoder: Path, tmp_path: Path) -> None:
    data, face = (VECTORS / "face-tiny.eoc").read_bytes(), bundle_of("face64")
    expected = decode(decoder, face, data, tmp_path)
    assert not isinstance(expected, str), expected
    standard, safe = base64.b64encode(data), base64.urlsafe_b64encode(data)
    for text in (standard, safe.rstrip(b"="), standard.rstrip(b"=") + b"\r\n"):
        found = decode(decoder, face, text, tmp_path)
        assert not isinstance(found, str), found
        assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("length", range(2, 9))
def test_base64_of_any_length_is_read_as_by_the_library(length: int, decoder: Path, tmp_path: Path) -> None:
    data = bytes([0xFA, 255 - length, *range(251, 251 - 9 * length, -9)])[:length]  # of a model that does not exist
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert format.tiny_from_text(text) == data
        result = decode(decoder, bundle_of("small.eocm"), text, tmp_path)
        assert isinstance(result, str) and "needs model number 2" in result, result


NO_TINY_TEXTS = {
    "one": b"+",
    "no base64": b"+not base64!",
    "too short": b"+A==",
    "a digit too many": b"+Or7b",
    "padding inside": b"+O=7",
    "a zero": b"+\0r7",
    "base64 of a JPEG": b"/9j/4AAQSkZJRg==",
    "too long": b"+" * (2 * format.MAX_TINY + 1),
}


@pytest.mark.parametrize("text", NO_TINY_TEXTS.values(), ids=NO_TINY_TEXTS)
def test_what_is_no_tiny_text_is_no_file(text: bytes, sanitised: Path, tmp_path: Path) -> None:
    assert format.tiny_from_text(text) == text
    result = decode(sanitised, bundle_of("small.eocm"), text, tmp_path)
    assert isinstance(result, str) and "not an .eoc file" in result


@pytest.mark.parametrize(
    "arguments", [("--symbols",), ("--help",), ("out.png", "--symbols"), ("out.png", "--pixels", "9")]
)
def test_options_are_no_names_of_files(arguments: tuple[str, ...], decoder: Path, tmp_path: Path) -> None:
    command = [str(decoder), str(bundle_of("small.eocm")), str(VECTORS / "small.eoc"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and not os.listdir(tmp_path)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to five bits flipped."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5)) if data else 0):
        bit = rng.randrange(8 * len(result))
        result[bit // 8] ^= 1 << bit % 8
    return bytes(result)


def behind_its_checksums(data: bytes, rng: random.Random) -> bytes:
    """The file with bits flipped, a unit more or random bytes in one of its elements, and checksums that match."""
    file = format.parse(data)
    if file.offsets and rng.random() < 0.3:
        return format.serialise(replace(file, offsets=flipped(file.offsets, rng)))
    if file.alpha and rng.random() < 0.3:
        return format.serialise(replace(file, alpha=flipped(file.alpha, rng)))
    if file.tables and rng.random() < 0.3:
        return format.serialise(replace(file, tables=flipped(file.tables, rng)))
    if file.lossless and rng.random() < 0.3:
        return format.serialise(replace(file, lossless=flipped(file.lossless, rng)))
    if not file.segments:
        return data
    k = rng.randrange(len(file.segments))
    segment = file.segments[k]
    payload = rng.randbytes(len(segment.payload)) if rng.random() < 0.3 else flipped(segment.payload, rng)
    segment = replace(segment, payload=payload, units=segment.units + (rng.random() < 0.1))
    return format.serialise(replace(file, segments=(*file.segments[:k], segment, *file.segments[k + 1 :])))


def test_damaged_files_are_safe_and_read_as_by_the_library(sanitised: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    files = []
    for k in range(21):
        vector = rng.choice(FUZZED)
        data = (VECTORS / f"{vector['name']}.eoc").read_bytes()
        damage = (flipped, behind_its_checksums, lambda d, r: d[: r.randrange(len(d))])[k % 7 // 3]
        files.append((damage(data, rng), bundle_of(vector["model"])))

    def attempt(k: int) -> tuple[np.ndarray, np.ndarray] | str:
        data, bundle = files[k]
        return decode(sanitised, bundle, data, tmp_path / str(k))

    with ThreadPoolExecutor(2) as pool:
        for (data, bundle), result in zip(files, pool.map(attempt, range(len(files))), strict=True):
            try:
                eocodec.decompress(data, bundle)  # also looks at the transparency
                expected = symbols(data, bundle)
            except EocodecError:
                assert isinstance(result, str)
                continue
            assert not isinstance(result, str), result
            assert np.array_equal(result[0], expected)


def test_the_decoder_is_described(decoder: Path) -> None:
    readme = (SAMPLES / "cpp" / "README.md").read_text()
    for name in (decoder.name, "ONNXRUNTIME_ROOT", "get-onnxruntime", "--symbols", "EOCODEC_SANITIZE"):
        assert name in readme
    assert (ROOT / "docs" / "FORMAT.md").is_file()
