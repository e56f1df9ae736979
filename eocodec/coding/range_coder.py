"""The range coder: integers around zero under the tables of a bundle, to bytes and back.

In: integers and the index of the table of each, or bytes and these indices. Out: bytes, or the integers. The coder
itself is `constriction`'s; escapes, the order of symbols and the shortest ends of streams stand here (docs/FORMAT.md,
"Entropy model").
"""

from typing import Any, NamedTuple, Protocol

import constriction
import numpy as np
import numpy.typing as npt

from eocodec.errors import FormatError
from eocodec.model.bundle import Model

__all__ = [
    "ESCAPE_CLASSES",
    "MAX_ESCAPE_CLASS",
    "CodingTables",
    "Ordered",
    "Reader",
    "Tables",
    "Writer",
    "shortest",
    "tables_of",
]

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.signedinteger[Any]]

ESCAPE_CLASSES = 32
MAX_ESCAPE_CLASS = 22  # |m| stays below 2**23
FEW = 32  # symbols, up to which Python looks for something sooner than NumPy
MANY = 4096  # symbols, from which on it pays to look for a table that most of them have
SAMPLE = 256  # symbols that are looked at for it
PIECE = 1 << 14  # symbols under that table that are worked at at once

_EACH = constriction.stream.model.Categorical(perfect=False)


class Tables:
    """The bundle's frequency tables as models of the range coder, and their code lengths."""

    def __init__(self, model: Model) -> None:
        # Symbol s of table k is the residual m = s − R for |m| < R; s = 0 and s = 2R escape to larger magnitudes.
        # Passed as integers f − 1 that sum to 2**24 − n, which the fast construction reproduces exactly as f.
        self.models = [
            constriction.stream.model.Categorical(
                np.concatenate([f[:0:-1], f]).astype(np.float64) - 1.0, perfect=False, lazy=False
            )
            for f in model.tables
        ]
        self.radius = np.array([len(f) - 1 for f in model.tables], np.int32)
        self.weight = model.any_manifest.dead_zone
        bits = [24 - np.log2(f[: min(len(f), 3)].astype(np.float64)) for f in model.tables]
        first = [b[1] - b[0] for b in bits]
        later = [(b[2] - b[1]) if len(b) > 2 else b[1] - b[0] for b in bits]
        self.first, self.later = (np.clip(np.array(v), 0, 12) for v in (first, later))  # bits of going up by one

    def round(self, residual: Float32, index: UInt8, weight: float | None = None) -> Int32:
        """Rate-distortion optimal integers of residuals (steps): up only if the distortion saved pays the bits.

        Arguments:
            residual: in steps.
            index: of the table of each.
            weight: of the rate, squared steps per bit; None is that of the manifest.
        """
        half = 0.5 * (self.weight if weight is None else weight)
        first, later = ((0.5 + half * v).astype(np.float32) for v in (self.first, self.later))
        magnitude = np.abs(residual)
        result = np.zeros(residual.shape, np.int32)
        up = np.flatnonzero(magnitude >= first.take(index))  # few are, in most bands
        m = (np.float32(1) - later).take(index.ravel()[up])
        m += magnitude.ravel()[up]
        np.floor(m, out=m)
        np.maximum(m, 1, out=m)
        result.ravel()[up] = np.copysign(m, residual.ravel()[up], out=m)
        return result


def tables_of(model: Model) -> Tables:
    """The model's :class:`Tables`, made once."""
    return model.derived(Tables)


class CodingTables(Protocol):
    """Tables a stream is coded with: table k has the symbols m + R, R its radius; s = 0 and s = 2R escape."""

    models: list[Any]
    radius: Int32


class Ordered:
    """Residuals as :meth:`Writer.put` appends them, for who writes them several times.

    Arguments:
        m: residuals `(n,)`.
        index: of the table of each.
        tables: of the writer.
    """

    def __init__(self, m: Integers, index: UInt8, tables: CodingTables) -> None:
        g = _grouped(index, tables)
        self.runs, self.most = g.runs, g.most
        self.usual = m[g.mask] if g.most >= 0 else m[:0]
        # All of a strip at once: single groups are often so short that calls would take longer than work.
        self.symbols, places, self.extra = _folded(m[g.order], g.radius)
        self.ends = np.searchsorted(places, [stop for _, _, stop in g.runs]).tolist()


