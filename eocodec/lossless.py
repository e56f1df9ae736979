"""Lossless coding of 8-bit pictures: a lazy wavelet flow on integers, its conditional layer an integer net.

In: `rgb (H, W, 3)` uint8. Out: segments and the parameters of the file's lossless element, and back, bit by bit.

The flow is a reversible colour lifting and a split into lattices (`eocodec.lattice`): volume preserving and exact.
Everything else is the conditional layer: an integer net predicts mean and scale of every sample from those before it, a
linear part of it can be tuned to the picture, and the range coder codes what the mean misses.
docs/FORMAT.md, "Lossless files", gives every integer; docs/METHOD.md says why it is not the photo flow rounded.

References:
    Cao, Wu & Krähenbühl, *Lossless image compression through super-resolution*, 2020. https://arxiv.org/abs/2004.02872
    Ballé et al., *Integer networks for data compression with latent-variable models*, ICLR 2019.
    https://openreview.net/forum?id=S1zz2i0cY7
"""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import constriction
import numpy as np
import numpy.typing as npt
import zstandard

from eocodec.bundle import Model
from eocodec.entropy import SEGMENT_MINIMUM, SEGMENT_TARGET, Reader, Writer
from eocodec.errors import FormatError, ModelError
from eocodec.format import LOSSLESS_UNITS, Segment
from eocodec.latents import PHASES
from eocodec.lattice import HIGHEST, LOWEST, Lattice, context_channels, from_planes, to_planes, visits

__all__ = [
    "UNITS",
    "Parameters",
    "Strip",
    "cumulative_samples",
    "decode",
    "encode",
    "graph_name",
    "predict",
    "residual_code",
    "table_of",
    "unpack_tables",
    "walk",
]

Bytes = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
UInt8 = npt.NDArray[np.uint8]
Tuning = npt.NDArray[np.int8]

START = (128, 0, 0)  # what the first sample of every axis is predicted as
SETS = 3  # nets for h = 1, h = 2 and h >= 4
PACKED = 2  # instead of whether there are chroma axes: the samples are packed, grey; one more: in colour
KINDS = 3  # of differences before packing
UNITS = LOSSLESS_UNITS  # lattices down to stride 16 are unit 0; then nine for each of h = 8, 4, 2, 1
STRIP = 65536  # positions of a strip; nets and coder work strip by strip
CLASSES = 4  # of the mean's fraction
MEAN_UNIT = 16
CORRECTION_LIMIT = 8  # corrections of the scale index lie in −8 … 7
TOP_INDEX = 63
ESCAPE_BITS = 10.0  # what an escape's bits count when index corrections are compared
MAX_RADIUS = 1 << 12
COARSE = 32  # scale index from which on the mean's fraction does not matter
TABLES = CLASSES * COARSE + TOP_INDEX + 1 - COARSE
TABLES_FILE = "lossless/tables.bin"
PARAMETERS = 13  # bytes before the tunings: CRC-32, colour, nine corrections, which units are tuned
FIRST_TUNED = 19  # units of h = 2 and h = 1 can be tuned to the picture
TUNING_UNIT = 256
TUNING_SAMPLES = 1 << 17  # of a unit, that its tuning is found from
TUNING_MINIMUM = 40  # samples per weight
COUNTED = 64  # residuals up to here are told apart when choices are priced
# Weights in least squares by scale index: inverse squares, in integers.
_WEIGHTS = np.maximum(1, np.floor(1024 / (1 + (0.05 * 2 ** (np.arange(64) / 5)) ** 2)))


def graph_name(half: int, axis: int, phase: int) -> str:
    """The graph that predicts `phase` of `axis` on the lattice of stride `half`."""
    return f"lossless/{min(half.bit_length(), SETS)}_{axis}_{phase}"


