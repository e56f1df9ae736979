"""The walk over a picture's samples, from the coarsest lattice to the finest: the nets' prediction, a coder's answer.

In: a model and the size of a picture; a coder (:class:`StripCoder`). Out: planes of integers. docs/FORMAT.md, "Lossless
files", gives every integer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eocodec.coding.lattice import HIGHEST, LOWEST, Lattice, visits
from eocodec.coding.lossless_tables import CLASSES
from eocodec.coding.nets import run_exact
from eocodec.coding.scales import MEAN_UNIT
from eocodec.coding.units import PHASES
from eocodec.coding.walk import pieces
from eocodec.errors import ModelError
from eocodec.model.bundle import Model
from eocodec.model.threads import side_by_side

__all__ = [
    "SETS",
    "STRIP",
    "Strip",
    "StripCoder",
    "Tuning",
    "features_name",
    "graph_name",
    "looked_around",
    "predict",
    "residual_code",
    "walk",
]

Int16 = npt.NDArray[np.int16]
UInt8 = npt.NDArray[np.uint8]
Tuning = npt.NDArray[np.int8]

SETS = 3  # nets for h = 1, h = 2 and h >= 4
STRIP = 65536  # positions of a strip; nets and coder work strip by strip
SEEN_AROUND = 4  # rows above and below a place that the net which looks around sees: as many layers of 3x3
Seen = Callable[[Any], Int16]
"""Makes differences what nets see."""


def graph_name(half: int, axis: int, phase: int) -> str:
    """The graph that predicts `phase` of `axis` on the lattice of stride `half`."""
    return f"lossless/{min(half.bit_length(), SETS)}_{axis}_{phase}"


def features_name(half: int, axis: int) -> str:
    """The graph that looks around on the lattice of stride `half` before the phases of `axis`; not in every bundle."""
    return f"lossless/{min(half.bit_length(), SETS)}_{axis}_features"


def unchanged(differences: Any) -> Int16:
    """Differences as they are, for pictures of 8 bits."""
    return np.asarray(differences, np.int16)


@dataclass(frozen=True)
class Strip:
    """Some rows of a phase, with what the nets say of them.

    Arguments:
        half: the stride h after this phase.
        axis, phase: of the samples.
        rows: of the phase.
        context: what the nets saw, `(channels, rows, columns)`.
        mean: in 1/16 levels, inside the axis's range, `(rows, columns)`; int16, or int32 where samples have 16 bits.
        index: scale index, 0 … 63.
        finished: values of the axes before at these samples, `(rows, columns)` each.
    """

    half: int
    axis: int
    phase: int
    rows: slice
    context: Int16
    mean: npt.NDArray[Any]
    index: UInt8
    finished: tuple[npt.NDArray[Any], ...] = ()

    @property
    def unit(self) -> int:
        """Its coding unit: 0 down to stride 16, then 1 + 9 · (3 − log2 h) + 3 · axis + phase − 1."""
        return 0 if self.half >= 16 else 1 + 9 * (4 - self.half.bit_length()) + 3 * self.axis + self.phase - 1

    @property
    def group(self) -> int:
        """Which correction of the scale index applies: by set of nets and axis."""
        return 3 * (min(self.half.bit_length(), SETS) - 1) + self.axis

    @property
    def predicted(self) -> npt.NDArray[Any]:
        """The integers nearest to the mean."""
        return (self.mean + MEAN_UNIT // 2) >> 4

    def of(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """These samples of a whole plane `(H, W)`."""
        (i, j), h = PHASES[self.phase], self.half
        return plane[i * h :: 2 * h, j * h :: 2 * h][self.rows]


def predict(model: Model, lattice: Lattice, half: int, phase: int, rows: slice) -> Strip:
    """The nets' statement on a strip: everything in integers, a place at a time, so that pieces run side by side."""
    axis = len(lattice.before)

    around = looked_around(model, lattice, half)

    def run(piece: slice) -> tuple[Int16, Int16, UInt8]:
        reference, context = lattice.context(phase, piece)
        inputs: dict[str, npt.NDArray[Any]] = {"context": context[None], **around(phase, piece)}
        mean, index = run_exact(model, graph_name(half, axis, phase), inputs, (1, 1))
        return context, _inside(MEAN_UNIT * reference + mean[0, 0], axis), index[0, 0]

    parts = side_by_side(run, pieces(rows, lattice.phase_shape(phase)[1], model.share), model.share)
    if len(parts) == 1:
        return Strip(half, axis, phase, rows, *parts[0])
    contexts, means, indices = zip(*parts, strict=True)
    joined = np.concatenate(contexts, axis=1), np.concatenate(means), np.concatenate(indices)
    return Strip(half, axis, phase, rows, *joined)