class Writer:
    """A segment under construction."""

    def __init__(self, tables: CodingTables) -> None:
        self.tables = tables
        self.coder = constriction.stream.queue.RangeEncoder()

    def put(self, m: Integers, index: UInt8) -> None:
        """Append residuals in order of table index, then of position; escapes follow their group."""
        self.write(Ordered(m, index, self.tables))

    def write(self, ordered: "Ordered") -> None:
        """Append residuals that are in order."""
        begin = 0
        for (k, start, stop), end in zip(ordered.runs, ordered.ends, strict=True):
            if k == ordered.most:
                self._put_group(ordered.usual, k)
                continue
            self.coder.encode(ordered.symbols[start:stop], self.tables.models[k])
            if end > begin:
                self._escape(ordered.extra[begin:end])
                begin = end

    def _put_group(self, m: Integers, k: int) -> None:
        """Append residuals under one table; piece by piece, since buffers of megabytes are slow to come by."""
        radius = self.tables.radius[k : k + 1]
        if np.maximum.reduce(m) < radius[0] and np.minimum.reduce(m) > -radius[0]:
            for start in range(0, len(m), PIECE):
                symbols = np.add(m[start : start + PIECE], radius, dtype=np.int32)
                self.coder.encode(symbols, self.tables.models[k])
            return
        symbols, _, extra = _folded(m, radius)
        self.coder.encode(symbols, self.tables.models[k])
        self._escape(extra)

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

    def put_each(self, symbols: Int32, frequencies: Float64) -> None:
        """Append symbols that have a table each.

        Arguments:
            symbols: `(n,)`.
            frequencies: less one, integers, of all symbols, `(n, symbols)`; they sum to 2**24 − symbols.
        """
        self.coder.encode(symbols, _EACH, frequencies)

    def put_tails(self, distances: Int32, index: npt.NDArray[np.integer[Any]], tails: list[Any], last: Int32) -> None:
        """Append distances in order of table index, then of position; escapes follow their group.

        Arguments:
            distances: 0 and more, `(n,)`.
            index: of the table of each.
            tails: tables.
            last: symbol of each, which escapes.
        """
        for k in np.flatnonzero(np.bincount(index)).tolist():
            group = distances[index == k]
            self.coder.encode(np.minimum(group, last[k]), tails[k])
            if (group >= last[k]).any():
                self._escape(group[group >= last[k]] - last[k])

    def put_uniform(self, values: Int32, count: int) -> None:
        """Append values from 0 to `count` − 1 that are all as likely."""
        self.coder.encode(values.astype(np.int32), constriction.stream.model.Uniform(count))

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
        g = _grouped(index, self.tables)
        symbols = np.empty(len(g.order), np.int32)
        m = np.zeros(len(index), np.int32)
        places: list[npt.NDArray[np.intp]] = []
        extra: list[Int32] = []
        try:
            for k, start, stop in g.runs:
                if k == g.most:
                    self._take_group(k, m, g.mask)
                    continue
                group = self.coder.decode(self.tables.models[k], stop - start)
                symbols[start:stop] = group
                escaped = _escaped(group, int(self.tables.radius[k]))
                if escaped is not None:
                    places.append(start + escaped)
                    extra.append(self._escape(len(escaped)))
        except (ValueError, AssertionError) as e:
            raise FormatError("the file is damaged: a segment cannot be decoded") from e
        symbols -= g.radius
        if places:
            beyond = np.concatenate(places)
            symbols[beyond] += np.sign(symbols[beyond]) * np.concatenate(extra)
        m[g.order] = symbols
        return m

    def _take_group(self, k: int, m: Int32, mask: npt.NDArray[np.bool_]) -> None:
        """Residuals under one table to their places among zeros; piece by piece, see :meth:`Writer._put_group`."""
        radius = int(self.tables.radius[k])
        places = np.flatnonzero(mask)
        escapes: list[npt.NDArray[np.intp]] = []
        for start in range(0, len(places), PIECE):
            where = places[start : start + PIECE]
            symbols: Int32 = self.coder.decode(self.tables.models[k], len(where))
            escaped = _escaped(symbols, radius)
            if escaped is not None:
                escapes.append(where[escaped])
            symbols -= np.int32(radius)
            if symbols.any():
                m[where] = symbols
        if escapes:
            beyond = np.concatenate(escapes)
            m[beyond] += np.sign(m[beyond]) * self._escape(len(beyond))

    def take_each(self, frequencies: Float64) -> Int32:
        """Symbols `(n,)` under tables of their own `(n, symbols)`, the inverse of :meth:`Writer.put_each`.

        Raises:
            FormatError: the segment cannot be decoded.
        """
        try:
            return np.asarray(self.coder.decode(_EACH, frequencies), np.int32)
        except (ValueError, AssertionError) as e:
            raise FormatError("the file is damaged: a segment cannot be decoded") from e

    def take_tails(self, index: npt.NDArray[np.integer[Any]], tails: list[Any], last: Int32) -> Int32:
        """Distances `(n,)` for these table indices `(n,)`, the inverse of :meth:`Writer.put_tails`.

        Raises:
            FormatError: the segment cannot be decoded.
        """
        result = np.zeros(len(index), np.int32)
        try:
            for k in np.flatnonzero(np.bincount(index)).tolist():
                places = np.flatnonzero(index == k)
                group = np.asarray(self.coder.decode(tails[k], len(places)), np.int32)
                escaped = group == last[k]
                if escaped.any():
                    group[escaped] += self._escape(int(escaped.sum()))
                result[places] = group
        except (ValueError, AssertionError) as e:
            raise FormatError("the file is damaged: a segment cannot be decoded") from e
        return result

    def take_uniform(self, number: int, count: int) -> Int32:
        """So many values from 0 to `count` − 1, the inverse of :meth:`Writer.put_uniform`."""
        try:
            return np.asarray(self.coder.decode(constriction.stream.model.Uniform(count), number), np.int32)
        except (ValueError, AssertionError) as e:
            raise FormatError("the file is damaged: a segment cannot be decoded") from e

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


