"""Noisy pictures in files for the eye, with and without the noise of their colours, and AVIF.

Prints a table in Markdown: for each deviation of white noise that is added to the pictures, the mean difference of
bytes at equal SSIMULACRA2 and at equal PSNR of files that leave it out to such that code it, and at equal SSIMULACRA2
of both to AVIF (Pillow, speed 6).

Example:
    $ python benchmarks/colour_noise.py kodak/ --limit 6 --levels 0,3,6,10,20
"""

import argparse
import io
import statistics
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from PIL import Image

import eocodec
from eocodec.bench.measures import MEASURES
from eocodec.coding import chroma
from eocodec.metrics import bd_rate_between, psnr

RATES = (10, 30, 70, 120, 200)
QUALITIES = (35, 55, 70, 80, 88)
Picture = npt.NDArray[np.uint8]
Points = list[tuple[float, float, float]]
"""Bits per pixel, SSIMULACRA2, PSNR."""


def point(original: Picture, size: int, decoded: Picture) -> tuple[float, float, float]:
    """What a file of so many bytes shows of a picture."""
    score = MEASURES["ssimulacra2"].function(original, decoded)
    return 8 * size / original[..., 0].size, score, psnr(original, decoded)


def ours(picture: Picture) -> Points:
    """Files of eocodec."""
    files = [eocodec.compress(picture, rate, tune="eye") for rate in RATES]
    return [point(picture, len(data), eocodec.decompress(data)) for data in files]


def avif(picture: Picture) -> Points:
    """Files of AVIF."""
    found = []
    for quality in QUALITIES:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "AVIF", quality=quality, speed=6)
        found.append(point(picture, len(file.getvalue()), np.asarray(Image.open(file).convert("RGB"))))
    return found


def saved(before: Points, after: Points, measure: int) -> float:
    """Difference of bytes in percent at equal values of a measure, 1 or 2."""
    curves = ([(p[0], p[measure]) for p in points] for points in (before, after))
    return bd_rate_between(*curves, -np.inf, np.inf)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of PNG files")
    parser.add_argument("--limit", type=int, default=6, help="how many, evenly spread")
    parser.add_argument("--levels", default="0,3,6,10,20", help="deviations of the noise, 8-bit levels")
    asked = parser.parse_args()
    paths = sorted(asked.pictures.glob("*.png"))
    paths = paths[:: max(1, len(paths) // asked.limit)][: asked.limit]
    print("| σ | SSIMULACRA2 | PSNR | against AVIF, with it | without |\n|---|---|---|---|---|")
    for sigma in map(float, asked.levels.split(",")):
        rows = []
        for path in paths:
            clean = np.asarray(Image.open(path).convert("RGB"))
            noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
            noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
            after, rival = ours(noisy), avif(noisy)
            with patch.object(chroma, "calmed", return_value=None):
                before = ours(noisy)
            rows.append(
                [saved(before, after, 1), saved(before, after, 2), saved(rival, before, 1), saved(rival, after, 1)]
            )
        means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        print(f"| {sigma:g} | " + " | ".join(f"{m:+.1f} %" for m in means) + " |", flush=True)


if __name__ == "__main__":
    main()
