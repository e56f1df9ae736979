"""`samples/python/embed.py` decodes as the library does, needs nothing of it, and says in a sentence what is wrong."""

import ast
import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import constriction
import cv2
import numpy as np
import pytest
from bundles import (
    HOSTILE,
    LISTED,
    MANIFESTS,
    MOST,
    SPOILED,
    STRIPPED,
    UNFIT,
    exact_files,
    id_of,
    looking_wrongly,
    named,
    without_grey,
    zipped,
)
from clashes import CLASHES, clash, contents, linked
from paths import MODELS, SAMPLES, VECTORS, Decoded, bundle_of, in_rgb, picture_of
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
from eocodec import format
from eocodec.coding.fineness import LARGEST_OFFSET, Fineness, blocks_of, pack_offsets
from eocodec.coding.symbols import symbols
from eocodec.metrics import psnr
from eocodec.model import transform
from eocodec.model.bundle import write_bundle
from eocodec.model.graphs import OPERATORS
from eocodec.model.library import load_model
from eocodec.steps import step_code

pytestmark = [pytest.mark.ports, pytest.mark.slow]

SCRIPT = SAMPLES / "python" / "embed.py"
INDEX: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
MODEL_OF = {v["name"]: v["model"] for v in INDEX}


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.eoc").read_bytes()


def header(width: bytes = b"\x01", height: bytes = b"\x01", flags: int = 0, version: int = 1) -> bytes:
    """A header of the photo model, a file without any segment."""
    return b"EOC" + bytes([version]) + vector("colour")[4:8] + bytes([flags]) + width + height + bytes([0, 24, 0, 160])


@pytest.fixture(scope="module")
def embed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["embed"] = module  # where its dataclass looks for its types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundles(embed: ModuleType) -> dict[str, Any]:
    return {name: embed.Bundle(bundle_of(name)) for name in {entry["model"] for entry in INDEX}}


@pytest.mark.parametrize("entry", INDEX, ids=lambda v: v["name"])
def test_vectors_decode_to_their_symbols_and_pictures(
    embed: ModuleType, bundles: dict[str, Any], decoded_once: Decoded, entry: dict[str, Any]
) -> None:
    data = vector(entry["name"])
    picture, values = embed.decode_with_symbols(data, bundles[entry["model"]])
    assert picture.shape == (entry["height"], entry["width"], 4 if entry["alpha"] else 3)
    assert picture.dtype == (np.uint16 if entry.get("depth") == 16 else np.uint8)
    assert len(values) == entry["symbols"]
    assert hashlib.sha256(values.astype("<i4").tobytes()).hexdigest() == entry["sha256"]
    expected = [decoded_once(entry)]
    if entry["picture"]:
        expected.append(picture_of(entry))
    for other in expected:
        assert np.abs(other.astype(int) - picture).max() <= (0 if entry["exact"] else 1)


@pytest.mark.parametrize(
    "name",
    [
        "segments",
        "embedded",
        "embedded-deep",
        "embedded-alpha",
        "lossless",
        "face-fine",
        "luma",
        "deep",
        "lossless-deep",
    ],
)
def test_prefixes_decode_as_in_the_library(embed: ModuleType, bundles: dict[str, Any], name: str) -> None:
    data = vector(name)
    model = "face64" if name.startswith("face") else "photo"
    for length in np.random.default_rng(len(data)).integers(20, len(data), 4).tolist():
        try:
            expected = symbols(data[:length], load_model(bundle_of(model)))
        except eocodec.EocodecError:
            with pytest.raises(embed.Rejected):
                embed.decode(data[:length], bundles[model])
        else:
            picture, values = embed.decode_with_symbols(data[:length], bundles[model])
            assert np.array_equal(values, expected), length
            assert np.abs(eocodec.decompress(data[:length]).astype(int) - picture).max() <= 1, length


def test_a_bundle_without_its_part_for_grey_pictures_says_so(embed: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "less.eocm").write_bytes(zipped(without_grey()))
    with pytest.raises(embed.Rejected, match="lacks its part for grey pictures"):
        embed.decode(vector("axis"), embed.Bundle(tmp_path / "less.eocm"))


