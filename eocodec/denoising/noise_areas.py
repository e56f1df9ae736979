"""Where in a picture its noise can be seen, and how strong it is where it is not white.

In: values `(H, W, 3)`, float32 in 0 to 1, noise added. Out: areas to measure in; a level with how sure it is.

Noise that went through a demosaicer, a scaler or a blur has lost its finest frequencies, by which white noise is
distinguished from the picture. It still differs from texture: in the smoothest patches its standard deviation is the
same everywhere, and pixels further apart than the filter's reach do not depend on one another.

References:
    Pyatykh, Hesser & Zheng, *Image noise level estimation by principal component analysis*, 2013.
    https://doi.org/10.1109/TIP.2012.2221728 (the smoothest patches)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["AREA", "Correlated", "correlated", "hidden_level", "trusted"]

Float32 = npt.NDArray[np.float32]

AREA = 8  # edge in pixels of the areas that are trusted or not
DEAD = 0.3 / 255  # standard deviation of an area below which it is drawn, not photographed
CLIPPED = 0.5  # share of an area's values that are 0 or 1, beyond which noise is cut off there
PATCH = 16  # edge in pixels of the patches in which noise that is not white is measured
SMOOTH, ALIKE = (
    0.02,
    1.6,
)  # share of patches that count as the smoothest; those up to so many times as rough are like them
PAIRS = ((0, 1), (0, 2), (1, 2))  # of channels
FEWEST = 12  # patches from which a level can be told
# Bounds between noise and texture. Of 32 clean pictures of CBSD68, Kodak and the samples none passes (correlation of
# the channels 0.41 or more); of the same with demosaiced noise of 6.9 levels 24 do, of 2.7 levels 16.
SHARED, LEAST_NEAR, MOST_FAR = 0.35, 0.15, 0.15
FAR = (4, 5)  # pixels apart; demosaicers and scalers by up to 2 reach less far


def trusted(values: Float32, alpha: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.bool_]:
    """Areas of 8x8 pixels in which noise can be measured, `(⌈H/8⌉, ⌈W/8⌉)`: neither flat, clipped nor hidden.

    Neighbours of flat or hidden areas do not count either: an edge that was drawn between them looks like noise.
    """
    mean, square = _means(values), _means(values * values)
    flat = np.sqrt(np.maximum(square - mean * mean, 0)).max(2) < DEAD
    clipped = _means(((values == 0) | (values == 1)).astype(np.float32)).max(2) > CLIPPED
    if alpha is not None:
        flat |= _means((alpha == 0).astype(np.float32)[:, :, None])[:, :, 0] > 0
    return ~(_grown(flat) | clipped)


def _means(values: Float32) -> Float32:
    """Means over areas of 8x8 pixels, smaller at the right and the bottom, `(⌈H/8⌉, ⌈W/8⌉, N)`."""
    rows, columns = (np.arange(0, n, AREA) for n in values.shape[:2])
    total = np.add.reduceat(np.add.reduceat(values, rows, 0, dtype=np.float64), columns, 1)
    count = np.outer(np.diff([*rows, values.shape[0]]), np.diff([*columns, values.shape[1]]))
    return total / count[:, :, None]


def _grown(areas: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The areas and their eight neighbours."""
    padded = np.pad(areas, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def hidden_level(values: Float32, areas: npt.NDArray[np.bool_]) -> float:
    """Level of noise that is not white, in the range 0 to 1; 0 where what looks like it may as well be texture."""
    found = correlated(values, areas)
    if found is None or found.colours > SHARED or found.near < LEAST_NEAR or abs(found.far) > MOST_FAR:
        return 0.0
    return found.level


@dataclass(frozen=True)
class Correlated:
    """Noise as the smoothest patches show it.

    Arguments:
        level: standard deviation in a channel, in the range 0 to 1, from differences of channels, which hold little
            texture; noise that the channels share is not in it.
        near, far: correlation of pixels next to each other, and of pixels as far apart as :data:`FAR`.
        colours: correlation of the channels; that of noise is small, that of texture large.
        patches: how many were alike.
        roughness: standard deviation in a channel, texture and what channels share included.
    """

    level: float
    near: float
    far: float
    colours: float
    patches: int
    roughness: float


def correlated(values: Float32, areas: npt.NDArray[np.bool_]) -> Correlated | None:
    """Measure noise in the smoothest trusted patches of 16x16 pixels; None if there are too few."""
    high, wide = values.shape[0] // PATCH, values.shape[1] // PATCH
    if not high or not wide:
        return None
    cut = values[: high * PATCH, : wide * PATCH].reshape(high, PATCH, wide, PATCH, 3)
    good = areas[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2).all((1, 3))
    patches = cut.transpose(0, 2, 4, 1, 3)[good]  # (N, 3, 16, 16)
    if len(patches) < FEWEST:
        return None
    rest = _without_plane(patches.astype(np.float64))
    roughness = np.sqrt((rest**2).mean((2, 3))).mean(1)
    limit = max(ALIKE * np.quantile(roughness, SMOOTH), np.sort(roughness)[FEWEST - 1])
    chosen = rest[roughness <= limit]
    variance = (chosen**2).mean()
    if variance <= 0:
        return None

    def correlation(apart: int) -> float:
        down = (chosen[:, :, apart:] * chosen[:, :, :-apart]).mean()
        across = (chosen[:, :, :, apart:] * chosen[:, :, :, :-apart]).mean()
        return float((down + across) / 2 / variance)

    rough = float(np.median(roughness[roughness <= limit]))
    level = min(rough, _level_of_differences(chosen))
    far = float(np.mean([correlation(apart) for apart in FAR]))
    power = (chosen**2).mean((0, 2, 3))
    colours = [(chosen[:, a] * chosen[:, b]).mean() / max(np.sqrt(power[a] * power[b]), 1e-12) for a, b in PAIRS]
    return Correlated(level, correlation(1), far, float(np.mean(colours)), len(chosen), rough)


def _level_of_differences(patches: npt.NDArray[np.float64]) -> float:
    """Level of noise that is independent in the channels: the difference of two has twice the variance of one."""
    halves = [((patches[:, a] - patches[:, b]) ** 2).mean((1, 2)) / 2 for a, b in PAIRS]
    return float(np.sqrt(np.median(np.mean(halves, 0))))


def _without_plane(patches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Patches `(N, 3, 16, 16)` without their mean and slopes."""
    ramp = np.arange(PATCH) - (PATCH - 1) / 2
    norm = (ramp**2).sum() * PATCH
    rest = patches - patches.mean((2, 3), keepdims=True)
    down = (rest * ramp[:, None]).sum((2, 3), keepdims=True) / norm
    across = (rest * ramp).sum((2, 3), keepdims=True) / norm
    return rest - down * ramp[:, None] - across * ramp
