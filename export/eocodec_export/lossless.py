"""The lossless part of a photo bundle: trains its nets, rounds them to integers, fits its tables.

    python -m eocodec_export.lossless BUNDLE PICTURES OUT [--start BUNDLE] [--nets FOLDER]

In: photos. Out: the bundle's files `lossless/{set}_{axis}_{phase}.onnx`, `lossless/{set}_{axis}_features.onnx` and
`lossless/tables.bin`. The nets of a lattice are trained together, from the coarsest lattice to the finest, on crops:
each net sees the residuals that those before it leave. What nets see is made by `eocodec.coding.lattice.Lattice`, which
files are coded with, and every graph is checked against integer arithmetic before it is written. With `--start` they
begin as those of a bundle; in the folder of `--nets` training is kept, so that a second call goes on where it was.
"""

import argparse
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eocodec.coding import lossless_tables, lossless_walk
from eocodec.coding.lattice import AXES, Lattice, context_channels, surroundings_channels, to_planes
from eocodec.coding.lossless_tables import CLASSES, COARSE, TABLES, TABLES_FILE
from eocodec.coding.lossless_walk import Strip
from eocodec.coding.units import PHASES
from eocodec.errors import ModelError
from eocodec.files import atomic_file
from eocodec.flow.context import SCALE_MIN, SCALE_PER_OCTAVE
from eocodec.flow.distributed import bfloat16_pays
from eocodec.flow.modules import ModuleDict, ModuleList
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.soap import Soap
from eocodec.flow.states import load_state
from eocodec.image import is_grey
from eocodec.model import parts
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import bundle_files
from eocodec_export.commands import ending
from eocodec_export.graphs import EXACT
from eocodec_export.photos import prepared
from eocodec_export.predictor import (
    LARGEST,
    Predictor,
    Surroundings,
    companded,
    features_graph,
    integer_features,
    integers,
    mixture_bits,
    predictor_graph,
    restore_features,
    restore_predictor,
)

__all__ = [
    "FULL",
    "FURTHER",
    "HALVES",
    "Counter",
    "Effort",
    "LatticeNets",
    "LatticeTrainer",
    "Nets",
    "add_lossless",
    "check",
    "first_residuals",
    "fit_tables",
    "graphs",
    "left",
    "lossless_files",
    "restored",
]

Bytes = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]

QUANTISED = 0.25  # last part of the iterations, which is trained with rounded weights
HOLD_OUT = 40
WARM_UP = 50  # iterations
KEEP_EVERY = 200  # iterations
GREY = 8  # every so many pieces of pictures, one is grey: what looks around must know that, too
COUNTED = 150  # pictures that the tables are fitted to
HALVES = (4, 2, 1)
"""h of the lattices with nets; those of the first serve all coarser ones."""


@dataclass(frozen=True)
class Nets:
    """The nets of a lattice.

    Arguments:
        hidden: channels of the hidden layers of those that predict.
        gates: gated linear predictions.
        around: channels of the hidden layers of those that look around.
        features: that these give.
        iterations: of training.
        crops: pieces of pictures in an iteration.
        size: rows and columns of their coarser lattice.
        margin: places of it at their edges that do not count, for they are not edges of pictures.
    """

    hidden: tuple[int, ...]
    gates: int
    around: int
    features: int
    iterations: int
    crops: int
    size: int
    margin: int


def _full() -> dict[int, Nets]:
    return {
        1: Nets((96, 96), 32, 48, 32, 5000, 8, 56, 4),
        2: Nets((80, 64), 24, 48, 32, 800, 12, 44, 4),
        4: Nets((64, 48), 16, 48, 32, 500, 48, 22, 2),
    }


@dataclass(frozen=True)
class Effort:
    """How much goes into the nets.

    Arguments:
        pictures: that are trained on.
        nets: by h.
        rate: learning rate of the nets at first; it falls to a fiftieth along a cosine.
        linear_rate: of the linear predictions.
    """

    pictures: int = 1200
    nets: dict[int, Nets] = field(default_factory=_full)
    rate: float = 1e-2
    linear_rate: float = 2e-3


def _further() -> dict[int, Nets]:
    return {h: replace(nets, iterations={1: 6000, 2: 1200, 4: 500}[h]) for h, nets in _full().items()}


FULL = Effort()
FURTHER = Effort(pictures=2400, nets=_further(), rate=5e-3, linear_rate=1e-3)
"""From nets on that are trained."""


