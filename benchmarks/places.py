"""Noise that differs from place to place: `denoise` with the levels found, with one for all, and with the true ones.

Prints a table in Markdown: mean PSNR in dB over pictures, 8 bits, of noise in half of a picture, in its corners, in its
dark tones (as a camera's curve raises it), and of noise that is the same everywhere.

Example:
    $ python benchmarks/places.py cbsd68/ --pictures 12
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec.denoising import denoise, denoise_picture, net
from eocodec.metrics import psnr
from eocodec.model.library import load_model

Floats = npt.NDArray[np.float64]


def kinds(picture: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Floats]]:
    """Names and standard deviations of noise at every pixel, 8-bit levels."""
    height, width = picture.shape[:2]
    across = np.arange(width)[None] + np.zeros((height, 1))
    yield "σ = 2, in the right half 20", np.where(across < width // 2, 2.0, 20.0)
    down, right = np.mgrid[:height, :width]
    apart = np.hypot(down - height / 2, right - width / 2) / math.hypot(height / 2, width / 2)
    yield "σ = 5, in the corners 20", 5 + 15 * apart**2
    light = picture.mean(2) / 255
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    slope = np.where(linear <= 0.0031308, 12.92, 1.055 / 2.4 * np.maximum(linear, 1e-6) ** (1 / 2.4 - 1))
    yield "of light, behind sRGB's curve", 255 * np.sqrt(0.002 * linear + 8e-5) * slope
    yield "σ = 10 everywhere", np.full((height, width), 10.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clean pictures")
    parser.add_argument("--pictures", type=int, default=12, help="how many of them, the first by name")
    asked = parser.parse_args()
    model = load_model("photo")
    found: dict[tuple[str, bool], list[tuple[float, ...]]] = {}
    for path in sorted(asked.folder.glob("*.png"))[: asked.pictures]:
        colour = np.asarray(Image.open(path).convert("RGB"))
        for grey in (False, True):
            clean = colour.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2) if grey else colour
            for name, deviation in kinds(clean):
                random = np.random.default_rng(1).normal(0, 1, (*clean.shape[:2], 1 if grey else 3))
                noisy = np.clip(np.rint(clean + random * deviation[..., None]), 0, 255).astype(np.uint8)
                auto = denoise_picture(noisy)
                even = denoise(noisy, math.sqrt((deviation**2).mean()))
                levels = _of(deviation * (math.sqrt(3) if grey else 1))
                true = net.apply(model, (noisy / np.float32(255)).astype(np.float32), levels, 2)
                known = true.mean(2, keepdims=True).repeat(3, 2) if grey else true
                results = (noisy, even, auto.rgb, np.clip(known, 0, 1) * 255)
                quality = [psnr(clean, np.asarray(result)) for result in results]
                found.setdefault((name, grey), []).append((*quality, float(auto.places is not None)))
    print("| Noise | noisy | one level for all, its root mean square | found | every level known | found to differ |")
    print("|---|---|---|---|---|---|")
    for (name, grey), rows in found.items():
        noisy, even, auto, true, apart = np.mean(rows, 0)
        print(
            f"| {name}{', grey' if grey else ''} | {noisy:.2f} | {even:.2f} | **{auto:.2f}** | {true:.2f} "
            f"| {round(apart * len(rows))} of {len(rows)} |"
        )


def _of(deviation: Floats) -> net.Noise:
    """Noise with the mean variance of every area of 8x8 pixels."""
    rows, columns = (np.arange(0, n, net.AREA) for n in deviation.shape)
    total = np.add.reduceat(np.add.reduceat(deviation**2, rows, 0), columns, 1)
    count = np.outer(*(np.diff([*edges, n]) for edges, n in zip((rows, columns), deviation.shape, strict=True)))
    return net.Noise.of_places((np.sqrt(total / count) / 255).astype(np.float32))


if __name__ == "__main__":
    main()
