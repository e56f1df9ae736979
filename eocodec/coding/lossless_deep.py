"""Lossless files of 16-bit pictures: the lattices and integer nets of 8-bit ones, at the scale of the picture's noise.

In: `rgb (H, W, 3)` uint16. Out: segments and the file's lossless element, and back, bit by bit.

The nets know differences of up to 510 levels. A picture says how many levels, a power of two, count as one to them, so
that its noise looks like a photograph's; references and residuals keep every bit. Scales that the nets cannot know are
corrected by the file, for every set of nets, axis and index. Pictures that use few of the levels between their darkest
and their brightest, as 12-bit values in 16 bits do, are coded as ranks of those levels. docs/FORMAT.md, "Deep files",
gives every integer.
"""

import functools
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from eocodec.coding import deep, frames
from eocodec.coding.base import SEGMENT_MINIMUM, SEGMENT_TARGET
from eocodec.coding.lattice import Lattice, context_channels
from eocodec.coding.lossless_survey import FIRST_FITTED, Survey
from eocodec.coding.lossless_tables import CLASSES, COARSE, TABLES, LosslessTables, table_of, tables_of
from eocodec.coding.lossless_walk import SETS, Strip, Tuning, graph_name, looked_around, walk
from eocodec.coding.nets import run_exact
from eocodec.coding.range_coder import Reader, Writer
from eocodec.coding.scales import MEAN_UNIT, SCALE_PER_OCTAVE, SCALES
from eocodec.errors import FormatError
from eocodec.format import LOSSLESS_UNITS, MAX_LOSSLESS, Segment
from eocodec.image import is_grey
from eocodec.model.bundle import Model

__all__ = ["decode", "encode", "quick_size"]

Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]
Symbols = tuple[Int32, UInt8, UInt8, int]
"""Of a strip: residuals, indices, classes of the mean's fraction, group (−1: a corner)."""

TOP_VALUE = 65535
LOWEST, HIGHEST = (0, -TOP_VALUE, -TOP_VALUE), (TOP_VALUE,) * 3  # range of Y, Co, Cg
START = (32768, 0, 0)  # what the first sample of every axis is predicted as
LARGEST = 510  # difference that the nets know
MAX_SHIFT = 8
QUIET = 3.0  # levels that the median difference to the nets is at least, if the picture has so much
COLOUR, PACKED, RANKED = 1, 2, 4  # bits of the element's fifth byte
GROUPS = 3 * SETS
MAX_LEVELS = 1024  # bytes of the list of levels
ORDERS = 3  # of differences before packing
SAMPLED_ROWS = 256  # that a picture's size is estimated by …
RUN = 16  # … from the mean magnitude of so many residuals at a time


def to_planes(samples: npt.NDArray[Any]) -> Int32:
    """Y, Co, Cg `(3, H, W)` of a picture, or its one channel: YCoCg-R in 32 bits."""
    if samples.shape[2] == 1:
        return samples.transpose(2, 0, 1).astype(np.int32)
    r, g, b = (samples[..., k].astype(np.int32) for k in range(3))
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    return np.stack([t + (cg >> 1), co, cg])


def from_planes(planes: Int32) -> Int32:
    """Inverse of :func:`to_planes`; values that no picture has are clipped."""
    if len(planes) == 1:
        return np.clip(planes.transpose(1, 2, 0), 0, TOP_VALUE)
    y, co, cg = planes
    t = y - (cg >> 1)
    b = t - (co >> 1)
    return np.clip(np.stack([b + co, cg + t, b], -1), 0, TOP_VALUE)


def _inside(mean: npt.NDArray[Any], axis: int) -> Int32:
    return np.clip(mean, MEAN_UNIT * LOWEST[axis], MEAN_UNIT * HIGHEST[axis]).astype(np.int32)


def _context(lattice: Lattice, shift: int, phase: int, rows: slice) -> tuple[Int32, npt.NDArray[np.int16]]:
    """References, and what the nets see: differences in units of 2**shift levels."""
    reference, context = lattice.context(phase, rows)
    return reference.astype(np.int32), _seen(context, shift)


