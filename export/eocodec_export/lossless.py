"""The lossless part of a photo bundle: trains its nets, rounds them to integers, fits its tables.

In: photos. Out: the bundle's files `lossless/{set}_{axis}_{phase}.onnx` and `lossless/tables.bin`. The nets are
so small that training them is part of the export. They see what `eocodec.coding.lattice.Lattice.context` gives, the
very function that files are coded with, and every graph is checked against integer arithmetic before it is written.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto
from PIL import Image
from torch import Tensor, nn

from eocodec.coding import lossless_tables, lossless_walk
from eocodec.coding.lattice import Lattice, to_planes
from eocodec.coding.lossless_tables import CLASSES, COARSE, TABLES, TABLES_FILE
from eocodec.coding.lossless_walk import SETS, Strip
from eocodec.coding.units import PHASES
from eocodec.errors import ModelError
from eocodec.flow.context import (
    ACTIVATION_UNIT,
    BITS_PER_NAT,
    INDEX_UNIT,
    MEAN_UNIT,
    SCALE_MIN,
    SCALE_PER_OCTAVE,
    SCALES,
    IntegerNet,
    round_through,
    start_last,
)
from eocodec.flow.pictures import read_pictures, split
from eocodec.model import parts
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import bundle_files
from eocodec_export.graphs import EXACT, MEAN_LIMIT, GraphBuilder

__all__ = ["Predictor", "add_lossless", "lossless_files", "predictor_graph", "prepared"]

Bytes = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]

WIDTH = 48
PICTURES = 160
ITERATIONS = {1: 2200, 2: 1500, 4: 900}  # by h; each on a batch of samples
BATCH = 4096
QUANTISED = 0.3  # last part of the iterations, which is trained with rounded weights
LINEAR_UNIT = 2048  # of the linear part's weights
LARGEST = 510  # magnitude of an input
LIMIT = 1023 * MEAN_UNIT  # of the nets' correction
SHARE = 0.5  # of the Laplace density in the mixture that is trained; the rest is logistic
FLOOR = 1e-6
HOLD_OUT = 40


def compand_table() -> npt.NDArray[np.int8]:
    """What the nets see of −510 … 510: sign · round(14 · log2(1 + |d|)), at 0, 1, …, 510, −510, …, −1."""
    d = np.concatenate([np.arange(LARGEST + 1), np.arange(-LARGEST, 0)])
    return (np.sign(d) * np.floor(14 * np.log2(1.0 + np.abs(d)) + 0.5)).astype(np.int8)


def scale_table() -> npt.NDArray[np.int64]:
    """Scale of every index in 1/16 levels, at least 1: the unit of the nets' correction of the mean."""
    k = np.arange(SCALES)
    return np.maximum(1, np.floor(MEAN_UNIT * SCALE_MIN * 2.0 ** (k / SCALE_PER_OCTAVE) + 0.5)).astype(np.int64)


class Predictor(nn.Module):
    """Mean and scale of a sample from its context `(N, channels)`: a linear part plus a net's correction in scales.

    Arguments:
        channels: of the context.
        width: hidden channels.
    """

    compand: Tensor
    scales: Tensor

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(channels))
        self.net = IntegerNet([channels, width, width, 2], [1, 1, 1], False)
        start_last(self.net, 3.3)  # a scale of 2 levels
        self.register_buffer("compand", torch.from_numpy(compand_table().astype(np.float32)), persistent=False)
        self.register_buffer("scales", torch.from_numpy(scale_table().astype(np.float32)), persistent=False)

    def inputs(self, context: Int16) -> tuple[Tensor, Tensor]:
        """Float context, and companded in 1/32."""
        index = torch.from_numpy(context.astype(np.int32))
        return index.float(), self.compand[index.reshape(-1)].reshape(index.shape) / ACTIVATION_UNIT

    def forward(self, context: Tensor, companded: Tensor, quantised: bool) -> tuple[Tensor, Tensor]:
        """Mean minus reference value, in levels, and scale index, `(N,)` each."""
        x = companded
        for k, conv in enumerate(self.net.convs):
            w, b = conv.rounded() if quantised else (conv.weight, conv.bias)
            x = torch.nn.functional.linear(x, w[:, :, 0, 0], b)
            if k + 1 < len(self.net.convs):
                if quantised:
                    x = round_through(x * ACTIVATION_UNIT) / ACTIVATION_UNIT
                x = x.clamp(0, 255 / ACTIVATION_UNIT)
        correction, index = x[:, 0], x[:, 1] * INDEX_UNIT
        if quantised:
            correction, index = round_through(correction * MEAN_UNIT) / MEAN_UNIT, round_through(index)
        index = index.clamp(0, SCALES - 1)
        unit = SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)
        if quantised:
            unit = unit * (self.scales[index.detach().long()] / MEAN_UNIT / unit).detach()
        return context @ self.linear + correction.clamp(-MEAN_LIMIT / MEAN_UNIT, MEAN_LIMIT / MEAN_UNIT) * unit, index