class LatticeNets(nn.Module):
    """All nets of a lattice.

    Arguments:
        nets: how large they are.
    """

    def __init__(self, nets: Nets) -> None:
        super().__init__()
        self.around = ModuleList(
            Surroundings(surroundings_channels(axis), nets.around, nets.features) for axis in range(AXES)
        )
        self.predictors: ModuleDict[Predictor] = ModuleDict()
        for axis in range(AXES):
            for phase in (1, 2, 3):
                channels = context_channels(phase, axis)
                self.predictors[f"{axis}_{phase}"] = Predictor(channels, nets.hidden, nets.gates, nets.features)

    def forward(
        self, planes: Int16, residuals: list[Int16], quantised: bool, margin: int = 0, fast: bool = False
    ) -> tuple[Tensor, list[Int16]]:
        """Bits a sample of the three phases of all axes, `(9,)`, and the residuals of the lattice, one for each axis.

        Arguments:
            planes: lattices of stride h of some pictures, `(3, B, H, W)`.
            residuals: what was left of their lattice of stride 2h, one for each axis.
            quantised: weights and activations as in the graphs.
            margin: of phase 0, places at the edges that do not count.
            fast: hidden layers in bfloat16.
        """
        bits, done = [], list[Lattice]()
        coarse = [p[..., ::2, ::2] for p in planes]
        for axis, own in enumerate(planes):
            lattice = Lattice((own.shape[-2], own.shape[-1]), coarse, residuals, list(done))
            around = lattice.surroundings(slice(0, lattice.phase_shape(0)[0]))
            seen = torch.from_numpy(companded(around)).transpose(0, 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                features = self.around[axis](seen.contiguous(memory_format=torch.channels_last), quantised)
            features = features.float().transpose(0, 1)
            for phase in (1, 2, 3):
                (i, j), (rows, columns) = PHASES[phase], lattice.phase_shape(phase)
                reference, context = lattice.context(phase, slice(0, rows))
                seen = torch.cat([torch.from_numpy(companded(context)), features[..., :rows, :columns]]).flatten(1)
                floats = torch.from_numpy(context.astype(np.float32)).flatten(1)
                mean, index = self.predictors[f"{axis}_{phase}"](floats, seen, quantised, fast)
                values = np.ascontiguousarray(own[..., i::2, j::2])
                wanted = torch.from_numpy((values - reference).astype(np.float32))
                missed = wanted - mean.reshape(wanted.shape)
                price = mixture_bits(missed, index.reshape(wanted.shape))
                bits.append(price[..., margin : rows - margin, margin : columns - margin].mean())
                left = np.floor(missed.detach().numpy() + 0.5)
                lattice.add(values, np.clip(left, -LARGEST, LARGEST).astype(np.int16))
            lattice.finish()
            done.append(lattice)
        return torch.stack(bits), [x.full_residuals for x in done]


class _Crops:
    """Draws pieces of lattices.

    Arguments:
        planes: lattices of stride h, `(3, H, W)` of each picture.
        residuals: of those of stride 2h, one for each axis of each picture.
        nets: size and number of the pieces.
        seed: of the choice.
    """

    def __init__(self, planes: list[Int16], residuals: list[list[Int16]], nets: Nets, seed: int) -> None:
        self.nets, self.generator = nets, np.random.default_rng(seed)
        self.size = min(nets.size, max(min(p.shape[1:]) // 2 for p in planes))
        pairs = zip(planes, residuals, strict=True)
        self.pairs = [(p, np.stack(r)) for p, r in pairs if min(p.shape[1:]) >= 2 * self.size]
        places = np.array([p[0].size for p, _ in self.pairs], float)
        self.share = places / places.sum()

    def __call__(self) -> tuple[Int16, list[Int16]]:
        """Planes `(3, B, 2 · size, 2 · size)`, and residuals of the coarser lattice."""
        n, found = self.size, []
        for k in self.generator.choice(len(self.pairs), self.nets.crops, p=self.share).tolist():
            planes, residuals = self.pairs[k]
            top, left = (int(self.generator.integers(side // 2 - n + 1)) for side in planes.shape[1:])
            piece = planes[:, 2 * top : 2 * (top + n), 2 * left : 2 * (left + n)]
            found.append((piece, residuals[:, top : top + n, left : left + n]))
        planes, residuals = (np.stack(part, 1) for part in zip(*found, strict=True))
        planes[1:, ::GREY] = residuals[1:, ::GREY] = 0
        return planes, list(residuals)


class _Store:
    """Nets of a lattice in a folder, finished or on their way, so that training that was stopped goes on where it was.

    Arguments:
        folder: where they are kept; None keeps nothing.
        effort: what they must have been trained with to be taken.
        planes: of all pictures, likewise.
        start: nets that they began as, likewise.
    """

    def __init__(
        self, folder: Path | None, effort: Effort, planes: Sequence[Int16], start: Mapping[int, "LatticeNets"] | None
    ) -> None:
        self.folder = folder
        content = hashlib.sha256()
        for plane in planes if folder is not None else ():
            content.update(plane.tobytes())
        for nets in (start or {}).values():
            for weight in nets.state_dict().values():
                content.update(weight.numpy().tobytes())
        self.settings = {**asdict(effort), "content": content.hexdigest()}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, half: int) -> dict[str, Any] | None:
        """What :meth:`save` was given.

        Raises:
            ModelError: it cannot be read, or was trained with other settings.
        """
        if self.folder is None or not self._path(half).exists():
            return None
        kept = load_state(self._path(half))
        if kept.get("settings") != self._of(half):
            raise ModelError(f"{self._path(half)} was trained with other settings; remove it or take another folder")
        return kept

    def save(self, half: int, **state: Any) -> None:
        """Keep the state of training; it is there as a whole or not at all."""
        if self.folder is not None:
            with atomic_file(self._path(half)) as file:
                torch.save({"settings": self._of(half), **state}, file)

    def _of(self, half: int) -> dict[str, Any]:
        return {**self.settings, "nets": self.settings["nets"][half]}

    def _path(self, half: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{half}.pt"


def train(
    pictures: Sequence[Bytes],
    effort: Effort,
    folder: Path | None,
    report: Callable[[str], None],
    start: Mapping[int, LatticeNets] | None = None,
) -> dict[int, LatticeNets]:
    """Nets by h, trained from coarse to fine.

    Arguments:
        pictures: `(H, W, 3)`.
        effort: what nets, how long.
        folder: training is kept there.
        report: called with one line now and then.
        start: nets to begin as; None begins anew.

    Raises:
        ModelError: what is in the folder was trained with other settings.
    """
    planes = [to_planes(p) for p in pictures]
    store = _Store(folder, effort, planes, start)
    residuals = [first_residuals(p) for p in planes]
    found = {}
    for half in HALVES:
        lattices = [p[:, ::half, ::half] for p in planes]
        first = None if start is None else start[half]
        found[half] = _trained(half, lattices, residuals, effort, store, report, first)
        if half > 1:
            residuals = [left(found[half], p, r)[1] for p, r in zip(lattices, residuals, strict=True)]
    return found


@torch.no_grad()
def left(nets: LatticeNets, planes: Int16, residuals: list[Int16]) -> tuple[float, list[Int16]]:
    """Bits of a place of the lattice of stride 2h under nets in integers, and the residuals of the lattice.

    Arguments:
        nets: of the lattice.
        planes: `(axes, H, W)`.
        residuals: of that of twice the stride, one for each axis.
    """
    bits, found = nets(planes[:, None], [r[None] for r in residuals], True)
    return float(bits.sum()), [r[0] for r in found]


def restored(files: Mapping[str, bytes], effort: Effort) -> dict[int, LatticeNets]:
    """Nets by h as they are in a bundle's files.

    Arguments:
        files: of the bundle, by name.
        effort: what nets.

    Raises:
        ModelError: there are none, or of other sizes.
    """
    found = {}
    for half, nets in effort.nets.items():
        model = LatticeNets(nets)
        for axis, around in enumerate(model.around):
            names = [lossless_walk.features_name(half, axis)]
            names += [lossless_walk.graph_name(half, axis, phase) for phase in (1, 2, 3)]
            if any(f"{name}.onnx" not in files for name in names):
                raise ModelError("the bundle has no nets for lossless files that training can begin with")
            restore_features(around, files[f"{names[0]}.onnx"])
            for phase in (1, 2, 3):
                restore_predictor(model.predictors[f"{axis}_{phase}"], files[f"{names[phase]}.onnx"])
        found[half] = model
    return found


def first_residuals(planes: Int16) -> list[Int16]:
    """What a plain mean leaves of planes `(axes, H, W)` at h = 8, where no net of this lattice is trained.

    That is nearly what the nets leave.
    """
    return [_plain(c, p) for c, p in zip(planes[:, ::16, ::16], planes[:, ::8, ::8], strict=True)]


def _plain(coarse: Int16, plane: Int16) -> Int16:
    shape = (plane.shape[0], plane.shape[1])
    lattice = Lattice(shape, [coarse], [np.zeros_like(coarse)], [])
    for phase in (1, 2, 3):
        i, j = PHASES[phase]
        reference, _ = lattice.context(phase, slice(0, lattice.phase_shape(phase)[0]))
        lattice.add(np.ascontiguousarray(plane[i::2, j::2]), plane[i::2, j::2] - reference)
    lattice.finish()
    return lattice.full_residuals


class LatticeTrainer:
    """Training of the nets of a lattice, step by step.

    Arguments:
        half: h.
        nets: how large they are; crops and their sizes.
        lattices: of stride h, `(axes, H, W)` of each picture; with one axis only its nets are trained.
        residuals: of those of stride 2h, one for each axis of each picture.
        rate, linear_rate: learning rates at first, see :class:`Effort`.
        start: nets to begin as.
        seed: of what is drawn.
    """

    def __init__(
        self,
        half: int,
        nets: Nets,
        lattices: list[Int16],
        residuals: list[list[Int16]],
        rate: float,
        linear_rate: float,
        start: LatticeNets | None = None,
        seed: int = 0,
    ) -> None:
        self.nets = nets
        torch.manual_seed(half + seed)
        self.model = LatticeNets(nets)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        predictors = (self.model.predictors[name] for name in self.model.predictors)
        linear = [p for x in predictors for p in (x.linear, x.gated) if p.numel()]
        known = {id(p) for p in linear}
        self.optimiser = Soap(
            [
                {"params": [p for p in self.model.parameters() if id(p) not in known and p.numel()], "lr": rate},
                {"params": linear, "lr": linear_rate},
            ]
        )
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.crops = _Crops(lattices, residuals, nets, half + seed)
        self.fast = bfloat16_pays(torch.device("cpu"))
        self.steps = 0

    def step(self, part: float) -> Tensor:
        """One step when `part` of the training is over, 0 to 1; returns bits a sample, `(9,)`: phases of axes."""
        factor = min(1.0, (self.steps + 1) / WARM_UP) * (0.02 + 0.49 * (1 + math.cos(math.pi * part)))
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        bits, _ = self.model(*self.crops(), part >= 1 - QUANTISED, self.nets.margin, self.fast)
        self.optimiser.zero_grad()
        torch.autograd.backward(bits.mean())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        return bits.detach()

    def state(self, finished: bool = False) -> dict[str, Any]:
        """What :meth:`load` goes on from; of a finished training the weights are enough."""
        return {
            "iteration": self.steps,
            "weights": self.model.state_dict(),
            "optimiser": None if finished else self.optimiser.state_dict(),
            "generator": self.crops.generator.bit_generator.state,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["weights"])
        if state["optimiser"] is not None:
            self.optimiser.load_state_dict(state["optimiser"])
        self.crops.generator.bit_generator.state = state["generator"]
        self.steps = state["iteration"]


def _trained(
    half: int,
    lattices: list[Int16],
    residuals: list[list[Int16]],
    effort: Effort,
    store: _Store,
    report: Callable[[str], None],
    start: LatticeNets | None,
) -> LatticeNets:
    """The nets of a lattice."""
    nets = effort.nets[half]
    trainer = LatticeTrainer(half, nets, lattices, residuals, effort.rate, effort.linear_rate, start)
    kept = store.load(half)
    if kept is not None:
        trainer.load(kept)
    total, count = torch.zeros(9), 0
    while trainer.steps < nets.iterations:
        total, count = total + trainer.step(trainer.steps / nets.iterations), count + 1
        done = trainer.steps == nets.iterations
        if trainer.steps % KEEP_EVERY == 0 or done:
            store.save(half, **trainer.state(done))
            mean = total / count
            said = f"{mean.mean():.4f} bits, {' '.join(f'{x:.3f}' for x in mean.tolist())}"
            report(f"lossless nets: h = {half}, {trainer.steps} of {nets.iterations}: {said}")
            total, count = torch.zeros(9), 0
    return trainer.model.requires_grad_(False)


class Counter:
    """Takes the place of the encoder in `lossless.walk` and counts residuals by table."""

    def __init__(self) -> None:
        self.counts = np.zeros((TABLES, 2 * LARGEST + 1), np.int64)

    def corner(self, axis: int) -> int:
        """The first sample."""
        return int(self.planes[axis, 0, 0])

    def count(self, model: Model, picture: Bytes) -> None:
        """Count a picture; a grey one has one axis, as in files."""
        self.planes = to_planes(picture)
        axes = 1 if is_grey(picture) else AXES
        predictor = functools.partial(lossless_walk.predict, model)
        lossless_walk.walk(picture.shape[0], picture.shape[1], axes, predictor, self)

    def strip(self, s: Strip) -> Int16:
        """Count a strip; returns its residuals."""
        predicted, turned, fraction = lossless_walk.residual_code(s, None)
        values = s.of(self.planes[s.axis])
        coded = np.where(turned, predicted - values, values - predicted).astype(np.int64) + LARGEST
        place = lossless_tables.table_of(s.index, fraction).astype(np.int64) * self.counts.shape[1] + coded
        self.counts += np.bincount(place.ravel(), minlength=self.counts.size).reshape(self.counts.shape)
        return values - s.predicted


def _shape(scale: float, fraction: float, radius: int) -> Floats:
    """Probabilities of −radius … radius around a mean of `fraction` levels: the mixture that was trained."""
    r = torch.arange(-radius, radius + 1, dtype=torch.float64) - fraction
    index = torch.full_like(r, SCALE_PER_OCTAVE * math.log2(scale / SCALE_MIN))
    return np.asarray(torch.exp2(-mixture_bits(r, index)).numpy())


def fit_tables(counts: npt.NDArray[np.int64], prior: float = 400.0) -> bytes:
    """`lossless/tables.bin`: counts joined by `prior` pseudo-counts of the trained density, rescaled to fit them."""
    centres = (0.0, 1.5 / 16, 3.5 / 16, 6.5 / 16)
    words = [np.array([TABLES])]
    for table in range(TABLES):
        coarse = table >= CLASSES * COARSE
        index = table - (CLASSES - 1) * COARSE if coarse else table // CLASSES
        fraction = 0.0 if coarse else centres[table % CLASSES]
        scale = SCALE_MIN * 2 ** (index / SCALE_PER_OCTAVE)
        radius = min(LARGEST, math.ceil(10 * scale) + 4)
        found = counts[table].astype(np.float64)
        if found.sum() > 1000:
            spread = np.abs(np.arange(-LARGEST, LARGEST + 1) - fraction)
            mean = float(found @ spread / found.sum())
            candidates = scale * np.exp2(np.linspace(-1.5, 1.5, 31))
            shapes = [_shape(s, fraction, LARGEST) for s in candidates]
            scale = float(candidates[int(np.argmin([abs(float(p @ spread / p.sum()) - mean) for p in shapes]))])
        p = _shape(scale, fraction, LARGEST)
        smooth = prior * p / p.sum() + (found if scale < 12 else 0)  # many thin bins: the shape beats their noise
        folded = smooth[LARGEST - radius : LARGEST + radius + 1].copy()
        folded[0] += smooth[: LARGEST - radius].sum()
        folded[-1] += smooth[LARGEST + radius + 1 :].sum()
        f = np.maximum(1, np.floor(folded / folded.sum() * (EXACT - 2 * len(folded)))).astype(np.int64)
        f[radius] += EXACT - f.sum()
        words += [np.array([len(f)]), f]
    return np.concatenate(words).astype("<u4").tobytes()


def lossless_files(
    base: dict[str, bytes],
    pictures: Sequence[Bytes],
    *,
    effort: Effort = FULL,
    start: Mapping[str, bytes] | None = None,
    folder: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, bytes]:
    """The files that let a photo bundle code losslessly.

    Arguments:
        base: the bundle's other files.
        pictures: training photos `(H, W, 3)`; see :func:`eocodec_export.photos.prepared`.
        effort: how many of them, what nets, how long.
        start: files of a bundle whose nets are trained further; None begins anew.
        folder: training is kept there, so that a second call goes on after a stop.
        report: called with one line per stage.

    Raises:
        ModelError: a graph leaves the exact range or disagrees with integer arithmetic; a net in `folder` was trained
            with other settings; `start` has no nets of these sizes.
    """
    first = None if start is None else restored(start, effort)
    chosen = prepared(pictures, effort.pictures)
    trained = train(chosen, effort, folder, report, first)
    files = dict(file for half, nets in trained.items() for file in graphs(half, nets))
    model = Model(parts.listed({**base, **files}))
    for half, nets in trained.items():
        check(half, nets, model)
    report("lossless tables")
    counter = Counter()
    for picture in chosen[:: max(1, len(chosen) // COUNTED)]:
        counter.count(model, picture)
    return {**files, TABLES_FILE: fit_tables(counter.counts)}


def graphs(half: int, nets: LatticeNets) -> Iterator[tuple[str, bytes]]:
    """The files of a lattice's nets."""
    for axis, around in enumerate(nets.around):
        yield f"{lossless_walk.features_name(half, axis)}.onnx", features_graph(around)
        for phase in (1, 2, 3):
            yield (
                f"{lossless_walk.graph_name(half, axis, phase)}.onnx",
                predictor_graph(nets.predictors[f"{axis}_{phase}"]),
            )


def check(half: int, nets: LatticeNets, model: Model) -> None:
    """Every graph against 64-bit integers on random contexts, small and as large as they get.

    Raises:
        ModelError: they disagree.
    """
    generator = np.random.default_rng(0)

    def random(largest: int, channels: int) -> Int16:
        return generator.integers(-largest, largest + 1, (channels, 24, 40)).astype(np.int16)

    for axis, around in enumerate(nets.around):
        for largest in (3, 40, LARGEST):
            name = lossless_walk.features_name(half, axis)
            context = random(largest, surroundings_channels(axis))
            features = model.run(name, {"context": context[None]})[0][0]
            same = np.array_equal(features, integer_features(around, context))
            for phase in (1, 2, 3):
                predictor = nets.predictors[f"{axis}_{phase}"]
                context = random(largest, context_channels(phase, axis))
                inputs = {"context": context[None], "features": features[None]}
                mean, index = model.run(lossless_walk.graph_name(half, axis, phase), inputs)
                want = integers(predictor, context.reshape(len(context), -1).T, features.reshape(len(features), -1).T)
                same = same and np.array_equal(mean.ravel(), want[0]) and np.array_equal(index.ravel(), want[1])
            if not same:
                raise ModelError(f"integer arithmetic and ONNX Runtime disagree beside {name}; the export is refused")


def add_lossless(
    bundle: Path,
    folder: Path,
    out: Path,
    *,
    source: Path | None = None,
    start: Path | None = None,
    effort: Effort | None = None,
    nets: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Model:
    """Write a bundle with everything of `bundle` and the files for lossless coding, which do not depend on its flow.

    Arguments:
        bundle: an `.eocm` file of a photo model; lossless files that it has are replaced.
        folder: training photos; those held out by the usual rule are not used.
        out: the `.eocm` file to write.
        source: take the lossless files of this bundle instead of training.
        start: a bundle whose nets are trained further.
        effort: of training; None is :data:`FULL`, an hour on a CPU core with AMX, or with `start` :data:`FURTHER`.
        nets: folder where training is kept, see :func:`lossless_files`.
        report: called with one line per stage.

    Raises:
        ModelError: `source` has no lossless files, or a graph fails its check.
    """
    base = {name: content for name, content in bundle_files(bundle).items() if not name.startswith("lossless/")}
    if source is None:
        pictures, _ = split(read_pictures(folder), HOLD_OUT, "picture")
        files = None if start is None else bundle_files(start)
        effort = effort or (FULL if start is None else FURTHER)
        added = lossless_files(base, [p for _, p in pictures], effort=effort, start=files, folder=nets, report=report)
    else:
        added = {name: content for name, content in bundle_files(source).items() if name.startswith("lossless/")}
    files = parts.listed({**base, **added})
    model = Model(files)
    lossless_tables.tables_of(model)
    write_bundle(out, files)
    return model


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="bundle whose nets are trained further")
    parser.add_argument("--nets", type=Path, help="folder for training on its way")
    options = parser.parse_args(arguments)
    model = add_lossless(
        options.bundle,
        options.pictures,
        options.out,
        start=options.start,
        nets=options.nets,
        report=lambda message: print(message, flush=True),
    )
    print(f"{options.out}  id {model.id.hex()}  {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
