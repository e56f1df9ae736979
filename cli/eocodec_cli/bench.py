"""`eocodec bench`."""

import json
from pathlib import Path

import click

from eocodec.errors import EocodecError
from eocodec_cli import files


@click.command("bench")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw rate against PSNR and MS-SSIM here."
)
@click.option("--codecs", default="eocodec,jpeg,webp,avif,jxl", show_default=True, help="Which codecs to run.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first pictures.")
@click.option(
    "--range", "rates", type=(float, float), default=(0.15, 1.5), show_default=True, help="BD-rate range, bpp."
)
@click.option(
    "--published",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Published curve to compare with, JSON as CompressAI keeps it; may be repeated.",
)
@click.option("--denoise", "sigma", type=float, help="Instead: denoise pictures with added noise of this level.")
@files.model_option
@files.threads_option
@files.device_option
def command(
    folder: Path,
    json_file: Path | None,
    plot: Path | None,
    codecs: str,
    limit: int | None,
    rates: tuple[float, float],
    published: tuple[Path, ...],
    sigma: float | None,
    model: str | None,
    threads: int,
    device: str,
) -> None:
    """Compare with JPEG, WebP, AVIF and JPEG XL on a folder of pictures (needs the extra `bench`).

    Real file sizes in memory, 8-bit RGB PSNR, MS-SSIM and seconds; Bjøntegaard rate differences in percent.

    \b
    Examples:
      eocodec bench kodak/ --json out.json --plot rd.png
      eocodec bench kodak/ --codecs eocodec,avif --published vtm.json
      eocodec bench cbsd68/ --denoise 25
    """
    try:
        from eocodec import benchmark
    except ImportError as e:
        raise EocodecError(f"the benchmark needs {e.name}; install it with: pip install 'eocodec[bench]'") from None
    from eocodec.bundle import load_model

    loaded = load_model(model or "photo", threads, device=device)
    say = lambda message: click.echo(message, err=True)  # noqa: E731
    if sigma is not None:
        result = benchmark.denoising(folder, sigma, loaded, limit, say)
        click.echo(benchmark.denoising_table(result))
    else:
        result = benchmark.compression(folder, codecs.split(","), loaded, limit, rates, say)
        if published:
            result["published"] = benchmark.published(published, result)
        click.echo(benchmark.compression_table(result))
        if plot:
            benchmark.plot(result, plot)
    if json_file:
        files.write_bytes(str(json_file), (json.dumps(result, indent=1) + "\n").encode())
