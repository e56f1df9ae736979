"""Weights of the values of lossless files: which levels a picture has more often than its neighbours say.

In: predictions with their tables, and the values of the axes before. Out: frequencies of the values around each
prediction, those of the table times the weights; and the weights that suit a picture.

Many a picture has levels that come often and others that never come: after a tone curve, from the steps of chroma in a
JPEG file or a scanner, or from few colours. Nets that predict from differences cannot know them. So Y, Co and Cg may
have a weight for every value, and Cg, which decides the colour once Y and Co are known, weights of R, G and B as well.
docs/FORMAT.md, "Lossless files", gives every integer.

References:
    Deming & Stephan, *On a least squares adjustment of a sampled frequency table when the expected marginal totals are
    known*, Annals of Mathematical Statistics 11, 1940. https://doi.org/10.1214/aoms/1177731829
    Pinho, *A comparison of methods for improving the lossless compression of images with sparse histograms*, ICIP 2002.
    https://doi.org/10.1109/ICIP.2002.1040042
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from eocodec.coding import frames
from eocodec.coding.lattice import HIGHEST, LOWEST
from eocodec.coding.lossless_tables import WINDOW, LosslessTables
from eocodec.coding.range_coder import Reader, Writer
from eocodec.errors import FormatError

__all__ = ["LIMIT", "Places", "Weights", "fit", "frequencies", "put", "take"]

LIMIT = 136  # table from which on a sample is coded without weights, for the window is small beside its scale
OCTAVE = 8  # units of an octave
LEAST, MOST = -8 * OCTAVE, 3 * OCTAVE  # of a weight, and of the sum of weights
RANGES = ((LOWEST[0], HIGHEST[0]), (LOWEST[1], HIGHEST[1]), (LOWEST[2], HIGHEST[2]), (0, 255), (0, 255), (0, 255))
OF_AXIS = ((0,), (1,), (2, 3, 4, 5))  # which of Y, Co, Cg, R, G, B weigh the values of an axis
FREE = (1 << 24) - (2 * WINDOW + 3)  # what is left when every symbol has one
PIECE = 1 << 14  # samples whose frequencies are made at a time
ROUNDS = 6  # of fitting
SAMPLES = 1 << 17  # of an axis, that its weights are fitted to
PRIOR = 8.0  # times that every value is taken to have come as expected
SAVING = 0.002  # of an axis's bits, that weights must save besides what they take

Floats = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Logs = npt.NDArray[np.int16]
Integers = npt.NDArray[Any]

_FACTORS = np.floor(256 * np.exp2(np.arange(LEAST, MOST + 1) / OCTAVE) + 0.5)


@dataclass(frozen=True)
class Places:
    """Samples of an axis whose values may be weighted.

    Arguments:
        axis: of the samples.
        table: of each `(n,)`.
        turned: where the table is that of the negative residual.
        predicted: values.
        finished: values of the axes before, `(n,)` each.
    """

    axis: int
    table: Integers
    turned: npt.NDArray[np.bool_]
    predicted: Integers
    finished: Sequence[Integers]

    def __getitem__(self, chosen: Any) -> "Places":
        finished = [f[chosen] for f in self.finished]
        return Places(self.axis, self.table[chosen], self.turned[chosen], self.predicted[chosen], finished)

    @classmethod
    def joined(cls, parts: "Sequence[Places]") -> "Places":
        """All of some places of one axis."""
        table, turned, predicted = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("table", "turned", "predicted")
        )
        finished = [np.concatenate(f) for f in zip(*(p.finished for p in parts), strict=True)]
        return cls(parts[0].axis, table, turned, predicted, finished)


def _starts(places: Places) -> list[tuple[int, Integers]]:
    """For each of the tables that weigh an axis, at what argument each place's window starts, see :func:`_spread`."""
    p = places.predicted.astype(np.int32)
    if places.axis < 2:
        return [(places.axis, p)]
    y, co = (f.astype(np.int32) for f in places.finished)
    return [(2, p), (3, p - 2 * (y + ((co + 1) >> 1))), (4, p + 2 * y), (5, p - 2 * (y - (co >> 1)))]


# Arguments of R, G and B are Cg and twice what the other axes make of them: the colour is a shift of that.
_COLOURS = {3: lambda u: -(u >> 1), 4: lambda u: (u + 1) >> 1, 5: lambda u: -(u >> 1)}
_ARGUMENTS = {0: (0, 255), 1: (-255, 255), 2: (-255, 255), 3: (-1021, 509), 4: (-255, 765), 5: (-1021, 509)}