class LosslessTables:
    """The frequency tables of lossless files, as models of the range coder and as bits.

    A table belongs to a scale index k in 0 … 63 and, below :data:`COARSE`, a class of the mean's fraction.
    """

    def __init__(self, content: bytes) -> None:
        self.frequencies = unpack_tables(content)
        # As in `entropy.Tables`: integers f − 1 that sum to 2**24 − n, which the fast construction reproduces as f.
        self.models = [
            constriction.stream.model.Categorical(f.astype(np.float64) - 1.0, perfect=False, lazy=False)
            for f in self.frequencies
        ]
        self.radius = np.array([len(f) // 2 for f in self.frequencies], np.int32)

    def bits(self, width: int) -> npt.NDArray[np.float32]:
        """Cost of the residuals −width … width by scale index and class, `(64, 4, 2 · width + 1)`."""
        result = np.full((TOP_INDEX + 1, CLASSES, 2 * width + 1), 24 + ESCAPE_BITS, np.float32)
        for k in range(TOP_INDEX + 1):
            for c in range(CLASSES):
                f = self.frequencies[int(table_of(np.array(k), np.array(c)))]
                r = min(len(f) // 2, width)
                part = f[len(f) // 2 - r : len(f) // 2 + r + 1]
                result[k, c, width - r : width + r + 1] = 24 - np.log2(part.astype(np.float64))
        return result


def unpack_tables(content: bytes) -> list[npt.NDArray[np.int64]]:
    """Frequencies f(−R) … f(R) of every table: u32 count, then for each its length 2R + 1 and its values.

    Raises:
        ModelError: not such tables.
    """
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    tables, at = [], 1
    for _ in range(TABLES):
        n = int(words[at]) if at < len(words) else 0
        table = words[at + 1 : at + 1 + n].astype(np.int64)
        if not 5 <= n <= MAX_RADIUS or n % 2 == 0 or len(table) != n or table.min() < 1 or table.sum() != 1 << 24:
            raise ModelError("the model bundle's tables for lossless files are damaged")
        tables.append(table)
        at += 1 + n
    if int(words[0]) != TABLES or at != len(words):
        raise ModelError("the model bundle's tables for lossless files are damaged")
    return tables


def table_of(index: npt.NDArray[Any], fraction: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Table of a scale index and a class of the fraction: the class matters below index :data:`COARSE` only."""
    return np.where(index < COARSE, CLASSES * index + fraction, index + (CLASSES - 1) * COARSE)


def tables_of(model: Model) -> LosslessTables:
    """The model's tables for lossless files, unpacked once.

    Raises:
        ModelError: the bundle cannot code losslessly.
    """
    cached = model.__dict__.get("_lossless_tables")
    if cached is None:
        if TABLES_FILE not in model.files:
            raise ModelError(f"the model {model.name} ({model.id.hex()}) has no graphs for lossless files")
        cached = model.__dict__["_lossless_tables"] = LosslessTables(model.files[TABLES_FILE])
    return cached


@dataclass(frozen=True)
class Strip:
    """Some rows of a phase, with what the nets say of them.

    Arguments:
        half: the stride h after this phase.
        axis, phase: of the samples.
        rows: of the phase.
        context: what the nets saw, `(channels, rows, columns)`.
        mean: in 1/16 levels, inside the axis's range, `(rows, columns)`.
        index: scale index, 0 … 63.
    """

    half: int
    axis: int
    phase: int
    rows: slice
    context: Int16
    mean: Int16
    index: UInt8

    @property
    def unit(self) -> int:
        """Its coding unit: 0 down to stride 16, then 1 + 9 · (3 − log2 h) + 3 · axis + phase − 1."""
        return 0 if self.half >= 16 else 1 + 9 * (4 - self.half.bit_length()) + 3 * self.axis + self.phase - 1

    @property
    def group(self) -> int:
        """Which correction of the scale index applies: by set of nets and axis."""
        return 3 * (min(self.half.bit_length(), SETS) - 1) + self.axis

    @property
    def predicted(self) -> Int16:
        """The integers nearest to the mean."""
        return (self.mean + MEAN_UNIT // 2) >> 4

    def of(self, plane: Int16) -> Int16:
        """These samples of a whole plane `(H, W)`."""
        (i, j), h = PHASES[self.phase], self.half
        return plane[i * h :: 2 * h, j * h :: 2 * h][self.rows]


def predict(model: Model, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
    """The nets' statement on a strip: everything in integers."""
    axis = len(lattice.before)
    reference, context = lattice.context(phase, rows)
    mean, index = model.run(graph_name(half, axis, phase), {"context": context[None]})
    return Strip(half, axis, phase, rows, context, _inside(MEAN_UNIT * reference + mean[0, 0], axis), index[0, 0])


def _inside(mean: npt.NDArray[Any], axis: int) -> Int16:
    return np.clip(mean, MEAN_UNIT * LOWEST[axis], MEAN_UNIT * HIGHEST[axis]).astype(np.int16)


def residual_code(s: Strip, tuning: Tuning | None) -> tuple[Int16, npt.NDArray[np.bool_], UInt8]:
    """How a strip's samples are coded: the prediction, where the residual's sign is turned, the class of the fraction.

    It is turned where the mean lies below the prediction, so that the tables need only know means above it.
    """
    mean = s.mean
    if tuning is not None:
        shift = np.tensordot(tuning.astype(np.float32), s.context.astype(np.float32), 1)  # integers below 2**24
        mean = _inside(mean + ((shift.astype(np.int32) + 8) >> 4), s.axis)
    predicted = (mean + MEAN_UNIT // 2) >> 4
    distance = mean - MEAN_UNIT * predicted
    return predicted, distance < 0, np.minimum((np.abs(distance) + 1) >> 1, CLASSES - 1).astype(np.uint8)


class Coder(Protocol):
    """What :func:`walk` asks."""

    def corner(self, axis: int) -> int:
        """The first sample of an axis."""

    def strip(self, s: Strip) -> Int16:
        """Residuals of a strip: values minus :attr:`Strip.predicted`."""


def walk(
    height: int, width: int, axes: int, predictor: Callable[[Lattice, int, int, slice], Strip], coder: Coder
) -> Int16:
    """Visit all samples in file order; returns the planes `(axes, H, W)`."""
    values = [np.full((1, 1), coder.corner(axis), np.int16) for axis in range(axes)]
    residuals = [np.zeros((1, 1), np.int16) for _ in range(axes)]
    for half in visits(height, width):
        shape = (-(-height // half), -(-width // half))
        done: list[Lattice] = []
        for axis in range(axes):
            lattice = Lattice(shape, values[axis], residuals[axis], list(done))
            for phase in (1, 2, 3):
                rows, columns = lattice.phase_shape(phase)
                found = np.empty((2, rows, columns), np.int16)
                step = max(1, STRIP // max(1, columns))
                for top in range(0, rows if columns else 0, step):
                    s = predictor(lattice, half, phase, slice(top, min(top + step, rows)))
                    found[1, s.rows] = coder.strip(s)
                    np.add(s.predicted, found[1, s.rows], out=found[0, s.rows])
                lattice.add(found[0], found[1])
            lattice.finish()
            done.append(lattice)
        values, residuals = [x.full for x in done], [x.full_residuals for x in done]
    return np.stack(values)


def cumulative_samples() -> list[float]:
    """Samples of a 16x16 block, three axes of 256, that are known after each unit."""
    total, result = 3.0, [3.0]
    for h in (8, 4, 2, 1):
        for _ in range(9):
            total += (8 // h) ** 2
            result.append(total)
    return result


class _Survey:
    """The encoder's first walk: runs the nets once and gathers what tunes them to the picture.

    Tuning is weighted least squares of the nets' residuals on their contexts. The sums are integers, so any order
    of adding gives the same.
    """

    def __init__(self, planes: Int16) -> None:
        self.planes = planes
        self.said: list[tuple[Int16, UInt8]] = []  # mean and index of every strip
        self.sums: dict[int, npt.NDArray[np.float64]] = {}
        self.counts: dict[int, int] = {}

    def corner(self, axis: int) -> int:
        """The first sample."""
        return int(self.planes[axis, 0, 0])

    def strip(self, s: Strip) -> Int16:
        """Residuals, which also enter the sums."""
        self.said.append((s.mean, s.index))
        values = s.of(self.planes[s.axis])
        if s.unit >= FIRST_TUNED:
            stride = max(1, -(-self.planes[0].size // (4 * s.half**2) // TUNING_SAMPLES))
            missed = (MEAN_UNIT * values - s.mean)[::stride].reshape(1, -1)
            rows = s.context[:, ::stride].reshape(len(s.context), -1)
            both = np.concatenate([rows, missed]).astype(np.float64)
            sums = (both * _WEIGHTS[s.index[::stride].ravel()]) @ both.T
            self.sums[s.unit] = self.sums.get(s.unit, 0) + sums
            self.counts[s.unit] = self.counts.get(s.unit, 0) + both.shape[1]
        return values - s.predicted

    def tunings(self) -> dict[int, Tuning]:
        """Corrections of the linear weights, in 1/256, of the units with enough samples to find them."""
        result = {}
        for unit, sums in self.sums.items():
            channels = len(sums) - 1
            if self.counts[unit] > TUNING_MINIMUM * channels:
                gram = sums[:-1, :-1]
                gram = gram + (1e-4 * np.trace(gram) / channels + 1) * np.eye(channels)
                weights = np.linalg.solve(gram, sums[:-1, -1]) / MEAN_UNIT
                tuning = np.clip(np.floor(weights * TUNING_UNIT + 0.5), -127, 127).astype(np.int8)
                if tuning.any():
                    result[unit] = tuning
        return result


class _Encoder:
    """The encoder's second walk, which needs no nets: keeps residuals with what their tables depend on."""

    def __init__(self, planes: Int16, survey: _Survey, tables: LosslessTables) -> None:
        self.planes, self.tunings = planes, survey.tunings()
        self.said = iter(survey.said)
        self.bits = tables.bits(COUNTED)
        # Per unit and strip: residuals, 4 · index + class of the fraction, group.
        self.symbols: list[list[tuple[Int16, UInt8, int]]] = [[] for _ in range(UNITS)]
        self.tuned: dict[int, list[tuple[Int16, UInt8, int]]] = {unit: [] for unit in self.tunings}

    def again(self, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
        """What the nets said of a strip."""
        mean, index = next(self.said)
        s = Strip(half, len(lattice.before), phase, rows, np.empty((0, 0, 0), np.int16), mean, index)
        return replace(s, context=lattice.context(phase, rows)[1]) if s.unit in self.tunings else s

    def corner(self, axis: int) -> int:
        """The first sample; its table is the widest."""
        value = int(self.planes[axis, 0, 0])
        symbol = np.array([value - START[axis]], np.int16), np.array([CLASSES * TOP_INDEX], np.uint8), -1
        self.symbols[0].append(symbol)
        return value

    def strip(self, s: Strip) -> Int16:
        """Record a strip, with and without tuning."""
        values = s.of(self.planes[s.axis])
        self.symbols[s.unit].append(self._symbols(s, values, None))
        if s.unit in self.tunings:
            self.tuned[s.unit].append(self._symbols(s, values, self.tunings[s.unit]))
        return values - s.predicted

    @staticmethod
    def _symbols(s: Strip, values: Int16, tuning: Tuning | None) -> tuple[Int16, UInt8, int]:
        predicted, turned, fraction = residual_code(s, tuning)
        residual = values - predicted
        return np.where(turned, -residual, residual).ravel(), (CLASSES * s.index + fraction).ravel(), s.group

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
            for group in sorted({group for _, _, group in strips if group >= 0}):
                found = _histogram([x for x in strips if x[2] == group], bits.size).reshape(bits.shape)
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


def _histogram(strips: list[tuple[Int16, UInt8, int]], size: int) -> npt.NDArray[np.int64]:
    """How often each key and residual come, residuals limited to :data:`COUNTED`."""
    result = np.zeros(size, np.int64)
    for m, key, _ in strips:
        place = key.astype(np.intp) * (2 * COUNTED + 1) + (np.clip(m, -COUNTED, COUNTED) + COUNTED)
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
            m = reader.take(table.ravel()).reshape(table.shape)
            values = np.clip(np.where(turned, -m, m) + predicted, LOWEST[s.axis], HIGHEST[s.axis])
        return (values - s.predicted).astype(np.int16)


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
    """

    checksum: int
    colour: bool
    corrections: list[int]
    tunings: dict[int, Tuning]

    def pack(self) -> bytes:
        """Its bytes, see docs/FORMAT.md."""
        nibbles = [c & 15 for c in self.corrections] + [0]
        mask = sum(1 << (unit - FIRST_TUNED) for unit in self.tunings)
        return b"".join(
            [
                self.checksum.to_bytes(4, "little"),
                bytes([int(self.colour)]),
                bytes(a | b << 4 for a, b in zip(nibbles[0::2], nibbles[1::2], strict=True)),
                mask.to_bytes(3, "little"),
                *(self.tunings[unit].tobytes() for unit in sorted(self.tunings)),
            ]
        )

    @classmethod
    def unpack(cls, content: bytes) -> "Parameters":
        """Inverse of :meth:`pack`.

        Raises:
            FormatError: these are not parameters.
        """
        damaged = FormatError("the file is damaged: its lossless parameters cannot be read")
        if len(content) < PARAMETERS or content[4] > 1 or content[9] > 15:
            raise damaged
        nibbles = [n for byte in content[5:10] for n in (byte & 15, byte >> 4)][: 3 * SETS]
        mask = int.from_bytes(content[10:13], "little")
        if mask >> (UNITS - FIRST_TUNED):
            raise damaged
        tunings, at = {}, PARAMETERS
        for unit in (u for u in range(FIRST_TUNED, UNITS) if mask >> (u - FIRST_TUNED) & 1):
            axis, phase = divmod((unit - 1) % 9, 3)
            n = context_channels(phase + 1, axis)
            tunings[unit] = np.frombuffer(content[at : at + n], np.int8)
            at += n
        if at != len(content):
            raise damaged
        checksum = int.from_bytes(content[:4], "little")
        return cls(checksum, bool(content[4]), [(n ^ 8) - 8 for n in nibbles], tunings)


def encode(model: Model, rgb: Bytes, single: bool = False) -> tuple[bytes, tuple[Segment, ...]]:
    """Parameters and segments of a picture `(H, W, 3)`; in one segment if `single`.

    Raises:
        ModelError: the bundle cannot code losslessly.
    """
    tables = tables_of(model)
    colour = bool((rgb[..., 0] != rgb[..., 1]).any() or (rgb[..., 0] != rgb[..., 2]).any())
    planes = to_planes(rgb)[: 3 if colour else 1]
    place = rgb.shape[0], rgb.shape[1], len(planes)
    survey = _Survey(planes)
    walk(*place, functools.partial(predict, model), survey)
    coder = _Encoder(planes, survey, tables)
    walk(*place, coder.again, coder)
    coder.choose()
    corrections, sizes = coder.corrections()
    rest = sum(sizes)
    goal = rest + 1 if single else max(SEGMENT_MINIMUM, rest / SEGMENT_TARGET)
    segments: list[Segment] = []
    writer, count, pending = Writer(tables), 0, 0.0
    for number, (unit, size) in enumerate(zip(coder.symbols, sizes, strict=True), 1):
        for m, key, group in unit:
            table = _table(key >> 2, key & 3, corrections[group] if group >= 0 else 0)
            writer.put(m.astype(np.int32), table)
        count, pending, rest = count + 1, pending + size, rest - size
        if number == UNITS or (pending >= goal and rest >= SEGMENT_MINIMUM / 2):
            segments.append(Segment(count, writer.payload()))
            writer, count, pending = Writer(tables), 0, 0.0
    checksum = zlib.crc32(np.ascontiguousarray(rgb).data)
    content = Parameters(checksum, colour, corrections, coder.tunings).pack()
    packed = _pack(rgb if colour else rgb[..., :1], len(content) + sum(len(s.payload) for s in segments))
    if packed is not None:
        return checksum.to_bytes(4, "little") + bytes([PACKED + colour]), (Segment(UNITS, packed),)
    return content, tuple(segments)


def _differences(samples: Bytes, kind: int) -> Bytes:
    """Samples `(H, W, C)` less the row above (kind 1), less that of the column before, too (2), modulo 256."""
    result = samples.copy()
    if kind:
        result[1:] -= samples[:-1]
    if kind == 2:
        result[:, 1:] -= result[:, :-1].copy()
    return result


def _pack(samples: Bytes, limit: int) -> bytes | None:
    """Samples `(H, W, C)` packed by zstd, with the best kind of differences, if that takes less than `limit` bytes.

    For drawings, text and noise, which the nets do not know. A quick try tells whether a thorough one may pay.
    """
    quick = zstandard.ZstdCompressor(level=3)
    sizes = [len(quick.compress(_differences(samples, k).tobytes())) for k in range(KINDS)]
    kind = int(np.argmin(sizes))
    if sizes[kind] > 1.4 * limit:
        return None
    level = 19 if samples.size <= 1 << 24 else 9
    thorough = zstandard.ZstdCompressor(level=level, write_content_size=False)
    packed = bytes([kind]) + thorough.compress(_differences(samples, kind).tobytes())
    return packed if len(packed) < limit else None


def _unpack(payload: bytes, height: int, width: int, channels: int) -> Bytes:
    """Inverse of :func:`_pack`, `(H, W, 3)`.

    Raises:
        FormatError: these are not so many packed samples.
    """
    damaged = FormatError("the file is damaged: its packed samples cannot be read")
    size = height * width * channels
    if not payload or payload[0] >= KINDS:
        raise damaged
    try:
        raw = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(payload[1:]).read(size + 1)
    except (zstandard.ZstdError, MemoryError) as e:
        raise damaged from e
    if len(raw) != size:
        raise damaged
    samples = np.frombuffer(raw, np.uint8).reshape(height, width, channels)
    if payload[0] == 2:
        samples = np.add.accumulate(samples, axis=1, dtype=np.uint8)
    if payload[0]:
        samples = np.add.accumulate(samples, axis=0, dtype=np.uint8)
    return np.repeat(samples, 3 // channels, axis=2)


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
