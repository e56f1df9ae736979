"""Residuals of 16-bit pictures at steps finer than the integer nets know.

In: residuals of a unit's strips and the table indices that the nets gave at a coarser step. Out: which table each is
coded with and how many of its low bits are coded as they are; a file's choice of tables, packed; and back.

The nets are trained for steps from one 8-bit level on. A finer step Δ is 2**fine times finer than one they know: they
are asked at Δ · 2**fine, from latents rounded to it, and their means and scales count 2**fine times. What they cannot
know, how a scale goes on below a level, the file says: a correction of the index for every level, axis and index.
docs/FORMAT.md, "Deep files", has the bytes.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import zstandard

from eocodec.coding import frames
from eocodec.coding.range_coder import Reader, Writer
from eocodec.coding.scales import SCALE_MIN, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.units import Unit

__all__ = ["Choice", "best_correction", "choose", "code_lengths", "group_of", "put", "table_and_rest", "take"]

Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Residuals = tuple[Int32, UInt8]
"""Residuals and the indices that the nets gave them."""

TOP = SCALES - 1
MAX_REST = 12  # low bits that are coded as they are
SAMPLE = 4096  # residuals that a table is chosen by
PAYS = 16.0  # bits that a correction has to save
NEARBY = (-14, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3)  # around the index of the mean magnitude


def group_of(unit: Unit) -> int:
    """Which row of corrections a unit of details has: by level and axis."""
    return 2 * (unit.level - 1) + (unit.axis == "chroma")


class Choice:
    """The tables of a file.

    Arguments:
        fine: octaves between the file's step and that of the nets.
        corrections: of the index, `(groups, 64)`, see :func:`group_of`.
    """

    def __init__(self, fine: int, corrections: Int8) -> None:
        self.fine, self.corrections = fine, corrections

    @classmethod
    def plain(cls, fine: int, groups: int) -> "Choice":
        """Without corrections."""
        return cls(fine, np.zeros((groups, SCALES), np.int8))

    def tables(self, group: int, index: UInt8) -> tuple[UInt8, UInt8]:
        """Table of every residual, and how many of its low bits are coded as they are."""
        wanted = np.arange(SCALES) + SCALE_PER_OCTAVE * self.fine + self.corrections[group]
        table, rest = np.array([table_and_rest(w) for w in wanted.tolist()], np.uint8).T
        return table[index], rest[index]

    def pack(self) -> bytes:
        """The deep element of a file: nothing if there are no corrections."""
        if not self.corrections.any():
            return b""
        return zstandard.ZstdCompressor(level=19, write_content_size=False).compress(self.corrections.tobytes())

    @classmethod
    def unpack(cls, content: bytes, fine: int, groups: int) -> "Choice":
        """Inverse of :meth:`pack`.

        Raises:
            FormatError: these are not corrections for so many groups.
        """
        if not content:
            return cls.plain(fine, groups)
        raw = frames.unpack(content, groups * SCALES, "its choice of tables cannot be read")
        return cls(fine, np.frombuffer(raw, np.int8).reshape(groups, SCALES))


def table_and_rest(wanted: int) -> tuple[int, int]:
    """Table and low bits of an index: beyond the last table an octave of the scale is a low bit coded as it is."""
    rest = min(max(-((TOP - wanted) // SCALE_PER_OCTAVE), 0), MAX_REST)
    return min(max(wanted - SCALE_PER_OCTAVE * rest, 0), TOP), rest


def choose(fine: int, residuals: Sequence[Sequence[Residuals]], bits: Sequence[Floats]) -> Choice:
    """The corrections that make a file smallest.

    Arguments:
        fine: octaves between the file's step and that of the nets.
        residuals: of every group.
        bits: cost of the magnitudes 0, 1, …, R, the last one an escape's, by table.
    """
    choice = Choice.plain(fine, len(residuals))
    for group, strips in enumerate(residuals):
        if not strips:
            continue
        m = np.concatenate([m for m, _ in strips])
        index = np.concatenate([i for _, i in strips])
        order = np.argsort(index, kind="stable")
        ends = np.cumsum(np.bincount(index, minlength=SCALES))
        for k in range(SCALES):
            mine = m[order[ends[k - 1] if k else 0 : ends[k]]]
            if len(mine):
                cost = functools.partial(_cost, mine, bits)
                choice.corrections[group, k] = best_correction(mine, k + SCALE_PER_OCTAVE * fine, cost)
    return choice


def best_correction(m: Int32, usual: int, cost: Callable[[slice, int], float]) -> int:
    """What is best added to the usual index for some residuals, −128 … 127.

    Arguments:
        m: the residuals.
        usual: the index without a correction.
        cost: bits of some of them under an index.
    """
    chosen = slice(None, None, max(1, len(m) // SAMPLE))
    sample = m[chosen]
    weight = len(m) / len(sample)
    mean = float(np.abs(sample).mean(dtype=np.float64))
    near = round(SCALE_PER_OCTAVE * np.log2(max(mean, SCALE_MIN) / SCALE_MIN))
    wanted = {usual, *(min(max(near + d, usual - 128, 0), usual + 127) for d in NEARBY)}
    costs = {w: weight * cost(chosen, w) for w in wanted}
    best = min(wanted, key=lambda w: (costs[w], abs(w - usual)))
    return best - usual if costs[best] + PAYS < costs[usual] else 0


def _cost(m: Int32, bits: Sequence[Floats], chosen: slice, wanted: int) -> float:
    """Bits of some residuals under an index."""
    m = m[chosen]
    table, rest = table_and_rest(wanted)
    magnitude = np.abs(m >> rest)
    cost = bits[table]
    beyond = magnitude[magnitude >= len(cost) - 1] - (len(cost) - 2)
    escapes = float(np.log2(beyond.astype(np.float64)).sum()) if len(beyond) else 0.0
    return float(cost[np.minimum(magnitude, len(cost) - 1)].sum()) + escapes + rest * len(m)


def code_lengths(frequencies: Sequence[npt.NDArray[np.int64]]) -> list[Floats]:
    """Cost of the magnitudes 0, 1, …, R by table; an escape's class costs five bits more."""
    result = []
    for f in frequencies:
        cost = 24 - np.log2(f.astype(np.float64))
        cost[-1] += 5
        result.append(cost)
    return result


def put(writer: Writer, m: Int32, table: UInt8, rest: UInt8) -> None:
    """Append residuals: what is above their low bits under the tables, then the low bits, those of few bits first."""
    writer.put(m >> rest, table)
    for n in np.unique(rest[rest > 0]).tolist():
        writer.put_uniform(m[rest == n] & ((1 << n) - 1), 1 << n)


def take(reader: Reader, table: UInt8, rest: UInt8) -> Int32:
    """Inverse of :func:`put`."""
    m = reader.take(table) << rest
    for n in np.unique(rest[rest > 0]).tolist():
        chosen = rest == n
        m[chosen] |= reader.take_uniform(int(chosen.sum()), 1 << n)
    return m.astype(np.int32)
