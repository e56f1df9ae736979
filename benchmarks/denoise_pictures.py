"""Crops of noisy, denoised and clean pictures side by side, as a PNG for the documentation.

    python benchmarks/denoise_pictures.py OUT --crop FILE X,Y,W,H SIGMA [--crop …] [--method net] [--noise gaussian]

One row for each crop: noisy | eocodec | BM3D, where the package `bm3d` is installed | clean, enlarged three times
without interpolation. Noise (seed: the row's number, from 0; not clipped before the methods get it) is added to the
whole picture and removed from all of it, with the level told; labels are the PSNR of the whole picture, clipped to 0
to 255. Needs the extra `bench`.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eocodec.bench.denoising import NOISES, add_noise
from eocodec.bench.pictures import Bytes
from eocodec.denoising import denoise_picture
from eocodec.errors import EocodecError
from eocodec.image import atomic_write, read_picture
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

SCALE = 3
GAP, CAPTION = 6, 22  # pixels
LARGEST = 900_000  # bytes
Crop = tuple[Path, tuple[int, int, int, int], float]  # picture; left, top, width, height; σ


def parse(file: str, box: str, sigma: str) -> Crop:
    """A crop from the words of the command line.

    Raises:
        EocodecError: they are not of this form.
    """
    try:
        left, top, width, height = (int(word) for word in box.split(","))
        level = float(sigma)
    except ValueError:
        raise EocodecError(f"a crop is FILE X,Y,W,H SIGMA, not {file} {box} {sigma}") from None
    if not (left >= 0 and top >= 0 and width > 0 and height > 0 and 0.3 <= level <= 255):
        raise EocodecError(f"the crop {box} or its noise level {sigma} is out of range")
    return Path(file), (left, top, width, height), level


def versions(clean: Bytes, sigma: float, number: int, noise: str, method: str, model: Model) -> dict[str, np.ndarray]:
    """The picture in all versions by name, `(H, W, 3)` in 8-bit levels, clipped."""
    noisy = add_noise(clean, sigma, number, noise)
    done = denoise_picture(noisy / 255, sigma, method=method, model=model)
    found = {f"noisy, sigma {sigma:g}": noisy, f"eocodec {done.method}": 255 * done.values}
    try:
        import bm3d
    except ImportError:
        print("BM3D is left out: the package bm3d is not installed", file=sys.stderr)
    else:
        found["BM3D"] = 255 * bm3d.bm3d_rgb(noisy / 255, sigma / 255)
    return {name: np.clip(values, 0, 255) for name, values in found.items()} | {"clean": clean.astype(float)}


def row(crop: Crop, number: int, noise: str, method: str, model: Model) -> Image.Image:
    """One crop in all versions, side by side with captions.

    Raises:
        EocodecError: no picture, or the crop lies outside it.
    """
    path, (left, top, width, height), sigma = crop
    clean = read_picture(path).rgb
    if top + height > clean.shape[0] or left + width > clean.shape[1]:
        raise EocodecError(f"the crop lies outside {path.name}, which has {clean.shape[1]}x{clean.shape[0]} pixels")
    found = versions(clean, sigma, number, noise, method, model)
    wide, high = SCALE * width, SCALE * height
    image = Image.new("RGB", (len(found) * (wide + GAP) - GAP, high + CAPTION), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    for column, (name, values) in enumerate(found.items()):
        piece = np.round(values[top : top + height, left : left + width]).astype(np.uint8)
        place = column * (wide + GAP)
        image.paste(Image.fromarray(piece).resize((wide, high), Image.Resampling.NEAREST), (place, CAPTION))
        label = name if name == "clean" else f"{name}: {psnr(clean, values):.2f} dB"
        draw.text((place + 2, 2), label, "black", font)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument(
        "--crop", nargs=3, action="append", required=True, metavar=("FILE", "X,Y,W,H", "SIGMA"), help="may be repeated"
    )
    parser.add_argument("--method", default="auto", choices=["auto", "net", "shrink", "drop"], help="default: auto")
    parser.add_argument("--noise", default="gaussian", choices=NOISES, help="default: gaussian")
    parser.add_argument("--model", default="photo", help="a name or a bundle (default: photo)")
    options = parser.parse_args()
    try:
        model = load_model(options.model)
        crops = [parse(*words) for words in options.crop]
        rows = [row(crop, number, options.noise, options.method, model) for number, crop in enumerate(crops)]
    except EocodecError as e:
        sys.exit(str(e))
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height + GAP for r in rows) - GAP), "white")
    top = 0
    for r in rows:
        sheet.paste(r, (0, top))
        top += r.height + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    if out.tell() > LARGEST:
        sys.exit(f"the picture has {out.tell()} bytes, more than {LARGEST}; choose smaller or fewer crops")
    atomic_write(options.out, out.getvalue())


if __name__ == "__main__":
    main()
