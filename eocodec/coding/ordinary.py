"""Ordinary files: segments of quantised latents, each under the distribution that the integer nets give it.

In: latents in units of their steps (encoder) or segments (decoder). Out: segments, or dequantised latents. A latent's
value is m + μ/16 steps: μ the integer mean from the graphs, m the coded residual.
"""

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eocodec import format
from eocodec.cached import cached_property
from eocodec.coding import chroma
from eocodec.coding.base import (
    SINGLE_SEGMENT_PIXELS,
    Coded,
    Coding,
    SegmentedCoding,
    greyed,
    whole_file,
)
from eocodec.coding.fineness import UNTUNED, Fineness, StepTuning, offsets_of, pack_offsets
from eocodec.coding.forms import OrdinaryForm
from eocodec.coding.improving import PictureAtStep
from eocodec.coding.rate_control import SteppedJob
from eocodec.coding.residuals import LARGE, Decoder, Dequantiser, Encoder
from eocodec.coding.shifts import Shifts
from eocodec.coding.units import LEVEL_UNITS, Unit
from eocodec.coding.walk import Walk
from eocodec.errors import EocodecError
from eocodec.format import AnyFile, File, Header, Segment, rate_code
from eocodec.image import Bytes, Picture
from eocodec.memory import trim_memory
from eocodec.metrics import decibels, peak, squared_error, visible_samples
from eocodec.model import transform, unrefined
from eocodec.model.bundle import Model
from eocodec.model.threads import begun
from eocodec.steps import step_code

__all__ = ["Ordinary", "OrdinaryJob", "decode", "encode", "finish", "foresee"]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

CHROMA_SHARE = 0.1  # of the error that the step makes, up to which a grey picture's chroma is left out
FINEST_DEEP = -10.0  # log2 of the finest step of 16-bit files in 8-bit levels: a quarter of a 16-bit level
NEARLY_EMPTY = 0.05  # bits per pixel, below which a finer step is tried
LITTLE, LITTLE_SHARE = 16, 3  # bytes that it may cost, or one part in three; details double with half the step
SMOOTH_STEP = 12 / 255  # the finest one that is tried so
# What bits weigh more in rounding with an improver: moved latents round up more often, and this takes that back.
THRIFT = 1.2
CALM = "the noise of its colours is left out, which the eye hardly sees; tune='psnr' keeps it"


@dataclass(frozen=True)
class Content:
    """What a file holds of latents.

    Arguments:
        segments: of coding units.
        choice: of tables, in deep files.
        shifts: of tables, in others.
    """

    segments: tuple[Segment, ...]
    choice: bytes = b""
    shifts: bytes | None = None


def encode(
    model: Model, header: Header, latents: list[Float32], fineness: Fineness | None = None
) -> tuple[Segment, ...]:
    """Segments of latents `[LL (3, h, w), details L (9, h, w), …]`, padding included."""
    return finish(header, _coded(model, header, latents, fineness))


def _coded(
    model: Model, header: Header, latents: list[Float32], fineness: Fineness | None, thrift: float = 1.0
) -> Encoder:
    """A coder that has seen all latents; `thrift` as of :class:`Encoder`."""
    walk = Walk(model, header, fineness)
    coder = Encoder(model, latents, steps=walk.fineness.quads(), eye=header.tuning > 0, fine=header.fine, thrift=thrift)
    walk.run(coder)
    return coder


def finish(header: Header, coder: Encoder, moved: Shifts | None = None) -> tuple[Segment, ...]:
    """Segments of what a coder has seen, with shifts of tables if a file has them."""
    return coder.segments(header.width * header.height <= SINGLE_SEGMENT_PIXELS, moved)


def _content(header: Header, coder: Encoder) -> Content:
    """What a file holds of what a coder has seen."""
    choice, moved = coder.choice, Shifts() if header.deep else coder.shifts
    return Content(finish(header, coder, moved), b"" if choice is None else choice.pack(), moved.pack())


def foresee(
    model: Model,
    header: Header,
    latents: list[Float32],
    fineness: Fineness | None = None,
    in_place: bool = False,
    thrift: float = 1.0,
) -> tuple[Encoder, list[Float32]]:
    """What :func:`decode` will give for latents, before anything is coded; :func:`finish` codes it.

    Arguments:
        model, header: of the file.
        latents: as of the transform.
        fineness: the steps, if they differ from place to place.
        in_place: overwrite the latents, to save their memory.
        thrift: as of :class:`Encoder`.
    """
    walk = Walk(model, header, fineness)
    dequantiser = Dequantiser(model, walk, latents=latents if in_place else None)
    coder = Encoder(model, latents, dequantiser, dequantiser.steps, header.tuning > 0, header.fine, thrift)
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
    moved: bytes | None = None,
) -> list[Float32]:
    """Dequantised latents of a file's segments (a prefix of them will do), with texture where they are zero if wanted.

    `choice` is the file's deep element, `moved` are its shifts of tables.

    Raises:
        FormatError: a segment does not decode, or there are more units than the model has.
    """
    walk = Walk(model, header, fineness)
    coder = Decoder(model, segments, walk, texture, choice, moved)
    coder.dequantiser.low(walk.run(coder))
    return coder.dequantiser.latents


