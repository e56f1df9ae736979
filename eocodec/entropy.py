"""The integer entropy model and the range coder around it.

In: latents in units of their steps (encoder) or segments (decoder). Out: segments, or integers and conditional means.
Everything a symbol's distribution depends on is integer arithmetic (docs/FORMAT.md, "Entropy model"): the graphs
under `entropy/` hold integers in float32 whose partial sums stay below 2**24, so they are exact in any order of
summation, on any machine, with any number of threads. The coder is `constriction`'s range coder.

A latent's value is m + μ/16 steps: μ the integer mean from the graphs, m the coded residual.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import constriction
import numpy as np
import numpy.typing as npt

from eocodec.bundle import Model
from eocodec.errors import FormatError
from eocodec.format import STEP_UNIT, Header, Segment
from eocodec.latents import PHASES, Unit, condition_code, units

__all__ = [
    "Encoder",
    "SymbolCoder",
    "Walk",
    "activity_class",
    "compand",
    "decode",
    "encode",
    "finish",
    "foresee",
    "lattices",
    "shortest",
]

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

STRIP = 65536  # grid positions of a strip; nets and coder work strip by strip
MEAN_UNIT = 16
MARGIN = 1  # latents coded beyond the right and bottom edge, see docs/METHOD.md
ESCAPE_CLASSES = 32
LOW_SCALE_OCTAVES = 69  # table index of the low-pass corner at Δ = 1 level, see docs/FORMAT.md
MAX_ESCAPE_CLASS = 22  # |m| stays below 2**23
MAX_LOW = 1 << 24  # keeps hostile values within int32
LEVEL_UNITS = 6  # coding units of a wavelet level
SEGMENT_TARGET = 12  # a file aims at this many segments …
SEGMENT_MINIMUM = 1024  # … of at least this many bytes
SINGLE_SEGMENT_PIXELS = 64 * 64  # icons are not worth cutting: one segment keeps their overhead at 24 bytes


class SymbolCoder(Protocol):
    """What :class:`Walk` calls for every strip of every unit."""

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Low-pass integers `(h, w)` at lattice `place` (channel, rows, columns)."""

    def wants(self, unit: int) -> bool:
        """Whether anything is coded from this unit on; if not, the walk ends before its level."""

    def begin(self, unit: int) -> None:
        """The next unit starts."""

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Values of a strip's latents in 1/16 steps; `mean`, `index`, result: `(phases, channels, rows, columns)`.

        For coders of residuals m that is 16 m + mean.
        """


class Walk:
    """Visits all units of a picture in file order, keeps what the nets need and asks a coder for the residuals.

    Arguments:
        model: the bundle.
        header: of the file; width, height and step matter.
    """

    graphs = "entropy"  # folder of the nets

    def __init__(self, model: Model, header: Header) -> None:
        self.model, self.header = model, header
        self.levels = model.manifest.levels
        self.condition = condition_code(header.step)
        multiple = model.multiple
        self.grid = (-(-header.height // multiple), -(-header.width // multiple))  # of the coarsest level's quads

    def band_size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's bands that are coded (0: the low-pass).

        Those in the picture and :data:`MARGIN` beyond, which the last rows and columns are synthesised from.
        """
        n = 2 ** (level or self.levels)
        height, width = self.grid_size(level or self.levels)
        rows, columns = (-(-size // n) + MARGIN for size in (self.header.height, self.header.width))
        return min(rows, 2 * height), min(columns, 2 * width)

    def grid_size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's quad grid, padding included."""
        n = 2 ** (self.levels - level)
        return self.grid[0] * n, self.grid[1] * n

    def run(self, coder: SymbolCoder) -> Int32:
        """Code all units; returns the low-pass integers `(3, h, w)` with the padding repeated from the edge."""
        coder.begin(0)
        low = self.low_pass(coder)
        self.details(coder, np.clip(low, -MAX_LOW, MAX_LOW) * MEAN_UNIT)
        return low

    def details(self, coder: SymbolCoder, low: Int32) -> None:
        """Code all units but the first, given the low-pass `(3, h, w)` in 1/16 steps."""
        gradients = np.zeros((6, *low.shape[1:]), np.int32)
        gradients[:3, :, :-1] = np.diff(low, axis=2)
        gradients[3:, :-1] = np.diff(low, axis=1)
        companded = self._compand(gradients)
        coarser = np.concatenate([companded[:, i::2, j::2] for i, j in PHASES])
        feature: UInt8 | None = None
        number = 1
        for level in range(self.levels, 0, -1):
            if not coder.wants(number):
                break
            feature = self._feature(level, coarser, feature)
            coarser = self._level(level, feature, coder, number)
            number += LEVEL_UNITS

    def _strips(self, level: int) -> Iterator[slice]:
        height, width = self.grid_size(level)
        rows = max(2, STRIP // width // 2 * 2)
        for start in range(0, height, rows):
            yield slice(start, min(start + rows, height))

    def _compand(self, v: Int32) -> Int8:
        return compand(self.model, v)

    def _known(self, level: int, rows: slice) -> dict[str, npt.NDArray[Any]]:
        """What feature nets see besides, rows of the quad grid; nothing here."""
        return {}

    def _plane(self, rows: int, columns: int) -> Int8:
        return np.full((1, 1, rows, columns), self.condition, np.int8)

    def _feature(self, level: int, coarser: Int8, previous: UInt8 | None) -> UInt8:
        height, width = self.grid_size(level)
        result: UInt8 | None = None
        for rows in self._strips(level):
            top, bottom = max(0, rows.start - 2), min(height, rows.stop + 2)
            inputs: dict[str, npt.NDArray[Any]] = {
                "coarser": coarser[None, :, top:bottom],
                "condition": self._plane(bottom - top, width),
            }
            if previous is not None:
                inputs["previous"] = previous[None, :, top // 2 : bottom // 2]
            inputs.update(self._known(level, slice(top, bottom)))
            (out,) = self.model.run(f"{self.graphs}/feature{level}", inputs)
            if rows.start == 0 and rows.stop == height:
                return np.asarray(out[0], np.uint8)
            if result is None:
                result = np.empty((out.shape[1], height, width), np.uint8)
            result[:, rows] = out[0, :, rows.start - top : rows.stop - top]
        assert result is not None
        return result

    def _level(self, level: int, feature: UInt8, coder: SymbolCoder, number: int) -> Int8:
        """Code the six units of a level; returns its companded latents `(9, 2 gh, 2 gw)`."""
        height, width = self.grid_size(level)
        band_height, band_width = self.band_size(level)
        seen = np.zeros((24, height, width), np.int8)  # luma phases, then the first chroma pair
        result = np.zeros((9, 2 * height, 2 * width), np.int8)
        for k, unit in enumerate(units(self.levels)[number : number + LEVEL_UNITS]):
            coder.begin(number + k)
            luma = unit.kind == "luma"
            context = 3 * unit.index if luma else 12 + 12 * unit.index
            valid = [((band_height - PHASES[p][0] + 1) // 2, (band_width - PHASES[p][1] + 1) // 2) for p in unit.phases]
            channels = unit.channels.stop - unit.channels.start
            for rows in self._strips(level):
                top, bottom = max(0, rows.start - 1), min(height, rows.stop + 1)
                inputs: dict[str, npt.NDArray[Any]] = {
                    "feature": feature[None, :, top:bottom],
                    "condition": self._plane(bottom - top, width),
                }
                if context:
                    inputs["seen"] = seen[None, :context, top:bottom]
                mean, index = (
                    o[0, :, rows.start - top : rows.stop - top].reshape(len(unit.phases), channels, -1, width)
                    for o in self.model.run(f"{self.graphs}/{unit.kind}{level}_{unit.index}", inputs)
                )
                mean = mean.astype(np.int32)
                companded = self._compand(coder.strip(unit, rows, valid, mean, index))
                if context + len(unit.phases) * channels <= len(seen):
                    seen[context : context + len(unit.phases) * channels, rows] = companded.reshape(
                        -1, rows.stop - rows.start, width
                    )
                for c, p in zip(companded, unit.phases, strict=True):
                    i, j = PHASES[p]
                    result[unit.channels, 2 * rows.start + i : 2 * rows.stop : 2, j::2] = c
        return result

    def low_pass(self, coder: SymbolCoder) -> Int32:
        """The low-pass by interpolation from a single corner: lattices of stride 2**K, …, 2, 1."""
        height, width = self.band_size(0)
        q = np.zeros((3, height, width), np.int32)
        corner = min(max(LOW_SCALE_OCTAVES - 5 * (self.header.step - 32768) // STEP_UNIT, 0), 63)
        for channel in range(3):
            zero = np.zeros((1, 1), np.int32)
            index = np.full((1, 1), corner, np.uint8)
            q[channel, :1, :1] = coder.low(zero, index, (channel, slice(0, 1), slice(0, 1)))
        stride = 1 << (max(height, width) - 1).bit_length()
        while stride > 1:
            half = stride // 2
            for channel in range(3):
                for kind, rows, columns, predicted, activity in lattices(q[channel], half):
                    table = np.asarray(self.model.manifest.low_index[channel][kind], np.uint8)
                    index = table[np.minimum(activity_class(activity), len(table) - 1)]
                    q[channel, rows, columns] = coder.low(predicted, index, (channel, rows, columns))
            stride = half
        full = (2 * self.grid[0], 2 * self.grid[1])
        return np.pad(q, ((0, 0), (0, full[0] - height), (0, full[1] - width)), "edge")


def compand(model: Model, v: Int32) -> Int8:
    """What the nets see of values in 1/16 steps: by table, odd in v."""
    magnitude = model.compand_table.astype(np.int8)
    last = len(magnitude) - 1
    table = np.concatenate([-magnitude[:0:-1], magnitude])
    place = np.clip(v, -last, last)
    place += last
    return table[place]


def activity_class(activity: Int32) -> Int32:
    """0, 1, 2, 3, then two classes per octave: 4–5, 6–7, 8–11, 12–15, …"""
    a = np.minimum(activity, 1 << 20)
    length = np.frexp(np.maximum(a, 1).astype(np.float64))[1]  # bit length, exact for integers below 2**53
    second = (a >> np.maximum(length - 2, 0)) & 1
    return np.where(a < 4, a, 2 * length + second - 2).astype(np.int32)


def lattices(q: Int32, half: int) -> Iterator[tuple[int, slice, slice, Int32, Int32]]:
    """The three lattices that take q from stride 2·half to `half`: (kind, rows, columns, prediction, activity).

    The caller fills q at a lattice before it asks for the next. Each prediction is the rounded mean of four
    neighbours; a neighbour outside the picture is replaced by the nearest one of its row or column. Kinds 0 and 1 are
    diagonal and straight neighbours at half = 1, 2 and 3 at half = 2, 4 and 5 beyond.
    """
    height, width = q.shape
    scale = 2 * min(half.bit_length() - 1, 2)
    stride = 2 * half
    known = q[::stride, ::stride]
    diagonal = q[half::stride, half::stride]
    a, b = diagonal.shape
    if a and b:
        wide = np.pad(known, ((0, 1), (0, 1)), "edge")
        four = np.stack([wide[:a, :b], wide[:a, 1 : b + 1], wide[1 : a + 1, :b], wide[1 : a + 1, 1 : b + 1]])
        yield scale, slice(half, height, stride), slice(half, width, stride), *_combine(four)
    for vertical in (False, True):
        target = q[half::stride, ::stride] if vertical else q[::stride, half::stride]
        a, b = target.shape
        if not (a and b):
            continue
        axis = 0 if vertical else 1
        n = target.shape[axis]
        pad = ((0, 1), (0, 0)) if vertical else ((0, 0), (0, 1))
        along = np.pad(known, pad, "edge")
        first, second = (along.take(range(k, k + n), axis) for k in (0, 1))
        if diagonal.size:
            pad = ((0, 0), (1, 1)) if vertical else ((1, 1), (0, 0))
            across = np.pad(diagonal, pad, "edge")
            m = target.shape[1 - axis]
            third, fourth = (across.take(range(k, k + m), 1 - axis) for k in (0, 1))
        else:
            third, fourth = first, second
        rows, columns = (slice(half, height, stride), slice(0, width, stride))
        if not vertical:
            rows, columns = slice(0, height, stride), slice(half, width, stride)
        yield scale + 1, rows, columns, *_combine(np.stack([first, second, third, fourth]))


def _combine(four: Int32) -> tuple[Int32, Int32]:
    return (four.sum(0, dtype=np.int32) + 2) >> 2, four.max(0) - four.min(0)


class Tables:
    """The bundle's frequency tables as models of the range coder, and their code lengths."""

    def __init__(self, model: Model) -> None:
        self.frequencies = model.tables
        # Symbol s of table k is the residual m = s − R for |m| < R; s = 0 and s = 2R escape to larger magnitudes.
        # Passed as integers f − 1 that sum to 2**24 − n, which the fast construction reproduces exactly as f.
        self.models = [
            constriction.stream.model.Categorical(
                np.concatenate([f[:0:-1], f]).astype(np.float64) - 1.0, perfect=False, lazy=False
            )
            for f in model.tables
        ]
        self.radius = np.array([len(f) - 1 for f in model.tables], np.int32)
        weight = model.any_manifest.dead_zone
        bits = [24 - np.log2(f[: min(len(f), 3)].astype(np.float64)) for f in model.tables]
        first = [b[1] - b[0] for b in bits]
        later = [(b[2] - b[1]) if len(b) > 2 else b[1] - b[0] for b in bits]
        self.first, self.later = (
            (0.5 + 0.5 * weight * np.clip(np.array(v), 0, 12)).astype(np.float32) for v in (first, later)
        )

    def round(self, residual: Float32, index: UInt8) -> Int32:
        """Rate-distortion optimal integers of residuals (steps): up only if the distortion saved pays the bits."""
        magnitude = np.abs(residual)
        m = (np.float32(1) - self.later)[index]
        m += magnitude
        np.floor(m, out=m)
        np.maximum(m, 1, out=m)
        m *= magnitude >= self.first[index]
        return np.copysign(m, residual, out=m).astype(np.int32)


def tables_of(model: Model) -> Tables:
    """The model's :class:`Tables`, made once."""
    cached = model.__dict__.get("_tables")
    if cached is None:
        cached = model.__dict__["_tables"] = Tables(model)
    return cached


class CodingTables(Protocol):
    """Tables a stream is coded with: table k has the symbols m + R, R its radius; s = 0 and s = 2R escape."""

    models: list[Any]
    radius: Int32


class Writer:
    """A segment under construction."""

    def __init__(self, tables: CodingTables) -> None:
        self.tables = tables
        self.coder = constriction.stream.queue.RangeEncoder()

    def put(self, m: Int32, index: UInt8) -> None:
        """Append residuals in order of table index, then of position; escapes follow their group."""
        order, groups, radius = _grouped(index, self.tables)
        m = m[order]
        symbols = np.maximum(m, -radius)
        np.minimum(symbols, radius, out=symbols)
        symbols += radius
        # All of a strip at once: single groups are often so short that calls would take longer than work.
        magnitude = np.abs(m)
        places = np.flatnonzero(magnitude >= radius)
        extra = magnitude[places] - radius[places]
        ends = np.searchsorted(places, [stop for _, _, stop in groups]).tolist()
        begin = 0
        for (k, start, stop), end in zip(groups, ends, strict=True):
            self.coder.encode(symbols[start:stop], self.tables.models[k])
            if end > begin:
                self._escape(extra[begin:end])
                begin = end

    def _escape(self, extra: Int32) -> None:
        """Exp-Golomb: the class n = bit length of extra + 1, uniform in 0 … 31; then n − 1 low bits, by class."""
        value = extra.astype(np.int64) + 1
        length = np.frexp(value.astype(np.float64))[1].astype(np.int32) - 1
        self.coder.encode(length, constriction.stream.model.Uniform(ESCAPE_CLASSES))
        for n in np.flatnonzero(np.bincount(length)).tolist():
            if n:
                low = (value[length == n] - (1 << n)).astype(np.int32)
                self.coder.encode(low & 0xFFF, constriction.stream.model.Uniform(1 << min(n, 12)))
                if n > 12:
                    self.coder.encode(low >> 12, constriction.stream.model.Uniform(1 << (n - 12)))

    def size(self) -> int:
        """Bytes so far."""
        return int(self.coder.num_words()) * 4

    def shortest(self) -> bytes:
        """The shortest finished stream, see :func:`shortest`."""
        return shortest(self.coder)

    def payload(self) -> bytes:
        """The finished stream: 32-bit words, little-endian, trailing zero bytes dropped."""
        words = self.coder.get_compressed().astype("<u4").tobytes()
        return words.rstrip(b"\0")


def shortest(coder: Any) -> bytes:
    """The shortest stream of a constriction range encoder: most significant byte first, continued by zeros.

    Any number in the encoder's last interval decodes to what was encoded; this is the one with the fewest bytes.
    """
    words, (lower, size) = coder.pos()
    sealed = [*coder.get_compressed().tolist(), 0][: words + 1]  # ends with `lower` rounded up to a word
    top = 0
    for word in sealed:
        top = top << 32 | word
    start = (top << 32) - (-lower & 0xFFFFFFFF)
    total = 4 * (words + 2)
    length, value = 0, 0
    while value << 8 * (total - length) < start or value << 8 * (total - length) >= start + size:
        length += 1  # at full length the value is `start` itself
        value = -(-start >> 8 * (total - length))
    return bytes(value.to_bytes(length, "big"))


class Reader:
    """A segment being read; a stream that ends early reads as zeros."""

    def __init__(self, tables: CodingTables, payload: bytes) -> None:
        self.tables = tables
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4").astype(np.uint32)
        self.coder = constriction.stream.queue.RangeDecoder(words)

    def take(self, index: UInt8) -> Int32:
        """Residuals for these table indices, the inverse of :meth:`Writer.put`."""
        order, groups, radius = _grouped(index, self.tables)
        symbols = np.empty(len(index), np.int32)
        places: list[npt.NDArray[np.intp]] = []
        extra: list[Int32] = []
        try:
            for k, start, stop in groups:
                group = self.coder.decode(self.tables.models[k], stop - start)
                symbols[start:stop] = group
                escape = 2 * int(self.tables.radius[k])
                if np.maximum.reduce(group) == escape or np.minimum.reduce(group) == 0:
                    escaped = np.flatnonzero((group == 0) | (group == escape))
                    places.append(start + escaped)
                    extra.append(self._escape(len(escaped)))
        except (ValueError, AssertionError) as e:
            raise FormatError("the file is damaged: a segment cannot be decoded") from e
        symbols -= radius
        if places:
            beyond = np.concatenate(places)
            symbols[beyond] += np.sign(symbols[beyond]) * np.concatenate(extra)
        m = np.empty(len(index), np.int32)
        m[order] = symbols
        return m

    def _escape(self, count: int) -> Int32:
        length = self.coder.decode(constriction.stream.model.Uniform(ESCAPE_CLASSES), count)
        if length.max() > MAX_ESCAPE_CLASS:
            raise FormatError("the file is damaged: a latent is out of range")
        value = np.left_shift(1, length.astype(np.int64))
        for n, members in enumerate(np.bincount(length).tolist()):
            if n and members:
                chosen = length == n
                low = self.coder.decode(constriction.stream.model.Uniform(1 << min(n, 12)), members).astype(np.int64)
                if n > 12:
                    high = self.coder.decode(constriction.stream.model.Uniform(1 << (n - 12)), members)
                    low += high.astype(np.int64) << 12
                value[chosen] += low
        return (value - 1).astype(np.int32)


def _grouped(index: UInt8, tables: CodingTables) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]], Int32]:
    """Stable order by table index, the runs (index, start, stop) in it, and the radius of each place's table."""
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index, minlength=1)
    ends = np.cumsum(counts).tolist()
    groups = [(k, ends[k - 1] if k else 0, ends[k]) for k in np.flatnonzero(counts).tolist()]
    return order, groups, np.repeat(tables.radius[: len(counts)], counts)


def _cut(a: npt.NDArray[Any], rows: slice, valid: tuple[int, int]) -> npt.NDArray[Any]:
    """The part of a strip `(channels, rows, columns)` that lies in the picture."""
    return a[:, : max(0, min(rows.stop, valid[0]) - rows.start), : valid[1]]


def _flat(a: npt.NDArray[Any], rows: slice, valid: list[tuple[int, int]]) -> npt.NDArray[Any]:
    """Symbols of a strip in coding order: phase, channel, row, column."""
    return np.concatenate([_cut(x, rows, v).ravel() for x, v in zip(a, valid, strict=True)])


def _unflat(m: Int32, like: Int32, rows: slice, valid: list[tuple[int, int]]) -> Int32:
    """Inverse of :func:`_flat`; zero outside the picture."""
    result = np.zeros_like(like)
    at = 0
    for x, v in zip(result, valid, strict=True):
        part = _cut(x, rows, v)
        part[...] = m[at : at + part.size].reshape(part.shape)
        at += part.size
    return result


class Dequantiser:
    """Latents `[LL (3, h, w), details L (9, h, w), …]` from residuals, unit by unit; what is not coded stays zero."""

    def __init__(self, model: Model, steps: list[Float32], walk: Walk) -> None:
        self.levels = model.manifest.levels
        self.steps = steps
        # What centroids take from residuals of −3 and below, −2, …, 3 and above, by table index.
        shift = np.array(model.manifest.shift, np.float32) / 256
        self.shift = np.concatenate([-shift[:, ::-1], np.zeros((len(shift), 1), np.float32), shift], 1).ravel()
        self.latents: list[Float32] = []
        for level in [0, *range(self.levels, 0, -1)]:
            height, width = walk.grid_size(level or self.levels)
            self.latents.append(np.zeros((9 if level else 3, 2 * height, 2 * width), np.float32))

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
        band, step = self.latents[k][unit.channels], self.steps[k][unit.channels]
        for v, p in zip(value, unit.phases, strict=True):
            i, j = PHASES[p]
            np.multiply(v, step, out=band[:, i::2, j::2][:, rows])


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
        band = self.targets[1 + self.levels - unit.level][unit.channels]
        y = np.stack([band[:, i::2, j::2][:, rows] for i, j in (PHASES[p] for p in unit.phases)])
        m = self.tables.round(y - mean.astype(np.float32) * np.float32(1 / MEAN_UNIT), index)
        flat = _flat(m, rows, valid)
        self._record(flat, _flat(index, rows, valid))
        m = _unflat(flat, m, rows, valid)
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
            m = _unflat(self.reader.take(_flat(index, rows, valid)), mean, rows, valid)
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