@pytest.mark.parametrize("kind", ["colour", "grey", "weights", "deep", "narrow", "strips"])
def test_lossless_files_of_the_shipped_model_are_exact(embed: ModuleType, kind: str) -> None:
    picture, data = exact_files()[kind]
    assert np.array_equal(embed.decode(data, embed.Bundle(MODELS / "photo.eocm")), picture)


@pytest.mark.parametrize("name", ["deep-alpha", "lossless-deep"])
def test_pictures_of_16_bits_become_png_files_of_16_bits(
    embed: ModuleType, bundles: dict[str, Any], tmp_path: Path, name: str
) -> None:
    picture = embed.decode(vector(name), bundles["photo"])
    (tmp_path / "a.png").write_bytes(embed.png(picture))
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16 and np.array_equal(in_rgb(read), picture)


def test_parameters_of_16_bits_that_do_not_fit_are_refused(embed: ModuleType, bundles: dict[str, Any]) -> None:
    file = format.parse(vector("lossless-deep"))
    for content in (b"", b"1234\x08\0\0\0\0", b"1234\0\x09\0\0\0", b"1234\4\xff\xff", b"1234\0\0\0\0\xff",
                    b"1234\6\0\0\0\0", b"1234\0\0\0\0\4", b"1234\0\0\1\0\0"):  # fmt: skip
        with pytest.raises(embed.Rejected):
            embed.decode(format.serialise(replace(file, lossless=content)), bundles["photo"])
    file = format.parse(vector("deep"))
    for content in (b"x", (file.tables or b"")[:-3]):
        with pytest.raises(embed.Rejected, match="packed bytes"):
            embed.decode(format.serialise(replace(file, tables=content)), bundles["photo"])


@pytest.mark.parametrize("name", ["embedded", "embedded-grey"])
def test_streams_that_hardly_began_decode_as_in_the_library(
    embed: ModuleType, bundles: dict[str, Any], name: str
) -> None:
    model, seen = load_model(bundle_of("photo")), set()
    for length, data in beginnings(name).items():
        picture, values = embed.decode_with_symbols(data, bundles["photo"])
        expected = eocodec.decompress(data, bundle_of("photo"))
        assert np.array_equal(values, symbols(data, model)), length
        assert np.abs(expected.astype(int) - picture).max() <= 1, length
        seen.add((picture == 128).all())
    assert seen == {True, False}


@pytest.mark.parametrize(
    "data", [with_webp_alpha(), webp_picture(False), webp_picture(True)], ids=["alpha", "", "grey"]
)
def test_webp_streams_inside_are_read_by_pillow(
    embed: ModuleType, bundles: dict[str, Any], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = embed.decode(data, bundles["photo"])
    expected = eocodec.decompress(data, bundle_of("photo"))
    assert np.array_equal(picture[..., 3:], expected[..., 3:])
    assert np.abs(picture.astype(int) - expected).max() <= (expected.shape[2] == 4)
    for damaged in (without_its_flag(data), narrower(data)):
        with pytest.raises(embed.Rejected, match="WebP stream cannot be read"):
            embed.decode(damaged, bundles["photo"])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(embed.Rejected, match="pip install pillow"):
        embed.decode(data, bundles["photo"])


def test_the_transparency_of_a_layer_is_ignored(embed: ModuleType, bundles: dict[str, Any]) -> None:
    data = with_transparent_layer()
    picture, expected = embed.decode(data, bundles["small.eocm"]), eocodec.decompress(data, bundle_of("small.eocm"))
    assert np.abs(picture.astype(int) - expected).max() <= 1


def narrower(data: bytes) -> bytes:
    """The file with a WebP stream inside that says it is one pixel less wide than the picture."""
    file = format.parse(data)
    if file.alpha is not None:
        return format.serialise(replace(file, alpha=file.alpha[:1] + bytes([file.alpha[1] - 1]) + file.alpha[2:]))
    (segment,) = file.segments
    payload = segment.payload[:2] + bytes([segment.payload[2] - 1]) + segment.payload[3:]
    return format.serialise(replace(file, segments=(replace(segment, payload=payload),)))


@pytest.mark.parametrize(("rate", "share", "most"), [(2, 0.05, 24), (8, 0.001, 8), (32, 0, 1)])
def test_at_the_lowest_rates_few_values_differ_by_more_than_one(
    rate: int, share: float, most: int, embed: ModuleType
) -> None:
    picture = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))
    data = eocodec.compress(picture, rate)
    ours = eocodec.decompress(data)
    found = embed.decode(data, embed.Bundle(MODELS / "photo.eocm"))
    apart = np.abs(ours.astype(int) - found)
    assert (apart > 1).mean() <= share and apart.max() <= most
    assert abs(psnr(picture, found) - psnr(picture, ours)) < 0.01