def looked_around(
    model: Model, lattice: Lattice, half: int, seen: Seen = unchanged
) -> Callable[[int, slice], dict[str, UInt8]]:
    """A function from a phase and rows of it to what its nets take besides their context.

    Nothing in bundles without nets that look around; else features of phase 0, made once for all phases of an axis.

    Arguments:
        model: the bundle.
        lattice: of the axis.
        half: its stride after this phase.
        seen: makes differences what nets see.

    Returns:
        `features (1, n, rows, columns)` uint8 for these rows of the phase, by that name, or nothing.

    Raises:
        ModelError: the graph is not what it should be.
    """
    name = features_name(half, len(lattice.before))
    if f"{name}.onnx" not in model.files:
        return lambda phase, rows: {}
    if lattice.features is None:
        height, width = lattice.phase_shape(0)

        def run(piece: slice) -> UInt8:
            top, stop = max(0, piece.start - SEEN_AROUND), min(height, piece.stop + SEEN_AROUND)
            context = seen(lattice.surroundings(slice(top, stop)))
            (found,) = run_exact(model, name, {"context": context[None]}, (None,))
            return np.asarray(found[0, :, piece.start - top :][:, : piece.stop - piece.start])

        step = max(1, STRIP // width)
        strips = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        parts = [p for rows in strips for p in side_by_side(run, pieces(rows, width, model.share), model.share)]
        if len({len(part) for part in parts}) > 1:
            raise ModelError(f"the model's graph {name} gives now more, now fewer features")
        lattice.features = np.concatenate(parts, axis=1)
    features = lattice.features

    def of(phase: int, rows: slice) -> dict[str, UInt8]:
        return {"features": np.ascontiguousarray(features[None, :, rows, : lattice.phase_shape(phase)[1]])}

    return of


def _inside(mean: npt.NDArray[Any], axis: int) -> Int16:
    return np.clip(mean, MEAN_UNIT * LOWEST[axis], MEAN_UNIT * HIGHEST[axis]).astype(np.int16)


def residual_code(s: Strip, tuning: Tuning | None) -> tuple[Int16, npt.NDArray[np.bool_], UInt8]:
    """How a strip's samples are coded: the prediction, where the residual's sign is turned, the class of the fraction.

    It is turned where the mean lies below the prediction, so that the tables need only know means above it.
    """
    mean = s.mean
    if tuning is not None:
        shift = np.full(mean.shape, 8, np.int32)
        for weight, channel in zip(tuning.tolist(), s.context, strict=True):
            if weight:
                shift += np.multiply(channel, weight, dtype=np.int32)
        mean = _inside(mean + (shift >> 4), s.axis)
    predicted = (mean + MEAN_UNIT // 2) >> 4
    distance = mean - MEAN_UNIT * predicted
    return predicted, distance < 0, np.minimum((np.abs(distance) + 1) >> 1, CLASSES - 1).astype(np.uint8)


class StripCoder(Protocol):
    """What :func:`walk` calls."""

    def corner(self, axis: int) -> int:
        """The first sample of an axis."""

    def strip(self, s: Strip) -> Int16:
        """Residuals of a strip: values minus :attr:`Strip.predicted`."""


def walk(
    height: int,
    width: int,
    axes: int,
    predictor: Callable[[Lattice, int, int, slice], Strip],
    coder: StripCoder,
    dtype: type[np.signedinteger[Any]] = np.int16,
) -> Int16:
    """Visit all samples in file order; returns the planes `(axes, H, W)`, of a type that holds differences of three."""
    values: list[Any] = [np.full((1, 1), coder.corner(axis), dtype) for axis in range(axes)]
    residuals: list[Any] = [np.zeros((1, 1), dtype) for _ in range(axes)]
    for half in visits(height, width):
        shape = (-(-height // half), -(-width // half))
        done: list[Lattice] = []
        for _ in range(axes):
            lattice = Lattice(shape, values, residuals, list(done))
            for phase in (1, 2, 3):
                rows, columns = lattice.phase_shape(phase)
                found: Any = np.empty((2, rows, columns), dtype)
                step = max(1, STRIP // max(1, columns))
                for top in range(0, rows if columns else 0, step):
                    part = slice(top, min(top + step, rows))
                    s = predictor(lattice, half, phase, part)
                    s = replace(s, finished=tuple(other.values[phase][part] for other in done))
                    found[1, s.rows] = coder.strip(s)
                    np.add(s.predicted, found[1, s.rows], out=found[0, s.rows])
                lattice.add(found[0], found[1])
            lattice.finish()
            lattice.features = None
            done.append(lattice)
        values, residuals = [x.full for x in done], [x.full_residuals for x in done]
    return np.stack(values)
