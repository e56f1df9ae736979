"""What the total-correlation term of the objective buys: flows trained with λ = 0 and λ > 0 on data of known shape.

    python benchmarks/objective.py [--json FILE]

Trains three seeds on Gaussian data and on two curved manifolds with noise, and prints a Markdown table: total
correlation, spectrum, and the rate of really quantised latents at equal distortion. `tests/test_objective.py` holds
the same flows and data to their truths.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from eocodec.flow.dense import AffineCoupling, DenseFlow, DenseLayer, Linear, Rotation, Scale, log_normal
from eocodec.flow.objective import dense_total_correlation, explained_entropy

DIM = 8
NOISE = 0.1
WEIGHT = 1.0
SEEDS = (0, 1, 2)
# Steps Δ of the quantiser, in units of the noise.
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Distortions at which rates are compared: mean squared error per dimension, in units of the noise's variance. The
# first keeps the noise, the second drops most of it.
DISTORTIONS = (0.1, 1.0)


@dataclass(frozen=True)
class Source:
    """Samples in R^DIM: `signal` of `inputs` normal variables, and isotropic noise of deviation `noise` on top.

    `core` counts the latents that a good order puts first.
    """

    name: str
    inputs: int
    core: int
    noise: float
    signal: Callable[[Tensor], Tensor]

    def basis(self) -> Tensor:
        """A fixed rotation, so that no axis is special."""
        return torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(99)))[0]

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clean and noisy vectors, each `(count, DIM)`."""
        clean = self.signal(torch.randn(count, self.inputs, generator=generator))
        clean = torch.nn.functional.pad(clean, (0, DIM - clean.shape[1])) @ self.basis().T
        return clean, clean + self.noise * torch.randn(count, DIM, generator=generator)


def curve(t: Tensor) -> Tensor:
    """A curve in R³: `(B, 1) -> (B, 3)`."""
    return torch.cat((1.5 * t, torch.sin(1.2 * t), 0.3 * t.square()), 1)


def surface(t: Tensor) -> Tensor:
    """A surface in R⁴, curved both ways: `(B, 2) -> (B, 4)`."""
    u, v = t[:, :1], t[:, 1:]
    return torch.cat((1.5 * u, 0.8 * v, 0.7 * torch.sin(1.2 * u), 0.25 * (u * v + v.square())), 1)


def gaussian(t: Tensor) -> Tensor:
    """Coordinates of variance 4, 2, 1, ...: `(B, DIM) -> (B, DIM)`."""
    return t * VARIANCES.sqrt()


VARIANCES = 4 * 0.5 ** torch.arange(DIM)
GAUSSIAN = Source("Gaussian", DIM, 2, 0.0, gaussian)
CURVE = Source("curve", 1, 1, NOISE, curve)
SURFACE = Source("surface", 2, 2, NOISE, surface)


def linear_flow() -> DenseFlow:
    """A linear layer with random rotations, so that nothing but the objective aligns it."""
    layer = Linear(DIM)
    with torch.no_grad():
        for rotation in (layer.first, layer.second):
            rotation.vectors.copy_(torch.randn(DIM, DIM))
    return DenseFlow([layer])


def curved_flow(x: Tensor, splits: tuple[int, ...] = (1, 2, 1), width: int = 32) -> DenseFlow:
    """Principal axes, pairs of affine couplings, rotation and scale; starts as the whitening of `x (B, DIM)`."""
    _, axes = torch.linalg.eigh(torch.cov(x.T))
    first = Rotation.from_basis(axes.T.flip(0))
    layers: list[DenseLayer] = [first]
    for split in splits:
        layers += [AffineCoupling(DIM, split, width), AffineCoupling(DIM, split, width, flipped=True)]
    layers += [Scale(DIM).fit(first(x).detach())]
    return DenseFlow(layers)


