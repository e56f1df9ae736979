"""Pictures of 16 bits a sample, kept exactly and to any quality, in memory, in files and by command; and grey ones."""

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from paths import MODELS, SAMPLES, Runner
from PIL import Image

import eocodec
from eocodec import codec, format, tiff
from eocodec.coding import deep, lossless_deep
from eocodec.coding.symbols import symbols
from eocodec.errors import EocodecError, EocodecWarning, FormatError
from eocodec.image import as_picture, read_picture
from eocodec.metrics import psnr
from eocodec.model import parts, transform
from eocodec.model.bundle import Model
from eocodec.model.library import bundle_files, load_model

Words = npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def scene() -> Words:
    """A photograph in linear light with a sensor's noise, 16 bits."""
    rgb = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[80:142, 140:267]
    light = (rgb / 255.0) ** 2.2
    noise = np.random.default_rng(0).normal(0, 1, light.shape) * np.sqrt(2e-6 + 4e-5 * light)
    return np.rint(np.clip(light + noise, 0, 1) * 65535).astype(np.uint16)


def _whole(picture: Words) -> Words:
    return np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture


# Lossy


@pytest.mark.slow
@pytest.mark.parametrize("target", [45, 70, 90])
def test_qualities_far_below_a_level_are_reached(scene: Words, target: int) -> None:
    done = codec.compress_picture(scene, psnr=target, verify=True, measure=True)
    got = eocodec.decompress(done.data)
    assert got.dtype == np.uint16 and done.depth == 16
    error = 10 * np.log10(65535**2 / np.mean((got.astype(float) - scene) ** 2))
    assert target <= error <= target + 0.1 and done.psnr == pytest.approx(error)
    assert format.parse(done.data).header.fine == {45: 0, 70: 2, 90: 6}[target]


@pytest.mark.parametrize("rate", [60, 700])
def test_qualities_that_are_measured_on_the_way_are_those_of_16_bits(scene: Words, rate: float) -> None:
    done = codec.compress_picture(scene, rate, measure=True, verify=True)
    assert done.depth == 16 and done.psnr == pytest.approx(psnr(scene, eocodec.decompress(done.data)), abs=1e-9)


def test_edges_beside_padding_do_not_limit_the_quality(scene: Words) -> None:
    picture = scene[:43, :70, 1]
    assert psnr(_whole(picture), eocodec.decompress(eocodec.compress(picture, psnr=92))) >= 92


@pytest.mark.slow
def test_fine_steps_cost_what_rate_and_distortion_say(scene: Words) -> None:
    """Where noise is all there is, an octave of the step is one bit a sample, and ten decibels are 1.66."""
    bits = [codec.compress_picture(scene, psnr=t).bits_per_pixel / 3 for t in (70, 80, 90)]
    assert np.allclose(np.diff(bits), 10 / (20 * np.log10(2)), rtol=0.06)


@pytest.mark.slow
def test_sizes_are_met_and_grey_and_alpha_stay(scene: Words) -> None:
    alpha = np.random.default_rng(1).integers(0, 65536, scene.shape[:2]).astype(np.uint16)
    done = codec.compress_picture(np.dstack([scene[..., 1], alpha]), max_bytes=15000, measure=True)
    assert 0.98 * 15000 - 8000 < len(done.data) <= 15000
    got = eocodec.decompress(done.data)
    assert got.shape == (*scene.shape[:2], 4) and (got[..., :3] == got[..., :1]).all()
    assert (got[..., 3] == np.rint(alpha / 257) * 257).all()
    assert format.parse(done.data).header.grey


@pytest.mark.slow
def test_symbols_of_fine_steps_do_not_depend_on_threads_or_graph_optimisation(scene: Words) -> None:
    data = eocodec.compress(scene[:64, :64], psnr=85)
    found = [symbols(data, load_model("photo", *s, "cpu")) for s in ((1, "off"), (2, "all"))]
    assert np.array_equal(*found) and len(np.unique(found[0])) > 100


