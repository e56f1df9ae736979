"""The Pillow plugin: opening is lazy, modes and errors are as Pillow's users know them, prefixes are pictures."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES, VECTORS, environment
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

import eocodec.pillow
from eocodec import format
from eocodec.codec import compress, decompress, truncate
from eocodec.model import shelf
from eocodec.model.library import load_model
from eocodec.pillow import EocImageFile, rate_of_quality


@pytest.fixture
def crop() -> Image.Image:
    return Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((100, 50, 220, 110))


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    yield


def saved(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "EOC", **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_save_and_open_by_extension(crop: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "x.eoc", rate=60)
    assert (tmp_path / "x.eoc").read_bytes() == compress(crop, rate=60)
    with Image.open(tmp_path / "x.eoc") as image:
        assert (image.format, image.size, image.mode) == ("EOC", (120, 60), "RGB")
        assert image.get_format_mimetype() == Image.MIME["EOC"] == "image/x-eoc"
        assert image.info == {"model": load_model("photo").id.hex(), "lossless": False, "progressive": False}
        assert np.array_equal(np.asarray(image), decompress((tmp_path / "x.eoc").read_bytes()))
        assert image.info["complete"] is True
        image.putpixel((0, 0), (1, 2, 3))
        assert image.copy().getpixel((0, 0)) == (1, 2, 3)
    assert Image.registered_extensions()[".eoc"] == "EOC"


def test_opening_needs_the_header_alone(tmp_path: Path, crop: Image.Image) -> None:
    crop.save(tmp_path / "x.eoc")
    script = """
import sys
from PIL import Image
import eocodec.pillow
image = Image.open("x.eoc")
assert image.size == (120, 60) and image.mode == "RGB" and image.fp.tell() <= 4096
assert "onnxruntime" not in sys.modules
image.load()
assert "onnxruntime" in sys.modules and image.fp is None
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment())


@pytest.mark.parametrize("options", [{"tune": "psnr"}, {"focus": (8, 8, 30, 20)}, {"effort": 1}])
def test_options_are_those_of_compress(crop: Image.Image, options: dict[str, Any]) -> None:
    if "effort" in options:
        pytest.importorskip("torch")
    assert saved(crop, rate=40, **options) == compress(crop, 40, **options) != compress(crop, 40)


