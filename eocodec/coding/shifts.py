"""Shifts of tables: what a file says about how far the nets' scales are off in its picture, unit by unit.

In: residuals of a picture's units with the table indices that the nets gave, or the bytes of a side segment. Out: a
shift for every unit, which is added to its indices before a table is taken; bytes. The nets see more of a place than of
a picture: in a picture unlike those they were trained on, all scales of a pass tend to be off in the same direction.
docs/FORMAT.md, "Shifts of tables", has the bytes.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import SCALES
from eocodec.errors import FormatError
from eocodec.model.bundle import Model
from eocodec.model.threads import side_by_side

__all__ = ["Shifts", "chosen"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.signedinteger[Any]]

LARGEST = 7  # shifts are from −7 to 7, in fifths of an octave of the scale
ZERO = 8  # half a byte that stands for no shift
MAGNITUDES = 256  # that are told apart where shifts are chosen
OVERHEAD = 6  # bytes of a side segment besides its content
PAYS = 8.0  # bits that a unit's shift has to save, so that most are zero
ROWS = 8  # of a product: too few for the linear algebra library to share it out, whose threads then spin for a while
ENOUGH = 1 << 14  # residuals that are counted at once
CANDIDATES = sorted(range(-LARGEST, LARGEST + 1), key=abs)


class Shifts:
    """Shifts of the units' table indices, none beyond the last entry.

    Arguments:
        entries: one for every unit in file order, −7 … 7.
    """

    def __init__(self, entries: Sequence[int] = ()) -> None:
        self.entries = tuple(entries)

    @classmethod
    def unpack(cls, content: bytes | None, units: int) -> "Shifts":
        """Inverse of :meth:`pack`, for a model of so many units; None is no shifts.

        Raises:
            FormatError: there are more entries than units, or one is out of range.
        """
        halves = [half for byte in content or b"" for half in (byte & 15, byte >> 4)]
        if len(halves) > units + units % 2 or not all(halves) or halves[units:] not in ([], [ZERO]):
            raise FormatError("the file is damaged: its shifts of tables are out of range")
        return cls([half - ZERO for half in halves[:units]])

    def pack(self) -> bytes | None:
        """Content of the side segment: half a byte for each unit up to the last that has a shift; None if none has."""
        last = max((k + 1 for k, shift in enumerate(self.entries) if shift), default=0)
        halves = [shift + ZERO for shift in self.entries[:last]] + [ZERO] * (last % 2)
        return bytes(a | b << 4 for a, b in zip(halves[::2], halves[1::2], strict=True)) or None

    def table(self, unit: int, index: UInt8) -> UInt8:
        """Table indices of a unit, by its number in file order."""
        shift = self.entries[unit] if unit < len(self.entries) else 0
        return np.clip(index.astype(np.int16) + shift, 0, SCALES - 1).astype(np.uint8) if shift else index


class _Costs:
    """Bits of the magnitudes 0 … 255 under every table, and of all larger ones as if they were 255."""

    def __init__(self, model: Model) -> None:
        self.bits = np.stack([_code_lengths(f) for f in model.tables[:SCALES]])


def _code_lengths(frequencies: npt.NDArray[np.int64]) -> Floats:
    magnitude = np.arange(MAGNITUDES)
    last = len(frequencies) - 1
    bits = 24 - np.log2(frequencies[np.minimum(magnitude, last)].astype(np.float64))
    beyond = np.frexp((magnitude - last + 1).clip(1).astype(np.float64))[1] - 1  # low bits of an escape
    return np.asarray(bits + np.where(magnitude < last, 0, 5 + beyond))


def chosen(model: Model, units: Sequence[Iterable[tuple[Integers, UInt8]]], threads: int = 1) -> Shifts:
    """The shifts that make a file smallest, none if they take more bytes than they save.

    Arguments:
        model: the bundle.
        units: of every unit in file order, residuals of its strips and the indices that the nets gave them.
        threads: that may take part.
    """
    best = functools.partial(_best, model.derived(_Costs).bits)
    found = side_by_side(best, units[::-1], threads)[::-1]  # the largest units first, so that threads end together
    result = Shifts([entry for entry, _ in found])
    return result if sum(gain for _, gain in found) > 8 * (OVERHEAD + len(result.pack() or b"")) else Shifts()


def _best(bits: Floats, strips: Iterable[tuple[Integers, UInt8]]) -> tuple[int, float]:
    """The shift that suits a unit, zero if it does not pay, and the bits that it saves."""
    counts = np.zeros((SCALES, MAGNITUDES), np.int64)  # of magnitudes by index; tables beyond are not on the ladder
    for m, index in _joined(strips):
        places = np.flatnonzero(m != 0)  # most residuals are zero
        others = index[places]
        every = np.bincount(index, minlength=SCALES)
        counts[:, 0] += (every - np.bincount(others, minlength=len(every)))[:SCALES]
        magnitude = np.minimum(np.abs(m[places].astype(np.int32)), MAGNITUDES - 1)
        both = np.bincount(magnitude + MAGNITUDES * others.astype(np.int32), minlength=counts.size)
        counts += both[: counts.size].reshape(counts.shape)
    seen = np.flatnonzero(counts.any(1))
    by_table = np.zeros((len(seen), SCALES))
    for at in range(0, len(seen), ROWS):
        by_table[at : at + ROWS] = counts[seen[at : at + ROWS]].astype(np.float64) @ bits.T
    tables = np.clip(seen + np.array(CANDIDATES)[:, None], 0, SCALES - 1)
    costs = by_table[np.arange(len(seen)), tables].sum(1)
    best = int(costs.argmin())
    gain = float(costs[0] - costs[best])
    return (CANDIDATES[best], gain) if gain > PAYS else (0, 0.0)


def _joined(strips: Iterable[tuple[Integers, UInt8]]) -> Iterator[tuple[Integers, UInt8]]:
    """Strips, short ones together: the low-pass has many."""
    waiting: list[tuple[Integers, UInt8]] = []
    count = 0
    for strip in strips:
        waiting.append(strip)
        count += len(strip[0])
        if count >= ENOUGH:
            yield _concatenated(waiting)
            waiting, count = [], 0
    if waiting:
        yield _concatenated(waiting)


def _concatenated(strips: list[tuple[Integers, UInt8]]) -> tuple[Integers, UInt8]:
    if len(strips) == 1:
        return strips[0]
    return np.concatenate([m for m, _ in strips]), np.concatenate([index for _, index in strips])
