"""Pictures of 16 bits a sample, kept exactly and to any quality, in memory, in files and by command; and grey ones."""

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

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
from eocodec.errors import EocodecError, FormatError
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


def test_by_default_values_of_a_sensor_with_fewer_bits_are_not_lost(scene: Words) -> None:
    twelve = scene[..., :1].repeat(3, 2) >> 4
    done = codec.compress_picture(twelve)
    error = np.mean((eocodec.decompress(done.data, depth=16).astype(float) - twelve) ** 2)
    assert 10 * np.log10(4095**2 / error) > 36  # of 12 bits; at the step of all 16 it is 28
    assert any("its values fill 12 of 16 bits" in note for note in done.notes)
    wanted = codec.compress_picture(twelve, 96)
    assert len(wanted.data) < len(done.data) / 4 and wanted.rate < done.rate  # who names a rate has it
    whole = codec.compress_picture(scene)
    assert whole.rate == codec.compress_picture(scene, 96).rate and not any("fill" in note for note in whole.notes)


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
