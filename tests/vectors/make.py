"""Make the test vectors that are not there yet. Those that are there are never changed: run it from the checkout.

Each names the model it needs: a shipped one, or `small.eocm`, `small-grey.eocm` or `small-lossless.eocm`, which have
what the first photo model has not (make_small.py).
Vectors of `photo` are of the first photo model, of which the package keeps the decoder; to make more of them takes the
bundle as it was with its encoder:

git show 1a85dd9:eocodec/models/photo.eocm >PHOTO.eocm
PYTHONPATH=.:tests python tests/vectors/make.py PHOTO.eocm
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from make_small import drawn
from paths import bundle_of
from PIL import Image, ImageDraw, ImageFont

import eocodec
from eocodec.codec import decode_file
from eocodec.coding import lossless
from eocodec.coding.fineness import StepTuning
from eocodec.coding.page import PageJob
from eocodec.coding.registry import ORDINARY, PAGE
from eocodec.coding.symbols import symbols
from eocodec.format import MAX_PIXELS, to_bytes
from eocodec.image import as_picture, to_pillow
from eocodec.regions import Region

HERE = Path(__file__).parent
PHOTO = Path(sys.argv[1]) if sys.argv[1:] else bundle_of("photo")
SMALL, SMALL_GREY, SMALL_LOSSLESS = (HERE / f"small{n}.eocm" for n in ("", "-grey", "-lossless"))  # make_small.py
SAMPLES = HERE.parent.parent / "samples"
LARGEST_PICTURE = 65536  # pixels; of larger vectors only the symbols are kept


def crop(name: str, left: int, top: int, width: int, height: int) -> np.ndarray:
    picture = np.asarray(Image.open(SAMPLES / f"{name}.png").convert("RGB"))
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def stretched(picture: np.ndarray) -> np.ndarray:
    """A picture with three of four levels."""
    return (picture.astype(int) * 3 // 4 * 4 // 3).astype(np.uint8)


def transparent_deep(plane: np.ndarray) -> np.ndarray:
    """Grey of 16 bits with transparency of 8, which zstd packs best."""
    alpha = np.random.default_rng(5).integers(0, 256, plane.shape).astype(np.uint16) * 257
    return np.dstack([plane, alpha])


def transparent(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    alpha = np.clip(300 - 4 * np.hypot(y - height / 2, x - width / 2) ** 1.3, 0, 255).astype(np.uint8)
    return np.dstack([picture, alpha])


def transparent_grey(picture: np.ndarray) -> np.ndarray:
    return transparent(np.repeat(picture[..., :1], 3, 2))


def drawing(width: int, height: int) -> np.ndarray:
    picture = np.full((height, width, 3), 250, np.uint8)
    picture[5:20, 8:30] = (200, 30, 30)
    picture[12:30, 22:40] = (20, 60, 180)
    return picture


def wide() -> np.ndarray:
    y, x = np.mgrid[:421, :2601]
    bands = [128 + 90 * np.sin(x / 90 + k) * np.cos(y / 70 - k) for k in range(3)]
    picture = np.dstack(bands).astype(np.uint8)
    picture[100:300, 700:1900] //= 2
    return picture


VECTORS: dict[str, Callable[[], bytes]] = {
    "colour": lambda: compress(crop("chelsea", 100, 60, 67, 45), rate=96),
    "segments": lambda: compress(crop("coffee", 200, 100, 203, 151), rate=250),
    "prefix": lambda: (HERE / "segments.eoc").read_bytes()[:3333],
    "header-only": lambda: eocodec.truncate((HERE / "segments.eoc").read_bytes(), max_bytes=30),
    "grey": lambda: compress(crop("rocket", 300, 100, 33, 17)[..., 1], rate=120),
    "alpha": lambda: compress(transparent(crop("astronaut", 180, 60, 52, 60)), rate=64),
    "one-pixel": lambda: compress(np.array([[[200, 30, 90]]], np.uint8), rate=96),
    "noise": lambda: compress(np.random.default_rng(0).integers(0, 256, (31, 29, 3), np.uint8), rate=768),
    "wide": lambda: compress(wide(), rate=8),
    "embedded": lambda: compress(crop("coffee", 240, 120, 130, 98), rate=300, progressive=True),
    "embedded-prefix": lambda: (HERE / "embedded.eoc").read_bytes()[:1501],
    "embedded-deep": lambda: compress(crop("chelsea", 150, 80, 32, 24), max_bytes=2600, progressive=True),
    "embedded-alpha": lambda: compress(transparent(crop("astronaut", 180, 60, 40, 33)), 90, progressive=True),
    "embedded-grey": lambda: compress(crop("rocket", 280, 90, 47, 70)[..., 0], rate=120, progressive=True),
    "lossless": lambda: compress(crop("chelsea", 120, 70, 61, 39), lossless=True),
    "lossless-grey": lambda: compress(crop("rocket", 300, 100, 33, 47)[..., 1], lossless=True),
    "lossless-alpha": lambda: compress(transparent(crop("coffee", 200, 100, 30, 31)), lossless=True),
    "lossless-weights": lambda: compress(stretched(crop("rocket", 300, 100, 110, 90)), lossless=True),
    "lossless-weights-grey": lambda: compress(stretched(crop("rocket", 300, 100, 91, 71))[..., 1], lossless=True),
    "lossless-packed": lambda: compress(drawing(64, 48), lossless=True),
    "face": lambda: compress(crop_face(), rate=300, model="face64"),
    "face-grey": lambda: compress(crop_face()[..., 0], rate=60, model="face64"),
    "face-tiny": lambda: compress(crop_face(), max_bytes=24, tiny=True, model="face64"),
    "face-fine": lambda: compress(crop_face(), psnr=42, model="face64"),
    "small": lambda: stepped(drawn(101, 75, 52), 48, 0),
    "small-tuned": lambda: stepped(drawn(102, 83, 61), 60, 32),
    "small-map": lambda: stepped(transparent(drawn(103, 90, 67)), 60, 32, mapped(90, 67)),
    "small-map-only": lambda: stepped(drawn(104, 131, 49), 24, 0, mapped(131, 49)),
    "small-tuned-prefix": lambda: stepped(drawn(105, 150, 121), 96, 13, mapped(150, 121))[:4444],
    "small-tuned-grey": lambda: stepped(drawn(106, 41, 33)[..., 0], 48, 20),
    "small-tuned-coarse": lambda: stepped(drawn(107, 64, 48), 1, 32),
    "small-strips": lambda: stepped(drawn(108, 2100, 290), 2, 32, mapped(2100, 290)),
    "small-embedded": lambda: compress(drawn(109, 70, 58), rate=60, progressive=True, model=SMALL),
    "luma": lambda: compress(crop("coffee", 200, 100, 203, 151)[..., 1], rate=150),
    "luma-prefix": lambda: (HERE / "luma.eoc").read_bytes()[:2500],
    "luma-fine": lambda: luma_alone(crop("rocket", 280, 90, 61, 47)[..., 0], 1.5, model=PHOTO),
    "small-luma": lambda: luma_alone(drawn(110, 77, 66)[..., 1], 20, 32),
    "small-luma-map": lambda: luma_alone(drawn(111, 84, 61)[..., 2], 6, 9, mapped(84, 61)),
    "deep": lambda: compress(light(crop("chelsea", 150, 80, 75, 58)), psnr=80),
    "deep-coarse": lambda: compress(light(crop("coffee", 240, 120, 90, 70)), rate=60),
    "deep-alpha": lambda: compress(transparent_deep(light(crop("astronaut", 180, 60, 33, 40))[..., 1]), psnr=70),
    "deep-luma": lambda: compress(light(crop("rocket", 300, 100, 95, 71))[..., 1], psnr=50),
    "deep-prefix": lambda: (HERE / "deep.eoc").read_bytes()[:9000],
    "small-deep": lambda: deep_file(light(drawn(112, 70, 53)), 0.07),
    "small-span": lambda: deep_file(light(drawn(120, 67, 52)) >> 4, 0.8, (0, 4095)),
    "small-span-alpha": lambda: deep_file(
        transparent_deep((light(drawn(121, 41, 48)) >> 6)[..., 1] + 31000), 6, (30990, 32050)
    ),
    "lossless-deep": lambda: compress(light(crop("chelsea", 120, 70, 85, 50)), lossless=True),
    "lossless-deep-grey": lambda: compress(light(crop("rocket", 300, 100, 60, 47))[..., 1], lossless=True),
    "lossless-deep-ranks": lambda: compress(light(crop("coffee", 200, 100, 40, 31)) >> 5 << 5, lossless=True),
    "lossless-deep-packed": lambda: compress(drawing(64, 48).astype(np.uint16) * 200 + 77, lossless=True),
    "lossless-deep-prefix": lambda: (HERE / "lossless-deep.eoc").read_bytes()[:9000],
    "small-page": lambda: page(transparent(sheet(190, 130, 113)), 32),
    "small-page-grey": lambda: page(sheet(190, 130, 114)[..., 1], 0)[:-9],
    "axis-deep": lambda: deep_file(light(drawn(122, 58, 47))[..., 0] >> 2, 0.3, (0, 16383), SMALL_GREY),
    "axis-deep-alpha": lambda: deep_file(transparent_deep(light(drawn(123, 40, 45))[..., 2]), 9, model=SMALL_GREY),
    "axis": lambda: stepped(drawn(115, 93, 70)[..., 0], 60, 0, model=SMALL_GREY),
    "axis-map": lambda: stepped(transparent_grey(drawn(116, 90, 67)), 60, 32, mapped(90, 67), SMALL_GREY),
    "axis-fine": lambda: stepped(drawn(117, 47, 38)[..., 0], 190, 0, model=SMALL_GREY),
    "axis-prefix": lambda: stepped(drawn(118, 150, 121)[..., 0], 96, 9, model=SMALL_GREY)[:-500],
    "axis-page": lambda: page(sheet(190, 130, 119)[..., 1], 0, SMALL_GREY),
    "exact": lambda: by_nets(crop("chelsea", 120, 70, 61, 39)),
    "exact-grey": lambda: by_nets(crop("rocket", 300, 100, 33, 47)[..., 1]),
    "exact-weights": lambda: by_nets(stretched(crop("rocket", 300, 100, 110, 90))),
    "exact-weights-grey": lambda: by_nets(stretched(crop("rocket", 300, 100, 91, 71))[..., 1]),
    "exact-deep": lambda: by_nets(light(crop("chelsea", 120, 70, 53, 46))),
    "exact-prefix": lambda: (HERE / "exact-weights.eoc").read_bytes()[:6000],
    "exact-strips": lambda: by_nets(ripples()),
}


def by_nets(picture: np.ndarray) -> bytes:
    """A lossless file of the model whose nets look around, in which nothing is packed, whatever that costs."""
    with patch.multiple(lossless, _packed=lambda samples, size, limit=None: b"", SURE=MAX_PIXELS * 4):
        return compress(picture, lossless=True, model=SMALL_LOSSLESS)


def ripples() -> np.ndarray:
    """A picture that is known well, grey, with more than a strip of samples in a phase."""
    y, x = np.mgrid[:264, :1024]
    return (128 + 60 * np.sin(x / 70 + np.cos(y / 50)) + 40 * np.cos(y / 40 - x / 90)).astype(np.uint8)


def compress(picture: np.ndarray, model: str | Path = PHOTO, **options: Any) -> bytes:
    """A file of the first photo model, or of another."""
    return eocodec.compress(picture, model=model, **options)


def light(picture: np.ndarray) -> np.ndarray:
    """A picture's light with a sensor's noise, 16 bits."""
    light = (picture / 255.0) ** 2.2
    noise = np.random.default_rng(0).normal(0, 1, light.shape) * np.sqrt(2e-6 + 4e-5 * light)
    return np.rint(np.clip(light + noise, 0, 1) * 65535).astype(np.uint16)


def deep_file(values: np.ndarray, delta: float, span: tuple[int, int] | None = None, model: Path = SMALL) -> bytes:
    """A file of a small model at a step of so many 8-bit levels, 16 bits a sample, coded between two values."""
    picture = replace(as_picture(values, 16), span=span)
    return to_bytes(ORDINARY.open(eocodec.load_model(model), picture, None).file(delta / 255))


def luma_alone(
    picture: np.ndarray, delta: float, tuning: int = 0, offsets: np.ndarray | None = None, model: Path = SMALL
) -> bytes:
    """A file at a step of so many levels that has no chroma units, whatever that costs."""
    job = ORDINARY.open(eocodec.load_model(model), as_picture(picture), None, StepTuning(tuning, offsets))
    job.luma_from = 0.0
    return to_bytes(job.file(delta / 255))


def stepped(
    picture: np.ndarray, rate: float, tuning: int, offsets: np.ndarray | None = None, model: Path = SMALL
) -> bytes:
    """A file of a small model."""
    loaded = eocodec.load_model(model)
    job = ORDINARY.open(loaded, as_picture(picture), None, StepTuning(tuning, offsets))
    return to_bytes(job.file(loaded.manifest.step_of(rate)))


PLACES = [Region(10, 12, 48, 61), Region(70, 110, 41, 66)]


def sheet(width: int, height: int, seed: int) -> np.ndarray:
    """Text with a picture at each of :data:`PLACES`."""
    image = Image.new("RGB", (width, height), (250, 248, 240))
    for k, line in enumerate(("A page of text", "and pictures", "on a layer of", "its own", "0123456789", "αβγ .,;:")):
        place, colour = (80 - 70 * (k > 2), 8 + 21 * k), (20 + 30 * k, 30, 60)
        ImageDraw.Draw(image).text(place, line, colour, ImageFont.load_default(13))
    result = np.array(image)
    for k, place in enumerate(PLACES):
        result[place.place] = drawn(seed + 10 * k, place.width, place.height)
    return result


def page(picture: np.ndarray, tuning: int, model: Path = SMALL) -> bytes:
    """A page of a small model with pictures at :data:`PLACES`."""
    loaded = eocodec.load_model(model)
    job = PageJob(PAGE, loaded, as_picture(picture), PLACES, None, StepTuning(tuning))
    return to_bytes(job.file(loaded.manifest.step_of(48)))


def mapped(width: int, height: int) -> np.ndarray:
    """A map of steps with all its values, for a picture of this size in blocks of 16 pixels."""
    y, x = np.mgrid[: -(-height // 16), : -(-width // 16)]
    return ((7 * x + 11 * y) % 65 - 32).astype(np.int8)


def crop_face() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))


def model_of(name: str) -> str:
    """The model that a vector is decoded with: a shipped one, or a bundle in this folder."""
    known = {"face": "face64", "small": SMALL.name, "axis": SMALL_GREY.name, "exact": SMALL_LOSSLESS.name}
    return known.get(name.split("-")[0], "photo")


def main() -> None:
    index = HERE / "vectors.json"
    known = json.loads(index.read_text()) if index.exists() else []
    for name, make in VECTORS.items():
        if any(v["name"] == name for v in known):
            continue
        data = make()
        (HERE / f"{name}.eoc").write_bytes(data)
        model = model_of(name)
        loaded = eocodec.load_model(bundle_of(model))
        decoded = decode_file(data, loaded)
        values = symbols(data, loaded).astype("<i4")
        height, width = decoded.rgb.shape[:2]
        entry = {
            "name": name,
            "model": model,
            "model_id": loaded.id.hex(),
            "width": width,
            "height": height,
            "depth": 8 * decoded.rgb.itemsize,
            "alpha": decoded.alpha is not None,
            "exact": name.startswith(("lossless", "exact")),
            "symbols": len(values),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
            "picture": height * width <= LARGEST_PICTURE,
        }
        if entry["picture"]:
            if decoded.rgb.dtype == np.uint16:
                picture = eocodec.decompress(data, loaded)
                cv2.imwrite(str(HERE / f"{name}.png"), np.dstack([picture[..., 2::-1], picture[..., 3:]]))
            else:
                image = to_pillow(decoded.rgb, decoded.alpha, decoded.grey)
                assert as_picture(image).pixels == width * height
                image.save(HERE / f"{name}.png", optimize=True)
        if name.startswith(("small-page", "axis-page")):  # not every reader has a decoder for what is inside
            entry["webp"] = True
        known.append(entry)
        print(name, len(data), "bytes", width, height, np.abs(values).max())
    index.write_text("[\n" + ",\n".join("  " + json.dumps(v) for v in known) + "\n]\n")


if __name__ == "__main__":
    main()
