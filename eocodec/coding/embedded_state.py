"""What is known of a picture's latents in an embedded stream, and the passes that refine it.

In: a model and the size of a picture; its latents (encoder) and a coder of decisions. Out: cells, and latents in them.
"""

import math

import numpy as np
import numpy.typing as npt

from eocodec.coding.embedded_coder import DecisionCoder, Exhausted
from eocodec.coding.embedded_tables import (
    COUNTS,
    LOW_CLASSES,
    MEANS,
    PLACES,
    SIGN_CLASSES,
    Probabilities,
    probabilities_of,
)
from eocodec.coding.scales import LIKELY, MEAN_UNIT
from eocodec.coding.units import LEVEL_UNITS, PHASES, Unit, units
from eocodec.coding.walk import Walk
from eocodec.format import Header
from eocodec.model.bundle import Model
from eocodec.steps import step_code

__all__ = ["LAYERS", "LOW_STEP", "TOP", "Band", "LayerWalk", "SignificancePass", "State"]

LAYERS = 14
TOP = 4096  # levels, Z_0
UNIT = 1 << LAYERS - 1  # Z_0 in half levels, the unit of cells: Z_13 is one of them
LARGEST = 2 * UNIT - 1  # half levels
LOW_STEP = 128  # levels, of the low-pass at the start
LOW_UNIT = 16  # the low-pass is kept in 1/16 levels
NETS = (3, 2)  # the nets take the step 3/2 Z
GROUP = 1024  # decisions between two places where a stream may be cut
MAX_LOW = 1 << 15
MAX_CELL = (1 << 15) - 1  # 1/16 of the nets' steps, far more than they can tell apart
_MEAN_CLASSES = np.searchsorted(MEANS, np.arange(SIGN_CLASSES), "right")  # of |mean|, beyond the last as that

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Places = tuple[slice, slice, slice]


class Band:
    """What is known of a level's latents `(9, H, W)`; cells in half levels."""

    def __init__(self, shape: tuple[int, int, int], valid: tuple[int, int], truth: Float32 | None) -> None:
        self.sign = np.zeros(shape, np.int8)  # 0: in the dead zone
        self.lower, self.width = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        self.middle = np.zeros(shape, np.int8)  # means of the last walk, for those in the dead zone, 1/16 of its steps
        self.scale = np.zeros(shape, np.uint8)  # table index in that walk
        self.unit = 0.0  # levels in 1/16 of its steps
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

    def neighbourhood(self, finer: "Band | None") -> UInt8:
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
        shrink = tables.zero.astype(np.float32) * np.float32(self.unit / 256)
        return np.where(self.sign == 0, self.middle * shrink[self.scale], value).astype(np.float32)


