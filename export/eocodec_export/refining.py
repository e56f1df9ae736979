"""The last stage of `eocodec adapt`: the refinement is trained on files of the adapted model's own pictures.

In: the files of the adapted bundle, pictures, and a stretch of time. Out: the bundle's files with the new refinement,
if held-out pictures gain by it. Files are made by the library's own encoder, for as many pictures as a share of the
time allows; how fast the learning rate falls follows from the time. In the stretch's folder, until it is over:

    7.npz, h2.npz    what the file of training picture 7 (held-out picture 2) decodes to
    trained.pt       the training so far, and the weights that were best on held-out pictures
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eocodec.adapt.flow import compact
from eocodec.adapt.stages import Refined, Stretch
from eocodec.files import atomic_file
from eocodec.flow.photo import DeepRefinement
from eocodec.flow.states import load_state, readable
from eocodec.image import Bytes
from eocodec.model.bundle import Model
from eocodec.model.grey import GreyFiles
from eocodec_export.refinement import (
    CROP,
    EDGE,
    Decoded,
    Trainer,
    batch_of,
    decoded_pictures,
    files_with,
    loss_of,
    refinement_of,
)

__all__ = ["refined_files"]

RATE = 1e-3  # learning rate
DECODING = 0.3  # of the time goes into files of training pictures at most
FITTED = 24  # training pictures that the tables of grey pictures are fitted to, once more
LEAST = 4  # training pictures, however long their files take
MOST_PIXELS = 48 << 20  # of training pictures, 15 bytes each in memory and on the disk
HELD = 8  # held-out pictures on which the stage is followed
LOOKS = 6  # at these
WORTH = 2e-4  # of the error that must be gained, or the bundle keeps its own refinement
SAVE_SECONDS = 60.0


@dataclass
class _Best:
    """The weights with the least error on held-out pictures, as the bundle will have them; none: those it has."""

    before: float
    error: float
    weights: dict[str, Tensor] | None = None


def refined_files(
    files: dict[str, bytes],
    pictures: list[Bytes],
    held_out: list[Bytes],
    stretch: Stretch,
    *,
    grey: bool = False,
    eye_share: float,
    seed: int,
    threads: int,
    report: Callable[[str], None] = lambda message: None,
) -> Refined | None:
    """Train the refinement on files until the stretch is over; see :class:`eocodec.adapt.stages.Refiner`.

    Arguments:
        files: of the bundle.
        pictures: `(H, W, 3)` to train on.
        held_out: to measure on, by squared error if most files are for it, else as the eye sees it.
        stretch: time and folder.
        grey: it is the refinement of the bundle's part for grey pictures.
        eye_share: share of the files that are tuned for the eye.
        seed: of everything that is drawn.
        threads: 0: one per core.
        report: called with sentences.

    Returns:
        None if the bundle's refinement is of another kind, or if there is no picture that is large enough.

    Raises:
        ModelError: a parity check failed.
    """
    net = refinement_of(GreyFiles(files) if grey else files)
    model = Model(files, threads).of_axes(1 if grey else 3)
    if net is None:
        return None
    block = model.multiple
    crop = min(CROP, min(min(p.shape[:2]) for p in (*pictures, *held_out)) // block * block)
    if crop < block:
        return None
    report("files of the adapted model, to train its refinement on")
    stretch.folder.mkdir(parents=True, exist_ok=True)
    maker = _Maker(model, stretch.folder, crop)
    chosen = np.unique(np.linspace(0, len(held_out) - 1, HELD).astype(int))
    held = [maker.made(f"h{k}", held_out[k], seed + 1 + int(k), float(eye_share > 0.5)) for k in chosen]
    found = _decoded(maker, pictures, stretch, eye_share, seed)
    trainer = Trainer(net, found, block, RATE, seed, crop)
    best = _trained(trainer, held, stretch, report)
    better = files
    if best.weights is not None:
        fitted = pictures[:: -(-len(pictures) // FITTED)]
        better = files_with(files, best.weights, fitted, held_out, grey, report=report)
    return Refined(better, best.before, best.error, trainer.steps, len(found))


class _Maker:
    """Decoded files of pictures, kept in a folder."""

    def __init__(self, model: Model, folder: Path, least: int) -> None:
        self.model, self.folder, self.least = model, folder, least

    def made(self, name: str, picture: Bytes, seed: int, eye_share: float) -> Decoded:
        """What the file of a picture, or of a part of it that is drawn, decodes to."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            random = np.random.default_rng(seed)
            top, left = (int(random.integers(max(1, n - EDGE + 1))) for n in picture.shape[:2])
            part = picture[top : top + EDGE, left : left + EDGE]
            (decoded,) = decoded_pictures(self.model, [part], seed, eye_share, scaled=0.0, least=self.least)
            decoded.save(path)
        return Decoded.load(path)