def test_pictures_in_tiles_are_those_of_the_library(embed: ModuleType, bundles: dict[str, Any]) -> None:
    width, height, rng = 1101, 1999, np.random.default_rng(3)  # four tiles, and a padding of 2.2 million pixels
    sizes = [(3, 126, 70), *((9, 126 << k, 70 << k) for k in range(4))]
    latents = [rng.normal(0, 0.02, size).astype(np.float32) for size in sizes]
    latents[0] += 2
    expected = transform.synthesise(load_model(bundle_of("photo")), latents, 40 / 255, width, height)
    found = embed.synthesise(bundles["photo"], latents, 40, width, height)
    assert np.abs(expected.astype(int) - found).max() <= 1


def test_maps_of_steps_reach_every_tile(embed: ModuleType, bundles: dict[str, Any]) -> None:
    width, height, rng = 1203, 1757, np.random.default_rng(4)  # four tiles
    small, data = load_model(bundle_of("small.eocm")), vector("small-map")
    file = replace(format.parse(data).header, width=width, height=height)
    offsets = rng.integers(-LARGEST_OFFSET, LARGEST_OFFSET + 1, blocks_of(file, small)).astype(np.int8)
    fineness = Fineness(small, file, offsets)
    sizes = [(3, 220, 152), *((9, 220 << k, 152 << k) for k in range(3))]
    latents = [rng.normal(0, 0.05, size).astype(np.float32) for size in sizes]
    latents[0] += 1
    delta = 25 / 255
    step = small.manifest.decoder_step(delta)
    expected = transform.synthesise(small, latents, step, width, height, fineness.places())
    theirs = replace(file, step=step_code(delta))
    ours = embed.parse(format.serialise(format.File(theirs, None, (), offsets=pack_offsets(offsets))))
    found = embed.synthesise(
        bundles["small.eocm"], latents, 25, width, height, embed.Fineness(bundles["small.eocm"], ours)
    )
    assert np.abs(expected.astype(int) - found).max() <= 1


def test_maps_that_do_not_fit_are_refused(embed: ModuleType, bundles: dict[str, Any]) -> None:
    file = format.parse(vector("small-map"))
    offsets = np.zeros((5, 6), np.int8)
    beyond = np.full_like(offsets, LARGEST_OFFSET + 1)
    for wrong, said in ((b"", "packed bytes"), (pack_offsets(offsets[:, :5]), "packed bytes"),
                        (pack_offsets(beyond), "out of range")):  # fmt: skip
        with pytest.raises(embed.Rejected, match=said):
            embed.decode(format.serialise(replace(file, offsets=wrong)), bundles["small.eocm"])
    plain = replace(format.parse(vector("colour")), offsets=pack_offsets(offsets))
    with pytest.raises(embed.Rejected, match="steps differ"):
        embed.decode(format.serialise(plain), bundles["photo"])


def test_tiny_files_come_as_base64_too(embed: ModuleType, bundles: dict[str, Any]) -> None:
    data, face = vector("face-tiny"), bundles["face64"]
    expected = embed.decode(data, face)
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"="), base64.b64encode(data) + b"\n"):
        assert np.array_equal(embed.decode(text, face), expected)
    with pytest.raises(embed.Rejected, match="number 1"):
        embed.decode(data, bundles["photo"])
    with pytest.raises(embed.Rejected, match="number 2"):
        embed.decode(b"\xfa" + data[1:], face)


