"""Paths on digits: do flows of potentials follow known transformations better than directions and standing still?

    python benchmarks/lab/paths.py --json benchmarks/lab/paths.json

scikit-learn's digits at 16×16 pixels in colour, T = 5 steps of scale, rotation and hue, d = 12 latents; errors on
held-out digits. Composition: two steps of each of a pair.
"""

import argparse
import json
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from eocodec.lab.data.pictures import digits
from eocodec.lab.paths.learning import PathTraining, composition, equivariance, train_paths
from eocodec.lab.paths.movers import FlowMover, LinearMover, Mover, StaticMover


def static(dim: int, count: int) -> Mover:
    """The baseline that stands still."""
    return StaticMover()


MOVERS = {"flow": FlowMover, "linear": LinearMover, "static": static}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="results")
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--extrapolate", type=int, default=2, help="steps beyond those trained")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    data = digits()
    train, held_out = torch.from_numpy(data.train), torch.from_numpy(data.held_out)
    training = PathTraining(iterations=options.iterations)
    runs: list[dict[str, Any]] = []
    for name, mover in MOVERS.items():
        start = time.process_time()
        model = train_paths(train, mover, training)
        seconds = round(time.process_time() - start, 1)
        steps = {"trained": training.steps, "extrapolated": training.steps + options.extrapolate}
        found: dict[str, Any] = {"mover": name, "iterations": options.iterations, "cpu_s": seconds}
        for label, count in steps.items():
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
        runs.append(found)
        print(json.dumps(found), file=sys.stderr, flush=True)
        options.json.write_text(json.dumps({"steps": steps, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
