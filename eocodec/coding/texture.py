"""Texture drawn where a file has none: details that were coded as zero, from the model's own conditional density.

In: table indices and places of latents whose residual is zero. Out: residuals in steps. At low rates most fine details
fall into the dead zone around their means, and the decoder, which aims at the smallest squared error, leaves them out:
areas of skin, grass or wool become smooth. Drawn instead within their dead zones, they look as rough as they were, at
the price of squared error. The draws are hashes of level, channel and place, so every machine draws the same.

References:
    Truncated Laplace densities and inverse transform sampling: Devroye, *Non-Uniform Random Variate Generation*, 1986,
    chapter II. http://luc.devroye.org/rnbookindex.html
    The hash is the finaliser of MurmurHash3: https://github.com/aappleby/smhasher
"""

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import scales
from eocodec.coding.units import Unit

__all__ = ["Texture"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]

QUANTILES = 128
DEAD_ZONE = 0.5  # steps around the mean that a zero stands for, at least


class Texture:
    """Draws residuals for latents that were coded as zero.

    Arguments:
        amount: 0 to 1, of the standard deviation that the model expects.
    """

    def __init__(self, amount: float) -> None:
        scale = scales()
        u = (np.arange(QUANTILES) + 0.5) / QUANTILES
        inside = -np.expm1(-DEAD_ZONE / scale)
        size = -scale[:, None] * np.log1p(-u[None] * inside[:, None])
        self.table = (amount * np.concatenate([-size[:, ::-1], size], 1)).astype(np.float32).ravel()

    def residuals(self, unit: Unit, rows: slice, index: UInt8) -> Float32:
        """Residuals in steps of a strip `(places, rows, columns)` of a unit, as if all of it were zero."""
        draws = np.empty(index.shape, np.int32)
        row = np.arange(rows.start, rows.stop, dtype=np.uint32)[:, None]
        column = np.arange(index.shape[2], dtype=np.uint32)[None]
        for part in unit.parts:
            for place, channel in enumerate(range(*part.channels.indices(9)), part.at.start):
                seed = np.uint32(unit.level << 4 | channel)
                grid = _mixed(_mixed(2 * row + np.uint32(part.row), seed) + 2 * column + np.uint32(part.column), seed)
                draws[place] = grid >> np.uint32(24)
        draws += index.astype(np.int32) * np.int32(2 * QUANTILES)
        return self.table[draws]


def _mixed(x: UInt32, seed: np.uint32) -> UInt32:
    """Hash of 32-bit integers."""
    with np.errstate(over="ignore"):
        h = x * np.uint32(0x9E3779B1) + seed * np.uint32(0x85EBCA77)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x85EBCA6B)
        h ^= h >> np.uint32(13)
        h *= np.uint32(0xC2B2AE35)
        return h ^ (h >> np.uint32(16))
