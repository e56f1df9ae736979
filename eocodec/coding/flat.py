"""Files of models whose latents are one ordered vector, such as `face64`: with a header, or tiny.

In: pictures of the model's size, or files. Out: files, or pictures. Both forms hold the same stream.

Coding order: the blocks of the core, whose means and table indices come from integer nets that see all blocks before
(`entropy/block0`, …; exact as in `eocodec.coding.walk`), then the rest, whose tables depend on Δ alone:

    block 0 → block 1 → … → block n − 1 → for fine Δ: latents of the rest that are not surely quantised to zero
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eocodec import format
from eocodec.coding.base import Coding, SegmentedCoding, greyed, whole_file
from eocodec.coding.fineness import UNTUNED, StepTuning
from eocodec.coding.forms import FlatForm, TinyForm
from eocodec.coding.ordinary import ordinary_header
from eocodec.coding.range_coder import Reader, Writer, tables_of
from eocodec.coding.rate_control import SteppedJob
from eocodec.coding.scales import MEAN_UNIT, SCALE_PER_OCTAVE
from eocodec.coding.walk import compand
from eocodec.errors import EocodecError, FormatError, ModelError
from eocodec.format import TINY_UNIT, AnyFile, File, Segment, Tiny, tiny_step
from eocodec.image import Bytes, Picture
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.library import Library
from eocodec.model.manifest import FlatManifest
from eocodec.steps import STEP_UNIT, condition, scale_shift

__all__ = ["Flat", "FlatCoder", "FlatWalk", "Rounding", "TinyFlat", "decode", "encode", "integers", "round_latents"]

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

CONDITION_RANGE = (-80, 96)
REST_INDEX = 6  # rest latents with a smaller table index are not coded: a nonzero one in two hundred or rarer
BEYOND = 3  # finer steps tried for tiny files: worth 0.04 dB at 24 bytes (50 faces)


def _own_index(manifest: FlatManifest, code: int) -> npt.NDArray[np.int64]:
    """Table index of every latent before any context, not clipped, from the header's code of the step."""
    base = np.array(manifest.scale, np.int64) - scale_shift(code, SCALE_PER_OCTAVE)
    return (base + STEP_UNIT // 2) // STEP_UNIT


class FlatCoder(Protocol):
    """What :class:`FlatWalk` calls for every part."""

    def part(self, places: npt.NDArray[np.intp], mean: Int32, index: UInt8) -> Int32:
        """Residuals of the latents at `places` around their means (1/16 steps), given their table indices."""


class FlatWalk:
    """The order of coding; passes the residuals of each part through a coder and keeps what the nets need."""

    def __init__(self, model: Model, code: int) -> None:
        self.model = model
        manifest = model.flat
        self.edges = (0, *manifest.blocks)
        self.own = _own_index(manifest, code)
        self.highest = len(model.tables) - 1
        self.condition = condition(code, *CONDITION_RANGE)
        self.rest = code <= manifest.rest_step

    def run(self, coder: FlatCoder) -> None:
        """Ask the coder for every part."""
        seen = np.zeros((1, self.edges[-1] + 1, 1, 1), np.int8)
        seen[0, 0] = self.condition
        for k, (a, b) in enumerate(pairwise(self.edges)):
            outputs = self.model.run(f"entropy/block{k}", {"seen": seen[:, : a + 1]})
            if [o.size for o in outputs] != [b - a, b - a]:
                raise ModelError(f"the model's graph entropy/block{k} gives something else than such a graph should")
            mean, offset = outputs
            middle = mean.ravel().astype(np.int32)
            index = np.clip(self.own[a:b] + offset.ravel(), 0, self.highest).astype(np.uint8)
            m = coder.part(np.arange(a, b), middle, index)
            seen[0, a + 1 : b + 1, 0, 0] = compand(self.model, m * MEAN_UNIT + middle)
        places = self.edges[-1] + np.flatnonzero(self.own[self.edges[-1] :] >= REST_INDEX)
        if self.rest and len(places):
            index = np.minimum(self.own[places], self.highest).astype(np.uint8)
            coder.part(places, np.zeros(len(places), np.int32), index)


class Rounding:
    """Rounds latents given in steps and keeps, part by part, what is to be coded.

    Attributes:
        residuals: the integers.
        offsets: the same before rounding.
        indices: their table indices.
    """

    def __init__(self, model: Model, targets: Float32) -> None:
        self.tables, self.targets = tables_of(model), targets
        self.residuals: list[Int32] = []
        self.offsets: list[Float32] = []
        self.indices: list[UInt8] = []

    def part(self, places: npt.NDArray[np.intp], mean: Int32, index: UInt8) -> Int32:
        """Round the latents at `places` around their means (1/16 steps)."""
        residual = self.targets[places] - mean.astype(np.float32) * np.float32(1 / MEAN_UNIT)
        m = self.tables.round(residual, index)
        self.residuals.append(m)
        self.offsets.append(residual)
        self.indices.append(index)
        return m


class _Decoder:
    """Reads residuals and dequantises; latents that are not coded stay zero. Without a stream all residuals are."""

    def __init__(self, model: Model, payload: bytes | None) -> None:
        self.reader = None if payload is None else Reader(tables_of(model), payload)
        manifest = model.flat
        self.values = np.zeros(len(manifest.gain), np.float32)
        self.integers = np.zeros(len(manifest.gain), np.int32)
        self.shift = np.zeros((len(model.tables), 4), np.float32)
        self.shift[:, 1:] = np.array(manifest.shift, np.float32) / 256

    def part(self, places: npt.NDArray[np.intp], mean: Int32, index: UInt8) -> Int32:
        """Read the residuals of the latents at `places` and dequantise."""
        m = np.zeros(len(places), np.int32) if self.reader is None else self.reader.take(index)
        value = m - np.sign(m) * self.shift[index, np.minimum(np.abs(m), 3)]
        self.integers[places] = m * MEAN_UNIT + mean
        self.values[places] = value + mean.astype(np.float32) * np.float32(1 / MEAN_UNIT)
        return m


def round_latents(model: Model, code: int, latents: Float32, delta: float) -> Rounding:
    """Latents `(D,)` rounded at step code `code`, not yet coded; `delta` is that code's Δ."""
    coder = Rounding(model, latents / model.flat.steps(delta))
    FlatWalk(model, code).run(coder)
    return coder


def encode(model: Model, code: int, latents: Float32, delta: float) -> bytes:
    """The shortest range coder stream of latents `(D,)`, see `eocodec.coding.range_coder.shortest`."""
    writer = Writer(tables_of(model))
    rounded = round_latents(model, code, latents, delta)
    for m, index in zip(rounded.residuals, rounded.indices, strict=True):
        writer.put(m, index)
    return writer.shortest()


def integers(model: Model, code: int, stream: bytes | None) -> Int32:
    """Latents `(D,)` of a stream in 1/16 steps, see :func:`decode`."""
    return _read(model, code, stream).integers


def decode(model: Model, code: int, stream: bytes | None, delta: float) -> Float32:
    """Dequantised latents `(D,)` of a stream; zeros follow its end. None stands for residuals that are all zero.

    Raises:
        FormatError: the stream cannot come from an encoder.
    """
    return _read(model, code, stream).values * model.flat.steps(delta)


def _read(model: Model, code: int, stream: bytes | None) -> _Decoder:
    payload = None
    if stream is not None:
        words = stream + b"\0" * (-len(stream) % 4)
        payload = np.frombuffer(words, ">u4").astype("<u4").tobytes()
    coder = _Decoder(model, payload)
    FlatWalk(model, code).run(coder)
    return coder


class _FlatJob(SteppedJob):
    """A picture whose vector is coded anew for every step."""

    def __init__(self, coding: Coding, model: Model, picture: Picture, values: Float32 | None) -> None:
        super().__init__(coding, model, picture)
        rgb = picture.rgb if values is None else values
        try:
            self.vector = transform.analyse_vector(model, rgb)
        except EocodecError as e:
            fits = rgb.shape[:2] == (model.flat.size, model.flat.size)
            raise e if fits else EocodecError(f"{e}, as compress does with resize") from None

    @abstractmethod
    def file(self, delta: float) -> AnyFile:
        """See :meth:`SteppedJob.file`."""

    def draft(self, delta: float) -> tuple[Bytes, Callable[[], AnyFile]]:
        """See :meth:`SteppedJob.draft`: these files are coded in no time."""
        file = self.file(delta)
        return self.coding.decode(self.model, file), lambda: file

    def stream(self, code: int, delta: float) -> bytes:
        """The stream at a step."""
        return encode(self.model, code, self.vector, delta)


class FlatJob(_FlatJob):
    """Files with a header."""

    def file(self, delta: float) -> File:
        """See :meth:`SteppedJob.file`."""
        header = ordinary_header(self.model, self.picture, delta)
        segment = Segment(len(self.model.flat.blocks) + 1, self.stream(header.step, header.delta))
        return File(header, self.alpha, (segment,))

    def rate(self, file: AnyFile) -> float:
        """C of the header."""
        return whole_file(file).header.kept

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        return len(format.serialise(File(ordinary_header(self.model, self.picture, 1.0), self.alpha, ())))


class TinyJob(_FlatJob):
    """Tiny files."""

    resolution = TINY_UNIT / STEP_UNIT
    beyond = BEYOND

    def file(self, delta: float) -> Tiny:
        """See :meth:`SteppedJob.file`."""
        small = Tiny(self.model.any_manifest.tiny_number, tiny_step(delta), self.picture.grey, b"")
        return replace(small, payload=self.stream(small.step_code, small.delta))

    def rate(self, file: AnyFile) -> float:
        """C that goes with the step; the file does not hold it, and its steps are too coarse for a small C."""
        return self.model.any_manifest.rate_of(file.delta)

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        return 2


def _picture(model: Model, code: int, payload: bytes | None, delta: float, grey: bool) -> Bytes:
    latents = decode(model, code, payload, delta)
    values = transform.synthesise_vectors(model, latents[None], model.flat.decoder_step(delta))[0]
    return greyed(transform.to_levels(values), grey)


class Flat(FlatForm, SegmentedCoding):
    """Files with a header, of models for pictures of one size: a single segment holds all latents."""

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> FlatJob:
        """See :meth:`Coding.open`."""
        return FlatJob(self, model, picture, values)

    @staticmethod
    def payload(model: Model, file: AnyFile) -> tuple[File, bytes | None]:
        """The file and its stream, None if the file ends before it.

        Raises:
            FormatError: the model does not make such files.
        """
        file = whole_file(file)
        header = file.header
        units = sum(s.units for s in file.segments)
        fits = (header.width, header.height) == (model.flat.size,) * 2 and units <= len(model.flat.blocks) + 1
        special = header.embedded or header.page or header.tuning or header.deep or header.luma
        special = special or any(part is not None for part in (file.lossless, file.offsets, file.shifts))
        if not fits or special or len(file.segments) > 1:
            raise FormatError(f"the file is damaged: the model {model.name} does not make such files")
        return file, file.segments[0].payload if file.segments else None

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`."""
        file, payload = self.payload(model, file)
        return _picture(model, file.header.step, payload, file.header.delta, file.header.grey)

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """The latents in 1/16 steps."""
        file, payload = self.payload(model, file)
        return integers(model, file.header.step, payload)


class TinyFlat(TinyForm, Coding):
    """Files without a header, of models for pictures of one size that have a number."""

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> TinyJob:
        """See :meth:`Coding.open`."""
        if not model.any_manifest.tiny_number:
            raise EocodecError(f"the model {model.name} has no tiny form; face64 has")
        if picture.alpha is not None:
            raise EocodecError("a tiny file cannot hold transparency")
        return TinyJob(self, model, picture, values)

    @staticmethod
    def _tiny(file: AnyFile) -> Tiny:
        if not isinstance(file, Tiny):
            raise FormatError("not a tiny file")
        return file

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`."""
        file = self._tiny(file)
        return _picture(model, file.step_code, file.payload, file.delta, file.grey)

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """The latents in 1/16 steps."""
        file = self._tiny(file)
        return integers(model, file.step_code, file.payload)

    def describe(self, file: AnyFile, size: int, model: Model | None) -> dict[str, Any]:
        """See :meth:`Coding.describe`; without its model not even the size of the picture is known."""
        file = self._tiny(file)
        assert model is not None
        edge = model.flat.size
        return {
            "tiny": True,
            "width": edge,
            "height": edge,
            "grey": file.grey,
            "alpha": False,
            "lossless": False,
            "model": model.name,
            "model_id": model.id.hex(),
            "rate": round(model.flat.rate_of(file.delta), 3),
            "step": round(file.delta * 255, 4),
            "bytes": size,
            "bpp": round(8 * size / edge**2, 5),
            "overhead": size - len(file.payload),
            "complete": True,
            "damaged": False,
        }

    def cut(
        self,
        file: AnyFile,
        library: Library,
        *,
        rate: float | None = None,
        latents: float | None = None,
        max_bytes: int | None = None,
    ) -> AnyFile:
        """See :meth:`Coding.cut`."""
        raise EocodecError("a tiny file cannot be cut; compress the picture again to fewer bytes")
