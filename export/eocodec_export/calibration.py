"""What the files need besides graphs, measured on photos: spectrum, frequency tables, low-pass classes, centroids.

In: a trained model and pictures. Out: the manifest's numbers and the tables.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from eocodec.coding.residuals import Encoder
from eocodec.coding.scales import MEAN_UNIT
from eocodec.coding.units import Unit
from eocodec.coding.walk import Walk, activity_class, from_symbols, lattices, to_symbols
from eocodec.denoising.shrinkage import noise_level
from eocodec.flow.context import SCALE_MIN, SCALE_PER_OCTAVE, SCALES, Steps, compand
from eocodec.flow.model import PhotoModel
from eocodec.flow.objective import log_column_norms
from eocodec.format import MAX_TUNING, Header
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.steps import step_code

__all__ = [
    "Statistics",
    "compand_table",
    "explained_entropy",
    "gather",
    "laplace_tables",
    "level_ratio",
    "noise_gains",
    "pack_tables",
]

TOTAL = 1 << 24
CLASSES = 40
COMPAND_ENTRIES = 2048
NOISE = (10.0, 20.0, 35.0, 50.0)  # 8-bit levels at which the response to noise is measured
REFERENCE_STEP = 2.0  # 8-bit levels: fine enough for the density to be that of the unquantised latents

UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def compand_table() -> bytes:
    """The nets' companding of |v| in 1/16 steps as a table of uint8, exactly as training rounds it."""
    v = torch.arange(COMPAND_ENTRIES, dtype=torch.float64) / 16
    return bytes(torch.floor(compand(v) * 32 + 0.5).clamp(max=127).to(torch.uint8).numpy().tobytes())


def scale_of(index: int) -> float:
    """Laplace scale of a table index, in steps."""
    return float(SCALE_MIN * 2 ** (index / SCALE_PER_OCTAVE))


def _laplace(scale: float, weight: float) -> Floats:
    """Probabilities of m = 0, 1, …, R (the last one the escape) of a rounded Laplace variable with a dead zone."""
    radius = max(3, min(1500, math.ceil(scale * 11)))
    edge = 0.5 + 0.5 * weight * min(1 / scale / math.log(2), 8)
    edges = np.concatenate([[0.0], np.arange(radius) + edge, [math.inf]])
    tail = np.exp(-edges / scale)
    p = tail[:-1] - tail[1:]
    p[1:] /= 2
    return np.asarray(np.maximum(p, 1e-12))


def _frequencies(p: Floats) -> npt.NDArray[np.int64]:
    """Integers f ≥ 1 with f(0) + 2 Σ f(m) = 2**24 in proportion to p(0), p(1) = p(−1), …"""
    q = p / (p[0] + 2 * p[1:].sum())
    f = np.maximum(1, np.floor(q * (TOTAL - 4 * len(q)))).astype(np.int64)
    f[0] = 0
    f[0] = TOTAL - 2 * f.sum()
    if f[0] < 1:  # a flat, wide table: take the excess from the largest side entry
        raise AssertionError("table without room for zero")
    return f


def laplace_tables(weight: float) -> list[npt.NDArray[np.int64]]:
    """Tables to start from."""
    return [_frequencies(_laplace(scale_of(k), weight)) for k in range(SCALES)]


def pack_tables(tables: Sequence[npt.NDArray[np.int64]]) -> bytes:
    """Count, then length and values of each, as little-endian uint32."""
    words = [np.array([len(tables)])] + [np.concatenate([[len(t)], t]) for t in tables]
    return np.concatenate(words).astype("<u4").tobytes()


class Counts(Protocol):
    """Residuals counted by table index, and the sums of their offsets from the integers by index and magnitude."""

    counts: npt.NDArray[np.int64]
    shift_sum: Floats
    shift_count: Floats


