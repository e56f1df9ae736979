"""What an embedded stream costs: cuts of one progressive file against usual files, picture by picture.

    python benchmarks/embedded.py DIR [--limit N] [--cuts N] [--json FILE]

Of every picture one progressive file is made and cut with `truncate` to sizes from 0.08 to 2.6 bits per pixel; usual
files at twelve C, tuned for squared error as progressive ones are, give the curve to compare with. The loss is the
Bjøntegaard rate difference of the cuts, for every picture by itself, then its mean; and, at every size, the mean of
what a usual file of the same PSNR is smaller by.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from eocodec import codec
from eocodec.errors import ImageError
from eocodec.image import read_picture
from eocodec.metrics import bd_rate, psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

USUAL = (5, 8, 12, 18, 26, 38, 56, 84, 130, 190, 320, 520)  # C
RANGES = ((0.1, 0.5), (0.15, 1.5), (1.0, 2.4))
LOW, HIGH = 0.08, 2.6  # bits per pixel


def measure(name: str, picture: np.ndarray, cuts: int, model: Model) -> dict[str, Any]:
    """Points (bits per pixel, dB) of both kinds, seconds, and the loss in percent."""
    pixels = picture.shape[0] * picture.shape[1]
    usual = []
    for rate in USUAL:
        data = codec.compress(picture, rate, model=model, tune="psnr")  # as progressive files are
        usual.append((8 * len(data) / pixels, psnr(picture, codec.decompress(data, model))))
    start = time.perf_counter()
    whole = codec.compress(picture, bpp=HIGH, model=model, progressive=True)
    middle = time.perf_counter()
    ours = []
    for target in np.geomspace(LOW, HIGH, cuts):
        cut = codec.truncate(whole, max_bytes=round(target * pixels / 8))
        ours.append((8 * len(cut) / pixels, psnr(picture, codec.decompress(cut, model))))
    seconds = (time.perf_counter() - middle) / cuts
    quality, rates = [q for _, q in usual], np.log([r for r, _ in usual])
    each = [100 * (r / float(np.exp(np.interp(q, quality, rates))) - 1) for r, q in ours]
    losses = {f"{low:g}-{high:g}": round(bd_rate(usual, ours, low, high), 3) for low, high in RANGES}
    return {
        "picture": name,
        "usual": [[round(r, 5), round(q, 4)] for r, q in usual],
        "cuts": [[round(r, 5), round(q, 4)] for r, q in ours],
        "each": [round(v, 3) for v in each],
        "bd_rate": losses,
        "encode_s": round(middle - start, 3),
        "decode_s": round(seconds, 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over pictures, Markdown."""
    sizes = [statistics.mean(r["cuts"][k][0] for r in rows) for k in range(len(rows[0]["cuts"]))]
    losses = [statistics.mean(r["each"][k] for r in rows) for k in range(len(sizes))]
    lines = ["| bpp | " + " | ".join(f"{s:.2f}" for s in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    lines.append("| loss, % | " + " | ".join(f"{v:.1f}" for v in losses) + " |")
    for key in rows[0]["bd_rate"]:
        lines.append(f"\nBD-rate, {key} bpp: {statistics.mean(r['bd_rate'][key] for r in rows):+.2f} %")
    seconds = [statistics.mean(r[k] for r in rows) for k in ("encode_s", "decode_s")]
    return "\n".join([*lines, f"\nSeconds: encode to {HIGH} bpp {seconds[0]:.2f}, decode a cut {seconds[1]:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--cuts", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load_model("photo", options.threads)
    rows: list[dict[str, Any]] = []
    for path in sorted(options.folder.iterdir()):
        try:
            picture = read_picture(path).rgb
        except ImageError:
            continue
        rows.append(measure(path.name, picture, options.cuts, model))
        print(path.name, rows[-1]["bd_rate"], flush=True)
        if len(rows) == options.limit:
            break
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"model": model.full_id.hex(), "pictures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
