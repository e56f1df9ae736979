"""The walk over a picture's latents: the integer nets give the distribution of each, a coder its value.

In: a model, the size of a picture, its step; a coder (:class:`SymbolCoder`). Out: what the coder makes of it. All that
a symbol's distribution depends on is integer arithmetic (docs/FORMAT.md, "Entropy model"): the graphs under `entropy/`
hold integers in float32 whose partial sums stay below 2**24, so they are exact in any order of summation, on any
machine, with any number of threads.

What the nets see of the step, and the steps, come from `eocodec.coding.fineness`, the order of latents from
`eocodec.coding.units`, each from nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eocodec.coding.fineness import Fineness
from eocodec.coding.nets import run_exact
from eocodec.coding.scales import MEAN_UNIT, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.units import LEVEL_UNITS, PHASES, Unit, units
from eocodec.errors import ModelError
from eocodec.format import Header
from eocodec.memory import trim_memory
from eocodec.model.bundle import Model
from eocodec.model.threads import in_order
from eocodec.steps import STEP_UNIT, scale_shift

__all__ = [
    "STRIP",
    "LowCoder",
    "SymbolCoder",
    "Walk",
    "activity_class",
    "compand",
    "from_symbols",
    "lattices",
    "outside",
    "pieces",
    "to_symbols",
]

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Lattice = tuple[int, slice, slice, Int32, Int32]
"""Kind, rows, columns, prediction, activity."""

STRIP = 65536  # grid positions of a strip; nets and coder work strip by strip
TRIM_AFTER = 8  # strips; after each, the system would be asked for the same pages again, for a fifth of the time
PIECE = 512  # grid positions that are worth handing to another thread
REACH = 2  # rows above and below a place that any of the nets sees: two layers of 3x3
MARGIN = 1  # latents coded beyond the right and bottom edge, see docs/METHOD.md
LOW_SCALE_INDEX = 69  # table index of the low-pass corner at Δ = 1 level, see docs/FORMAT.md
MAX_LOW = 1 << 24  # keeps hostile values within int32
MAX_ACTIVITY = 1 << 20  # beyond, classes do not go on
SMALL_ACTIVITY = 4096  # below, classes are looked up


class LowCoder(Protocol):
    """What :meth:`Walk.low_pass` calls."""

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Low-pass integers `(h, w)` at lattice `place` (channel, rows, columns)."""


