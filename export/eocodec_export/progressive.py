"""Put trained nets of the embedded stream into a photo bundle of the same flow, with tables fitted to them.

    python -m eocodec_export.progressive BUNDLE CHECKPOINT PICTURES OUT [--fitted N] [--hold-out N]

In: a bundle, a checkpoint of `eocodec train` whose stages have the objective "embedded", and the folder of photos. Out:
the bundle with these nets under the same name; everything else stays as it is, so that ordinary files of either are
the same but for the model's id.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from eocodec.coding.embedded_tables import TABLES_FILE
from eocodec.errors import EocodecError
from eocodec.flow.model import PhotoConfig, PhotoModel
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.restored import photo_weights
from eocodec.flow.training import load_checkpoint
from eocodec.model import parts
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import bundle_files
from eocodec_export.bundle import check_context
from eocodec_export.commands import ending
from eocodec_export.embedded import fit_probabilities
from eocodec_export.graphs import entropy_graphs

__all__ = ["bundle_with_streams"]

FITTED = 96  # pictures
TOLERANCE = 0.02  # of a layer's largest weight: bundles may have them in 8 bits
OWN = ("embedded", "embedded_features", "embedded_width", "embedded_coarse", "embedded_depth", "embedded_eight_bit")


def bundle_with_streams(
    files: Mapping[str, bytes],
    checkpoint: Path,
    pictures: Sequence[npt.NDArray[np.uint8]],
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, bytes]:
    """Files of a bundle with the nets of the embedded stream that a checkpoint has.

    Arguments:
        files: of the bundle.
        checkpoint: written by `eocodec train`; its averaged weights count.
        pictures: training photos, to fit the tables on.
        report: called with one line per stage.

    Raises:
        EocodecError: the checkpoint has no such nets, or those of another flow; ModelError: a parity check failed.
    """
    loaded = load_checkpoint(checkpoint)
    sizes, weights = photo_weights(files)
    if not isinstance(loaded.config, PhotoConfig) or not loaded.config.embedded:
        raise EocodecError(f"{checkpoint} has no nets for the embedded stream")
    flow = [k for k in weights if k.startswith(("flow.", "latents.gain"))]
    if not all(k in loaded.average and _alike(weights[k], loaded.average[k]) for k in flow):
        raise EocodecError(f"{checkpoint} has nets for the embedded stream of another flow than the bundle")
    model = PhotoModel(loaded.config).eval().requires_grad_(False)
    model.load_state_dict(loaded.average)
    manifest = json.loads(files["manifest.json"])
    manifest["sizes"] = asdict(replace(sizes, **{k: getattr(loaded.config, k) for k in OWN}))
    kept = {k: v for k, v in files.items() if k not in (parts.LIST, TABLES_FILE) and not k.startswith("embedded/")}
    result = {**kept, "manifest.json": json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()}
    report("graphs")
    result.update({f"{name}.onnx": content for name, content in entropy_graphs(model.embedded, "embedded").items()})
    check_context(model.embedded, "embedded", Model(result), np.random.default_rng(0))
    report("tables")
    result[TABLES_FILE] = fit_probabilities(Model(result), pictures).pack()
    return parts.listed(result)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * one.abs().max())


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures")
    parser.add_argument("out", type=Path)
    parser.add_argument("--fitted", type=int, default=FITTED, help="pictures that the tables are fitted on")
    parser.add_argument("--hold-out", type=int, default=40)
    options = parser.parse_args(arguments)
    train, _ = split(read_pictures(options.pictures), options.hold_out, "picture")
    chosen = [p for _, p in train[:: max(1, len(train) // options.fitted)]][: options.fitted]
    write_bundle(options.out, bundle_with_streams(bundle_files(options.bundle), options.checkpoint, chosen, print))


if __name__ == "__main__":
    main()