def test_range_decoder_is_that_of_constriction(embed: ModuleType) -> None:
    stream = constriction.stream
    bernoulli = stream.model.Bernoulli(perfect=False)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        words = rng.integers(0, 1 << 32, int(rng.integers(0, 60)), np.uint32)  # any words, and zeros beyond their end
        theirs = stream.queue.RangeDecoder(words)
        ours = embed.RangeDecoder(words.astype("<u4").tobytes().rstrip(b"\0"))
        for _ in range(12):
            count, kind = int(rng.integers(1, 40)), rng.integers(3)
            try:
                if kind == 0:
                    f = np.bincount(rng.geometric(0.1, 1 << 24 if seed == 0 else 1 << 12).clip(1, 200), minlength=201)
                    f = f[1:] + 1
                    f[int(f.argmax())] += (1 << 24) - f.sum()
                    model = stream.model.Categorical(f.astype(float) - 1, perfect=False, lazy=False)
                    expected = theirs.decode(model, count)
                    found = ours.symbols([0, *np.cumsum(f).tolist()], count)
                elif kind == 1:
                    choices = int(rng.choice([2, 25, 32, 4096]))
                    expected = theirs.decode(stream.model.Uniform(choices), count)
                    found = ours.symbols(embed.uniform(choices), count)
                else:
                    p = np.minimum(rng.geometric(10.0 ** -rng.uniform(0, 5), count), 65535)
                    expected = theirs.decode(bernoulli, p / 65536)
                    found = ours.decisions(p.tolist())
            except (ValueError, AssertionError):
                break  # a stream that no encoder writes; what ours says of them is tested below
            assert np.array_equal(found, expected)


def test_streams_that_no_encoder_writes_are_refused(embed: ModuleType) -> None:
    for read in (lambda d: d.symbols([0, 1 << 24], 1), lambda d: d.decisions([30000])):
        with pytest.raises(embed.Rejected):
            read(embed.RangeDecoder(b"\xff" * 8))


def test_decisions_split_as_in_constriction(embed: ModuleType) -> None:
    bernoulli = constriction.stream.model.Bernoulli(perfect=False)
    scale = ((1 << 64) - 1) >> 24
    for p in (1, 2, 255, 32767, 32768, 32769, 65535):
        for quantile in range((1 << 24) - 256 * p - 3, min((1 << 24) - 256 * p + 3, 1 << 24)):
            words = np.array([quantile * scale >> 32, quantile * scale & 0xFFFFFFFF], np.uint32)
            expected = constriction.stream.queue.RangeDecoder(words).decode(bernoulli, np.array([p / 65536]))
            assert embed.RangeDecoder(words.tobytes()).decisions([p]) == [bool(expected[0])]


def resealed(data: bytes, units: int) -> bytes:
    """A file of one segment that says it has so many units, with the checksum to it; its header has 15 bytes."""
    element = bytes([units]) + data[16:-4]
    return data[:15] + element + zlib.crc32(data[:15] + b"\0" + element).to_bytes(4, "little")


