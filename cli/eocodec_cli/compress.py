"""`eocodec compress`."""

import base64
import io
from typing import Any

import click

from eocodec_cli import files
from eocodec_cli.denoise import level
from eocodec_cli.work import for_each

rate_option = click.option(
    "--rate",
    type=float,
    metavar="C",
    help="Latents kept: per block 1 to 768 (photo), in all 1 to 12288 (face64); default 96.",
)
bpp_option = click.option("--bpp", type=float, metavar="X", help="Instead: at most X bits per pixel, at most 2 % less.")
psnr_option = click.option("--psnr", type=float, metavar="DB", help="Instead: at least DB decibels, at most 0.1 more.")
denoise_option = click.option(
    "--denoise",
    type=level,
    metavar="[auto|S]",
    is_flag=False,
    flag_value="auto",
    help="Remove noise first; S: its level in 8-bit levels, default auto. PSNR then counts against the clean picture.",
)
lossless_option = click.option("--lossless", is_flag=True, help="Instead: keep every 8-bit value exactly; photo only.")
progressive_option = click.option(
    "--progressive", is_flag=True, help="Write an embedded stream: the file may be cut at any byte."
)
no_measure_option = click.option("--no-measure", is_flag=True, help="Do not decode to report the PSNR; faster.")


@click.command("compress")
@files.inputs_argument
@files.output_option
@rate_option
@bpp_option
@click.option("--bytes", "max_bytes", type=int, metavar="N", help="Instead: at most N bytes, at most 2 % less.")
@psnr_option
@denoise_option
@files.model_option
@files.threads_option
@files.device_option
@files.force_option
@files.json_option
@click.option("--tiny", is_flag=True, help="Write the placeholder form: 2 bytes of overhead, 64x64 faces only.")
@lossless_option
@progressive_option
@click.option("--base64", "as_text", is_flag=True, help="Write the file as base64 text, for JSON and HTML.")
@click.option("--resize", is_flag=True, help="Fit pictures to a model of one size: middle square, scaled.")
@click.option("--verify", is_flag=True, help="Decode the finished file and compare before it is written.")
@no_measure_option
def command(
    inputs: tuple[str, ...],
    output: str | None,
    rate: float | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr: float | None,
    denoise: float | str | None,
    model: str | None,
    threads: int,
    device: str,
    force: bool,
    as_json: bool,
    tiny: bool,
    as_text: bool,
    resize: bool,
    lossless: bool,
    progressive: bool,
    verify: bool,
    no_measure: bool,
) -> None:
    """Compress pictures to .eoc files.

    Reads PNG, JPEG, WebP, AVIF, TIFF, BMP, PPM and more; orientation is applied, colour profiles are converted to
    sRGB, transparency is kept losslessly. Prints bytes, bits per pixel, ratio to raw 24-bit and PSNR. With --lossless
    the 8-bit sRGB values come back exactly, which is checked by decoding unless --no-measure is given. With --denoise
    the file holds the clean picture, and the PSNR, also that of --psnr, is measured against it; before a file name
    write --denoise=auto.

    \b
    Examples:
      eocodec compress photo.jpg
      eocodec compress --rate 48 *.png -o small/
      eocodec compress --bytes 20000 photo.png -o photo.eoc
      eocodec compress --psnr 38 --device cuda *.jpg
      eocodec compress --lossless scan.png
      eocodec compress --verify --rate 200 archive/*.png
      eocodec compress --progressive --rate 300 photo.jpg
      eocodec compress night.jpg --denoise
      eocodec compress --denoise=25 --bpp 0.4 noisy.png
      cat photo.png | eocodec compress --bpp 0.5 - > photo.eoc
      eocodec compress --model face64 --resize portrait.jpg
      eocodec compress --tiny --base64 --bytes 24 face.png -o -
    """
    from eocodec.bundle import load_model
    from eocodec.codec import compress_picture
    from eocodec.errors import EocodecError
    from eocodec.image import read_picture

    if sum(t is not None for t in (rate, bpp, max_bytes, psnr)) > 1:
        raise click.UsageError("give only one of --rate, --bpp, --bytes and --psnr")
    if lossless and (tiny or any(t is not None for t in (rate, bpp, max_bytes, psnr))):
        raise click.UsageError("--lossless excludes --rate, --bpp, --bytes, --psnr and --tiny")
    if progressive and (tiny or lossless):
        raise click.UsageError("--progressive excludes --tiny and --lossless")
    if denoise is not None and lossless:
        raise click.UsageError("--lossless excludes --denoise: a lossless file keeps the noise")
    if as_text and not tiny:
        raise click.UsageError("--base64 goes with --tiny")
    name = model or ("face64" if tiny else "photo")
    lanes = files.Lanes(len(inputs), threads, device)
    loaded = lanes.load(name)
    if rate is not None and not 1 <= rate <= loaded.block:
        raise EocodecError(f"the rate must be from 1 to {loaded.block} latents, not {rate:g}")
    jobs = files.plan(inputs, output, ".eoc", force)

    def work(job: files.Job) -> dict[str, Any]:
        if job.source == files.PIPE:
            picture = read_picture(io.BytesIO(files.read_bytes(job.source)), "standard input")
        else:
            picture = read_picture(job.source)
        with lanes.turn(picture.pixels) as share:
            done = compress_picture(
                picture,
                rate,
                bpp=bpp,
                max_bytes=max_bytes,
                psnr=psnr,
                denoise=denoise,
                model=load_model(name, share, device=device),
                tiny=tiny,
                resize=resize,
                lossless=lossless,
                progressive=progressive,
                measure=not no_measure,
                verify=verify,
            )
        files.write_bytes(job.target, base64.b64encode(done.data) + b"\n" if as_text else done.data)
        height, width = done.size
        return {
            "input": job.source,
            "output": job.target,
            "width": width,
            "height": height,
            "bytes": len(done.data),
            "bpp": round(done.bits_per_pixel, 5),
            "ratio": round(3 * height * width / len(done.data), 3),
            "psnr": None if done.psnr is None or done.psnr == float("inf") else round(done.psnr, 3),
            "rate": round(done.rate, 3),
            "lossless": lossless,
            "sigma": None if done.sigma is None else round(done.sigma, 2),
        }

    def line(r: dict[str, Any]) -> str:
        quality = "" if r["psnr"] is None else f"  {r['psnr']:.2f} dB"
        rate = "lossless" if lossless else f"C={r['rate']:g}"
        removed = "" if r["sigma"] is None else f"  sigma={r['sigma']:.1f} removed"
        return (
            f"{r['input']} -> {r['output']}  {r['width']}x{r['height']}  {r['bytes']} bytes  {r['bpp']:.3f} bpp  "
            f"1:{r['ratio']:.1f}{quality}  {rate}{removed}"
        )

    for_each(jobs, work, line, as_json, lanes.workers)