def mixture_bits(residual: Tensor, index: Tensor) -> Tensor:
    """Bits of integers at distance `residual` from the mean: Laplace and logistic densities over unit bins."""
    scale = SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)
    low, high = residual.abs() - 0.5, residual.abs() + 0.5
    tail = 0.5 * torch.exp(-low.abs() / scale)
    laplace = torch.where(low < 0, 1 - tail, tail) - 0.5 * torch.exp(-high / scale)
    logistic = torch.sigmoid(-low / (0.7 * scale)) - torch.sigmoid(-high / (0.7 * scale))
    return -torch.log(SHARE * laplace.abs() + (1 - SHARE) * logistic.abs() + FLOOR) * BITS_PER_NAT


def _least_squares(context: Int16, target: Int16) -> npt.NDArray[np.float32]:
    """Linear predictor to start from; smooth places count more, as they do in bits."""
    activity = np.abs(context[:, :4]).mean(1)
    weight = (1 / (activity + 2) ** 2).astype(np.float32)[:, None]
    x = context.astype(np.float32)
    gram = (x * weight).T @ x
    gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    return np.linalg.solve(gram, (x * weight).T @ target.astype(np.float32)).astype(np.float32)


def fit_predictor(context: Int16, target: Int16, iterations: int, seed: int) -> Predictor:
    """Train on samples: `context (N, channels)`, `target (N,)` minus the reference values."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Predictor(context.shape[1])
    with torch.no_grad():
        model.linear.copy_(torch.from_numpy(_least_squares(context, target)))
    optimiser = torch.optim.Adam(
        [{"params": model.net.parameters(), "lr": 4e-3}, {"params": [model.linear], "lr": 3e-4}]
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    for k in range(iterations):
        factor = min(1.0, (k + 1) / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * k / iterations)))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        chosen = torch.randint(len(target), (min(BATCH, len(target)),), generator=generator).numpy()
        mean, index = model(*model.inputs(context[chosen]), k >= iterations * (1 - QUANTISED))
        wanted = torch.from_numpy(target[chosen].astype(np.float32))
        loss = mixture_bits(wanted - mean, index).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.requires_grad_(False)


def _linear_weights(model: Predictor) -> npt.NDArray[np.float64]:
    weights = np.floor(model.linear.double().numpy() * LINEAR_UNIT + 0.5)
    if np.abs(weights).sum() * LARGEST + LINEAR_UNIT >= EXACT:
        raise ModelError("a linear predictor's sums could leave the exact range of 2**24")
    return np.asarray(weights)


def predictor_graph(model: Predictor) -> bytes:
    """`context (B, channels, rows, columns)` int16 → `mean` int16, 1/16 levels from the reference; `index` uint8.

    Raises:
        ModelError: a partial sum could leave the exactly representable range.
    """
    g = GraphBuilder()
    channels = len(model.linear)
    x = g.input("context", TensorProto.INT16, channels)
    places = g.node("Cast", "context", to=TensorProto.INT32)
    t = g.node("Gather", g.constant(compand_table().astype(np.float32)), places, axis=0)
    hidden = g.hidden(model.net, t, np.full(channels, 127), 2)
    kinds = (
        ("mean", MEAN_UNIT, -MEAN_LIMIT, MEAN_LIMIT, TensorProto.INT16),
        ("index", INDEX_UNIT, 0, SCALES - 1, TensorProto.UINT8),
    )
    (correction, *_), (index, *_) = g.halves(model.net.convs[-1], hidden, kinds)
    unit = g.node("Gather", g.constant(scale_table().astype(np.float32)), g.node("Cast", index, to=6), axis=0)
    weights = _linear_weights(model).astype(np.float32)[None, :, None, None]
    linear = g.node("Conv", x, g.constant(weights), kernel_shape=[1, 1])

    def rounded(value: str, divisor: int) -> str:
        half = g.constant(np.float32(0.5))
        return g.node("Floor", g.node("Add", g.node("Mul", value, g.constant(np.float32(1 / divisor))), half))

    scaled = rounded(g.node("Mul", correction, unit), MEAN_UNIT)
    mean = g.clip(g.node("Add", rounded(linear, LINEAR_UNIT // MEAN_UNIT), scaled), -LIMIT, LIMIT)
    return g.finish([(mean, "mean", TensorProto.INT16, 1), (index, "index", TensorProto.UINT8, 1)])


def integers(model: Predictor, context: Int16) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What the graph must give for `context (N, channels)`, in 64-bit integers: mean in 1/16, index."""
    x = compand_table().astype(np.int64)[context]
    for k, conv in enumerate(model.net.convs):
        assert conv.bias is not None
        exponent = conv.exponent().double().numpy()
        w = np.floor(conv.weight[:, :, 0, 0].double().numpy() * 2 ** exponent[:, None] + 0.5).astype(np.int64)
        b = np.floor(conv.bias.double().numpy() * 2**exponent * ACTIVATION_UNIT + 0.5).astype(np.int64)
        last = k + 1 == len(model.net.convs)
        shift = exponent.astype(np.int64) + (np.array([1, 2]) if last else 0)  # units of 1/16 and 1/8
        half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
        x = (x @ w.T + b + half) >> shift
        if not last:
            x = np.clip(x, 0, 255)
    correction, index = np.clip(x[:, 0], -MEAN_LIMIT, MEAN_LIMIT), np.clip(x[:, 1], 0, SCALES - 1)
    linear = context.astype(np.int64) @ _linear_weights(model).astype(np.int64)
    divisor = LINEAR_UNIT // MEAN_UNIT
    mean = (linear + divisor // 2) // divisor + (correction * scale_table()[index] + MEAN_UNIT // 2) // MEAN_UNIT
    return np.clip(mean, -LIMIT, LIMIT), index


def prepared(pictures: Sequence[Bytes], count: int = PICTURES) -> list[Bytes]:
    """Calibration pictures without the traces of JPEG: scaled down; a quarter scaled up again, with noise.

    The latter stand for what cameras and scanners give at full resolution: soft and grainy.
    """
    generator = np.random.default_rng(0)
    filters = (Image.Resampling.LANCZOS, Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BICUBIC)
    result: list[Bytes] = []
    for k in generator.permutation(len(pictures))[:count].tolist():
        image = Image.fromarray(pictures[k])
        soft = len(result) % 4 == 3
        factor = 0.5 if soft else 0.6 if image.width * image.height > 100_000 else 0.8
        size = round(image.width * factor), round(image.height * factor)
        image = image.resize(size, filters[int(generator.integers(4))])
        if soft:
            factor = float(generator.uniform(1.3, 1.8))
            image = image.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BICUBIC)
            values, sigma = np.asarray(image, np.float64), 0.7 * float(generator.uniform(0.5, 3))
            values = values + generator.normal(0, sigma, (*values.shape[:2], 1))
            values = values + generator.normal(0, sigma, values.shape)
            result.append(np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8))
        else:
            result.append(np.asarray(image))
    return result


