"""A model of grey pictures alone, from the model for colour: what its training starts from.

    python -m eocodec_export.grey start BUNDLE PICTURES START [--width N] [--steps N]
    eocodec train eocodec/models/photo-grey.toml --start START --data PICTURES --out RUN
    python -m eocodec_export.grey export BUNDLE RUN/checkpoint.pt PICTURES PARTS
    python -m eocodec_export.grey add BUNDLE PARTS OUT
    python -m eocodec_export.grey refine OUT RUN/checkpoint.pt PICTURES BETTER [--steps N]

`start`: of a bundle for colour and pictures it makes START, a checkpoint of a model with one colour axis. Its flow is
trained to give the luma latents that the flow for colour gives of grey pictures, up to a constant for each channel,
which goes into the steps; its entropy nets and its refinement are those of the bundle with what they know of chroma
left out, since latents in steps are nearly the same. `export` makes the files of `eocodec.model.grey` of the trained
model, in the folder PARTS; what they do not say themselves they take from BUNDLE. `add` writes the bundle OUT, which is
BUNDLE with these parts, in place of those that it may have had. `refine` trains the refinement on files of a bundle
that has them, as `eocodec_export.refinement` does for colour, and writes BETTER, a checkpoint to export anew.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eocodec.errors import EocodecError
from eocodec.files import atomic_file, atomic_write
from eocodec.flow.context import UP
from eocodec.flow.model import PhotoConfig, PhotoModel
from eocodec.flow.photo import DeepRefinement, PhotoFlow
from eocodec.flow.pictures import Picture, greyed, read_pictures, split
from eocodec.flow.restored import photo_weights
from eocodec.flow.soap import Soap
from eocodec.flow.streams import CropStream
from eocodec.flow.training import load_checkpoint
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.grey import FOLDER
from eocodec.model.library import bundle_files, load_model
from eocodec_export.commands import ending
from eocodec_export.grey_parts import MANIFEST, grey_parts, with_grey
from eocodec_export.refinement import decoded_pictures, train

__all__ = ["distilled", "luma_alone", "refined", "start"]

WIDTH, STEPS = 32, 1000
REFINE_STEPS = 1500
CROP, BATCH, RATE = 128, 4, 3e-3
LEVEL = 1 / 255
SHOWN = 100
HOLD_OUT = 40


def luma_alone(colour: PhotoModel, width: int) -> PhotoModel:
    """A model with one colour axis, a new flow, and of all other nets what sees and gives luma.

    Arguments:
        colour: that can be tuned, with a `DeepRefinement`.
        width: hidden channels of the new flow's couplings.

    Raises:
        EocodecError: the model is another one.
    """
    if colour.config.axes != 3 or not isinstance(colour.refine, DeepRefinement):
        raise EocodecError("a model of grey pictures starts from one for colour that can be tuned")
    sizes = replace(colour.config, axes=1, width=width, embedded=False, gain_widths=())
    model = PhotoModel(PhotoConfig(**asdict(sizes)))
    weights = model.state_dict()
    given = colour.state_dict()
    levels = colour.config.levels
    planes = list(range(colour.latents.context.planes))
    for name in weights:
        value = given.get(name)
        if name.startswith("flow.") or value is None:
            continue
        if name.startswith("latents.context.feature.") and name.endswith("convs.0.weight"):
            level = int(name.split(".")[3])
            # Differences of q along rows and columns, three colours each, at four phases; or nine details.
            luma = [6 * p + 3 * d for p in range(4) for d in range(2)] if level == levels else [0, 1, 2]
            others = 24 if level == levels else 9
            more = [others + k for k in range(0 if level == levels else UP)]
            value = value[:, [*luma, *more, *(others + len(more) + k for k in planes)]]
        elif name.startswith("latents.gain"):
            value = value[: 3 if int(name[-1]) else 1]
        elif name == "latents.low_scale":
            value = value[:, :1]
        elif name == "refine.head.weight":
            phases = value[:, :12].unflatten(1, (3, 4)).sum(1)  # of grey pictures, which are the same in all channels
            value = torch.cat([phases, value[:, 12:]], 1)
        elif name.startswith("refine.finest."):
            value = value[:, :3]
        elif name.startswith("refine.tail.") and len(value) == 12:
            value = value.unflatten(0, (3, 4)).mean(0)
        if value.shape != weights[name].shape:
            raise EocodecError(f"the bundle's {name} has another shape than those of other bundles")
        weights[name] = value
    model.load_state_dict(weights)
    return model


def distilled(
    colour: PhotoModel,
    model: PhotoModel,
    pictures: Sequence[Picture],
    steps: int,
    seed: int,
    report: Callable[[str], None] = lambda message: None,
) -> None:
    """Train the flow of a model with one colour axis to give the luma latents of one for colour, of grey pictures.

    Where a channel's latents differ by a factor, it goes into the gain: steps are as fine as they were.

    Arguments:
        colour: the teacher.
        model: that learns, from :func:`luma_alone`.
        pictures: `(H, W, 3)`.
        steps: of the optimiser, with 4 crops of 128x128 each.
        seed: of the crops.
        report: called with a line now and then.
    """
    torch.manual_seed(seed)
    stream = CropStream([greyed(p) for p in pictures], CROP, seed)
    teacher: PhotoFlow = colour.flow.requires_grad_(False)
    flow = model.flow.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gains = [gain.clone() for gain in model.latents.gains]
    scales = nn.ParameterList([nn.Parameter(torch.zeros_like(gain)) for gain in gains])
    optimiser = Soap([*flow.parameters(), *scales.parameters()], lr=RATE)
    start, shown = time.monotonic(), 0.0
    for number in range(1, steps + 1):
        falling = max(0.02, math.cos(math.pi / 2 * number / steps) ** 2)
        optimiser.param_groups[0]["lr"] = RATE * min(1, number / 50) * falling
        x = torch.from_numpy(stream.batch(BATCH)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            wanted = [_in_steps(h[:, : len(g)], g) for h, g in zip(teacher(x), gains, strict=True)]
        found = [_in_steps(h, g - s) for h, g, s in zip(flow(x), gains, scales, strict=True)]
        errors = [(a - b).square() for a, b in zip(wanted, found, strict=True)]
        loss = torch.stack([((e + LEVEL**2).sqrt() - LEVEL).sum() for e in errors]).sum() / (LEVEL * x[:, 0].numel())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        shown += loss.item() / SHOWN
        if number % SHOWN == 0:
            report(f"{number}/{steps}  {time.monotonic() - start:.0f} s  {shown:.3f} levels a latent")
            shown = 0.0
    with torch.no_grad():
        for gain, scale in zip(model.latents.gains, scales, strict=True):
            gain -= scale


def _in_steps(h: Tensor, gain: Tensor) -> Tensor:
    """Latents in units of the step at Δ = 1."""
    return h * torch.exp(-gain)[:, None, None]


def start(bundle: Path, pictures: Sequence[Picture], out: Path, width: int, steps: int, seed: int) -> None:
    """Write the checkpoint that training of a model of grey pictures starts from; prints what it does."""
    config, weights = photo_weights(bundle_files(bundle))
    colour = PhotoModel(config).eval()
    colour.load_state_dict({**colour.state_dict(), **weights})
    model = luma_alone(colour, width)
    distilled(colour, model, pictures, steps, seed, lambda message: print(message, flush=True))
    _save(model, out)


def _save(model: PhotoModel, out: Path) -> None:
    """Write weights as a checkpoint that a run can start from."""
    average = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    raw = {"model_kind": "photo", "model_config": asdict(model.config), "iteration": 0, "average": average}
    with atomic_file(out) as file:
        torch.save(raw, file)


def refined(model: PhotoModel, bundle: Model, pictures: Sequence[Picture], steps: int, rate: float, seed: int) -> None:
    """Train the refinement of a model with one colour axis on what files of its bundle decode to.

    Arguments:
        model: as exported; its refinement is changed.
        bundle: with the part that was made of it.
        pictures: `(H, W, 3)`.
        steps, rate: of the training, see `eocodec_export.refinement.Trainer`.
        seed: of the files and of the training.
    """
    assert isinstance(model.refine, DeepRefinement)
    own = bundle.of_axes(1)
    found = list(decoded_pictures(own, [greyed(p) for p in pictures], seed))
    print(f"{len(found)} files", flush=True)
    torch.manual_seed(seed)
    net = model.refine.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.load_state_dict(train(net, found, own.multiple, steps, rate, seed))


def read_parts(folder: Path) -> dict[str, bytes]:
    """Files of a part that lie in a folder as `export` writes them."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    if FOLDER + MANIFEST not in found:
        raise EocodecError(f"{folder}: no part for grey pictures")
    return found


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="make the checkpoint that training starts from")
    begin.add_argument("bundle", type=Path)
    begin.add_argument("pictures")
    begin.add_argument("out", type=Path)
    begin.add_argument("--width", type=int, default=WIDTH)
    begin.add_argument("--steps", type=int, default=STEPS)
    begin.add_argument("--seed", type=int, default=1)
    export = commands.add_parser("export", help="make the parts of a bundle from a trained checkpoint")
    export.add_argument("bundle", type=Path)
    export.add_argument("checkpoint", type=Path)
    export.add_argument("pictures")
    export.add_argument("out", type=Path)
    export.add_argument("--settings", type=Path, help="encoder.json of the part")
    add = commands.add_parser("add", help="add the parts to a bundle")
    add.add_argument("bundle", type=Path)
    add.add_argument("parts", type=Path)
    add.add_argument("out", type=Path)
    refine = commands.add_parser("refine", help="train the refinement on files")
    refine.add_argument("bundle", type=Path)
    refine.add_argument("checkpoint", type=Path)
    refine.add_argument("pictures")
    refine.add_argument("out", type=Path)
    refine.add_argument("--steps", type=int, default=REFINE_STEPS)
    refine.add_argument("--rate", type=float, default=RATE / 3, help="learning rate")
    refine.add_argument("--seed", type=int, default=1)
    refine.add_argument("--every", type=int, default=1, help="leave out all pictures but each so-manieth")
    options = parser.parse_args(arguments)
    if options.command == "add":
        files = with_grey(bundle_files(options.bundle), read_parts(options.parts))
        print(write_bundle(options.out, files).hex())
        return
    pictures, held_out = ([p for _, p in part] for part in split(read_pictures(options.pictures), HOLD_OUT))
    if options.command == "start":
        start(options.bundle, pictures, options.out, options.width, options.steps, options.seed)
        return
    loaded = load_checkpoint(options.checkpoint)
    if not isinstance(loaded.config, PhotoConfig) or loaded.config.axes != 1:
        raise EocodecError(f"{options.checkpoint} holds no model of grey pictures (axes = 1)")
    model = PhotoModel(loaded.config).eval().requires_grad_(False)
    model.load_state_dict(loaded.average)
    if options.command == "refine":
        chosen = list(pictures)[:: options.every]
        refined(model, load_model(options.bundle, 1), chosen, options.steps, options.rate, options.seed)
        _save(model, options.out)
        return
    settings = None if options.settings is None else options.settings.read_bytes()
    whole = dict(bundle_files(options.bundle))
    made = grey_parts(model, whole, pictures, held_out, settings, lambda message: print(message, flush=True))
    for name, content in made.items():
        place = options.out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, content)


if __name__ == "__main__":
    main()
