"""Ordinary files: segments of quantised latents, each under the distribution that the integer nets give it.

In: latents in units of their steps (encoder) or segments (decoder). Out: segments, or dequantised latents. A latent's
value is m + μ/16 steps: μ the integer mean from the graphs, m the coded residual.
"""

import functools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec import format
from eocodec.coding import deep
from eocodec.coding.base import (
    SEGMENT_MINIMUM,
    SEGMENT_TARGET,
    SINGLE_SEGMENT_PIXELS,
    Coded,
    Coding,
    SegmentedCoding,
    greyed,
    whole_file,
)
from eocodec.coding.fineness import UNTUNED, Fineness, StepTuning, offsets_of, pack_offsets
from eocodec.coding.forms import OrdinaryForm
from eocodec.coding.range_coder import Reader, Writer, tables_of
from eocodec.coding.rate_control import SteppedJob
from eocodec.coding.scales import MEAN_UNIT, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.texture import Texture
from eocodec.coding.units import LEVEL_UNITS, Unit, units
from eocodec.coding.walk import Walk, from_symbols, to_symbols
from eocodec.errors import FormatError
from eocodec.format import AnyFile, File, Header, Segment, rate_code
from eocodec.image import Bytes, Picture
from eocodec.memory import trim_memory
from eocodec.metrics import decibels, peak, squared_error
from eocodec.model import transform, unrefined
from eocodec.model.bundle import Model
from eocodec.steps import step_code

