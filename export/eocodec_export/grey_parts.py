"""The files of a bundle's part for grey pictures, from trained weights.

In: a model with one colour axis, the files of a whole bundle, pictures. Out: the part's files, or the bundle with them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import torch

from eocodec.adapt.measure import centre
from eocodec.flow.model import PhotoModel
from eocodec.flow.pictures import Picture, greyed
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec.model.encoding import SETTINGS
from eocodec.model.grey import FOLDER
from eocodec_export import calibration
from eocodec_export.bundle import STEPS as TABLE_STEPS
from eocodec_export.bundle import check_parity
from eocodec_export.eight_bit import CALIBRATED, decoder_inputs, eight_bit_refinement
from eocodec_export.graphs import decoder_graph, encoder_graph, entropy_graphs, halved

__all__ = ["MANIFEST", "grey_parts", "with_grey"]

FITTED, EDGE = 96, 512  # pictures that tables are fitted to, and pixels of their middles at most
SHORTER = 64  # constants of at least so many numbers are stored in fewer bits
MANIFEST = "manifest.json"
# What a manifest says of C, and of denoising, is the whole bundle's.
OWN = ("gain", "low_index", "shift", "refine_from", "rotated", "tuned", "eye", "eye_dead_zone", "dead_zone", "sizes")


def grey_parts(
    model: PhotoModel,
    whole: Mapping[str, bytes],
    pictures: Sequence[Picture],
    held_out: Sequence[Picture],
    settings: bytes | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, bytes]:
    """The files of a bundle's part for grey pictures, by the names that they have in the bundle.

    Weights of the flow are rounded to 16-bit floats.

    Arguments:
        model: trained, with one colour axis; its flow is changed.
        whole: files of the bundle.
        pictures: `(H, W, 3)` to fit tables to.
        held_out: pictures to check on.
        settings: `encoder.json` of the part; None: that of the bundle.
        report: called with one line per stage.

    Raises:
        ModelError: a parity check failed.
    """
    with torch.no_grad():
        for p in model.flow.parameters():
            p.copy_(p.half().float())
    unit = 2 ** (model.config.levels + 1)
    stride = max(1, len(pictures) // FITTED)
    fitted = [greyed(centre(p, unit, EDGE)) for p in pictures[::stride][:FITTED]]
    whole = {n: c for n, c in whole.items() if not n.startswith(FOLDER) and n != parts.LIST}
    manifest = json.loads(whole[MANIFEST])
    manifest["gain"] = [g.tolist() for g in model.latents.gains]
    manifest["low_index"] = manifest["low_index"][:1]
    manifest["sizes"] = asdict(model.config)
    report("graphs")
    decoder = decoder_graph(model)
    if model.config.refine_eight_bit:
        report("refinement for 8-bit kernels")
        decoder = eight_bit_refinement(decoder, decoder_inputs(model, fitted[:CALIBRATED], manifest["dead_zone"]))
    own = {
        "encoder.onnx": halved(encoder_graph(model), SHORTER),
        "decoder.onnx": halved(decoder, SHORTER),
        **{f"{name}.onnx": content for name, content in entropy_graphs(model.latents.context).items()},
        "tables.bin": whole["tables.bin"],
    }
    if settings is not None:
        own[SETTINGS] = settings
    for turn in range(2):  # rounding depends on the tables, the tables on the rounding
        report(f"tables, pass {turn + 1} of 2")
        statistics = calibration.gather(_part(whole, own, manifest), fitted[turn::2], TABLE_STEPS)
        tables = calibration.fit_tables(statistics, manifest["dead_zone"])
        own["tables.bin"] = calibration.pack_tables(tables)
        manifest["low_index"] = calibration.fit_low(statistics, tables)
        manifest["shift"] = calibration.fit_shift(statistics)
    report("parity")
    checked = [greyed(centre(p, unit, EDGE)) for p in held_out[:4]]
    check_parity(model, _part(whole, own, manifest), checked)
    return _placed(own, manifest)


def _placed(own: Mapping[str, bytes], manifest: Mapping[str, object]) -> dict[str, bytes]:
    """Files of a part under the names that they have in a bundle."""
    differs = {name: manifest[name] for name in OWN if name in manifest}
    packed = json.dumps(differs, separators=(",", ":"), sort_keys=True).encode()
    return {FOLDER + name: content for name, content in {**own, MANIFEST: packed}.items()}


def _part(whole: Mapping[str, bytes], own: Mapping[str, bytes], manifest: Mapping[str, object]) -> Model:
    return Model({**whole, **_placed(own, manifest)}).of_axes(1)


def with_grey(whole: Mapping[str, bytes], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle with a part for grey pictures, in place of one that it may have had."""
    rest = {n: c for n, c in whole.items() if not n.startswith(FOLDER) and n != parts.LIST}
    return parts.listed({**rest, **files})
