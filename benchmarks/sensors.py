"""Pictures of sensors with fewer bits than the 16 they are stored in: bytes with and without their own range of values.

Prints a table in Markdown: for every number of bits and every quality, the PSNR in dB of what the values fill, bytes of
all files coded in that range and in all 16 bits, and the share that is saved. Pictures are those given at half the
size, in which a value is the mean of four and so has two bits more.

Example:
    $ python benchmarks/sensors.py kodak/ --bits 12,14,15 --psnr 36,42,50
"""

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import eocodec
from eocodec.levels import ValueRange


def halved(path: Path, bits: int) -> npt.NDArray[np.uint16]:
    """A picture at half the size, values of so many bits."""
    rgb = np.asarray(Image.open(path).convert("RGB"), np.float64)
    height, width = (n // 2 * 2 for n in rgb.shape[:2])
    mean = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    return np.rint(mean * (((1 << bits) - 1) / 255)).astype(np.uint16)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of PNG files")
    parser.add_argument("--bits", default="12,14,15")
    parser.add_argument("--psnr", default="36,42,50", help="dB, relative to what the values fill")
    asked = parser.parse_args()
    paths = sorted(asked.pictures.glob("*.png"))
    print("| bits | PSNR | bytes, own range | bytes, all 16 bits | saved |\n|---|---|---|---|---|")
    for bits in map(int, asked.bits.split(",")):
        pictures = [halved(path, bits) for path in paths]
        for quality in map(float, asked.psnr.split(",")):
            target = quality + 20 * math.log10(65535 / ((1 << bits) - 1))
            ranges: tuple[ValueRange, ...] = ("bits", "full")
            own, full = (
                sum(len(eocodec.compress(p, psnr=target, tune="psnr", value_range=r)) for p in pictures) for r in ranges
            )
            print(f"| {bits} | {quality:g} | {own:,} | {full:,} | {100 * (1 - own / full):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
