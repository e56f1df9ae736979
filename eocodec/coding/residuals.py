"""The two coders of ordinary files: residuals of a walk to segments and back, and to latents.

In: what `eocodec.coding.walk` asks of a coder, strip by strip. Out: segments (:class:`Encoder`), residuals
(:class:`Decoder`), dequantised latents (:class:`Dequantiser`).
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.cached import cached_property
from eocodec.coding import deep
from eocodec.coding.base import SEGMENT_MINIMUM
from eocodec.coding.fineness import BandSteps
from eocodec.coding.range_coder import Ordered, Reader, Writer, tables_of
from eocodec.coding.scales import MEAN_UNIT, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.shifts import Shifts, chosen
from eocodec.coding.texture import Texture
from eocodec.coding.units import Unit, units
from eocodec.coding.walk import Walk, from_symbols, outside, to_symbols
from eocodec.errors import FormatError
from eocodec.format import Segment
from eocodec.model.bundle import Model
from eocodec.model.threads import WORTH, side_by_side

__all__ = ["Decoder", "Dequantiser", "Encoder"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.signedinteger[Any]]

CHUNK = 1 << 15  # latents that are worked at at once
SMALL = 1 << 22  # latents, up to which symbols stay in the range coder's order until all is written
LARGE = 1 << 24  # pixels, beyond which symbols wait deflated, in 2 to 3 bytes a pixel instead of 6


class Dequantiser:
    """Latents `[LL (3, h, w), details L (9, h, w), …]` from residuals, unit by unit; what is not coded stays zero.

    Arguments:
        model: the bundle.
        walk: that gives the residuals.
        texture: how much is drawn where residuals are zero, see `eocodec.coding.texture`.
        latents: where to put them, if not into new arrays; then everything has to be coded.
    """

    def __init__(self, model: Model, walk: Walk, texture: float = 0.0, latents: list[Float32] | None = None) -> None:
        self.levels = model.manifest.levels
        self.fine = walk.fine
        self.texture = Texture(texture) if texture else None
        # What centroids take from residuals of −3 and below, −2, …, 3 and above, by table index.
        shift = np.array(model.manifest.shift, np.float32) / 256
        self.shift = np.concatenate([-shift[:, ::-1], np.zeros((len(shift), 1), np.float32), shift], 1).ravel()
        self.latents: list[Float32] = [] if latents is None else latents
        for level in [0, *range(self.levels, 0, -1)] if latents is None else ():
            height, width = walk.grid_size(level or self.levels)
            channels = 3 * walk.axes if level else walk.axes
            self.latents.append(np.zeros((channels, 2 * height, 2 * width), np.float32))
        self.steps = walk.fineness.quads()

    def low(self, integers: Int32) -> None:
        """The low-pass `(3, h, w)`."""
        self.latents[0][...] = integers * self.steps[0].channels

    def strip(self, unit: Unit, rows: slice, m: Int32, mean: Int32, index: UInt8) -> None:
        """Residuals m of rows of the quad grid around their means (1/16 steps); threads may be at others meanwhile."""
        value = _in_steps(mean)
        if self.fine:  # where the nets do not know the scale, values stand for themselves
            value += m.astype(np.float32)
        else:
            if self.texture is not None and unit.axis == "luma":  # noise in colours is unpleasant
                np.add(value, self.texture.residuals(unit, rows, index), out=value, where=m == 0)
            places = np.flatnonzero(m != 0)  # few, in most bands
            some = m.ravel()[places]
            table = np.clip(some, -3, 3)
            table += 3
            table += index.ravel()[places] * np.int32(7)
            value.ravel()[places] += some.astype(np.float32) - self.shift[table]
        k = 1 + self.levels - unit.level
        band, step = self.latents[k], self.steps[k]
        for part in unit.parts:
            to = (part.channels, slice(part.row, None, 2), slice(part.column, None, 2))
            np.multiply(value[part.at], step.at(part.channels, rows), out=band[to][:, rows])


class Encoder:
    """The encoding coder: rounds latents and writes each unit into a stream of its own.

    Arguments:
        model: the bundle.
        targets: latents, `[LL (3, h, w), details L (9, h, w), …]`, padding included: in steps, or with `steps`.
        dequantiser: takes the latents as a decoder will have them; None: they are not needed.
        steps: of the bands.
        eye: round as people see it, not for the smallest squared error.
        fine: octaves between the step of the file and that of the nets, see `eocodec.coding.deep`.
        thrift: by which bits weigh more in rounding than usual.
    """

    def __init__(
        self,
        model: Model,
        targets: list[Float32],
        dequantiser: Dequantiser | None = None,
        steps: list[BandSteps] | None = None,
        eye: bool = False,
        fine: int = 0,
        thrift: float = 1.0,
    ) -> None:
        self.model, self.tables, self.fine = model, tables_of(model), fine
        self.weights = tuple(thrift * weight for weight in model.encoding.weights(eye))
        self.targets, self.dequantiser = targets, dequantiser
        self.steps = steps
        self.levels = model.manifest.levels
        self.symbols: list[list[_Symbols]] = []
        count = sum(t.size for t in targets)
        self.deflated, self.small = count > 3 * LARGE, count <= SMALL
        self.share = model.share if count >= WORTH else 1
        self.nonzero: list[bool] = []

    def wants(self, unit: int) -> bool:
        """Every unit is coded."""
        return True

    def begin(self, unit: int) -> None:
        """Start a unit's stream."""
        self.symbols.append([])
        self.nonzero.append(False)

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Round the low-pass and record what the prediction misses."""
        target = self.targets[0][place[0]][place[1:]]
        if self.steps is not None:
            target = target / self.steps[0].channels[place[0]]
        value = np.floor(target + np.float32(0.5)).astype(np.int32)
        self._record(value - predicted, index)
        return value

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Round a strip's latents around their means and record the residuals."""
        mean, likely = finer(mean, index, self.fine)
        m, result = np.empty(mean.shape, np.int32), np.empty(mean.shape, np.int32)

        def work(at: slice) -> None:
            here = slice(rows.start + at.start, rows.start + at.stop)
            y = self._target(unit, here)
            y -= _in_steps(mean[:, at])
            found = self.tables.round(y, likely[:, at], self.weight(unit))
            for part in outside(found, unit, here, valid):
                part[...] = 0
            if self.dequantiser is not None:
                self.dequantiser.strip(unit, here, found, mean[:, at], index[:, at])
            m[:, at] = found
            found *= MEAN_UNIT
            np.add(found, mean[:, at], out=result[:, at])

        _by_rows(work, mean.shape, self.share)
        self._record(to_symbols(m, unit, rows, valid), to_symbols(index, unit, rows, valid))
        return result

    def _target(self, unit: Unit, rows: slice) -> Float32:
        """Latents of a unit in steps, `(places, rows, columns)`, for rows of the quad grid."""
        k = 1 + self.levels - unit.level
        if self.steps is None:
            return unit.gather(self.targets[k], rows)
        y = np.empty((unit.places, rows.stop - rows.start, self.targets[k].shape[2] // 2), np.float32)
        for part in unit.parts:
            place = (part.channels, slice(part.row, None, 2), slice(part.column, None, 2))
            np.divide(self.targets[k][place][:, rows], self.steps[k].at(part.channels, rows), out=y[part.at])
        return y

    def weight(self, unit: Unit) -> float | None:
        """The rate's weight in rounding, None for the usual one."""
        if not self.weights:
            return None
        return self.weights[0] if unit.axis == "chroma" else self.weights[1 + self.levels - unit.level]

    def _record(self, m: Int32, index: UInt8) -> None:
        low, high = (int(m.min()), int(m.max())) if m.size else (0, 0)
        self.symbols[-1].append(_Symbols(m.ravel().astype(_smallest(low, high)), index.ravel(), self.deflated))
        self.nonzero[-1] |= low < 0 or high > 0

    def end(self) -> int:
        """Number of units up to the last one that is not all zero."""
        return max((k + 1 for k, nonzero in enumerate(self.nonzero) if nonzero), default=0)

    @cached_property
    def shifts(self) -> Shifts:
        """The shifts of tables that suit what was seen."""
        if self.fine or not self.model.encoding.shifts:
            return Shifts()
        return chosen(self.model, [(s.given() for s in strips) for strips in self.symbols[: self.end()]], self.share)

    @cached_property
    def choice(self) -> deep.Choice | None:
        """The tables that suit what was seen, where the nets do not know them."""
        if not self.fine:
            return None
        groups: list[list[tuple[Int32, UInt8]]] = [[] for _ in range(2 * self.levels)]
        for unit, strips in list(zip(units(self.levels), self.symbols, strict=False))[1:]:
            groups[deep.group_of(unit)] += [(m.astype(np.int32), index) for m, index in (s.given() for s in strips)]
        return deep.choose(self.fine, groups, deep.code_lengths(self.model.tables))

    def segments(self, single: bool = False, moved: Shifts | None = None) -> tuple[Segment, ...]:
        """Units grouped into segments, or in a `single` one; units of zeros at the end are left out.

        `moved` are shifts of tables, for files that have them.
        """
        moved = moved or Shifts()
        choice, order = self.choice, units(self.levels)
        kept: dict[int, list[Ordered]] = {}

        def ordered(number: int) -> Iterator[Ordered]:
            for m, index in (s.given() for s in self.symbols[number]):
                yield Ordered(m, moved.table(number, index), self.tables)

        def write(item: tuple[Writer, range]) -> None:
            """Append units."""
            writer, numbers = item
            for number in numbers:
                if choice is not None and number:
                    tables = functools.partial(choice.tables, deep.group_of(order[number]))
                    for m, index in (s.given() for s in self.symbols[number]):
                        deep.put(writer, m.astype(np.int32), *tables(index))
                    continue
                if self.small and number not in kept:
                    kept[number] = list(ordered(number))
                for strip in kept.get(number) or ordered(number):
                    writer.write(strip)

        def side(items: list[tuple[Writer, range]]) -> None:
            """Write, the units that tend to be largest first, so that threads end together."""
            side_by_side(write, items[::-1], self.share)

        writers = [Writer(self.tables) for _ in range(self.end())]
        side([(writer, range(k, k + 1)) for k, writer in enumerate(writers)])
        runs = _segmented([writer.size() for writer in writers], single)
        # The writers of the first units go on; most of the bytes are in units that stay alone.
        side([(writers[run.start], run[1:]) for run in runs if len(run) > 1])
        return tuple(Segment(len(run), writers[run.start].payload()) for run in runs)


def _segmented(sizes: list[int], single: bool) -> list[range]:
    """Units of so many bytes as segments, or all in a `single` one.

    The least length doubles from one segment to the next: a frame takes some nine bytes, and whoever cuts a file or
    waits for its first picture gains most by ends between the first kilobytes.
    """
    result: list[range] = []
    first = pending = 0
    for k, size in enumerate(sizes):
        pending += size
        goal, rest = SEGMENT_MINIMUM << len(result), sum(sizes[k + 1 :])
        if (pending >= goal and rest >= goal // 2 and not single) or k + 1 == len(sizes):
            result.append(range(first, k + 1))
            first, pending = k + 1, 0
    return result


class _Symbols:
    """Residuals and table indices of a strip `(n,)`, waiting until it is known which segment they are in.

    Arguments:
        m: residuals, of any kind of integer.
        index: of the tables.
        deflated: keep them deflated.
    """

    def __init__(self, m: Integers, index: UInt8, deflated: bool) -> None:
        self._kind, self._deflated = m.dtype, deflated
        self._m: Any = zlib.compress(m.tobytes(), 1) if deflated else m
        self._index: Any = zlib.compress(index.tobytes(), 1) if deflated else index

    def given(self) -> tuple[Integers, UInt8]:
        """Both of them."""
        if not self._deflated:
            return self._m, self._index
        m = np.frombuffer(zlib.decompress(self._m), self._kind)
        return m, np.frombuffer(zlib.decompress(self._index), np.uint8)


class Decoder:
    """The decoding coder: reads residuals from segments; units beyond the last segment are zero."""

    def __init__(
        self,
        model: Model,
        segments: tuple[Segment, ...],
        walk: Walk,
        texture: float = 0.0,
        choice: bytes = b"",
        moved: bytes | None = None,
    ) -> None:
        self.tables, self.share = tables_of(model), model.share
        self.shifts = Shifts.unpack(moved, len(units(model.manifest.levels)))
        self.unit = 0
        self.choice = deep.Choice.unpack(choice, walk.fine, 2 * model.manifest.levels) if walk.fine else None
        self.levels = model.manifest.levels
        self.segments = segments
        self.starts: dict[int, int] = {}
        at = 0
        for k, s in enumerate(segments):
            self.starts[at] = k
            at += s.units
        self.end = at
        if at > len(units(self.levels)):
            raise FormatError("the file is damaged: it has more coding units than the model")
        self.reader: Reader | None = None
        self.dequantiser = Dequantiser(model, walk, texture)

    def wants(self, unit: int) -> bool:
        """Whether the file goes on."""
        return unit < self.end

    def begin(self, unit: int) -> None:
        """Open the segment that starts with this unit; after the last one there is none."""
        self.unit = unit
        if unit in self.starts:
            self.reader = Reader(self.tables, self.segments[self.starts[unit]].payload)
        elif unit >= self.end:
            self.reader = None

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Prediction plus the residuals read."""
        if self.reader is None:
            return predicted
        index = self.shifts.table(self.unit, index)
        return predicted + self.reader.take(index.ravel()).reshape(predicted.shape)

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Read a strip's residuals and dequantise its latents."""
        mean, _ = finer(mean, index, self.dequantiser.fine)
        if self.reader is None:
            m = np.zeros_like(mean)
        else:
            symbols = to_symbols(index, unit, rows, valid)
            if self.choice is None:
                symbols = self.reader.take(self.shifts.table(self.unit, symbols))
            else:
                symbols = deep.take(self.reader, *self.choice.tables(deep.group_of(unit), symbols))
            m = from_symbols(symbols, mean, unit, rows, valid)
        result = np.empty(mean.shape, np.int32)

        def work(at: slice) -> None:
            here = slice(rows.start + at.start, rows.start + at.stop)
            self.dequantiser.strip(unit, here, m[:, at], mean[:, at], index[:, at])
            np.multiply(m[:, at], MEAN_UNIT, out=result[:, at])
            result[:, at] += mean[:, at]

        _by_rows(work, mean.shape, self.share)
        return result


def _by_rows(work: Callable[[slice], None], shape: tuple[int, ...], threads: int) -> None:
    """Do some work for all rows of `(places, rows, columns)`, so many at a time that buffers stay in the cache."""
    places, rows, columns = shape
    number = -(-places * rows * columns // CHUNK)
    step = max(1, -(-rows // max(1, number)))
    side_by_side(work, [slice(at, min(at + step, rows)) for at in range(0, rows, step)], threads)


def _in_steps(mean: Int32) -> Float32:
    """Means in 1/16 steps as steps; an array of its own."""
    result = np.empty(mean.shape, np.float32)
    return np.multiply(mean, np.float32(1 / MEAN_UNIT), out=result, dtype=np.float32)


def finer(mean: Int32, index: UInt8, fine: int) -> tuple[Int32, UInt8]:
    """Means and indices of the nets at a step that is so many octaves finer than theirs."""
    if not fine:
        return mean, index
    return mean << fine, np.minimum(index + SCALE_PER_OCTAVE * fine, SCALES - 1).astype(np.uint8)


def _smallest(low: int, high: int) -> type[np.signedinteger[Any]]:
    """The smallest kind of integer that holds all from `low` to `high`: nearly all strips have small ones."""
    for kind in (np.int8, np.int16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    return np.int32
