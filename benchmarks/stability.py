"""Stability of the ordered latents: flows trained from random bases on faces, with several λ, over seeds.

    python benchmarks/stability.py EVAL --train TRAIN --json benchmarks/stability.json

EVAL and TRAIN are tars or folders of 64×64 pictures. Faces become vectors: their coefficients on the first principal
components of TRAIN and its mirror images, all divided by one number, so that the axes keep their different variances,
with white noise added. The flow knows neither axes nor order: each run starts from random rotations of its own, and a
Gaussian prior looks the same from every side. Runs also differ in the 80 % of TRAIN that they see; λ is all that
differs between the runs of a seed. `PCA` is the linear Gaussian model of the same subset.

After training the latents are sorted by explained entropy. Greedy alignment then pairs the top n latents of two runs
by the absolute correlation of their values on EVAL: the best pair, the best pair of the others, and so on.

References:
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from faces import Basis, read_faces
from torch import Tensor

from eocodec.flow.dense import DenseFlow, log_normal
from eocodec.flow.objective import explained_entropy
from eocodec.lab.measures.alignment import align
from eocodec.lab.subjects.flow import FlowTraining, linear_flow, train_flow

VALUES = 64 * 64 * 3  # of a picture
SUBSET = 0.8  # of the training faces, for every run
NOISE = 10.0  # σ_a, 8-bit levels
BATCH = 256
ITERATIONS = 1500
RATE = 1e-2  # of rotations and scales
NET_RATE = 1e-3  # of the couplings' nets
PAIRS = 2  # of couplings
WIDTH = 64
TOP = (16, 64)
RANKS = (1, 16, 64)  # of the spectrum, in the table
KEPT = 16  # latents that are decoded
METHODS = {"λ = 0": 0.0, "λ = 1": 1.0, "λ = 4": 4.0, "λ = 8": 8.0, "PCA": None}


@dataclass(frozen=True)
class Vectors:
    """Faces in a subspace of D dimensions.

    Arguments:
        train: faces and their mirror images, `(2, N, D)`.
        held_out: `(M, D)`.
        unit: 8-bit levels of one unit; it makes the mean variance of the D axes 1.
    """

    train: Tensor
    held_out: Tensor
    unit: float

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """`x (B, D)` with noise of σ_a added."""
        return x + NOISE / self.unit * torch.randn(x.shape, generator=generator)

    def subset(self, seed: int) -> Tensor:
        """The training vectors of a run, `(B, D)`; a face and its mirror image stay together."""
        order = torch.randperm(self.train.shape[1], generator=torch.Generator().manual_seed(seed))
        return self.train[:, order[: round(SUBSET * len(order))]].flatten(0, 1)


def read_vectors(train: Path, held_out: Path, dims: int) -> Vectors:
    """Faces on the first `dims` principal components of the training faces and their mirror images."""
    faces = read_faces(train)
    basis = Basis.fit(faces, mirrored=True, components=dims)
    unit = math.sqrt(float(np.square(basis.stds).mean()))

    def project(pictures: npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(basis.coefficients(pictures).T / np.float32(unit)).contiguous()

    return Vectors(torch.stack((project(faces), project(faces[:, :, ::-1]))), project(read_faces(held_out)), unit)


def trained(vectors: Vectors, weight: float, seed: int, iterations: int) -> DenseFlow:
    """A flow of the run's training vectors that minimises `NLL + weight · I`."""
    training = FlowTraining(iterations, BATCH, RATE, NET_RATE, PAIRS, WIDTH, NOISE / vectors.unit)
    return train_flow(vectors.subset(seed), weight, training, seed)


def principal_axes(vectors: Vectors, seed: int) -> DenseFlow:
    """The linear Gaussian model of a run's training vectors: principal components, each with its variance."""
    return linear_flow(vectors.noisy(vectors.subset(seed), torch.Generator().manual_seed(seed)))


@torch.no_grad()
def measure(flow: DenseFlow, vectors: Vectors) -> tuple[dict[str, Any], Tensor]:
    """Figures of a run, and its latents of the held-out faces `(M, D)`, sorted by falling explained entropy.

    NLL, I and H (nats) are those of noisy vectors, as in training; the latents and the error of the top latents are
    those of clean ones.
    """
    x = vectors.held_out
    z, log_det = flow(vectors.noisy(x, torch.Generator().manual_seed(1234)))
    nll = flow.nll(z, log_det).mean()
    entropies = explained_entropy(flow.inverse, z, log_normal(z))
    order = entropies.argsort(descending=True)
    latents, _ = flow(x)
    kept = torch.zeros(x.shape[1])
    kept[order[:KEPT]] = 1.0
    errors = (flow.inverse(latents * kept) - x).square().sum(1)
    psnr = 10 * torch.log10(255**2 * VALUES / (errors * vectors.unit**2))
    figures = {
        "nll": round(float(nll), 4),
        "total_correlation": round(float(entropies.sum() - nll), 4),
        "entropies": [round(float(h), 4) for h in entropies[order]],
        "explained_variance": round(float(1 - errors.sum() / (x - x.mean(0)).square().sum()), 5),
        "psnr": round(float(psnr.mean()), 3),
    }
    return figures, latents[:, order]


