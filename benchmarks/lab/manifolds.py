"""Torus and two moons: does a dense flow with λ I find the entropies that are known?

    python benchmarks/lab/manifolds.py --json benchmarks/lab/manifolds.json

Torus, λ = 1: ten circles in 20 dimensions; the true explained entropies are `H0 + log s`, the true MTC is 0. Two moons:
the same flow with λ = 0 and λ = 1.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eocodec.flow.dense import log_normal
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.data.manifolds import torus, torus_spectrum, two_moons
from eocodec.lab.measures.manifold import manifold, pairwise_information
from eocodec.lab.subjects.flow import FlowSubject, FlowTraining, train_flow

# Torus: from the linear Gaussian model, SOAP comes closer in 200 iterations than Adam from random rotations in 1,500.
TORUS = FlowTraining(1200, 512, 5e-3, 5e-3, 3, 64, start="components", optimiser="soap")
MOONS = FlowTraining(2500, 512, 5e-3, 5e-3, 8, 64)
SAMPLES = 1000


def measured(data: Dataset, weight: float, training: FlowTraining, seed: int = 0) -> dict[str, Any]:
    """Train a flow and measure it on held-out samples."""
    start = time.process_time()
    flow = train_flow(torch.from_numpy(data.train), weight, training, seed)
    seconds = time.process_time() - start
    subject = FlowSubject(data.name, flow, data.shape, data.noise)
    x = data.held_out[:SAMPLES]
    z = subject.encode(x).mean
    gram = subject.grams(z, 200)
    prior = log_normal(torch.from_numpy(z)).numpy()
    found = manifold(gram, prior)
    shared = pairwise_information(gram)
    return {
        "set": data.name,
        "lambda": weight,
        "seed": seed,
        "cpu_s": round(seconds, 1),
        "nll": round(subject.nll(data.held_out), 4),
        "entropy": round(found.entropy, 4),
        "spectrum": np.sort(found.spectrum)[::-1].round(4).tolist(),
        "mtc": round(found.total_correlation, 4),
        "mpmi_largest": round(float(shared.max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="results")
    parser.add_argument("--only", choices=("torus", "moons"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    runs = []
    if options.only != "torus":
        runs += [measured(two_moons(), weight, MOONS) for weight in (0.0, 1.0)]
    if options.only != "moons":
        truth = torus_spectrum()
        run = measured(torus(), 1.0, TORUS)
        run["spectrum_error"] = round(float(np.abs(truth - run["spectrum"]).max()), 4)
        run["entropy_error"] = round(run["entropy"] - float(truth.sum()), 4)
        runs.append(run)
    for run in runs:
        print(json.dumps(run))
    kept = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    sets = {run["set"] for run in runs}
    runs += [run for run in kept if run["set"] not in sets]
    options.json.write_text(json.dumps({"runs": runs}) + "\n")


if __name__ == "__main__":
    main()
