"""The encoder's first walk over a picture: what the nets say of it, and how their linear weights are tuned to it.

In: planes of integers; strips from :func:`eocodec.coding.lossless_walk.walk`. Out: means and indices of all strips, and
corrections of the linear weights. docs/FORMAT.md, "Lossless files", gives every integer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.coding.lossless_walk import Strip, Tuning
from eocodec.coding.scales import MEAN_UNIT, scales

__all__ = ["FIRST_FITTED", "Survey"]

FIRST_FITTED = 19  # units of h = 2 and h = 1 can be tuned to the picture, and weighted
TUNING_SAMPLES = 1 << 17  # of a unit, that its tuning is found from
TUNING_UNIT = 256  # of the corrections of the linear weights
TUNING_MINIMUM = 40  # samples per weight
BLOCK = 64  # samples whose products are added up at a time
# Weights in least squares by scale index: inverse squares, in integers.
WEIGHTS = np.maximum(1, np.floor(1024 / (1 + scales() ** 2)))

Float64 = npt.NDArray[np.float64]


class Survey:
    """Runs the nets once and gathers what tunes them to the picture.

    Tuning is weighted least squares of the nets' residuals on their contexts.

    Arguments:
        planes: the picture, `(axes, H, W)`.
    """

    def __init__(self, planes: npt.NDArray[Any]) -> None:
        self.planes = planes
        self.said: list[tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]] = []
        """Mean and index of every strip."""
        self._sums: dict[int, Float64] = {}
        self._counts: dict[int, int] = {}

    def corner(self, axis: int) -> int:
        """The first sample."""
        return int(self.planes[axis, 0, 0])

    def strip(self, s: Strip) -> npt.NDArray[Any]:
        """Residuals, which also enter the sums."""
        self.said.append((s.mean, s.index))
        values = s.of(self.planes[s.axis])
        if s.unit >= FIRST_FITTED:
            stride = max(1, -(-self.planes[0].size // (4 * s.half**2) // TUNING_SAMPLES))
            missed = (MEAN_UNIT * values - s.mean)[::stride].reshape(1, -1)
            context = s.context[:, ::stride].reshape(len(s.context), -1)
            sums = self.sums(context, missed, WEIGHTS[s.index[::stride].ravel()])
            self._sums[s.unit] = self._sums.get(s.unit, 0) + sums
            self._counts[s.unit] = self._counts.get(s.unit, 0) + missed.shape[1]
        return values - s.predicted

    def sums(self, context: npt.NDArray[np.int16], missed: npt.NDArray[Any], weights: Float64) -> Float64:
        """Weighted products `(n + 1, n + 1)`, of n inputs and, last, of what was missed.

        They are integers, so any order of adding gives the same.

        Arguments:
            context: what the nets saw, `(n, samples)`.
            missed: value less mean, in 1/16 levels, `(1, samples)`.
            weights: of the samples.
        """
        return _weighted_products(np.concatenate([context, missed]), weights)

    def tunings(self) -> dict[int, Tuning]:
        """Corrections of the linear weights, in 1/256, of the units with enough samples to find them."""
        return _fitted_tunings(self._sums, self._counts)


def _weighted_products(rows: npt.NDArray[Any], weights: Float64) -> Float64:
    """`(n, n)` sums of weights times products of rows `(n, samples)`, exact.

    In blocks that are too small for the linear algebra library to share out among threads of its own, which wait for
    one another in a loop: with other work on the machine that takes fifty times as long as the sums.
    """
    count = rows.shape[1]
    padded = -(-count // BLOCK) * BLOCK
    values = np.zeros((len(rows), padded))
    values[:, :count] = rows
    weighted = np.zeros_like(values)
    np.multiply(values[:, :count], weights, out=weighted[:, :count])
    blocks, wide = (a.reshape(len(rows), -1, BLOCK).transpose(1, 0, 2) for a in (values, weighted))
    return np.asarray(np.matmul(wide, blocks.transpose(0, 2, 1)).sum(0))


def _fitted_tunings(sums_of: dict[int, Float64], counts: dict[int, int]) -> dict[int, Tuning]:
    """Corrections from the sums of every unit and from how many samples are in them."""
    result = {}
    for unit, sums in sums_of.items():
        channels = len(sums) - 1
        if counts[unit] > TUNING_MINIMUM * channels:
            gram = sums[:-1, :-1]
            gram = gram + (1e-4 * np.trace(gram) / channels + 1) * np.eye(channels)
            weights = np.linalg.solve(gram, sums[:-1, -1]) / MEAN_UNIT
            tuning = np.clip(np.floor(weights * TUNING_UNIT + 0.5), -127, 127).astype(np.int8)
            if tuning.any():
                result[unit] = tuning
    return result
