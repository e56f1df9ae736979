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

__all__ = ["most_noise", "most_white"]

Float32 = npt.NDArray[np.float32]

REACH = 24  # pixels, up to which likenesses are looked for, down and across
NEAR = 6  # pixels, below which noise that a filter has gone over may be alike
PATCHES = 24  # that are compared with what is around them
# Levels of noise that are right are up to 1.7 times what the most alike patches tell (σ = 100, cut off at 0 and 255);
# with JPEG at quality 75 behind it noise is taken for 2 times as much, which is too much of it.
MOST = 1.8
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
    inside = areas[np.ix_(*(np.arange(n) // AREA for n in (height, width)))]
    rows = slice(0, max(1, height - 1), max(1, height * width // MANY))
    below = slice(1, None, rows.step)
    across = np.abs(np.diff(values[rows], axis=1))[inside[rows, 1:] & inside[rows, :-1]]
    down = np.abs(values[below] - values[:-1][rows])[inside[below] & inside[:-1][rows]]
    both = np.concatenate([across.ravel(), down.ravel()])
    return MOST_WHITE * float(np.median(both)) / (MEDIAN * math.sqrt(2)) if both.size else math.inf


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
