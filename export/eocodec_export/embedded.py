"""Tables of the embedded stream, fitted on pictures.

In: a bundle and pictures. Out: `eocodec.coding.embedded_tables.Probabilities`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eocodec.coding.embedded import LowWriter
from eocodec.coding.embedded_coder import DecisionCoder, Exhausted, Meter
from eocodec.coding.embedded_state import LAYERS, LOW_STEP, TOP, SignificancePass, State
from eocodec.coding.embedded_tables import PLACES, Probabilities
from eocodec.coding.units import Unit
from eocodec.model import transform
from eocodec.model.bundle import Model

__all__ = ["fit_probabilities"]

PRIOR = 8.0  # decisions that a coarser table is worth
FINEST = 1.0  # levels, the dead zone up to which decisions are counted

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def _numbered() -> Probabilities:
    """Tables whose entries are their own numbers, so that a coder sees which entry each decision uses."""
    sizes = [int(np.prod(s)) for s in Probabilities.SHAPES]
    numbers = np.split(np.arange(1, sum(sizes[:4]) + 1).astype(np.uint16), np.cumsum(sizes[:4])[:-1])
    tables = [n.reshape(s) for n, s in zip(numbers, Probabilities.SHAPES, strict=False)]
    centre = np.full(Probabilities.SHAPES[4], 128, np.uint16)
    significance, sign, upper, low = tables
    return Probabilities(significance, sign, upper, low, centre, np.full(64, 256, np.uint16))


class _Counter:
    """A coder that counts decisions by table entry."""

    def __init__(self, entries: int, depth: float) -> None:
        self.meter = Meter()
        self.depth = depth
        self.counts = np.zeros((2, entries + 1))

    def decide(self, probability: npt.NDArray[np.uint16], truth: Bool | None) -> Bool:
        assert truth is not None
        for k in (0, 1):
            self.counts[k] += np.bincount(probability[truth == k], minlength=self.counts.shape[1])
        return truth

    def number(self, count: int, truth: int | None) -> int:
        assert truth is not None
        return truth

    def mark(self, depth: float) -> None:
        if depth > self.depth:
            raise Exhausted


class _Pass(SignificancePass):
    """A significance pass that also compares means with the values of latents that stay in the dead zone."""

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        result = super().strip(unit, rows, valid, mean, index)
        assert isinstance(self.state, _State)
        band = self.state.bands[1 + self.state.levels - unit.level]
        assert band.positive is not None and band.truth is not None
        for part in unit.parts:
            sign, middle, positive, size = (
                a[part.channels, part.row :: 2, part.column :: 2][:, rows]
                for a in (band.sign, band.middle, band.positive, band.truth)
            )
            chosen = sign == 0
            guess = middle * band.unit
            value = np.where(positive, 0.5, -0.5)[chosen] * (size[chosen] + 0.5)
            k = index[part.at][chosen]
            self.state.sums[0] += np.bincount(k, guess[chosen] * value, 64)
            self.state.sums[1] += np.bincount(k, np.square(guess[chosen], dtype=np.float64), 64)
        return result


class _State(State):
    """A state that gathers where values lie in their cells, once a layer."""

    significance = _Pass

    def __init__(self, model: Model, width: int, height: int, latents: list[npt.NDArray[np.float32]]) -> None:
        super().__init__(model, width, height, latents, _numbered())
        self.inside, self.sums = np.zeros((2, *Probabilities.SHAPES[4])), np.zeros((2, 64))

    def refine(self, layer: int, coder: DecisionCoder) -> None:
        super().refine(layer, coder)
        for band in self.bands[1:]:
            rows, columns = band.valid
            assert band.truth is not None
            sign, lower, width, fresh, index, truth = (
                a[:, :rows, :columns] for a in (band.sign, band.lower, band.width, band.fresh, band.index, band.truth)
            )
            chosen = (sign != 0) & (width > 1)
            place = np.where(fresh, PLACES, np.minimum(lower // np.maximum(width, 1), PLACES) - 1)[chosen]
            part = (truth[chosen] + 0.5 - lower[chosen]) / width[chosen]
            np.add.at(self.inside[0], (place, index[chosen]), part)
            np.add.at(self.inside[1], (place, index[chosen]), 1)


def _probability(yes: Floats, no: Floats, prior: Floats) -> npt.NDArray[np.uint16]:
    p = (yes + PRIOR * prior) / (yes + no + PRIOR)
    return np.clip(np.round(p * 65536), 1, 65535).astype(np.uint16)


def fit_probabilities(model: Model, pictures: Sequence[UInt8]) -> Probabilities:
    """Fit the tables on `pictures (H, W, 3)` of any size, down to a dead zone of 1 level.

    Entries with few decisions lean on the mean over neighbourhoods, that on the mean over classes of means.
    """
    shapes = Probabilities.SHAPES
    sizes = [int(np.prod(s)) for s in shapes[:4]]
    depth = 1 + np.log2(TOP / FINEST)
    counter = _Counter(sum(sizes), min(depth, LAYERS))
    sums, inside = np.zeros((2, 64)), np.zeros((2, *Probabilities.SHAPES[4]))
    for picture in pictures:
        height, width = picture.shape[:2]
        state = _State(model, width, height, transform.analyse(model, picture))
        assert state.low_truth is not None
        coder = LowWriter(model, state.low_truth / np.float32(LOW_STEP))
        state.start_low(state.walk(LOW_STEP).low_pass(coder))
        state.run(counter)
        inside += state.inside
        sums += state.sums
    no, yes = (np.split(c[1:], np.cumsum(sizes)[:-1]) for c in counter.counts)
    a, b = yes[0].reshape(shapes[0]), no[0].reshape(shapes[0])
    coarse = (a.sum((2, 3), keepdims=True) + 1e-3) / ((a + b).sum((2, 3), keepdims=True) + 1)
    middle = (a.sum(3, keepdims=True) + PRIOR * coarse) / ((a + b).sum(3, keepdims=True) + PRIOR)
    significance = _probability(a, b, np.broadcast_to(middle, a.shape))
    sign = _probability(yes[1], no[1], np.full(yes[1].shape, 0.5))
    a, b = yes[2].reshape(shapes[2]), no[2].reshape(shapes[2])
    usual = (a.sum(2, keepdims=True) + 0.45 * PRIOR) / (a.sum(2, keepdims=True) + b.sum(2, keepdims=True) + PRIOR)
    upper = _probability(a, b, np.broadcast_to(usual, a.shape))
    low = _probability(yes[3].reshape(shapes[3]), no[3].reshape(shapes[3]), np.full(shapes[3], 0.5))
    usual = (inside[0].sum(1, keepdims=True) + 0.5) / (inside[1].sum(1, keepdims=True) + 1)
    centre = np.round(256 * (inside[0] + PRIOR * usual) / (inside[1] + PRIOR)).astype(np.uint16)
    zero = np.clip(np.round(256 * sums[0] / np.maximum(sums[1], 1e-9)), 0, 512).astype(np.uint16)
    return Probabilities(significance, sign, upper, low, centre, zero)
