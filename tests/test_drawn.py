"""Text, charts, pixel art and scans are kept exactly where that takes no more bytes; photographs are coded as ever."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image, ImageDraw, ImageFont

import eocodec
from eocodec import codec, format
from eocodec.coding.base import Coded
from eocodec.coding.drawn import Exact, is_drawn
from eocodec.image import Picture
from eocodec.model.bundle import Model


def _text(width: int = 240, height: int = 120) -> np.ndarray:
    image = Image.new("RGB", (width, height), "white")
    draw, font, rng = ImageDraw.Draw(image), ImageFont.load_default(13), np.random.default_rng(0)
    for y in range(6, height - 10, 18):
        draw.text((6, y), " ".join("".join(map(chr, rng.integers(97, 123, 6))) for _ in range(6)), "black", font)
    return np.asarray(image)


def _chart() -> np.ndarray:
    image = Image.new("RGB", (200, 140), "white")
    for k in range(14):
        ImageDraw.Draw(image).line((0, k * 9, 200, 140 - k * 7), (k * 15, 90, 250 - k * 15), 2)
    return np.asarray(image)


def _pixel_art() -> np.ndarray:
    cells = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    return cells.repeat(7, 0).repeat(7, 1)


def _scan() -> np.ndarray:
    return np.asarray(Image.fromarray(_text()).convert("1")) * np.uint8(255)


KINDS = {"text": _text, "chart": _chart, "pixel art": _pixel_art, "scan": _scan}


@pytest.mark.parametrize("kind", KINDS)
def test_no_lossy_file_is_larger_than_the_lossless_one(kind: str, model: Model) -> None:
    picture = KINDS[kind]()
    exact = len(eocodec.compress(picture, lossless=True, model=model))
    for target in ({}, {"bpp": 8 * (exact + 20) / picture.shape[0] / picture.shape[1]}, {"psnr": 40}, {"rate": 300}):
        done = codec.compress_picture(picture, model=model, measure=True, **target)  # type: ignore[arg-type]
        assert len(done.data) <= exact + 20
        if format.parse(done.data).lossless is not None:
            decoded = eocodec.decompress(done.data, model)
            assert (decoded == (picture if picture.ndim == 3 else picture[..., None])).all() and done.psnr == np.inf


def test_a_target_that_the_exact_file_meets_gets_it(model: Model) -> None:
    picture = _text()
    exact = eocodec.compress(picture, lossless=True, model=model)
    assert eocodec.compress(picture, max_bytes=len(exact), model=model) == exact
    smaller = eocodec.compress(picture, max_bytes=len(exact) // 2, model=model)
    assert len(smaller) <= len(exact) // 2


def test_photographs_are_coded_as_ever(samples: dict[str, np.ndarray], model: Model) -> None:
    for picture in samples.values():
        part = picture[:128, :192]
        if not is_drawn(part):
            assert format.parse(eocodec.compress(part, 200, model=model)).lossless is None


def test_models_without_exact_files_code_drawings_lossily(model: Model) -> None:
    files = {name: content for name, content in model.files.items() if not name.startswith("lossless/")}
    data = eocodec.compress(_text(), 40, model=Model(files, threads=1))
    assert format.parse(data).lossless is None


def test_progressive_files_stay_progressive(model: Model) -> None:
    assert format.parse(eocodec.compress(_chart(), progressive=True, model=model)).header.embedded


def test_the_exact_file_is_made_once_and_only_where_it_may_win() -> None:
    made = []
    header = format.Header(bytes(4), 64, 64, 1, format.LOSSLESS_STEP)
    file = format.File(header, None, (format.Segment(1, bytes(2960)),), lossless=bytes(13))
    size = len(format.to_bytes(file))
    assert 2950 < size < 3050

    def make() -> Coded:
        made.append(1)
        return Coded(file, 1)

    photo = Picture(np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB")))
    noise = Picture(np.random.default_rng(0).integers(0, 2, (128, 128, 1), np.uint8).repeat(3, 2) * 255)
    assert Exact(photo, make).within(20000) is None and Exact(noise, make).within(399) is None
    assert Exact(noise, make).within(1000) is None and not made
    exact = Exact(noise, make)
    assert exact.within(size - 1) is None and exact.within(size) is not None and len(made) == 1


def test_the_command_says_that_a_picture_is_kept_exactly(run: Runner, tmp_path: Path) -> None:
    Image.fromarray(_text()).save(tmp_path / "page.png")
    done = run("compress", "page.png", "--json")
    report = json.loads(done.stdout)
    assert report["lossless"] is True and "kept exactly" in report["warnings"][0] and b"kept exactly" in done.stderr
    assert run("decompress", "page.eoc", "-o", "back.png").returncode == 0
    assert (np.asarray(Image.open(tmp_path / "back.png").convert("RGB")) == _text()).all()
    assert io.BytesIO((tmp_path / "page.eoc").read_bytes()).read(3) == b"EOC"
