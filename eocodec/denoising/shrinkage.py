"""Estimators in the ordered latent space: shrinking latents, deciding about each, or keeping the top C.

In: a noisy picture `(H, W, 3)` float32 and the level of its noise (range 0 to 1). Out: the clean picture, not clipped.

The latents are visited from core to detail, as the entropy decoder does. The integer entropy model, fed with the
latents already cleaned, predicts mean μ and scale b of the next ones; with the noise they have it gives the estimate
that replaces them: the posterior mean (:func:`shrink`), or either the latent itself or μ (:func:`drop`). The low-pass,
for which there is no such model, is smoothed.

The flow is not linear, so what shrinkage does to details also shifts the picture's coarse parts, where the noise
itself is small. :func:`restore_coarse` takes them from the noisy picture again.

References:
    Chang, Yu & Vetterli, *Adaptive wavelet thresholding for image denoising and compression*, 2000.
    https://doi.org/10.1109/83.862633
    Donoho & Johnstone, *Ideal spatial adaptation by wavelet shrinkage*, 1994. https://doi.org/10.1093/biomet/81.3.425
    Mihçak, Kozintsev, Ramchandran & Moulin, *Low-complexity image denoising based on statistical modeling of wavelet
    coefficients*, 1999. https://doi.org/10.1109/97.803428
"""

import functools
import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import MEAN_UNIT, log2_scales
from eocodec.coding.units import Unit
from eocodec.coding.walk import Walk
from eocodec.format import Header
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.manifest import PhotoManifest
from eocodec.steps import step_code

__all__ = ["drop", "keep_top", "noise_level", "restore_coarse", "shrink"]

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

# Grid of the estimates: |y| / s in 1/8 up to 16, log2(b / s) in 1/4 from −12 to 12.
_Y = np.arange(129) / 8
_LOG_B = np.arange(-48, 49) / 4

# The constants below were measured on training photos (docs/METHOD.md, section 3).
DECISION = 1.4  # threshold of dropping, in units of the one that is best for a single shift
LOW_DEPTH = 3  # scales at which the low-pass is smoothed
LOW_NOISE = 1.5  # variance taken for noise in the low-pass, in units of the expected one
# Share of what was removed that is given back of luma and of chroma, at scales of 1, 2, 4, … pixels; the last stands
# for all coarser ones. The best shares hardly depend on the level.
COARSE_LUMA = (0.0, 0.15, 0.28, 0.5, 0.87, 1.0)
COARSE_CHROMA = (0.0, 0.0, 0.0, 0.0, 0.0, 0.7)


@functools.cache
def _posterior() -> Floats:
    """E[x | y] in units of the noise: x Laplace of scale b, y = x + N(0, 1); rows log2 b, columns y.

    Noise beyond 7 is left out of account.
    """
    t = np.linspace(-7, 7, 281)
    x = _Y[:, None] + t
    result = np.empty((len(_LOG_B), len(_Y)))
    for k, b in enumerate(np.exp2(_LOG_B)):
        log_weight = -np.abs(x) / b - t**2 / 2
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        result[k] = (weight * x).sum(1) / weight.sum(1)
    return result


@functools.cache
def _thresholds() -> Floats:
    """The T at which keeping y and dropping it cost the same, rows log2 b, in units of the noise.

    Given |y| = T, E[(y − x)²] = E[x²] where E[x | T] = T / 2; the risk of "keep above T, else drop" is least there.
    """
    excess = _posterior() - _Y / 2
    excess[:, 0] = 0
    above = np.argmax(excess[:, 1:] >= 0, axis=1) + 1  # there is one: no posterior mean is below y − 7
    rows = np.arange(len(excess))
    after, before = excess[rows, above], excess[rows, above - 1]
    return np.where(above > 1, _Y[above] - _Y[1] * after / np.maximum(after - before, 1e-12), 0.0)


def _at_scales(table: Floats, noise: float) -> Float32:
    """Rows of a table over log2(b / s) for the 64 scale indices at noise `noise` (steps)."""
    log_b = log2_scales() - math.log2(noise)
    place = np.clip((log_b - _LOG_B[0]) * 4, 0, len(_LOG_B) - 1.001)
    low = place.astype(int)
    part = (place - low).reshape(-1, *[1] * (table.ndim - 1))
    return (table[low] * (1 - part) + table[low + 1] * part).astype(np.float32)


