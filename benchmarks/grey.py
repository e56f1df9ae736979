"""Grey pictures by the model that a bundle has for them, against the same bundle without it.

    python benchmarks/grey.py DIR [--limit N] [--model PATH] [--threads N] [--out grey.json]

Every picture is made grey (Pillow's `L`) and compressed at six values of C for each tuning, with and without the part
`grey`: real files, decoded again. Then the first picture is coded in colour and in grey, in one warm process, best of
five. Prints rate differences and times, and writes every figure as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from eocodec import codec
from eocodec.bench.measures import MEASURES
from eocodec.metrics import bd_rate_between, psnr
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec.model.library import bundle_files, bundle_path, load_model

RATES = (8, 24, 64, 128, 240, 420)
TIMED = (24, 96, 384)
LOW = 0.35  # bits per pixel; differences are also given above and below


def curve(model: Model, pictures: list[np.ndarray], tune: str) -> list[dict[str, float]]:
    """Means of the pictures at every C."""
    score = MEASURES["ssimulacra2"].function
    points = []
    for rate in RATES:
        rows = []
        for grey in pictures:
            data = codec.compress(grey, rate=rate, model=model, tune=tune)
            original, decoded = (np.repeat(p[..., :1], 3, 2) for p in (grey[..., None], codec.decompress(data, model)))
            rows.append((8 * len(data) / grey.size, psnr(original, decoded), score(original, decoded)))
        means = (round(statistics.fmean(values), 4) for values in zip(*rows, strict=True))
        points.append({"C": rate, **dict(zip(("bpp", "psnr", "ssimulacra2"), means, strict=True))})
        print(tune, points[-1], flush=True)
    return points


def differences(with_part: list[dict[str, float]], without: list[dict[str, float]], figure: str) -> list[float]:
    """Percent of bytes: over all, and from :data:`LOW` bits per pixel on."""
    ours, theirs = ([(p["bpp"], p[figure]) for p in points] for points in (with_part, without))
    least = float(np.interp(LOW, *zip(*theirs, strict=True)))
    return [round(bd_rate_between(theirs, ours, low, np.inf), 2) for low in (-np.inf, least)]


def seconds(work: Callable[[], object]) -> float:
    """The best of five runs, after one that does not count."""
    work()
    found = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return round(min(found), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("grey.json"))
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in (".png", ".ppm", ".bmp", ".tif"))
    paths = paths[: arguments.limit]
    if not paths:
        parser.error(f"no pictures in {arguments.folder}")
    model = load_model(arguments.model, arguments.threads)
    files = {k: v for k, v in bundle_files(bundle_path(arguments.model)).items() if not k.startswith("grey/")}
    without = Model(parts.listed(files), arguments.threads)
    pictures = [np.asarray(Image.open(p).convert("L")) for p in paths]
    tunings: dict[str, object] = {}
    times: list[dict[str, float]] = []
    for tune in ("psnr", "eye"):
        curves = {name: curve(m, pictures, tune) for name, m in (("with", model), ("without", without))}
        gains = {f: differences(curves["with"], curves["without"], f) for f in ("psnr", "ssimulacra2")}
        tunings[tune] = {**curves, "differences": gains}
        print(tune, gains, flush=True)
    colour = np.asarray(Image.open(paths[0]).convert("RGB"))
    for rate in TIMED:
        row: dict[str, float] = {"C": rate}
        for name, picture in (("colour", colour), ("grey", pictures[0])):
            data = codec.compress(picture, rate=rate, model=model)
            row[f"{name}_encode"] = seconds(lambda p=picture, r=rate: codec.compress(p, rate=r, model=model))
            row[f"{name}_decode"] = seconds(lambda d=data: codec.decompress(d, model))
        times.append(row)
        print(row, flush=True)
    result = {
        "model": model.full_id.hex(),
        "pictures": len(pictures),
        "threads": arguments.threads,
        "tunings": tunings,
        "times": times,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
