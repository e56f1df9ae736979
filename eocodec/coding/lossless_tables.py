"""The frequency tables of lossless files.

In: a bundle's `lossless/tables.bin`. Out: tables as models of the range coder, and what their residuals cost.
"""

import functools
from collections.abc import Iterable
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import SCALES
from eocodec.errors import ModelError
from eocodec.model.bundle import Model

__all__ = [
    "CLASSES",
    "COARSE",
    "TABLES",
    "TABLES_FILE",
    "WINDOW",
    "LosslessTables",
    "table_of",
    "tables_of",
    "unpack_tables",
]

CLASSES = 4  # of the mean's fraction
COARSE = 32  # scale index from which on the mean's fraction does not matter
TABLES = CLASSES * COARSE + SCALES - COARSE
TABLES_FILE = "lossless/tables.bin"
WINDOW = 8  # residuals up to here may be weighted
INSIDE_BITS = 6  # of frequencies that are dropped before weighting
ESCAPE_BITS = 10.0  # what an escape's bits count when index corrections are compared
MAX_RADIUS = 1 << 12


class LosslessTables:
    """The frequency tables of lossless files, as models of the range coder and as bits.

    A table belongs to a scale index k in 0 … 63 and, below :data:`COARSE`, a class of the mean's fraction.
    """

    def __init__(self, content: bytes) -> None:
        self.frequencies = unpack_tables(content)
        self.models = _models(self.frequencies)
        self.radius = np.array([len(f) // 2 for f in self.frequencies], np.int32)

    @functools.cached_property
    def inside(self) -> npt.NDArray[np.float64]:
        """Frequencies in 2**18 parts of residuals below, in and above a window, `(2 · TABLES, 2 · WINDOW + 3)`.

        The second half is of the negative residuals.
        """
        result = np.zeros((2 * TABLES, 2 * WINDOW + 3))
        for k, f in enumerate(self.frequencies):
            padded = np.pad(f, max(0, WINDOW + 1 - len(f) // 2))
            middle = len(padded) // 2
            parts = [padded[: middle - WINDOW].sum(), *padded[middle - WINDOW : middle + WINDOW + 1]]
            parts.append(padded[middle + WINDOW + 1 :].sum())
            result[k] = np.array(parts) >> INSIDE_BITS
            result[TABLES + k] = result[k, ::-1]
        return result

    @functools.cached_property
    def tails(self) -> list[Any]:
        """Models of how far beyond the window a residual lies, by table; the last symbol escapes."""
        return _models(map(tail_frequencies, self.frequencies))

    @functools.cached_property
    def last_of_tails(self) -> npt.NDArray[np.int32]:
        """The last symbols of :attr:`tails`."""
        return np.maximum(1, self.radius - WINDOW - 1)

    def bits(self, width: int) -> npt.NDArray[np.float32]:
        """Cost of the residuals −width … width by scale index and class, `(64, 4, 2 · width + 1)`."""
        result = np.full((SCALES, CLASSES, 2 * width + 1), 24 + ESCAPE_BITS, np.float32)
        for k in range(SCALES):
            for c in range(CLASSES):
                f = self.frequencies[int(table_of(np.array(k), np.array(c)))]
                r = min(len(f) // 2, width)
                part = f[len(f) // 2 - r : len(f) // 2 + r + 1]
                result[k, c, width - r : width + r + 1] = 24 - np.log2(part.astype(np.float64))
        return result


def _models(frequencies: Iterable[npt.NDArray[np.int64]]) -> list[Any]:
    """As in `eocodec.coding.range_coder.Tables`: integers f − 1 that sum to 2**24 − n, reproduced as f."""
    categorical = constriction.stream.model.Categorical
    return [categorical(f.astype(np.float64) - 1.0, perfect=False, lazy=False) for f in frequencies]


def tail_frequencies(f: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Frequencies of the distances 0, 1, … beyond the window, on both sides, of a table's f(−R) … f(R)."""
    radius = len(f) // 2
    g = np.zeros(max(2, radius - WINDOW), np.int64)
    found = f[radius + WINDOW + 1 :] + f[::-1][radius + WINDOW + 1 :]
    g[: len(found)] = found
    free = (1 << 24) - len(g)
    result: npt.NDArray[np.int64] = 1 + g * free // max(1, int(g.sum()))
    result[0] += (1 << 24) - result.sum()
    return result


def unpack_tables(content: bytes) -> list[npt.NDArray[np.int64]]:
    """Frequencies f(−R) … f(R) of every table: u32 count, then for each its length 2R + 1 and its values.

    Raises:
        ModelError: not such tables.
    """
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    tables, at = [], 1
    for _ in range(TABLES):
        n = int(words[at]) if at < len(words) else 0
        table = words[at + 1 : at + 1 + n].astype(np.int64)
        if not 5 <= n <= MAX_RADIUS or n % 2 == 0 or len(table) != n or table.min() < 1 or table.sum() != 1 << 24:
            raise ModelError("the model bundle's tables for lossless files are damaged")
        tables.append(table)
        at += 1 + n
    if int(words[0]) != TABLES or at != len(words):
        raise ModelError("the model bundle's tables for lossless files are damaged")
    return tables


def table_of(index: npt.NDArray[Any], fraction: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Table of a scale index and a class of the fraction: the class matters below index :data:`COARSE` only."""
    return np.where(index < COARSE, CLASSES * index + fraction, index + (CLASSES - 1) * COARSE)


def available(model: Model) -> bool:
    """Whether the bundle can code losslessly."""
    return TABLES_FILE in model.files


def tables_of(model: Model) -> LosslessTables:
    """The model's tables for lossless files, unpacked once.

    Raises:
        ModelError: the bundle cannot code losslessly.
    """
    return model.derived(_read)


def _read(model: Model) -> LosslessTables:
    if not available(model):
        raise ModelError(f"the model {model.name} ({model.id.hex()}) has no graphs for lossless files")
    return LosslessTables(model.files[TABLES_FILE])
