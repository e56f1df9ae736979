"""Shifts of tables: what a file says about how far the nets' scales are off in its picture, unit by unit.

In: residuals of a picture's units with the table indices that the nets gave, or the bytes of a side segment. Out: a
shift for every unit, which is added to its indices before a table is taken; bytes. The nets see more of a place than of
a picture: in a picture unlike those they were trained on, all scales of a pass tend to be off in the same direction.
docs/FORMAT.md, "Shifts of tables", has the bytes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import SCALES
from eocodec.errors import FormatError
from eocodec.model.bundle import Model

__all__ = ["Shifts", "chosen"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

LARGEST = 7  # shifts are from −7 to 7, in fifths of an octave of the scale
ZERO = 8  # half a byte that stands for no shift
MAGNITUDES = 256  # that are told apart where shifts are chosen
OVERHEAD = 6  # bytes of a side segment besides its content
PAYS = 8.0  # bits that a unit's shift has to save, so that most are zero


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


def chosen(model: Model, units: Iterable[Iterable[tuple[Int32, UInt8]]]) -> Shifts:
    """The shifts that make a file smallest, none if they take more bytes than they save.

    Arguments:
        model: the bundle.
        units: of every unit in file order, residuals of its strips and the indices that the nets gave them.
    """
    bits = model.derived(_Costs).bits
    entries, saved = [], 0.0
    candidates = sorted(range(-LARGEST, LARGEST + 1), key=abs)
    for strips in units:
        counts = np.zeros(SCALES * MAGNITUDES, np.float64)
        for m, index in strips:
            place = np.minimum(np.abs(m), MAGNITUDES - 1) + MAGNITUDES * index.astype(np.int32)
            counts += np.bincount(place, minlength=counts.size)[: counts.size]  # tables beyond are not on the ladder
        count = counts.reshape(SCALES, MAGNITUDES)
        seen = np.flatnonzero(count.any(1))
        by_table = count[seen] @ bits.T
        places = np.arange(len(seen))
        costs = [float(by_table[places, np.clip(seen + s, 0, SCALES - 1)].sum()) for s in candidates]
        best = min(range(len(costs)), key=costs.__getitem__)
        gain = costs[0] - costs[best]
        entries.append(candidates[best] if gain > PAYS else 0)
        saved += gain if gain > PAYS else 0
    result = Shifts(entries)
    return result if saved > 8 * (OVERHEAD + len(result.pack() or b"")) else Shifts()
