"""FA sets and the negative control: do VAEs find the factors, and does noise that is correlated keep them from it?

    python benchmarks/lab/factor_analysis.py fa15 --json benchmarks/lab/fa15.json
    python benchmarks/lab/factor_analysis.py fa24 --json benchmarks/lab/fa24.json
    python benchmarks/lab/factor_analysis.py fa100 --json benchmarks/lab/fa100.json
    python benchmarks/lab/factor_analysis.py control --json benchmarks/lab/fa15-control.json
    python benchmarks/lab/factor_analysis.py violation --json benchmarks/lab/violation.json

Runs differ in seed alone; the set is the same, so that latents can be aligned over runs (GAS). Results are written
after every run, and runs that the file holds already are not repeated.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from eocodec.lab.data.dataset import Dataset
from eocodec.lab.data.factor_analysis import factor_analysis
from eocodec.lab.measures.alignment import align, similarity
from eocodec.lab.report.examination import examine
from eocodec.lab.subjects.objective import METHODS, Weights
from eocodec.lab.subjects.vae import Training, train_vae

TRAINING = Training(1500, 2e-3)
TRAININGS = {"fa100": Training(4000, 4e-3)}  # ten factors take longer and a higher rate to come apart
CODES = 300  # samples whose codes are kept for alignment
EVALUATED = 1500  # held-out samples
EXPERIMENTS = {
    "fa15": ("fa15", {"FactorVAE": 10, "bfVAE": 10, "VAE": 5, "β-VAE": 5, "DIP-VAE II": 3}),
    "fa24": ("fa24", {"FactorVAE": 3, "bfVAE": 3, "VAE": 3}),
    "fa100": ("fa100", {"FactorVAE": 2, "bfVAE": 2, "VAE": 2}),
    "control": ("fa15-gauss-equal", {"FactorVAE": 3, "bfVAE": 3, "VAE": 3}),
}
"""Set, and how many seeds of each method."""
CORRELATIONS = (0.9, 0.5)  # of the noise; 0 is FactorVAE of `fa15`


def plan(experiment: str) -> list[tuple[str, str, Weights, int]]:
    """Set, name, weights and seed of every run; all methods of a seed before the next seed."""
    if experiment == "violation":
        base = METHODS["FactorVAE"]
        return [
            ("fa15", f"ρ = {rho:g}", dataclasses.replace(base, correlation=rho), seed)
            for rho in CORRELATIONS
            for seed in range(3)
        ]
    data, methods = EXPERIMENTS[experiment]
    return [
        (data, name, METHODS[name], seed)
        for seed in range(max(methods.values()))
        for name, seeds in methods.items()
        if seed < seeds
    ]


def run(data: Dataset, name: str, weights: Weights, seed: int) -> dict[str, Any]:
    """Train and measure one VAE."""
    start = time.process_time()
    training = TRAININGS.get(data.name, TRAINING)
    assert data.factors is not None
    latents = 2 * data.factors.values.shape[1] + 2
    subject = train_vae(data.train, latents, weights, training, seed, name)
    seconds = time.process_time() - start
    few = np.arange(EVALUATED)
    data = dataclasses.replace(data, held_out=data.held_out[few], factors=data.factors.take(few))
    assert data.factors is not None
    found, codes = examine(subject, data)
    informative = np.array(found["fvh"]["informative"])
    count, truth = int(informative.sum()), data.factors.values.shape[1]
    alike = similarity(codes[:, informative], data.factors.values)
    return {
        "method": name,
        "set": data.name,
        "seed": seed,
        "cpu_s": round(seconds, 1),
        "fvh_lssi": found["fvh"]["lssi"],
        "fvh_lsdi": found["fvh"]["lsdi"],
        "dbsr_lssi": found["dbsr"]["lssi"],
        "informative": count,
        "fdr": max(0, count - truth) / max(count, 1),
        "missed": max(0, truth - count),
        "correlation_with_truth": alike.max(0).round(4).tolist() if count else [],
        "kl": found["kl"],
        "c_mean": found["gaps"]["mean"],
        "posterior_tc": found["dependence"]["posterior_tc"],
        "aggregate_tc": found["dependence"]["total_correlation"],
        **{k: v for k, v in found["supervised"].items() if k != "importance"},
        "codes": codes[:CODES, informative].round(3).tolist(),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, deviation, least and largest of every figure of a method, and stability over its runs."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(r["method"] for r in runs):
        own = [r for r in runs if r["method"] == name]
        keys = ("fvh_lssi", "dbsr_lssi", "mig", "sap", "dci_disentanglement", "fdr", "missed", "informative", "c_mean")
        figures: dict[str, Any] = {k: _spread([float(r[k]) for r in own]) for k in keys}
        strengths = [
            float(align(np.array(a["codes"]), np.array(b["codes"]), floor=0.0).strength.mean())
            for a, b in combinations(own, 2)
            if a["informative"] and b["informative"]
        ]
        out[name] = {"runs": len(own), "gas": _spread(strengths), **figures}
    if len(runs) > 2:
        ranks = spearmanr([r["fvh_lssi"] for r in runs], [r["dci_disentanglement"] for r in runs])
        out["spearman of LSSI and DCI-D"] = round(float(ranks.statistic), 4)
    return out


def _spread(values: list[float]) -> list[float]:
    """Mean, standard deviation, least, largest."""
    if not values:
        return []
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(v, 4) for v in (statistics.mean(values), deviation, min(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("experiment", choices=(*EXPERIMENTS, "violation"))
    parser.add_argument("--json", type=Path, required=True, help="results; runs that it holds are not repeated")
    parser.add_argument("--runs", type=int, help="stop after so many new runs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    runs = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    done = {(r["method"], r["seed"]) for r in runs}
    sets: dict[str, Dataset] = {}
    wanted = [run for run in plan(options.experiment) if (run[1], run[3]) not in done]
    for data, name, weights, seed in wanted[: options.runs]:
        runs.append(run(sets.setdefault(data, factor_analysis(data)), name, weights, seed))
        shown = {k: v for k, v in runs[-1].items() if k not in ("codes", "kl")}
        print(json.dumps(shown, ensure_ascii=False), file=sys.stderr, flush=True)
        training = TRAININGS.get(data, TRAINING)
        settings = {"iterations": training.iterations, "rate": training.rate, "samples": len(sets[data].train)}
        result = {"settings": settings, "summary": summary(runs), "runs": runs}
        options.json.write_text(json.dumps(result, ensure_ascii=False) + "\n")
    print(json.dumps(summary(runs), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