class SymbolCoder(LowCoder, Protocol):
    """What :class:`Walk` calls for every strip of every unit."""

    def wants(self, unit: int) -> bool:
        """Whether anything is coded from this unit on; if not, the walk ends before its level."""

    def begin(self, unit: int) -> None:
        """The next unit starts."""

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Values of a strip's latents in 1/16 steps; `mean`, `index`, result: `(places, rows, columns)`.

        For coders of residuals m that is 16 m + mean. `valid` holds, for every part of the unit, the rows and columns
        of the quad grid that lie in the picture.
        """


class Walk:
    """Visits all units of a picture in file order, keeps what the nets need and passes the residuals through a coder.

    Arguments:
        model: the bundle.
        header: of the file; width, height and step matter.
        fineness: the steps, if they differ from place to place.
    """

    graphs = "entropy"  # folder of the nets

    def __init__(self, model: Model, header: Header, fineness: Fineness | None = None) -> None:
        self.model, self.header = model, header
        self.fineness = Fineness(model, header) if fineness is None else fineness
        self.levels, self.axes = model.manifest.levels, model.manifest.axes
        self.units = self.order(model)
        self.fine = header.fine  # octaves between the step of the file and that of the nets
        multiple = model.multiple
        self._strips_done = 0  # since memory was given back
        self._planes = 0, np.empty((1, 0, 0, 0), np.int8)  # a level, and what its nets see besides latents
        self.grid = (-(-header.height // multiple), -(-header.width // multiple))  # of the coarsest level's quads

    @staticmethod
    def order(model: Model) -> list[Unit]:
        """The units in file order."""
        return units(model.manifest.levels, model.manifest.rotated)

    def band_size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's bands that are coded (0: the low-pass).

        Those in the picture and :data:`MARGIN` beyond, which the last rows and columns are made from; at steps so
        fine that what lies further beyond would show, all.
        """
        n = 2 ** (level or self.levels)
        height, width = self.grid_size(level or self.levels)
        if self.fine:
            return 2 * height, 2 * width
        rows, columns = (-(-size // n) + MARGIN for size in (self.header.height, self.header.width))
        return min(rows, 2 * height), min(columns, 2 * width)

    def grid_size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's quad grid, padding included."""
        n = 2 ** (self.levels - level)
        return self.grid[0] * n, self.grid[1] * n

    def run(self, coder: SymbolCoder) -> Int32:
        """Code all units; returns the low-pass integers `(axes, h, w)` with the padding repeated from the edge."""
        coder.begin(0)
        low = self.low_pass(coder)
        self.details(coder, np.clip(low, -MAX_LOW, MAX_LOW) * MEAN_UNIT)
        return low

    def details(self, coder: SymbolCoder, low: Int32) -> None:
        """Code all units but the first, given the low-pass `(axes, h, w)` in 1/16 steps."""
        gradients = np.zeros((2 * self.axes, *low.shape[1:]), np.int32)
        gradients[: self.axes, :, :-1] = np.diff(low, axis=2)
        gradients[self.axes :, :-1] = np.diff(low, axis=1)
        companded = self._compand(gradients)
        coarser = np.concatenate([companded[:, i::2, j::2] for i, j in PHASES])
        feature: UInt8 | None = None
        number = 1
        for level in range(self.levels, 0, -1):
            if not coder.wants(number):
                break
            feature = self._feature(level, coarser, feature)
            coarser = np.empty((0, 0, 0), np.int8)  # frees half a byte a pixel, before the level needs the most
            coarser = self._level(level, feature, coder, number)
            number += LEVEL_UNITS
        self._trim(1)  # what comes next needs buffers of other sizes

    def _trim(self, strips: int) -> None:
        """Give memory back if so many strips of large pictures have been visited since that was last done."""
        if self._strips_done >= strips:
            self._strips_done = 0
            trim_memory()

    def _strips(self, level: int) -> Iterator[slice]:
        height, width = self.grid_size(level)
        rows = max(2, STRIP // width // 2 * 2)
        for start in range(0, height, rows):
            yield slice(start, min(start + rows, height))

    def _compand(self, v: Int32) -> Int8:
        """What the nets see of values in 1/16 steps of the file."""
        return compand(self.model, (v + (1 << self.fine >> 1)) >> self.fine if self.fine else v)

    def _known(self, level: int, rows: slice) -> dict[str, npt.NDArray[Any]]:
        """What feature nets see besides, rows of the quad grid; nothing here."""
        return {}

    def _condition(self, level: int, rows: slice) -> Int8:
        """What all nets of a level see besides latents, `(1, planes, rows, columns)`, for rows of the quad grid."""
        known, planes = self._planes
        if known != level:
            height, width = self.grid_size(level)
            planes = self.fineness.condition(level, slice(0, height), width)
            self._planes = level, planes
        return planes[:, :, rows]

    def _nets(
        self,
        graph: str,
        level: int,
        inputs: Callable[[slice], dict[str, npt.NDArray[Any]]],
        channels: Sequence[int | None],
    ) -> Iterator[tuple[slice, list[npt.NDArray[Any]]]]:
        """Strip by strip of a level's quad grid: its rows and a graph's outputs for them, `(channels, rows, columns)`.

        Other threads are at the next strips meanwhile, or at parts of one where there are few: what a net gives at a
        place depends on :data:`REACH` rows around it at most, and integers are exact, so that parts give the same as
        the whole.

        Arguments:
            graph: which one.
            level: of the grid.
            inputs: what it takes of given rows; nothing that changes while strips are visited.
            channels: of its outputs, see :func:`eocodec.coding.nets.run_exact`.
        """
        height, width = self.grid_size(level)
        threads = self.model.share
        strips = list(self._strips(level))
        parts = [pieces(rows, width, threads if len(strips) < 2 * threads else 1) for rows in strips]

        def run(piece: slice) -> list[npt.NDArray[Any]]:
            top, bottom = max(0, piece.start - REACH), min(height, piece.stop + REACH)
            outputs = run_exact(self.model, graph, inputs(slice(top, bottom)), channels)
            return [o[0, :, piece.start - top : piece.stop - top] for o in outputs]

        results = in_order(run, [piece for part in parts for piece in part], threads)
        for rows, part in zip(strips, parts, strict=True):
            found = [next(results) for _ in part]
            self._strips_done += len(strips) > 1
            self._trim(TRIM_AFTER)
            yield rows, found[0] if len(found) == 1 else [np.concatenate(o, axis=1) for o in zip(*found, strict=True)]

    @classmethod
    def graph_names(cls, model: Model) -> list[str]:
        """All graphs that a walk may need, in order."""
        order = cls.order(model)
        return [
            f"{cls.graphs}/{name}"
            for first in range(1, len(order), LEVEL_UNITS)
            for name in (f"feature{order[first].level}", *map(_net, order[first : first + LEVEL_UNITS]))
            if model.manifest.axes > 1 or not name.startswith("chroma")
        ]

    def _feature(self, level: int, coarser: Int8, previous: UInt8 | None) -> UInt8:
        height, width = self.grid_size(level)
        result: UInt8 | None = None

        def inputs(rows: slice) -> dict[str, npt.NDArray[Any]]:
            seen: dict[str, npt.NDArray[Any]] = {
                "coarser": coarser[None, :, rows],
                "condition": self._condition(level, rows),
            }
            if previous is not None:
                seen["previous"] = previous[None, :, rows.start // 2 : rows.stop // 2]
            return {**seen, **self._known(level, rows)}

        for rows, (out,) in self._nets(f"{self.graphs}/feature{level}", level, inputs, (None,)):
            if rows.start == 0 and rows.stop == height:
                return np.asarray(out, np.uint8)
            if result is None:
                result = np.empty((len(out), height, width), np.uint8)
            if len(out) != len(result):
                raise ModelError(f"the model's graph {self.graphs}/feature{level} gives now more, now fewer features")
            result[:, rows] = out
        assert result is not None
        return result

    def _level(self, level: int, feature: UInt8, coder: SymbolCoder, number: int) -> Int8:
        """Code the six units of a level; returns its companded latents `(3 axes, 2 gh, 2 gw)` for a finer one."""
        height, width = self.grid_size(level)
        band_height, band_width = self.band_size(level)
        seen = np.zeros((24, height, width), np.int8)  # the luma passes, then the first of chroma
        result = np.zeros((3 * self.axes, 2 * height, 2 * width) if level > 1 else (0, 0, 0), np.int8)
        context = 0

        def inputs(rows: slice) -> dict[str, npt.NDArray[Any]]:
            known = {"feature": feature[None, :, rows], "condition": self._condition(level, rows)}
            return {**known, "seen": seen[None, :context, rows]} if context else known

        for k, unit in enumerate(self.units[number : number + LEVEL_UNITS]):
            coder.begin(number + k)
            if unit.axis == "chroma" and self.header.luma:
                context += unit.places
                continue  # zero, and not in the file
            valid = [((band_height - p.row + 1) // 2, (band_width - p.column + 1) // 2) for p in unit.parts]
            both = (unit.places, unit.places)
            for rows, (mean, index) in self._nets(f"{self.graphs}/{_net(unit)}", level, inputs, both):
                companded = self._compand(coder.strip(unit, rows, valid, mean.astype(np.int32), index))
                if context + unit.places <= len(seen):
                    seen[context : context + unit.places, rows] = companded
                if level > 1:
                    unit.scatter(companded, result, rows)
            context += unit.places
        return result

    def low_pass(self, coder: LowCoder) -> Int32:
        """The low-pass by interpolation from a single corner: lattices of stride 2**K, …, 2, 1."""
        height, width = self.band_size(0)
        q = np.zeros((self.axes, height, width), np.int32)
        corner = LOW_SCALE_INDEX - scale_shift(self.fineness.code(0), SCALE_PER_OCTAVE) // STEP_UNIT
        corner = min(max(corner, 0), SCALES - 1)
        for channel in range(self.axes):
            zero = np.zeros((1, 1), np.int32)
            index = np.full((1, 1), corner, np.uint8)
            q[channel, :1, :1] = coder.low(zero, index, (channel, slice(0, 1), slice(0, 1)))
        tables = self.model.derived(_LowTables)

        def visit(channel: int, found: Iterable[Lattice]) -> None:
            for kind, rows, columns, predicted, activity in found:
                index = tables.index(channel, kind, activity)
                q[channel, rows, columns] = coder.low(predicted, index, (channel, rows, columns))

        half = 1 << (max(height, width) - 1).bit_length() >> 1
        while half:
            diagonal = list(_diagonal(q, half))  # of all channels at once, which do not depend on one another
            for channel in range(self.axes):
                visit(channel, [(kind, r, c, p[channel], a[channel]) for kind, r, c, p, a in diagonal])
                visit(channel, _straight(q[channel], half))
            half >>= 1
        full = (2 * self.grid[0], 2 * self.grid[1])
        return np.pad(q, ((0, 0), (0, full[0] - height), (0, full[1] - width)), "edge")


def _net(unit: Unit) -> str:
    return f"{unit.axis}{unit.level}_{unit.index}"


def pieces(rows: slice, width: int, threads: int) -> list[slice]:
    """Rows of a grid as pieces for so many threads; each but the last has an even number, and enough to do."""
    count = rows.stop - rows.start
    number = max(1, min(threads, count * width // PIECE))
    step = (-(-count // number) + 1) // 2 * 2
    return [slice(a, min(a + step, rows.stop)) for a in range(rows.start, rows.stop, step)]


class _Companding:
    """What the nets see of values in 1/16 steps, from the most negative one in the table to the largest."""

    def __init__(self, model: Model) -> None:
        magnitude = model.compand_table.astype(np.int8)
        self.last = len(magnitude) - 1
        self.table = np.concatenate([-magnitude[:0:-1], magnitude])


def compand(model: Model, v: Int32) -> Int8:
    """What the nets see of values in 1/16 steps: by table, odd in v."""
    companding = model.derived(_Companding)
    return companding.table.take(v + companding.last, mode="clip")


class _LowTables:
    """Table indices of low-pass residuals by activity."""

    def __init__(self, model: Model) -> None:
        small = np.arange(SMALL_ACTIVITY, dtype=np.int32)
        self._classes = activity_class(small).astype(np.uint8)
        most = int(activity_class(np.full(1, MAX_ACTIVITY, np.int32))[0])
        self._tables = [
            [np.asarray(t, np.uint8)[np.minimum(np.arange(most + 1), len(t) - 1)] for t in kinds]
            for kinds in model.manifest.low_index
        ]

    def index(self, channel: int, kind: int, activity: Int32) -> UInt8:
        """Of a lattice of some kind."""
        few = activity.size and activity.max() < SMALL_ACTIVITY
        return self._tables[channel][kind][self._classes[activity] if few else activity_class(activity)]


def activity_class(activity: Int32) -> Int32:
    """0, 1, 2, 3, then two classes per octave: 4–5, 6–7, 8–11, 12–15, …"""
    a = np.minimum(activity, MAX_ACTIVITY)
    length = np.frexp(np.maximum(a, 1).astype(np.float64))[1]  # bit length, exact for integers below 2**53
    second = (a >> np.maximum(length - 2, 0)) & 1
    return np.where(a < 4, a, 2 * length + second - 2).astype(np.int32)


def lattices(q: Int32, half: int) -> Iterator[Lattice]:
    """The three lattices that take q from stride 2·half to `half`: (kind, rows, columns, prediction, activity).

    The caller fills q at a lattice before it asks for the next. Each prediction is the rounded mean of four
    neighbours; a neighbour outside the picture is replaced by the nearest one of its row or column. Kinds 0 and 1 are
    diagonal and straight neighbours at half = 1, 2 and 3 at half = 2, 4 and 5 beyond.
    """
    yield from _diagonal(q, half)
    yield from _straight(q, half)


def _diagonal(q: Int32, half: int) -> Iterator[Lattice]:
    """The lattice of diagonal neighbours, if there is one, of low-passes `(…, h, w)`."""
    stride = 2 * half
    height, width = q.shape[-2:]
    a, b = len(range(half, height, stride)), len(range(half, width, stride))
    if a and b:
        known = _framed(q[..., ::stride, ::stride], 0)
        corners = (known[..., i : a + i, j : b + j] for i in (0, 1) for j in (0, 1))
        yield _scale(half), slice(half, height, stride), slice(half, width, stride), *_combine(*corners)


def _straight(q: Int32, half: int) -> list[Lattice]:
    """The lattices of straight neighbours of a low-pass `(h, w)`, which do not depend on one another."""
    stride = 2 * half
    height, width = q.shape
    known, diagonal = q[::stride, ::stride], q[half::stride, half::stride]
    (rows, columns), (a, b) = known.shape, (len(range(half, size, stride)) for size in q.shape)
    near = _framed(known, 0)
    across = _framed(diagonal, 1) if a and b else None
    result: list[Lattice] = []
    if b:
        first, second = near[:rows, :b], near[:rows, 1 : b + 1]
        third, fourth = (first, second) if across is None else (across[:rows, 1:-1], across[1 : rows + 1, 1:-1])
        places = slice(0, height, stride), slice(half, width, stride)
        result.append((_scale(half) + 1, *places, *_combine(first, second, third, fourth)))
    if a:
        first, second = near[:a, :columns], near[1 : a + 1, :columns]
        third, fourth = (first, second) if across is None else (across[1:-1, :columns], across[1:-1, 1 : columns + 1])
        places = slice(half, height, stride), slice(0, width, stride)
        result.append((_scale(half) + 1, *places, *_combine(first, second, third, fourth)))
    return result


def _scale(half: int) -> int:
    return 2 * min(half.bit_length() - 1, 2)


def _framed(a: Int32, before: int) -> Int32:
    """Planes `(…, h, w)` with their edge repeated: `before` times above and on the left, once below and on the right.

    (`np.pad` takes longer than all else that is done with a lattice.)
    """
    result = np.empty((*a.shape[:-2], a.shape[-2] + before + 1, a.shape[-1] + before + 1), a.dtype)
    result[..., before:-1, before:-1] = a
    if before:
        result[..., 0, :] = result[..., 1, :]
        result[..., 0] = result[..., 1]
    result[..., -1, :] = result[..., -2, :]
    result[..., -1] = result[..., -2]
    return result


def _combine(a: Int32, b: Int32, c: Int32, d: Int32) -> tuple[Int32, Int32]:
    """The rounded mean of four neighbours, and how far they are apart."""
    mean = a + b
    mean += c
    mean += d
    mean += 2
    mean >>= 2
    highest, lowest = np.maximum(a, b), np.minimum(a, b)
    for x in (c, d):
        np.maximum(highest, x, out=highest)
        np.minimum(lowest, x, out=lowest)
    highest -= lowest
    return mean, highest


def _inside(a: npt.NDArray[Any], unit: Unit, rows: slice, valid: list[tuple[int, int]]) -> Iterator[npt.NDArray[Any]]:
    """Of every part of a unit what lies in the picture, views of a strip `(places, rows, columns)`."""
    for part, (bottom, right) in zip(unit.parts, valid, strict=True):
        yield a[part.at, : max(0, min(rows.stop, bottom) - rows.start), :right]


def outside(a: npt.NDArray[Any], unit: Unit, rows: slice, valid: list[tuple[int, int]]) -> Iterator[npt.NDArray[Any]]:
    """Of every part of a unit what does not lie in the picture, views of a strip `(places, rows, columns)`."""
    for part, (bottom, right) in zip(unit.parts, valid, strict=True):
        yield a[part.at, max(0, bottom - rows.start) :]
        yield a[part.at, :, right:]


def to_symbols(a: npt.NDArray[Any], unit: Unit, rows: slice, valid: list[tuple[int, int]]) -> npt.NDArray[Any]:
    """Symbols of a strip `(places, rows, columns)` in coding order: part, channel, row, column."""
    if _is_whole(a, rows, valid):
        return a.ravel()
    return np.concatenate([part.ravel() for part in _inside(a, unit, rows, valid)])


def from_symbols(m: Int32, like: Int32, unit: Unit, rows: slice, valid: list[tuple[int, int]]) -> Int32:
    """Inverse of :func:`to_symbols`; zero outside the picture."""
    if _is_whole(like, rows, valid):
        return m.reshape(like.shape)
    result = np.zeros_like(like)
    at = 0
    for part in _inside(result, unit, rows, valid):
        part[...] = m[at : at + part.size].reshape(part.shape)
        at += part.size
    return result


def _is_whole(a: npt.NDArray[Any], rows: slice, valid: list[tuple[int, int]]) -> bool:
    """Whether all of a strip lies in the picture."""
    return all(bottom >= rows.stop and right >= a.shape[2] for bottom, right in valid)