class _Collector(Decoder):
    """The decoder, keeping the values of the latents in 1/16 steps; zero where nothing is coded."""

    def __init__(self, model: Model, file: File, walk: Walk) -> None:
        super().__init__(model, file.segments, walk, choice=file.tables or b"", moved=file.shifts)
        sizes = [walk.grid_size(level) for level in range(self.levels, 0, -1)]
        self.values = [np.zeros((3 * walk.axes, 2 * rows, 2 * columns), np.int32) for rows, columns in sizes]

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
        super().__init__(coding, model.for_picture(picture.grey), picture)
        model = self.model
        self.tuning, self.offsets = tuning, pack_offsets(tuning.offsets)
        model.runtime.open_ahead(Walk.graph_names(model))
        self._values = values
        seen = tuning.degree and values is None and picture.depth == 8 and not picture.grey
        self.calm = chroma.calmed(picture.rgb) if seen else None
        if self.calm is None:
            self.latents = self._analysed()
        self.luma_from = _chroma(self.latents) if picture.grey and model.manifest.axes > 1 else math.inf
        self.finest = FINEST_DEEP + self._narrower if picture.depth > 8 else None
        self._last: tuple[int, tuple[Callable[[], Bytes], Callable[[], Content]]] | None = None
        self._improved: tuple[int, list[Float32]] | None = None

    def _analysed(self) -> list[Float32]:
        picture = self.picture
        return transform.analyse(self.model, picture.rgb if self._values is None else self._values, picture.span)

    @property
    def _narrower(self) -> float:
        """Octaves by which the values of the picture span less than all levels of its depth."""
        span = self.picture.span
        return 0.0 if span is None else math.log2(format.MAX_VALUE / (span[1] - span[0]))

    def first_for_quality(self, target: float) -> float:
        """See :meth:`SteppedJob.first_for_quality`; steps count in the span of the picture's values, PSNR does not."""
        return super().first_for_quality(target - 20 * math.log10(2) * self._narrower)

    @cached_property
    def latents(self) -> list[Float32]:
        """Latents of the picture; found again where the memory of the first has been used for something else."""
        return self._analysed()

    @property
    def _thrift(self) -> float:
        """What bits weigh more in rounding than usual."""
        return THRIFT if self.tuning.improver is not None and self.picture.depth == 8 else 1.0

    @cached_property
    def calm_latents(self) -> list[Float32]:
        """Latents of the picture without the noise of its colours, found again as :attr:`latents` are."""
        assert self.calm is not None
        return transform.analyse(self.model, self.calm.rgb)

    def latents_at(self, delta: float) -> list[Float32]:
        """Latents of the picture as it is to be seen at step Δ (range 0 to 1), see `eocodec.coding.chroma`."""
        share = 1.0 if self.calm is None else self.calm.share_kept(delta)
        if share == 1.0:
            return self.latents
        if share == 0.0:
            return self.calm_latents
        return [a + np.float32(share) * (b - a) for a, b in zip(self.calm_latents, self.latents, strict=True)]

    def notes(self, file: AnyFile) -> tuple[str, ...]:
        """See :meth:`Job.notes`."""
        tuned = isinstance(file, File) and file.header.tuning > 0
        return (CALM,) if self.calm is not None and tuned and self.calm.share_kept(file.delta) < 1 else ()

    def _targets(self, header: Header, fineness: Fineness) -> list[Float32]:
        """What is to be coded at a step: the latents of the picture, or better ones if there is an improver.

        None are sought for 16 bits a sample, at whose fine steps latents hardly have errors to share.
        """
        improver, places = self.tuning.improver, fineness.places()
        latents = self.latents_at(header.delta)
        if improver is None or header.deep:
            return latents
        if self._improved is None or self._improved[0] != header.step:

            def decoded(latents: list[Float32]) -> list[Float32]:
                return foresee(self.model, header, latents, fineness, thrift=self._thrift)[1]

            refined = _is_refined(self.model, header, places)
            values = self._values
            if self.calm is not None and self.calm.share_kept(header.delta) < 1:
                values = self.calm.rgb.astype(np.float32) / np.float32(255)
            wanted = PictureAtStep(self.model, self.picture, values, header, places, refined)
            self._improved = header.step, improver(wanted, latents, decoded)
        return self._improved[1]

    def _plan(self, delta: float) -> tuple[Header, Fineness]:
        """The header, and the steps."""
        header = self.header(delta)
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
        latents = self._targets(header, fineness)
        for name in ("latents", "calm_latents"):
            if vars(self).get(name) is latents:
                delattr(self, name)
                vars(self).pop("_instead", None)  # has them, too
        self._improved = None
        coder, latents = foresee(self.model, header, latents, fineness, in_place=True, thrift=self._thrift)
        if self.picture.pixels > LARGE:
            content = _content(header, coder)
            del coder
            trim_memory()
            quality = self._quality(header, latents, fineness)
        else:  # symbols are coded while the picture is made, since neither keeps all cores busy
            coded = begun(functools.partial(_content, header, coder), self.model.runtime.share)
            quality = self._quality(header, latents, fineness)
            content = coded()
        file = self._file(header, content)
        self._measured = file, quality
        return Coded(file, self.rate(file))

    def _quality(self, header: Header, latents: list[Float32], fineness: Fineness) -> float:
        """PSNR in dB, as of :meth:`Job.quality`, of the picture that latents make; in little memory."""
        rgb, alpha, error = self.picture.rgb, self.picture.alpha, 0.0
        for rows, columns, piece in pieces_of(self.model, header, latents, header.delta, fineness.places()):
            error += squared_error(rgb[rows, columns], piece, None if alpha is None else alpha[rows, columns])
        return decibels(error, visible_samples(rgb, alpha), peak(rgb))

    def header(self, delta: float) -> Header:
        """The header of the file at a step (range 0 to 1)."""
        header = ordinary_header(self.model, self.picture, delta, self.tuning.degree)
        dropped, deep = header.axes > 1 and header.delta >= self.luma_from, self.picture.depth > 8
        span = (0, format.MAX_VALUE) if deep and header.axes == 1 else None
        return replace(header, dropped=dropped, deep=deep, span=self.picture.span or span)

    def file(self, delta: float) -> File:
        """See :meth:`SteppedJob.file`."""
        if self.remembers:
            return self._foreseen(delta)[1]()
        header, fineness = self._plan(delta)
        coder = _coded(self.model, header, self._targets(header, fineness), fineness, self._thrift)
        return self._file(header, _content(header, coder))

    def fitting(self, limit: int) -> Coded:
        """See :meth:`Job.fitting`; where it was left open what files are tuned for, what fits decides."""
        try:
            return super().fitting(limit)
        except EocodecError:
            if self.tuning.instead is None:
                raise
        return self._instead.fitting(limit)

    @cached_property
    def _instead(self) -> "OrdinaryJob":
        """The job with what files may be tuned for instead, of the same latents."""
        assert self.tuning.instead is not None
        job = copy.copy(self)
        job.tuning, job.offsets = self.tuning.instead, pack_offsets(self.tuning.instead.offsets)
        job.calm = job.calm if job.tuning.degree else None
        job._last = job._measured = job._improved = None
        return job

    def expected(self, file: AnyFile) -> Bytes:
        """See :meth:`Job.expected`."""
        other = self.tuning.instead is not None and whole_file(file).header.tuning != self.tuning.degree
        return self._instead.expected(file) if other else super().expected(file)

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
            coder, latents = foresee(self.model, header, self._targets(header, fineness), fineness, thrift=self._thrift)
            rgb = functools.cache(lambda: picture_of(self.model, header, latents, header.delta, fineness.places()))
            coded = functools.cache(lambda: _content(header, coder))
            if self.remembers:
                self._last = header.step, (rgb, coded)
        return rgb, lambda: self._file(header, coded())

    def _file(self, header: Header, coded: Content) -> File:
        tables = coded.choice if header.deep else None
        return File(header, self.alpha, coded.segments, offsets=self.offsets, tables=tables, shifts=coded.shifts)

    def rate(self, file: AnyFile) -> float:
        """C of the header."""
        return whole_file(file).header.kept

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        header = self.header(1.0)
        return len(format.serialise(self._file(header, Content(()))))


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
        model = model.of_axes(header.axes)
        fineness, graphs = fineness_of(model, file), Walk.graph_names(model)
        graphs.append(_synthesis(model, header, fineness.places()))
        model.runtime.open_ahead(reversed(graphs))  # this thread begins at the other end
        latents = decode(model, header, file.segments, fineness, texture, file.tables or b"", file.shifts)
        return picture_of(model, header, latents, header.delta, fineness.places())

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """The low-pass integers and every detail latent in 1/16 steps, bands one after another."""
        file = whole_file(file)
        model = model.of_axes(file.header.axes)
        walk = Walk(model, file.header, fineness_of(model, file))
        coder = _Collector(model, file, walk)
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
    header = Header(model.id, width, height, rate, step_code(delta), grey=picture.grey, tuning=tuning)
    return replace(header, axes=model.axes)


def pieces_of(
    model: Model, header: Header, latents: list[Float32], delta: float, places: transform.Places = transform.ANYWHERE
) -> Iterator[tuple[slice, slice, Bytes]]:
    """The picture of dequantised latents, which were coded at a step Δ (range 0 to 1), in tiles: rows, columns, rgb."""
    step, refined = model.manifest.decoder_step(delta), _is_refined(model, header, places)
    size = header.width, header.height
    for rows, columns, values in transform.synthesise_tiles(model, latents, step, *size, places, refined):
        piece = transform.interleaved(values, header.depth, header.span)
        yield rows, columns, greyed(piece, header.grey and len(values) > 1)


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
    planes = [plane for band in latents[1:] for plane in band[3:]]  # one at a time, for the sake of memory
    energy = sum(float(np.square(plane, dtype=np.float64).sum()) for plane in planes)
    return math.sqrt(12 * energy / (CHROMA_SHARE * sum(band[:3].size for band in latents[1:])))