def _values(table: int) -> Integers:
    """The value that every argument of a table stands for, with a window's width on both sides."""
    first, last = _ARGUMENTS[table]
    arguments = np.arange(first - WINDOW, last + WINDOW + 1)
    return _COLOURS[table](arguments) if table in _COLOURS else arguments


def _spread(table: int, weights: npt.NDArray[Any], outside: float) -> npt.NDArray[Any]:
    """Weights of a table by argument; values that there are none of have the weight `outside`."""
    lowest, highest = RANGES[table]
    values = _values(table)
    there = (values >= lowest) & (values <= highest)
    return np.where(there, weights[np.clip(values, lowest, highest) - lowest], outside).astype(weights.dtype)


def _windows(by_argument: npt.NDArray[Any], table: int, start: Integers) -> npt.NDArray[Any]:
    """`(n, 2 · WINDOW + 1)` of what :func:`_spread` gives, around arguments."""
    views = np.lib.stride_tricks.sliding_window_view(by_argument, 2 * WINDOW + 1)
    return views[start - _ARGUMENTS[table][0]]


class Weights:
    """Weights of the values of a picture, in 1/8 octaves.

    Arguments:
        logs: for some of Y, Co, Cg, R, G, B (0 to 5) the weight of every value, from the lowest on, −64 … 24.
    """

    def __init__(self, logs: dict[int, Int8]) -> None:
        self.logs = logs
        self.axes = {axis for axis, tables in enumerate(OF_AXIS) if any(t in logs for t in tables)}
        self._spread = {t: _spread(t, w, LEAST) for t, w in logs.items()}

    def windows(self, places: Places) -> Logs:
        """Sums of the weights of the values around predictions, `(n, 2 · WINDOW + 1)`."""
        result: Logs = np.zeros((len(places.table), 2 * WINDOW + 1), np.int16)
        for table, start in _starts(places):
            if table in self._spread:
                result += _windows(self._spread[table], table, start)
        return np.clip(result, LEAST, MOST, out=result)

    def pack(self) -> bytes:
        """A byte that says which of them there are, and a zstd frame of them."""
        content = b"".join(self.logs[t].tobytes() for t in sorted(self.logs))
        return bytes([sum(1 << t for t in self.logs)]) + zstandard.ZstdCompressor(level=19).compress(content)

    @classmethod
    def unpack(cls, content: bytes, axes: int) -> "Weights":
        """Inverse of :meth:`pack`.

        Arguments:
            content: the bytes.
            axes: that the picture has.

        Raises:
            FormatError: these are not weights.
        """
        unreadable = "its lossless parameters cannot be read"
        damaged = FormatError(f"the file is damaged: {unreadable}")
        tables = [t for t in range(len(RANGES)) if content[:1] and content[0] >> t & 1]
        if not tables or content[0] >> (len(RANGES) if axes > 1 else 1):
            raise damaged
        sizes = [RANGES[t][1] - RANGES[t][0] + 1 for t in tables]
        logs = np.frombuffer(frames.unpack(content[1:], sum(sizes), unreadable), np.int8)
        if logs.min() < LEAST or logs.max() > MOST:
            raise damaged
        return cls(dict(zip(tables, np.split(logs, np.cumsum(sizes)[:-1]), strict=True)))


def frequencies(tables: LosslessTables, places: Places, windows: Logs) -> Floats:
    """Frequencies less one of the symbols of places, `(n, 2 · WINDOW + 3)`, integers that sum to `FREE`.

    Symbol 0 is a value below the window, then come the window's values, then what is above.
    """
    f: Floats = tables.inside[places.table + len(tables.frequencies) * places.turned]
    f[:, 1:-1] *= _FACTORS.take(windows - LEAST)
    f[:, :: 2 * WINDOW + 2] *= 256
    # Integers below 2**53 by integers below 2**30: the floor of the rounded quotient is that of the quotient.
    total = f.sum(1, keepdims=True)
    f *= FREE
    f /= total
    np.floor(f, out=f)
    f[:, WINDOW + 1] += FREE - f.sum(1)
    return f


