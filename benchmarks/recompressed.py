"""Pictures that were JPEG files before: PSNR at equal bytes beside AVIF, against the JPEG's own pixels.

In: a folder of pictures. Out: a table on standard output. Every picture is made a JPEG (4:2:0) of each quality,
decoded, and compressed as AVIF (speed 6, Pillow's default tune); eocodec has as many bytes.

    python benchmarks/recompressed.py kodak/ [--limit 8]
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

import eocodec
from eocodec.bench.pictures import read_folder
from eocodec.metrics import psnr

QUALITIES = (30, 50, 75, 85, 92)
AVIF = (45, 60, 75)  # qualities of AVIF files


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes) -> Image.Image:
    """The picture of a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def compared(image: Image.Image, quality: int) -> tuple[float, float]:
    """Bits per pixel of an AVIF file, and by how many dB a file of eocodec of as many bytes is better."""
    pixels = np.asarray(image)
    avif = encoded(image, "AVIF", quality=quality, speed=6)
    ours = eocodec.decompress(eocodec.compress(image, max_bytes=len(avif), tune="psnr"))
    gain = psnr(pixels, ours) - psnr(pixels, np.asarray(decoded(avif)))
    return 8 * len(avif) / (image.width * image.height), gain


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="use the first N pictures")
    arguments = parser.parse_args()
    originals = [Image.fromarray(rgb) for _, rgb in read_folder(arguments.folder, arguments.limit)]
    print("| JPEG quality | its bits per pixel |" + " AVIF's bits per pixel | eocodec, dB |" * len(AVIF))
    print("|---" * (2 + 2 * len(AVIF)) + "|")
    for quality in (*QUALITIES, None):
        files = [None if quality is None else encoded(i, "JPEG", quality=quality) for i in originals]
        images = [i if f is None else decoded(f) for i, f in zip(originals, files, strict=True)]
        size = np.mean([8 * len(f or b"") / (i.width * i.height) for i, f in zip(images, files, strict=True)])
        cells = [f"{rate:.2f} | {gain:+.2f}" for rate, gain in (means(images, q) for q in AVIF)]
        print(
            "| " + " | ".join([*((f"{quality}", f"{size:.2f}") if quality else ("none", "–")), *cells]) + " |",
            flush=True,
        )


def means(images: list[Image.Image], quality: int) -> tuple[float, float]:
    """Of :func:`compared`, over all pictures."""
    rate, gain = np.mean([compared(image, quality) for image in images], 0)
    return float(rate), float(gain)


if __name__ == "__main__":
    main()
