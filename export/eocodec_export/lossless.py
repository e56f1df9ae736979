"""The lossless part of a photo bundle: trains its nets, rounds them to integers, fits its tables.

In: photos. Out: the bundle's files `lossless/{set}_{axis}_{phase}.onnx` and `lossless/tables.bin`. The nets are
so small that training them is part of the export. They see what `eocodec.coding.lattice.Lattice.context` gives, the
very function that files are coded with, and every graph is checked against integer arithmetic before it is written.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from eocodec.coding import lossless_tables, lossless_walk
from eocodec.coding.lattice import Lattice, context_channels, to_planes
from eocodec.coding.lossless_tables import CLASSES, COARSE, TABLES, TABLES_FILE
from eocodec.coding.lossless_walk import SETS, Strip
from eocodec.coding.units import PHASES
from eocodec.errors import ModelError
from eocodec.flow.context import SCALE_MIN, SCALE_PER_OCTAVE
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.soap import Soap
from eocodec.model import parts
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import bundle_files
from eocodec_export.graphs import EXACT
from eocodec_export.predictor import LARGEST, Predictor, integers, mixture_bits, predictor_graph

__all__ = ["Effort", "add_lossless", "lossless_files", "prepared"]

Bytes = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]

QUANTISED = 0.3  # last part of the iterations, which is trained with rounded weights
HOLD_OUT = 40
LEAST_SQUARES = 1_000_000  # samples that the linear prediction is fitted to before training
COUNTED = 100  # pictures that the tables are fitted to
CHUNK = 4096  # samples that are predicted at once: what is in between stays in the cache


@dataclass(frozen=True)
class Nets:
    """The nets of a lattice.

    Arguments:
        hidden: channels of the hidden layers.
        gates: gated linear predictions.
        iterations: of training, for luma and for chroma.
    """

    hidden: tuple[int, ...]
    gates: int
    iterations: tuple[int, int]


def _full() -> dict[int, Nets]:
    return {
        1: Nets((96, 96), 32, (3500, 2500)),
        2: Nets((80, 64), 24, (1000, 1000)),
        4: Nets((64, 48), 16, (1300, 1300)),
    }


@dataclass(frozen=True)
class Effort:
    """How much goes into the nets.

    Arguments:
        pictures: that are trained on.
        nets: by h.
        batch: samples of an iteration.
        rate: learning rate of the nets at first; it falls to a fiftieth along a cosine.
        linear_rate: of the linear predictions.
    """

    pictures: int = 400
    nets: dict[int, Nets] = field(default_factory=_full)
    batch: int = 4096
    rate: float = 1.6e-2
    linear_rate: float = 2e-3


FULL = Effort()


def _least_squares(context: Int16, target: Int16) -> npt.NDArray[np.float32]:
    """Linear predictor to start from; smooth places count more, as they do in bits."""
    activity = np.abs(context[:, :4]).mean(1)
    weight = (1 / (activity + 2) ** 2).astype(np.float32)[:, None]
    x = context.astype(np.float32)
    gram = (x * weight).T @ x
    gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    return np.linalg.solve(gram, (x * weight).T @ target.astype(np.float32)).astype(np.float32)


def fit_predictor(model: Predictor, context: Int16, target: Int16, iterations: int, effort: Effort, seed: int) -> None:
    """Train on samples: `context (N, channels)`, `target (N,)` minus the reference values."""
    generator = torch.Generator().manual_seed(seed)
    every = max(1, len(target) // LEAST_SQUARES)
    with torch.no_grad():
        model.linear.copy_(torch.from_numpy(_least_squares(context[::every], target[::every])))
    optimiser = Soap(
        [
            {"params": model.net.parameters(), "lr": effort.rate},
            {"params": [p for p in (model.linear, model.gated) if p.numel()], "lr": effort.linear_rate},
        ]
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    for k in range(iterations):
        factor = min(1.0, (k + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * k / iterations)))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        chosen = torch.randint(len(target), (min(effort.batch, len(target)),), generator=generator).numpy()
        mean, index = model(*model.inputs(context[chosen]), k >= iterations * (1 - QUANTISED))
        wanted = torch.from_numpy(target[chosen].astype(np.float32))
        loss = mixture_bits(wanted - mean, index).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.requires_grad_(False)


def prepared(pictures: Sequence[Bytes], count: int) -> list[Bytes]:
    """Calibration pictures without the traces of JPEG: scaled down; a third scaled up again, with noise.

    The latter stand for what cameras and scanners give at full resolution: soft and grainy, the grain itself softened
    by what comes after the sensor or left as it is.
    """
    generator = np.random.default_rng(0)
    filters = (Image.Resampling.LANCZOS, Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BICUBIC)
    result: list[Bytes] = []
    for k in generator.permutation(len(pictures))[:count].tolist():
        image = Image.fromarray(pictures[k])
        soft = len(result) % 3 == 2
        factor = 0.5 if soft else 0.6 if image.width * image.height > 100_000 else 0.8
        size = round(image.width * factor), round(image.height * factor)
        image = image.resize(size, filters[int(generator.integers(4))])
        if soft:
            image = _grainy(image, generator, 0.5 * float(generator.uniform(0, 3)))
            factor = float(generator.uniform(1.3, 1.8))
            image = image.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BICUBIC)
            image = _grainy(image, generator, 0.7 * float(generator.uniform(0.3, 3)))
        result.append(np.asarray(image))
    return result


def _grainy(image: Image.Image, generator: np.random.Generator, sigma: float) -> Image.Image:
    """With noise of `sigma` levels in brightness and as much in every colour."""
    values = np.asarray(image, np.float64)
    values = values + generator.normal(0, sigma, (*values.shape[:2], 1))
    values = values + generator.normal(0, sigma, values.shape)
    return Image.fromarray(np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8))


class _Store:
    """Finished nets in a folder, so that training that was stopped goes on where it was.

    Arguments:
        folder: where they are kept; None keeps nothing.
        effort: what a net must have been trained with to be taken, other lattices and the iterations apart.
        samples: of all pictures, likewise.
    """

    def __init__(self, folder: Path | None, effort: Effort, samples: int) -> None:
        self.folder = folder
        self.settings = {**asdict(effort), "samples": samples}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, half: int, model: Predictor) -> Int16 | None:
        """Fill in the weights of a net and give the residuals that it leaves, if it is there.

        Raises:
            ModelError: it was trained with other settings.
        """
        if self.folder is None or not self._path(name).exists():
            return None
        kept = torch.load(self._path(name), weights_only=True)
        if kept["settings"] != self._of(half):
            raise ModelError(f"{self._path(name)} was trained with other settings; remove it or take another folder")
        model.load_state_dict(kept["weights"])
        model.requires_grad_(False)
        return np.asarray(kept["residuals"].numpy())

    def save(self, name: str, half: int, model: Predictor, residuals: Int16) -> None:
        """Keep a net; it is there as a whole or not at all."""
        if self.folder is not None:
            path = self._path(name)
            kept = {
                "settings": self._of(half),
                "weights": model.state_dict(),
                "residuals": torch.from_numpy(residuals),
            }
            torch.save(kept, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)

    def _of(self, half: int) -> dict[str, Any]:
        return {**self.settings, "nets": {**self.settings["nets"][half], "iterations": None}}

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{Path(name).name}.pt"


def train(
    pictures: Sequence[Bytes], effort: Effort, folder: Path | None, report: Callable[[str], None]
) -> dict[str, Predictor]:
    """Nets by graph name, trained in coding order: each sees the residuals that those before it leave."""
    planes = [to_planes(p) for p in pictures]
    store = _Store(folder, effort, sum(p.size for p in planes))
    residuals: list[list[Int16]] = []  # by picture and axis, of the lattice of stride 2h
    predictors: dict[str, Predictor] = {}
    torch.manual_seed(0)
    for half in (8, 4, 2, 1):
        finished: list[list[Lattice]] = [[] for _ in planes]
        for axis in range(3):
            lattices = []
            for n, p in enumerate(planes):
                values = p[axis, ::half, ::half]
                known = np.ascontiguousarray(values[::2, ::2])
                before = np.zeros_like(known) if half == 8 else residuals[n][axis]
                lattices.append((Lattice((values.shape[0], values.shape[1]), known, before, finished[n]), values))
            for phase in (1, 2, 3):
                said = _train_phase(lattices, half, axis, phase, effort, store, predictors)
                report(f"lossless nets: h = {half}, axis {axis}, phase {phase}: {said}")
            for n, (lattice, _) in enumerate(lattices):
                lattice.finish()
                finished[n] = [*finished[n], lattice]
        residuals = [[lattice.full_residuals for lattice in done] for done in finished]
    return predictors


def _samples(lattices: list[tuple[Lattice, Int16]], phase: int) -> tuple[Int16, Int16]:
    """Contexts `(N, channels)` of a phase in all pictures, and values minus reference values `(N,)`."""
    i, j = PHASES[phase]
    contexts, targets = [], []
    for lattice, values in lattices:
        reference, context = lattice.context(phase, slice(0, lattice.phase_shape(phase)[0]))
        contexts.append(context.reshape(len(context), -1))
        targets.append((values[i::2, j::2] - reference).ravel())
    target = np.concatenate(targets)
    result, at = np.empty((len(target), len(contexts[0])), np.int16), 0
    for context in contexts:
        result[at : at + context.shape[1]] = context.T
        at += context.shape[1]
    return result, target


def _train_phase(
    lattices: list[tuple[Lattice, Int16]],
    half: int,
    axis: int,
    phase: int,
    effort: Effort,
    store: _Store,
    predictors: dict[str, Predictor],
) -> str:
    """Train the net of a phase on all pictures, let it predict them, say what that gave.

    At h = 8 a linear predictor stands in.
    """
    i, j = PHASES[phase]
    if half == 8:
        context, target = _samples(lattices, phase)
        left, said = _left(target, context.astype(np.float32) @ _least_squares(context, target)), "linear"
    else:
        name = lossless_walk.graph_name(half, axis, phase)
        model = predictors[name] = Predictor(
            context_channels(phase, axis), effort.nets[half].hidden, effort.nets[half].gates
        )
        kept = store.load(name, half, model)
        if kept is not None:
            left, said = kept, "kept"
        else:
            context, target = _samples(lattices, phase)
            fit_predictor(
                model, context, target, effort.nets[half].iterations[axis > 0], effort, 9 * half + 3 * axis + phase
            )
            left, bits = _predict(model, context, target)
            said = f"{bits:.4f} bits a sample"
            store.save(name, half, model, left)
    at = 0
    for lattice, values in lattices:
        own = np.ascontiguousarray(values[i::2, j::2])
        lattice.add(own, left[at : at + own.size].reshape(own.shape))
        at += own.size
    return said


def _left(target: Int16, mean: npt.NDArray[np.float32]) -> Int16:
    return np.clip(np.floor(target - mean + 0.5), -LARGEST, LARGEST).astype(np.int16)


def _predict(model: Predictor, context: Int16, target: Int16) -> tuple[Int16, float]:
    """What a net's prediction leaves of every sample, and the bits a sample takes on average."""
    pieces = [model(*model.inputs(context[k : k + CHUNK]), True) for k in range(0, len(context), CHUNK)]
    mean, index = (torch.cat(part) for part in zip(*pieces, strict=True))
    bits = mixture_bits(torch.from_numpy(target.astype(np.float32)) - mean, index).mean()
    return _left(target, mean.numpy()), float(bits)


