"""Noise on white and black paper, half of which 0 and 255 cut off: what level `denoise` finds, and what it gains.

Prints a table in Markdown: for pages of text in letters of some sizes, at each level of noise, the level that was found
and PSNR in dB before, after, and with the level given.

Example:
    $ python benchmarks/paper.py --sizes 12,20,32 --levels 5,20,50
"""

import argparse

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from eocodec.denoising import denoise_picture
from eocodec.metrics import psnr

TEXT = "the quick brown fox jumps over lazy dogs while seven wizards quietly mix potions in deep caves"
WIDTH, HEIGHT, MARGIN = 800, 600, 24  # pixels
KINDS = (("white", 255, 0, 3), ("white", 255, 0, 1), ("black", 0, 255, 3), ("cream", 250, 40, 3))
"""Name, levels of paper and ink, channels of noise."""


def page(paper: int, ink: int, size: int) -> npt.NDArray[np.uint8]:
    """A page of random words `(600, 800, 3)` in letters of `size` pixels."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (paper,) * 3)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    words, random = TEXT.split(), np.random.default_rng(1)
    for top in range(MARGIN, HEIGHT - 2 * size, int(1.6 * size)):
        draw.text((MARGIN, top), " ".join(random.choice(words, int(WIDTH / size / 3.2))), (ink,) * 3, font)
    return np.asarray(image)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="12,20,32", help="of letters, pixels")
    parser.add_argument("--levels", default="5,20,50", help="standard deviations of the noise, 8-bit levels")
    asked = parser.parse_args()
    print("| paper, noise | letters | σ | found | noisy | denoised | level given |\n|---|---|---|---|---|---|---|")
    for name, paper, ink, channels in KINDS:
        for size in map(int, asked.sizes.split(",")):
            clean = page(paper, ink, size)
            for sigma in map(float, asked.levels.split(",")):
                noise = np.random.default_rng(2).normal(0, sigma, (*clean.shape[:2], channels))
                noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
                auto, given = denoise_picture(noisy), denoise_picture(noisy, sigma)
                quality = " | ".join(f"{psnr(clean, p):.2f}" for p in (noisy, auto.rgb, given.rgb))
                kind = f"{name}, {'colour' if channels == 3 else 'grey'}"
                print(f"| {kind} | {size} | {sigma:g} | {auto.sigma:.1f} | {quality} |", flush=True)


if __name__ == "__main__":
    main()
