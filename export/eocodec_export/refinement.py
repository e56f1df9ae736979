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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from eocodec.coding.fineness import Fineness, tuning_for
from eocodec.coding.ordinary import foresee, ordinary_header
from eocodec.errors import EocodecError
from eocodec.flow.eye import eye_error, structure_error
from eocodec.flow.model import PhotoModel
from eocodec.flow.photo import DeepRefinement
from eocodec.flow.pictures import read_pictures, split
from eocodec.flow.soap import Soap
from eocodec.flow.training import load_start
from eocodec.image import Picture
from eocodec.model import transform
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import bundle_files, load_model
from eocodec_export.adapted import adapted_files

__all__ = ["Batch", "Decoded", "batch_of", "bundle_with", "decoded_pictures", "loss_of", "train"]

Bytes = npt.NDArray[np.uint8]

STEPS = (9.0, 115.0)  # 8-bit levels
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
        np.savez(
            path,
            original=self.original,
            plain=self.plain,
            coarse=coarse,
            fine=fine,
            steps=self.steps,
            tune=np.float32(self.tune),
        )

    @classmethod
    def load(cls, path: Path) -> "Decoded":
        """Inverse of :meth:`save`."""
        with np.load(path) as z:
            return cls(z["original"], z["plain"], (z["coarse"], z["fine"]), z["steps"], float(z["tune"]))


def decoded_pictures(model: Model, pictures: Sequence[Bytes], seed: int) -> Iterator[Decoded]:
    """What files of `pictures` `(H, W, 3)` decode to, at a step and a scale that are drawn, half of them for the eye.

    Half of the pictures keep their size, a quarter becomes smaller, a quarter larger. Those that are too small for a
    crop are left out.
    """
    block = model.multiple
    random = np.random.default_rng(seed)
    for picture in pictures:
        kind, smaller, larger = random.random(), random.uniform(0.5, 1), random.uniform(1, 1.5)
        delta = float(np.exp(random.uniform(*np.log(STEPS)))) / 255
        eye = random.random() < 0.5
        image = Image.fromarray(picture)
        if kind >= 0.5:
            scale = smaller if kind < 0.75 else larger
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
        width, height = (min(n // block * block, EDGE) for n in image.size)
        if min(width, height) < CROP:
            continue
        rgb = np.asarray(image.crop((0, 0, width, height)))
        yield _decoded(model, rgb, delta, "eye" if eye else "psnr")


def _decoded(model: Model, rgb: Bytes, delta: float, tune: str) -> Decoded:
    tuning = tuning_for(model, True, tune, None, rgb, squared=False)
    header = ordinary_header(model, Picture(rgb), delta, tuning.degree)
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
    after = net(batch.plain, batch.latents, batch.step, batch.tune)
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


def train(
    net: DeepRefinement, pictures: Sequence[Decoded], block: int, steps: int, rate: float, seed: int
) -> dict[str, Tensor]:
    """So many steps of training; returns the average of the weights. Prints the loss now and then."""
    pictures = [p for p in pictures if min(p.original.shape[1:]) >= CROP]
    if not pictures:
        raise EocodecError(f"no picture is as large as a crop, {CROP} pixels a side")
    random = np.random.default_rng(seed)

    def crop() -> Decoded:
        p = pictures[random.integers(len(pictures))]
        top, left = (int(random.integers((n - CROP) // block + 1)) * block for n in p.original.shape[1:])
        return p.crop(top, left, CROP, block)

    optimiser = Soap(net.parameters(), lr=rate)
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    start = time.monotonic()
    losses: list[float] = []
    for number in range(1, steps + 1):
        falling = max(0.02, math.cos(math.pi / 2 * number / steps) ** 2)
        optimiser.param_groups[0]["lr"] = rate * min(1, number / 50) * falling
        loss = loss_of(net, batch_of([crop() for _ in range(BATCH)], block))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        for name, value in net.state_dict().items():
            average[name].lerp_(value, max(1 - AVERAGE, 1 / number))
        if number % SHOWN == 0 or number == steps:
            seconds = time.monotonic() - start
            print(f"{number}/{steps}  {seconds:.0f} s  loss {np.mean(losses[-SHOWN:]):.4f}", flush=True)
    return average


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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold-out", type=int, default=40)
    options = parser.parse_args(arguments)
    model, started = load_model(options.bundle, 1), load_start(options.bundle)
    options.folder.mkdir(parents=True, exist_ok=True)
    named = read_pictures(options.pictures)
    pictures = [p for _, p in (split(named, options.hold_out, "picture")[0] if options.hold_out else named)]
    for number in range(options.passes):
        if not list(options.folder.glob(f"{number}-*.npz")):
            for k, decoded in enumerate(decoded_pictures(model, pictures, options.seed + number)):
                decoded.save(options.folder / f"{number}-{k:05d}.npz")
    config = started.config
    latents = options.latents or config.refine_latents
    net = DeepRefinement(config.refine_width, config.refine_coarse, config.refine_blocks, latents)
    weights = {k.removeprefix(PREFIX): v for k, v in started.average.items() if k.startswith(PREFIX)}
    net.load_state_dict(weights, strict=latents == config.refine_latents)
    if options.start:
        net.load_state_dict(torch.load(options.start, weights_only=True))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.manual_seed(options.seed)
    found = [Decoded.load(path) for path in sorted(options.folder.glob("[0-9]*-*.npz"))]
    average = train(net, found, model.multiple, options.steps, options.rate, options.seed)
    torch.save(average, options.folder / "refinement.pt")
    write_bundle(options.folder / options.bundle.name, bundle_with(options.bundle, average, pictures))


def bundle_with(bundle: Path, refinement: dict[str, Tensor], pictures: Sequence[Bytes]) -> dict[str, bytes]:
    """The files of a bundle with another refinement, its tables fitted again on some of `pictures`, others to check."""
    started = load_start(bundle)
    config = replace(started.config, refine_latents="finest.0.weight" in refinement)
    model = PhotoModel(config).eval().requires_grad_(False)
    weights = {k: v for k, v in started.average.items() if not k.startswith(PREFIX)}
    model.load_state_dict({**weights, **{PREFIX + k: v for k, v in refinement.items()}}, strict=False)
    files = dict(bundle_files(bundle))
    manifest = json.loads(files["manifest.json"])
    fitted = list(pictures[:: -(-len(pictures) // FITTED)])
    name, card = manifest["name"], manifest["card"]
    return adapted_files(model, files, fitted, list(pictures[-4:]), name=name, card=card, refitted=True, report=print)


if __name__ == "__main__":
    main()