class _Counter:
    """Takes the place of the encoder in `lossless.walk` and counts residuals by table."""

    def __init__(self) -> None:
        self.counts = np.zeros((TABLES, 2 * LARGEST + 1), np.int64)

    def corner(self, axis: int) -> int:
        """The first sample."""
        return int(self.planes[axis, 0, 0])

    def count(self, model: Model, picture: Bytes) -> None:
        """Count a picture."""
        self.planes = to_planes(picture)
        lossless_walk.walk(picture.shape[0], picture.shape[1], 3, functools.partial(lossless_walk.predict, model), self)

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
    folder: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, bytes]:
    """The files that let a photo bundle code losslessly.

    Arguments:
        base: the bundle's other files.
        pictures: training photos `(H, W, 3)`; see :func:`prepared`.
        effort: how many of them, what nets, how long.
        folder: finished nets are kept there, and those found there are taken: a second call goes on after a stop.
        report: called with one line per stage.

    Raises:
        ModelError: a graph leaves the exact range or disagrees with integer arithmetic; a net in `folder` was trained
            with other settings.
    """
    chosen = prepared(pictures, effort.pictures)
    predictors = train(chosen, effort, folder, report)
    assert len(predictors) == 9 * SETS
    graphs = {f"{name}.onnx": predictor_graph(p) for name, p in predictors.items()}
    model = Model(parts.listed({**base, **graphs}))
    check(predictors, model)
    report("lossless tables")
    counter = _Counter()
    for picture in chosen[:: max(1, len(chosen) // COUNTED)]:
        counter.count(model, picture)
    return {**graphs, TABLES_FILE: fit_tables(counter.counts)}


def check(predictors: dict[str, Predictor], model: Model) -> None:
    """Every graph against 64-bit integers on random contexts, small and as large as they get.

    Raises:
        ModelError: they disagree.
    """
    generator = np.random.default_rng(0)
    for name, predictor in predictors.items():
        for largest in (3, 40, LARGEST):
            context = generator.integers(-largest, largest + 1, (len(predictor.linear), 24, 40)).astype(np.int16)
            mean, index = model.run(name, {"context": context[None]})
            want = integers(predictor, context.reshape(len(context), -1).T)
            if not (np.array_equal(mean.ravel(), want[0]) and np.array_equal(index.ravel(), want[1])):
                raise ModelError(f"integer arithmetic and ONNX Runtime disagree in {name}; the export is refused")


def add_lossless(
    bundle: Path,
    folder: Path,
    out: Path,
    *,
    source: Path | None = None,
    effort: Effort = FULL,
    nets: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Model:
    """Write a bundle with everything of `bundle` and the files for lossless coding, which do not depend on its flow.

    Arguments:
        bundle: an `.eocm` file of a photo model; lossless files that it has are replaced.
        folder: training photos; those held out by the usual rule are not used.
        out: the `.eocm` file to write.
        source: take the lossless files of this bundle instead of training.
        effort: of training, :data:`FULL` takes half an hour on a CPU core.
        nets: folder where finished nets are kept, see :func:`lossless_files`.
        report: called with one line per stage.

    Raises:
        ModelError: `source` has no lossless files, or a graph fails its check.
    """
    base = {name: content for name, content in bundle_files(bundle).items() if not name.startswith("lossless/")}
    if source is None:
        pictures, _ = split(read_pictures(folder), HOLD_OUT, "picture")
        added = lossless_files(base, [p for _, p in pictures], effort=effort, folder=nets, report=report)
    else:
        added = {name: content for name, content in bundle_files(source).items() if name.startswith("lossless/")}
    files = parts.listed({**base, **added})
    model = Model(files)
    lossless_tables.tables_of(model)
    write_bundle(out, files)
    return model
