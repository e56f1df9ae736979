"""Pictures of sensors: bytes of files of 16 bits a sample, and what their newer means save at equal PSNR.

Prints a table in Markdown: for every number of bits that values fill and every quality, the PSNR in dB of what they
fill, bytes of all files, and the share that is saved. In colour files coded in the range of these values are compared
with such in all 16 bits; with `--grey` those of the model for grey pictures with those of the bundle without it.
Pictures are those given at half the size, in which a value is the mean of four and so has two bits more.

Example:
    $ python benchmarks/sensors.py kodak/ --bits 12,14,15 --psnr 36,42,50
    $ python benchmarks/sensors.py kodak/ --grey --bits 12,16 --psnr 40,50,60,70,80,90
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import eocodec
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec.model.library import bundle_files, bundle_path


def halved(path: Path, bits: int, mode: str) -> npt.NDArray[np.uint16]:
    """A picture at half the size, values of so many bits."""
    values = np.asarray(Image.open(path).convert("RGB"), np.float64)
    height, width = (n // 2 * 2 for n in values.shape[:2])
    mean = values[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    if mode == "L":
        mean = mean.mean(2)
    return np.rint(mean * (((1 << bits) - 1) / 255)).astype(np.uint16)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of PNG files")
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--bits", default="12,14,15")
    parser.add_argument("--psnr", default="36,42,50", help="dB, relative to what the values fill")
    asked = parser.parse_args()
    paths = sorted(asked.pictures.glob("*.png"))
    ways: dict[str, dict[str, Any]] = {"own range": {}, "all 16 bits": {"value_range": "full"}}
    if asked.grey:
        without = {k: v for k, v in bundle_files(bundle_path("photo")).items() if not k.startswith("grey/")}
        ways = {"model for grey": {}, "without it": {"model": Model(parts.listed(without))}}
    print("| bits | PSNR | bytes, " + " | bytes, ".join(ways) + " | saved |\n|---|---|---|---|---|")
    for bits in map(int, asked.bits.split(",")):
        pictures = [halved(path, bits, "L" if asked.grey else "RGB") for path in paths]
        for quality in map(float, asked.psnr.split(",")):
            target = quality + 20 * math.log10(65535 / ((1 << bits) - 1))
            sizes = [
                sum(len(eocodec.compress(p, psnr=target, tune="psnr", **options)) for p in pictures)
                for options in ways.values()
            ]
            saved = 100 * (1 - sizes[0] / sizes[1])
            print(f"| {bits} | {quality:g} | {sizes[0]:,} | {sizes[1]:,} | {saved:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