class SignificancePass:
    """A significance pass, as a coder for `eocodec.coding.walk.Walk`."""

    def __init__(
        self, state: "State", walk: "LayerWalk", layer: int, stage: int, active: int, coder: DecisionCoder
    ) -> None:
        self.state, self.walk, self.layer, self.stage, self.active = state, walk, layer, stage, active
        self.coder = coder
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
        """Never called: the low-pass has its own stream."""
        raise AssertionError("the low-pass is coded before the layers")

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Code which latents of a strip leave the dead zone; returns what the nets see."""
        k = 1 + self.state.levels - unit.level
        band = self.state.bands[k]
        known = self.walk.cells(k)
        result = np.empty(mean.shape, np.int32)
        limit = MEAN_UNIT * NETS[1] // NETS[0]  # the dead zone in 1/16 of the nets' steps
        middle = np.clip(mean, -limit, limit)
        active = self.number < self.active and not self.exhausted
        band.touched, band.unit = True, self.half * NETS[0] / (2 * NETS[1] * MEAN_UNIT)
        for n, part in enumerate(unit.parts):
            places = (part.channels, slice(2 * rows.start + part.row, 2 * rows.stop, 2), slice(part.column, None, 2))
            seen = known[places]
            zero = seen == 0
            here = np.where(zero, middle[part.at], seen)
            if active:
                inside = (max(0, min(rows.stop, valid[n][0]) - rows.start), valid[n][1])
                height = len(unit.parts) * valid[0][0]
                span = ((n * valid[0][0] + rows.start) / height, inside[0] / height)
                at, sign = self._code(band, places, zero, inside, mean[part.at], index[part.at], span)
                here[at] = sign * np.int32(MEAN_UNIT)  # the middle of a new cell is the nets' step
            band.middle[places] = middle[part.at]
            band.scale[places] = index[part.at]
            result[part.at] = here
        return result

    def _code(
        self,
        band: "Band",
        places: Places,
        wanted: Bool,
        inside: tuple[int, int],
        mean: Int32,
        index: UInt8,
        span: tuple[float, float],
    ) -> tuple[tuple[npt.NDArray[np.intp], ...], Int8]:
        """Decide which latents of one phase of a strip leave the dead zone; returns those that do, and their signs.

        Arguments:
            band: what is known, changed here.
            places: of the phase in the band's arrays.
            wanted: which are in the dead zone so far; changed.
            inside: rows and columns that are coded.
            mean, index: `(channels, rows, columns)`.
            span: where the phase begins in its unit and how much of it it is.
        """
        assert self.class_of is not None
        wanted &= (index >= LIKELY) if self.stage == 0 else ~band.settled[places]
        wanted[:, inside[0] :] = False
        wanted[:, :, inside[1] :] = False
        chosen = np.flatnonzero(wanted)
        centre, indices = mean.take(chosen), index.take(chosen)
        near, classes = np.minimum(np.abs(centre), SIGN_CLASSES - 1), self.class_of[places].take(chosen)
        p = self.tables.significance[self.stage, indices, _MEAN_CLASSES[near], classes]
        order = np.argsort(65535 - p, kind="stable")  # the likeliest first: they bring most for their bits
        chosen, p, centre, near, indices = chosen[order], p[order], centre[order], near[order], indices[order]
        truth = None if band.truth is None else band.truth[places].take(chosen) >= self.half
        up = None if band.positive is None else band.positive[places].take(chosen)
        toward = centre >= 0
        found = np.zeros(len(chosen), np.int8)
        done = 0
        for start in range(0, len(chosen), GROUP):
            group = slice(start, start + GROUP)
            part = min(start + GROUP, len(chosen))
            try:
                yes = self.coder.decide(p[group], None if truth is None else truth[group])
                new = np.flatnonzero(yes) + start
                agree = self.coder.decide(self.tables.sign[near[new]], None if up is None else up[new] == toward[new])
                depth = self.state.depth(self.layer, self.number, self.stage, span[0] + span[1] * part / len(chosen))
                self.coder.mark(depth)
            except Exhausted:
                self.exhausted = True
                break
            found[new] = np.where(agree == toward[new], 1, -1)
            done = part
        if self.stage == 0:
            band.settled[places][np.unravel_index(chosen[:done], mean.shape)] = True
        new = np.flatnonzero(found)
        at = np.unravel_index(chosen[new], mean.shape)
        band.sign[places][at] = found[new]
        band.lower[places][at] = band.width[places][at] = self.half
        band.fresh[places][at] = True
        band.index[places][at] = indices[new] >> 2
        return at, found[new]


class LayerWalk(Walk):
    """The walk of a significance pass: feature nets also see what is known of their level and of the finer one."""

    graphs = "embedded"

    def __init__(self, state: "State", half: int) -> None:
        super().__init__(state.model, state.header(half / 2 * NETS[0] / NETS[1]))
        self.bands, self.half = state.bands, half
        self.known: dict[int, Int16] = {}
        self.seen: dict[int, Int8] = {}

    @staticmethod
    def order(model: Model) -> list[Unit]:
        """The units in file order, which embedded streams never rotate."""
        return units(model.manifest.levels)

    def _condition(self, level: int, rows: slice) -> Int8:
        """The step alone, even of models whose other nets see more."""
        return super()._condition(level, rows)[:, :1]

    def cells(self, k: int) -> Int16:
        """Middles of the cells of band k in 1/16 of the nets' steps, as they are when first asked for."""
        if k not in self.known:
            band = self.bands[k]
            known = np.zeros(band.sign.shape, np.int16)
            if band.touched:
                at = np.flatnonzero(band.sign)  # few
                cell = 2 * band.lower.take(at).astype(np.int32) + band.width.take(at)
                value = cell * (MEAN_UNIT * NETS[1] // 2) // (NETS[0] * self.half)
                known.put(at, np.minimum(value, MAX_CELL) * band.sign.take(at))
            self.known[k] = known  # when it is whole: other threads are at other strips
        return self.known[k]

    def _seen(self, k: int) -> Int8:
        """The same, companded as the nets see latents."""
        if k not in self.seen:
            self.seen[k] = self._compand(self.cells(k).astype(np.int32))
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


class State:
    """Everything known about a picture's latents, and the passes that refine it."""

    significance = SignificancePass

    def __init__(
        self, model: Model, width: int, height: int, latents: list[Float32] | None, tables: Probabilities | None = None
    ) -> None:
        self.model, self.width, self.height = model, width, height
        self.tables = probabilities_of(model) if tables is None else tables
        self.levels = model.manifest.levels
        self.gain = model.manifest.steps(1.0)
        self.units = units(self.levels)
        walk = self.walk(LOW_STEP)
        self.bands: list[Band] = []
        for k, level in enumerate([self.levels, *range(self.levels, 0, -1)]):
            rows, columns = walk.grid_size(level)
            truth = None if latents is None else latents[k] / self.gain[k] * np.float32(255)
            shape = (9 if k else 3, 2 * rows, 2 * columns)
            self.bands.append(Band(shape if k else (0, 0, 0), walk.band_size(level if k else 0), truth if k else None))
            if k == 0:
                self.low_truth = truth
                self.low = np.zeros(shape, np.int32)  # 1/16 levels, middles of cells
        self.low_width = 0  # 1/16 levels
        self.low_size = walk.band_size(0)
        weights = [math.prod(walk.band_size(u.level)) * u.places / 4 for u in self.units[1:]]
        self.progress = np.concatenate([[0, 0], np.cumsum(weights) / sum(weights)])

    def header(self, step: float) -> Header:
        """A header with the size of the picture and a step, in levels, for a walk."""
        return Header(self.model.id, self.width, self.height, 0, step_code(step / 255))

    def walk(self, step: float) -> Walk:
        """The usual walk at a step in levels."""
        return Walk(self.model, self.header(step))

    def depth(self, layer: int, unit: int, stage: int, part: float) -> float:
        """How far coding has come with a part of a unit in stage 0 or 1 of pass S, or in pass R (2), of a layer."""
        start, end = self.progress[unit : unit + 2].tolist()
        done = start + part * (end - start)
        return float(layer + (0.3 * done, 0.3 + 0.4 * done, 0.7 + 0.3 * done)[stage])

    def run(self, coder: DecisionCoder) -> None:
        """All layers, until the coder has no more."""
        try:
            for layer in range(LAYERS):
                self.find(layer, coder)
                self.refine(layer, coder)
        except Exhausted:
            pass

    def find(self, layer: int, coder: DecisionCoder) -> None:
        """Pass S of a layer."""
        half = UNIT >> layer
        truth: int | None = None
        if self.low_truth is not None:
            truth = 0
            for number, unit in enumerate(self.units[1:], 1):
                band = self.bands[1 + self.levels - unit.level]
                assert band.truth is not None
                rows, columns = band.valid
                for part in unit.parts:
                    a = band.truth[part.channels, part.row : rows : 2, part.column : columns : 2]
                    if a.size and (a.max() >= half):
                        truth = number
        active = coder.number(len(self.units), truth)
        coder.mark(float(layer))
        if not active:
            return
        seen = self.low.astype(np.int64) * (2 * MEAN_UNIT * NETS[1]) // (LOW_UNIT * NETS[0] * half)
        for band in self.bands:
            if band.touched:
                band.settled[...] = False
        for stage in (0, 1):
            walk = LayerWalk(self, half)
            job = self.significance(self, walk, layer, stage, active + 1, coder)
            walk.details(job, seen.astype(np.int32))
            if job.exhausted:
                raise Exhausted

    def refine(self, layer: int, coder: DecisionCoder) -> None:
        """Pass R of a layer."""
        half = UNIT >> layer
        self._refine_low(layer, coder)
        for number, unit in enumerate(self.units[1:], 1):
            k = 1 + self.levels - unit.level
            band = self.bands[k]
            if (number - 1) % LEVEL_UNITS == 0:
                finer = self.bands[k + 1] if k + 1 < len(self.bands) else None
                wide = band.width == 2 * half if band.touched else np.zeros(0, bool)
                classes = band.neighbourhood(finer) if wide.any() else None
            if classes is None:
                continue
            for n, part in enumerate(unit.parts):
                places = (part.channels, slice(part.row, None, 2), slice(part.column, None, 2))
                self._halve(band, places, wide[places], classes[places], layer, number, (n, len(unit.parts)), coder)
        coder.mark(layer + 1.0)

    def _halve(
        self,
        band: "Band",
        places: Places,
        wide: Bool,
        classes: UInt8,
        layer: int,
        number: int,
        phase: tuple[int, int],
        coder: DecisionCoder,
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

    def _refine_low(self, layer: int, coder: DecisionCoder) -> None:
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
        low: Float32 = self.low.astype(np.float32) / np.float32(LOW_UNIT)
        values = [low, *(b.values(self.tables) for b in self.bands[1:])]
        return [v * g / np.float32(255) for v, g in zip(values, self.gain, strict=True)]