def test_prefixes_are_pictures_and_damage_is_noticed(scene: Words) -> None:
    data = eocodec.compress(scene, psnr=80)
    ends = format.segment_ends(format.parse(data))
    got = [codec.decode_file(data[:end]).rgb for end in (ends[0], ends[len(ends) // 2], ends[-1])]
    assert psnr(scene, got[0]) < psnr(scene, got[1]) < psnr(scene, got[2])
    spoilt = bytearray(data)
    spoilt[ends[0] - 6] ^= 1
    with pytest.raises(FormatError, match="choice of tables does not match"):
        eocodec.decompress(bytes(spoilt))
    file = format.parse(data)
    for content in (b"x", file.tables[:-3] if file.tables else b""):
        with pytest.raises(FormatError, match="choice of tables cannot be read"):
            eocodec.decompress(format.serialise(replace(file, tables=content)))


def test_readers_that_do_not_know_the_flags_refuse_them(scene: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [eocodec.compress(scene[:32, :32], 60), eocodec.compress(scene[:32, :32], lossless=True)]
    before = Model(parts.strip(bundle_files(MODELS / "photo.eocm"), ("grey",)))  # whose model grey pictures take
    files.append(eocodec.compress((scene[..., 1] >> 8).astype(np.uint8), 60, model=before))
    monkeypatch.setattr(format, "KNOWN_FLAGS", 31)
    for data in files:
        with pytest.raises(FormatError, match="features this program does not know"):
            eocodec.decompress(data)


@pytest.mark.parametrize(
    ("flags", "message"), [(32 | 16, "16 bits"), (32 | 4, "16 bits"), (64, "luma"), (65 | 8, "luma")]
)
def test_flags_that_exclude_one_another_are_refused(flags: int, message: str) -> None:
    head = b"EOC\1" + load_model("photo").id + bytes([flags]) + bytes([8, 8, 0, 0, 0, 128, 9])
    with pytest.raises(FormatError, match=message):
        format.parse(head)


@pytest.mark.parametrize("options", [{"progressive": True}, {"denoise": 5}, {"tune": "eye"}, {"focus": (0, 0, 9, 9)}])
def test_what_cannot_keep_16_bits_says_so_or_takes_8(scene: Words, options: dict[str, object]) -> None:
    with pytest.raises(EocodecError, match="16 bits a sample are kept"):
        eocodec.compress(scene, depth=16, **options)  # type: ignore[arg-type]
    if "denoise" in options or "progressive" in options:
        data = eocodec.compress(scene[:40, :40], 60, **options)  # type: ignore[arg-type]
        assert eocodec.decompress(data).dtype == np.uint8


@pytest.mark.slow
def test_depths_are_chosen(scene: Words) -> None:
    eight = (scene[:40, :40] >> 8).astype(np.uint8)
    assert eocodec.decompress(eocodec.compress(scene[:40, :40], 60, depth=8)).dtype == np.uint8
    wide = eocodec.compress(eight, psnr=60, depth=16)
    assert psnr(eight.astype(np.uint16) * 257, eocodec.decompress(wide)) >= 60
    assert eocodec.decompress(wide, depth=8).dtype == np.uint8
    assert (eocodec.decompress(eocodec.compress(eight, lossless=True), depth=16) == eight.astype(np.uint16) * 257).all()
    for call in (lambda: eocodec.compress(eight, depth=12), lambda: eocodec.decompress(wide, depth=12)):
        with pytest.raises(EocodecError, match="8 or 16 bits"):
            call()


@pytest.mark.parametrize("bits", [12, 14])
def test_values_of_a_sensor_with_fewer_bits_are_coded_in_their_own_range(scene: Words, bits: int) -> None:
    top = (1 << bits) - 1
    sensor = scene >> 16 - bits
    done = codec.compress_picture(sensor, measure=True, verify=True)
    assert format.parse(done.data).header.span == (0, top)
    error = np.mean((eocodec.decompress(done.data).astype(float) - sensor) ** 2)
    assert 10 * np.log10(top**2 / error) > 36  # at the step of all 16 bits it is 28 for 12
    assert any(f"its values fill {bits} of 16 bits" in note for note in done.notes)
    assert codec.compress_picture(sensor, 96).data == done.data
    of_all = codec.compress_picture(sensor, psnr=done.psnr, value_range="full", measure=True)
    assert format.parse(of_all.data).header.span is None and not of_all.notes
    assert len(done.data) < (0.7 if bits == 12 else 0.95) * len(of_all.data)  # at equal PSNR


def test_a_picture_of_all_16_bits_is_coded_in_them(scene: Words) -> None:
    done = codec.compress_picture(scene)
    assert format.parse(done.data).header.span is None and not any("values" in note for note in done.notes)
    assert done.data == codec.compress_picture(scene, value_range="full").data


def test_values_far_from_zero_are_coded_in_the_range_they_fill_if_that_is_wanted(scene: Words) -> None:
    raised = (scene[..., :1].repeat(3, 2) >> 5) + np.uint16(31000)
    low, high = int(raised.min()), int(raised.max())
    usual = codec.compress_picture(raised, measure=True)
    assert any(f"all from {low} to {high}" in note and "value_range='filled'" in note for note in usual.notes)
    filled = codec.compress_picture(raised, value_range="filled", measure=True, verify=True)
    assert format.parse(filled.data).header.span == (low, high) and not filled.notes
    got = eocodec.decompress(filled.data)
    assert low <= got.min() and got.max() <= high and np.abs(got.astype(int) - raised).mean() < (high - low) / 60
    given = codec.compress_picture(raised, value_range=(low - 7, high + 9))
    assert format.parse(given.data).header.span == (low - 7, high + 9)
    wanted = codec.compress_picture(raised, psnr=filled.psnr, value_range="full")
    assert len(filled.data) < 0.85 * len(wanted.data)
    assert codec.compress_picture(raised, psnr=80, value_range="filled", measure=True).psnr == pytest.approx(
        80.05, abs=0.051
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("wide", "'bits', 'filled', 'full' or two whole numbers from 0 to 65535, not 'wide'"),
        ("", "not ''"),
        ((9, 9), "two whole numbers"),
        ((-1, 9), "two whole numbers"),
        ((0, 65536), "two whole numbers"),
        ((0.5, 9), "two whole numbers"),
        ((0, 1, 2), "two whole numbers"),
        (7, "two whole numbers"),
        ((1, 65000), "its values reach from 0 to 60000, beyond the range of 1 to 65000"),
    ],
)
def test_ranges_that_are_none_are_refused(wanted: Any, message: str) -> None:
    ramp = np.linspace(0, 60000, 256).astype(np.uint16).reshape(16, 16)
    with pytest.raises(EocodecError, match=message):
        eocodec.compress(ramp, value_range=wanted)


@pytest.mark.parametrize("options", [{"lossless": True}, {"depth": 8}, {"progressive": True}, {"denoise": 5}])
def test_a_range_goes_with_ordinary_files_of_16_bits(scene: Words, options: dict[str, Any]) -> None:
    why = "a lossless file keeps all values" if "lossless" in options else "of this one 8 are"
    with pytest.raises(EocodecError, match=f"16 bits a sample are kept in ordinary files; {why}"):
        eocodec.compress(scene[:20, :20], value_range="full", **options)
    with pytest.raises(EocodecError, match="a value range is for pictures of which 16 bits"):
        eocodec.compress(np.zeros((5, 5, 3), np.uint8), value_range="bits")


def test_damaged_ranges_are_refused(scene: Words) -> None:
    data = codec.compress_picture(scene[:40, :40] >> 4).data
    at = data.index(b"\xff\x0f", 9)  # 4095
    for low, high in ((0, 0), (4095, 4095), (9, 8)):
        broken = data[: at - 2] + low.to_bytes(2, "little") + high.to_bytes(2, "little") + data[at + 2 :]
        with pytest.raises(FormatError, match="range of values cannot be read"):
            format.parse(broken)
    with pytest.raises(FormatError, match="checksum"):
        format.parse(data[: at - 2] + b"\1" + data[at - 1 :])
    with pytest.raises(FormatError, match="range of values cannot be read"):
        format.parse(data[:8] + bytes([data[8] & ~32]) + data[9:])
    with pytest.raises(FormatError, match="features this program does not know"):
        format.parse(data[:8] + bytes([data[8] | 8]) + data[9:])
    file = format.parse(data)
    for span in ((5, 5), (-1, 9), (0, 65536)):
        with pytest.raises(FormatError, match="the least of which comes first"):
            format.serialise(replace(file, header=replace(file.header, span=span)))


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"value_range": "full", "psnr": 75}])
def test_values_of_few_bits_are_taken_as_so_many_in_8(scene: Words, options: dict[str, Any]) -> None:
    """As those of picture files are: 12 bits are seen, and said, unless the file takes them as dark ones of 16."""
    twelve = scene >> 4
    data = eocodec.compress(twelve, **options)
    decoded = codec.decode_file(data)
    seen = eocodec.decompress(data, depth=8)
    white = 65535 if "psnr" in options else 4095
    assert decoded.white == codec.decode_file(data, depth=8).white == white
    assert np.array_equal(seen, decoded.eight_bit())
    assert np.abs(seen / 255 - decoded.rgb / white).max() < 0.51 / 255


