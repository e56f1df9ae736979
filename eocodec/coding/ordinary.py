"""Ordinary files: segments of quantised latents, each under the distribution that the integer nets give it.

In: latents in units of their steps (encoder) or segments (decoder). Out: segments, or dequantised latents. A latent's
value is m + μ/16 steps: μ the integer mean from the graphs, m the coded residual.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from eocodec import format
from eocodec.coding.base import (
    SEGMENT_MINIMUM,
    SEGMENT_TARGET,
    SINGLE_SEGMENT_PIXELS,
    Coded,
    SegmentedCoding,
    greyed,
    whole_file,
)
from eocodec.coding.range_coder import Reader, Writer, tables_of
from eocodec.coding.rate_control import SteppedJob
from eocodec.coding.scales import MEAN_UNIT
from eocodec.coding.units import LEVEL_UNITS, Unit, cumulative_latents, units
from eocodec.coding.walk import Walk, from_symbols, to_symbols
from eocodec.errors import FormatError
from eocodec.format import AnyFile, File, Header, Segment, rate_code
from eocodec.image import Bytes, Picture
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.manifest import Manifest
from eocodec.steps import step_code

__all__ = ["Decoder", "Dequantiser", "Encoder", "Ordinary", "decode", "encode", "finish", "foresee"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

NEARLY_EMPTY = 0.05  # bits per pixel, below which a finer step is tried
LITTLE, LITTLE_SHARE = 16, 3  # bytes that it may cost, or one part in three; details double with half the step
SMOOTH_STEP = 12 / 255  # the finest one that is tried so
USUAL_LEVELS = 4  # of models, where a file is to be cut whose model is not at hand


class Dequantiser:
    """Latents `[LL (3, h, w), details L (9, h, w), …]` from residuals, unit by unit; what is not coded stays zero."""

    def __init__(self, model: Model, steps: list[Float32], walk: Walk) -> None:
        self.levels = model.manifest.levels
        # What centroids take from residuals of −3 and below, −2, …, 3 and above, by table index.
        shift = np.array(model.manifest.shift, np.float32) / 256
        self.shift = np.concatenate([-shift[:, ::-1], np.zeros((len(shift), 1), np.float32), shift], 1).ravel()
        self.latents: list[Float32] = []
        for level in [0, *range(self.levels, 0, -1)]:
            height, width = walk.grid_size(level or self.levels)
            self.latents.append(np.zeros((9 if level else 3, 2 * height, 2 * width), np.float32))
        self.steps = [np.broadcast_to(s, band.shape) for s, band in zip(steps, self.latents, strict=True)]

    def low(self, integers: Int32) -> None:
        """The low-pass `(3, h, w)`."""
        self.latents[0][...] = integers * self.steps[0]

    def strip(self, unit: Unit, rows: slice, m: Int32, mean: Int32, index: UInt8) -> None:
        """A strip's residuals m around their means (1/16 steps)."""
        place = np.clip(m, -3, 3)
        place += 3
        place += index * np.int32(7)
        value = m.astype(np.float32)
        value -= self.shift[place]
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
        targets: latents in steps, `[LL (3, h, w), details L (9, h, w), …]`.
        dequantiser: takes the latents as a decoder will have them, if anybody wants to know.
    """

    def __init__(self, model: Model, targets: list[Float32], dequantiser: Dequantiser | None = None) -> None:
        self.tables = tables_of(model)
        self.targets, self.dequantiser = targets, dequantiser
        self.levels = model.manifest.levels
        self.symbols: list[list[tuple[Int32, UInt8]]] = []
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
        value = np.floor(self.targets[0][place[0]][place[1:]] + np.float32(0.5)).astype(np.int32)
        self._record(value - predicted, index)
        return value

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Round a strip's latents around their means and record the residuals."""
        y = unit.gather(self.targets[1 + self.levels - unit.level], rows)
        m = self.tables.round(y - mean.astype(np.float32) * np.float32(1 / MEAN_UNIT), index)
        symbols = to_symbols(m, unit, rows, valid)
        self._record(symbols, to_symbols(index, unit, rows, valid))
        m = from_symbols(symbols, m, unit, rows, valid)
        if self.dequantiser is not None:
            self.dequantiser.strip(unit, rows, m, mean, index)
        return m * MEAN_UNIT + mean

    def _record(self, m: Int32, index: UInt8) -> None:
        self.symbols[-1].append((m.ravel(), index.ravel()))
        self.nonzero[-1] |= bool(m.any())

    def end(self) -> int:
        """Number of units up to the last one that is not all zero."""
        return max((k + 1 for k, nonzero in enumerate(self.nonzero) if nonzero), default=0)

    def segments(self, single: bool = False) -> tuple[Segment, ...]:
        """Units grouped into segments, or in a `single` one; units of zeros at the end are left out."""
        last = self.end()
        writers = []
        for unit in self.symbols[:last]:
            writers.append(Writer(self.tables))
            for m, index in unit:
                writers[-1].put(m, index)
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
                for unit in self.symbols[first + 1 : k + 1]:
                    for m, index in unit:
                        writer.put(m, index)
                result.append(Segment(k + 1 - first, writer.payload()))
                first, pending = k + 1, 0
        return tuple(result)