__all__ = ["Decoder", "Dequantiser", "Encoder", "Ordinary", "OrdinaryJob", "decode", "encode", "finish", "foresee"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Content = tuple[tuple[Segment, ...], bytes]  # segments, and the choice of tables of deep files

CHROMA_SHARE = 0.1  # of the error that the step makes, up to which a grey picture's chroma is left out
FINEST_DEEP = -10.0  # log2 of the finest step of 16-bit files in 8-bit levels: a quarter of a 16-bit level
NEARLY_EMPTY = 0.05  # bits per pixel, below which a finer step is tried
LITTLE, LITTLE_SHARE = 16, 3  # bytes that it may cost, or one part in three; details double with half the step
SMOOTH_STEP = 12 / 255  # the finest one that is tried so
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
            self.latents.append(np.zeros((9 if level else 3, 2 * height, 2 * width), np.float32))
        steps = walk.fineness.steps()
        self.steps = [np.broadcast_to(s, band.shape) for s, band in zip(steps, self.latents, strict=True)]

    def low(self, integers: Int32) -> None:
        """The low-pass `(3, h, w)`."""
        self.latents[0][...] = integers * self.steps[0]

    def strip(self, unit: Unit, rows: slice, m: Int32, mean: Int32, index: UInt8) -> None:
        """A strip's residuals m around their means (1/16 steps)."""
        value = m.astype(np.float32)
        if not self.fine:  # where the nets do not know the scale, values stand for themselves
            place = np.clip(m, -3, 3)
            place += 3
            place += index * np.int32(7)
            value -= self.shift[place]
            if self.texture is not None and unit.axis == "luma":  # noise in colours is unpleasant
                np.copyto(value, self.texture.residuals(unit, rows, index), where=m == 0)
        value += mean.astype(np.float32) * np.float32(1 / MEAN_UNIT)
        k = 1 + self.levels - unit.level
        band, step = self.latents[k], self.steps[k]
        for part in unit.parts:
            to = (part.channels, slice(part.row, None, 2), slice(part.column, None, 2))
            np.multiply(value[part.at], step[to][:, rows], out=band[to][:, rows])


class Encoder:
    """The encoding coder: rounds latents and writes each unit into a stream of its own.

    Arguments:
        model: the bundle.
        targets: latents, `[LL (3, h, w), details L (9, h, w), …]`, padding included: in steps, or with `steps`.
        dequantiser: takes the latents as a decoder will have them; None: they are not needed.
        steps: of the bands.
        eye: round as people see it, not for the smallest squared error.
        fine: octaves between the step of the file and that of the nets, see `eocodec.coding.deep`.
    """

    def __init__(
        self,
        model: Model,
        targets: list[Float32],
        dequantiser: Dequantiser | None = None,
        steps: list[Float32] | None = None,
        eye: bool = False,
        fine: int = 0,
    ) -> None:
        self.model, self.tables, self.fine = model, tables_of(model), fine
        self.weights = model.manifest.eye_dead_zone if eye else []
        self.targets, self.dequantiser = targets, dequantiser
        self.steps = steps and [np.broadcast_to(s, band.shape) for s, band in zip(steps, targets, strict=True)]
        self.levels = model.manifest.levels
        self.symbols: list[list[_Symbols]] = []
        self.deflated = sum(t.size for t in targets) > 3 * LARGE
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
            target = target / self.steps[0][place[0]][place[1:]]
        value = np.floor(target + np.float32(0.5)).astype(np.int32)
        self._record(value - predicted, index)
        return value

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Round a strip's latents around their means and record the residuals."""
        k = 1 + self.levels - unit.level
        y = unit.gather(self.targets[k], rows)
        if self.steps is not None:
            y /= unit.gather(self.steps[k], rows)
        mean, likely = finer(mean, index, self.fine)
        m = self.tables.round(y - mean.astype(np.float32) * np.float32(1 / MEAN_UNIT), likely, self.weight(unit))
        symbols = to_symbols(m, unit, rows, valid)
        self._record(symbols, to_symbols(index, unit, rows, valid))
        m = from_symbols(symbols, m, unit, rows, valid)
        if self.dequantiser is not None:
            self.dequantiser.strip(unit, rows, m, mean, index)
        return m * MEAN_UNIT + mean

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

    @functools.cached_property
    def choice(self) -> deep.Choice | None:
        """The tables that suit what was seen, where the nets do not know them."""
        if not self.fine:
            return None
        groups: list[list[tuple[Int32, UInt8]]] = [[] for _ in range(2 * self.levels)]
        for unit, strips in list(zip(units(self.levels), self.symbols, strict=False))[1:]:
            groups[deep.group_of(unit)] += [symbols.given() for symbols in strips]
        return deep.choose(self.fine, groups, deep.code_lengths(self.model.tables))

    def _put(self, writer: Writer, number: int) -> None:
        """Write a unit."""
        unit = units(self.levels)[number]
        for symbols in self.symbols[number]:
            m, index = symbols.given()
            if self.choice is None or number == 0:
                writer.put(m, index)
            else:
                deep.put(writer, m, *self.choice.tables(deep.group_of(unit), index))

    def segments(self, single: bool = False) -> tuple[Segment, ...]:
        """Units grouped into segments, or in a `single` one; units of zeros at the end are left out."""
        last = self.end()
        writers = []
        for number in range(last):
            writers.append(Writer(self.tables))
            self._put(writers[-1], number)
        sizes = [writer.size() for writer in writers]
        total = sum(sizes)
        goal = total + 1 if single else max(SEGMENT_MINIMUM, total // SEGMENT_TARGET)
        result: list[Segment] = []
        first = pending = 0
        for k, size in enumerate(sizes):
            pending += size
            rest = sum(sizes[k + 1 :])
            if (pending >= goal and rest >= SEGMENT_MINIMUM // 2) or k + 1 == last:
                writer = writers[first]  # holds its unit already; most of the bytes are in units that stay alone
                for number in range(first + 1, k + 1):
                    self._put(writer, number)
                result.append(Segment(k + 1 - first, writer.payload()))
                first, pending = k + 1, 0
        return tuple(result)


class _Symbols:
    """Residuals and table indices of a strip `(n,)`, waiting until it is known which segment they are in.

    Arguments:
        m: residuals, of any kind of integer.
        index: of the tables.
        deflated: keep them deflated.
    """

    def __init__(self, m: npt.NDArray[np.signedinteger[Any]], index: UInt8, deflated: bool) -> None:
        self._kind, self._deflated = m.dtype, deflated
        self._m: Any = zlib.compress(m.tobytes(), 1) if deflated else m
        self._index: Any = zlib.compress(index.tobytes(), 1) if deflated else index

    def given(self) -> tuple[Int32, UInt8]:
        """Both of them."""
        if not self._deflated:
            return self._m.astype(np.int32), self._index
        m = np.frombuffer(zlib.decompress(self._m), self._kind)
        return m.astype(np.int32), np.frombuffer(zlib.decompress(self._index), np.uint8)


class Decoder:
    """The decoding coder: reads residuals from segments; units beyond the last segment are zero."""

    def __init__(
        self, model: Model, segments: tuple[Segment, ...], walk: Walk, texture: float = 0.0, choice: bytes = b""
    ) -> None:
        self.tables = tables_of(model)
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
        if unit in self.starts:
            self.reader = Reader(self.tables, self.segments[self.starts[unit]].payload)
        elif unit >= self.end:
            self.reader = None

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Prediction plus the residuals read."""
        if self.reader is None:
            return predicted
        return predicted + self.reader.take(index.ravel()).reshape(predicted.shape)

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Read a strip's residuals and dequantise its latents."""
        mean, _ = finer(mean, index, self.dequantiser.fine)
        if self.reader is None:
            m = np.zeros_like(mean)
        else:
            symbols = to_symbols(index, unit, rows, valid)
            if self.choice is None:
                symbols = self.reader.take(symbols)
            else:
                symbols = deep.take(self.reader, *self.choice.tables(deep.group_of(unit), symbols))
            m = from_symbols(symbols, mean, unit, rows, valid)
        self.dequantiser.strip(unit, rows, m, mean, index)
        return m * MEAN_UNIT + mean


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


def encode(
    model: Model, header: Header, latents: list[Float32], fineness: Fineness | None = None
) -> tuple[Segment, ...]:
    """Segments of latents `[LL (3, h, w), details L (9, h, w), …]`, padding included."""
    return finish(header, _coded(model, header, latents, fineness))


def _coded(model: Model, header: Header, latents: list[Float32], fineness: Fineness | None) -> Encoder:
    """A coder that has seen all latents."""
    walk = Walk(model, header, fineness)
    coder = Encoder(model, latents, steps=walk.fineness.steps(), eye=header.tuning > 0, fine=header.fine)
    walk.run(coder)
    return coder


def finish(header: Header, coder: Encoder) -> tuple[Segment, ...]:
    """Segments of what a coder has seen."""
    return coder.segments(single=header.width * header.height <= SINGLE_SEGMENT_PIXELS)


def _content(header: Header, coder: Encoder) -> Content:
    """What a file holds of what a coder has seen."""
    choice = coder.choice
    return finish(header, coder), b"" if choice is None else choice.pack()


def foresee(
    model: Model,
    header: Header,
    latents: list[Float32],
    fineness: Fineness | None = None,
    in_place: bool = False,
) -> tuple[Encoder, list[Float32]]:
    """What :func:`decode` will give for latents, before anything is coded; :func:`finish` codes it.

    Arguments:
        model, header: of the file.
        latents: as of the transform.
        fineness: the steps, if they differ from place to place.
        in_place: overwrite the latents, to save their memory.
    """
    walk = Walk(model, header, fineness)
    dequantiser = Dequantiser(model, walk, latents=latents if in_place else None)
    coder = Encoder(model, latents, dequantiser, dequantiser.steps, header.tuning > 0, header.fine)
    dequantiser.low(walk.run(coder))
    for k, band in enumerate(dequantiser.latents[1:]):
        if coder.end() <= 1 + LEVEL_UNITS * k:  # a decoder does not even enter levels that are all zero
            band[...] = 0
        elif header.luma:
            band[3:] = 0
    return coder, dequantiser.latents


def decode(
    model: Model,
    header: Header,
    segments: tuple[Segment, ...],
    fineness: Fineness | None = None,
    texture: float = 0.0,
    choice: bytes = b"",
) -> list[Float32]:
    """Dequantised latents of a file's segments (a prefix of them will do), with texture where they are zero if wanted.

    `choice` is the file's deep element.

    Raises:
        FormatError: a segment does not decode, or there are more units than the model has.
    """
    walk = Walk(model, header, fineness)
    coder = Decoder(model, segments, walk, texture, choice)
    coder.dequantiser.low(walk.run(coder))
    return coder.dequantiser.latents


class _Collector(Decoder):
    """The decoder, keeping the values of the latents in 1/16 steps; zero where nothing is coded."""

    def __init__(self, model: Model, segments: tuple[Segment, ...], walk: Walk, choice: bytes) -> None:
        super().__init__(model, segments, walk, choice=choice)
        sizes = [walk.grid_size(level) for level in range(self.levels, 0, -1)]
        self.values = [np.zeros((9, 2 * rows, 2 * columns), np.int32) for rows, columns in sizes]

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        result = super().strip(unit, rows, valid, mean, index)
        band = self.values[self.levels - unit.level]
        for part, (bottom, right) in zip(unit.parts, valid, strict=True):
            stop = max(rows.start, min(rows.stop, bottom))
            place = band[part.channels, part.row :: 2, part.column :: 2]
            place[:, rows.start : stop, :right] = result[part.at, : stop - rows.start, :right]
        return result


class OrdinaryJob(SteppedJob):
    """A picture whose latents are coded anew for every step.

    One that `remembers` keeps what it has found out about the last step, for who wants its file first and its picture
    later; that takes some 30 bytes a pixel.
    """

    remembers = False

    def __init__(
        self, coding: Coding, model: Model, picture: Picture, values: Float32 | None, tuning: StepTuning
    ) -> None:
        super().__init__(coding, model, picture)
        self.tuning, self.offsets = tuning, pack_offsets(tuning.offsets)
        model.runtime.open_ahead(Walk.graph_names(model))
        self._values = values
        self.latents = self._analysed()
        self.luma_from = _chroma(self.latents) if picture.grey else math.inf
        self.finest = FINEST_DEEP if picture.depth > 8 else None
        self._last: tuple[int, tuple[Callable[[], Bytes], Callable[[], Content]]] | None = None

    def _analysed(self) -> list[Float32]:
        return transform.analyse(self.model, self.picture.rgb if self._values is None else self._values)

    @functools.cached_property
    def latents(self) -> list[Float32]:
        """Latents of the picture; found again where the memory of the first has been used for something else."""
        return self._analysed()

    def _plan(self, delta: float) -> tuple[Header, Fineness]:
        """The header, and the steps."""
        header = self._header(delta)
        return header, Fineness(self.model, header, self.tuning.offsets)

    def at(self, delta: float) -> Coded:
        """See :meth:`Job.at`; a smooth picture, which finer steps cost next to nothing, gets one that shows no stairs.

        Areas without detail are coarsely rounded low-pass, nothing else: off in colour, and banded.
        """
        coded, tries = self._at(delta), 1
        size = len(format.to_bytes(coded.file))
        limit = size + max(LITTLE, size // LITTLE_SHARE)
        while 8 * size < NEARLY_EMPTY * self.picture.pixels and delta > 2 * SMOOTH_STEP:
            delta, tries = delta / 2, tries + 1
            smoother = self._at(delta)
            if len(format.to_bytes(smoother.file)) > limit:
                break
            coded = smoother
        return replace(coded, tries=tries)

    def _at(self, delta: float) -> Coded:
        """The file at a step; if its quality is wanted, that is measured on the way, in little memory."""
        if not self.measuring or self.remembers:
            return super().at(delta)
        header, fineness = self._plan(delta)
        self.model.runtime.open_ahead([_synthesis(self.model, header, fineness.places())])
        latents = self.latents
        del self.latents
        coder, latents = foresee(self.model, header, latents, fineness, in_place=True)
        file = self._file(header, _content(header, coder))
        del coder
        if self.picture.pixels > LARGE:
            trim_memory()
        rgb, error = self.picture.rgb, 0.0
        for rows, columns, piece in pieces_of(self.model, header, latents, header.delta, fineness.places()):
            error += squared_error(rgb[rows, columns], piece)
        self._measured = file, decibels(error, rgb.size, peak(rgb))
        return Coded(file, self.rate(file))

    def _header(self, delta: float) -> Header:
        header = ordinary_header(self.model, self.picture, delta, self.tuning.degree)
        return replace(header, luma=header.delta >= self.luma_from, deep=self.picture.depth > 8)

    def file(self, delta: float) -> File:
        """See :meth:`SteppedJob.file`."""
        if self.remembers:
            return self._foreseen(delta)[1]()
        header, fineness = self._plan(delta)
        return self._file(header, _content(header, _coded(self.model, header, self.latents, fineness)))

    def draft(self, delta: float) -> tuple[Bytes, Callable[[], File]]:
        """See :meth:`SteppedJob.draft`."""
        header, fineness = self._plan(delta)
        self.model.runtime.open_ahead([_synthesis(self.model, header, fineness.places())])
        rgb, file = self._foreseen(delta)
        return rgb(), file

    def _foreseen(self, delta: float) -> tuple[Callable[[], Bytes], Callable[[], File]]:
        """What makes the picture, and what makes the file, of a step that the nets have been asked about."""
        header, fineness = self._plan(delta)
        if self._last is not None and self._last[0] == header.step:  # headers may still differ in C, which nets ignore
            rgb, coded = self._last[1]
        else:
            coder, latents = foresee(self.model, header, self.latents, fineness)
            rgb = functools.cache(lambda: picture_of(self.model, header, latents, header.delta, fineness.places()))
            coded = functools.cache(lambda: _content(header, coder))
            if self.remembers:
                self._last = header.step, (rgb, coded)
        return rgb, lambda: self._file(header, coded())

    def _file(self, header: Header, coded: Content) -> File:
        segments, tables = coded
        return File(header, self.alpha, segments, offsets=self.offsets, tables=tables if header.deep else None)

    def rate(self, file: AnyFile) -> float:
        """C of the header."""
        return whole_file(file).header.kept

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        header = self._header(1.0)
        return len(format.serialise(self._file(header, ((), b""))))


class Ordinary(OrdinaryForm, SegmentedCoding):
    """Files of models for pictures of any size, unless a flag says otherwise."""

    deep = tunable = True

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> OrdinaryJob:
        """See :meth:`Coding.open`; the steps can be tuned."""
        return OrdinaryJob(self, model, picture, values, tuning)

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`."""
        file = whole_file(file)
        header = file.header
        fineness, graphs = fineness_of(model, file), Walk.graph_names(model)
        graphs.append(_synthesis(model, header, fineness.places()))
        model.runtime.open_ahead(reversed(graphs))  # this thread begins at the other end
        latents = decode(model, header, file.segments, fineness, texture, file.tables or b"")
        return picture_of(model, header, latents, header.delta, fineness.places())

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """The low-pass integers and every detail latent in 1/16 steps, bands one after another."""
        file = whole_file(file)
        walk = Walk(model, file.header, fineness_of(model, file))
        coder = _Collector(model, file.segments, walk, file.tables or b"")
        low = walk.run(coder)
        return np.concatenate([low.ravel(), *(b.ravel() for b in coder.values)])


def fineness_of(model: Model, file: File) -> Fineness:
    """The steps of a file.

    Raises:
        FormatError: its map of steps is damaged, or the model knows none.
    """
    return Fineness(model, file.header, offsets_of(file.offsets, file.header, model))


def ordinary_header(model: Model, picture: Picture, delta: float, tuning: int = 0) -> Header:
    """The header of a file at step Δ (range 0 to 1)."""
    height, width = picture.rgb.shape[:2]
    rate = rate_code(model.any_manifest.rate_of(delta))
    return Header(model.id, width, height, rate, step_code(delta), grey=picture.grey, tuning=tuning)


def pieces_of(
    model: Model, header: Header, latents: list[Float32], delta: float, places: transform.Places = transform.ANYWHERE
) -> Iterator[tuple[slice, slice, Bytes]]:
    """The picture of dequantised latents, which were coded at a step Δ (range 0 to 1), in tiles: rows, columns, rgb."""
    step, refined = model.manifest.decoder_step(delta), _is_refined(model, header, places)
    size = header.width, header.height
    for rows, columns, values in transform.synthesise_tiles(model, latents, step, *size, places, refined):
        yield rows, columns, greyed(transform.to_levels(values, header.depth).transpose(1, 2, 0), header.grey)


def picture_of(
    model: Model, header: Header, latents: list[Float32], delta: float, places: transform.Places = transform.ANYWHERE
) -> Bytes:
    """The picture `(H, W, 3)` of :func:`pieces_of`, uint8 or, of 16-bit files, uint16."""
    rgb = np.empty((header.height, header.width, 3), np.uint16 if header.deep else np.uint8)
    for rows, columns, piece in pieces_of(model, header, latents, delta, places):
        rgb[rows, columns] = piece
    return rgb


def _is_refined(model: Model, header: Header, places: transform.Places) -> bool:
    """Whether a file's picture takes the refinement of the decoder graph."""
    coarse = model.manifest.decoder_step(header.delta) == header.delta
    return coarse or places.steps is not None or not (header.deep or header.luma)


def _synthesis(model: Model, header: Header, places: transform.Places) -> str:
    """The graph that makes a file's picture."""
    return "decoder" if _is_refined(model, header, places) else unrefined.GRAPH


def _chroma(latents: list[Float32]) -> float:
    """The step (range 0 to 1) from which on the chroma details of a grey picture are not worth coding.

    They are what the flow makes of luma, and next to nothing; without them the error they leave is a small share of
    what the step makes anyway, most of which lies where a grey picture's mean over its channels does not show it.
    """
    energy = sum(float(np.square(band[3:], dtype=np.float64).sum()) for band in latents[1:])
    return math.sqrt(12 * energy / (CHROMA_SHARE * sum(band[:3].size for band in latents[1:])))
