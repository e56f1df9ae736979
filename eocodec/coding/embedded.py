"""Embedded streams: latents coded by successive refinement, so that every prefix of it decodes to a picture.

In: latents (encoder) or a prefix of a stream. Out: the stream with the places where it may be cut, or latents. Users
know such files as progressive.

A latent y (levels, in units of the picture: h / exp(gain)) is known as a cell. In layer k the dead zone is |y| < Z_k =
4096 / 2^k. Each layer has two passes; what they code is ordered from coarse to fine bands:

    significance (S_k): latents in the dead zone of Z_{k-1}: still |y| < Z_k? If not, the sign; the cell is [Z_k, 2 Z_k)
                        two stages: the likely ones first, which bring most for their bits, then the others
    refinement   (R_k): latents with a cell of width 2 Z_k: which half of it? The low-pass: the same, without dead zone

    low-pass at step 128 │ S_0 R_0 │ S_1 R_1 │ … │ S_13 R_13

The walk (`eocodec.coding.walk`) gives each S pass the means and table indices of its latents, given all that is known
so far; these and the number of significant neighbours select the probability of every binary decision from tables of
the bundle. A decoder stops before the first group of decisions whose information exceeds what is there, see
`eocodec.coding.embedded_coder.Meter`.

References:
    Taubman & Marcellin, *JPEG2000*, chapter 8 (embedded quantisation, order of passes).
    Lu et al., *Progressive neural image compression with nested quantization and latent ordering*, 2021.
    https://arxiv.org/abs/2102.02913
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec import format, varint
from eocodec.coding.base import Coded, Coding, Job, described, whole_file
from eocodec.coding.embedded_coder import DecisionReader, DecisionWriter, Mark, Stream
from eocodec.coding.embedded_state import LAYERS, LOW_STEP, TOP, State
from eocodec.coding.embedded_tables import TABLES_FILE, Probabilities
from eocodec.coding.fineness import UNTUNED, StepTuning
from eocodec.coding.forms import EmbeddedForm
from eocodec.coding.ordinary import picture_of
from eocodec.coding.range_coder import Reader, Writer, tables_of
from eocodec.coding.rate_control import QUALITY_WIDTH, TRIES, expected_step, match_quality
from eocodec.errors import EocodecError, FormatError, counted
from eocodec.format import AnyFile, File, Header, Segment
from eocodec.image import Bytes, Picture
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.library import Library
from eocodec.model.manifest import Manifest, PhotoManifest

__all__ = [
    "LAYERS",
    "LOW_STEP",
    "MIDDLE",
    "ONE_COLOUR",
    "Embedded",
    "EmbeddedJob",
    "LowPrefixReader",
    "LowReader",
    "LowWriter",
    "Mark",
    "Probabilities",
    "State",
    "Stream",
    "cells",
    "decode",
    "delta_of_depth",
    "depth_of_delta",
    "encode",
    "synthesis_step",
    "zone_of_depth",
]

STEP_RATIO = 1.12  # Δ over Z at equal quality at the end of a layer
# Depth within a layer, and the share of the layer's gain in quality that it has brought (about, on samples).
WITHIN = ((0.0, 0.3, 0.7, 1.0), (0.0, 0.65, 0.9, 1.0))
REFINEMENT_RATIO = 1.0  # Δ over Z that suits the refinement best
COARSEST_SYNTHESIS = 256 / 255  # Δ beyond which the refinement has learned nothing and spoils the picture
LOOK_AHEAD = 16  # bytes; the range decoder sees two words of 32 bits beyond what a symbol depends on
ONE_COLOUR = -0.5  # depth where the low-pass is known in one place only
MIDDLE = 128  # 8-bit level of a picture of which nothing is known
DEEPER = 1.5  # layers that are added to a stream that does not reach its target yet

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]


def zone_of_depth(depth: float) -> float:
    """The dead zone Z (range 0 to 1) at a depth: Z_k after R_k, that is at depth k + 1."""
    return float(TOP * 2.0 ** (1 - max(depth, 0.0)) / 255)


def synthesis_step(depth: float) -> float:
    """The step Δ (range 0 to 1) whose refinement suits a stream of this depth best."""
    return min(REFINEMENT_RATIO * zone_of_depth(depth), COARSEST_SYNTHESIS)


def delta_of_depth(depth: float) -> float:
    """The step Δ (range 0 to 1) whose file is about as good as a stream of this depth."""
    whole = math.floor(max(depth, 0.0))
    return STEP_RATIO * zone_of_depth(whole + float(np.interp(max(depth, 0.0) - whole, *WITHIN)))


def depth_of_delta(delta: float) -> float:
    """Inverse of :func:`delta_of_depth`."""
    quality = max(0.0, 1 + math.log2(STEP_RATIO * TOP / (255 * delta)))
    whole = math.floor(quality)
    return whole + float(np.interp(quality - whole, *WITHIN[::-1]))


class LowWriter:
    """The coder of the low-pass at its first step."""

    def __init__(self, model: Model, targets: Float32) -> None:
        self.writer, self.targets = Writer(tables_of(model)), targets

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Round the low-pass and write what the prediction misses."""
        value = np.floor(self.targets[place[0]][place[1:]] + np.float32(0.5)).astype(np.int32)
        self.writer.put((value - predicted).ravel(), index.ravel())
        return value