class _Groups(NamedTuple):
    """Places by table: those of the table that most of them have as a mask, all others in order.

    Arguments:
        runs: every table in use with its run in `order`, start and stop; that of `most` is empty.
        order: places, stable by table index.
        radius: of the table of each of these.
        most: the table that more than half of all places have; −1 if there are few places, or is no such table.
        mask: where it is.
    """

    runs: list[tuple[int, int, int]]
    order: npt.NDArray[np.intp]
    radius: Int32
    most: int
    mask: npt.NDArray[np.bool_]


def _grouped(index: UInt8, tables: CodingTables) -> _Groups:
    """The groups of table indices `(n,)`; in the finest bands nearly all are the same, and need not be sorted."""
    most, mask = -1, np.empty(0, np.bool_)
    if len(index) >= MANY:
        likely = int(np.bincount(index[:: len(index) // SAMPLE]).argmax())
        mask = index == likely
        if 2 * np.count_nonzero(mask) > len(index):
            most = likely
    if most < 0:
        order = np.argsort(index, kind="stable")
        counts = np.bincount(index, minlength=1)
    else:
        rest = np.flatnonzero(index != most)
        others = index[rest]
        order = rest[np.argsort(others, kind="stable")]
        counts = np.bincount(others, minlength=most + 1)
    ends = np.cumsum(counts).tolist()
    used = [k for k, count in enumerate(counts.tolist()) if count or k == most]
    runs = [(k, ends[k - 1] if k else 0, ends[k]) for k in used]
    return _Groups(runs, order, np.repeat(tables.radius[: len(counts)], counts), most, mask)


def _escaped(symbols: Int32, radius: int) -> npt.NDArray[np.intp] | None:
    """Which symbols under a table of this radius escape, None if none does."""
    if len(symbols) <= FEW:
        listed = symbols.tolist()
        if 0 not in listed and 2 * radius not in listed:
            return None
    elif np.maximum.reduce(symbols) < 2 * radius and np.minimum.reduce(symbols) > 0:
        return None
    return np.flatnonzero((symbols == 0) | (symbols == 2 * radius))


def _folded(m: Integers, radius: Int32) -> tuple[Int32, npt.NDArray[np.intp], Int32]:
    """Symbols of residuals, and which of them escape by how much; the tables' radii are one, or one of each."""
    m = m.astype(np.int32, copy=False)
    symbols = np.maximum(m, -radius)
    np.minimum(symbols, radius, out=symbols)
    symbols += radius
    magnitude = np.abs(m)
    places = np.flatnonzero(magnitude >= radius)
    return symbols, places, magnitude[places] - (radius[places] if len(radius) > 1 else radius)