def put(writer: Writer, tables: LosslessTables, weights: Weights, places: Places, values: Integers) -> None:
    """Append values of places, those outside of their windows behind all others."""
    residuals = values.astype(np.int32) - places.predicted.astype(np.int32)
    symbols = np.clip(residuals, -WINDOW - 1, WINDOW + 1) + np.int32(WINDOW + 1)
    for begin in range(0, len(symbols), PIECE):
        part = slice(begin, begin + PIECE)
        writer.put_each(symbols[part], frequencies(tables, places[part], weights.windows(places[part])))
    outside = np.abs(residuals) > WINDOW
    distances = np.abs(residuals[outside]) - np.int32(WINDOW + 1)
    writer.put_tails(distances, places.table[outside], tables.tails, tables.last_of_tails)


def take(reader: Reader, tables: LosslessTables, weights: Weights, places: Places) -> npt.NDArray[np.int32]:
    """Values of places, the inverse of :func:`put`."""
    symbols = np.empty(len(places.table), np.int32)
    for begin in range(0, len(symbols), PIECE):
        part = slice(begin, begin + PIECE)
        symbols[part] = reader.take_each(frequencies(tables, places[part], weights.windows(places[part])))
    outside = (symbols == 0) | (symbols == 2 * WINDOW + 2)
    symbols -= WINDOW + 1
    symbols[outside] += np.sign(symbols[outside]) * reader.take_tails(
        places.table[outside], tables.tails, tables.last_of_tails
    )
    symbols += places.predicted
    return symbols


def fit(tables: LosslessTables, found: Iterable[tuple[Places, Integers, float]]) -> Weights | None:
    """Weights that save more than they take; None if there are none.

    Arguments:
        tables: of the model.
        found: samples of every axis, their values, and how many samples each of them stands for.
    """
    logs: dict[int, Int8] = {}
    for places, values, stands_for in found:
        logs |= _fitted(tables, places, values, stands_for)
    return Weights(logs) if logs else None


def _fitted(tables: LosslessTables, places: Places, values: Integers, stands_for: float) -> dict[int, Int8]:
    """Weights of the tables of an axis by iterative proportional fitting: as often expected as they are there."""
    offset = values.astype(np.int32) - places.predicted + WINDOW
    inside = (offset >= 0) & (offset <= 2 * WINDOW)
    own = np.where(inside, offset + 1, np.where(offset < 0, 0, 2 * WINDOW + 2))
    at = np.arange(len(offset))
    plain = tables.inside[places.table + len(tables.frequencies) * places.turned]
    plain /= plain.sum(1, keepdims=True)
    starts = _starts(places)
    value_of = {}
    for table, start in starts:
        lowest, highest = RANGES[table]
        value_of[table] = np.clip(_windows(_values(table), table, start), lowest, highest) - lowest
    logs = {table: np.zeros(RANGES[table][1] - RANGES[table][0] + 1) for table, _ in starts}
    seen = {t: np.bincount(v[at[inside], offset[inside]], minlength=len(logs[t])) for t, v in value_of.items()}
    expected = plain
    for _ in range(ROUNDS):
        for table, value in value_of.items():
            there = np.bincount(value.ravel(), expected[:, 1:-1].ravel(), minlength=len(logs[table]))
            logs[table] += np.log2((seen[table] + PRIOR) / (there + PRIOR)) / min(2, len(logs))
        expected = _weighted(plain, logs, starts)
    rounded = {t: np.clip(np.floor(OCTAVE * w + 0.5), LEAST, MOST).astype(np.int8) for t, w in logs.items()}
    after = _weighted(plain, {t: w / OCTAVE for t, w in rounded.items()}, starts)
    before, now = (-np.log2(np.maximum(p[at, own], 2.0**-24)).sum() * stands_for for p in (plain, after))
    cost = 8 * len(Weights(rounded).pack())
    return rounded if before - now > cost + SAVING * before else {}


# The encoder's choice needs no more than the shares before they become frequencies.
def _weighted(plain: Floats, logs: dict[int, Floats], starts: list[tuple[int, Integers]]) -> Floats:
    total = sum(_windows(_spread(t, logs[t], LEAST / OCTAVE), t, start) for t, start in starts)
    result = plain.copy()
    result[:, 1:-1] *= np.exp2(np.clip(total, LEAST / OCTAVE, MOST / OCTAVE))
    result /= result.sum(1, keepdims=True)
    return result