def test_pictures_of_few_bits_are_written_as_so_many_of_8(scene: Words, tmp_path: Path, run: Runner) -> None:
    source, jpeg, png = tmp_path / "twelve.eoc", tmp_path / "twelve.jpg", tmp_path / "twelve.png"
    source.write_bytes(eocodec.compress(scene >> 4, 200))
    for target, depth in ((jpeg, ()), (png, ("--depth", "8"))):
        done = json.loads(run("decompress", *depth, "--json", str(source), "-o", str(target)).stdout)
        assert any("fill 12 of 16 bits; they are taken as 12-bit values" in said for said in done["warnings"])
        assert psnr((scene >> 8).astype(np.uint8), np.asarray(Image.open(target).convert("RGB"))) > 28
    assert not json.loads(run("decompress", "-f", "--json", str(source), "-o", str(png)).stdout)["warnings"]
    source.write_bytes(eocodec.compress((scene >> 6) + np.uint16(30000), 200, value_range="filled"))
    done = json.loads(run("decompress", "-f", "--json", str(source), "-o", str(jpeg)).stdout)
    assert any("next to no levels of them remain in 8 bits" in said for said in done["warnings"])


def test_tables_are_chosen_by_what_they_cost() -> None:
    random = np.random.default_rng(0)
    bits = deep.code_lengths(load_model("photo").tables)
    for scale in (0.2, 3.0, 400.0, 60000.0):
        m = np.rint(random.laplace(0, scale, 4000)).astype(np.int32)
        choice = deep.choose(3, [[(m, np.full(4000, 20, np.uint8))]], bits)
        table, rest = choice.tables(0, np.array([20], np.uint8))
        chosen = 0.05 * 2 ** (int(table[0]) / 5 + int(rest[0]))
        assert 0.5 < chosen / np.abs(m).mean() < 2.5
        assert np.array_equal(deep.Choice.unpack(choice.pack(), 3, 1).corrections, choice.corrections)


