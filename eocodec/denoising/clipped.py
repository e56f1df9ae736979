"""Noise that 0 and 255 have cut off: what is left of it varies less than what was there, and has another mean.

In: the level that is left in a picture, and how bright the picture is from place to place. Out: the level before.
Values are those of a normal distribution, limited to 0 … 1; the mean of a place and the deviation of what is left there
determine both its parameters. And in: a noisy and a clean picture; out: the clean one, no brighter or darker than the
values that were cut off can account for.

References:
    Foi, *Clipped noisy images: heteroskedastic modeling and practical denoising*, 2009.
    https://doi.org/10.1016/j.sigpro.2009.04.035
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from eocodec.denoising.noise_areas import AREA, means

__all__ = ["before_clipping", "is_clipped", "with_brightness_of"]

Floats = npt.NDArray[np.floating]

LEVELS = np.linspace(0.008, 1.0, 125)  # deviations before clipping, range 0 to 1
PLACES = np.linspace(-1.5, 2.5, 401)  # means before clipping
BINS = 32  # of brightness
SURE, LEAST = 5.0, 0.25 / 255  # deviations of a mean of noise, and range 0 to 1, that means may differ by for nothing
CLIPPED = 0.02  # share of the values at 0 or 1 from which on noise may have been cut off


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