@pytest.mark.parametrize(
    ("mode", "back"),
    [("L", "L"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("LA", "RGBA"), ("P", "RGB"), ("1", "L"), ("CMYK", "RGB")],
)
@pytest.mark.parametrize("options", [{"rate": 90}, {"lossless": True}, {"progressive": True}])
def test_modes(crop: Image.Image, mode: str, back: str, options: dict[str, Any]) -> None:
    if mode.endswith("A"):
        crop.putalpha(Image.linear_gradient("L").resize(crop.size))
    picture = crop.convert(mode)
    image = opened(saved(picture, **options))
    assert image.mode == back and image.size == crop.size  # before it is decoded
    image.load()
    exact = "lossless" in options or (mode in ("P", "1") and "rate" in options)  # few colours: no smaller lossy file
    assert image.mode == back and image.info["lossless"] == exact
    assert image.info["progressive"] == ("progressive" in options)
    expected = np.asarray(picture.convert(back)).astype(float)
    difference = np.asarray(image) - expected
    if "lossless" in options and mode != "CMYK":
        assert not difference.any()
    assert np.sqrt(np.mean(difference**2)) < 8
    if back == "RGBA":
        assert not difference[:, :, 3].any()


@pytest.mark.slow
def test_targets_are_met(crop: Image.Image) -> None:
    assert len(saved(crop, max_bytes=1500)) <= 1500
    assert 8 * len(saved(crop, bpp=0.5)) <= 0.5 * 120 * 60
    difference = np.asarray(opened(saved(crop, psnr=36))).astype(float) - np.asarray(crop)
    assert 36 <= 10 * np.log10(255**2 / np.mean(difference**2)) <= 36.1
    assert saved(crop, denoise="auto", rate=40) == compress(crop, 40, denoise="auto")
    face = Image.open(SAMPLES / "faces" / "astronaut.png")
    assert saved(face, model="face64", rate=500) == compress(face, 500, model="face64")
    assert opened(saved(face, model="face64")).size == (64, 64)


@pytest.mark.slow
def test_quality_is_monotone_and_says_nothing_of_lossless_files(crop: Image.Image) -> None:
    rates = [rate_of_quality(q) for q in range(1, 101)]
    assert rates == sorted(rates) and rates[0] == 1 and rates[-1] == 768
    sizes = [len(saved(crop, quality=q)) for q in (1, 10, 30, 50, 70, 90, 100)]
    assert sizes == sorted(sizes)
    assert saved(crop, quality=75) == compress(crop, rate_of_quality(75))
    assert np.array_equal(opened(saved(crop, quality=75, lossless=True)), crop)
    assert saved(crop) == compress(crop)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": 10, "bpp": 1},
        {"quality": 50, "bpp": 1},
        {"quality": 50, "rate": 20},
        {"quality": 50, "max_bytes": 900},
        {"quality": 50, "psnr": 36},
        {"quality": 0},
        {"quality": 101},
        {"quality": "keep"},
        {"psnr": -1},
        {"lossless": True, "progressive": True},
        {"max_bytes": 3},
    ],
)
def test_options_that_make_no_sense_are_value_errors(
    crop: Image.Image, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        crop.save(tmp_path / "x.eoc", **options)
    assert not (tmp_path / "x.eoc").exists()


def test_a_model_that_is_not_there_is_an_os_error(crop: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nope"):
        crop.save(tmp_path / "x.eoc", model="nope")
    raw = bytearray(compress(crop, 4, tune="psnr"))
    assert format.parse(bytes(raw)).shifts is None  # nothing with a checksum comes before the picture
    raw[4:8] = b"none"
    image = opened(bytes(raw))
    with pytest.raises(OSError):
        image.load()


def test_a_model_of_ones_own_can_be_added(crop: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.eocm"
    mine.write_bytes(shelf.shipped_models()["photo"].read_bytes())
    data = saved(crop, model=str(mine))
    monkeypatch.setattr(shelf, "SHIPPED", tmp_path / "nothing")
    with pytest.raises(OSError, match="not installed"):
        opened(data).load()
    monkeypatch.setattr(eocodec.pillow, "_bundles", {})
    eocodec.pillow.add_model(str(mine))
    opened(data).load()


@pytest.mark.slow
def test_a_prefix_is_a_picture_at_a_lower_rate() -> None:
    crop = Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((100, 50, 260, 170))  # large enough for segments
    for options in ({"rate": 200}, {"progressive": True, "rate": 200}):
        data = saved(crop, **options)
        image = opened(data[: len(data) * 2 // 3])
        assert image.size == crop.size
        assert np.array_equal(image, decompress(data[: len(data) * 2 // 3]))
        assert image.info["complete"] is False
    shorter = truncate(data, max_bytes=800)
    assert np.array_equal(opened(shorter), decompress(shorter))


@pytest.mark.usefixtures("lenient")
def test_load_truncated_images_gives_what_is_there(crop: Image.Image) -> None:
    data = saved(crop, rate=500)
    start, *later = format.segment_ends(format.parse(data))
    assert np.asarray(opened(data[: start + 3])).std((0, 1)).max() < 2  # flat: no segment is there
    damaged = bytearray(data)
    damaged[later[-1] - 20] ^= 1  # in the last segment
    assert np.asarray(opened(bytes(damaged))).std((0, 1)).min() > 5
    exact = saved(crop, lossless=True)
    assert np.asarray(opened(exact[: len(exact) // 2])).shape == (60, 120, 3)


def test_a_cut_without_a_picture_and_damage_are_os_errors(crop: Image.Image) -> None:
    data, exact = saved(crop, rate=200), saved(crop, lossless=True)
    start = format.segment_ends(format.parse(data))[0]
    for cut in (data[: start + 3], exact[: len(exact) // 2]):
        image = opened(cut)
        with pytest.raises(OSError, match="image file is truncated"):
            image.load()
    for position in (start + 20, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 1
        image = opened(bytes(damaged))  # the header is well
        with pytest.raises(OSError, match="damaged"):
            image.load()
        with pytest.raises(OSError, match="damaged"):
            opened(bytes(damaged)).verify()
    opened(data).verify()
    for cut in (data[:4], data[:9], data[:13]):
        with pytest.raises(OSError, match="cut off"):
            opened(cut)
    alpha = crop.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(crop.size))
    raw = bytearray(saved(alpha))
    raw[40] ^= 1
    with pytest.raises(OSError, match="damaged"):
        opened(bytes(raw))


@pytest.mark.parametrize("content", [b"", b"EOC", b"EOC\x02" + bytes(40), b"\xf8\x20abc", b"not a picture at all"])
def test_foreign_files_are_not_identified(content: bytes) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(content)


def test_claims_of_a_header_are_bounded() -> None:
    header = format.Header(b"\x26\xcc\x94\xc0", 1 << 14, 1 << 14, 64, 40000)
    data = format.serialise(format.File(header, None, ()))
    with pytest.raises(Image.DecompressionBombError):
        opened(data)
    with pytest.raises(OSError, match="beyond"):
        opened(data[:9] + b"\xff\xff\xff\x7f" * 2 + data[11:])


def test_orientation_is_applied_since_files_hold_none(crop: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    crop.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        image = opened(saved(turned, lossless=True))
        assert image.size == (60, 120) and np.array_equal(image, ImageOps.exif_transpose(turned))


def test_thumbnails_copies_and_conversions(crop: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "x.eoc")
    with Image.open(tmp_path / "x.eoc") as image:
        assert isinstance(image, EocImageFile)
        assert image.convert("L").mode == "L" and image.resize((10, 10)).size == (10, 10)
        image.thumbnail((50, 50))
        assert image.size == (50, 25)
    with (tmp_path / "x.eoc").open("rb") as stream:
        image = Image.open(stream)
        image.load()
        assert not stream.closed  # it is the caller's


@pytest.mark.parametrize("name", ["colour", "alpha", "embedded-grey"])
def test_a_parser_that_is_fed_piece_by_piece_knows_the_size_and_gives_the_picture(name: str) -> None:
    data = (VECTORS / f"{name}.eoc").read_bytes()
    parser = ImageFile.Parser()
    for start in range(0, len(data), 100):
        parser.feed(data[start : start + 100])
    expected = Image.open(io.BytesIO(data))
    image = parser.close()
    assert image.size == expected.size and image.mode == expected.mode
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_all_of_one_frame_is_saved_and_several_are_refused(crop: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "x.eoc", save_all=True, rate=20)
    assert (tmp_path / "x.eoc").read_bytes() == saved(crop, rate=20)
    with pytest.raises(ValueError, match=r"^an \.eoc file holds one picture, not 2 frames; "):
        crop.save(tmp_path / "y.eoc", save_all=True, append_images=[crop])
    film = io.BytesIO()
    crop.save(film, "GIF", save_all=True, append_images=[crop.rotate(180), crop.rotate(90)])
    with pytest.raises(ValueError, match="not 3 frames"), Image.open(film) as frames:
        frames.save(tmp_path / "y.eoc", save_all=True)
    assert not (tmp_path / "y.eoc").exists()