# Lossless


@pytest.mark.parametrize("shape", [(16, 20, 4), (16, 20, 2)])
def test_transparency_of_more_than_8_bits_is_refused_or_said(
    shape: tuple[int, ...], tmp_path: Path, call: Runner
) -> None:
    values = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    with pytest.raises(EocodecError, match="this picture's transparency has more bits a sample than the 8"):
        eocodec.compress(values, lossless=True)
    with pytest.warns(EocodecWarning, match="its transparency has more than 8 bits a sample, of which 8 are kept"):
        eocodec.compress(values)
    fitting = values.copy()
    fitting[..., -1] = values[..., -1] // 257 * 257
    assert np.array_equal(eocodec.decompress(eocodec.compress(fitting, lossless=True))[..., 3], fitting[..., -1])
    if shape[2] == 4:
        for name, colours in (("deep.png", values[..., :3]), ("shallow.png", values[..., :3] // 257 * 257)):
            cv2.imwrite(str(tmp_path / name), np.dstack([colours, values[..., 3]]))
            refused = call("compress", "--lossless", name, "-o", "a.eoc")
            assert refused.returncode == 1 and b"transparency has more bits" in refused.stderr
            assert not (tmp_path / "a.eoc").exists()
            said = call("compress", "-f", name, "-o", "b.eoc").stderr
            assert b"of which 8 are kept" in said and b"it is kept exactly" not in said
        cv2.imwrite(str(tmp_path / "fits.png"), fitting)
        done = call("compress", "--lossless", "fits.png", "-o", "c.eoc")
        assert done.returncode == 0 and b"transparency has" not in done.stderr
        got = eocodec.decompress((tmp_path / "c.eoc").read_bytes())
        assert np.array_equal(got, fitting[..., [2, 1, 0, 3]])


def _pictures(scene: Words) -> dict[str, Words]:
    random = np.random.default_rng(2)
    return {
        "scene": scene,
        "grey": scene[..., 1],
        "12 bits": scene >> 4,
        "12 bits, scaled": (np.rint(scene / 65535 * 4095) * (65535 / 4095)).astype(np.uint16),
        "noise": random.integers(0, 65536, (19, 23, 3)).astype(np.uint16),
        "extremes": random.choice(np.array([0, 1, 65534, 65535], np.uint16), (17, 30, 3)),
        "one": scene[:1, :1],
        "row": scene[:1],
        "column": scene[:50, :1, 0],
        "flat": np.full((20, 31), 777, np.uint16),
    }


@pytest.mark.parametrize("name", _pictures(np.zeros((96, 128, 3), np.uint16)))
def test_every_value_comes_back(scene: Words, name: str) -> None:
    picture = _pictures(scene)[name]
    done = codec.compress_picture(picture, lossless=True, measure=True, verify=True)
    got = eocodec.decompress(done.data)
    assert got.dtype == np.uint16 and np.array_equal(got, _whole(picture)) and done.psnr == float("inf")
    png = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1]
    assert len(done.data) < len(png)


@pytest.mark.slow
def test_sensor_data_takes_far_fewer_bytes_than_png_and_jpeg_2000(scene: Words) -> None:
    for picture, most in ((scene, 0.83), (scene >> 4, 0.7)):
        size = len(eocodec.compress(picture, lossless=True))
        png = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        jp2 = cv2.imencode(".jp2", picture, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1]
        assert size < most * len(png) and size < 0.95 * len(jp2)


@pytest.mark.slow
def test_values_with_gaps_are_coded_by_rank(scene: Words) -> None:
    twelve = scene >> 4
    usual, spread = (len(eocodec.compress(p, lossless=True)) for p in (twelve, twelve << 4))
    assert spread < 1.02 * usual
    assert lossless_deep.ranks_of(twelve << 4)[1] is not None and lossless_deep.ranks_of(scene)[1] is None


@pytest.mark.slow
def test_lossless_files_of_16_bits_are_checked(scene: Words, model: Model) -> None:
    data = eocodec.compress(scene, lossless=True)
    file = format.parse(data)
    other = replace(file, lossless=bytes([(file.lossless or b"")[0] ^ 1]) + (file.lossless or b"")[1:])
    with pytest.raises(FormatError, match="pixels are not those"):
        eocodec.decompress(format.serialise(other))
    for content in (
        b"",
        b"12345",
        b"1234\x08\0\0\0\0",
        b"1234\0\x09\0\0\0",
        b"1234\4\xff\xff",
        b"1234\0\0\0\0\xff",
        b"1234\0\0\1\0\0",
    ):
        with pytest.raises(FormatError):
            eocodec.decompress(format.serialise(replace(file, lossless=content)))
    half = codec.decode_file(data[: format.segment_ends(file)[len(file.segments) // 2]])
    assert not half.complete and half.rgb.dtype == np.uint16 and psnr(scene, half.rgb) > 15
    assert np.array_equal(symbols(data, model), scene.ravel())


@pytest.mark.slow
def test_no_lossy_file_is_larger_than_the_exact_one(scene: Words) -> None:
    drawing = np.zeros((48, 64, 3), np.uint16)
    drawing[8:20, 10:50], drawing[30:33] = (51000, 200, 9000), (0, 40000, 65400)
    part = np.ascontiguousarray(scene[:40, :56])
    for picture in (drawing, drawing[..., 0], part, part[..., 1]):
        exact = eocodec.compress(picture, lossless=True)
        rate = 8 * len(exact) / (picture.shape[0] * picture.shape[1])
        options: list[dict[str, float]] = [{"bpp": 40}, {"bpp": rate + 0.01}, {"max_bytes": len(exact)}]
        for target in [*options, {"rate": 700}] if picture.base is drawing or picture is drawing else options:
            done = codec.compress_picture(picture, measure=True, **target)  # type: ignore[arg-type]
            assert (len(done.data), done.psnr, done.depth) == (len(exact), np.inf, 16)
        assert len(eocodec.compress(picture, max_bytes=len(exact) - 1)) < len(exact)
    assert eocodec.compress(drawing, psnr=99) == eocodec.compress(drawing, lossless=True)


# Files


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [True, False], ids=["grey", "colour"])
def test_commands_keep_16_bits(scene: Words, call: Runner, tmp_path: Path, suffix: str, grey: bool) -> None:
    picture = scene[:40, :50, 1] if grey else scene[:40, :50]
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), picture if grey else picture[..., ::-1])
    done = call("compress", "--lossless", "--json", f"a{suffix}", "-o", "a.eoc")
    report = json.loads(done.stdout)
    assert report["depth"] == 16 and "--depth 8" in report["warnings"][0] and b"16 bits" in done.stderr
    done = call("decompress", "--json", "a.eoc", "-o", f"b{suffix}")
    assert json.loads(done.stdout)["depth"] == 16
    back = cv2.imread(str(tmp_path / f"b{suffix}"), cv2.IMREAD_UNCHANGED)
    assert back.dtype == np.uint16 and np.array_equal(back if grey else back[..., ::-1], picture)


@pytest.mark.slow
def test_depths_of_commands(scene: Words, call: Runner, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene[:40, :50, ::-1])
    report = json.loads(call("compress", "--json", "--depth", "16", "--psnr", "70", "a.png").stdout)
    assert report["depth"] == 16 and 70 <= report["psnr"] <= 70.1 and report["warnings"] == []
    assert json.loads(call("info", "--json", "a.eoc").stdout)["depth"] == 16
    done = call("decompress", "a.eoc", "-o", "b.webp")
    assert done.returncode == 0 and b"rounded to 8" in done.stderr
    assert call("decompress", "--depth", "8", "a.eoc", "-o", "c.png").returncode == 0
    assert Image.open(tmp_path / "c.png").mode == "RGB" and not read_picture(tmp_path / "c.png").deep
    assert b".webp; use .png or .tif" in call("decompress", "--depth", "16", "a.eoc", "-o", "d.webp").stderr
    assert json.loads(call("compress", "--json", "--depth", "8", "a.png", "-o", "e.eoc").stdout)["depth"] == 8


@pytest.mark.parametrize("given", ["wide", "5", "9:9", "9:5", "-1:9", "0:65536", "0:9:9", "0x1:9", ":"])
def test_ranges_of_the_command(scene: Words, call: Runner, tmp_path: Path, given: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), (scene[:40, :50, 1] >> 4) + 100)
    for wanted, span in (("bits", [0, 4095]), ("0:5000", [0, 5000]), ("full", None)):
        assert call("compress", "--range", wanted, "-f", "a.png").returncode == 0
        assert json.loads(call("info", "--json", "a.eoc").stdout)["range"] == span
    assert call("compress", "--range", "100:5000", "a.png", "-o", "b.eoc").returncode == 0
    assert (
        b"colour" not in call("info", "b.eoc").stdout and b"of 16 bits from 100 to 5000" in call("info", "b.eoc").stdout
    )
    refused = call("compress", f"--range={given}", "a.png", "-o", "c.eoc")
    assert refused.returncode == 2 and b"is not bits, filled, full or LOW:HIGH" in refused.stderr
    beyond = call("compress", "--range", "200:300", "a.png", "-o", "c.eoc")
    assert beyond.returncode == 1 and b"beyond the range of 200 to 300" in beyond.stderr
    assert not (tmp_path / "c.eoc").exists()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_colours_of_16_bits_are_turned_as_the_file_says(scene: Words, tmp_path: Path, orientation: int) -> None:
    picture = np.ascontiguousarray(scene[:20, :30])
    plain = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    with Image.open(SAMPLES / "chelsea.png") as image:
        exif = image.getexif()
        exif[0x0112] = orientation
    chunk = exif.tobytes()[6:] if exif.tobytes().startswith(b"Exif\0\0") else exif.tobytes()
    block = len(chunk).to_bytes(4, "big") + b"eXIf" + chunk + zlib.crc32(b"eXIf" + chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(plain[:33] + block + plain[33:])
    read = read_picture(tmp_path / "a.png")
    want = {1: picture, 3: picture[::-1, ::-1], 6: np.rot90(picture, -1), 8: np.rot90(picture)}[orientation]
    assert read.wide is not None and np.array_equal(read.wide, want)


@pytest.mark.parametrize("kind", ["P6", "P3"])
@pytest.mark.parametrize("maximum", [65535, 1023])
def test_colours_of_16_bits_of_ppm_files_are_read(kind: str, maximum: int) -> None:
    values = np.random.default_rng(0).integers(0, maximum + 1, (7, 9, 3))
    body = values.astype(">u2").tobytes() if kind == "P6" else " ".join(map(str, values.ravel())).encode()
    read = read_picture(io.BytesIO(b"%s\n# a comment\n9 7\n%d\n" % (kind.encode(), maximum) + body))
    assert read.deep and read.keeps == 16 and not read.notes
    assert np.array_equal(read.at_depth(16).rgb, np.rint(values / maximum * 65535))
    assert np.abs(read.rgb - values / maximum * 255).max() <= 0.51
    eight = (values * 255 // maximum * 257).astype(">u2").tobytes()
    assert not read_picture(io.BytesIO(b"P6 9 7 65535\n" + eight)).deep


def test_colours_of_16_bits_of_further_pages_are_read(scene: Words, tmp_path: Path) -> None:
    pages = [np.ascontiguousarray(scene[k : k + 20, : 30 - k]) for k in (0, 3, 9)]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), [page[..., ::-1] for page in pages])
    for frame, page in enumerate(pages):
        read = read_picture(tmp_path / "a.tif", frame=frame)
        assert read.keeps == 16 and np.array_equal(read.at_depth(16).rgb, page)