class _Cleaner(ABC):
    """A coder for :class:`eocodec.coding.walk.Walk` that cleans latents instead of coding them.

    Arguments:
        targets: latents in steps, the low-pass clean already.
        noise: standard deviation of the noise in every band and channel, steps.
        table: rows over log2(b / s), see :data:`_LOG_B`; what a subclass estimates with.
    """

    def __init__(self, targets: list[Float32], noise: list[Floats], table: Floats) -> None:
        self.targets = targets
        self.levels = len(targets) - 1
        self.clean = [targets[0], *(np.empty_like(t) for t in targets[1:])]
        self.noise = [np.maximum(n, 1e-4) for n in noise]
        self.tables = [np.stack([_at_scales(table, s) for s in n]) for n in self.noise]

    def wants(self, unit: int) -> bool:
        """Every unit is cleaned."""
        return True

    def begin(self, unit: int) -> None:
        """Nothing to do."""
        return

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """The low-pass as it is: context only."""
        return np.floor(self.targets[0][place[0]][place[1:]] + np.float32(0.5)).astype(np.int32)

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Estimates of a strip, kept in `clean`; returns them rounded, as context."""
        k = 1 + self.levels - unit.level
        result = np.empty(mean.shape, np.int32)
        for part in unit.parts:
            noise = self.noise[k][part.channels].astype(np.float32)[:, None, None]
            band, out = (
                a[k][part.channels, part.row :: 2, part.column :: 2][:, rows] for a in (self.targets, self.clean)
            )
            mu = mean[part.at].astype(np.float32) * np.float32(1 / MEAN_UNIT)
            missed = np.divide(band - mu, noise)
            x = np.multiply(noise, self.estimate(missed, self.tables[k][part.channels], index[part.at]))
            out[...] = x + mu
            result[part.at] = np.floor(x + np.float32(0.5)).astype(np.int32) * MEAN_UNIT + mean[part.at]
        return result

    @abstractmethod
    def estimate(self, y: Float32, tables: Float32, index: UInt8) -> Float32:
        """Clean values of y `(channels, rows, columns)`, in units of the noise, given scale indices."""


class _Shrinking(_Cleaner):
    """Posterior means."""

    def __init__(self, targets: list[Float32], noise: list[Floats]) -> None:
        super().__init__(targets, noise, _posterior())

    def estimate(self, y: Float32, tables: Float32, index: UInt8) -> Float32:
        """E[x | y]; beyond the grid the shrinkage is constant."""
        channel = np.arange(len(y))[:, None, None]
        place = np.abs(y) * np.float32(8)
        low = np.minimum(place, 127.0).astype(np.intp)
        part = np.minimum(place - low, 1.0)
        x = tables[channel, index, low] * (1 - part) + tables[channel, index, low + 1] * part
        x += np.maximum(place - 128, 0) / 8
        return np.copysign(x, y)


class _Deciding(_Cleaner):
    """Kept as they are, or dropped to μ."""

    def __init__(self, targets: list[Float32], noise: list[Floats]) -> None:
        super().__init__(targets, noise, DECISION * _thresholds())

    def estimate(self, y: Float32, tables: Float32, index: UInt8) -> Float32:
        """The value y where it is beyond the threshold, else 0."""
        return y * (np.abs(y) > tables[np.arange(len(y))[:, None, None], index])


def _noise_gain(manifest: PhotoManifest, noise: float | None = None) -> list[Floats]:
    """What noise of a level (range 0 to 1) is multiplied by in every band and channel.

    Flows are not linear: bundles may say it for several levels, and for others it is interpolated.
    """
    measured = manifest.denoise.get("gains", ())
    if noise is None or not measured:
        return [np.array(row) for row in manifest.denoise["gain"]]
    levels = [level for level, _ in measured]
    place = float(np.interp(255 * noise, levels, np.arange(len(levels))))
    below, above = measured[math.floor(place)][1], measured[math.ceil(place)][1]
    part = place - math.floor(place)
    return [(1 - part) * np.array(a) + part * np.array(b) for a, b in zip(below, above, strict=True)]


def noise_level(model: Model, values: Float32) -> float:
    """Level of white noise (range 0 to 1) in a picture, from the median of the finest diagonal band.

    The quietest of the three axes of colour counts.
    """
    latents = transform.analyse(model, values)
    gain = _noise_gain(model.manifest)[-1]
    spread = min(float(np.median(np.abs(latents[-1][3 * a + 2]))) / float(gain[3 * a + 2]) for a in range(3))
    return spread / 0.6745 / float(model.manifest.denoise["estimate"])


def shrink(model: Model, values: Float32, noise: float) -> Float32:
    """The picture of the posterior means of its latents."""
    return _cleaned(_Shrinking, model, values, noise)


def drop(model: Model, values: Float32, noise: float) -> Float32:
    """The picture of the latents that stand out of the noise, the others at their conditional means."""
    return _cleaned(_Deciding, model, values, noise)


def _cleaned(method: "type[_Shrinking] | type[_Deciding]", model: Model, values: Float32, noise: float) -> Float32:
    manifest = model.manifest
    height, width = values.shape[:2]
    delta = float(np.clip(manifest.denoise["step"] * noise, 1.0 / 255, 1.0))
    header = Header(model.id, width, height, 0, step_code(delta))
    steps = manifest.steps(header.delta)
    latents = transform.analyse(model, values)
    gain = _noise_gain(manifest, noise)
    latents[0] = np.stack([_smoothed(band, noise * g) for band, g in zip(latents[0], gain[0].tolist(), strict=True)])
    factor = manifest.denoise["noise"] * noise
    levels = [factor * g / s[:, 0, 0] for g, s in zip(gain, steps, strict=True)]
    coder = method([h / s for h, s in zip(latents, steps, strict=True)], levels)
    Walk(model, header).run(coder)
    clean = [c * s for c, s in zip(coder.clean, steps, strict=True)]
    return _picture(model, clean, header.delta, values.shape)


def _smoothed(band: Float32, noise: float, depth: int = LOW_DEPTH) -> Float32:
    """A band `(h, w)` with noise of standard deviation `noise`, smoothed by local Wiener filters.

    The filters work on Haar wavelets at all four shifts, `depth` scales deep.
    """
    height, width = band.shape
    if depth == 0 or min(height, width) < 2:
        return band
    total = np.zeros_like(band)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        padded = np.pad(band, ((down, (height + down) % 2), (right, (width + right) % 2)), "edge")
        upper, lower = padded[::2], padded[1::2]
        across, along = upper + lower, upper - lower
        low = _smoothed(_mixed(across, 1), noise, depth - 1)
        horizontal = _wiener(_mixed(across, -1), noise)
        vertical, diagonal = (_wiener(_mixed(along, sign), noise) for sign in (1, -1))
        clean = np.empty_like(padded)
        for first, sign in ((0, 1), (1, -1)):
            for second, turn in ((0, 1), (1, -1)):
                wavelets = turn * horizontal + sign * (vertical + turn * diagonal)
                clean[first::2, second::2] = np.float32(0.5) * (low + wavelets)
        total += clean[down : down + height, right : right + width]
    return total / np.float32(4)


def _mixed(x: Float32, sign: int) -> Float32:
    """Half the sum, or the difference, of neighbouring columns."""
    return np.float32(0.5) * (x[:, ::2] + sign * x[:, 1::2])


def _wiener(x: Float32, noise: float) -> Float32:
    """Values times s / (s + n): n the variance of the noise, s what the mean square of 3 × 3 neighbours has beyond."""
    padded = np.pad(x * x, 1, "edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    energy = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    signal = np.maximum(energy - np.float32(LOW_NOISE * noise**2), 0)
    return x * (signal / (signal + np.float32(noise**2)))


def restore_coarse(values: Float32, clean: Float32) -> Float32:
    """The clean picture with the coarse parts of what was removed from `values` given back.

    What was removed is split into scales of 1, 2, 4, … pixels, and a share of each is added.
    """
    removed = [values - clean]
    for _ in COARSE_LUMA[1:]:
        removed.append(_halved(removed[-1]))
    total = np.zeros_like(removed[-1])
    luma, chroma = (np.diff(shares, prepend=0.0).astype(np.float32) for shares in (COARSE_LUMA, COARSE_CHROMA))
    # A scale is what halving so many times leaves, less what halving once more does: sums of shares become differences.
    for k in range(len(removed) - 1, -1, -1):
        part = removed.pop()
        if part.shape != total.shape:
            total = _doubled(total, part.shape)
        if luma[k] or chroma[k]:
            mean = part.mean(2, keepdims=True)
            total += luma[k] * mean + chroma[k] * (part - mean)
    return clean + total


def _halved(picture: Float32) -> Float32:
    """Means of 2 × 2 pixels `(H, W, 3)`; a last odd row or column counts twice."""
    height, width = picture.shape[:2]
    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    rows = even[::2] + even[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)


def _doubled(picture: Float32, shape: tuple[int, ...]) -> Float32:
    """Twice the size by linear interpolation, cut to `shape`."""
    for axis in (0, 1):
        x = np.moveaxis(picture, axis, 0)
        nearest = np.float32(0.75) * x
        result = np.empty((2 * len(x), *x.shape[1:]), np.float32)
        result[::2] = nearest + np.float32(0.25) * np.concatenate([x[:1], x[:-1]])
        result[1::2] = nearest + np.float32(0.25) * np.concatenate([x[1:], x[-1:]])
        picture = np.moveaxis(result[: shape[axis]], 0, axis)
    return picture


def keep_top(model: Model, values: Float32, rate: float) -> Float32:
    """The picture of the first C = `rate` latents of every block, by explained entropy; the last band is scaled."""
    weights = model.manifest.kept(rate)
    kept = [h * w for h, w in zip(transform.analyse(model, values), weights, strict=True)]
    return _picture(model, kept, 1.0 / 255, values.shape)


def _picture(model: Model, latents: list[Float32], delta: float, shape: tuple[int, ...]) -> Float32:
    result = np.empty(shape, np.float32)
    for rows, columns, piece in transform.synthesise_tiles(model, latents, delta, shape[1], shape[0]):
        result[rows, columns] = piece.transpose(1, 2, 0)
    return result
