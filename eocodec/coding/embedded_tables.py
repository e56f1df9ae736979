"""The tables of embedded streams: probabilities of decisions and points of reconstruction.

In: a bundle's `progressive.bin`. Out: :class:`Probabilities`, one for each class of decisions.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import SCALES
from eocodec.errors import ModelError
from eocodec.model.bundle import Model

__all__ = [
    "COUNTS",
    "LOW_CLASSES",
    "MEANS",
    "PLACES",
    "SIGN_CLASSES",
    "TABLES_FILE",
    "Probabilities",
    "probabilities_of",
]

TABLES_FILE = "progressive.bin"
MEANS = (2, 5, 9)  # |mean| (1/16 steps) at which the next class begins
COUNTS = (1, 2, 3, 5)  # significant neighbours at which the next class begins
MEAN_CLASSES, COUNT_CLASSES = len(MEANS) + 1, 2 * (len(COUNTS) + 1)
PLACES = 4  # cells by their distance from zero: 1, 2, 3, ≥ 4 widths
SIGN_CLASSES = 12
LOW_CLASSES = 33  # of the distance from a low-pass value to the mean of its neighbours, 1/8 of its cell

UInt16 = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Probabilities:
    """Tables of a bundle, probabilities in 2**-16, and reconstruction points.

    Arguments:
        significance: `(2, 64, 4, 10)` by stage, table index, class of the mean, class of the neighbourhood.
        sign: `(12,)` that a latent has its mean's sign, by |mean|.
        upper: `(4, 16, 10)` of the upper half, by the cell's place, the table index / 4 with which the latent became
            significant, and the class of the neighbourhood.
        low: `(3, 33)` of the upper half, low-pass, by channel and distance to the neighbours' mean.
        centre: `(5, 16)` where values lie in their cells, 1/256 of the width, by place (the last for new cells) and
            that index / 4.
        zero: `(64,)` what a latent in the dead zone is of its mean, 1/256, by table index.
    """

    significance: UInt16
    sign: UInt16
    upper: UInt16
    low: UInt16
    centre: UInt16
    zero: UInt16

    SHAPES = (
        (2, SCALES, MEAN_CLASSES, COUNT_CLASSES),
        (SIGN_CLASSES,),
        (PLACES, SCALES // 4, COUNT_CLASSES),
        (3, LOW_CLASSES),
        (PLACES + 1, SCALES // 4),
        (SCALES,),
    )

    def pack(self) -> bytes:
        """All tables as little-endian uint16, one after another."""
        tables = (self.significance, self.sign, self.upper, self.low, self.centre, self.zero)
        return b"".join(np.asarray(t, "<u2").tobytes() for t in tables)

    @staticmethod
    def unpack(content: bytes) -> "Probabilities":
        """Inverse of :meth:`pack`.

        Raises:
            ModelError: the content has the wrong length or a probability is zero.
        """
        sizes = [math.prod(s) for s in Probabilities.SHAPES]
        words = np.frombuffer(content, "<u2").astype(np.uint16) if len(content) == 2 * sum(sizes) else None
        if words is None or not words[: sum(sizes[:4])].all():
            raise ModelError("the model bundle's tables of the embedded stream are damaged")
        parts = np.split(words, np.cumsum(sizes)[:-1])
        return Probabilities(*(p.reshape(s) for p, s in zip(parts, Probabilities.SHAPES, strict=True)))


def probabilities_of(model: Model) -> Probabilities:
    """The model's tables, read once.

    Raises:
        ModelError: the bundle has none, or they are damaged.
    """
    return model.derived(_read)


def _read(model: Model) -> Probabilities:
    content = model.files.get(TABLES_FILE)
    if content is None:
        raise ModelError(f"the model {model.name} has no tables for the embedded stream")
    return Probabilities.unpack(content)
