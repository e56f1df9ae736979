"""`eocodec denoise`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec_cli import files, pictures
from eocodec_cli.shown import with_options
from eocodec_cli.work import for_each

if TYPE_CHECKING:
    from eocodec.denoising import Denoised

RESULT = ".denoised.png"  # what is added to the name of an input


def sigma_or_auto(value: str) -> float | str:
    """A noise level in 8-bit levels, or "auto": the type of an option.

    Raises:
        click.BadParameter: neither of them, or out of range.
    """
    if value == "auto":
        return value
    try:
        sigma = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of 8-bit levels.") from None
    if not 0 <= sigma <= 255:
        raise click.BadParameter(f"{value} is not in the range from 0 to 255 levels.")
    return sigma


def _wanted() -> Callable[[str], bool]:
    """What tells whether a file of a folder is an input: no result, nor an .eoc file of a picture beside it."""

    @functools.cache
    def pictures_of(folder: Path) -> set[str]:
        return {p.stem for p in folder.iterdir() if pictures.is_picture_name(p.name)}

    def wanted(name: str) -> bool:
        path = Path(name)
        if path.suffix.lower() == pictures.EOC:
            return path.stem not in pictures_of(path.parent)
        return pictures.is_picture_name(name) and not name.lower().endswith(RESULT)

    return wanted


@click.command("denoise")
@files.inputs_argument
@files.output_option
@click.option(
    "--method",
    type=click.Choice(["auto", "net", "shrink", "drop"]),
    default="auto",
    show_default=True,
    help="A learned gain for every latent; its posterior mean; keeping or dropping it; auto: the first the model has.",
)
@click.option(
    "--sigma",
    type=sigma_or_auto,
    default="auto",
    metavar="auto|S",
    help="Noise level of the channels in 8-bit levels; default: estimated.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 4),
    default=1.0,
    metavar="F",
    help="Multiplies the level: 0 removes nothing, 2 twice the noise; default 1.",
)
@click.option(
    "--detail",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="D",
    help="Share of what was removed that is given back, 0 to 1, for the sake of grain and texture; default 0.",
)
@click.option(
    "--rate", type=float, metavar="C", help="Instead of a level: keep the top C latents of every block, drop the rest."
)
@click.option(
    "--shifts",
    type=click.IntRange(1, 8),
    help="Shifts (net: flips) averaged: slower and better; default: net 2, shrink and drop 8.",
)
@files.model_option
@files.threads_option
@files.device_option
@files.force_option
@files.recursive_option
@files.times_option
@files.json_option
@pictures.frame_option
@pictures.lenient_option
def command(
    inputs: tuple[str, ...],
    output: str | None,
    method: str,
    sigma: float | str,
    strength: float,
    detail: float,
    rate: float | None,
    shifts: int | None,
    model: str | None,
    threads: int,
    device: str,
    force: bool,
    recursive: bool,
    keep_times: bool,
    as_json: bool,
    frame: int,
    lenient: bool,
) -> None:
    """Remove noise from pictures.

    Writes NAME.denoised.png beside the input unless -o is given. Transparency is kept. Pictures and .eoc files go in;
    -r leaves out results of this command, and .eoc files that have their picture beside them.
    Noise that may as well be texture is left alone, which is said on standard error and in "warnings" of --json. Where
    noise differs from place to place, each place is rid of its own, and the line says between which levels it is.

    \b
    Examples:
      eocodec denoise noisy.jpg
      eocodec denoise --strength 0.6 *.jpg -o clean/
      eocodec denoise --detail 0.2 grainy.jpg
      eocodec denoise -r scans/ -o clean/
      eocodec denoise --sigma 25 noisy.png -o clean.png
      eocodec denoise --method drop noisy.png -o clean.png
      eocodec denoise --rate 48 noisy.png -o core.png
      cat noisy.png | eocodec denoise - > clean.png
    """
    from eocodec import wide
    from eocodec.denoising import denoise_picture
    from eocodec.image import to_pillow
    from eocodec.model.library import load_model
    from eocodec.remarks import denoise_remarks
    from eocodec.writing import encode_picture

    if rate is not None and method not in ("auto", "drop"):
        raise click.UsageError(f"--rate goes with --method drop, not with {method}")
    if rate is not None and (sigma != "auto" or strength != 1):
        raise click.UsageError("--rate excludes --sigma and --strength")
    jobs = files.plan(inputs, output, RESULT, force, recursive=recursive, wanted=_wanted())
    lanes = files.Lanes(len(jobs), threads, device)
    lanes.load(model or "photo")
    for job in jobs:
        if job.target:
            files.picture_suffix(job.target)

    files.make_folders(jobs)

    def work(job: files.Job) -> dict[str, Any]:
        source = pictures.read(job, frame, lenient)
        picture = source.picture
        with lanes.turn(picture.pixels) as share:
            done = denoise_picture(
                picture,
                sigma,
                method=method,
                rate=rate,
                strength=strength,
                shifts=shifts,
                detail=detail,
                model=load_model(model or "photo", share, device=device),
            )
        suffix = files.picture_suffix(job.target)
        image = to_pillow(done.rgb, picture.alpha, picture.grey)
        deep = picture.keeps == 16 and not done.removed and wide.holds(suffix)
        if deep:
            same = picture.at_depth(16)
            content = wide.encode(same.rgb, same.alpha, same.grey, suffix)
        else:
            content = encode_picture(image, suffix)
        files.write_bytes(job.target, content, force, job.source if keep_times else None)
        depth, estimated = 16 if deep else 8, sigma == "auto" and strength > 0
        said = denoise_remarks(picture, done.removed, suffix, depth, estimated=estimated, image=image)
        return {
            "input": job.source,
            "output": job.target,
            "width": image.width,
            "height": image.height,
            "depth": depth,
            "method": done.method,
            "sigma": None if done.sigma is None else round(done.sigma, 2),
            "sigma_range": _range(done),
            "rate": rate,
            "frames": picture.frames,
            "warnings": [with_options(sentence) for sentence in said],
        }

    def line(r: dict[str, Any]) -> str:
        how = f"C={r['rate']:g}" if r["rate"] is not None else f"sigma={r['sigma']:.1f}"
        if r["sigma_range"]:
            how += " ({:.1f} to {:.1f})".format(*r["sigma_range"])
        return f"{r['input']} -> {r['output']}  {r['width']}x{r['height']}  {r['method']}  {how}"

    for_each(jobs, work, line, as_json, lanes.workers)


def _range(done: "Denoised") -> list[float] | None:
    """Between which levels nine tenths of a picture's areas have noise; None if it is the same everywhere."""
    import numpy as np

    if done.places is None:
        return None
    least, most = np.quantile(done.places, (0.05, 0.95))
    return [round(float(least), 2), round(float(most), 2)]