class LowReader:
    """The decoder's counterpart of :class:`LowWriter`."""

    def __init__(self, model: Model, payload: bytes) -> None:
        self.reader = Reader(tables_of(model), payload)

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Prediction plus the residuals read."""
        return predicted + self.reader.take(index.ravel()).reshape(predicted.shape)


class LowPrefixReader:
    """The reader of a low-pass that was cut off: takes what is certain, and after it what is predicted.

    A strip is certain if it comes out alike however the stream goes on. All continuations lie between zeros and ones,
    and the range decoder is monotone, so it suffices to read both.

    Arguments:
        model: the bundle.
        payload: the first bytes of the low-pass.
        missing: how many are not there.
    """

    def __init__(self, model: Model, payload: bytes, missing: int) -> None:
        tables = tables_of(model)
        ahead = min(missing, LOOK_AHEAD)
        self.readers = [Reader(tables, payload + fill * ahead) for fill in (b"\0", b"\xff")]
        self.certain = 0  # strips

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Prediction plus the residuals read, while they are certain."""
        if self.readers:
            try:
                first, second = (reader.take(index.ravel()) for reader in self.readers)
            except FormatError:  # what no encoder writes, or a guess at the end
                self.readers = []
            else:
                if (first == second).all():
                    self.certain += 1
                    return predicted + first.reshape(predicted.shape)
                self.readers = []
        return predicted


def encode(
    model: Model, latents: list[Float32], width: int, height: int, depth: float = LAYERS, size: float = math.inf
) -> Stream:
    """The embedded stream of latents `[LL (3, h, w), details L (9, h, w), …]`, range 0 to 1, padding included.

    Arguments:
        model: whose bundle has tables for it.
        latents: of the transform.
        width, height: of the picture in pixels.
        depth, size: how far to go, and how many bytes; the stream ends soon after either.
    """
    state = State(model, width, height, latents)
    assert state.low_truth is not None
    low = LowWriter(model, state.low_truth / np.float32(LOW_STEP))
    state.start_low(state.walk(LOW_STEP).low_pass(low))
    head = low.writer.payload()
    prefix = varint.write(len(head)) + head
    writer = DecisionWriter(depth, size - len(prefix))
    state.run(writer)
    marks = [Mark(len(prefix) + m.end, m.depth) for m in writer.marks]
    return Stream(prefix + writer.payload(), (Mark(len(prefix), 0.0), *marks))


def decode(model: Model, width: int, height: int, payload: bytes) -> tuple[list[Float32], float]:
    """Latents (range 0 to 1) and depth of a stream or of a prefix of one.

    The depth is −1 if nothing could be decoded, :data:`ONE_COLOUR` if the low-pass in a single place.

    Raises:
        FormatError: the stream cannot come from an encoder.
    """
    state, stream = _decode(model, width, height, payload)
    return state.latents(), stream.marks[-1].depth if stream.marks else -1.0


def cells(model: Model, width: int, height: int, payload: bytes) -> list[Int32]:
    """What a stream says of the latents, in integers: the low-pass in 1/16 levels, then of every detail band the signs
    times (2 lower + width), half levels; zero for latents without sign.

    Raises:
        FormatError: the stream cannot come from an encoder.
    """
    state, _ = _decode(model, width, height, payload)
    return [state.low, *(b.sign * (2 * b.lower.astype(np.int32) + b.width) for b in state.bands[1:])]


def _decode(model: Model, width: int, height: int, payload: bytes) -> tuple[State, Stream]:
    """What is known after a stream, and the places where it could have been cut."""
    state = State(model, width, height, None)
    try:
        size, start = format.read_number(payload)
    except varint.Truncated:
        return state, Stream(payload, ())
    start += size
    if len(payload) < start:
        part = LowPrefixReader(model, payload[start - size :], start - len(payload))
        q = state.walk(LOW_STEP).low_pass(part)
        if part.certain < len(q):  # the corner in all colours
            return state, Stream(payload, ())
        state.start_low(q)
        return state, Stream(payload, (Mark(len(payload), ONE_COLOUR if part.certain < 2 * len(q) else 0.0),))
    low = LowReader(model, payload[start - size : start])
    state.start_low(state.walk(LOW_STEP).low_pass(low))
    reader = DecisionReader(payload[start:])
    state.run(reader)
    return state, Stream(payload, (Mark(start, 0.0), *(Mark(start + m.end, m.depth) for m in reader.marks)))


