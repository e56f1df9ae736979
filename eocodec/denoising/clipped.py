"""Noise that 0 and 255 have cut off: what is left of it varies less than what was there, and has another mean.

In: the level that is left in a picture, and how bright the picture is from place to place. Out: the level before.
Values are those of a normal distribution, limited to 0 … 1; the mean of a place and the deviation of what is left there
determine both its parameters; where most of a picture is paper, white or black, the paper alone tells the level. And
in: a noisy and a clean picture; out: the clean one, no brighter or darker than the values that were cut off can account
for.

References:
    Foi, *Clipped noisy images: heteroskedastic modeling and practical denoising*, 2009.
    https://doi.org/10.1016/j.sigpro.2009.04.035
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from eocodec.denoising.noise_areas import AREA, means

__all__ = ["before_clipping", "is_clipped", "on_paper", "with_brightness_of"]

Floats = npt.NDArray[np.floating]

LEVELS = np.linspace(0.008, 1.0, 125)  # deviations before clipping, range 0 to 1
PLACES = np.linspace(-1.5, 2.5, 401)  # means before clipping
BINS = 32  # of brightness
SURE, LEAST = 5.0, 0.25 / 255  # deviations of a mean of noise, and range 0 to 1, that means may differ by for nothing
CLIPPED = 0.02  # share of the values at 0 or 1 from which on noise may have been cut off
# Paper: areas of which such a share is cut off in every channel, that much of the picture, so many at least. Of them
# those vary by noise alone whose variance is no more than so many times what a fifth of them have.
CUT_OFF, MOSTLY, FEWEST = (0.25, 0.8), 0.4, 24
QUIET, ALIKE = 0.2, 1.5
# Noise is normally distributed: as many values are cut off as mean and variance say; and white. What is drawn, printed
# small or dithered differs by 0.2 and more in one of the two, 1,700 photographs have no such paper at all.
UNLIKE, NEAR, HALF = 0.05, 0.12, 0.5 / 255
LEAST_LEVEL, MOST_LEVEL = 1.5 / 255, 100 / 255


def is_clipped(values: Floats) -> bool:
    """Whether values, nominally in 0 to 1, end there, and many do so."""
    return bool(values.min() >= 0 and values.max() <= 1 and np.mean((values == 0) | (values == 1)) >= CLIPPED)


def before_clipping(level: float, brightness: Floats) -> float:
    """The deviation of noise, given that of what clipping has left of it, range 0 to 1.

    Arguments:
        level: what is left, in the mean over all places.
        brightness: means of places, as they are after clipping.
    """
    left = _left(np.histogram(brightness, 64, (0, 1))[0])
    if not left[0] < level < left[-1]:
        return level
    return float(np.interp(level, left, LEVELS))


def on_paper(values: Floats, alpha: npt.NDArray[np.uint8] | None = None) -> float | None:
    """The deviation of noise on paper so white, or so black, that much of the noise is cut off, range 0 to 1.

    None where most of a picture is no such paper, what is on it is no white noise, or values go on beyond 0 and 1.

    Arguments:
        values: the picture `(H, W, 3)`, 8 bits a sample, nominally in 0 to 1.
        alpha: its transparency `(H, W)`, if there is any.
    """
    if not is_clipped(values):
        return None
    high, wide = (n // AREA for n in values.shape[:2])
    opaque = np.ones((high, wide), bool) if alpha is None else _areas(alpha[:, :, None] > 0).all((2, 3, 4))
    for paper in (values, 1 - values):
        share = _areas(paper >= 1).mean((2, 3))
        there = ((share > CUT_OFF[0]) & (share < CUT_OFF[1])).all(2) & opaque
        if there.sum() < max(FEWEST, MOSTLY * opaque.sum()):
            continue
        parts = _areas(paper)[there].astype(np.float64)
        variance = parts.var((1, 2)).mean(1)
        alone = variance <= ALIKE * np.quantile(variance, QUIET)
        rest = parts[alone]
        level, place = _cut_off(float(rest.mean()), float(variance[alone].mean()))
        beyond = 0.5 * (1 + math.erf((place - 1 + HALF) / level / math.sqrt(2)))
        if abs(beyond - float((rest >= 1).mean())) > UNLIKE or not LEAST_LEVEL <= level <= MOST_LEVEL:
            continue
        rest = rest - rest.mean((1, 2), keepdims=True)
        near = (rest[:, 1:] * rest[:, :-1]).mean() + (rest[:, :, 1:] * rest[:, :, :-1]).mean()
        if abs(near) <= 2 * NEAR * np.square(rest).mean():
            return level
    return None


def _areas(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The whole areas of a picture `(H, W, C)`, `(H/8, W/8, 8, 8, C)`."""
    high, wide = (n // AREA for n in pixels.shape[:2])
    return pixels[: high * AREA, : wide * AREA].reshape(high, AREA, wide, AREA, pixels.shape[2]).swapaxes(1, 2)


def _cut_off(mean: float, variance: float) -> tuple[float, float]:
    """Deviation and mean of noise before clipping, given mean and variance after it."""
    of_levels = [(np.interp(mean, m, PLACES), np.interp(mean, m, v)) for m, v in zip(*_moments(), strict=True)]
    places, variances = np.array(of_levels).T
    level = float(np.interp(variance, np.maximum.accumulate(variances), LEVELS))
    return level, float(np.interp(level, LEVELS, places))


def with_brightness_of(values: Floats, clean: Floats, levels: Floats) -> Floats:
    """A clean picture `(H, W, C)`, as bright as the noisy one but for what noise has lost beyond 0 and 1.

    A net that makes up for clipping by the level that it is given makes whites brighter and blacks darker where there
    is less noise than that. Where the means of areas of like brightness differ by more than the share of the values
    that are 0 or 1 allows, the difference is taken back, by a curve for each channel.

    Arguments:
        values: the noisy picture, nominally in 0 to 1.
        clean: without the noise.
        levels: of the noise in a channel, in areas of 8x8 pixels, `(⌈H/8⌉, ⌈W/8⌉)`.
    """
    result = np.empty_like(clean)
    noisy, smooth, zero, one = means(values), means(clean), means(values <= 0), means(values >= 1)
    for channel in range(clean.shape[2]):
        place = np.clip(smooth[..., channel] * BINS, 0, BINS - 1).astype(int).ravel()
        parts = noisy[..., channel], smooth[..., channel], zero[..., channel], one[..., channel], levels
        count = np.bincount(place, minlength=BINS)
        there = np.flatnonzero(count)
        before, after, low, high, level = (
            np.bincount(place, part.ravel(), BINS)[there] / count[there] for part in parts
        )
        chance = SURE * level / (AREA * np.sqrt(count[there])) + LEAST
        shift = after - before
        wrong = shift - np.clip(shift, -level * _lost(low) - chance, level * _lost(high) + chance)
        result[..., channel] = clean[..., channel] - np.interp(clean[..., channel], after, wrong)
    return result


def _lost(share: Floats) -> Floats:
    """What the mean of noise has lost if such a share of its values was cut off, in units of its level."""
    z = np.linspace(5, -5, 201)
    beyond = 0.5 * (1 + _erf(-z / math.sqrt(2)))
    return np.interp(share, beyond, np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) - z * beyond)