BAD = {
    "empty": (b"", "not an .eoc file"),
    "picture": (b"\x89PNG\r\n\x1a\n", "not an .eoc file"),
    "text": (b"+text", "not an .eoc file"),
    "magic": (b"EOD" + header()[3:], "not an .eoc file"),
    "version": (header(version=3), "format version 3"),
    "version of pages": (header(version=2)[:9] + b"\x05" + header()[9:], "of a kind that this program does not know"),
    "one axis in colour": (header(version=2)[:9] + b"\x02" + header()[9:], "one colour axis, but colours"),
    "flags of one axis": (header(version=2, flags=65)[:9] + b"\x02" + header()[9:], "of a kind that this program does"),
    "flags of pages": (header(version=2, flags=4)[:9] + b"\x01" + header()[9:], "of a kind that this program does not"),
    "page without layer": (header(version=2, flags=128)[:9] + b"\x01" + header()[9:], "cut off"),
    "long layer": (
        header(version=2)[:9] + b"\x01" + header()[9:] + b"\x81\x80\x80\x80\x04",
        "exact layer cannot be read",
    ),
    "layer": (vector("small-page-grey")[:70] + b"?" + vector("small-page-grey")[71:], "checksum of the exact layer"),
    "embedded of 16 bits": (header(flags=36), "a form that has none"),
    "tuned of 16 bits": (header(flags=48) + b"\x20", "a form that has none"),
    "no choice": (header(flags=32), "cut off"),
    "long choice": (header(flags=32) + b"\x81\x20", "choice of tables cannot be read"),
    "choice": (vector("deep")[:30] + b"?" + vector("deep")[31:], "checksum of the choice of tables"),
    "luma in colour": (header(flags=64), "luma alone, but colours"),
    "lossless luma": (header(flags=73), "luma alone, but colours"),
    "cut": (header()[:-1], "cut off"),
    "model": (b"EOC\x01abcd" + header()[8:], "made with the model 61626364"),
    "untuned model": (header(flags=16) + b"\x20", "its steps differ"),
    "no tuning": (header(flags=16) + b"\0", "tuning is out of range"),
    "too much tuning": (header(flags=16) + b"\x21", "tuning is out of range"),
    "tuned lossless": (header(flags=24) + b"\x20", "tuning is out of range"),
    "no width": (header(width=b"\0"), "beyond the format's limits"),
    "too wide": (header(width=b"\x81\x80\x40"), "beyond the format's limits"),
    "too large": (header(width=b"\x80\x80\x40", height=b"\x81\x02"), "beyond the format's limits"),
    "long number": (header(width=b"\x81\0"), "shortest form"),
    "longer number": (header(width=b"\xff" * 6), "longer than five bytes"),
    "rate": (header(flags=4), "embedded stream has no rate"),
    "lossless": (header(flags=8) + b"\0", "cut off"),
    "side": (header(flags=2) + b"\x04", "side element"),
    "checksum": (vector("colour")[:-1] + b"?", "checksum of segment 1"),
    "segments": (vector("segments")[:1500] + b"?" + vector("segments")[1501:], "checksum of segment"),
    "piece": (vector("embedded")[:99] + b"?" + vector("embedded")[100:], "checksum of piece 1"),
    "alpha": (vector("alpha")[:99] + b"?" + vector("alpha")[100:], "checksum of the transparency"),
    "units": (resealed(vector("colour"), 26), "more coding units"),
    "no units": (resealed(vector("colour"), 0), "no coding units"),
    "samples": (vector("lossless")[:20] + b"?" + vector("lossless")[21:], "checksum of the lossless parameters"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_in_one_sentence(
    embed: ModuleType,
    bundles: dict[str, Any],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, said = BAD[kind]
    monkeypatch.setattr(embed, "Bundle", lambda path: bundles["photo"])
    (tmp_path / "bad.eoc").write_bytes(data)
    source, target, values = (str(tmp_path / name) for name in ("bad.eoc", "out.png", "out.bin"))
    assert embed.main(["photo.eocm", source, target, "--symbols", values]) == 1
    printed, error = capsys.readouterr()
    assert said in error and error.count("\n") == 1 and not printed
    assert os.listdir(tmp_path) == ["bad.eoc"]


def test_any_damage_is_refused_or_decodes(embed: ModuleType, bundles: dict[str, Any]) -> None:
    for name in ("one-pixel", "embedded-grey", "lossless-grey", "lossless-packed", "deep-alpha", "lossless-deep-ranks"):
        data, rng = vector(name), np.random.default_rng(5)
        for place in rng.integers(0, len(data), 12).tolist():
            damaged = bytearray(data)
            damaged[place] ^= int(rng.integers(1, 256))
            with contextlib.suppress(embed.Rejected):
                embed.decode(bytes(damaged), bundles["photo"])


def test_lossless_files_are_exact_or_refused(embed: ModuleType, bundles: dict[str, Any]) -> None:
    file = eocodec.format.parse(vector("lossless"))
    first, *others = file.segments
    wrong = eocodec.format.Segment(first.units, bytes([first.payload[0] ^ 1]) + first.payload[1:])
    changed = eocodec.format.File(file.header, None, (wrong, *others), lossless=file.lossless)
    with pytest.raises(embed.Rejected, match=r"pixels are not those|cannot be decoded|out of range"):
        embed.decode(eocodec.format.serialise(changed), bundles["photo"])


@pytest.mark.parametrize("case", frames(refused=True))
def test_what_is_no_single_zstd_frame_is_refused(embed: ModuleType, bundles: dict[str, Any], case: str) -> None:
    name, data = frames(refused=True)[case]
    with pytest.raises(embed.Rejected, match="the file is damaged: its "):
        embed.decode(data, bundles[MODEL_OF[name]])


@pytest.mark.parametrize("case", frames(refused=False))
def test_zstd_frames_may_have_a_checksum_and_a_size(embed: ModuleType, bundles: dict[str, Any], case: str) -> None:
    name, data = frames(refused=False)[case]
    expected = embed.decode(vector(name), bundles[MODEL_OF[name]])
    assert np.array_equal(embed.decode(data, bundles[MODEL_OF[name]]), expected)


@pytest.mark.parametrize("kind", hostile_pages())
def test_hostile_pages_are_refused(embed: ModuleType, bundles: dict[str, Any], kind: str) -> None:
    data, said = hostile_pages()[kind]
    with pytest.raises(embed.Rejected, match=said):
        embed.decode(data, bundles["small.eocm"])


def test_pages_take_pillow(embed: ModuleType, bundles: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(embed.Rejected, match="pip install pillow"):
        embed.decode(vector("small-page-grey"), bundles["small.eocm"])


def test_zstd_is_asked_for_only_when_it_is_needed(
    embed: ModuleType, bundles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    embed.decode(vector("grey"), bundles["photo"])
    for name in ("alpha", "lossless-packed"):
        with pytest.raises(embed.Rejected, match="pip install zstandard"):
            embed.decode(vector(name), bundles["photo"])


def test_bundles_are_checked(embed: ModuleType, tmp_path: Path) -> None:
    content = bytearray((MODELS / "photo.eocm").read_bytes())
    content[len(content) // 2] ^= 1
    for name, data in (("damaged", bytes(content)), ("cut", bytes(content[:9999])), ("other", b"PK nothing")):
        path = tmp_path / f"{name}.eocm"
        path.write_bytes(data)
        with pytest.raises(embed.Rejected, match="not a model bundle, or a damaged one"):
            embed.Bundle(path)


@pytest.mark.parametrize("sizes", [[(64 << 20) + 1], [60 << 20] * 5])
def test_bundles_that_unpack_to_too_much_are_refused(embed: ModuleType, sizes: list[int], tmp_path: Path) -> None:
    (tmp_path / "large.eocm").write_bytes(zipped({f"{k}.onnx": bytes(size) for k, size in enumerate(sizes)}))
    with pytest.raises(embed.Rejected, match="larger than allowed"):
        embed.Bundle(tmp_path / "large.eocm")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused(embed: ModuleType, kind: str, tmp_path: Path) -> None:
    files, said = HOSTILE[kind]
    (tmp_path / "bad.eocm").write_bytes(zipped(files))
    with pytest.raises(embed.Rejected, match=said):
        embed.decode(named("small-tuned-coarse", files), embed.Bundle(tmp_path / "bad.eocm"))


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_no_export_writes_are_refused(embed: ModuleType, case: str, tmp_path: Path) -> None:
    vector, files = MANIFESTS[case]
    (tmp_path / "bad.eocm").write_bytes(zipped(files))
    with pytest.raises(embed.Rejected, match=SPOILED):
        embed.decode(named(vector, files), embed.Bundle(tmp_path / "bad.eocm"))


def test_lists_of_parts_and_tables_that_cannot_be_read_are_refused(embed: ModuleType, tmp_path: Path) -> None:
    files = dict(embed.Bundle(bundle_of("small-lossless.eocm")).files)
    del files["parts.json"]
    tables = files["lossless/tables.bin"]
    for name, content in (("tables.bin", b""), ("lossless/tables.bin", tables[:-4]), ("parts.json", b"[" * 100_000)):
        wrong = {**files, name: content}
        (tmp_path / "bad.eocm").write_bytes(zipped(wrong))
        with pytest.raises(embed.Rejected, match=r"list of parts cannot be read|tables are damaged"):
            bundle = embed.Bundle(tmp_path / "bad.eocm")
            embed.decode(named("exact-grey", wrong), bundle)


def test_features_of_another_shape_are_refused(embed: ModuleType, tmp_path: Path) -> None:
    for files, data in looking_wrongly().values():
        (tmp_path / "bad.eocm").write_bytes(zipped(files))
        with pytest.raises(embed.Rejected, match=UNFIT):
            embed.decode(data, embed.Bundle(tmp_path / "bad.eocm"))


def test_a_bundle_may_have_256_entries(embed: ModuleType, bundles: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "many.eocm").write_bytes(zipped(MOST))
    found = embed.decode(named("small-tuned-coarse", MOST), embed.Bundle(tmp_path / "many.eocm"))
    assert np.array_equal(found, embed.decode(vector("small-tuned-coarse"), bundles["small.eocm"]))


def test_graphs_may_hold_what_the_library_allows(embed: ModuleType) -> None:
    assert embed.OPERATORS == OPERATORS
    assert embed.ANCESTORS  # of the shipped bundles, which test_bundles_may_lack_parts uses


@pytest.mark.parametrize("name", ["photo", "small.eocm"])
def test_bundles_may_lack_parts(embed: ModuleType, bundles: dict[str, Any], name: str, tmp_path: Path) -> None:
    if name == "photo":
        files = bundles[name].files  # with a list of parts
        files = {n: c for n, c in files.items() if n.startswith(("entropy/", "decoder")) or "/" not in n}
        files = {n: c for n, c in files.items() if n not in ("encoder.onnx", "progressive.bin")}
        data, others = vector("grey"), [vector("embedded-grey"), vector("lossless-grey")]
        expected = embed.decode(data, bundles[name])
    else:
        files = STRIPPED
        data, others = named("small-tuned-grey", files), [named("small-embedded", files)]
        expected = embed.decode(vector("small-tuned-grey"), bundles[name])
    (tmp_path / "less.eocm").write_bytes(zipped(files))
    less = embed.Bundle(tmp_path / "less.eocm")
    assert less.id == (bundles[name].id if name == "photo" else id_of(LISTED))
    assert np.array_equal(embed.decode(data, less), expected)
    for other in others:
        with pytest.raises(embed.Rejected, match="lacks"):
            embed.decode(other, less)


def test_pictures_beyond_the_limit_are_refused(embed: ModuleType, bundles: dict[str, Any]) -> None:
    with pytest.raises(embed.Rejected, match="33x17 pixels, more than the limit of 560"):
        embed.decode(vector("grey"), bundles["photo"], 33 * 17 - 1)
    assert embed.decode(vector("grey"), bundles["photo"], 33 * 17).shape == (17, 33, 3)


def test_a_bundle_of_other_content_is_another_model(embed: ModuleType, bundles: dict[str, Any], tmp_path: Path) -> None:
    assert bundles["small.eocm"].id[:4] == vector("small")[4:8]
    files = dict(bundles["small.eocm"].files)
    write_bundle(tmp_path / "same.eocm", {**files, "denoise/more.onnx": b""})
    assert embed.Bundle(tmp_path / "same.eocm").id == bundles["small.eocm"].id
    write_bundle(tmp_path / "other.eocm", {**files, "progressive.bin": files["progressive.bin"][:-1]})
    with pytest.raises(embed.Rejected, match=f"made with the model {vector('small')[4:8].hex()}"):
        embed.decode(vector("small"), embed.Bundle(tmp_path / "other.eocm"))


def test_the_command_writes_picture_and_symbols(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, bundle_of("photo"), VECTORS / "embedded-alpha.eoc", "out.png"]
    done = subprocess.run([*command, "--symbols", "out.bin"], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sorted(os.listdir(tmp_path)) == ["out.bin", "out.png"]
    expected = next(v for v in INDEX if v["name"] == "embedded-alpha")
    assert hashlib.sha256((tmp_path / "out.bin").read_bytes()).hexdigest() == expected["sha256"]
    image = Image.open(tmp_path / "out.png")
    assert image.mode == "RGBA"
    reference = np.asarray(Image.open(VECTORS / "embedded-alpha.png").convert("RGBA")).astype(int)
    assert np.abs(reference - np.asarray(image)).max() <= 1


@pytest.mark.parametrize("missing", ["photo.eocm", "picture.eoc", "folder"])
def test_the_command_says_what_is_missing(missing: str, tmp_path: Path) -> None:
    paths = [bundle_of("photo"), VECTORS / "grey.eoc", tmp_path / "out.png"]
    place = {"photo.eocm": 0, "picture.eoc": 1, "folder": 2}[missing]
    paths[place] = tmp_path / missing / "out.png" if missing == "folder" else tmp_path / missing
    done = subprocess.run([sys.executable, SCRIPT, *paths], cwd=tmp_path, capture_output=True, timeout=60, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"{paths[place]}: No such file or directory\n"
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("case", CLASHES)
def test_the_command_writes_over_nothing_that_it_reads(
    embed: ModuleType, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = clash(case, tmp_path)
    before = contents(tmp_path)
    assert embed.main(arguments) == 1
    printed, error = capsys.readouterr()
    assert said in error and error.count("\n") == 1 and not printed
    assert contents(tmp_path) == before


@pytest.mark.parametrize("limit", ["0", "-3", "many", "1e9", ""])
def test_the_limit_is_a_whole_number(
    embed: ModuleType, limit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(bundle_of("small.eocm")), str(VECTORS / "small.eoc"), str(tmp_path / "out.png")]
    with pytest.raises(SystemExit) as end:
        embed.main([*given, f"--max-pixels={limit}"])
    assert end.value.code == 2 and "is no whole number above 0" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_outputs_that_are_links_stay_links(embed: ModuleType, tmp_path: Path) -> None:
    link, picture = linked(tmp_path)
    assert embed.main([str(bundle_of("small.eocm")), str(VECTORS / "small.eoc"), str(link)]) == 0
    assert link.is_symlink() and picture.read_bytes().startswith(b"\x89PNG") and len(os.listdir(tmp_path)) == 2


def test_the_command_keeps_files_of_names_like_its_own(embed: ModuleType, tmp_path: Path) -> None:
    source = shutil.copy(VECTORS / "small.eoc", tmp_path / "out.png.part")
    before = source.read_bytes()
    assert embed.main([str(bundle_of("small.eocm")), str(source), str(tmp_path / "out.png")]) == 0
    assert source.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["out.png", "out.png.part"]


def test_the_command_writes_into_devices_and_pipes(embed: ModuleType) -> None:
    given = [str(bundle_of("small.eocm")), str(VECTORS / "small.eoc"), os.devnull, "--symbols", os.devnull]
    assert embed.main(given) == 0 and not Path(os.devnull).is_file()


def test_a_failed_write_leaves_the_old_file(embed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(part: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        embed.write(path, b"new")
    assert os.listdir(tmp_path) == ["out.png"] and path.read_bytes() == b"old"


def test_the_file_stands_alone() -> None:
    found = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level
            found.add(node.module.split(".")[0])
    allowed = {"numpy", "onnxruntime", "zstandard", "compression", "PIL"}
    assert found - set(sys.stdlib_module_names) <= allowed
    assert {"numpy", "onnxruntime"} <= found
