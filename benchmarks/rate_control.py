"""How closely files meet a size or a quality, and what the search for it costs.

    python benchmarks/rate_control.py DIR [--limit N] [--threads N] [--json FILE]

Every picture of a folder is compressed to every target. The deviation of a size is what the file is smaller by, in
percent of the target; that of a quality is what the decoded file is better by, in dB: none may be negative. Tries are
files coded (sizes) or pictures decoded (qualities); seconds are those of the whole compression, transform included.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from eocodec import codec
from eocodec.errors import EocodecError, ImageError
from eocodec.image import read_picture
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

TARGETS: dict[str, tuple[float, ...]] = {
    "bpp": (0.1, 0.25, 0.5, 1, 2),
    "max_bytes": (2000, 5000, 20000, 60000, 150000),
    "psnr": (28, 32, 36, 40, 44),
}


def measure(name: str, picture: np.ndarray, kind: str, target: float, model: Model) -> dict[str, Any]:
    """One picture at one target; `deviation` is None where the target is out of reach."""
    start = time.perf_counter()
    try:
        done = codec.compress_picture(picture, model=model, **{kind: target})  # type: ignore[arg-type]
    except EocodecError as e:
        return {"picture": name, "deviation": None, "reason": str(e)}
    seconds = time.perf_counter() - start
    if kind == "psnr":
        reached = psnr(picture, codec.decompress(done.data, model))
        deviation = reached - target
    else:
        reached = done.bits_per_pixel if kind == "bpp" else float(len(done.data))
        deviation = 100 * (1 - reached / target)
    return {
        "picture": name,
        "reached": round(reached, 5),
        "deviation": round(deviation, 4),
        "tries": done.tries,
        "seconds": round(seconds, 3),
    }


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        "| target | deviation, mean | least | worst | tries, mean | most | seconds, mean | out of reach |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["targets"]:
        met = [r for r in row["each"] if r["deviation"] is not None]
        shown = f"{row['kind'].replace('max_', '')} {row['target']:g}"
        if not met:
            lines.append(f"| {shown} |  |  |  |  |  |  | {len(row['each'])} |")
            continue
        deviations, tries = [r["deviation"] for r in met], [r["tries"] for r in met]
        unit, places = ("dB", 3) if row["kind"] == "psnr" else ("%", 2)
        lines.append(
            f"| {shown} | {statistics.mean(deviations):.{places}f} {unit} | {min(deviations):.{places}f} | "
            f"{max(deviations):.{places}f} | {statistics.mean(tries):.1f} | {max(tries)} | "
            f"{statistics.mean(r['seconds'] for r in met):.2f} | {len(row['each']) - len(met)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="only the first pictures")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: one per core)")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load_model(options.model, options.threads)
    pictures = []
    for path in sorted(options.folder.iterdir()):
        if path.is_file() and (options.limit is None or len(pictures) < options.limit):
            try:
                pictures.append((path.name, read_picture(path).rgb))
            except ImageError:
                continue
    if not pictures:
        parser.error(f"{options.folder} holds no picture that can be read")
    codec.decompress(codec.compress(pictures[0][1], model=model), model)  # opens the sessions
    result: dict[str, Any] = {"folder": options.folder.name, "model": model.full_id.hex(), "targets": []}
    for kind, targets in TARGETS.items():
        for target in targets:
            each = [measure(name, picture, kind, target, model) for name, picture in pictures]
            result["targets"].append({"kind": kind, "target": target, "each": each})
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
