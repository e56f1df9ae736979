"""Train the refinement of a photo bundle on what files of that bundle decode to, all else being fixed.

    python -m eocodec_export.refinement BUNDLE PICTURES FOLDER [--steps N] [--passes N] [--rate LR] [--latents]

In: a bundle and pictures. Out: in FOLDER, the pictures as files of the bundle decode to before the refinement (made by
the library's own encoder, once), `refinement.pt`, the average of the trained weights, and the bundle with it under the
name of BUNDLE, its tables fitted again to the encoder's settings. In files, latents are
rounded, tuned and masked as users' files are, and a step of training costs no flow and no entropy nets: a fifth of the
objective "refinement" of `eocodec train`, which this completes.

The error of each crop counts relative to that before the refinement, so that all rates have their share; of crops that
are tuned for the eye it is a mix of squared error, SSIMULACRA2 (`eocodec.flow.eye`) and multi-scale structural
similarity.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from eocodec.coding.fineness import Fineness, tuning_for
from eocodec.coding.ordinary import foresee, ordinary_header
from eocodec.errors import EocodecError
from eocodec.files import atomic_file
from eocodec.flow.distributed import bfloat16_pays
from eocodec.flow.eye import eye_error, structure_error
from eocodec.flow.model import PhotoModel
from eocodec.flow.photo import DeepRefinement
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.restored import photo_weights
from eocodec.flow.soap import Soap
from eocodec.flow.states import load_state, readable
from eocodec.image import Picture
from eocodec.model import transform
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.grey import GreyFiles
from eocodec.model.library import bundle_files, load_model
from eocodec_export.adapted import adapted_files
from eocodec_export.commands import ending

__all__ = [
    "Batch",
    "Decoded",
    "Trainer",
    "batch_of",
    "bundle_with",
    "decoded_pictures",
    "files_with",
    "loss_of",
    "refinement_of",
    "sizes_of",
    "train",
]

Bytes = npt.NDArray[np.uint8]

STEPS = (9.0, 300.0)  # 8-bit levels; files for the eye have coarse ones, at 0.05 bits per pixel up to 300
EDGE = 512  # pixels of a picture's sides at most
UNIT = 64  # of values before the refinement, in a level
LATENT_RANGE = 4.0  # of latents that are kept in 16 bits, in 1/2**13
CROP, BATCH = 128, 8
WEIGHTS = (0.25, 0.5, 0.25)  # of squared error, SSIMULACRA2 and structural similarity where tuned for the eye
AVERAGE = 0.998
PREFIX = "refine."
SHOWN = 200  # steps between two lines
FITTED = 140  # pictures that tables are fitted to
LEAST = (2e-7, 0.02, 1e-4)  # errors before the refinement below which it need not care


@dataclass(frozen=True)
class Decoded:
    """A picture of a file.

    Arguments:
        original: `(3, H, W)`; sides are multiples of the model's block of the map.
        plain: the picture before the refinement, `(3, H, W)` in 1/64 level.
        latents: dequantised, of the two finest levels, the finest last: `(9, H/4, W/4)`, `(9, H/2, W/2)`.
        steps: Δ of every block of the map, range 0 to 1.
        tune: how much the steps follow the eye, 0 to 1.
    """

    original: Bytes
    plain: npt.NDArray[np.int16]
    latents: tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]
    steps: npt.NDArray[np.float32]
    tune: float

    def crop(self, top: int, left: int, edge: int, block: int) -> "Decoded":
        """A square at a multiple of the block."""

        def cut(a: npt.NDArray[np.generic], unit: int) -> npt.NDArray[np.generic]:
            at = np.s_[..., top // unit : (top + edge) // unit, left // unit : (left + edge) // unit]
            return np.ascontiguousarray(a[at])

        coarse, fine = self.latents
        return Decoded(
            cut(self.original, 1),  # type: ignore[arg-type]
            cut(self.plain, 1),  # type: ignore[arg-type]
            (cut(coarse, 4), cut(fine, 2)),  # type: ignore[arg-type]
            cut(self.steps, block),  # type: ignore[arg-type]
            self.tune,
        )

    def save(self, path: Path) -> None:
        """Write it as `.npz`."""
        coarse, fine = self.latents
        with atomic_file(path) as file:
            np.savez(
                file,
                original=self.original,
                plain=self.plain,
                coarse=coarse,
                fine=fine,
                steps=self.steps,
                tune=np.float32(self.tune),
            )

    @classmethod
    def load(cls, path: Path) -> "Decoded":
        """Inverse of :meth:`save`.

        Raises:
            ModelError: it is damaged, or something else.
        """
        with readable(path), np.load(path) as z:
            return cls(z["original"], z["plain"], (z["coarse"], z["fine"]), z["steps"], float(z["tune"]))


def decoded_pictures(
    model: Model, pictures: Sequence[Bytes], seed: int, eye_share: float = 0.5, scaled: float = 0.5, least: int = CROP
) -> Iterator[Decoded]:
    """What files of `pictures` decode to, at a step and a scale that are drawn.

    Arguments:
        model: that makes the files; it must be one that can be tuned.
        pictures: `(H, W, 3)`.
        seed: of what is drawn.
        eye_share: share of the files that are tuned for the eye.
        scaled: share of the pictures that are scaled: half of these become smaller, half larger.
        least: pixels; pictures with a shorter side, after scaling, are left out.
    """
    block = model.multiple
    random = np.random.default_rng(seed)
    for picture in pictures:
        kind, smaller, larger = random.random(), random.uniform(0.5, 1), random.uniform(1, 1.5)
        delta = float(np.exp(random.uniform(*np.log(STEPS)))) / 255
        eye = random.random() < eye_share
        image = Image.fromarray(picture)
        if kind >= 1 - scaled:
            scale = smaller if kind < 1 - scaled / 2 else larger
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
        width, height = (min(n // block * block, EDGE) for n in image.size)
        if min(width, height) < least:
            continue
        rgb = np.asarray(image.crop((0, 0, width, height)))
        yield _decoded(model, rgb, delta, "eye" if eye else "psnr")


def _decoded(model: Model, rgb: Bytes, delta: float, tune: str) -> Decoded:
    tuning = tuning_for(model, True, tune, None, rgb, squared=False)
    header = ordinary_header(model, Picture(rgb, grey=model.manifest.axes == 1), delta, tuning.degree)
    fineness = Fineness(model, header, tuning.offsets)
    _, latents = foresee(model, header, transform.analyse(model, rgb), fineness, in_place=True)
    places = fineness.places()
    height, width = rgb.shape[:2]
    plain = np.empty((3, height, width), np.float32)
    for rows, columns, values in transform.synthesise_tiles(
        model, latents, header.delta, width, height, places, refined=False
    ):
        plain[:, rows, columns] = values
    limit = np.iinfo(np.int16)
    kept = [(band / np.float32(0.25)).astype(np.float16) for band in latents[-2:]]
    steps = places.steps
    if steps is None:
        steps = np.full((height // model.multiple, width // model.multiple), header.delta, np.float32)
    return Decoded(
        np.ascontiguousarray(rgb.transpose(2, 0, 1)),
        np.rint(plain * 255 * UNIT).clip(limit.min, limit.max).astype(np.int16),
        (kept[0], kept[1]),
        steps,
        places.tune,
    )


@dataclass(frozen=True)
class Batch:
    """Crops of one size, range 0 to 1: `original` and `plain (B, 3, H, W)`, latents, `step` and `tune (B, 1, h, w)`."""

    original: Tensor
    plain: Tensor
    latents: list[Tensor]
    step: Tensor
    tune: Tensor


def batch_of(items: Sequence[Decoded], block: int) -> Batch:
    """A batch of pictures or crops of one size."""

    def stacked(arrays: Sequence[npt.NDArray[np.generic]], unit: float) -> Tensor:
        return torch.stack([torch.from_numpy(a) for a in arrays]).float() / unit

    step = stacked([i.steps for i in items], 1)[:, None]
    step = step.repeat_interleave(block // 2, 2).repeat_interleave(block // 2, 3)
    tune = torch.tensor([i.tune for i in items])[:, None, None, None].expand(-1, 1, *step.shape[2:])
    return Batch(
        stacked([i.original for i in items], 255),
        stacked([i.plain for i in items], 255 * UNIT).contiguous(memory_format=torch.channels_last),
        [stacked([i.latents[k] for i in items], LATENT_RANGE) for k in (0, 1)],
        step,
        tune,
    )


def loss_of(net: DeepRefinement, batch: Batch) -> Tensor:
    """Mean error of the crops, relative to that before the refinement."""
    x, before = batch.original, batch.plain.clamp(0, 1)
    device = x.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_pays(device)):
        after = net(batch.plain, batch.latents, batch.step, batch.tune).float()
    after = after.clamp(0, 1) + 0.1 * (after - after.clamp(0, 1))  # what is clipped still learns
    squared = (after - x).square().mean((1, 2, 3)) / ((before - x).square().mean((1, 2, 3)) + LEAST[0])
    loss = squared
    tuned = torch.nonzero(batch.tune[:, 0, 0, 0] > 0)[:, 0]
    if len(tuned):
        x, before, after = x[tuned], before[tuned], after[tuned]
        seen = eye_error(x, after) / (eye_error(x, before) + LEAST[1])
        structure = structure_error(x, after) / (structure_error(x, before) + LEAST[2])
        mixed = WEIGHTS[0] * squared[tuned] + WEIGHTS[1] * seen + WEIGHTS[2] * structure
        loss = loss.index_put((tuned,), mixed)
    return loss.mean()


class Trainer:
    """Steps of training on crops of decoded pictures, with an average of the weights; can be saved and go on.

    Arguments:
        net: to be trained; it stays where it is.
        pictures: those that are smaller than a crop are left out.
        block: pixels of an entry of the map of steps.
        rate: learning rate at its highest.
        seed: of the crops.
        crop: pixels of their sides, a multiple of the block.

    Attributes:
        average: of the weights, by name.
        steps: that were done.

    Raises:
        EocodecError: no picture is as large as a crop.
    """

    def __init__(
        self,
        net: DeepRefinement,
        pictures: Sequence[Decoded],
        block: int,
        rate: float,
        seed: int,
        crop: int | None = None,
    ) -> None:
        self.net, self.block, self.rate, self.steps, self.crop = net, block, rate, 0, crop or CROP
        self.pictures = [p for p in pictures if min(p.original.shape[1:]) >= self.crop]
        if not self.pictures:
            raise EocodecError(f"no picture is as large as a crop, {self.crop} pixels a side")
        self.random = np.random.default_rng(seed)
        self.optimiser = Soap(net.parameters(), lr=rate)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}

    def step(self, part: float) -> float:
        """One step; `part` of the training, 0 to 1, is over, and the rate falls with it. Returns the loss."""
        self.steps += 1
        falling = max(0.02, math.cos(math.pi / 2 * part) ** 2)
        self.optimiser.param_groups[0]["lr"] = self.rate * min(1, self.steps / 50) * falling
        loss = loss_of(self.net, batch_of([self._crop() for _ in range(BATCH)], self.block))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, max(1 - AVERAGE, 1 / self.steps))
        return loss.item()

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs, plain values and tensors."""
        return {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "random": json.dumps(self.random.bit_generator.state),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]
        self.random.bit_generator.state = json.loads(state["random"])

    def _crop(self) -> Decoded:
        p = self.pictures[self.random.integers(len(self.pictures))]
        height, width = p.original.shape[1:]
        top, left = (int(self.random.integers((n - self.crop) // self.block + 1)) * self.block for n in (height, width))
        return p.crop(top, left, self.crop, self.block)


def train(
    net: DeepRefinement, pictures: Sequence[Decoded], block: int, steps: int, rate: float, seed: int
) -> dict[str, Tensor]:
    """So many steps of training; returns the average of the weights. Prints the loss now and then."""
    trainer = Trainer(net, pictures, block, rate, seed)
    start = time.monotonic()
    losses: list[float] = []
    for number in range(1, steps + 1):
        losses.append(trainer.step(number / steps))
        if number % SHOWN == 0 or number == steps:
            seconds = time.monotonic() - start
            print(f"{number}/{steps}  {seconds:.0f} s  loss {np.mean(losses[-SHOWN:]):.4f}", flush=True)
    return trainer.average


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--passes", type=int, default=1, help="how often each picture is coded")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--latents", action="store_true", help="let the refinement see the finest latents")
    parser.add_argument("--start", type=Path, help="weights to go on from, instead of the bundle's")
    parser.add_argument(
        "--new", type=int, nargs=4, metavar=("WIDTH", "COARSE", "BLOCKS", "TAIL"), help="a new net of these sizes"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold-out", type=int, default=40)
    options = parser.parse_args(arguments)
    model = load_model(options.bundle, 1)
    net = refinement_of(bundle_files(options.bundle), options.latents)  # before hours of work
    if net is None:
        raise EocodecError(
            f"{options.bundle}: the refinement of this model cannot be trained on files; it needs a tuned one "
            "(refine_blocks of at least 1)"
        )
    named = read_pictures(options.pictures)
    pictures = [p for _, p in (split(named, options.hold_out, "picture")[0] if options.hold_out else named)]
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.passes):
        if not list(options.folder.glob(f"{number}-*.npz")):
            for k, decoded in enumerate(decoded_pictures(model, pictures, options.seed + number)):
                decoded.save(options.folder / f"{number}-{k:05d}.npz")
    if options.new:
        width, coarse, blocks, tail = options.new
        torch.manual_seed(options.seed)
        net = DeepRefinement(width, coarse, blocks, True, tail).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.start:
        with readable(options.start):
            net.load_state_dict(load_state(options.start))
    torch.manual_seed(options.seed)
    found = [Decoded.load(path) for path in sorted(options.folder.glob("[0-9]*-*.npz"))]
    average = train(net, found, model.multiple, options.steps, options.rate, options.seed)
    torch.save(average, options.folder / "refinement.pt")
    write_bundle(options.folder / options.bundle.name, bundle_with(options.bundle, average, pictures))


def bundle_with(bundle: Path, refinement: dict[str, Tensor], pictures: Sequence[Bytes]) -> dict[str, bytes]:
    """The files of a bundle with another refinement, its tables fitted again on some of `pictures`, others to check."""
    fitted = list(pictures[:: -(-len(pictures) // FITTED)])
    return files_with(dict(bundle_files(bundle)), refinement, fitted, list(pictures[-4:]), refitted=True)


def files_with(
    files: dict[str, bytes],
    refinement: Mapping[str, Tensor],
    pictures: list[Bytes],
    held_out: list[Bytes],
    grey: bool = False,
    refitted: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, bytes]:
    """Files of a bundle with another refinement, under the same name.

    Arguments:
        files: of the bundle.
        refinement: weights by name.
        grey: it is that of the bundle's part for grey pictures, whose tables are fitted again.
        pictures, held_out, refitted, report: see :func:`eocodec_export.adapted.adapted_files`.

    Raises:
        ModelError: a parity check failed.
    """
    sizes, weights = photo_weights(GreyFiles(files) if grey else files)
    model = PhotoModel(replace(sizes, **sizes_of(refinement))).eval().requires_grad_(False)
    kept = {k: v for k, v in weights.items() if not k.startswith(PREFIX)}
    model.load_state_dict({**kept, **{PREFIX + k: v for k, v in refinement.items()}}, strict=False)
    manifest = json.loads(files["manifest.json"])
    name, card = manifest["name"], manifest["card"]
    return adapted_files(model, files, pictures, held_out, name=name, card=card, refitted=refitted, report=report)


def sizes_of(refinement: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes, as `eocodec.flow.model.PhotoConfig` has them, of a refinement's weights by name."""
    coarse, width = refinement["down.weight"].shape[:2]
    return {
        "refine_width": width,
        "refine_coarse": coarse,
        "refine_blocks": len({k.split(".")[1] for k in refinement if k.startswith("blocks.")}),
        "refine_latents": "finest.0.weight" in refinement,
        "refine_tail": sum(k.startswith("tail.") and k.endswith(".weight") for k in refinement),
    }


def refinement_of(files: Mapping[str, bytes], latents: bool = False) -> DeepRefinement | None:
    """The refinement of a bundle, to be trained on; None if it is of a kind that cannot be.

    Arguments:
        files: of the bundle.
        latents: let it see the finest latents even if it did not yet.
    """
    sizes, weights = photo_weights(files)
    if not sizes.refine_blocks:
        return None
    seen = latents or sizes.refine_latents
    net = DeepRefinement(
        sizes.refine_width, sizes.refine_coarse, sizes.refine_blocks, seen, sizes.refine_tail, sizes.axes
    )
    own = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    net.load_state_dict(own, strict=seen == sizes.refine_latents)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


if __name__ == "__main__":
    main()
