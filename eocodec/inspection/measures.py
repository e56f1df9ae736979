"""Figures and pictures of a model's ordered latents: spectrum, total correlation, core, traversals, basis, samples.

In: a loaded model, pictures. Out: arrays and small dataclasses.

Notation (docs/METHOD.md): g the inverse flow, `J_i` the i-th column of ∂g/∂h, `H_i` explained entropy. All columns are
central differences through the decoder graph at a step near zero, where its refinement vanishes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from eocodec.coding.flat import FlatWalk
from eocodec.coding.scales import MEAN_UNIT
from eocodec.errors import EocodecError, ModelError
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.manifest import COLOURS, ORIENTATIONS
from eocodec.model.spectrum import Spectrum, noise_floor
from eocodec.steps import step_code, step_of_code

__all__ = [
    "COLOURS",
    "ORIENTATIONS",
    "Spectrum",
    "TotalCorrelation",
    "basis",
    "core",
    "distribution",
    "latents_of_rate",
    "log_column_norms",
    "noise_floor",
    "picture_columns",
    "sample",
    "spectrum",
    "total_correlation",
    "traversal",
]

STILL = 1e-6  # Δ of a decoder that is to be the inverse of the flow alone
PROBE = 1 / 255  # half the width of a central difference, in the picture
BATCH = 32  # latents that are probed or pictures that are decoded at a time
WINDOW = {1: 64, 2: 128, 3: 192}  # pixels around a latent of a level in which its column is measured; 256 beyond
PLAUSIBLE = 30.0  # nats; bound of |H| and of log column norms

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def spectrum(model: Model) -> Spectrum:
    """The spectrum that a model's manifest holds.

    Raises:
        ModelError: its entropies or gains cannot be those of pictures.
    """
    held = model.any_manifest
    values = np.concatenate([np.ravel(v) for rows in (held.entropy, held.gain) for v in rows])
    if not (np.abs(values) < PLAUSIBLE).all() or not held.water > 0:
        raise ModelError(f"the model {model.name} has a spectrum that cannot be that of pictures")
    return held.spectrum


def latents_of_rate(model: Model, delta: float) -> float:
    """C that goes with a step Δ (range 0 to 1)."""
    return model.any_manifest.rate_of(delta)


@dataclass(frozen=True)
class TotalCorrelation:
    """The manifold total correlation of a flow that preserves volume, I = E Σ log ‖J_i‖, measured on some latents.

    Arguments:
        per_latent: I over the number of latents, nats.
        error: its standard error.
        latents: how many latents a unit of the spectrum has, so that I = `per_latent` · `latents`.
        parts: name, latents in a unit, probes, mean and standard deviation of log ‖J_i‖ of every stratum.
    """

    per_latent: float
    error: float
    latents: int
    parts: tuple[tuple[str, int, int, float, float], ...]


def log_column_norms(model: Model, latents: Float32, index: npt.NDArray[np.intp]) -> Floats:
    """log ‖J_i‖ `(B,)` of a flat model, at latents `(B, D)`, i = `index (B,)`."""
    width = PROBE * np.exp(np.array(model.flat.gain))[index]
    norms = [
        np.linalg.norm((_columns(model, latents[k : k + BATCH], index[k : k + BATCH], width[k : k + BATCH])), axis=1)
        for k in range(0, len(index), BATCH)
    ]
    return np.log(np.maximum(np.concatenate(norms), 1e-30))


def _columns(model: Model, latents: Float32, index: npt.NDArray[np.intp], width: Floats) -> Floats:
    moved = np.repeat(latents[None], 2, 0).astype(np.float32)
    rows = np.arange(len(index))
    moved[0, rows, index] += width.astype(np.float32)
    moved[1, rows, index] -= width.astype(np.float32)
    moved = moved.reshape(-1, latents.shape[1])
    (picture,) = model.run("decoder", {"latents": moved, "step": np.full(len(moved), STILL, np.float32)})
    plus, minus = picture.reshape(2, len(index), -1).astype(np.float64)
    return (plus - minus) / (2 * width[:, None])


def picture_columns(
    model: Model, latents: transform.Latents, band: int, channel: int, places: npt.NDArray[np.intp], window: int
) -> tuple[Float32, npt.NDArray[np.intp]]:
    """Columns of latents at `places (n, 2)` of one channel, in windows of pixels.

    Returns:
        `(n, 3, rows, columns)` and the first row and column of every window `(n, 2)`.
    """
    levels, unit = model.manifest.levels, 2**model.manifest.levels
    factors = transform.scales(levels)
    whole = np.array(latents[0].shape[1:]) * factors[0]
    size = np.minimum(window, whole)
    centre = (places + 0.5) * factors[band]
    start = np.clip(np.rint((centre - size / 2) / unit).astype(np.intp) * unit, 0, whole - size)
    width = np.float32(PROBE * math.exp(model.manifest.gain[band][channel]))
    result = []
    for place, first in zip(places, start, strict=True):
        inputs = {}
        for k, (name, f) in enumerate(zip(transform.band_names(levels), factors, strict=True)):
            top, left = first // f
            rows, columns = size // f
            inputs[name] = np.repeat(latents[k][None, :, top : top + rows, left : left + columns], 2, 0)
        i, j = place - first // factors[band]
        moved = inputs[transform.band_names(levels)[band]]
        moved[0, channel, i, j] += width
        moved[1, channel, i, j] -= width
        (picture,) = model.run("decoder", {**inputs, **transform.step_inputs(model, STILL, 2)})
        result.append((picture[0] - picture[1]) / (2 * width))
    return np.stack(result), start


def _window(level: int) -> int:
    return WINDOW.get(level, 256)


def total_correlation(
    model: Model, at: Sequence[Bytes] | Float32, probes: int = 128, seed: int = 0
) -> TotalCorrelation:
    """Total correlation measured on a stratified random choice of latents; log |det J| is zero.

    Arguments:
        model: any; its flow preserves volume.
        at: where to linearise: pictures `(H, W, 3)` uint8, or latents `(B, D)` of a flat model.
        probes: columns to measure, about; every stratum gets at least two.
        seed: of the choice.

    Raises:
        EocodecError: no picture, or one that the model does not take.
    """
    if len(at) == 0:
        raise EocodecError("the total correlation needs at least one picture")
    generator = np.random.default_rng(seed)
    if model.size is not None:
        latents = at if isinstance(at, np.ndarray) else np.stack([transform.analyse_vector(model, p) for p in at])
        return _flat_correlation(model, latents, probes, generator)
    return _picture_correlation(model, cast(Sequence[Bytes], at), probes, generator)


def _stratified(parts: list[tuple[str, int, Floats]]) -> TotalCorrelation:
    latents = sum(count for _, count, _ in parts)
    mean = sum(count / latents * float(v.mean()) for _, count, v in parts)
    variance = sum((count / latents) ** 2 * float(v.var(ddof=1)) / len(v) for _, count, v in parts)
    rows = tuple((name, count, len(v), float(v.mean()), float(v.std(ddof=1))) for name, count, v in parts)
    return TotalCorrelation(mean, math.sqrt(variance), latents, rows)


def _flat_correlation(model: Model, latents: Float32, probes: int, generator: np.random.Generator) -> TotalCorrelation:
    middle, dims = model.flat.blocks[-1], len(model.flat.gain)
    parts = []
    for name, start, stop in (("core", 0, middle), ("rest", middle, dims)):
        if start < stop:
            index = generator.integers(start, stop, max(2, probes // 2))
            where = generator.integers(0, len(latents), len(index))
            parts.append((name, stop - start, log_column_norms(model, latents[where], index)))
    return _stratified(parts)


def _picture_correlation(
    model: Model, pictures: Sequence[Bytes], probes: int, generator: np.random.Generator
) -> TotalCorrelation:
    manifest = model.manifest
    encoded = [transform.analyse(model, p) for p in pictures]
    roots = sum(math.sqrt(manifest.count(b)) for b, _ in manifest.order)
    parts = []
    for band, channel in manifest.order:
        n = max(2, round(probes * math.sqrt(manifest.count(band)) / roots))
        window = _window(manifest.levels + 1 - band if band else manifest.levels)
        norms = []
        for _ in range(n):
            latents = encoded[int(generator.integers(len(encoded)))]
            place = np.array([[int(generator.integers(size)) for size in latents[band].shape[1:]]])
            column, _ = picture_columns(model, latents, band, channel, place, window)
            norms.append(math.log(max(float(np.linalg.norm(column[0])), 1e-30)))
        parts.append((manifest.channel_name(band, channel), manifest.count(band), np.array(norms)))
    return _stratified(parts)


def core(model: Model, rgb: Bytes, rate: float) -> Float32:
    """The picture `(H, W, 3)`, 0 to 1, of the top C = `rate` latents in the order of H; the others are zero.

    Blocks of models for pictures of any size keep whole channels, and the one at the cut is scaled, as by
    `eocodec denoise --rate`. All latents give the picture back. Models for pictures of any size decode without
    refinement, flat models with it unless C is all of D.

    Raises:
        EocodecError: C is out of range, or the model does not take the picture.
    """
    if not 1 <= rate <= model.block:
        raise EocodecError(f"the rate must be from 1 to {model.block} latents, not {rate:g}")
    if model.size is not None:
        vector = transform.analyse_vector(model, rgb)
        vector[model.flat.order[round(rate) :]] = 0
        return transform.synthesise_vectors(model, vector[None], model.flat.core_step(rate))[0]
    weights = model.manifest.kept(rate)
    latents = [h * w for h, w in zip(transform.analyse(model, rgb), weights, strict=True)]
    result = np.empty(rgb.shape, np.float32)
    for rows, columns, piece in transform.synthesise_tiles(model, latents, STILL, rgb.shape[1], rgb.shape[0]):
        result[rows, columns] = piece.transpose(1, 2, 0)
    return np.clip(result, 0, 1)


def traversal(model: Model, latents: Float32, top: int, sigmas: Sequence[float]) -> Float32:
    """What the first latents of the spectrum do to a picture: each one moved by multiples of its σ.

    σ = exp(H) / sqrt(2πe) in the picture, that is σ / ‖J‖ in the latent. Flat models only.

    Arguments:
        model: a flat model.
        latents: `(D,)`, of the picture to start from.
        top: how many latents, by falling H.
        sigmas: what to add to a latent, in units of its σ.

    Returns:
        Pictures `(top, len(sigmas), S, S, 3)`, 0 to 1.
    """
    manifest = model.flat
    rows = []
    for i in manifest.order[:top]:
        unit = math.exp(manifest.entropy[i] + manifest.gain[i]) / math.sqrt(2 * math.pi * math.e)
        moved = np.repeat(latents[None], len(sigmas), 0)
        moved[:, i] += np.array(sigmas, np.float32) * np.float32(unit)
        rows.append(transform.synthesise_vectors(model, moved, STILL))
    return np.stack(rows)


def basis(model: Model, rgb: Bytes) -> list[list[Float32]]:
    """Columns of J at the middle of a picture, one latent for every channel of every band.

    Returns:
        A row for the low-pass, then for the levels from coarse to fine. Entries are `(s, s, 3)`, s = 8 · 2**level
        pixels around the latent, in units of the picture per unit of the latent; zero beyond the picture.

    Raises:
        EocodecError: a flat model, whose columns are what :func:`traversal` shows.
    """
    levels = model.manifest.levels
    latents = transform.analyse(model, rgb)
    result = []
    for band, f in enumerate(transform.scales(levels)):
        place = np.array([[n // 2 for n in latents[band].shape[1:]]])
        row = []
        for channel in range(len(latents[band])):
            column, start = picture_columns(
                model, latents, band, channel, place, _window(levels + 1 - band if band else levels)
            )
            image = column[0].transpose(1, 2, 0)
            edge = 8 * f
            top, left = ((place[0] * f + f // 2 - start[0]) - edge // 2).tolist()
            padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)))
            row.append(padded[top + edge : top + 2 * edge, left + edge : left + 2 * edge])
        result.append(row)
    return result


class _Sampler:
    """The coder of a walk over a flat model's parts that draws residuals from the frequency tables."""

    def __init__(self, model: Model, temperature: float, generator: np.random.Generator) -> None:
        self.generator = generator
        self.values = np.zeros(len(model.flat.gain), np.float32)
        self.shift = np.zeros((len(model.tables), 4), np.float32)
        self.shift[:, 1:] = np.array(model.flat.shift, np.float32) / 256
        self.cumulative = [distribution(f, temperature) for f in model.tables]

    def part(
        self, places: npt.NDArray[np.intp], mean: npt.NDArray[np.int32], index: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.int32]:
        """Residuals of a part; its dequantised latents, in steps, go to `values`."""
        uniform = self.generator.random(len(places))
        m = np.zeros(len(places), np.int32)
        for k in np.unique(index):
            chosen = index == k
            cumulative = self.cumulative[k]
            m[chosen] = np.searchsorted(cumulative, uniform[chosen], "right") - len(cumulative) // 2
        value = m - np.sign(m) * self.shift[index, np.minimum(np.abs(m), 3)]
        self.values[places] = value + mean / np.float32(MEAN_UNIT)
        return m