@pytest.mark.parametrize("big", [False, True])
def test_any_page_of_a_tiff_file_can_be_its_first(big: bool) -> None:
    pages = [Image.new("L", (5, 4), k) for k in (10, 20, 30)]
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:], big_tiff=big)
    for frame, page in enumerate(pages):
        assert np.array_equal(read_picture(io.BytesIO(tiff.starting_at(out.getvalue(), frame))).rgb[..., 0], page)
    assert tiff.starting_at(out.getvalue(), 3) == out.getvalue()


def test_colours_of_16_bits_that_cannot_be_read_are_said(scene: Words) -> None:
    pixels = scene[:20, :30]
    header = struct.pack(">HBBHHHH", 474, 0, 2, 3, 30, 20, 3).ljust(512, b"\0")
    read = read_picture(io.BytesIO(header + pixels[::-1].transpose(2, 0, 1).astype(">u2").tobytes()))
    assert read.deep and np.array_equal(read.rgb, pixels >> 8)
    assert read.notes == ("its samples have more than 8 bits, of which 8 are read",)
    with pytest.raises(EocodecError, match=r"of which 8 are read\); convert .* or make it a PNG or TIFF file"):
        eocodec.compress(read, lossless=True)


def test_lossless_files_say_that_a_depth_of_8_is_what_keeps_16_bits_out(scene: Words) -> None:
    for picture in (scene[:20, :30], as_picture(scene[:20, :30], None)):
        with pytest.raises(EocodecError, match="than a depth of 8 holds; leave the depth out"):
            eocodec.compress(picture, lossless=True, depth=8)