def train(pictures: Sequence[Bytes], report: Callable[[str], None]) -> dict[str, Predictor]:
    """Nets by graph name, trained in coding order: each sees the residuals that those before it leave."""
    planes = [to_planes(p) for p in pictures]
    residuals: list[list[Int16]] = []  # by picture and axis, of the lattice of stride 2h
    predictors: dict[str, Predictor] = {}
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
                _train_phase(lattices, half, axis, phase, predictors)
            for n, (lattice, _) in enumerate(lattices):
                lattice.finish()
                finished[n] = [*finished[n], lattice]
            report(f"lossless nets: h = {half}, axis {axis}")
        residuals = [[lattice.full_residuals for lattice in done] for done in finished]
    return predictors


def _train_phase(
    lattices: list[tuple[Lattice, Int16]], half: int, axis: int, phase: int, predictors: dict[str, Predictor]
) -> None:
    """Train the net of a phase on all pictures, then let it predict them. At h = 8 a linear predictor stands in."""
    i, j = PHASES[phase]
    contexts, targets, references = [], [], []
    for lattice, values in lattices:
        rows = slice(0, lattice.phase_shape(phase)[0])
        reference, context = lattice.context(phase, rows)
        contexts.append(context.reshape(len(context), -1).T)
        targets.append((values[i::2, j::2] - reference).ravel())
        references.append(reference)
    context, target = np.ascontiguousarray(np.concatenate(contexts)), np.concatenate(targets)
    if half == 8:
        mean = context.astype(np.float32) @ _least_squares(context, target)
    else:
        seed = 9 * half + 3 * axis + phase
        model = fit_predictor(context, target, ITERATIONS[half], seed)
        predictors[lossless_walk.graph_name(half, axis, phase)] = model
        pieces = [model(*model.inputs(context[k : k + 65536]), True)[0] for k in range(0, len(context), 65536)]
        mean = torch.cat(pieces).numpy()
    left = np.clip(np.floor(target - mean + 0.5), -LARGEST, LARGEST).astype(np.int16)
    at = 0
    for (lattice, values), reference in zip(lattices, references, strict=True):
        lattice.add(np.ascontiguousarray(values[i::2, j::2]), left[at : at + reference.size].reshape(reference.shape))
        at += reference.size


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
    base: dict[str, bytes], pictures: Sequence[Bytes], report: Callable[[str], None] = lambda message: None
) -> dict[str, bytes]:
    """The files that let a photo bundle code losslessly.

    Arguments:
        base: the bundle's other files.
        pictures: training photos `(H, W, 3)`; :data:`PICTURES` of them are used, see :func:`prepared`.
        report: called with one line per stage.

    Raises:
        ModelError: a graph leaves the exact range or disagrees with integer arithmetic.
    """
    chosen = prepared(pictures)
    predictors = train(chosen, report)
    assert len(predictors) == 9 * SETS
    graphs = {f"{name}.onnx": predictor_graph(p) for name, p in predictors.items()}
    model = Model({**base, **graphs})
    check(predictors, model)
    report("lossless tables")
    counter = _Counter()
    for picture in chosen[::2]:
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
    report: Callable[[str], None] = lambda message: None,
) -> Model:
    """Write a bundle with everything of `bundle` and the files for lossless coding, which do not depend on its flow.

    Arguments:
        bundle: an `.eocm` file of a photo model; lossless files that it has are replaced.
        folder: training photos; those held out by the usual rule are not used.
        out: the `.eocm` file to write.
        source: take the lossless files of this bundle instead of training (three minutes on two CPU cores).
        report: called with one line per stage.

    Raises:
        ModelError: `source` has no lossless files, or a graph fails its check.
    """
    base = {name: content for name, content in bundle_files(bundle).items() if not name.startswith("lossless/")}
    if source is None:
        pictures, _ = split(read_pictures(folder), HOLD_OUT, "picture")
        added = lossless_files(base, [p for _, p in pictures], report)
    else:
        added = {name: content for name, content in bundle_files(source).items() if name.startswith("lossless/")}
    files = parts.listed({**base, **added})
    model = Model(files)
    lossless_tables.tables_of(model)
    write_bundle(out, files)
    return model