class Statistics(Encoder):
    """An encoder that counts what it codes instead of writing it."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, [])
        self.width = max(len(t) for t in model.tables) + 1
        self.counts = np.zeros((SCALES, self.width), np.int64)
        self.shift_sum = np.zeros((SCALES, 4))
        self.shift_count = np.zeros((SCALES, 4))
        self.low_counts: dict[tuple[int, int, int], Floats] = {}

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Count residuals and their offsets from the integers, by table index."""
        y = unit.gather(self.targets[1 + self.levels - unit.level], rows)
        residual = y - mean / 16
        m = self.tables.round(residual.astype(np.float32), index, self.weight(unit))
        symbols, idx = to_symbols(m, unit, rows, valid), to_symbols(index, unit, rows, valid).astype(np.int64)
        r = to_symbols(residual, unit, rows, valid)
        magnitude = np.abs(symbols)
        np.add.at(self.counts, (idx, np.minimum(magnitude, self.width - 1)), 1)
        place = np.minimum(magnitude, 3)
        np.add.at(self.shift_sum, (idx, place), magnitude - np.sign(symbols) * r)
        np.add.at(self.shift_count, (idx, place), 1)
        return from_symbols(symbols, m, unit, rows, valid) * MEAN_UNIT + mean

    def count_low(self, q: npt.NDArray[np.int32]) -> None:
        """Count the interpolation residuals of low-pass integers `(axes, h, w)`."""
        stride = 1 << (max(q.shape[1:]) - 1).bit_length()
        while stride > 1:
            for channel in range(len(q)):
                for kind, rows, columns, predicted, activity in lattices(q[channel], stride // 2):
                    r = np.minimum(np.abs(q[channel][rows, columns] - predicted), self.width - 1).ravel()
                    c = np.minimum(activity_class(activity), CLASSES - 1).ravel()
                    for k in np.unique(c):
                        place = self.low_counts.setdefault((channel, kind, int(k)), np.zeros(self.width))
                        place += np.bincount(r[c == k], minlength=self.width)
            stride //= 2


def gather(model: Model, pictures: Sequence[UInt8], levels: Sequence[float]) -> Statistics:
    """Statistics of `pictures` at steps `levels` (8-bit levels), every other time tuned for the eye if that can be."""
    statistics = Statistics(model)
    for number, picture in enumerate(pictures):
        latents = transform.analyse(model, picture)
        for k, level in enumerate(levels):
            tuning = MAX_TUNING if model.manifest.tuned and (number + k) % 2 else 0
            code = step_code(level / 255.0)
            height, width = picture.shape[:2]
            header = Header(model.id, width, height, 0, code, model.axes == 1, tuning=tuning, axes=model.axes)
            statistics.weights = model.encoding.weights(eye=tuning > 0)
            walk = Walk(model, header)
            steps = walk.fineness.steps()
            statistics.targets = [h / s for h, s in zip(latents, steps, strict=True)]
            low = walk.run(statistics)
            height, width = walk.band_size(0)
            statistics.count_low(low[:, :height, :width])
    return statistics


def fit_tables(statistics: Counts, weight: float, prior: float = 400.0) -> list[npt.NDArray[np.int64]]:
    """Frequency tables: counts joined by `prior` pseudo-counts of a Laplace whose scale fits them."""
    tables = []
    for k in range(SCALES):
        counts = statistics.counts[k].astype(np.float64)
        total = counts.sum()
        scale = scale_of(k)
        if total > 1000:
            mean = float((counts * np.arange(len(counts))).sum() / total)
            candidates = scale * np.exp2(np.linspace(-2, 2, 41))
            implied = [
                float((lambda p: 2 * (p[1:] * np.arange(1, len(p))).sum())(_laplace(s, weight))) for s in candidates
            ]
            scale = float(candidates[int(np.argmin(np.abs(np.array(implied) - mean)))])
        shape = _laplace(scale, weight)
        n = max(len(shape), len(_laplace(scale_of(k), weight)))
        shape = np.pad(shape, (0, n - len(shape)), constant_values=1e-9)
        folded = counts[:n].copy()
        folded[-1] += counts[n:].sum()
        smooth = folded + prior * np.concatenate([shape[:1], 2 * shape[1:]])
        if scale > 12:  # many thin bins: the fitted shape is better than their noise
            smooth = folded * 0.0 + np.concatenate([shape[:1], 2 * shape[1:]])
        p = smooth / smooth.sum()
        p[1:] /= 2
        tables.append(_frequencies(p))
    return tables


def fit_low(statistics: Statistics, tables: Sequence[npt.NDArray[np.int64]]) -> list[list[list[int]]]:
    """Best table for every colour, lattice kind and activity class; classes never seen follow their neighbour."""
    result = []
    for channel in range(1 + max(c for c, _, _ in statistics.low_counts)):
        kinds = []
        for kind in range(6):
            row: list[int | None] = []
            for c in range(CLASSES):
                counts = statistics.low_counts.get((channel, kind, c))
                if counts is None or counts.sum() < 20:
                    row.append(None)
                    continue
                costs = []
                for f in tables:
                    n = len(f)
                    bits = 24 - np.log2(f.astype(np.float64))
                    tail = bits[-1] + 5 + 2 * np.log2(1 + np.arange(max(0, len(counts) - n)))
                    costs.append(float(counts[:n] @ bits[: len(counts)] + counts[n:] @ tail))
                row.append(int(np.argmin(costs)))
            known = [k for k in range(CLASSES) if row[k] is not None]
            filled = []
            for k in range(CLASSES):
                near = min(known, key=lambda j: abs(j - k)) if known else 0
                value = row[near] if known else 30
                assert value is not None
                # Two classes an octave; a table index is a fifth of an octave.
                filled.append(int(np.clip(value + (k - near) * 2.5, 0, SCALES - 1)))
            kinds.append(filled)
        result.append(kinds)
    return result


def fit_shift(statistics: Counts) -> list[list[int]]:
    """Centroids: mean offset towards zero for magnitude 1, 2, ≥ 3, in 1/256 steps."""
    with np.errstate(invalid="ignore"):
        mean = np.where(statistics.shift_count > 300, statistics.shift_sum / np.maximum(statistics.shift_count, 1), 0.0)
    return [[round(256 * float(np.clip(v, -0.4, 0.4))) for v in row[1:]] for row in mean]


@torch.no_grad()
def explained_entropy(model: PhotoModel, pictures: Sequence[UInt8]) -> list[list[float]]:
    """H of every band and channel in nats, pictures in 0 to 1: mean of −log p(h | coarser) + log ‖J‖.

    The density is the conditional last layer's at a step of 2 levels; the column norms come from lattices of impulses.
    """
    levels = model.config.levels
    step = torch.tensor([REFERENCE_STEP / 255.0])
    nll = [torch.zeros(9 if k else 3) for k in range(levels + 1)]
    norms = [torch.zeros(9 if k else 3) for k in range(levels + 1)]
    counts = [0.0] * (levels + 1)
    for number, picture in enumerate(pictures):
        height, width = (n // 96 * 96 for n in picture.shape[:2])
        x = torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255.0
        h = model.flow(x)
        coded = model.latents(h, Steps(step), 0.0, True)
        for k, band in enumerate(coded.band_nll):
            nll[k] += band[0]
            counts[k] += h[k][0, 0].numel()
        if number < 8:
            small = model.flow(x[..., : height // 96 * 48, : width // 96 * 48].contiguous())
            for k, band in enumerate(small):
                for c in range(band.shape[1]):
                    norms[k][c] += log_column_norms(model.flow.inverse, small, k, c, 48).mean() / min(8, len(pictures))
    return [(a / n + b).tolist() for a, n, b in zip(nll, counts, norms, strict=True)]


def noise_gains(model: PhotoModel, pictures: Sequence[UInt8]) -> dict[str, object]:
    """What white noise is multiplied by in every band and channel: at one level, and at several (8-bit levels)."""
    gains = [(sigma, [[round(v, 4) for v in row] for row in noise_gain(model, pictures, sigma)]) for sigma in NOISE]
    return {"gain": noise_gain(model, pictures), "gains": gains}


@torch.no_grad()
def noise_gain(model: PhotoModel, pictures: Sequence[UInt8], sigma: float = 20.0) -> list[list[float]]:
    """Robust standard deviation (MAD / 0.6745) of every band and channel's response to unit white noise.

    The flow is not linear, so the response varies over a picture; the median stands for its smooth parts.
    """
    generator = torch.Generator().manual_seed(0)
    total = [torch.zeros(9 if k else 3) for k in range(model.config.levels + 1)]
    for picture in pictures:
        height, width = (n // 32 * 32 for n in picture.shape[:2])
        x = torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255.0
        noise = torch.randn(x.shape, generator=generator) * (sigma / 255.0)
        for k, (a, b) in enumerate(zip(model.flow(x + noise), model.flow(x), strict=True)):
            spread = (a - b)[0].abs().flatten(1).median(1).values / 0.6745
            total[k] += spread / (sigma / 255.0) / len(pictures)
    return [t.tolist() for t in total]


def level_ratio(model: Model, pictures: Sequence[UInt8]) -> float:
    """Mean ratio of the estimated to the true level of white noise at σ = 10, 25, 50 levels, before correction."""
    generator = np.random.default_rng(0)
    ratios = [
        255 * noise_level(model, ((p + generator.normal(0, sigma, p.shape)) / 255).astype(np.float32)) / sigma
        for p in pictures
        for sigma in (10.0, 25.0, 50.0)
    ]
    return float(np.median(ratios))
