"""Parts of one bundle for another whose flow is the same: nets for lossless files, for embedded streams, for denoising.

In: two bundles. Out: the first with parts of the second. Nets for lossless files fit every photo model, for they do
not depend on its flow; the others see latents and fit only where encoder and steps are the same.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eocodec.errors import ModelError
from eocodec.model import parts
from eocodec.model.bundle import Model, read_bundle, write_bundle

__all__ = ["add_parts", "same_flow"]

TOLERANCE = 1e-3  # of latents, whose range is some units of the picture's range 0 to 1
EDGE = 128  # pixels, of the picture that two flows are compared on


def same_flow(one: Model, other: Model) -> bool:
    """Whether two photo models give the same latents and the same steps, but for rounding."""
    if one.manifest.levels != other.manifest.levels:
        return False
    gains = zip(one.manifest.gain, other.manifest.gain, strict=True)
    if any(not np.allclose(a, b, atol=TOLERANCE) for a, b in gains):
        return False
    noise = np.random.default_rng(1).uniform(size=(1, 3, EDGE, EDGE)).astype(np.float32)
    smooth = np.linspace(0, 1, EDGE, dtype=np.float32) * np.ones_like(noise)
    for picture in (noise, smooth, 0.8 * smooth + 0.2 * noise):
        outputs = zip(one.run("encoder", {"picture": picture}), other.run("encoder", {"picture": picture}), strict=True)
        if any(not np.allclose(a, b, atol=TOLERANCE) for a, b in outputs):
            return False
    return True


def add_parts(bundle: Path, source: Path, out: Path, report: Callable[[str], None] = lambda message: None) -> Model:
    """Write a bundle with the parts of another that it lacks.

    Arguments:
        bundle: an `.eocm` file of a photo model.
        source: a bundle with more parts.
        out: the `.eocm` file to write.
        report: called with one line for every part.

    Raises:
        ModelError: one is not a bundle of a photo model, or the flows differ and parts that depend on it are lacking.
    """
    files, others = read_bundle(bundle), read_bundle(source)
    files.pop(parts.LIST, None)
    model, other = Model(files), Model(others)
    wanted = {name: where for name, where in parts.OPTIONAL.items() if name != "encoder"}
    lacking = {name: where for name, where in wanted.items() if not any(f.startswith(where) for f in files)}
    if lacking.keys() - {"lossless"} and not same_flow(model, other):
        if lacking.keys() - {"lossless", "grey"}:
            raise ModelError(f"{source}: its flow is another; only its nets for lossless files would fit")
        del lacking["grey"]
        report(f"grey: left out, for what C means there goes with the flow of {source.name}")
    for name, where in lacking.items():
        added = {n: content for n, content in others.items() if n.startswith(where)}
        report(f"{name}: {len(added)} files of {source.name}")
        files.update(added)
    if "denoising" in lacking:  # the level estimate's correction belongs to its net
        manifest = json.loads(files["manifest.json"])
        manifest["denoise"] = json.loads(others["manifest.json"])["denoise"]
        files["manifest.json"] = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    files = parts.listed(files)
    write_bundle(out, files)
    return Model(files)
