"""Lossless files of 8-bit pictures: a lazy wavelet flow on integers, its conditional layer an integer net.

In: `rgb (H, W, 3)` uint8. Out: segments and the parameters of the file's lossless element, and back, bit by bit.

The flow is a reversible colour lifting and a split into lattices (`eocodec.coding.lattice`): volume preserving and
exact. Everything else is the conditional layer: an integer net predicts mean and scale of every sample from those
before it, a linear part of it can be tuned to the picture, and the range coder codes what the mean misses.
docs/FORMAT.md, "Lossless files", gives every integer; docs/METHOD.md says why it is not the photo flow rounded.

References:
    Cao, Wu & Krähenbühl, *Lossless image compression through super-resolution*, 2020. https://arxiv.org/abs/2004.02872
    Ballé et al., *Integer networks for data compression with latent-variable models*, ICLR 2019.
    https://openreview.net/forum?id=S1zz2i0cY7
"""

import functools
import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from eocodec import format
from eocodec.coding import frames, lossless_deep, webp
from eocodec.coding.base import (
    SEGMENT_MINIMUM,
    SEGMENT_TARGET,
    SINGLE_SEGMENT_PIXELS,
    Coded,
    Job,
    SegmentedCoding,
    whole_file,
)
from eocodec.coding.fineness import UNTUNED, StepTuning
from eocodec.coding.forms import LosslessForm, cumulative_samples
from eocodec.coding.lattice import AXES, HIGHEST, LOWEST, Lattice, context_channels, from_planes, to_planes
from eocodec.coding.lossless_survey import FIRST_FITTED, Survey
from eocodec.coding.lossless_tables import CLASSES, TABLES, LosslessTables, table_of, tables_of
from eocodec.coding.lossless_walk import SETS, Strip, Tuning, predict, residual_code, walk
from eocodec.coding.lossless_weights import LIMIT, SAMPLES, Places, Weights, fit, put, take
from eocodec.coding.range_coder import Reader, Writer
from eocodec.coding.scales import SCALES
from eocodec.errors import EocodecError, FormatError
from eocodec.format import LOSSLESS_UNITS, AnyFile, File, Header, Segment, rate_code
from eocodec.image import Bytes, Picture, is_grey
from eocodec.model.bundle import Model

__all__ = ["UNITS", "Lossless", "Parameters", "cumulative_samples", "decode", "encode"]

Int16 = npt.NDArray[np.int16]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

START = (128, 0, 0)  # what the first sample of every axis is predicted as
WEIGHTED = 4  # with whether there are chroma axes: values have weights
PACKED = 2  # instead of whether there are chroma axes: the samples are packed, grey; one more: in colour
ORDERS = 3  # of differences before packing by zstd
WEBP = 3  # instead of an order: a WebP stream
HOPE = 1.4  # a thorough search may save as much against a fast one
WORTH = 16  # bytes that WebP has to save against zstd
UNREADABLE = "its packed samples cannot be read"
SURE = 3 * 64 * 64  # samples, fewer do not tell
EVIDENT = 1.0  # bits per pixel in WebP, found in a fast way, below which the nets of photographs have no chance
UNITS = LOSSLESS_UNITS  # lattices down to stride 16 are unit 0; then nine for each of h = 8, 4, 2, 1
CORRECTION_LIMIT = 8  # corrections of the scale index lie in −8 … 7
TOP_INDEX = SCALES - 1
PARAMETERS = 13  # bytes before the tunings: CRC-32, colour, nine corrections, which units are tuned
COUNTED = 64  # residuals up to here are told apart when choices are priced


@dataclass(frozen=True)
class _Residuals:
    """Residuals of a strip as they are coded.

    Arguments:
        m: the residuals, `(n,)`.
        key: 4 · index + class of the fraction, which their tables depend on.
        group: whose correction of the index applies; −1 for none.
        turned, strip: where the sign is turned, and what strip it is; only for units that may be weighted.
    """

    m: Int16
    key: UInt8
    group: int
    turned: npt.NDArray[np.bool_] | None = None
    strip: Strip | None = None


