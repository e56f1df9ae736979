"""Paths of pictures: do flows of potentials follow known transformations better than directions and standing still?

    python benchmarks/lab/paths.py digits --json benchmarks/lab/paths.json
    python benchmarks/lab/paths.py sprites --json benchmarks/lab/paths-sprites.json

Digits: scikit-learn's at 16×16 pixels in colour, T = 5 steps of scale, rotation and hue. Sprites: three shapes of any
size, turn and place at 16×16 pixels, and shift as a fourth transformation. d = 12 latents; errors on held-out pictures.
Composition: two steps of each of a pair. Paths start from plain pictures, or from such as have been through up to T
steps of every transformation (`roam`). Results are written after every run; runs that the file holds are not
repeated.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eocodec.lab.data.pictures import digits
from eocodec.lab.data.sprites import sprites
from eocodec.lab.paths.learning import PathTraining, composition, equivariance, train_paths
from eocodec.lab.paths.movers import FlowMover, LinearMover, Mover, StaticMover

EXTRAPOLATED = 2  # steps beyond those trained
# SOAP at 1e-2 takes 400 iterations to half the error that Adam at 1e-3 has after 800.
OPTIMISER, RATE = "soap", 1e-2


def static(dim: int, count: int) -> Mover:
    """The baseline that stands still."""
    return StaticMover()


def stationary(dim: int, count: int) -> Mover:
    """Potentials under a prior that does not spread (D = 0): where a path ends, another can start."""
    return FlowMover(dim, count, diffusion=0.0)


MOVERS: dict[str, Callable[[int, int], Mover]] = {
    "flow": FlowMover,
    "flow D = 0": stationary,
    "linear": LinearMover,
    "static": static,
}
NAMES = {"digits": ("scale", "rotation", "hue"), "sprites": ("scale", "rotation", "hue", "shift")}


def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Grey pictures of 16×16 pixels to train on and held out."""
    data = digits() if name == "digits" else sprites()
    train, held_out = torch.from_numpy(data.train), torch.from_numpy(data.held_out)
    factor = train.shape[-1] // 16
    return functional.avg_pool2d(train, factor), functional.avg_pool2d(held_out, factor)


def run(name: str, mover: str, training: PathTraining) -> dict[str, Any]:
    """Train and measure one mover."""
    train, held_out = pictures(name)
    start = time.process_time()
    model = train_paths(train, MOVERS[mover], training)
    found: dict[str, Any] = {
        "set": name,
        "mover": mover,
        "roam": training.roam,
        "iterations": training.iterations,
        "cpu_s": round(time.process_time() - start, 1),
    }
    for label, count in (("trained", training.steps), ("extrapolated", training.steps + EXTRAPOLATED)):
        found[label] = [
            {
                "name": e.name,
                "error": round(e.error, 2),
                "standing_still": round(e.standing_still, 2),
                "autoencoding": round(e.autoencoding, 2),
                "relative": round(e.relative, 4),
                "residual": None if e.residual is None else round(e.residual, 4),
            }
            for e in equivariance(model, held_out, count)
        ]
    found["composition"] = {
        f"{a} + {b}": {k: round(v, 2) for k, v in composition(model, held_out, (a, b)).items()}
        for a, b in combinations(training.names, 2)
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set", choices=tuple(NAMES))
    parser.add_argument("--json", type=Path, required=True, help="results; runs that it holds are not repeated")
    parser.add_argument("--iterations", type=int, nargs=2, default=(400, 2000), help="of plain and roaming starts")
    parser.add_argument("--roam", type=float, nargs="*", default=(0.0, 5.0), help="only these (default: 0 5)")
    parser.add_argument("--only", choices=tuple(MOVERS), nargs="*", help="only these movers")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    runs = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    done = {(r["roam"], r["mover"]) for r in runs}
    steps = PathTraining().steps
    for roam, iterations in zip((0.0, float(steps)), options.iterations, strict=True):
        training = PathTraining(NAMES[options.set], iterations=iterations, rate=RATE, roam=roam, optimiser=OPTIMISER)
        for mover in options.only or MOVERS:
            if (roam, mover) in done or roam not in options.roam:
                continue
            runs.append(run(options.set, mover, training))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            settings = {"optimiser": OPTIMISER, "rate": RATE, "steps": steps, "extrapolated": steps + EXTRAPOLATED}
            options.json.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