def aligned(a: Tensor, b: Tensor) -> list[float]:
    """Greedy alignment of `n` latents of two runs, `(M, n)` each: absolute correlations, best first."""
    return [round(float(s), 4) for s in align(a.numpy(), b.numpy(), floor=0.0).strength]


def experiment(vectors: Vectors, seeds: int, iterations: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All runs and their alignments, with each other and with the coordinates, which are the PCA of all faces."""
    dims = vectors.held_out.shape[1]
    tops = sorted({min(n, dims) for n in TOP})
    runs, pairs, summary = [], [], {}
    for name, weight in METHODS.items():
        own, latents = [], []
        for seed in range(seeds):
            start = time.process_time()
            flow = principal_axes(vectors, seed) if weight is None else trained(vectors, weight, seed, iterations)
            seconds = round(time.process_time() - start, 1)
            figures, values = measure(flow, vectors)
            to_pca = {str(n): _mean(aligned(values[:, :n], vectors.held_out[:, :n])) for n in tops}
            own.append({"method": name, "seed": seed, "cpu_s": seconds, **figures, "to_pca": to_pca})
            latents.append(values)
            say(json.dumps(own[-1], ensure_ascii=False))
        found = [
            {"method": name, "seeds": [a, b], **{str(n): aligned(latents[a][:, :n], latents[b][:, :n]) for n in tops}}
            for a, b in combinations(range(seeds), 2)
        ]
        summary[name] = {
            "between_runs": {str(n): _spread([_mean(p[str(n)]) for p in found]) for n in tops},
            "to_pca": {str(n): _spread([r["to_pca"][str(n)] for r in own]) for n in tops},
            "entropies": {str(k): _spread([r["entropies"][k - 1] for r in own]) for k in RANKS if k <= dims},
            **{k: _spread([r[k] for r in own]) for k in ("nll", "total_correlation", "explained_variance", "psnr")},
        }
        runs += own
        pairs += found
        say(f"{name}: {summary[name]['between_runs']}")
    settings = {
        "dims": dims,
        "unit_levels": round(vectors.unit, 3),
        "noise_levels": NOISE,
        "training_faces": vectors.train.shape[1],
        "held_out_faces": len(vectors.held_out),
        "subset": SUBSET,
        "iterations": iterations,
        "batch": BATCH,
        "learning_rates": [RATE, NET_RATE],
        "coupling_pairs": PAIRS,
        "width": WIDTH,
        "kept": KEPT,
    }
    return {"settings": settings, "summary": summary, "runs": runs, "alignments": pairs}


def _mean(values: list[float]) -> float:
    return round(statistics.mean(values), 4)


def _spread(values: list[float]) -> list[float]:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return [_mean(values), round(deviation, 4)]


def table(result: dict[str, Any]) -> str:
    """Mean ± standard deviation over seeds or pairs of seeds, as Markdown."""
    summary = result["summary"]
    first = next(iter(summary.values()))
    rows: list[tuple[str, Callable[[dict[str, Any]], list[float]], int]] = [
        *((f"correlation between runs, top {n}", lambda s, n=n: s["between_runs"][n], 3) for n in first["to_pca"]),
        *((f"correlation with PCA of all faces, top {n}", lambda s, n=n: s["to_pca"][n], 3) for n in first["to_pca"]),
        ("NLL, nats", lambda s: s["nll"], 2),
        ("I, nats", lambda s: s["total_correlation"], 3),
        *((f"H_{k}, nats", lambda s, k=k: s["entropies"][k], 2) for k in first["entropies"]),
        (f"explained variance of the top {KEPT}, %", lambda s: [100 * v for v in s["explained_variance"]], 1),
        (f"PSNR of the top {KEPT} in the subspace, dB", lambda s: s["psnr"], 2),
    ]
    lines = ["| | " + " | ".join(summary) + " |", "|---" * (1 + len(summary)) + "|"]
    for label, pick, digits in rows:
        cells = []
        for s in summary.values():
            mean, deviation = pick(s)
            cells.append(f"{round(mean, digits) + 0.0:.{digits}f} ± {deviation:.{digits}f}")
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("eval", type=Path, help="tar or folder of 64×64 pictures")
    parser.add_argument("--train", type=Path, required=True, help="tar or folder of 64×64 pictures")
    parser.add_argument("--seeds", type=int, default=3, help="runs for each λ, at least 2 (default: 3)")
    parser.add_argument("--dims", type=int, default=64, help="principal components, D (default: 64)")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help=f"of a run (default: {ITERATIONS})")
    parser.add_argument("--json", type=Path, help="results")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2")
    return options


def main() -> None:
    options = arguments()
    vectors = read_vectors(options.train, options.eval, options.dims)
    torch.set_num_threads(1)  # the products are too small to share
    result = experiment(
        vectors, options.seeds, options.iterations, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