# Grey


@pytest.mark.slow
def test_grey_files_leave_chroma_out_where_it_is_next_to_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("L"))[60:220, 130:330]
    names: list[str] = []
    run = type(model).run
    monkeypatch.setattr(type(model), "run", lambda self, name, inputs: names.append(name) or run(self, name, inputs))
    data = eocodec.compress(grey, psnr=31)
    header = format.parse(data).header
    assert header.luma and header.grey
    got = eocodec.decompress(data)
    assert not any("chroma" in name for name in names)
    assert (
        {"flow", "decoder"} & set(names)
        and (got == got[..., :1]).all()
        and psnr(np.repeat(grey[..., None], 3, 2), got) >= 31
    )
    done = codec.compress_picture(grey, 20, measure=True)  # measured on the way, in place of the latents
    assert format.parse(done.data).header.luma and done.psnr is not None
    assert done.psnr == pytest.approx(psnr(np.repeat(grey[..., None], 3, 2), eocodec.decompress(done.data)), abs=1e-9)
    fine = format.parse(eocodec.compress(grey, psnr=75, depth=16)).header
    assert not fine.luma and fine.deep  # chroma would be missed


def test_the_flow_alone_is_the_decoder_at_a_step_too_fine_for_its_refinement(model: Model) -> None:
    rgb = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[:64, :96]
    latents = transform.analyse(model, rgb)
    plain = transform.synthesise(model, latents, 0.5, 96, 64, refined=False)
    assert np.array_equal(plain, transform.synthesise(model, latents, 1e-6, 96, 64)) and np.array_equal(plain, rgb)