def _reach(manifest: Manifest, marks: Sequence[Mark]) -> str:
    """Up to which C a stream with these marks goes, rounded down so that a cut at the C that is said succeeds."""
    shown = _rate_within(manifest, marks[-1].depth) if marks else 0.0
    return f"goes up to rate {shown:g}" if shown >= 1 else "ends before the smallest rate"


def _rate_within(manifest: Manifest, depth: float) -> float:
    """C of a stream of some depth in hundredths, no more than can be cut from it."""
    shown = math.floor(100 * manifest.rate_of(delta_of_depth(depth))) / 100
    beyond = shown > 1 and depth_of_delta(manifest.step_of(shown)) > depth
    return round(shown - 0.01, 2) if beyond else shown


class EmbeddedJob(Job):
    """A picture whose files are cuts of one embedded stream."""

    def __init__(self, coding: "Embedded", model: Model, picture: Picture, values: Float32 | None) -> None:
        super().__init__(coding, model, picture)
        self.latents = transform.analyse(model, picture.rgb if values is None else values)
        header = Header(model.id, self.width, self.height, 0, 0, grey=picture.grey, embedded=True)
        self.empty = File(header, self.alpha, ())
        self.stream = Stream(b"", ())
        self.unseen = picture.alpha is not None and not picture.alpha.any()

    def _shortest(self) -> Coded:
        """The shortest cut that shows anything: the low-pass in a single place."""
        stream = self._upto(0.0)
        return self._coded(self._cut(stream.payload[: stream.marks[0].end]))

    def _upto(self, depth: float) -> Stream:
        reached = self.stream.marks[-1].depth if self.stream.marks else -1.0
        if reached <= depth and reached < LAYERS:
            self.stream = encode(self.model, self.latents, self.width, self.height, depth)
        return self.stream

    def _cut(self, payload: bytes) -> File:
        """The file of a prefix of the stream."""
        return replace(self.empty, segments=(Segment(1, payload),))

    def _coded(self, file: File, tries: int = 1) -> Coded:
        """A cut with the C of the usual file that is about as good."""
        length = len(file.payload)
        depth = max((m.depth for m in self.stream.marks if m.end <= length), default=0.0)
        return Coded(file, self.model.any_manifest.rate_of(delta_of_depth(depth)), tries)

    def at(self, delta: float) -> Coded:
        """The cut that belongs to step Δ."""
        if self.unseen:
            return self._shortest()
        depth = min(depth_of_delta(delta), float(LAYERS))
        stream = self._upto(depth)
        end = next((m.end for m in stream.marks if m.depth >= depth), stream.marks[-1].end)
        return self._coded(self._cut(stream.payload[:end]))

    def fitting(self, limit: int) -> Coded:
        """The cut of at most `limit` bytes that has most of the stream."""
        room = format.embedded_room(self.empty, limit)
        if room < 1:
            smallest = format.embedded_size(self.empty, 1)
            most = counted(limit, "byte")
            raise EocodecError(f"the picture cannot be compressed to {most}; its smallest file has {smallest}")
        self.stream = encode(self.model, self.latents, self.width, self.height, size=room)
        return self._coded(self._cut(self.stream.payload[:room]))

    def reaching(self, target: float) -> Coded:
        """The shortest cut, nearly, whose picture has `target` dB.

        It ends where a group of decisions does: bytes behind that show nothing. What one group brings may be more than
        the search is content with, most of all in small pictures; then earlier ends are tried one by one, as a search
        among jumps finds one that will do and not the first. Where no pixel is visible, that is the shortest.
        """
        if self.unseen:
            return self._shortest()
        depth, tries = depth_of_delta(2.0 ** expected_step(target) / 255) + 1, 1
        depth = min(depth, float(LAYERS))
        while self.quality(self._cut(self._upto(depth).payload)) < target and depth < LAYERS:
            depth, tries = min(depth + DEEPER, float(LAYERS)), tries + 1
        ends = [m.end for m in self.stream.marks]

        def attempt(x: float) -> tuple[float, File]:
            end = ends[max(bisect.bisect_right(ends, round(2.0**-x)) - 1, 0)]
            file = self._cut(self.stream.payload[:end])
            return self.quality(file), file

        bounds = -math.log2(ends[-1]), -math.log2(ends[0])
        start = max(-math.log2(next(m.end for m in self.stream.marks if m.depth >= depth - 1)), bounds[0])
        found = match_quality(attempt, target, bounds, start, 1 / 1024)
        file, tries = found.result, tries + found.tries
        above = self.quality(file) - target
        for end in ends[: bisect.bisect_left(ends, len(file.payload))][: -TRIES - 1 : -1]:
            if above <= QUALITY_WIDTH:
                break
            shorter, tries = self._cut(self.stream.payload[:end]), tries + 1
            above = self.quality(shorter) - target
            if above < 0:
                break
            file = shorter
        return self._coded(file, tries)

    def expected(self, file: AnyFile) -> Bytes:
        """What the decoder makes of the stream, before it is serialised."""
        return self.coding.decode(self.model, file)