def _decoded(maker: _Maker, pictures: Sequence[Bytes], stretch: Stretch, eye_share: float, seed: int) -> list[Decoded]:
    """Files of as many pictures, in an order that is drawn, as there is time and memory for."""
    found: list[Decoded] = []
    pixels = 0
    for k in np.random.default_rng(seed).permutation(len(pictures)).tolist():
        there = (maker.folder / f"{k}.npz").exists()
        if len(found) >= LEAST and (pixels > MOST_PIXELS or not (there or stretch.part() < DECODING)):
            break
        found.append(maker.made(str(k), pictures[k], seed + 1000 + k, eye_share))
        pixels += found[-1].original[0].size
        stretch.tick("")
    return found


def _trained(trainer: Trainer, held: Sequence[Decoded], stretch: Stretch, report: Callable[[str], None]) -> _Best:
    """Train until the time is over, or for what is left of it after an interruption."""
    path = stretch.folder / "trained.pt"
    before = _error(trainer.net, trainer.average, held, trainer.block)
    best = _Best(before, before)
    first = stretch.part()
    if path.exists():
        with readable(path):
            raw = load_state(path)
            trainer.restore(raw["trainer"])
            first = raw["first"]
            best = _Best(before, raw["error"], raw["weights"])
        report(f"the refinement goes on after {trainer.steps} steps")

    def save() -> None:
        state = {"trainer": trainer.state(), "first": first, "error": best.error, "weights": best.weights}
        with atomic_file(path) as file:
            torch.save(state, file)
        stretch.save()

    saved, looked = stretch.clock(), first
    try:
        while (part := stretch.part()) < 1:
            trainer.step((part - first) / (1 - first))
            if part - looked > (1 - first) / LOOKS:
                _look(trainer, held, best)
                looked = part
            stretch.tick(f"refinement {100 * (1 - best.error / before):+.2f} % less error")
            if stretch.clock() - saved > SAVE_SECONDS:
                save()
                saved = stretch.clock()
    except KeyboardInterrupt:
        save()
        raise
    _look(trainer, held, best)
    save()
    return best


def _look(trainer: Trainer, held: Sequence[Decoded], best: _Best) -> None:
    """Measure the averaged weights, rounded so that a bundle of them is small, and keep them if they are the best."""
    weights = {k: compact(v) for k, v in trainer.average.items()}
    error = _error(trainer.net, weights, held, trainer.block)
    limit = best.before * (1 - WORTH) if best.weights is None else best.error
    if math.isfinite(error) and error < limit:
        best.error, best.weights = error, weights


@torch.no_grad()
def _error(net: DeepRefinement, weights: dict[str, Tensor], held: Sequence[Decoded], block: int) -> float:
    """Mean error of held-out pictures with these weights, relative to that before the refinement."""
    own = {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(weights)
    error = float(np.mean([loss_of(net, batch_of([d], block)).item() for d in held]))
    net.load_state_dict(own)
    return error
