"""Paths of pictures: do flows of potentials follow known transformations better than directions and standing still?

    python benchmarks/lab/paths.py digits --json benchmarks/lab/paths.json
    python benchmarks/lab/paths.py sprites --json benchmarks/lab/paths-sprites.json
    python benchmarks/lab/paths.py digits --one-autoencoder --seeds 2 --json benchmarks/lab/paths-frozen.json

Digits: scikit-learn's at 16×16 pixels in colour, T = 5 steps of scale, rotation and hue. Sprites: three shapes of any
size, turn and place at 16×16 pixels, and shift as a fourth transformation. d = 12 latents; errors on held-out pictures.
Composition: two steps of each of a pair. Paths start from plain pictures, or from such as have been through up to T
steps of every transformation (`roam`); with --together a share of them follows two transformations at once. With
--one-autoencoder, an autoencoder learns from pictures under all transformations without any path, stays as it is, and
every mover learns to carry its latents: what a path cannot beat is then known, the target encoded and decoded. Results
are written after every run; runs that the file holds are not repeated.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eocodec.lab.data.pictures import digits
from eocodec.lab.data.sprites import sprites
from eocodec.lab.paths.frozen import learn_frozen
from eocodec.lab.paths.learning import (
    PathModel,
    PathTraining,
    composition,
    encoded_paths,
    equivariance,
    train_paths,
)
from eocodec.lab.paths.movers import FlowMover, LinearMover, Mover, StaticMover

EXTRAPOLATED = 2  # steps beyond those trained
# SOAP at 1e-2 takes 400 iterations to half the error that Adam at 1e-3 has after 800.
OPTIMISER, RATE = "soap", 1e-2


# One autoencoder: plain pictures and three starts of each elsewhere; Adam, for the movers are small.
ALONE, ALONE_BATCH = 400, 320
COPIES, CARRIED, CARRIED_RATE = 4, 800, 3e-3


def static(dim: int, count: int) -> Mover:
    """The baseline that stands still."""
    return StaticMover()


def carrying(dim: int, count: int) -> Mover:
    """Potentials without the density term, which directions have not either."""
    return FlowMover(dim, count, density=0.0)


def stationary(dim: int, count: int) -> Mover:
    """Potentials under a prior that does not spread (D = 0): where a path ends, another can start."""
    return FlowMover(dim, count, diffusion=0.0)


MOVERS: dict[str, Callable[[int, int], Mover]] = {
    "flow": FlowMover,
    "flow D = 0": stationary,
    "flow, no density": carrying,
    "linear": LinearMover,
    "static": static,
}
CARRYING: dict[str, Callable[[int, int], Mover]] = {"flow": carrying, "linear": LinearMover, "static": static}
NAMES = {"digits": ("scale", "rotation", "hue"), "sprites": ("scale", "rotation", "hue", "shift")}


def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Grey pictures of 16×16 pixels to train on and held out."""
    data = digits() if name == "digits" else sprites()
    train, held_out = torch.from_numpy(data.train), torch.from_numpy(data.held_out)
    factor = train.shape[-1] // 16
    return functional.avg_pool2d(train, factor), functional.avg_pool2d(held_out, factor)


def measured(model: PathModel, held_out: Tensor, steps: int) -> dict[str, Any]:
    """Equivariance at the times that were learnt and beyond, and composition, on held-out pictures."""
    found: dict[str, Any] = {}
    for label, count in (("trained", steps), ("extrapolated", steps + EXTRAPOLATED)):
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
        for a, b in combinations(model.names, 2)
    }
    return found


def run(name: str, mover: str, training: PathTraining, seed: int) -> dict[str, Any]:
    """Train and measure one mover with an autoencoder of its own."""
    train, held_out = pictures(name)
    start = time.process_time()
    model = train_paths(train, MOVERS[mover], training, seed)
    seconds = time.process_time() - start
    said = {"set": name, "mover": mover, "roam": training.roam, "seed": seed, "iterations": training.iterations}
    said |= {"together": training.together} if training.together else {}
    return said | {"cpu_s": round(seconds, 1)} | measured(model, held_out, training.steps)


def runs_of_one(name: str, training: PathTraining, seed: int) -> list[dict[str, Any]]:
    """Train one autoencoder without paths, then every mover in its latents, and measure them."""
    train, held_out = pictures(name)
    start = time.process_time()
    alone = replace(training, steps=0, together=0.0, roam=2.0 * training.steps, iterations=ALONE, batch=ALONE_BATCH)
    model = train_paths(train, static, alone, seed)
    seconds = time.process_time() - start
    latents, targets = encoded_paths(model, train, training.steps, float(training.steps), COPIES, seed)
    runs = []
    for mover, make in CARRYING.items():
        start = time.process_time()
        if mover != "static":
            ones = np.ones(training.latents)
            model.mover = learn_frozen(latents, targets, ones, make, CARRIED, CARRIED_RATE, seed)
        else:
            model.mover = make(training.latents, len(training.names))
        spent = {"autoencoder_cpu_s": round(seconds, 1), "cpu_s": round(time.process_time() - start, 1)}
        said = {"set": name, "mover": mover, "roam": float(training.steps), "seed": seed, "iterations": CARRIED}
        runs.append(said | spent | measured(model, held_out, training.steps))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set", choices=tuple(NAMES))
    parser.add_argument("--json", type=Path, required=True, help="results; runs that it holds are not repeated")
    parser.add_argument("--iterations", type=int, nargs=2, default=(400, 2000), help="of plain and roaming starts")
    parser.add_argument("--roam", type=float, nargs="*", default=(0.0, 5.0), help="only these (default: 0 5)")
    parser.add_argument("--only", choices=tuple(MOVERS), nargs="*", help="only these movers")
    parser.add_argument("--together", type=float, default=0.0, help="share of batches with two transformations at once")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--one-autoencoder", action="store_true", help="that stays as it is, for all movers")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    runs = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    done = {(r["roam"], r["mover"], r.get("seed", 0), r.get("together", 0.0)) for r in runs}
    steps = PathTraining().steps
    settings = {"optimiser": OPTIMISER, "rate": RATE, "steps": steps, "extrapolated": steps + EXTRAPOLATED}

    def keep(*found: dict[str, Any]) -> None:
        runs.extend(found)
        print("\n".join(json.dumps(r) for r in found), file=sys.stderr, flush=True)
        options.json.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")

    base = PathTraining(NAMES[options.set], rate=RATE, optimiser=OPTIMISER, together=options.together)
    if options.one_autoencoder:
        settings |= {
            "autoencoder": {"iterations": ALONE, "batch": ALONE_BATCH},
            "carried": {"iterations": CARRIED, "rate": CARRIED_RATE},
        }
        for seed in range(options.seeds):
            if (float(steps), "static", seed, 0.0) not in done:
                keep(*runs_of_one(options.set, base, seed))
        return
    for seed in range(options.seeds):
        for roam, iterations in zip((0.0, float(steps)), options.iterations, strict=True):
            training = replace(base, iterations=iterations, roam=roam)
            for mover in options.only or MOVERS:
                if (roam, mover, seed, options.together) not in done and roam in options.roam:
                    keep(run(options.set, mover, training, seed))


if __name__ == "__main__":
    main()
