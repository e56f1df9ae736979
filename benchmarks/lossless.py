"""Lossless sizes and times of eocodec, PNG, WebP and JPEG XL on a folder of pictures.

    python benchmarks/lossless.py DIR [--limit N] [--model PATH] [--out lossless.json]

Prints a table in Markdown and writes every figure as JSON. Every decoded picture is compared with the original. Sizes
are those of the files; seconds are of one run per picture in this process, after a run on a small picture.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from eocodec import codec
from eocodec.model.library import load_model

Coder = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]


def pillow(kind: str, **options: object) -> Coder:
    def encode(rgb: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, kind, **options)
        return out.getvalue()

    def decode(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return encode, decode


def coders(model: str) -> dict[str, Coder]:
    import pillow_jxl  # noqa: F401  (registers JPEG XL with Pillow)

    loaded = load_model(model)
    return {
        "eocodec": (
            lambda rgb: codec.compress(rgb, lossless=True, model=loaded),
            lambda data: codec.decompress(data, loaded),
        ),
        "PNG, optimised": pillow("PNG", optimize=True),
        "WebP lossless, method 6": pillow("WEBP", lossless=True, method=6, exact=True),
        "JPEG XL, effort 7": pillow("JXL", lossless=True, effort=7),
    }


def measure(coder: Coder, rgb: np.ndarray) -> dict[str, float]:
    encode, decode = coder
    start = time.perf_counter()
    data = encode(rgb)
    middle = time.perf_counter()
    decoded = decode(data)
    end = time.perf_counter()
    if not np.array_equal(decoded, rgb):
        raise SystemExit("a picture did not come back exactly")
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (rgb.shape[0] * rgb.shape[1]), 4),
        "encode_s": round(middle - start, 3),
        "decode_s": round(end - middle, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--out", type=Path, default=Path("lossless.json"))
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in (".png", ".ppm", ".bmp", ".tif"))
    paths = paths[: arguments.limit]
    if not paths:
        parser.error(f"no pictures in {arguments.folder}")
    every, identity = coders(arguments.model), load_model(arguments.model).full_id.hex()
    small = np.asarray(Image.open(paths[0]).convert("RGB"))[:64, :64]
    for coder in every.values():
        measure(coder, small)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for path in paths:
        rgb = np.asarray(Image.open(path).convert("RGB"))
        rows[path.stem] = {name: measure(coder, rgb) for name, coder in every.items()}
    means = {
        name: {
            figure: round(statistics.fmean(row[name][figure] for row in rows.values()), 4)
            for figure in ("bpp", "encode_s", "decode_s")
        }
        for name in every
    }
    arguments.out.write_text(json.dumps({"model": identity, "pictures": rows, "means": means}, indent=1) + "\n")
    print("| Picture | " + " | ".join(f"{name}, bpp" for name in every) + " |")
    print("|---|" + "---|" * len(every))
    for stem, row in rows.items():
        print(f"| {stem} | " + " | ".join(f"{row[name]['bpp']:.3f}" for name in every) + " |")
    print("| **mean** | " + " | ".join(f"**{means[name]['bpp']:.3f}**" for name in every) + " |")
    for figure, what in (("encode_s", "seconds to encode"), ("decode_s", "seconds to decode")):
        print(f"| {what} | " + " | ".join(f"{means[name][figure]:.2f}" for name in every) + " |")


if __name__ == "__main__":
    main()