class Embedded(EmbeddedForm, Coding):
    """Files of one stream that may end anywhere, of models for pictures of any size."""

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> EmbeddedJob:
        """See :meth:`Coding.open`."""
        if not isinstance(model.any_manifest, PhotoManifest):
            raise EocodecError(f"the model {model.name} has no embedded stream; photo has")
        return EmbeddedJob(self, model, picture, values)

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`."""
        file = whole_file(file)
        header = file.header
        latents, depth = decode(model, header.width, header.height, file.payload)
        if depth < ONE_COLOUR:
            return np.full((header.height, header.width, 3), MIDDLE, np.uint8)
        rgb = picture_of(model, header, latents, synthesis_step(depth))
        if depth < 0:  # the other places are as likely lighter as darker than that one, but nearer to the middle
            rgb[...] = (rgb.astype(np.int32) + MIDDLE) >> 1
        return rgb

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """See :func:`cells`."""
        file = whole_file(file)
        bands = cells(model, file.header.width, file.header.height, file.payload)
        return np.concatenate([b.ravel() for b in bands])

    def rate(self, model: Model, file: File) -> float:
        """C of the usual file that is about as good as what a file holds."""
        return model.any_manifest.rate_of(delta_of_depth(self._depth(model, file)))

    def _depth(self, model: Model, file: File) -> float:
        """How far the stream of a file goes."""
        return decode(model, file.header.width, file.header.height, file.payload)[1]

    def describe(self, file: AnyFile, size: int, model: Model | None) -> dict[str, Any]:
        """See :meth:`Coding.describe`."""
        file = whole_file(file)
        rate = None
        if model is not None and TABLES_FILE in model.files:
            rate = _rate_within(model.any_manifest, self._depth(model, file))
        return {
            **described(file, size, model),
            "progressive": True,
            "rate": rate,
            "overhead": size - file.trailing - len(file.payload),
            "segments": [],
        }

    def marks(self, model: Model, file: AnyFile) -> tuple[Mark, ...]:
        """Where the stream of a file may be cut, which takes decoding it.

        Raises:
            FormatError: the stream cannot come from an encoder.
        """
        file = whole_file(file)
        return _decode(model, file.header.width, file.header.height, file.payload)[1].marks

    def cut_at_mark(self, manifest: Manifest, file: AnyFile, marks: Iterable[Mark], rate: float) -> File:
        """As :meth:`cut` at C, given the marks of the stream, without decoding anything.

        Raises:
            EocodecError: the rate is out of range, or the stream does not go as far.
        """
        file = whole_file(file)
        depth = min(depth_of_delta(manifest.step_of(rate)), float(LAYERS))
        present = [m for m in marks if m.end <= len(file.payload)]
        end = next((m.end for m in present if m.depth >= depth), None)
        if end is None:
            raise EocodecError(
                f"what compress gives at rate {rate:g} cannot be cut from a progressive file that "
                f"{_reach(manifest, present)}; compress the picture again"
            )
        return replace(file, segments=(Segment(1, file.payload[:end]),))

    def cut(
        self,
        file: AnyFile,
        library: Library,
        *,
        rate: float | None = None,
        latents: float | None = None,
        max_bytes: int | None = None,
    ) -> File:
        """What fits, to the byte; or the stream as far as C goes, which takes its model to find.

        Raises:
            EocodecError: latents are given, no cut is as small, the rate is out of range, or the stream ends before it.
        """
        file = whole_file(file)
        payload = file.payload
        if latents is not None:
            raise EocodecError("a progressive file is cut with rate or bytes, not latents")
        if max_bytes is None:
            assert rate is not None
            model = library.of_id(file.header.model)
            return self.cut_at_mark(model.any_manifest, file, self.marks(model, file), rate)
        length = format.embedded_room(file, max_bytes)
        if length < 1:
            smallest = format.embedded_size(file, 1)
            most = counted(max_bytes, "byte")
            raise EocodecError(f"the file cannot be cut to {most}; its smallest form has {smallest}")
        segments = (Segment(1, payload[:length]),) if payload else ()
        return replace(file, segments=segments)
