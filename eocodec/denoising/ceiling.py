"""The most noise that a picture can hold, by how alike its patches and its neighbouring pixels are.

In: values `(H, W, 3)`, float32 in 0 to 1, and the areas in which noise can be measured. Out: a level.

Noise is another everywhere: of many patches even the most alike differ by nearly √2 times its level. Checks, weaves,
rings and halftones repeat themselves, although their contrast looks like noise where a picture is seen in small parts.
And white noise is everywhere: most neighbouring pixels differ by it. Those of text, charts and scans differ by far less
than their edges do.

References:
    Donoho & Johnstone, *Ideal spatial adaptation by wavelet shrinkage*, 1994, on the median of details.
    https://doi.org/10.1093/biomet/81.3.425
    Dabov et al., *Image denoising by sparse 3-D transform-domain collaborative filtering*, 2007, on block matching.
    https://doi.org/10.1109/TIP.2007.901238
"""

import math

import numpy as np
import numpy.typing as npt

from eocodec.denoising.noise_areas import AREA

__all__ = ["most_noise", "most_white", "most_white_around", "shows"]

Float32 = npt.NDArray[np.float32]

REACH = 24  # pixels, up to which likenesses are looked for, down and across
AROUND = 8  # edge in areas of the parts of a picture whose neighbouring pixels are compared
NEAR = 6  # pixels, below which noise that a filter has gone over may be alike
PATCHES = 24  # that are compared with what is around them
# Levels of noise that are right are up to 1.7 times what the most alike patches tell (σ = 100, cut off at 0 and 255);
# with JPEG at quality 75 behind it noise is taken for 2 times as much, which is too much of it.
MOST = 1.8
# Steps between pixels whose differences are compared: along its lines a drawing differs less than noise does.
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
MANY_AREAS = 4096  # of which that is done
QUIET = 0.05  # share of the areas, the quietest, that tell what noise there is at most
# Where areas that tell nothing are so many that the others may be drawn, too (share of those that tell), the quietest
# differ by no more than so many times the noise; in charts, meshes and small text by 1.4 to 11 times.
SOME, MOST_ROUGH = 0.9, 1.35
# Where they are most of the picture, typical areas differ by at least so much of the noise; dense lines by half of it.
FEW, LEAST_ROUGH = 0.25, 0.7
MANY = 1 << 20  # pixels; of larger pictures only some rows count
MEDIAN = 0.6745  # of the magnitudes of a normal distribution, in its deviations
# Levels of white noise are up to 1.17 times what the median difference tells (cut off at 0 and 255); with JPEG at
# quality 75 behind it noise is taken for 1.7 times as much, which is too much of it.
MOST_WHITE = 1.3


def most_noise(values: Float32, areas: npt.NDArray[np.bool_]) -> float:
    """The largest standard deviation in a channel that noise can have, range 0 to 1; infinite if nothing tells.

    Arguments:
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured, see `eocodec.denoising.noise_areas.trusted`.
    """
    height, width = values.shape[:2]
    rows, columns = np.nonzero(areas[: height // AREA, : width // AREA])
    if not len(rows):
        return math.inf
    chosen = np.unique(np.linspace(0, len(rows) - 1, PATCHES).astype(int))
    found = [_nearest(values, AREA * int(rows[k]), AREA * int(columns[k])) for k in chosen]
    return MOST * math.sqrt(float(np.median(found)) / 2)


def most_white(values: Float32, areas: npt.NDArray[np.bool_]) -> float:
    """As :func:`most_noise`, of noise that is white, which differences of neighbours tell."""
    height, width = values.shape[:2]
    return _most_white(values, areas, max(1, height * width // MANY))


def most_white_around(values: Float32, areas: npt.NDArray[np.bool_]) -> Float32:
    """As :func:`most_white`, by what each area has around it, `(⌈H/8⌉, ⌈W/8⌉)`; infinite where nothing tells."""
    height, width = values.shape[:2]
    step = min(AREA, max(1, height * width // MANY))
    found = np.empty(areas.shape, np.float32)
    for top in range(0, areas.shape[0], AROUND):
        for left in range(0, areas.shape[1], AROUND):
            part = np.s_[top : top + AROUND, left : left + AROUND]
            pixels = np.s_[top * AREA : (top + AROUND) * AREA, left * AREA : (left + AROUND) * AREA]
            found[part] = _most_white(values[pixels], areas[part], step)
    return found


def _most_white(values: Float32, areas: npt.NDArray[np.bool_], step: int) -> float:
    height, width = values.shape[:2]
    inside = areas[np.ix_(*(np.arange(n) // AREA for n in (height, width)))]
    rows = slice(0, max(1, height - 1), step)
    below = slice(1, None, step)
    across = np.abs(np.diff(values[rows], axis=1))[inside[rows, 1:] & inside[rows, :-1]]
    down = np.abs(values[below] - values[:-1][rows])[inside[below] & inside[:-1][rows]]
    both = np.concatenate([across.ravel(), down.ravel()])
    return MOST_WHITE * float(np.median(both)) / (MEDIAN * math.sqrt(2)) if both.size else math.inf


def shows(values: Float32, areas: npt.NDArray[np.bool_], levels: Float32) -> bool:
    """Whether noise of these levels shows in a picture of which much has none: it may have been drawn.

    Arguments:
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured.
        levels: standard deviation of the noise in a channel in each area, range 0 to 1.
    """
    share = areas.mean()
    if share >= SOME:
        return True
    high, wide = (n // AREA for n in values.shape[:2])
    rows, columns = np.nonzero(areas[:high, :wide] & (levels[:high, :wide] > 0))
    if not len(rows):
        return True
    chosen = np.unique(np.linspace(0, len(rows) - 1, MANY_AREAS).astype(int))
    rows, columns = rows[chosen], columns[chosen]
    patches = values[: high * AREA, : wide * AREA].reshape(high, AREA, wide, AREA, 3)[rows, :, columns]
    least = np.full(len(rows), np.inf, np.float32)
    for down, right in STEPS:
        across = patches if right > 0 else patches[:, :, ::-1]
        near, far = across[:, : AREA - down, : AREA - abs(right)], across[:, down:, abs(right) :]
        least = np.minimum(least, np.square(near - far).mean((1, 2, 3)) / 2)
    rough = np.sqrt(least) / levels[rows, columns]
    if np.quantile(rough, QUIET) > MOST_ROUGH:
        return False
    return bool(share >= FEW or np.median(rough) >= LEAST_ROUGH)


def _nearest(values: Float32, row: int, column: int) -> float:
    """Mean squared difference of the patch at a place and the one around it that is most like it."""
    height, width = (n - AREA for n in values.shape[:2])
    top, left = max(0, row - REACH), max(0, column - REACH)
    bottom, right = min(height, row + REACH), min(width, column + REACH)
    around = values[top : bottom + AREA, left : right + AREA]
    patch = values[row : row + AREA, column : column + AREA]
    views = np.lib.stride_tricks.sliding_window_view(around, (AREA, AREA), (0, 1))  # (…, …, 3, 8, 8)
    distance = np.square(views - patch.transpose(2, 0, 1)).mean((2, 3, 4))
    down, across = abs(np.arange(top, bottom + 1) - row), abs(np.arange(left, right + 1) - column)
    distance[np.ix_(down < NEAR, across < NEAR)] = np.inf
    return float(distance.min())
