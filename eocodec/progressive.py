"""The embedded stream: latents coded by successive refinement, so that every prefix of it decodes to a picture.

In: latents (encoder) or a prefix of a stream. Out: the stream with the places where it may be cut, or latents.

A latent y (levels, in units of the picture: h / exp(gain)) is known as a cell. In layer k the dead zone is |y| < Z_k =
4096 / 2^k. Each layer has two passes; what they code is ordered from coarse to fine bands:

    significance (S_k): latents in the dead zone of Z_{k-1}: still |y| < Z_k? If not, the sign; the cell is [Z_k, 2 Z_k)
                        two stages: the likely ones first, which bring most for their bits, then the others
    refinement   (R_k): latents with a cell of width 2 Z_k: which half of it? The low-pass: the same, without dead zone

    low-pass at step 128 │ S_0 R_0 │ S_1 R_1 │ … │ S_13 R_13

The walk of `eocodec.entropy` gives each S pass the means and table indices of its latents, given all that is known so
far; these and the number of significant neighbours select the probability of every binary decision from tables of
the bundle. Probabilities are multiples of 2**-16, so they are exact; the coder is `constriction`'s range coder.

A decoder stops before the first group of decisions whose information exceeds what is there, see :class:`Meter`.

References:
    Taubman & Marcellin, *JPEG2000*, chapter 8 (embedded quantisation, order of passes).
    Lu et al., *Progressive neural image compression with nested quantization and latent ordering*, 2021.
    https://arxiv.org/abs/2102.02913
"""

import math
from dataclasses import dataclass
from typing import Protocol

import constriction
import numpy as np
import numpy.typing as npt

from eocodec.bundle import Model
from eocodec.entropy import LEVEL_UNITS, MEAN_UNIT, Float32, Int32, UInt8, Walk, tables_of
from eocodec.entropy import Reader as TableReader
from eocodec.entropy import Writer as TableWriter
from eocodec.errors import FormatError, ModelError
from eocodec.format import STEP_UNIT, Header
from eocodec.latents import PHASES, Unit, units

__all__ = [
    "LAYERS",
    "Mark",
    "Probabilities",
    "Stream",
    "cells",
    "decode",
    "delta_of_depth",
    "depth_of_delta",
    "encode",
    "end_of_depth",
    "refinement_step",
    "zone_of_depth",
]

LAYERS = 14
TOP = 4096  # levels, Z_0
UNIT = 1 << LAYERS - 1  # Z_0 in half levels, the unit of cells: Z_13 is one of them
LARGEST = 2 * UNIT - 1  # half levels
LOW_STEP = 128  # levels, of the low-pass at the start
LOW_UNIT = 16  # the low-pass is kept in 1/16 levels
NETS = (3, 2)  # the nets are told the step 3/2 Z
GROUP = 1024  # decisions between two places where a stream may be cut
PRECISION = 16  # bits of a probability
COST_UNIT = 1 << 12  # information is counted in 1/4096 bit
LOSS = 1  # 1/4096 bit a decision: above what the range coder loses (measured: 1.3e-4 bit)
SPARE = 16  # bytes that an encoder goes on after the wanted end, so that what is cut off there is as in longer streams
MARGIN = 32 * COST_UNIT  # a wrong decision at a cut has a chance of 2**-32
MEANS = (2, 5, 9)  # |mean| (1/16 steps) at which the next class begins
COUNTS = (1, 2, 3, 5)  # significant neighbours at which the next class begins
MEAN_CLASSES, COUNT_CLASSES = len(MEANS) + 1, 2 * (len(COUNTS) + 1)
PLACES = 4  # cells by their distance from zero: 1, 2, 3, ≥ 4 widths
INDICES = 64
LIKELY = 14  # table index from which on a latent is decided in the first stage of its pass
SIGN_CLASSES = 12
LOW_CLASSES = 33  # of the distance from a low-pass value to the mean of its neighbours, 1/8 of its cell
MAX_LOW = 1 << 15
STEP_RATIO = 1.12  # Δ over Z at equal quality at the end of a layer
# Depth within a layer, and the share of the layer's gain in quality that it has brought (about, on samples).
WITHIN = ((0.0, 0.3, 0.7, 1.0), (0.0, 0.65, 0.9, 1.0))
REFINEMENT_RATIO = 1.0  # Δ over Z that suits the refinement best