@cache
def _moments() -> tuple[Floats, Floats]:
    """Means and variances after clipping, `(levels, places)`."""
    sigma, mu = LEVELS[:, None], PLACES[None, :]
    low, high = -mu / sigma, (1 - mu) / sigma
    density = [np.exp(-0.5 * t**2) / math.sqrt(2 * math.pi) for t in (low, high)]
    below, above = (0.5 * (1 + _erf(t / math.sqrt(2))) for t in (low, high))
    inside = above - below
    mean = (1 - above) + mu * inside - sigma * (density[1] - density[0])
    square = (1 - above) + (mu**2 + sigma**2) * inside
    square += 2 * mu * sigma * (density[0] - density[1]) + sigma**2 * (low * density[0] - high * density[1])
    return mean, np.maximum(square - mean**2, 0)


_erf = np.vectorize(math.erf, otypes=[float])


def _left(weight: npt.NDArray[np.integer]) -> Floats:
    """The deviation that is left of every one of :data:`LEVELS`, for places of so many brightnesses; it rises."""
    light = (np.arange(len(weight)) + 0.5) / len(weight)
    mean, variance = _moments()
    rows = [np.interp(light, m, v) for m, v in zip(mean, variance, strict=True)]
    return np.sqrt(np.maximum.accumulate(np.average(rows, axis=1, weights=weight)))