class _Encoder:
    """The encoder's second walk, which needs no nets: keeps residuals with what their tables depend on."""

    def __init__(self, planes: Int16, survey: Survey, tables: LosslessTables) -> None:
        self.planes, self.tunings = planes, survey.tunings()
        self.said = iter(survey.said)
        self.tables, self.bits = tables, tables.bits(COUNTED)
        self.symbols: list[list[_Residuals]] = [[] for _ in range(UNITS)]
        self.tuned: dict[int, list[_Residuals]] = {unit: [] for unit in self.tunings}

    def again(self, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
        """What the nets said of a strip."""
        mean, index = next(self.said)
        s = Strip(half, len(lattice.before), phase, rows, np.empty((0, 0, 0), np.int16), mean, index)
        return replace(s, context=lattice.context(phase, rows)[1]) if s.unit in self.tunings else s

    def corner(self, axis: int) -> int:
        """The first sample; its table is the widest."""
        value = int(self.planes[axis, 0, 0])
        m, key = np.array([value - START[axis]], np.int16), np.array([CLASSES * TOP_INDEX], np.uint8)
        self.symbols[0].append(_Residuals(m, key, -1))
        return value

    def strip(self, s: Strip) -> Int16:
        """Record a strip, with and without tuning."""
        values = s.of(self.planes[s.axis])
        self.symbols[s.unit].append(self._symbols(s, values, None))
        if s.unit in self.tunings:
            self.tuned[s.unit].append(self._symbols(s, values, self.tunings[s.unit]))
        return values - s.predicted

    @staticmethod
    def _symbols(s: Strip, values: Int16, tuning: Tuning | None) -> "_Residuals":
        predicted, turned, fraction = residual_code(s, tuning)
        residual = values - predicted
        m, key = np.where(turned, -residual, residual).ravel(), (CLASSES * s.index + fraction).ravel()
        if s.unit < FIRST_FITTED:
            return _Residuals(m, key, s.group)
        nothing = np.empty((0, 0), np.int16)  # slices would keep all of it
        where = replace(s, context=nothing, mean=nothing, index=nothing.astype(np.uint8), finished=())
        return _Residuals(m, key, s.group, turned.ravel(), where)

    def choose(self) -> None:
        """Keep a unit's tuning if it saves more than it takes."""
        bits = self.bits.ravel()
        for unit, tuned in self.tuned.items():
            cost = [float((bits * _histogram(x, len(bits))).sum()) for x in (self.symbols[unit], tuned)]
            if cost[1] + 8 * len(self.tunings[unit]) < cost[0]:
                self.symbols[unit] = tuned
            else:
                del self.tunings[unit]
        self.tuned = {}

    def corrections(self) -> tuple[list[int], list[float]]:
        """The correction of the scale index that makes every group smallest, and the bytes each unit then takes."""
        bits = self.bits.reshape(TOP_INDEX + 1, -1)
        units: list[tuple[int, npt.NDArray[np.int64]]] = []
        counts = np.zeros((3 * SETS, *bits.shape), np.int64)
        for unit, strips in enumerate(self.symbols):
            for group in sorted({r.group for r in strips if r.group >= 0}):
                found = _histogram([r for r in strips if r.group == group], bits.size).reshape(bits.shape)
                units.append((unit, found))
                counts[group] += found
        levels = np.arange(TOP_INDEX + 1)

        def price(found: npt.NDArray[np.int64], correction: int) -> float:
            return float((found * bits[np.clip(levels + correction, 0, TOP_INDEX)]).sum())

        choices = range(-CORRECTION_LIMIT, CORRECTION_LIMIT)
        best = [min(choices, key=lambda c: (price(found, c), abs(c))) for found in counts]
        sizes = [0.0] * UNITS
        for unit, found in units:
            sizes[unit] += price(found, 0) / 8
        return best, sizes

    def places(self, r: "_Residuals", table: UInt8, chosen: Any) -> tuple[Places, npt.NDArray[Any]]:
        """Some samples of a strip of a unit that may be weighted, and their values."""
        assert r.strip is not None and r.turned is not None
        *finished, values = (r.strip.of(p).ravel()[chosen] for p in self.planes[: r.strip.axis + 1])
        m, turned = r.m[chosen], r.turned[chosen]
        predicted = values - np.where(turned, -m, m)
        return Places(r.strip.axis, table[chosen].astype(np.intp), turned, predicted, finished), values

    def weights(self, corrections: list[int]) -> Weights | None:
        """Weights of the values, found from a part of the samples that would take them; None if they do not pay."""
        generator = np.random.Generator(np.random.PCG64(0))
        found = []
        for axis in range(len(self.planes)):
            units = [u for u in range(FIRST_FITTED, UNITS) if (u - 1) % 9 // 3 == axis]
            strips = [r for unit in units for r in self.symbols[unit]]
            count = sum(len(r.m) for r in strips)
            if not count:
                continue
            share = min(1.0, SAMPLES / count)
            parts = []
            for r in strips:  # at random, for a stride would meet the same columns of blocks of pixels again and again
                table = _table(r.key >> 2, r.key & 3, corrections[r.group])
                chosen = np.flatnonzero((table < LIMIT) & (generator.random(len(table)) < share))
                parts.append(self.places(r, table, chosen))
            places, values = zip(*parts, strict=True)
            found.append((Places.joined(places), np.concatenate(values), 1 / share))
        return fit(self.tables, found)

    def write(self, writer: Writer, r: "_Residuals", corrections: list[int], weights: Weights | None) -> None:
        """Append a strip's residuals."""
        table = _table(r.key >> 2, r.key & 3, corrections[r.group] if r.group >= 0 else 0)
        plain: Any = slice(None)
        if weights is not None and r.strip is not None and r.strip.axis in weights.axes:
            plain = table >= LIMIT
            put(writer, self.tables, weights, *self.places(r, table, np.flatnonzero(~plain)))
        writer.put(r.m[plain].astype(np.int32), table[plain])


def _histogram(strips: "list[_Residuals]", size: int) -> npt.NDArray[np.int64]:
    """How often each key and residual come, residuals limited to :data:`COUNTED`."""
    result = np.zeros(size, np.int64)
    for r in strips:
        place = r.key.astype(np.intp) * (2 * COUNTED + 1) + (np.clip(r.m, -COUNTED, COUNTED) + COUNTED)
        result += np.bincount(place, minlength=size)
    return result


class _Decoder:
    """Reads residuals from segments; what comes after the last one is zero."""

    def __init__(self, tables: LosslessTables, segments: tuple[Segment, ...], parameters: "Parameters") -> None:
        self.tables, self.parameters = tables, parameters
        self.waiting = list(segments)
        self.end = 0
        self.reader: Reader | None = None

    def _open(self, unit: int) -> Reader | None:
        """The stream that holds a unit."""
        while unit >= self.end:
            if not self.waiting:
                return None
            segment = self.waiting.pop(0)
            self.end += segment.units
            self.reader = Reader(self.tables, segment.payload)
        return self.reader

    def corner(self, axis: int) -> int:
        """The first sample."""
        reader = self._open(0)
        value = START[axis] + (int(reader.take(np.array([TABLES - 1], np.uint8))[0]) if reader else 0)
        return min(max(value, LOWEST[axis]), HIGHEST[axis])

    def strip(self, s: Strip) -> Int16:
        """The residuals of a strip; a damaged stream cannot leave the axis's range."""
        predicted, turned, fraction = residual_code(s, self.parameters.tunings.get(s.unit))
        values: npt.NDArray[Any] = predicted
        reader = self._open(s.unit)
        if reader is not None:
            table = _table(s.index, fraction, self.parameters.corrections[s.group])
            weights = self.parameters.weights
            if weights is not None and s.unit >= FIRST_FITTED and s.axis in weights.axes:
                values = self._weighted(reader, weights, s, predicted, turned, table)
            else:
                m = reader.take(table.ravel()).reshape(table.shape)
                values = np.where(turned, -m, m) + predicted
            values = np.clip(values, LOWEST[s.axis], HIGHEST[s.axis])
        return (values - s.predicted).astype(np.int16)

    def _weighted(
        self,
        reader: Reader,
        weights: Weights,
        s: Strip,
        predicted: Int16,
        turned: npt.NDArray[np.bool_],
        table: UInt8,
    ) -> npt.NDArray[Any]:
        """Values of a strip with weights."""
        result = predicted.astype(np.int32)
        chosen = table < LIMIT
        finished = [f[chosen] for f in s.finished]
        places = Places(s.axis, table[chosen].astype(np.intp), turned[chosen], predicted[chosen], finished)
        result[chosen] = take(reader, self.tables, weights, places)
        m = reader.take(table[~chosen])
        result[~chosen] += np.where(turned[~chosen], -m, m)
        return result


def _table(index: npt.NDArray[Any], fraction: npt.NDArray[Any], correction: int) -> UInt8:
    return table_of(np.clip(index.astype(np.int16) + correction, 0, TOP_INDEX), fraction).astype(np.uint8)


@dataclass(frozen=True)
class Parameters:
    """The lossless element of a file.

    Arguments:
        checksum: CRC-32 of the pixels, R, G, B of each, row by row.
        colour: there are chroma axes; if not, the picture is grey.
        corrections: of the scale index, −8 … 7, by :attr:`Strip.group`.
        tunings: corrections of the linear weights in 1/256, by unit.
        weights: of the values; None if all weigh the same.
    """

    checksum: int
    colour: bool
    corrections: list[int]
    tunings: dict[int, Tuning]
    weights: Weights | None = None

    def pack(self) -> bytes:
        """Its bytes, see docs/FORMAT.md."""
        nibbles = [c & 15 for c in self.corrections] + [0]
        mask = sum(1 << (unit - FIRST_FITTED) for unit in self.tunings)
        return b"".join(
            [
                self.checksum.to_bytes(4, "little"),
                bytes([int(self.colour) + (WEIGHTED if self.weights else 0)]),
                bytes(a | b << 4 for a, b in zip(nibbles[0::2], nibbles[1::2], strict=True)),
                mask.to_bytes(3, "little"),
                *(self.tunings[unit].tobytes() for unit in sorted(self.tunings)),
                self.weights.pack() if self.weights else b"",
            ]
        )

    @classmethod
    def unpack(cls, content: bytes) -> "Parameters":
        """Inverse of :meth:`pack`.

        Raises:
            FormatError: these are not parameters.
        """
        damaged = FormatError("the file is damaged: its lossless parameters cannot be read")
        if len(content) < PARAMETERS or content[4] & ~(WEIGHTED | 1) or content[9] > 15:
            raise damaged
        nibbles = [n for byte in content[5:10] for n in (byte & 15, byte >> 4)][: 3 * SETS]
        mask = int.from_bytes(content[10:13], "little")
        if mask >> (UNITS - FIRST_FITTED):
            raise damaged
        tunings, at = {}, PARAMETERS
        for unit in (u for u in range(FIRST_FITTED, UNITS) if mask >> (u - FIRST_FITTED) & 1):
            axis, phase = divmod((unit - 1) % 9, 3)
            n = context_channels(phase + 1, axis)
            tunings[unit] = np.frombuffer(content[at : at + n], np.int8)
            at += n
        colour, weights = bool(content[4] & 1), None
        if content[4] & WEIGHTED and at <= len(content):
            weights = Weights.unpack(content[at:], AXES if colour else 1)
        elif at != len(content):
            raise damaged
        checksum = int.from_bytes(content[:4], "little")
        return cls(checksum, colour, [(n ^ 8) - 8 for n in nibbles], tunings, weights)


def encode(model: Model, rgb: Bytes, single: bool = False) -> tuple[bytes, tuple[Segment, ...]]:
    """Parameters and segments of a picture `(H, W, 3)`; in one segment if `single`.

    Raises:
        ModelError: the bundle cannot code losslessly.
    """
    tables = tables_of(model)
    colour = not is_grey(rgb)
    checksum = zlib.crc32(np.ascontiguousarray(rgb).data)
    samples = rgb if colour else rgb[..., :1]
    drawn = checksum.to_bytes(4, "little") + bytes([PACKED + colour])
    fast = webp.quick_size(rgb) if webp.fits(*rgb.shape[:2]) else None
    if fast is not None and rgb.size >= SURE and 8 * fast < EVIDENT * rgb.size / 3:
        return drawn, (Segment(UNITS, _packed(samples, fast)),)
    planes = to_planes(rgb)[: 3 if colour else 1]
    place = rgb.shape[0], rgb.shape[1], len(planes)
    survey = Survey(planes)
    walk(*place, functools.partial(predict, model), survey)
    coder = _Encoder(planes, survey, tables)
    walk(*place, coder.again, coder)
    coder.choose()
    corrections, sizes = coder.corrections()
    weights = coder.weights(corrections)
    rest = sum(sizes)
    goal = rest + 1 if single else max(SEGMENT_MINIMUM, rest / SEGMENT_TARGET)
    segments: list[Segment] = []
    writer, count, pending = Writer(tables), 0, 0.0
    for number, (unit, size) in enumerate(zip(coder.symbols, sizes, strict=True), 1):
        for r in unit:
            coder.write(writer, r, corrections, weights)
        count, pending, rest = count + 1, pending + size, rest - size
        if number == UNITS or (pending >= goal and rest >= SEGMENT_MINIMUM / 2):
            segments.append(Segment(count, writer.payload()))
            writer, count, pending = Writer(tables), 0, 0.0
    content = Parameters(checksum, colour, corrections, coder.tunings, weights).pack()
    packed = _packed(samples, fast, len(content) + sum(len(s.payload) for s in segments))
    if packed:
        return drawn, (Segment(UNITS, packed),)
    return content, tuple(segments)


def _differences(samples: Bytes, order: int) -> Bytes:
    """Samples `(H, W, C)` less the row above (order 1), less that of the column before, too (2), modulo 256."""
    result = samples.copy()
    if order > 0:
        result[1:] -= samples[:-1]
    if order > 1:
        result[:, 1:] -= result[:, :-1].copy()
    return result


def _packed(samples: Bytes, size: int | None, limit: int | None = None) -> bytes:
    """Samples `(H, W, C)` packed by WebP or by zstd; nothing if neither takes less than `limit` bytes.

    For drawings, text and noise, which the nets do not know. With a limit, quick tries tell whether thorough
    ones may pay.

    Arguments:
        samples: of all channels, or of the one that a grey picture has.
        size: bytes in WebP, found in a fast way; None if the picture is too large for it.
        limit: bytes; None: any number.
    """
    quick = zstandard.ZstdCompressor(level=3)
    sizes = [len(quick.compress(_differences(samples, k).tobytes())) for k in range(ORDERS)]
    order = int(np.argmin(sizes))
    goal = min(n for n in (sizes[order], size, limit) if n is not None)
    found = []
    if limit is None or sizes[order] <= HOPE * goal:
        effort = 19 if samples.size <= 1 << 24 else 9
        thorough = zstandard.ZstdCompressor(level=effort, write_content_size=False)
        found.append(bytes([order]) + thorough.compress(_differences(samples, order).tobytes()))
    if size is not None and (limit is None or size == goal or (found and size <= HOPE * goal)):
        stream = bytes([WEBP]) + webp.pack(samples if samples.shape[2] == 3 else samples[..., 0])
        if not found or len(stream) <= len(found[0]) - WORTH:
            found.append(stream)
    best = found[-1] if found else b""
    return best if limit is None or len(best) < limit else b""


def _unpack(payload: bytes, height: int, width: int, channels: int) -> Bytes:
    """Inverse of :func:`_packed`, `(H, W, 3)`.

    Raises:
        FormatError: these are not so many packed samples.
    """
    size = height * width * channels
    if payload[:1] == bytes([WEBP]):
        samples = webp.unpack(payload[1:], height, width)
        return samples if channels == 3 else np.repeat(samples[..., 1:2], 3, axis=2)
    if not payload or payload[0] >= ORDERS:
        raise FormatError(f"the file is damaged: {UNREADABLE}")
    raw = frames.unpack(payload[1:], size, UNREADABLE)
    samples = np.frombuffer(raw, np.uint8).reshape(height, width, channels)
    if payload[0] == 2:
        samples = np.add.accumulate(samples, axis=1, dtype=np.uint8)
    if payload[0]:
        samples = np.add.accumulate(samples, axis=0, dtype=np.uint8)
    return np.repeat(samples, 3 // channels, axis=2)


def uses_webp(content: bytes, segments: tuple[Segment, ...]) -> bool:
    """Whether the samples of a file with these parameters are a WebP stream."""
    packed = len(content) == 5 and content[4] >= PACKED
    return packed and bool(segments) and segments[0].payload[:1] == bytes([WEBP])


def decode(model: Model, width: int, height: int, content: bytes, segments: tuple[Segment, ...]) -> tuple[Bytes, bool]:
    """The picture `(H, W, 3)` of a file's segments and whether all of them are there; then it is proven exact.

    Of a file that was cut off, the samples that are missing are what the nets predict.

    Arguments:
        model: the bundle.
        width, height: of the picture.
        content: the file's lossless element.
        segments: all of its segments or the first of them.

    Raises:
        FormatError: a segment does not decode, there are too many, or the pixels differ from those that were encoded.
        ModelError: the bundle cannot code losslessly.
    """
    count = sum(s.units for s in segments)
    if count > UNITS:
        raise FormatError("the file is damaged: it has more coding units than a lossless file")
    if len(content) == 5 and content[4] in (PACKED, PACKED + 1):
        if not segments:
            return np.zeros((height, width, 3), np.uint8), False
        if len(segments) != 1 or count != UNITS:
            raise FormatError("the file is damaged: its packed samples cannot be read")
        rgb = _unpack(segments[0].payload, height, width, 3 if content[4] > PACKED else 1)
        if zlib.crc32(rgb.data) != int.from_bytes(content[:4], "little"):
            raise FormatError("the file is damaged: its pixels are not those that were compressed")
        return rgb, True
    parameters = Parameters.unpack(content)
    coder = _Decoder(tables_of(model), segments, parameters)
    planes = walk(height, width, 3 if parameters.colour else 1, functools.partial(predict, model), coder)
    if not parameters.colour:
        planes = np.concatenate([planes, np.zeros((2, height, width), np.int16)])
    rgb = from_planes(planes)
    if count == UNITS and zlib.crc32(rgb.data) != parameters.checksum:
        raise FormatError("the file is damaged: its pixels are not those that were compressed")
    return rgb, count == UNITS


class LosslessJob(Job):
    """A picture on its way into its only lossless file."""

    def at(self, delta: float) -> Coded:
        """The file; its step is 1 level, whatever Δ is."""
        single = self.height * self.width <= SINGLE_SEGMENT_PIXELS
        deep = self.picture.depth > 8
        make = lossless_deep.encode if deep else encode
        parameters, segments = make(self.model, self.picture.rgb, single)
        rate = rate_code(self.model.block)
        head = self.model.id, self.width, self.height, rate, format.LOSSLESS_STEP
        packed = not deep and uses_webp(parameters, segments)
        header = Header(*head, grey=self.picture.grey, webp=packed, deep=deep)
        return Coded(File(header, self.alpha, segments, lossless=parameters), self.model.block)

    def fitting(self, limit: int) -> Coded:
        """There is nothing to choose.

        Raises:
            EocodecError: always.
        """
        raise EocodecError("a lossless file has no rate, bpp, bytes or psnr to choose, no tiny or progressive form")

    def reaching(self, target: float) -> Coded:
        """As :meth:`fitting`."""
        return self.fitting(0)

    def expected(self, file: AnyFile) -> Bytes:
        """The picture itself."""
        return self.picture.rgb

    def quality(self, file: AnyFile) -> float:
        """Infinite: it is proven that the file gives the picture back.

        Raises:
            EocodecError: it does not.
        """
        if not np.array_equal(self.coding.decode(self.model, file), self.picture.rgb):
            raise EocodecError("the lossless file does not give the picture back; this is a fault of the program")
        return math.inf


class Lossless(LosslessForm, SegmentedCoding):
    """Files that give back every value, of 8 bits or 16, of models with nets for it."""

    deep = True

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> LosslessJob:
        """See :meth:`Coding.open`."""
        if picture.deep and picture.narrowed:
            raise EocodecError(
                "a lossless file keeps the values it is given, and this picture has more bits a sample than a depth of "
                "8 holds; leave the depth out (Pillow's save always has it, eocodec.compress has not), or convert the "
                "picture to 8 bits first"
            )
        if picture.coarse_alpha:
            raise EocodecError(
                "a lossless file keeps the values it is given, and this picture's transparency has more bits a sample "
                "than the 8 that a file holds; convert it to 8 bits first"
            )
        if picture.deep:
            why = f" ({'; '.join(picture.rounding)})" if picture.rounding else ""
            raise EocodecError(
                "a lossless file keeps the values it is given, and this picture has more bits a sample than were kept"
                f"{why}; convert it to 8 bits, or make it a PNG or TIFF file of 16-bit integers in sRGB, first"
            )
        return LosslessJob(self, model, picture)

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`; of a whole file it is proven that these are the pixels that were compressed."""
        file = whole_file(file)
        if file.lossless is None:
            raise FormatError("not a lossless file")
        header = file.header
        if not header.deep and uses_webp(file.lossless, file.segments) and not header.webp:
            raise FormatError("the file is damaged: its packed samples are of a kind that its flags do not name")
        read = lossless_deep.decode if header.deep else decode
        return read(model, header.width, header.height, file.lossless, file.segments)[0]

    def symbols(self, model: Model, file: AnyFile) -> npt.NDArray[np.int32]:
        """R, G, B of every pixel."""
        return self.decode(model, file).astype(np.int32).ravel()