class Decoder:
    """The decoding coder: reads residuals from segments; units beyond the last segment are zero."""

    def __init__(self, model: Model, segments: tuple[Segment, ...], steps: list[Float32], walk: Walk) -> None:
        self.tables = tables_of(model)
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
        self.dequantiser = Dequantiser(model, steps, walk)

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
        if self.reader is None:
            m = np.zeros_like(mean)
        else:
            m = from_symbols(self.reader.take(to_symbols(index, unit, rows, valid)), mean, unit, rows, valid)
        self.dequantiser.strip(unit, rows, m, mean, index)
        return m * MEAN_UNIT + mean


def encode(model: Model, header: Header, targets: list[Float32]) -> tuple[Segment, ...]:
    """Segments of latents given in steps `[LL (3, h, w), details L (9, h, w), …]`, padding included."""
    coder = Encoder(model, targets)
    Walk(model, header).run(coder)
    return finish(header, coder)


def finish(header: Header, coder: Encoder) -> tuple[Segment, ...]:
    """Segments of what a coder has seen."""
    return coder.segments(single=header.width * header.height <= SINGLE_SEGMENT_PIXELS)


def foresee(
    model: Model, header: Header, targets: list[Float32], steps: list[Float32]
) -> tuple[Encoder, list[Float32]]:
    """What :func:`decode` will give for latents in steps, before anything is coded; :func:`finish` codes it."""
    walk = Walk(model, header)
    dequantiser = Dequantiser(model, steps, walk)
    coder = Encoder(model, targets, dequantiser)
    dequantiser.low(walk.run(coder))
    for k, band in enumerate(dequantiser.latents[1:]):
        if coder.end() <= 1 + LEVEL_UNITS * k:  # a decoder does not even enter levels that are all zero
            band[...] = 0
    return coder, dequantiser.latents


def decode(model: Model, header: Header, segments: tuple[Segment, ...], steps: list[Float32]) -> list[Float32]:
    """Dequantised latents of a file's segments (a prefix of them will do).

    Raises:
        FormatError: a segment does not decode, or there are more units than the model has.
    """
    walk = Walk(model, header)
    coder = Decoder(model, segments, steps, walk)
    coder.dequantiser.low(walk.run(coder))
    return coder.dequantiser.latents


