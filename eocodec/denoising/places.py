"""Noise that is not the same everywhere: levels of areas of a picture, from what a net reads at single pixels.

In: readings and how sure they are, summed over areas of 8x8 pixels, and the areas' brightness. Out: a reading for every
area, or nothing where readings differ by no more than those of even noise do.

A reading is drawn towards what holds further around the less sure it is: from the picture as a whole over its tones to
regions of 128, 64 … 8 pixels. Tones are told apart since cameras' curves raise noise in dark tones, places since people
join, brighten and sharpen parts of pictures, and lenses' corners are brightened.

References:
    Chen, Paris & Durand, *Real-time edge-aware image processing with the bilateral grid*, 2007.
    https://doi.org/10.1145/1276377.1276506
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["of_areas", "of_tones", "uneven"]

Floats = npt.NDArray[np.floating]

BINS = 16  # of brightness
SCALES = (16, 8, 4, 2, 1)  # standard deviations in areas of the regions, the widest first
DOUBT = 0.03  # weight of what holds further around; that of a sure reading is 0.2, of one in texture 0.001
DOUBT_GREY = 0.006  # likewise for grey pictures, whose readings have a tenth of the weight
DOUBT_TONE = 0.02  # likewise of the whole picture's reading beside that of a tone, as a share of all weights
# Deviation of readings (of logarithms) from even noise from which on it is uneven, in colour and in grey, and what weak
# noise needs beyond, where textures are read as noise; it falls with the level, 8-bit levels. Even noise of 25
# held-out photos had less, but for one in twenty at levels up to 3; noise that differs by a factor of two has more.
UNEVEN, UNEVEN_GREY = 0.2, 0.25
TONES, TONES_GREY = 0.11, 0.18  # likewise, where only tones are told apart, of which each has many areas
WEAK, WEAK_LEVEL = 0.5, 3.0
SURE = 0.1  # share of the picture of which something has to be known


def of_tones(weight: Floats, total: Floats, brightness: Floats) -> Floats:
    """Readings of areas by their brightness alone, `(rows, columns)`.

    Arguments:
        weight: mean weight of the readings in each area, 0 where none can be trusted.
        total: weighted readings, their mean likewise.
        brightness: of the areas, 0 to 1.
    """
    whole = total.sum() / max(weight.sum(), 1e-9)
    tone = brightness * (BINS - 1)
    nearest = np.rint(tone).astype(int).ravel()
    sums = [np.bincount(nearest, part.ravel(), BINS) for part in (weight, total - weight * whole)]
    of_tone, apart = (np.convolve(np.pad(s, 1, "edge"), (0.25, 0.5, 0.25), "valid") for s in sums)
    curve = whole + apart / (of_tone + DOUBT_TONE * max(weight.sum(), 1e-9))
    return np.interp(tone, np.arange(BINS), curve)


def of_areas(weight: Floats, total: Floats, expected: Floats, doubt: float) -> tuple[Floats, Floats]:
    """Readings of areas, and how sure they are, 0 to 1; both `(rows, columns)`.

    Arguments:
        weight, total: see :func:`of_tones`.
        expected: what their tones have.
        doubt: weight of what holds further around.
    """
    rest = total - weight * expected
    deviation, sure = np.zeros_like(expected), np.zeros_like(expected)
    for scale in SCALES:
        rows, columns = (_window(n, scale) for n in weight.shape)
        near = rows @ weight @ columns.T
        deviation = (rows @ rest @ columns.T + doubt * deviation) / (near + doubt)
        if scale == 2:
            sure = near / (near + doubt) * (weight > 0)
    return expected + deviation, sure


def uneven(readings: Floats, even: Floats, sure: Floats, level: float, least: float) -> bool:
    """Whether readings of areas differ from what even noise would have.

    Arguments:
        readings: of areas.
        even: what they would be of even noise.
        sure: how sure they are, 0 to 1.
        level: of even noise, 8-bit levels.
        least: deviation from which on strong noise is uneven.
    """
    if sure.mean() < SURE:
        return False
    least += WEAK * math.exp(-level / WEAK_LEVEL)
    return bool((sure * (readings - even) ** 2).sum() >= least**2 * sure.sum())


def _window(size: int, scale: float) -> Floats:
    """Matrix that averages a row of `size` with the weights of a normal distribution, cut off at two deviations."""
    apart = np.subtract.outer(np.arange(size), np.arange(size)) / scale
    weights = np.exp(-0.5 * apart**2) * (abs(apart) <= 2)
    return weights / weights.sum(1, keepdims=True)