Int8 = npt.NDArray[np.int8]
UInt16 = npt.NDArray[np.uint16]
Places = tuple[slice, slice, slice]
Int16 = npt.NDArray[np.int16]
Bool = npt.NDArray[np.bool_]

_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)


@dataclass(frozen=True)
class Probabilities:
    """Tables of a bundle, probabilities in 2**-16, and reconstruction points.

    Arguments:
        significance: `(2, 64, 4, 10)` by stage, table index, class of the mean, class of the neighbourhood.
        sign: `(12,)` that a latent has its mean's sign, by |mean|.
        upper: `(4, 16, 10)` of the upper half, by the cell's place, the table index / 4 with which the latent became
            significant, and the class of the neighbourhood.
        low: `(3, 33)` of the upper half, low-pass, by channel and distance to the neighbours' mean.
        centre: `(5, 16)` where values lie in their cells, 1/256 of the width, by place (the last for new cells) and
            that index / 4.
        zero: `(64,)` what a latent in the dead zone is of its mean, 1/256, by table index.
    """

    significance: UInt16
    sign: UInt16
    upper: UInt16
    low: UInt16
    centre: UInt16
    zero: UInt16

    SHAPES = (
        (2, INDICES, MEAN_CLASSES, COUNT_CLASSES),
        (SIGN_CLASSES,),
        (PLACES, INDICES // 4, COUNT_CLASSES),
        (3, LOW_CLASSES),
        (PLACES + 1, INDICES // 4),
        (INDICES,),
    )

    def pack(self) -> bytes:
        """All tables as little-endian uint16, one after another."""
        tables = (self.significance, self.sign, self.upper, self.low, self.centre, self.zero)
        return b"".join(np.asarray(t, "<u2").tobytes() for t in tables)

    @staticmethod
    def unpack(content: bytes) -> "Probabilities":
        """Inverse of :meth:`pack`.

        Raises:
            ModelError: the content has the wrong length or a probability is zero.
        """
        sizes = [math.prod(s) for s in Probabilities.SHAPES]
        words = np.frombuffer(content, "<u2").astype(np.uint16) if len(content) == 2 * sum(sizes) else None
        if words is None or not words[: sum(sizes[:4])].all():
            raise ModelError("the model bundle's tables of the embedded stream are damaged")
        parts = np.split(words, np.cumsum(sizes)[:-1])
        return Probabilities(*(p.reshape(s) for p, s in zip(parts, Probabilities.SHAPES, strict=True)))

    @staticmethod
    def of(model: Model) -> "Probabilities":
        """The model's tables, read once.

        Raises:
            ModelError: the bundle has none.
        """
        cached = model.__dict__.get("_probabilities")
        if cached is None:
            content = model.files.get("progressive.bin")
            if content is None:
                raise ModelError(f"the model {model.name} has no tables for the embedded stream")
            cached = model.__dict__["_probabilities"] = Probabilities.unpack(content)
        return cached


@dataclass(frozen=True)
class Mark:
    """A place where a stream may be cut.

    Arguments:
        end: bytes that must be there for everything before to be decoded.
        depth: how far coding has come: k + 0.3, k + 0.7 after the stages of S_k, k + 1 after R_k, linear between them.
    """

    end: int
    depth: float


@dataclass(frozen=True)
class Stream:
    """An embedded stream and the places where it may be cut, in rising order."""

    payload: bytes
    marks: tuple[Mark, ...]


def zone_of_depth(depth: float) -> float:
    """The dead zone Z (range 0 to 1) at a depth: Z_k after R_k, that is at depth k + 1."""
    return float(TOP * 2.0 ** (1 - max(depth, 0.0)) / 255)


def refinement_step(depth: float) -> float:
    """The step Δ (range 0 to 1) that the decoder graph is told."""
    return REFINEMENT_RATIO * zone_of_depth(depth)


def delta_of_depth(depth: float) -> float:
    """The step Δ (range 0 to 1) whose file is about as good as a stream of this depth."""
    whole = math.floor(max(depth, 0.0))
    return STEP_RATIO * zone_of_depth(whole + float(np.interp(max(depth, 0.0) - whole, *WITHIN)))


def depth_of_delta(delta: float) -> float:
    """Inverse of :func:`delta_of_depth`."""
    quality = max(0.0, 1 + math.log2(STEP_RATIO * TOP / (255 * delta)))
    whole = math.floor(quality)
    return whole + float(np.interp(quality - whole, *WITHIN[::-1]))


class Meter:
    """Counts the information of decisions in integers, alike in encoder and decoder."""

    def __init__(self) -> None:
        self.spent = 0

    def add(self, probability: npt.NDArray[np.int64], happened: Bool) -> None:
        """Decisions with these probabilities of happening, in 2**-16."""
        cost = _costs()
        self.spent += int(cost[np.where(happened, probability, 65536 - probability)].sum()) + LOSS * len(probability)

    def add_bits(self, bits: float) -> None:
        """Information of anything else, rounded up."""
        self.spent += math.ceil(bits * COST_UNIT)

    @property
    def end(self) -> int:
        """Bytes that a decoder needs for all that was counted."""
        return -(-(self.spent + MARGIN) // (8 * COST_UNIT))


_COSTS: list[npt.NDArray[np.int64]] = []


def _costs() -> npt.NDArray[np.int64]:
    """Information of probabilities 0 … 65536 / 65536 in 1/4096 bit."""
    if not _COSTS:
        p = np.maximum(np.arange(65537), 1)
        bits = (PRECISION - np.log2(p)) * COST_UNIT
        _COSTS.append(np.ceil(bits - 1e-6).astype(np.int64))  # powers of two must not depend on the last bit of log2
    return _COSTS[0]


class _Exhausted(Exception):
    """The stream has no further whole group."""


class _Coder(Protocol):
    """What differs between encoder and decoder: `truth` is None in the decoder."""

    meter: Meter

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        """Yes/no decisions `(n,)` with these probabilities of yes, in 2**-16."""

    def number(self, count: int, truth: int | None) -> int:
        """A number from 0 to `count` − 1, all equally likely."""

    def mark(self, depth: float) -> None:
        """A group of decisions is complete; :class:`_Exhausted` if the stream ends before it does."""


class _Writer:
    def __init__(self, depth: float, size: float) -> None:
        self.meter, self.depth, self.size = Meter(), depth, size
        self.coder = constriction.stream.queue.RangeEncoder()
        self.marks: list[Mark] = []

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        assert truth is not None
        p = probability.astype(np.int64)
        if len(p):
            self.coder.encode(truth.astype(np.int32), _BERNOULLI, p / 65536.0)
            self.meter.add(p, truth)
        return truth

    def number(self, count: int, truth: int | None) -> int:
        assert truth is not None
        self.coder.encode(np.array([truth], np.int32), constriction.stream.model.Uniform(count))
        self.meter.add_bits(math.log2(count))
        return truth

    def mark(self, depth: float) -> None:
        self.marks.append(Mark(self.meter.end, depth))
        if depth > self.depth:
            self.size = min(self.size, self.marks[-1].end)
        if 4 * int(self.coder.num_words()) > self.size + SPARE:  # the meter is some bytes ahead of the coder
            raise _Exhausted


class _Reader:
    """Decides as the writer did; raises :class:`_Exhausted` when a decision needs more bytes than there are.

    The information of a decision is known once it is made, so a group may be decoded in vain.
    """

    def __init__(self, payload: bytes) -> None:
        self.meter = Meter()
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4").astype(np.uint32)
        self.coder = constriction.stream.queue.RangeDecoder(words)
        self.available = len(payload)
        self.marks: list[Mark] = []

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        if not len(probability):
            return np.zeros(0, bool)
        p = probability.astype(np.int64)
        try:
            result = self.coder.decode(_BERNOULLI, p / 65536.0).astype(bool)
        except (ValueError, AssertionError):  # beyond the end, what is decoded may be impossible
            raise _Exhausted from None
        self.meter.add(p, result)
        return np.asarray(result)

    def number(self, count: int, truth: int | None) -> int:
        try:
            value = int(self.coder.decode(constriction.stream.model.Uniform(count)))
        except (ValueError, AssertionError):
            raise _Exhausted from None
        self.meter.add_bits(math.log2(count))
        if self.meter.end > self.available:
            raise _Exhausted
        return value

    def mark(self, depth: float) -> None:
        if self.meter.end > self.available:
            raise _Exhausted
        self.marks.append(Mark(self.meter.end, depth))


class _Band:
    """What is known of a level's latents `(9, H, W)`; cells in half levels."""

    def __init__(self, shape: tuple[int, int, int], valid: tuple[int, int], truth: Float32 | None) -> None:
        self.sign = np.zeros(shape, np.int8)  # 0: in the dead zone
        self.lower, self.width = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        self.guess = np.zeros(shape, np.float32)  # levels, of those in the dead zone
        self.fresh = np.zeros(shape, bool)
        self.touched = False  # anything was coded
        self.settled = np.zeros(shape, bool)  # decided in this layer
        self.index = np.zeros(shape, np.uint8)  # table index / 4 at which a latent became significant
        self.valid = valid
        self.truth: Int16 | None = None
        self.positive: Bool | None = None
        if truth is not None:
            self.truth = np.minimum(np.floor(np.abs(truth) * 2), LARGEST).astype(np.int32)  # type: ignore[assignment]
            self.positive = truth >= 0

    def neighbourhood(self, finer: "_Band | None") -> UInt8:
        """Class of every latent by its significant neighbours in the band and, of the finer band, below it."""
        found = self.sign != 0
        wide = np.pad(found, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
        rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
        count = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] - found
        result = np.searchsorted(COUNTS, np.arange(9), "right").astype(np.uint8)[count]
        if finer is not None and finer.touched:
            below = finer.sign != 0
            any_below = below[:, ::2, ::2] | below[:, 1::2, ::2] | below[:, ::2, 1::2] | below[:, 1::2, 1::2]
            result += (len(COUNTS) + 1) * any_below.astype(np.uint8)
        return result

    def values(self, tables: Probabilities) -> Float32:
        """Values of all latents, levels."""
        if not self.touched:
            return np.zeros(self.sign.shape, np.float32)
        place = np.minimum(self.lower // np.maximum(self.width, 1), PLACES) - 1
        place[self.fresh] = PLACES
        centre = tables.centre[np.maximum(place, 0), self.index].astype(np.float32) / 256
        value = self.sign * (self.lower + self.width * centre) / 2
        return np.where(self.sign == 0, self.guess, value).astype(np.float32)


class _Pass:
    """A significance pass, as the walk of `eocodec.entropy` asks for it."""

    def __init__(self, state: "_State", layer: int, stage: int, active: int, coder: _Coder) -> None:
        self.state, self.layer, self.stage, self.active, self.coder = state, layer, stage, active, coder
        self.tables = state.tables
        self.half = UNIT >> layer  # Z in half levels
        self.class_of: UInt8 | None = None
        self.number = 0
        self.exhausted = False

    def wants(self, unit: int) -> bool:
        """Units up to the last one in which anything becomes significant."""
        return unit < self.active and not self.exhausted

    def begin(self, unit: int) -> None:
        """The neighbourhoods are those at the start of a level's pass."""
        self.number = unit
        if unit and (unit - 1) % LEVEL_UNITS == 0:
            k = 1 + (unit - 1) // LEVEL_UNITS
            finer = self.state.bands[k + 1] if k + 1 < len(self.state.bands) else None
            self.class_of = self.state.bands[k].neighbourhood(finer)

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """Not asked for: the low-pass has its own stream."""
        raise AssertionError("the low-pass is coded before the layers")

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Code which latents of a strip leave the dead zone; returns what the nets see."""
        band = self.state.bands[1 + self.state.levels - unit.level]
        result = np.empty(mean.shape, np.int32)
        limit = MEAN_UNIT * NETS[1] // NETS[0]  # the dead zone in 1/16 of the nets' steps
        middle = np.clip(mean, -limit, limit)
        step = self.half * NETS[0] / (2 * NETS[1] * MEAN_UNIT)  # levels in 1/16 of the nets' steps
        active = self.number < self.active and not self.exhausted
        band.touched = True
        for n, p in enumerate(unit.phases):
            i, j = PHASES[p]
            places = (unit.channels, slice(2 * rows.start + i, 2 * rows.stop, 2), slice(j, None, 2))
            if active:
                inside = (max(0, min(rows.stop, valid[n][0]) - rows.start), valid[n][1])
                height = len(unit.phases) * valid[0][0]
                span = ((n * valid[0][0] + rows.start) / height, inside[0] / height)
                self._code(band, places, inside, mean[n], index[n], span)
            zero = band.sign[places] == 0
            shrink = self.tables.zero.astype(np.float32)[index[n]] * np.float32(step / 256)
            np.copyto(band.guess[places], middle[n] * shrink, where=zero)
            cell = 2 * band.lower[places].astype(np.int32) + band.width[places]
            seen = cell * (MEAN_UNIT * NETS[1] // 2) // (NETS[0] * self.half)
            result[n] = np.where(zero, middle[n], band.sign[places] * seen)
        return result

    def _code(
        self,
        band: "_Band",
        places: Places,
        inside: tuple[int, int],
        mean: Int32,
        index: UInt8,
        span: tuple[float, float],
    ) -> None:
        """Decide which latents of one phase of a strip leave the dead zone.

        Arguments:
            band: what is known, changed here.
            places: of the phase in the band's arrays.
            inside: rows and columns that are coded.
            mean, index: `(channels, rows, columns)`.
            span: where the phase begins in its unit and how much of it it is.
        """
        assert self.class_of is not None
        wanted = (index >= LIKELY) if self.stage == 0 else ~band.settled[places]
        wanted &= band.sign[places] == 0
        wanted[:, inside[0] :] = False
        wanted[:, :, inside[1] :] = False
        chosen = np.flatnonzero(wanted)
        centre = mean.ravel()[chosen]
        classes = np.searchsorted(MEANS, np.minimum(np.abs(centre), MEANS[-1]), "right")
        p = self.tables.significance[self.stage, index.ravel()[chosen], classes, self.class_of[places].ravel()[chosen]]
        order = np.argsort(65535 - p, kind="stable")  # the likeliest first: they bring most for their bits
        chosen, p, centre = chosen[order], p[order], centre[order]
        truth = None if band.truth is None else band.truth[places].ravel()[chosen] >= self.half
        up = None if band.positive is None else band.positive[places].ravel()[chosen]
        toward = centre >= 0
        found, settled = np.zeros(mean.size, np.int8), np.zeros(mean.size, bool)
        for start in range(0, len(chosen), GROUP):
            group = slice(start, start + GROUP)
            done = span[0] + span[1] * min(start + GROUP, len(chosen)) / len(chosen)
            try:
                yes = self.coder.decide(p[group], None if truth is None else truth[group])
                new = np.flatnonzero(yes) + start
                q = self.tables.sign[np.minimum(np.abs(centre[new]), SIGN_CLASSES - 1)]
                agree = self.coder.decide(q, None if up is None else up[new] == toward[new])
                self.coder.mark(self.state.depth(self.layer, self.number, self.stage, done))
            except _Exhausted:
                self.exhausted = True
                break
            found[chosen[new]] = np.where(agree == toward[new], 1, -1)
            settled[chosen[group]] = True
        band.settled[places] |= settled.reshape(mean.shape)
        sign = found.reshape(mean.shape)
        for array, value in (
            (band.sign, sign),
            (band.lower, self.half),
            (band.width, self.half),
            (band.fresh, True),
            (band.index, index >> 2),
        ):
            np.copyto(array[places], value, where=sign != 0, casting="unsafe")


class _LayerWalk(Walk):
    """The walk of a significance pass: feature nets also see what is known of their level and of the finer one."""

    graphs = "embedded"

    def __init__(self, state: "_State", half: int) -> None:
        super().__init__(state.model, state.header(half / 2 * NETS[0] / NETS[1]))
        self.bands, self.half = state.bands, half
        self.seen: dict[int, Int8] = {}

    def _seen(self, k: int) -> Int8:
        """Middles of the cells of band k, companded as the nets see latents, as they are when first asked for."""
        if k not in self.seen:
            band = self.bands[k]
            if not band.touched:
                self.seen[k] = np.zeros(band.sign.shape, np.int8)
            else:
                cell = 2 * band.lower.astype(np.int32) + band.width
                self.seen[k] = self._compand(band.sign * (cell * (MEAN_UNIT * NETS[1] // 2) // (NETS[0] * self.half)))
        return self.seen[k]

    def _known(self, level: int, rows: slice) -> dict[str, npt.NDArray[np.int8]]:
        k = 1 + self.levels - level
        own = self._seen(k)[:, 2 * rows.start : 2 * rows.stop]
        parts = [own[:, i::2, j::2] for i, j in PHASES]
        if level > 1:
            finer = np.abs(self._seen(k + 1)[:, 4 * rows.start : 4 * rows.stop])
            across = np.maximum(finer[:, :, ::2], finer[:, :, 1::2])
            below = np.maximum(across[:, ::2], across[:, 1::2])
            parts += [below[:, i::2, j::2] for i, j in PHASES]
        return {"known": np.concatenate(parts)[None]}


class _State:
    """Everything known about a picture's latents, and the passes that refine it."""

    significance = _Pass

    def __init__(self, model: Model, width: int, height: int, latents: list[Float32] | None) -> None:
        self.model, self.width, self.height = model, width, height
        self.tables = Probabilities.of(model)
        manifest = model.manifest
        self.levels = manifest.levels
        self.gain = [np.exp(np.array(g)).astype(np.float32)[:, None, None] for g in manifest.gain]
        walk = self.walk(LOW_STEP)
        self.bands: list[_Band] = []
        for k, level in enumerate([self.levels, *range(self.levels, 0, -1)]):
            rows, columns = walk.grid_size(level)
            truth = None if latents is None else latents[k] / self.gain[k] * np.float32(255)
            shape = (9 if k else 3, 2 * rows, 2 * columns)
            self.bands.append(_Band(shape if k else (0, 0, 0), walk.band_size(level if k else 0), truth if k else None))
            if k == 0:
                self.low_truth = truth
                self.low = np.zeros(shape, np.int32)  # 1/16 levels, middles of cells
        self.low_width = 0  # 1/16 levels
        self.low_size = walk.band_size(0)
        everything = units(self.levels)
        weights = [math.prod(walk.band_size(u.level)) * len(u.phases) * (u.channels.stop - u.channels.start) / 4
                   for u in everything[1:]]  # fmt: skip
        self.progress = np.concatenate([[0, 0], np.cumsum(weights) / sum(weights)])

    def header(self, step: float) -> Header:
        """A header that tells a walk the size of the picture and the step, in levels."""
        return Header(self.model.id, self.width, self.height, 0, 32768 + round(math.log2(step) * STEP_UNIT))

    def walk(self, step: float) -> Walk:
        """The usual walk at a step in levels."""
        return Walk(self.model, self.header(step))

    def depth(self, layer: int, unit: int, stage: int, part: float) -> float:
        """How far coding has come with a part of a unit in stage 0 or 1 of pass S, or in pass R (2), of a layer."""
        start, end = self.progress[unit : unit + 2].tolist()
        done = start + part * (end - start)
        return float(layer + (0.3 * done, 0.3 + 0.4 * done, 0.7 + 0.3 * done)[stage])

    def run(self, coder: _Coder) -> None:
        """All layers, until the coder has no more."""
        try:
            for layer in range(LAYERS):
                self._significance(layer, coder)
                self._refinement(layer, coder)
        except _Exhausted:
            pass

    def _significance(self, layer: int, coder: _Coder) -> None:
        half = UNIT >> layer
        everything = units(self.levels)
        truth: int | None = None
        if self.low_truth is not None:
            truth = 0
            for number, unit in enumerate(everything[1:], 1):
                band = self.bands[1 + self.levels - unit.level]
                assert band.truth is not None
                rows, columns = band.valid
                for p in unit.phases:
                    i, j = PHASES[p]
                    a = band.truth[unit.channels, i:rows:2, j:columns:2]
                    if a.size and (a.max() >= half):
                        truth = number
        active = coder.number(len(everything), truth)
        coder.mark(float(layer))
        if not active:
            return
        seen = self.low.astype(np.int64) * (2 * MEAN_UNIT * NETS[1]) // (LOW_UNIT * NETS[0] * half)
        for band in self.bands:
            if band.touched:
                band.settled[...] = False
        for stage in (0, 1):
            job = self.significance(self, layer, stage, active + 1, coder)
            _LayerWalk(self, half).details(job, seen.astype(np.int32))
            if job.exhausted:
                raise _Exhausted

    def _refinement(self, layer: int, coder: _Coder) -> None:
        half = UNIT >> layer
        self._refine_low(layer, coder)
        for number, unit in enumerate(units(self.levels)[1:], 1):
            k = 1 + self.levels - unit.level
            band = self.bands[k]
            if (number - 1) % LEVEL_UNITS == 0:
                finer = self.bands[k + 1] if k + 1 < len(self.bands) else None
                wide = band.width == 2 * half if band.touched else np.zeros(0, bool)
                classes = band.neighbourhood(finer) if wide.any() else None
            if classes is None:
                continue
            for n, p in enumerate(unit.phases):
                i, j = PHASES[p]
                places = (unit.channels, slice(i, None, 2), slice(j, None, 2))
                self._halve(band, places, wide[places], classes[places], layer, number, (n, len(unit.phases)), coder)
        coder.mark(layer + 1.0)

    def _halve(
        self,
        band: "_Band",
        places: Places,
        wide: Bool,
        classes: UInt8,
        layer: int,
        number: int,
        phase: tuple[int, int],
        coder: _Coder,
    ) -> None:
        """Halve the cells of one phase that are `wide`; `phase` is its ordinal in the unit, and their number."""
        half = UNIT >> layer
        chosen = np.flatnonzero(wide)
        lower, index, truth = (
            None if a is None else a[places].ravel()[chosen] for a in (band.lower, band.index, band.truth)
        )
        assert lower is not None and index is not None
        nearness = np.minimum(lower // (2 * half), PLACES) - 1
        q = self.tables.upper[nearness, index, classes.ravel()[chosen]]
        answer = None if truth is None else truth >= lower + half
        upper = np.zeros(wide.size, bool)
        halved = np.zeros(wide.size, bool)
        try:
            for start in range(0, len(chosen), GROUP):
                group = slice(start, start + GROUP)
                found = coder.decide(q[group], None if answer is None else answer[group])
                part = (phase[0] + min(start + GROUP, len(chosen)) / len(chosen)) / phase[1]
                coder.mark(self.depth(layer, number, 2, part))
                upper[chosen[group]] = found
                halved[chosen[group]] = True
        finally:  # what was decided before the stream ended counts
            done = halved.reshape(wide.shape)
            band.lower[places] += (upper.reshape(wide.shape) * half).astype(np.int16)
            np.copyto(band.width[places], half, where=done, casting="unsafe")
            np.copyto(band.fresh[places], False, where=done)

    def _refine_low(self, layer: int, coder: _Coder) -> None:
        """Halve the cells of the low-pass if they are wider than Z."""
        if self.low_width <= LOW_UNIT * (TOP >> layer) or self.low_width < 4:
            return
        rows, columns = self.low_size
        for channel in range(3):
            field = self.low[channel, :rows, :columns]
            middle = field.ravel()
            wide = np.pad(field, 1, "edge")
            mean = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] + 2) >> 2
            distance = (8 * (mean - field) // self.low_width).ravel()
            classes = np.clip(distance + LOW_CLASSES // 2, 0, LOW_CLASSES - 1)
            q = self.tables.low[channel, classes]
            truth = None
            if self.low_truth is not None:
                truth = self.low_truth[channel, :rows, :columns].ravel() * LOW_UNIT >= middle
            upper = np.zeros(middle.size, bool)
            for start in range(0, middle.size, GROUP):
                group = slice(start, start + GROUP)
                upper[group] = coder.decide(q[group], None if truth is None else truth[group])
            coder.mark(self.depth(layer, 1, 2, 0.0))
            middle = middle + np.where(upper, 1, -1) * (self.low_width // 4)
            self.low[channel, :rows, :columns] = middle.reshape(rows, columns)
        self._pad_low()
        self.low_width //= 2

    def _pad_low(self) -> None:
        rows, columns = self.low_size
        missing = ((0, 0), (0, self.low.shape[1] - rows), (0, self.low.shape[2] - columns))
        self.low = np.pad(self.low[:, :rows, :columns], missing, "edge")

    def start_low(self, q: Int32) -> None:
        """Begin with the low-pass integers `(3, h, w)` at :data:`LOW_STEP`."""
        rows, columns = self.low_size
        self.low[:, :rows, :columns] = np.clip(q[:, :rows, :columns], -MAX_LOW, MAX_LOW) * (LOW_STEP * LOW_UNIT)
        self._pad_low()
        self.low_width = LOW_STEP * LOW_UNIT

    def latents(self) -> list[Float32]:
        """Dequantised latents h, range 0 to 1."""
        values = [self.low.astype(np.float32) / LOW_UNIT, *(b.values(self.tables) for b in self.bands[1:])]
        return [v * g / np.float32(255) for v, g in zip(values, self.gain, strict=True)]


class _LowWriter:
    """The coder of the low-pass at its first step."""

    def __init__(self, model: Model, targets: Float32) -> None:
        self.writer, self.targets = TableWriter(tables_of(model)), targets

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        value = np.floor(self.targets[place[0]][place[1:]] + np.float32(0.5)).astype(np.int32)
        self.writer.put((value - predicted).ravel(), index.ravel())
        return value


class _LowReader:
    def __init__(self, model: Model, payload: bytes) -> None:
        self.reader = TableReader(tables_of(model), payload)

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        return predicted + self.reader.take(index.ravel()).reshape(predicted.shape)


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
    state = _State(model, width, height, latents)
    assert state.low_truth is not None
    low = _LowWriter(model, state.low_truth / LOW_STEP)
    state.start_low(state.walk(LOW_STEP).low_pass(low))  # type: ignore[arg-type]
    head = low.writer.payload()
    prefix = _length(len(head)) + head
    writer = _Writer(depth, size - len(prefix))
    state.run(writer)
    body = writer.coder.get_compressed().astype("<u4").tobytes()
    marks = [Mark(len(prefix) + m.end, m.depth) for m in writer.marks]
    body += b"\0" * max(0, marks[-1].end - len(prefix) - len(body))
    return Stream(prefix + body, (Mark(len(prefix), 0.0), *marks))


def decode(model: Model, width: int, height: int, payload: bytes) -> tuple[list[Float32], float]:
    """Latents (range 0 to 1) and depth of a stream or of a prefix of one; the depth is -1 if nothing could be decoded.

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


def _decode(model: Model, width: int, height: int, payload: bytes) -> tuple[_State, Stream]:
    """What is known after a stream, and the places where it could have been cut."""
    state = _State(model, width, height, None)
    size, start = _read_length(payload)
    if start < 0 or len(payload) < start + size:
        return state, Stream(payload, ())
    start += size
    low = _LowReader(model, payload[start - size : start])
    state.start_low(state.walk(LOW_STEP).low_pass(low))  # type: ignore[arg-type]
    reader = _Reader(payload[start:])
    state.run(reader)
    return state, Stream(payload, (Mark(start, 0.0), *(Mark(start + m.end, m.depth) for m in reader.marks)))


def end_of_depth(model: Model, width: int, height: int, payload: bytes, depth: float) -> int:
    """Bytes of a stream that it takes to come to a depth; all of them if it does not go as far.

    Raises:
        FormatError: the stream cannot come from an encoder.
    """
    marks = _decode(model, width, height, payload)[1].marks
    return next((m.end for m in marks if m.depth >= depth), len(payload))


def _length(n: int) -> bytes:
    """A number in bytes of seven bits, the lowest first; all but the last have the top bit set."""
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def _read_length(payload: bytes) -> tuple[int, int]:
    """The number and where it ends, or (0, -1) if it does not end."""
    value = 0
    for k, byte in enumerate(payload[:5]):
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            if k and not byte:
                raise FormatError("the file is damaged: a number is not in its shortest form")
            return value, k + 1
    if len(payload) >= 5:
        raise FormatError("the file is damaged: a number is longer than five bytes")
    return 0, -1