def train(
    flow: DenseFlow,
    batches: Callable[[], Tensor],
    weight: float,
    generator: torch.Generator,
    steps: int = 600,
    rate: float = 5e-3,
) -> None:
    """Minimise `NLL + weight · I` with Adam, the learning rate following a cosine to zero."""
    optimiser = torch.optim.Adam(flow.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        z, log_det = flow(batches())
        loss = flow.nll(z, log_det).mean()
        if weight:
            loss = loss + weight * dense_total_correlation(flow.inverse, z, generator, log_det).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimiser.step()
        schedule.step()


def trained(
    source: Source, weight: float, seed: int, steps: int = 600, splits: tuple[int, ...] = (1, 2, 1)
) -> DenseFlow:
    """The flow of a source, trained on batches of 256 fresh samples; `splits` are those of :func:`curved_flow`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    linear = source is GAUSSIAN
    flow = linear_flow() if linear else curved_flow(source.sample(4096, generator)[1], splits)
    train(flow, lambda: source.sample(256, generator)[1], weight, generator, steps, 3e-2 if linear else 5e-3)
    return flow


def histogram_bits(m: Tensor) -> float:
    """Bits per sample of integers `(B, D)` under an ideal static code for every dimension."""
    bits = 0.0
    for column in m.T:
        p = column.unique(return_counts=True)[1].double() / len(column)
        bits -= float((p * p.log2()).sum())
    return bits


@torch.no_grad()
def rate_distortion(flow: DenseFlow, z: Tensor, x: Tensor, log_norms: Tensor) -> list[tuple[float, float]]:
    """`(bits per sample, mean squared error per dimension)` at every step, latent i rounded to `Δ / ‖J_i‖`."""
    points = []
    for delta in STEPS:
        steps = delta * NOISE * torch.exp(-log_norms)
        m = torch.round(z / steps)
        points.append((histogram_bits(m), float((flow.inverse(m * steps) - x).square().mean())))
    return points


def bits_at(points: list[tuple[float, float]], mse: float) -> float:
    """Rate at a distortion, linear in the logarithm of the distortion between measured points; NaN outside."""
    for (r0, d0), (r1, d1) in pairwise(points):
        if d0 <= mse <= d1:
            return r0 + (r1 - r0) * math.log(mse / d0) / math.log(d1 / d0)
    return math.nan


@torch.no_grad()
def measure(source: Source, flow: DenseFlow) -> dict[str, float | list[float] | list[tuple[float, float]]]:
    """Entropies in nats, distances as root mean squares over samples, rates in bits per sample."""
    clean, x = source.sample(20000, torch.Generator().manual_seed(1234))
    z, log_det = flow(x)
    nll = flow.nll(z, log_det).mean()
    entropies = explained_entropy(flow.inverse, z[:4000], log_normal(z[:4000]))
    correlation = entropies.sum() - flow.nll(z, log_det)[:4000].mean()
    log_norms = entropies + log_normal(z[:4000]).mean(0)
    order = entropies.argsort(descending=True)
    spectrum = entropies[order]
    variances = torch.exp(2 * spectrum) / (2 * math.pi * math.e)
    kept = torch.zeros(DIM)
    kept[order[: source.core]] = 1.0
    points = rate_distortion(flow, z, x, log_norms)
    return {
        "nll": round(float(nll), 4),
        "total_correlation": round(float(correlation), 4),
        "entropies": [round(float(h), 4) for h in spectrum],
        "share_of_top": round(float(variances[: source.core].sum() / variances.sum()), 5),
        "gap": round(float(spectrum[source.core - 1] - spectrum[source.core]), 4),
        "projected_error": round(float((flow.inverse(z * kept) - clean).square().sum(1).mean().sqrt()), 5),
        "input_error": round(float((x - clean).square().sum(1).mean().sqrt()), 5),
        "bits": [round(bits_at(points, d * NOISE**2), 3) for d in DISTORTIONS],
        "rate_distortion": [(round(r, 3), float(f"{d:.4g}")) for r, d in points],
    }


def table(rows: list[dict]) -> str:  # type: ignore[type-arg]
    """Mean ± standard deviation over the seeds, as Markdown."""
    lines = [
        "| Data | λ | NLL, nats | I, nats | σ² in the top C | gap after C, nats | error of the top C "
        + "".join(f"| bits at MSE {d:g} σ_a² " for d in DISTORTIONS)
        + "|",
        "|---" * (7 + len(DISTORTIONS)) + "|",
    ]

    def spread(values: list[float], digits: int) -> str:
        mean = round(statistics.mean(values), digits) + 0.0  # no minus before a zero
        return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"

    for name, core in ((s.name, s.core) for s in (GAUSSIAN, CURVE, SURFACE)):
        for weight in (0.0, WEIGHT):
            group = [r for r in rows if r["data"] == name and r["weight"] == weight]
            cells = [
                f"{name}, C = {core}",
                f"{weight:g}",
                spread([r["nll"] for r in group], 3),
                spread([r["total_correlation"] for r in group], 3),
                spread([100 * r["share_of_top"] for r in group], 1) + " %",
                spread([r["gap"] for r in group], 2),
                spread([r["projected_error"] for r in group], 3),
                *(spread([r["bits"][k] for r in group], 2) for k in range(len(DISTORTIONS))),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    rows = []
    for source in (GAUSSIAN, CURVE, SURFACE):
        for weight in (0.0, WEIGHT):
            for seed in SEEDS:
                start = time.process_time()
                flow = trained(source, weight, seed)
                seconds = round(time.process_time() - start, 1)
                rows.append({"data": source.name, "weight": weight, "seed": seed, "cpu_s": seconds})
                rows[-1].update(measure(source, flow))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    if "--json" in sys.argv:
        with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
            file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