def _seen(differences: npt.NDArray[Any], shift: int) -> npt.NDArray[np.int16]:
    return np.clip((differences + (1 << shift >> 1)) >> shift, -LARGEST, LARGEST).astype(np.int16)


def predict(model: Model, shift: int, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
    """The nets' statement on a strip; its mean is in 1/16 levels."""
    axis = len(lattice.before)
    reference, context = _context(lattice, shift, phase, rows)
    around = looked_around(model, lattice, half, functools.partial(_seen, shift=shift))
    inputs: dict[str, npt.NDArray[Any]] = {"context": context[None], **around(phase, rows)}
    mean, index = run_exact(model, graph_name(half, axis, phase), inputs, (1, 1))
    moved = MEAN_UNIT * reference + (mean[0, 0].astype(np.int32) << shift)
    return Strip(half, axis, phase, rows, context, _inside(moved, axis), index[0, 0])


def _residual_code(s: Strip, tuning: Tuning | None, shift: int) -> tuple[Int32, npt.NDArray[np.bool_], UInt8]:
    """The prediction, where the residual's sign is turned, and the class of the fraction, as in 8-bit files."""
    mean: npt.NDArray[Any] = s.mean
    if tuning is not None:
        by = np.tensordot(tuning.astype(np.float32), s.context.astype(np.float32), 1)  # integers below 2**24
        mean = _inside(mean + (((by.astype(np.int32) + 8) >> 4) << shift), s.axis)
    predicted = (mean + MEAN_UNIT // 2) >> 4
    distance = mean - MEAN_UNIT * predicted
    return predicted, distance < 0, np.minimum((np.abs(distance) + 1) >> 1, CLASSES - 1).astype(np.uint8)


class _Corrections:
    """How scale indices of a file become tables.

    Arguments:
        shift: levels that count as one to the nets, log2.
        values: corrections `(groups, 64)`.
    """

    def __init__(self, shift: int, values: Int8) -> None:
        self.choice = deep.Choice(shift, values)

    def tables(self, group: int, index: UInt8, fraction: UInt8) -> tuple[UInt8, UInt8]:
        """Table of every residual, and how many of its low bits are coded as they are."""
        if group < 0:
            return np.full_like(index, TABLES - 1), np.zeros_like(index)
        table, rest = self.choice.tables(group, index)
        return table_of(table, fraction).astype(np.uint8), rest


class _Survey(Survey):
    """What the nets say of a picture at the scale of its noise."""

    def __init__(self, planes: Int32, shift: int) -> None:
        super().__init__(planes)
        self.shift = shift

    def sums(self, context: Int16, missed: Int32, weights: Float64) -> Float64:
        """In units of the nets, which are no integers, and no more than the nets know."""
        limit = MEAN_UNIT * LARGEST
        both = np.concatenate([context, np.clip(missed / 2.0**self.shift, -limit, limit)])
        return np.asarray((both * weights) @ both.T)


class _Encoder:
    """The encoder's second walk, which needs no nets: keeps residuals with what their tables depend on."""

    def __init__(self, planes: Int32, survey: _Survey, tables: LosslessTables) -> None:
        self.planes, self.shift, self.tunings = planes, survey.shift, survey.tunings()
        self.said = iter(survey.said)
        self.bits = [24 - np.log2(f.astype(np.float64)) for f in tables.frequencies]
        self.symbols: list[list[Symbols]] = [[] for _ in range(LOSSLESS_UNITS)]
        self.tuned: dict[int, list[Symbols]] = {unit: [] for unit in self.tunings}

    def again(self, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
        """What the nets said of a strip."""
        mean, index = next(self.said)
        s = Strip(half, len(lattice.before), phase, rows, np.empty((0, 0, 0), np.int16), mean, index)
        return replace(s, context=_context(lattice, self.shift, phase, rows)[1]) if s.unit in self.tunings else s

    def corner(self, axis: int) -> int:
        """The first sample; its table is the widest."""
        value = int(self.planes[axis, 0, 0])
        none = np.zeros(1, np.uint8)
        self.symbols[0].append((np.array([value - START[axis]], np.int32), none, none, -1))
        return value

    def strip(self, s: Strip) -> Any:
        """Record a strip, with and without tuning."""
        values = s.of(self.planes[s.axis])
        self.symbols[s.unit].append(self._symbols(s, values, None))
        if s.unit in self.tunings:
            self.tuned[s.unit].append(self._symbols(s, values, self.tunings[s.unit]))
        return values - s.predicted

    def _symbols(self, s: Strip, values: npt.NDArray[Any], tuning: Tuning | None) -> Symbols:
        predicted, turned, fraction = _residual_code(s, tuning, self.shift)
        residual = values - predicted
        m = np.where(turned, -residual, residual).ravel().astype(np.int32)
        return m, s.index.ravel(), fraction.ravel(), s.group

    def choose(self) -> None:
        """Keep a unit's tuning if it saves more than it takes, by the entropy of Laplace variables of its scales."""
        for unit, tuned in self.tuned.items():
            before, after = _entropy(self.symbols[unit]), _entropy(tuned)
            if after + 8 * len(self.tunings[unit]) < before:
                self.symbols[unit] = tuned
            else:
                del self.tunings[unit]
        self.tuned = {}

    def corrections(self) -> tuple[_Corrections, list[float]]:
        """The corrections that make the file smallest, and the bytes each unit then takes, about."""
        values = np.zeros((GROUPS, SCALES), np.int8)
        for group in range(GROUPS):
            strips = [x for unit in self.symbols for x in unit if x[3] == group]
            if strips:
                m, index, fraction = (np.concatenate([x[k] for x in strips]) for k in range(3))
                for k in np.flatnonzero(np.bincount(index, minlength=SCALES)).tolist():
                    mine = index == k
                    cost = functools.partial(self._cost, m[mine], fraction[mine])
                    values[group, k] = deep.best_correction(m[mine], k + SCALE_PER_OCTAVE * self.shift, cost)
        sizes = [_entropy(unit) / 8 for unit in self.symbols]
        return _Corrections(self.shift, values), sizes

    def _cost(self, m: Int32, fraction: UInt8, chosen: slice, wanted: int) -> float:
        """Bits of some residuals under an index."""
        m, fraction = m[chosen], fraction[chosen]
        table, rest = deep.table_and_rest(wanted)
        high = m >> rest
        if table >= COARSE:
            fraction = np.zeros_like(fraction)
        total = float(rest * len(m))
        for c in np.unique(fraction).tolist():
            bits = self.bits[int(table_of(np.array(table), np.array(c)))]
            radius = len(bits) // 2
            mine = high[fraction == c]
            beyond = np.abs(mine[np.abs(mine) >= radius]) - (radius - 1)
            total += float(bits[np.clip(mine, -radius, radius) + radius].sum())
            total += 5.0 * len(beyond) + (float(np.log2(beyond.astype(np.float64)).sum()) if len(beyond) else 0.0)
        return total


def _entropy(strips: Sequence[Symbols]) -> float:
    """About how many bits residuals take: those of Laplace variables of the mean magnitudes, by index."""
    if not strips:
        return 0.0
    index = np.concatenate([x[1] for x in strips])
    counts = np.bincount(index, minlength=SCALES)
    sums = np.bincount(index, np.abs(np.concatenate([x[0] for x in strips])), minlength=SCALES)
    there = counts > 0
    return float((counts[there] * np.log2(1 + 2 * np.e * sums[there] / counts[there])).sum())


class _Decoder:
    """Reads residuals from segments; what comes after the last one is zero."""

    def __init__(
        self,
        tables: LosslessTables,
        segments: tuple[Segment, ...],
        corrections: _Corrections,
        tunings: dict[int, Tuning],
    ) -> None:
        self.coding_tables, self.corrections, self.tunings = tables, corrections, tunings
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
            self.reader = Reader(self.coding_tables, segment.payload)
        return self.reader

    def corner(self, axis: int) -> int:
        """The first sample."""
        reader, none = self._open(0), np.zeros(1, np.uint8)
        left = 0 if reader is None else int(deep.take(reader, *self.corrections.tables(-1, none, none))[0])
        return min(max(START[axis] + left, LOWEST[axis]), HIGHEST[axis])

    def strip(self, s: Strip) -> Any:
        """The residuals of a strip; a damaged stream cannot leave the axis's range."""
        shift = self.corrections.choice.fine
        predicted, turned, fraction = _residual_code(s, self.tunings.get(s.unit), shift)
        values = predicted
        reader = self._open(s.unit)
        if reader is not None:
            table, rest = self.corrections.tables(s.group, s.index.ravel(), fraction.ravel())
            m = deep.take(reader, table, rest).reshape(predicted.shape)
            values = np.clip(np.where(turned, -m, m) + predicted, LOWEST[s.axis], HIGHEST[s.axis])
        return (values - s.predicted).astype(np.int32)


def shift_of(plane: Int32) -> int:
    """The shift at which a plane's noise is what the nets know."""
    if min(plane.shape) < 3:
        return 0
    inner = plane[1:-1, 1:-1] * 4
    missed = inner - plane[:-2, 1:-1] - plane[2:, 1:-1] - plane[1:-1, :-2] - plane[1:-1, 2:]
    median = float(np.median(np.abs(missed[:: max(1, len(missed) // 512)]))) / 4
    return min(max(int(np.log2(max(median, 1.0) / QUIET)), 0), MAX_SHIFT)


def ranks_of(samples: Words) -> tuple[Int32, bytes | None]:
    """Samples as ranks of the levels that there are, and the list of these, if that leaves out half of the levels."""
    levels = np.zeros(TOP_VALUE + 1, np.bool_)
    levels[samples.ravel()] = True
    if 2 * np.count_nonzero(levels) > int(samples.max()) + 1:
        return samples.astype(np.int32), None
    packed = zstandard.ZstdCompressor(level=19, write_content_size=False).compress(np.packbits(levels).tobytes())
    if len(packed) > MAX_LEVELS:
        return samples.astype(np.int32), None
    return (np.cumsum(levels, dtype=np.int32) - 1)[samples], packed


def encode(model: Model, rgb: Words, single: bool = False) -> tuple[bytes, tuple[Segment, ...]]:
    """The lossless element and the segments of a picture `(H, W, 3)`; in one segment if `single`.

    Raises:
        ModelError: the bundle cannot code losslessly.
    """
    tables = tables_of(model)
    colour = not is_grey(rgb)
    samples = rgb if colour else rgb[..., :1]
    ranks, levels = ranks_of(samples)
    planes = to_planes(ranks)
    shift = shift_of(planes[0])
    place = rgb.shape[0], rgb.shape[1], len(planes)
    survey = _Survey(planes, shift)
    walk(*place, functools.partial(predict, model, shift), survey, np.int32)
    coder = _Encoder(planes, survey, tables)
    walk(*place, coder.again, coder, np.int32)
    coder.choose()
    corrections, sizes = coder.corrections()
    segments = _segments(coder, corrections, sizes, tables, single)
    checksum = zlib.crc32(np.ascontiguousarray(rgb.astype("<u2")).data).to_bytes(4, "little")
    mask = sum(1 << (unit - FIRST_FITTED) for unit in coder.tunings)
    tunings = b"".join(coder.tunings[unit].tobytes() for unit in sorted(coder.tunings))
    content = checksum + bytes([colour * COLOUR + (RANKED if levels is not None else 0)])
    if levels is not None:
        content += len(levels).to_bytes(2, "little") + levels
    content += bytes([shift]) + mask.to_bytes(3, "little") + tunings + corrections.choice.pack()
    packed = _pack(samples, len(content) + sum(len(s.payload) for s in segments))
    if packed is not None or len(content) > MAX_LOSSLESS:
        packed = _pack(samples, 1 << 62) if packed is None else packed
        return checksum + bytes([colour * COLOUR + PACKED]), (Segment(LOSSLESS_UNITS, packed or b""),)
    return content, segments


def _segments(
    coder: _Encoder, corrections: _Corrections, sizes: list[float], tables: LosslessTables, single: bool
) -> tuple[Segment, ...]:
    rest = sum(sizes)
    goal = rest + 1 if single else max(SEGMENT_MINIMUM, rest / SEGMENT_TARGET)
    segments: list[Segment] = []
    writer, count, pending = Writer(tables), 0, 0.0
    for number, (unit, size) in enumerate(zip(coder.symbols, sizes, strict=True), 1):
        for m, index, fraction, group in unit:
            deep.put(writer, m, *corrections.tables(group, index, fraction))
        count, pending, rest = count + 1, pending + size, rest - size
        if number == LOSSLESS_UNITS or (pending >= goal and rest >= SEGMENT_MINIMUM / 2):
            segments.append(Segment(count, writer.payload()))
            writer, count, pending = Writer(tables), 0, 0.0
    return tuple(segments)


def quick_size(rgb: Words) -> float:
    """About how many bytes the file of a picture `(H, W, 3)` takes, found in a fast way: seldom a third off.

    Either the samples are packed, or what their neighbours leave unknown is coded under scales that follow the picture.
    """
    colour = not is_grey(rgb)
    samples = rgb if colour else rgb[..., :1]
    quick = zstandard.ZstdCompressor(level=3)
    packed = min(len(quick.compress(_differences(samples, order))) for order in range(ORDERS))
    planes = to_planes(ranks_of(samples)[0])
    rows = slice(1, None, max(1, planes.shape[1] // SAMPLED_ROWS))
    above, here = planes[:, :-1][:, :: rows.step], planes[:, rows]
    if not here.size or here.shape[2] < 2:
        return float(packed)
    missed = np.abs(here[..., 1:] - here[..., :-1] - above[..., 1:] + above[..., :-1]).astype(np.float64)
    ends = np.arange(0, missed.shape[2], RUN)  # what nets miss is about half of these differences
    mean = np.add.reduceat(missed, ends, 2) / np.diff(ends, append=missed.shape[2])
    bits = float(np.log2(1 + np.e * mean).mean()) * len(planes)
    return min(float(packed), bits * planes.shape[1] * planes.shape[2] / 8)


def _pack(samples: Words, limit: int) -> bytes | None:
    """Samples `(H, W, C)` packed by zstd, upper bytes before lower ones, if that takes less than `limit` bytes."""
    options = [_differences(samples, order) for order in range(ORDERS)]
    quick = zstandard.ZstdCompressor(level=3)
    sizes = [len(quick.compress(o)) for o in options]
    order = int(np.argmin(sizes))
    if sizes[order] > 1.4 * limit:
        return None
    thorough = zstandard.ZstdCompressor(level=19 if samples.size <= 1 << 23 else 9, write_content_size=False)
    packed = bytes([order]) + thorough.compress(options[order])
    return packed if len(packed) < limit else None


def _differences(samples: Words, order: int) -> bytes:
    result = samples.copy()
    if order > 0:
        result[1:] -= samples[:-1]
    if order > 1:
        result[:, 1:] -= result[:, :-1].copy()
    return (result >> 8).astype(np.uint8).tobytes() + (result & 255).astype(np.uint8).tobytes()


def _unpack(payload: bytes, shape: tuple[int, int, int]) -> Words:
    """Inverse of :func:`_pack`."""
    size = int(np.prod(shape))
    if not payload or payload[0] >= ORDERS:
        raise FormatError("the file is damaged: its packed samples cannot be read")
    raw = frames.unpack(payload[1:], 2 * size, "its packed samples cannot be read")
    halves = np.frombuffer(raw, np.uint8).reshape(2, *shape).astype(np.uint16)
    samples = halves[0] << 8 | halves[1]
    if payload[0] == 2:
        samples = np.add.accumulate(samples, axis=1, dtype=np.uint16)
    return np.add.accumulate(samples, axis=0, dtype=np.uint16) if payload[0] else samples


def decode(model: Model, width: int, height: int, content: bytes, segments: tuple[Segment, ...]) -> tuple[Words, bool]:
    """The picture `(H, W, 3)` of a file's segments and whether all of them are there; then it is proven exact.

    Raises:
        FormatError: a segment does not decode, there are too many, or the pixels differ from those that were encoded.
        ModelError: the bundle cannot code losslessly.
    """
    count = sum(s.units for s in segments)
    if count > LOSSLESS_UNITS:
        raise FormatError("the file is damaged: it has more coding units than a lossless file")
    damaged = FormatError("the file is damaged: its lossless parameters cannot be read")
    if len(content) < 5 or content[4] > COLOUR | PACKED | RANKED:
        raise damaged
    channels = 3 if content[4] & COLOUR else 1
    if content[4] & PACKED:
        if len(content) != 5 or content[4] & RANKED:
            raise damaged
        if not segments:
            return np.zeros((height, width, 3), np.uint16), False
        if len(segments) != 1 or count != LOSSLESS_UNITS:
            raise FormatError("the file is damaged: its packed samples cannot be read")
        samples = _unpack(segments[0].payload, (height, width, channels))
    else:
        levels, at = _levels(content)
        corrections, tunings = _parameters(content[at:])
        coder = _Decoder(tables_of(model), segments, corrections, tunings)
        shift = corrections.choice.fine
        planes: Any = walk(height, width, channels, functools.partial(predict, model, shift), coder, np.int32)
        found = from_planes(planes)
        samples = (found if levels is None else levels[np.minimum(found, len(levels) - 1)]).astype(np.uint16)
    rgb = np.ascontiguousarray(np.repeat(samples, 3 // channels, axis=2))
    exact = zlib.crc32(rgb.astype("<u2").data) == int.from_bytes(content[:4], "little")
    if count == LOSSLESS_UNITS and not exact:
        raise FormatError("the file is damaged: its pixels are not those that were compressed")
    return rgb, count == LOSSLESS_UNITS


def _levels(content: bytes) -> tuple[npt.NDArray[np.int64] | None, int]:
    """The levels that ranks stand for, None for all, and where the element goes on."""
    if not content[4] & RANKED:
        return None, 5
    unreadable = "its lossless parameters cannot be read"
    at = 7 + int.from_bytes(content[5:7], "little")
    bits = frames.unpack(content[7:at], (TOP_VALUE + 1) // 8, unreadable)
    levels = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))
    if at > len(content) or not len(levels):
        raise FormatError(f"the file is damaged: {unreadable}")
    return levels, at


def _parameters(content: bytes) -> tuple[_Corrections, dict[int, Tuning]]:
    """Shift with corrections, and tunings."""
    damaged = FormatError("the file is damaged: its lossless parameters cannot be read")
    if len(content) < 4 or content[0] > MAX_SHIFT:
        raise damaged
    mask = int.from_bytes(content[1:4], "little")
    if mask >> (LOSSLESS_UNITS - FIRST_FITTED):
        raise damaged
    tunings, at = {}, 4
    for unit in (u for u in range(FIRST_FITTED, LOSSLESS_UNITS) if mask >> (u - FIRST_FITTED) & 1):
        axis, phase = divmod((unit - 1) % 9, 3)
        n = context_channels(phase + 1, axis)
        tunings[unit] = np.frombuffer(content[at : at + n], np.int8)
        if len(tunings[unit]) != n:
            raise damaged
        at += n
    return _Corrections(content[0], deep.Choice.unpack(content[at:], content[0], GROUPS).corrections), tunings
