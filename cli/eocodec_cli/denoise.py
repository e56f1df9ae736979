"""`eocodec denoise`."""

import io
from pathlib import Path
from typing import Any

import click

from eocodec_cli import files


@click.command("denoise")
@files.inputs_argument
@files.output_option
@click.option("--sigma", default="auto", metavar="auto|S", help="Noise level in 8-bit levels; default: estimated.")
@click.option("--rate", type=float, metavar="C", help="Instead: keep the top C latents of every block, drop the rest.")
@click.option("--shifts", type=click.IntRange(1, 8), default=4, help="Shifts averaged: slower and better; default 4.")
@files.model_option
@files.threads_option
@files.device_option
@files.force_option
@files.json_option
def command(
    inputs: tuple[str, ...],
    output: str | None,
    sigma: str,
    rate: float | None,
    shifts: int,
    model: str | None,
    threads: int,
    device: str,
    force: bool,
    as_json: bool,
) -> None:
    """Remove noise from pictures.

    Writes NAME.denoised.png beside the input unless -o is given. Transparency is kept.

    \b
    Examples:
      eocodec denoise night.jpg
      eocodec denoise --sigma 25 noisy.png -o clean.png
      eocodec denoise --rate 48 noisy.png -o core.png
      cat noisy.png | eocodec denoise - > clean.png
    """
    from eocodec.bundle import load_model
    from eocodec.denoising import denoise, estimate_sigma
    from eocodec.image import check_suffix, encode_picture, read_picture, to_pillow

    level: float | str = "auto"
    if sigma != "auto":
        try:
            level = float(sigma)
        except ValueError:
            raise click.UsageError(f"--sigma takes a number of 8-bit levels or auto, not {sigma}") from None
    lanes = files.Lanes(len(inputs), threads, device)
    lanes.load(model or "photo")
    jobs = files.plan(inputs, output, ".denoised.png", force)
    for job in jobs:
        if job.target != files.PIPE:
            check_suffix(Path(job.target).suffix)

    def work(job: files.Job) -> dict[str, Any]:
        if job.source == files.PIPE:
            picture = read_picture(io.BytesIO(files.read_bytes(job.source)), "standard input")
        else:
            picture = read_picture(job.source)
        with lanes.turn(picture.pixels) as share:
            loaded = load_model(model or "photo", share, device=device)
            used = estimate_sigma(picture, loaded) if level == "auto" and rate is None else level
            rgb = denoise(picture, used, rate=rate, shifts=shifts, model=loaded)
        suffix = ".png" if job.target == files.PIPE else Path(job.target).suffix
        image = to_pillow(rgb, picture.alpha, picture.grey)
        files.write_bytes(job.target, encode_picture(image, suffix))
        return {
            "input": job.source,
            "output": job.target,
            "width": image.width,
            "height": image.height,
            "sigma": None if isinstance(used, str) else round(used, 2),
            "rate": rate,
        }

    def line(r: dict[str, Any]) -> str:
        how = f"C={r['rate']:g}" if r["rate"] is not None else f"sigma={r['sigma']:.1f}"
        return f"{r['input']} -> {r['output']}  {r['width']}x{r['height']}  {how}"

    files.for_each(jobs, work, line, as_json, lanes.workers)
