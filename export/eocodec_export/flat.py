"""Checkpoint of a model with one latent vector (`face64`) → bundle: graphs, calibration, parity, write.

In: a checkpoint and pictures of the model's size. Out: an `.eocm` file, refused when torch and ONNX Runtime disagree.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto
from torch import Tensor, nn

from eocodec.coding import flat
from eocodec.errors import ModelError
from eocodec.flow.context import ACTIVATION_UNIT, INDEX_UNIT, MEAN_UNIT, SCALE_MIN, SCALE_PER_OCTAVE, SCALES
from eocodec.flow.face import INDEX_LIMIT, FaceModel
from eocodec.flow.objective import dense_log_column_norms
from eocodec.model import parts, transform
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.manifest import FORMAT
from eocodec.model.rotation import pack_basis, unpack_basis
from eocodec.model.spectrum import GAUSSIAN
from eocodec.steps import STEP_UNIT, step_code, step_of_code
from eocodec_export import calibration
from eocodec_export.graphs import INT8_LIMIT, MEAN_LIMIT, GraphBuilder, export_graph, halved, rounded

__all__ = ["check_parity", "export_flat"]

FLOAT_TOLERANCE = 1e-3  # of the range 0 to 1
STEPS = (
    4.0,
    12.0,
    24.0,
    40.0,
    60.0,
    90.0,
    130.0,
    190.0,
    280.0,
    400.0,
    560.0,
)  # 8-bit levels at which tables are fitted
REFERENCE_STEP = (
    20.0  # 8-bit levels: as fine as the nets are trained for; the density is that of the unquantised latents
)
DEAD_ZONE = 0.12
WATER_STEPS = (40.0, 70.0, 100.0, 150.0, 220.0, 320.0)
BATCH = 64
DROP_LEVELS = (5.0, 10.0, 15.0, 25.0, 35.0, 50.0, 75.0)  # 8-bit levels of noise for which the best C is looked up
DROP_POINTS = 24  # of C, in a geometric sequence up to the whole core
# 8-bit levels from which on the latents beyond the core are coded: where that beats the refinement in their place.
REST_LEVEL = 9.0

Bytes = npt.NDArray[np.uint8]


def _turn(x: Tensor, reflections: Tensor, middles: Tensor, back: bool) -> Tensor:
    """The rotation of `eocodec.model.rotation.unpack_basis`, or its inverse, on rows; signs not included."""
    order = range(reflections.shape[0])
    nothing = torch.zeros(reflections.shape[1])
    for b in reversed(order) if back else order:
        rows, middle = reflections[b], middles[b]
        inner = nn.functional.linear(x, rows, nothing)  # with a bias it becomes one Gemm instead of a transposition
        x = x - torch.matmul(torch.matmul(inner, middle.T if back else middle), rows)
    return x


class _Encoder(nn.Module):
    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.flow, self.core = model.flow, model.config.core

    def forward(self, picture: Tensor, reflections: Tensor, middles: Tensor, signs: Tensor) -> Tensor:
        v = _turn(self.flow.lift(picture), reflections, middles, False) * signs
        core = v[:, : self.core]
        for coupling in self.flow.couplings:
            core = coupling(core)
        return torch.cat([core, v[:, self.core :]], 1)


class _Decoder(nn.Module):
    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.flow, self.refine, self.core = model.flow, model.refine, model.config.core

    def forward(self, latents: Tensor, step: Tensor, reflections: Tensor, middles: Tensor, signs: Tensor) -> Tensor:
        core = latents[:, : self.core]
        for coupling in reversed(self.flow.couplings):
            core = coupling.inverse(core)
        v = torch.cat([core, latents[:, self.core :]], 1) * signs
        return self.refine(self.flow.unlift(_turn(v, reflections, middles, True)), step)


def _graphs(model: FaceModel, constants: dict[str, npt.NDArray[np.float32]]) -> dict[str, bytes]:
    size = model.config.size
    rotation = tuple(torch.from_numpy(constants[k]) for k in ("reflections", "middles", "signs"))
    picture, latents = torch.rand(2, 3, size, size), torch.rand(2, 3 * size**2)
    names = ["reflections", "middles", "signs"]
    encoder = export_graph(_Encoder(model), (picture, *rotation), ["picture", *names], ["latents"], False)
    decoder = export_graph(
        _Decoder(model), (latents, torch.rand(2), *rotation), ["latents", "step", *names], ["picture"], False
    )
    graphs = {"encoder": halved(encoder), "decoder": halved(decoder)}
    for k, net in enumerate(model.context.nets):
        g = GraphBuilder()
        inputs = net.convs[0].in_channels
        x = g.floats(g.input("seen", TensorProto.INT8, inputs))
        x = g.hidden(net, x, np.full(inputs, INT8_LIMIT), len(net.convs) - 1)
        index_limit = round(INDEX_LIMIT)
        outputs = g.halves(
            net.convs[-1],
            x,
            (
                ("mean", MEAN_UNIT, -MEAN_LIMIT, MEAN_LIMIT, TensorProto.INT16),
                ("index", INDEX_UNIT, -index_limit, index_limit, TensorProto.INT8),
            ),
        )
        graphs[f"entropy/block{k}"] = halved(g.finish(outputs))
    return graphs


class _Statistics:
    """Counts residuals and their offsets from the integers, by table index."""

    def __init__(self, model: Model) -> None:
        self.width = max(len(t) for t in model.tables) + 1
        self.counts = np.zeros((SCALES, self.width), np.int64)
        self.shift_sum = np.zeros((SCALES, 4))
        self.shift_count = np.zeros((SCALES, 4))
        self.nonzero: dict[float, list[int]] = {}

    def add(self, model: Model, latents: npt.NDArray[np.float32], level: float) -> None:
        code = step_code(level / 255.0)
        delta = step_of_code(code)
        coder = flat.round_latents(model, code, latents, delta)
        for m, residual, index in zip(coder.residuals, coder.offsets, coder.indices, strict=True):
            magnitude, place = np.abs(m), index.astype(np.int64)
            np.add.at(self.counts, (place, np.minimum(magnitude, self.width - 1)), 1)
            kind = np.minimum(magnitude, 3)
            np.add.at(self.shift_sum, (place, kind), magnitude - np.sign(m) * residual)
            np.add.at(self.shift_count, (place, kind), 1)
        self.nonzero.setdefault(level, []).append(sum(int(np.count_nonzero(m)) for m in coder.residuals))


@torch.no_grad()
def _column_norms(model: FaceModel, pictures: Tensor) -> Tensor:
    """E log ‖J_i‖ of every latent `(D,)`: two pictures for each of the core, one for each of the rest."""
    core, dims = model.config.core, 3 * model.config.size**2
    jobs = torch.cat([torch.arange(core).repeat(2), torch.arange(core, dims)])
    total, count = torch.zeros(dims), torch.zeros(dims)
    for k, index in enumerate(torch.split(jobs, BATCH)):
        chosen = (torch.arange(len(index)) + k * BATCH) * 37 % len(pictures)
        h = model.flow(pictures[chosen].float() / 255)
        norms = dense_log_column_norms(model.vector_inverse, h, index)
        total.index_add_(0, index, norms)
        count.index_add_(0, index, torch.ones_like(norms))
    return total / count


@torch.no_grad()
def _latents(model: FaceModel, pictures: Tensor, sigma: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    result = []
    for p in torch.split(pictures, 256):
        x = p.float() / 255
        result.append(model.flow(x + sigma / 255 * torch.randn(x.shape, generator=generator)))
    return torch.cat(result)


@torch.no_grad()
def _entropy(model: FaceModel, h: Tensor) -> Tensor:
    """E −log p(h_i | integers before) in nats `(D,)`, at the reference step."""
    step = torch.full((len(h),), REFERENCE_STEP / 255.0)
    parts = [
        model.code(a, s, 0.0, True).band_nll[0]
        for a, s in zip(torch.split(h, 256), torch.split(step, 256), strict=True)
    ]
    return torch.cat(parts).mean(0)


def export_flat(
    model: FaceModel,
    train: Sequence[Bytes],
    held_out: Sequence[Bytes],
    out: Path,
    *,
    name: str,
    card: str,
    pictures: int,
    tiny: int = 0,
    dead_zone: float = DEAD_ZONE,
    report: Callable[[str], None] = lambda message: None,
) -> Model:
    """Export a trained `FaceModel`; see :func:`eocodec_export.bundle.export`.

    Arguments:
        model: with the weights to export; its rotation is replaced by the rounded one that the bundle holds, its float
            weights by 16-bit ones.
        train, held_out: arrays `(S, S, 3)`: tables and scales come from the first, the spectrum from the second.
        out: the `.eocm` file.
        name, card: for the manifest.
        pictures: how many training pictures the tables are fitted on.
        tiny: the model's number in tiny files, 0 for none.
        dead_zone: weight of the rate in rounding, squared steps per bit.
        report: called with one line per stage.

    Raises:
        ModelError: a parity check failed.
    """
    model.eval()
    rotation = model.flow.rotation
    basis = pack_basis(rotation.vectors.detach().numpy(), rotation.signs.numpy())
    constants = unpack_basis(basis)
    with torch.no_grad():
        dims, rank = rotation.vectors.shape
        rotation.vectors.copy_(torch.from_numpy(constants["reflections"]).reshape(-1, dims)[:rank].T)
        halves = [*model.flow.predict.parameters(), *model.flow.update.parameters()]
        for p in [*halves, *model.flow.couplings.parameters(), *model.refine.parameters(), model.flow.mean]:
            p.copy_(rounded(p))
    stack = torch.from_numpy(np.stack(train)).permute(0, 3, 1, 2)
    checked = torch.from_numpy(np.stack(held_out)).permute(0, 3, 1, 2)
    stride = max(1, len(stack) // pictures)
    core = model.config.core

    report("graphs")
    graphs = _graphs(model, constants)
    report("column norms")
    norms = _column_norms(model, checked)
    report("spectrum and scales")
    h = _latents(model, checked)
    with torch.no_grad():
        model.gain.copy_(torch.where(torch.arange(len(norms)) < core, model.gain, -norms))
        some = _latents(model, stack[:: max(1, len(stack) // 2048)])
        model.log_scale[core:] = some[:, core:].abs().mean(0).clamp(min=1e-5).log()
    spectrum = _entropy(model, h) + norms
    noise = (_latents(model, checked, 10.0) - h).abs().median(0).values / 0.6745 / (10.0 / 255.0)
    scale = (model.log_scale.detach() - model.gain).double() / math.log(2) + math.log2(255.0 / SCALE_MIN)
    manifest: dict[str, object] = {
        "format": FORMAT,
        "kind": "flat",
        "name": name,
        "licence": "Apache-2.0",
        "card": card,
        "size": model.config.size,
        "blocks": list(model.config.blocks),
        "gain": [round(v, 5) for v in model.gain.tolist()],
        "entropy": [round(v, 5) for v in spectrum.tolist()],
        "scale": torch.round(scale * SCALE_PER_OCTAVE * STEP_UNIT).long().tolist(),
        "rest_step": step_code(REST_LEVEL / 255.0),
        "water": 1.0,
        "dead_zone": dead_zone,
        "shift": [[0, 0, 0]] * SCALES,
        "tiny": tiny,
        "noise": [round(v, 4) for v in noise.tolist()],
        "drop": [[1.0, 1.0]],
    }
    tables = calibration.laplace_tables(dead_zone)

    def files() -> dict[str, bytes]:
        return {
            **{f"{key}.onnx": content for key, content in graphs.items()},
            "manifest.json": json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode(),
            "tables.bin": calibration.pack_tables(tables),
            "compand.bin": calibration.compand_table(),
            "basis.bin": basis,
        }

    chosen = stack[::stride][:pictures]
    latents = _latents(model, chosen).numpy()
    for turn in range(2):  # rounding depends on the tables, the tables on the rounding
        report(f"tables, pass {turn + 1} of 2")
        bundle = Model(files())
        if turn == 0:
            check_parity(model, bundle, checked[:8])
        statistics = _Statistics(bundle)
        for vector in latents:
            for level in STEPS:
                statistics.add(bundle, vector, level)
        tables = calibration.fit_tables(statistics, dead_zone)
        manifest["shift"] = calibration.fit_shift(statistics)
    report("C and step")
    bundle = Model(files())
    statistics = _Statistics(bundle)
    for vector in latents[:: max(1, len(latents) // 100)]:
        for level in WATER_STEPS:
            statistics.add(bundle, vector, level)
    sigma = np.exp(bundle.flat.spectrum.entropy - GAUSSIAN)
    ratios = [
        level / 255 / math.sqrt(12) / sigma[max(0, round(float(np.mean(counts))) - 1)]
        for level, counts in statistics.nonzero.items()
    ]
    manifest["water"] = round(float(np.median(ratios)), 4)
    report("noise and C")
    manifest["drop"] = _best_drops(Model(files()), checked[:128].permute(0, 2, 3, 1).numpy())
    report("parity")
    check_parity(model, Model(files()), checked[:8])
    whole = parts.listed(files())
    write_bundle(out, whole)
    return Model(whole)


def _best_drops(model: Model, pictures: Bytes) -> list[list[float]]:
    """The C with the highest mean PSNR when the later latents of noisy pictures `(N, S, S, 3)` are dropped."""
    generator = np.random.default_rng(0)
    core = model.flat.blocks[-1]
    rates = np.unique(np.rint(np.geomspace(4, core, DROP_POINTS)))
    result = []
    for level in DROP_LEVELS:
        noisy = pictures / np.float32(255) + np.float32(level / 255) * generator.standard_normal(
            pictures.shape, np.float32
        )
        latents = np.stack([transform.analyse_vector(model, x) for x in noisy])
        qualities = []
        for rate in rates:
            clean = transform.synthesise_vectors(model, latents * model.flat.kept(rate), model.flat.core_step(rate))
            errors = np.square(clean * 255 - pictures).mean((1, 2, 3))
            qualities.append(-10 * float(np.log10(errors).mean()))
        result.append([level, float(rates[int(np.argmax(qualities))])])
    return result


@torch.no_grad()
def check_parity(model: FaceModel, bundle: Model, pictures: Tensor) -> dict[str, float]:
    """Largest differences between torch and ONNX Runtime on random and real pictures `(N, 3, S, S)` uint8.

    Raises:
        ModelError: a float graph differs by more than 1e-3 of the range 0 to 1, or an integer graph at all.
    """
    generator = np.random.default_rng(0)
    random = torch.from_numpy(generator.integers(0, 256, (4, *pictures.shape[1:]), np.uint8))
    x = torch.cat([pictures, random]).float() / 255
    h = model.flow(x)
    (encoded,) = bundle.run("encoder", {"picture": x.numpy()})
    worst = {"encoder": float(np.abs(h.numpy() - encoded).max()), "decoder": 0.0}
    for level in (4.0, 60.0, 400.0):
        step = torch.full((len(x),), level / 255.0)
        latents = torch.round(h / step[:, None]) * step[:, None]
        want = model.refine(model.flow.inverse(latents), step)
        (got,) = bundle.run("decoder", {"latents": latents.numpy(), "step": step.numpy()})
        worst["decoder"] = max(worst["decoder"], float(np.abs(want.numpy() - got).max()))
    for name, difference in worst.items():
        if not difference <= FLOAT_TOLERANCE:
            raise ModelError(f"torch and ONNX Runtime differ by {difference:.2g} in the {name}; the export is refused")
    return {**worst, "entropy": _check_integers(model, bundle, generator)}


def _check_integers(model: FaceModel, bundle: Model, generator: np.random.Generator) -> float:
    """Every entropy graph against the quantised torch net, in double precision, on random integers."""
    context = model.context.double()
    differing = 0
    try:
        for k, (a, _) in enumerate(pairwise(context.edges)):
            seen = generator.integers(-127, 128, (64, a + 1, 1, 1)).astype(np.int8)
            x = torch.from_numpy(seen[..., 0, 0]).double() / ACTIVATION_UNIT
            mean, index = context.parameters_of(k, x, True)
            got = bundle.run(f"entropy/block{k}", {"seen": seen})
            differing += int(np.count_nonzero(mean.numpy() * MEAN_UNIT != got[0][..., 0, 0]))
            differing += int(np.count_nonzero(index.numpy() != got[1][..., 0, 0]))
    finally:
        context.float()
    if differing:
        raise ModelError(f"torch and ONNX Runtime disagree in {differing} integers; the export is refused")
    return 0.0