class _Collector(Decoder):
    """The decoder, keeping the values of the latents in 1/16 steps; zero where nothing is coded."""

    def __init__(self, model: Model, segments: tuple[Segment, ...], steps: list[Float32], walk: Walk) -> None:
        super().__init__(model, segments, steps, walk)
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
    """A picture whose latents are coded anew for every step."""

    def __init__(self, coding: "Ordinary", model: Model, picture: Picture, values: Float32 | None) -> None:
        super().__init__(coding, model, picture)
        self.latents = transform.analyse(model, picture.rgb if values is None else values)

    def _targets(self, delta: float) -> tuple[Header, list[Float32], list[Float32]]:
        """The header, the steps of the bands, and the latents in them."""
        header = ordinary_header(self.model, self.picture, delta)
        steps = self.model.manifest.steps(header.delta)
        return header, steps, [h / s for h, s in zip(self.latents, steps, strict=True)]

    def at(self, delta: float) -> Coded:
        """See :meth:`Job.at`; a smooth picture, which finer steps cost next to nothing, gets one that shows no stairs.

        Areas without detail are coarsely rounded low-pass, nothing else: off in colour, and banded.
        """
        coded, tries = super().at(delta), 1
        size = len(format.to_bytes(coded.file))
        limit = size + max(LITTLE, size // LITTLE_SHARE)
        while 8 * size < NEARLY_EMPTY * self.picture.pixels and delta > 2 * SMOOTH_STEP:
            delta, tries = delta / 2, tries + 1
            finer = super().at(delta)
            if len(format.to_bytes(finer.file)) > limit:
                break
            coded = finer
        return replace(coded, tries=tries)

    def file(self, delta: float) -> File:
        """See :meth:`SteppedJob.file`."""
        header, _, targets = self._targets(delta)
        return File(header, self.alpha, encode(self.model, header, targets))

    def draft(self, delta: float) -> tuple[Bytes, Callable[[], File]]:
        """See :meth:`SteppedJob.draft`."""
        header, steps, targets = self._targets(delta)
        coder, latents = foresee(self.model, header, targets, steps)
        rgb = picture_of(self.model, header, latents, header.delta)
        return rgb, functools.cache(lambda: File(header, self.alpha, finish(header, coder)))

    def rate(self, file: AnyFile) -> float:
        """C of the header."""
        return whole_file(file).header.kept

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        return len(format.serialise(File(ordinary_header(self.model, self.picture, 1.0), self.alpha, ())))


class Ordinary(SegmentedCoding):
    """Files of models for pictures of any size, unless a flag says otherwise."""

    def holds(self, file: AnyFile, manifest: Manifest | None) -> bool:
        """All files with a header that no other form holds."""
        return isinstance(file, File)

    def open(self, model: Model, picture: Picture, values: Float32 | None = None) -> OrdinaryJob:
        """See :meth:`Coding.open`."""
        return OrdinaryJob(self, model, picture, values)

    def decode(self, model: Model, file: AnyFile) -> Bytes:
        """See :meth:`Coding.decode`."""
        file = whole_file(file)
        header = file.header
        latents = decode(model, header, file.segments, model.manifest.steps(header.delta))
        return picture_of(model, header, latents, header.delta)

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """The low-pass integers and every detail latent in 1/16 steps, bands one after another."""
        file = whole_file(file)
        walk = Walk(model, file.header)
        coder = _Collector(model, file.segments, model.manifest.steps(file.header.delta), walk)
        low = walk.run(coder)
        return np.concatenate([low.ravel(), *(b.ravel() for b in coder.values)])

    def latents_after_segments(self, file: File, model: Model | None = None) -> list[float]:
        """See :meth:`SegmentedCoding.latents_after_segments`."""
        return after_segments(file, cumulative_latents(USUAL_LEVELS))


def ordinary_header(model: Model, picture: Picture, delta: float) -> Header:
    """The header of a file at step Δ (range 0 to 1)."""
    height, width = picture.rgb.shape[:2]
    rate = rate_code(model.any_manifest.rate_of(delta))
    return Header(model.id, width, height, rate, step_code(delta), grey=picture.grey)


def picture_of(model: Model, header: Header, latents: list[Float32], delta: float) -> Bytes:
    """The picture `(H, W, 3)` of dequantised latents, which were coded at a step Δ (range 0 to 1)."""
    step = model.manifest.decoder_step(delta)
    return greyed(transform.synthesise(model, latents, step, header.width, header.height), header.grey)


def after_segments(file: File, cumulative: list[float]) -> list[float]:
    """What is there after each number of segments, 0 for none, given what is there after each unit."""
    known = [0.0, *cumulative]
    result, at = [0.0], 0
    for s in file.segments:
        at = min(at + s.units, len(known) - 1)
        result.append(known[at])
    return result
