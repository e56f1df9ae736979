"""`eocodec bench`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from eocodec.errors import EocodecError
from eocodec_cli import files

SIGMAS = "15,25,50"


def _numbers(option: str, texts: Sequence[str]) -> list[float]:
    """Numbers of comma lists, each once, in the order given."""
    try:
        return list(dict.fromkeys(float(word) for text in texts for word in text.split(",")))
    except ValueError:
        raise click.UsageError(f"{option} takes numbers of 8-bit levels, separated by commas") from None


@click.command("bench")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw rate against PSNR and MS-SSIM here; with --denoise, PSNR and SSIM against sigma.",
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
@click.option("--denoise", is_flag=True, help="Instead: remove noise that is added to the pictures.")
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    metavar="S,...",
    help=f"Noise levels, 8-bit; may be repeated.  [default: {SIGMAS}]",
)
@click.option("--methods", metavar="NAME,...", help="Of net, shrink, drop, bm3d, nlm, bayes, opencv; default: all.")
@click.option("--levels", metavar="S,...", help="Instead: only estimate these noise levels.")
@click.option("--noise", type=click.Choice(["gaussian", "poisson", "jpeg"]), help="Kind of noise; default: gaussian.")
@click.option("--grey", is_flag=True, help="Convert pictures to luma first.")
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
    denoise: bool,
    sigmas: tuple[str, ...],
    methods: str | None,
    levels: str | None,
    noise: str | None,
    grey: bool,
    model: str | None,
    threads: int,
    device: str,
) -> None:
    """Compare with JPEG, WebP, AVIF and JPEG XL on a folder of pictures (needs the extra `bench`).

    Real file sizes in memory, 8-bit RGB PSNR, MS-SSIM and seconds; Bjøntegaard rate differences in percent.

    With --denoise: PSNR, SSIM and seconds of eocodec, BM3D (needs the extra `bench-bm3d`), non-local means and
    BayesShrink on the same noisy pictures, and errors of the estimated noise level. --noise poisson is
    signal-dependent with sigma as its mean; jpeg is clipped, rounded and compressed at quality 75.

    \b
    Examples:
      eocodec bench kodak/ --json out.json --plot rd.png
      eocodec bench kodak/ --codecs eocodec,avif --published vtm.json
      eocodec bench cbsd68/ --denoise --sigma 15,25,50 --json out.json
      eocodec bench cbsd68/ --denoise --methods net,bm3d --noise poisson
      eocodec bench cbsd68/ --levels 0,5,10,20,40
    """
    if denoise and levels is not None:
        raise click.UsageError("--denoise and --levels exclude one another")
    if not denoise and (sigmas or methods is not None):
        raise click.UsageError("--sigma and --methods go with --denoise")
    if not denoise and levels is None and (noise or grey):
        raise click.UsageError("--noise and --grey go with --denoise or --levels")
    if (denoise or levels is not None) and published:
        raise click.UsageError("--published does not go with --denoise or --levels")
    if levels is not None and plot:
        raise click.UsageError("--plot does not go with --levels")
    wanted = _numbers("--levels", [levels]) if levels is not None else _numbers("--sigma", sigmas or [SIGMAS])
    try:
        from eocodec import benchmark

        if denoise or levels is not None:
            from eocodec import denoise_benchmark
    except ImportError as e:
        raise EocodecError(f"the benchmark needs {e.name}; install it with: pip install 'eocodec[bench]'") from None
    from eocodec.model.library import load_model

    loaded = load_model(model or "photo", threads, device=device)
    say = lambda message: click.echo(message, err=True)  # noqa: E731

    def keep(result: dict[str, Any]) -> None:
        if json_file:
            files.write_bytes(str(json_file), (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())

    if levels is not None:
        result = denoise_benchmark.levels(
            folder, wanted, loaded, noise=noise or "gaussian", grey=grey, limit=limit, say=say
        )
        click.echo(denoise_benchmark.levels_table(result))
    elif denoise:
        names = list(denoise_benchmark.METHODS) if methods is None else methods.split(",")
        result = denoise_benchmark.compare(
            folder, wanted, loaded, names, noise=noise or "gaussian", grey=grey, limit=limit, say=say, keep=keep
        )
        click.echo(denoise_benchmark.table(result))
        if plot:
            denoise_benchmark.plot(result, plot)
    else:
        result = benchmark.compression(folder, codecs.split(","), loaded, limit, rates, say)
        if published:
            result["published"] = benchmark.published(published, result)
        click.echo(benchmark.compression_table(result))
        if plot:
            benchmark.plot(result, plot)
    keep(result)
