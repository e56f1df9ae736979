"""Checkpoint → bundle: build graphs, calibrate tables on photos, assert parity, write.

In: a checkpoint and a folder of photos. Out: an `.eocm` file, refused when torch and ONNX Runtime disagree.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from eocodec.errors import EocodecError, ModelError
from eocodec.flow.context import EYE_OFFSETS, SCALES, ContextModel, Steps
from eocodec.flow.embedded import EmbeddedContext, known_channels
from eocodec.flow.face import FaceModel
from eocodec.flow.model import PhotoModel, build
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.training import load_checkpoint
from eocodec.model import parts, transform, unrefined
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.encoding import SETTINGS, EncoderSettings
from eocodec.model.manifest import FORMAT
from eocodec_export import calibration, embedded, flat
from eocodec_export.denoising import check_denoising, denoising_graphs, fit_level, round_weights
from eocodec_export.eight_bit import CALIBRATED, LEVELS, decoder_inputs, eight_bit_refinement
from eocodec_export.flat import export_flat
from eocodec_export.graphs import decoder_graph, encoder_graph, entropy_graphs

__all__ = ["check_context", "check_parity", "export"]

Bytes = npt.NDArray[np.uint8]

FLOAT_TOLERANCE = 1e-3  # of the range 0 to 1
REFINED_TOLERANCE = 0.02  # of the step
STEPS = (2.0, 6.0, 14.0, 28.0, 50.0, 80.0, 120.0, 180.0, 260.0)  # 8-bit levels at which the tables are fitted
DEAD_ZONE = 0.12
# Settings of encoders, chosen on training photos (docs/METHOD.md): weights of the rate in rounding, of chroma and of
# luma from level 1 on, for the smallest squared error and, by SSIMULACRA2, for the eye; how much steps follow the eye.
CHROMA, LUMA = 0.14, (0.13, 0.12, 0.10, 0.09)
EYE_CHROMA, EYE_LUMA = 0.25, (0.17, 0.065, 0.04, 0.03)
TUNING, MASKING = 30, 0.1
HOLD_OUT = 40  # of checkpoints that do not say how their pictures were split
# Then C is near the mean number of nonzero latents of a block (docs/METHOD.md).
WATER = 0.5
LEVEL_PICTURES = 16  # on which the noise level is corrected
REFINE_FROM = 20.0  # 8-bit levels; found on training photos (docs/METHOD.md)
SHRINKAGE = {"step": 1.5, "noise": 0.7, "estimate": 1.0}  # see docs/METHOD.md for what each was chosen on


def _files(model: PhotoModel, graphs: dict[str, bytes], manifest: dict[str, object], tables: bytes) -> dict[str, bytes]:
    settings = _settings(model.config.levels)
    if manifest["dead_zone"] != DEAD_ZONE:  # one weight for all was asked for
        settings = replace(settings, dead_zone=())
    return {
        **({SETTINGS: settings.pack()} if model.config.tuned else {}),
        **{f"{name}.onnx": content for name, content in graphs.items()},
        "manifest.json": json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode(),
        "tables.bin": tables,
        "compand.bin": calibration.compand_table(),
    }


def _settings(levels: int) -> EncoderSettings:
    """How to encode with a model that knows of tuning."""

    def weights(chroma: float, luma: tuple[float, ...]) -> tuple[float, ...]:
        return (chroma, *(luma[min(level, len(luma)) - 1] for level in range(levels, 0, -1)))

    return EncoderSettings(weights(CHROMA, LUMA), weights(EYE_CHROMA, EYE_LUMA), TUNING, MASKING)


def export(
    checkpoint: Path,
    out: Path,
    folder: Path,
    *,
    name: str = "photo",
    card: str = "",
    pictures: int = 96,
    tiny: int = 0,
    dead_zone: float | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Model:
    """Export a checkpoint's averaged weights as a bundle.

    Arguments:
        checkpoint: written by `eocodec train`.
        out: the `.eocm` file.
        folder: photos for calibration: tables from the training part, spectrum from the held-out part.
        name, card: for the manifest.
        pictures: how many training photos the tables are fitted on.
        tiny: number of the model in tiny files, 1 to 3; 0 for none. Only for models of one size.
        dead_zone: weight of the rate in rounding, squared steps per bit, for all latents; None for what was found best.
        report: called with one line per stage.

    Raises:
        EocodecError: unreadable checkpoint or folder, or a model of grey pictures alone; ModelError: a parity check
            failed.
    """
    loaded = load_checkpoint(checkpoint)
    model = build(loaded.config).eval().requires_grad_(False)
    model.load_state_dict(loaded.average)
    every, by = loaded.raw.get("hold_out", HOLD_OUT), loaded.raw.get("hold_out_by", "picture")
    train, held_out = split(read_pictures(folder), every, by)
    if isinstance(model, FaceModel):
        size = model.config.size
        for kind, group in (("training", train), ("held-out", held_out)):
            if not group or any(p.shape != (size, size, 3) for _, p in group):
                raise EocodecError(f"{folder}: all {kind} pictures must have {size}x{size} pixels")
        return export_flat(
            model,
            [p for _, p in train],
            [p for _, p in held_out],
            out,
            name=name,
            card=card,
            pictures=pictures,
            tiny=tiny,
            dead_zone=flat.DEAD_ZONE if dead_zone is None else dead_zone,
            report=report,
        )
    assert isinstance(model, PhotoModel)
    if model.config.axes == 1:
        raise EocodecError(
            "a model of grey pictures alone is a part of another's bundle; python -m eocodec_export.grey puts it there"
        )
    if tiny:
        raise EocodecError("only models for pictures of one size have tiny files")
    dead_zone = DEAD_ZONE if dead_zone is None else dead_zone
    if model.config.gain_widths:
        round_weights(model)
    stride = max(1, len(train) // pictures)
    chosen = [p for _, p in train[::stride]][:pictures]
    checked = [p for _, p in held_out]

    report("graphs")
    decoder = decoder_graph(model)
    if model.config.refine_eight_bit:
        decoder = eight_bit_refinement(decoder, decoder_inputs(model, chosen[:CALIBRATED], dead_zone))
    graphs = {"encoder": encoder_graph(model), "decoder": decoder, **entropy_graphs(model.latents.context)}
    if model.config.embedded:
        graphs.update(entropy_graphs(model.embedded, "embedded"))
    report("spectrum")
    spectrum = calibration.explained_entropy(model, checked)
    order = sorted(
        ((b, c) for b, row in enumerate(spectrum) for c in range(len(row))), key=lambda p: -spectrum[p[0]][p[1]]
    )
    denoising = {**calibration.noise_gains(model, checked), **SHRINKAGE}
    manifest: dict[str, object] = {
        "format": FORMAT,
        "name": name,
        "licence": "Apache-2.0",
        "card": card,
        "levels": loaded.config.levels,
        "gain": [g.tolist() for g in model.latents.gains],
        "entropy": spectrum,
        "order": order,
        "water": WATER,
        "dead_zone": dead_zone,
        "low_index": [[[min(63, 12 + 3 * c) for c in range(calibration.CLASSES)]] * 6] * 3,
        "shift": [[0, 0, 0]] * SCALES,
        "refine_from": REFINE_FROM,
        "rotated": loaded.config.rotated,
        "tuned": loaded.config.tuned,
        "eye": [round(v) for v in EYE_OFFSETS[: loaded.config.levels + 1]] if loaded.config.tuned else [],
        "sizes": asdict(loaded.config),
        "denoise": denoising,
    }
    tables = calibration.laplace_tables(dead_zone)
    for turn in range(2):  # rounding depends on the tables, the tables on the rounding
        report(f"tables, pass {turn + 1} of 2")
        bundle = Model(_files(model, graphs, manifest, calibration.pack_tables(tables)))
        if turn == 0:
            check_parity(model, bundle, checked[:4])
        statistics = calibration.gather(bundle, chosen[turn::2], STEPS)
        tables = calibration.fit_tables(statistics, dead_zone)
        manifest["low_index"] = calibration.fit_low(statistics, tables)
        manifest["shift"] = calibration.fit_shift(statistics)
    report("noise level")
    files = _files(model, graphs, manifest, calibration.pack_tables(tables))
    manifest["denoise"] = {**denoising, "estimate": calibration.level_ratio(Model(files), checked[:16])}
    files = _files(model, graphs, manifest, calibration.pack_tables(tables))
    if model.config.embedded:
        report("embedded stream")
        files["progressive.bin"] = embedded.fit_probabilities(Model(files), chosen).pack()
    if model.config.gain_widths:
        report("denoising")
        correction = fit_level(model, chosen[:LEVEL_PICTURES])
        files.update({f"{name}.onnx": content for name, content in denoising_graphs(model, correction).items()})
    report("parity")
    check_parity(model, Model(files), checked[:4])
    if model.config.gain_widths:
        check_denoising(model, Model(files), checked[:2], correction)
    files = parts.listed(files)
    write_bundle(out, files)
    return Model(files)


def check_parity(model: PhotoModel, bundle: Model, pictures: Sequence[Bytes]) -> dict[str, float]:
    """Largest differences between torch and ONNX Runtime on random and real inputs.

    Raises:
        ModelError: a float graph differs by more than 1e-3 of the range 0 to 1, or an integer graph at all; or, in the
            mean of a real picture, a decoder whose refinement has 8 bits by more than 2 % of the step.
    """
    generator = np.random.default_rng(0)
    inputs = [generator.integers(0, 256, (64, 96, 3), np.uint8), generator.integers(0, 256, (32, 32, 3), np.uint8)]
    drawn = len(inputs)
    inputs += [p[: p.shape[0] // 32 * 32, : p.shape[1] // 32 * 32] for p in pictures]
    worst = {"encoder": 0.0, "decoder": 0.0}
    names, axes = transform.band_names(bundle.manifest.levels), model.config.axes
    inverse = model.flow.inverse if axes > 1 else model.flow.grey
    with torch.no_grad():
        for number, picture in enumerate(inputs):
            real = number >= drawn
            x = np.ascontiguousarray(picture.transpose(2, 0, 1)[None, :axes].astype(np.float32) / 255)
            h = model.flow(torch.from_numpy(x))
            outputs = bundle.run("encoder", {"picture": x})
            worst["encoder"] = max(
                worst["encoder"], *(float(np.abs(a.numpy() - b).max()) for a, b in zip(h, outputs, strict=True))
            )
            for level in (4.0, 60.0):
                step = np.array([level / 255.0], np.float32)
                decoded = [np.round(b / step[0]) * step[0] for b in outputs]
                latents = [torch.from_numpy(b) for b in decoded]
                y = model.refined(inverse(latents), latents, Steps(torch.from_numpy(step)))
                given = {"step": step}
                if bundle.manifest.tuned:
                    given = {"step": step.reshape(1, 1, 1, 1), "tune": np.zeros((1, 1, 1, 1), np.float32)}
                given |= dict(zip(names, decoded, strict=True))
                if model.config.refine_eight_bit:
                    want = inverse(latents).numpy()
                    (got,) = bundle.run(unrefined.GRAPH, given)
                    if real and level >= LEVELS[0]:
                        _check_refined(y.numpy(), bundle.run("decoder", given)[0], level / 255)
                else:
                    want, got = y.numpy(), bundle.run("decoder", given)[0]
                worst["decoder"] = max(worst["decoder"], float(np.abs(want - got).max()))
    for name, difference in worst.items():
        if not difference <= FLOAT_TOLERANCE:
            raise ModelError(f"torch and ONNX Runtime differ by {difference:.2g} in the {name}; the export is refused")
    return {**worst, "entropy": _check_integers(model, bundle, generator)}


def _check_refined(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32], step: float) -> None:
    """A refined picture of torch and one whose refinement has 8 bits."""
    difference = float(np.sqrt(np.square(want - got).mean()))
    if difference > REFINED_TOLERANCE * step:
        raise ModelError(
            f"a refinement of 8 bits differs by {difference / step:.1%} of the step; the export is refused"
        )


@torch.no_grad()
def _check_integers(model: PhotoModel, bundle: Model, generator: np.random.Generator) -> float:
    """Every entropy graph against the quantised torch net, in double precision, on random integers."""
    worst = check_context(model.latents.context, "entropy", bundle, generator)
    if model.config.embedded:
        worst = max(worst, check_context(model.embedded, "embedded", bundle, generator))
    return worst


def check_context(context: ContextModel, folder: str, bundle: Model, generator: np.random.Generator) -> float:
    """All graphs of a folder against the nets they were made of; 0.

    Raises:
        ModelError: an integer differs.
    """
    context = context.double()
    differing = 0
    try:
        for level in range(context.n, 0, -1):
            for size in ((4, 6), (10, 14)):
                channels = 8 * context.axes if level == context.n else 3 * context.axes
                coarse = generator.integers(-127, 128, (2, channels, *size)).astype(np.int8)
                condition = np.empty((2, context.planes, *size), np.int8)
                condition[:] = generator.integers(-80, 49, (1, context.planes, 1, 1))
                feed: dict[str, npt.NDArray[np.generic]] = {"coarser": coarse, "condition": condition}
                previous = None
                if level < context.n:
                    channels = context.expand[str(level)].convs[0].in_channels
                    raw = generator.integers(0, 256, (2, channels, size[0] // 2, size[1] // 2))
                    feed["previous"] = raw.astype(np.uint8)
                    previous = torch.from_numpy(raw).double() / 32
                unit = 1 / 32
                plane = torch.from_numpy(condition).double() * unit
                beside = [plane]
                if isinstance(context, EmbeddedContext):
                    feed["known"] = generator.integers(-127, 128, (2, known_channels(level), *size)).astype(np.int8)
                    beside.append(torch.from_numpy(feed["known"]).double() * unit)
                want = context.features(
                    level, torch.from_numpy(coarse).double() * unit, previous, torch.cat(beside, 1), True
                )
                (got,) = bundle.run(f"{folder}/feature{level}", feed)
                differing += int(np.count_nonzero(want.numpy() * 32 != got))
                feature = torch.from_numpy(got).double() * unit
                for kind, nets, base, more in (("luma", context.luma, 0, 3), ("chroma", context.chroma, 12, 12)):
                    for k, net in enumerate(nets[str(level)]):
                        seen = generator.integers(-127, 128, (2, base + more * k, *size)).astype(np.int8)
                        feed = {"feature": got, "condition": condition}
                        if seen.shape[1]:
                            feed["seen"] = seen
                        parts = [feature, torch.from_numpy(seen).double() * unit, plane]
                        mean, index = context.parameters_of(net, parts, True)
                        out = bundle.run(f"{folder}/{kind}{level}_{k}", feed)
                        differing += int(np.count_nonzero(mean.numpy() * 16 != out[0]))
                        differing += int(np.count_nonzero(index.numpy() != out[1]))
    finally:
        context.float()
    if differing:
        raise ModelError(f"torch and ONNX Runtime disagree in {differing} integers; the export is refused")
    return 0.0