def distribution(table: npt.NDArray[np.int64], temperature: float) -> Floats:
    """Distribution function of the residuals −R to R, probabilities raised to 1/T; escapes count as ±R."""
    logarithm = np.log(np.concatenate([table[:0:-1], table]) / float(1 << 24)) / temperature
    weights = np.exp(logarithm - logarithm.max())
    cumulative = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0
    return cumulative


def sample(model: Model, count: int, temperature: float, delta: float, seed: int = 0) -> tuple[Float32, Float32]:
    """Pictures drawn from a flat model's own distribution of files at step Δ.

    At temperature 1 they are what the decoder makes of random bytes; lower temperatures, p(m)^(1/T) normalised, stay
    closer to the conditional means. The same seed uses the same random numbers at every temperature.

    Arguments:
        model: a flat model.
        count: pictures.
        temperature: T, positive.
        delta: Δ, range 0 to 1.
        seed: of the random numbers.

    Returns:
        Latents `(count, D)` and pictures `(count, S, S, 3)`, 0 to 1.

    Raises:
        EocodecError: the temperature is not positive, or the model is not flat.
    """
    manifest = model.flat
    if not (math.isfinite(temperature) and temperature > 0):
        raise EocodecError(f"the temperature must be a positive number, not {temperature:g}")
    code = step_code(delta)
    exact = step_of_code(code)
    steps = manifest.steps(exact)
    latents = []
    for k in range(count):
        sampler = _Sampler(model, temperature, np.random.default_rng([seed, k]))
        FlatWalk(model, code).run(sampler)
        latents.append(sampler.values * steps)
    stacked = np.stack(latents)
    pictures = [transform.synthesise_vectors(model, stacked[k : k + BATCH], exact) for k in range(0, count, BATCH)]
    return stacked, np.concatenate(pictures)
