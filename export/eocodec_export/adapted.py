"""The bundle of a photo model that was trained on from another bundle: only what the training changed is made anew.

In: a model with trained weights, the files of the bundle it started from, and pictures. Out: the new bundle's files.
What did not change keeps its bytes, so that a delta (`eocodec.model.delta`) holds little; what depends on something
that did change is made anew or left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from eocodec.adapt.measure import FILE_STEPS, centre, file_points, saving
from eocodec.coding.embedded_tables import TABLES_FILE as EMBEDDED_TABLES
from eocodec.errors import EocodecError
from eocodec.flow.context import Steps
from eocodec.flow.model import PhotoModel
from eocodec.flow.restored import photo_weights
from eocodec.image import is_grey
from eocodec.metrics import psnr
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec.model.encoding import SETTINGS
from eocodec.model.grey import FOLDER
from eocodec_export import calibration
from eocodec_export.bundle import check_parity
from eocodec_export.denoising import check_denoising, denoising_graphs, fit_level, round_weights
from eocodec_export.eight_bit import CALIBRATED, decoder_inputs, eight_bit_refinement
from eocodec_export.embedded import fit_probabilities
from eocodec_export.graphs import decoder_graph, encoder_graph, entropy_graphs, halved
from eocodec_export.grey_parts import grey_parts, with_grey

__all__ = ["adapted_files", "all_grey"]

Bytes = npt.NDArray[np.uint8]

STEPS = (2.0, 6.0, 14.0, 28.0, 50.0, 80.0, 120.0, 180.0)  # 8-bit levels at which the tables are fitted
REFINE_STEPS = (6.0, 9.0, 13.0, 20.0)  # 8-bit levels from which on the refinement may be used
EDGE = 512  # pixels of a picture that are used in fitting
COMPARED, COMPARED_EDGE = 2, 256  # pictures, and pixels of their middles, on which embedded streams are compared
SHORTER = 64  # constants of at least so many numbers are stored in fewer bits where that is exact


def adapted_files(
    model: PhotoModel,
    base: dict[str, bytes],
    pictures: list[Bytes],
    held_out: list[Bytes],
    *,
    name: str,
    card: str,
    refitted: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, bytes]:
    """Files of the adapted bundle.

    C keeps its meaning: explained entropies, and so the step that goes with a rate, are those of the base.

    Arguments:
        model: trained, on the CPU, in evaluation mode.
        base: files of the bundle it started from.
        pictures: `(H, W, 3)` to fit tables on.
        held_out: pictures to check on.
        name, card: for the manifest.
        refitted: fit tables even if nothing that they depend on was trained.
        report: called with one line per stage.

    Raises:
        ModelError: a parity check failed.
    """
    base = {n: content for n, content in base.items() if n != parts.LIST}
    if model.config.axes == 1:
        report("model of grey pictures")
        made = grey_parts(model, base, pictures, held_out, base.get(FOLDER + SETTINGS), report)
        named = {**json.loads(base["manifest.json"]), "name": name, "card": card}
        return with_grey({**base, "manifest.json": _packed(named)}, made)
    _, start = photo_weights(base)
    now = model.state_dict()
    changed = {p for p in ("flow.", "refine.", "latents.", "embedded.", "gains.") if _differs(p, start, now)}
    unit = 2 ** (model.config.levels + 1)
    fitted = [centre(p, unit, EDGE) for p in pictures]
    checked = [centre(p, unit, EDGE) for p in held_out[:4]]
    middles = [centre(p, unit, COMPARED_EDGE) for p in held_out[:COMPARED]]
    if changed <= {"gains."} and not refitted:  # no file changes, nor does what files name the model by
        report("graphs of the denoising nets")
        denoising = _denoising(model, base, fitted, checked) if changed else {}
        return parts.listed({**base, **denoising})
    manifest: dict[str, Any] = {**json.loads(base["manifest.json"]), "name": name, "card": card}
    if "sizes" in manifest:
        manifest["sizes"] = asdict(model.config)
    files = dict(base)
    if "flow." in changed:
        report("graphs of the flow")
        files["encoder.onnx"] = halved(encoder_graph(model), SHORTER)
        manifest["denoise"] = {**manifest["denoise"], **calibration.noise_gains(model, checked)}
    if changed & {"flow.", "refine."}:
        decoder = decoder_graph(model)
        if model.config.refine_eight_bit:
            report("refinement for 8-bit kernels")
            decoder = eight_bit_refinement(decoder, decoder_inputs(model, fitted[:CALIBRATED], manifest["dead_zone"]))
        files["decoder.onnx"] = halved(decoder, SHORTER)
        manifest["refine_from"] = _refine_from(model, checked, manifest)
    if changed & {"flow.", "latents."}:
        graphs = entropy_graphs(model.latents.context)
        files.update({f"{graph}.onnx": content for graph, content in graphs.items()})
        manifest["gain"] = [g.tolist() for g in model.latents.gains]
    if refitted or changed & {"flow.", "latents."}:
        manifest = _with_tables(files, manifest, fitted, report)
    if "embedded." in changed:
        report("embedded stream")
        files.update({f"{graph}.onnx": c for graph, c in entropy_graphs(model.embedded, "embedded").items()})
        bundle = Model({**files, "manifest.json": _packed(manifest)})
        files[EMBEDDED_TABLES] = fit_probabilities(bundle, fitted).pack()
    if "gains." in changed:
        report("graphs of the denoising nets")
        files.update(_denoising(model, files, fitted, checked))
    files["manifest.json"] = _packed(manifest)
    report("parity")
    check_parity(model, Model(files), checked)
    if "flow." in changed and EMBEDDED_TABLES in files and not _streams_as_good(base, files, middles):
        report("embedded streams got worse and are left out")
        files = {k: v for k, v in files.items() if not k.startswith("embedded/") and k != EMBEDDED_TABLES}
    return parts.listed(files)


def all_grey(pictures: Sequence[Bytes]) -> bool:
    """Whether no picture `(H, W, 3)` has colours, so that files of all of them would take a model for grey pictures."""
    return all(map(is_grey, pictures))


def _differs(prefix: str, start: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> bool:
    return any(k.startswith(prefix) and k in start and not torch.equal(start[k], v) for k, v in now.items())


def _packed(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()


def _with_tables(
    files: dict[str, bytes], manifest: dict[str, Any], pictures: Sequence[Bytes], report: Callable[[str], None]
) -> dict[str, Any]:
    """The manifest with fitted classes and centroids; the fitted tables go into `files`."""
    for turn in range(2):  # rounding depends on the tables, the tables on the rounding
        report(f"tables, pass {turn + 1} of 2")
        bundle = Model({**files, "manifest.json": _packed(manifest)})
        statistics = calibration.gather(bundle, pictures[turn::2], STEPS)
        tables = calibration.fit_tables(statistics, manifest["dead_zone"])
        files["tables.bin"] = calibration.pack_tables(tables)
        low, shift = calibration.fit_low(statistics, tables), calibration.fit_shift(statistics)
        manifest = {**manifest, "low_index": low, "shift": shift}
    return manifest


@torch.no_grad()
def _refine_from(model: PhotoModel, pictures: Sequence[Bytes], manifest: dict[str, Any]) -> float:
    """The smallest step, in 8-bit levels, from which on the refinement helps at all steps that are tried."""
    chosen = float(manifest["refine_from"])
    for level in sorted({*REFINE_STEPS, chosen}, reverse=True):
        refined, plain = 0.0, 0.0
        for picture in pictures:
            x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
            y, _, z = model.rate_distortion(x, Steps(torch.tensor([level / 255.0])), manifest["dead_zone"], True)
            refined += float((y.clamp(0, 1) - x).square().mean().log())
            plain += float((z.clamp(0, 1) - x).square().mean().log())
        if refined >= plain:
            break
        chosen = level
    return chosen


def _denoising(
    model: PhotoModel, files: dict[str, bytes], pictures: Sequence[Bytes], checked: Sequence[Bytes]
) -> dict[str, bytes]:
    round_weights(model)
    correction = fit_level(model, pictures[:16])
    graphs = denoising_graphs(model, correction)
    made = {"denoise/clean.onnx": graphs["denoise/clean"]}  # the net for the level has not been trained
    check_denoising(model, Model({**files, **{f"{k}.onnx": v for k, v in graphs.items()}}), checked[:2], correction)
    return made


def _streams_as_good(base: dict[str, bytes], files: dict[str, bytes], pictures: Sequence[Bytes]) -> bool:
    """Whether embedded streams need no more bytes than the base's; their nets have not seen the new flow."""
    try:
        curves = [file_points(Model(f), pictures, psnr, FILE_STEPS[-4:-1], progressive=True) for f in (base, files)]
    except EocodecError:
        return False
    return saving(*curves) >= 0
