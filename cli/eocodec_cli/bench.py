"""`eocodec bench`."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec.errors import EocodecError
from eocodec_cli import files

if TYPE_CHECKING:
    from eocodec.bench.scores import Scorer
    from eocodec.model.bundle import Model

SIGMAS = "15,25,50"
SHEET_RATES = "0.3"
SHEET_MEASURES = ("psnr", "ssimulacra2")
Say = Callable[[str], None]
Tick = Callable[[int, int], None]


def _numbers(option: str, texts: Sequence[str], unit: str = "8-bit levels") -> list[float]:
    """Numbers of comma lists, each once, in the order given."""
    try:
        return list(dict.fromkeys(float(word) for text in texts for word in text.split(",")))
    except ValueError:
        raise click.UsageError(f"{option} takes numbers of {unit}, separated by commas") from None


def _say(message: str) -> None:
    click.echo(message, err=True)


@contextmanager
def _progress() -> Iterator[tuple[Say, Tick]]:
    """What takes lines and what takes progress: on a terminal a bar below the lines."""
    if not sys.stderr.isatty():
        yield _say, lambda done, total: None
        return
    with click.progressbar(length=1, file=sys.stderr) as bar:

        def say(message: str) -> None:
            click.echo(f"\r\033[K{message}", err=True)
            bar.render_progress()

        def tick(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield say, tick


@contextmanager
def _scorer(names: Sequence[str], jobs: int | None, cached: bool) -> "Iterator[Scorer]":
    """Measures the pictures; those that do not work here are left out and said."""
    from eocodec.bench import measures, scores
    from eocodec.cores import cores

    chosen, left_out = measures.choose(names)
    for name, reason in left_out.items():
        _say(f"{name} is left out: {reason}")
    cache = scores.Cache(scores.cache_folder() / "scores.sqlite" if cached else None)
    try:
        with scores.Scorer(chosen, jobs or cores(), cache) as scorer:
            yield scorer
    finally:
        cache.close()


def _outputs(folder: Path, force: bool, **given: Path | None) -> dict[str, str]:
    """Where the result of each option goes that is given; what cannot be written there shows before anything is done.

    Raises:
        EocodecError: it must not, or cannot, be written there.
    """
    targets: dict[str, str] = {}
    for name, path in given.items():
        if path is None:
            continue
        try:
            target = files.plan_one(_pictures_at(folder, path) or [files.PIPE], str(path), force)
        except EocodecError as e:
            raise EocodecError(re.sub(r"(?<= )-o(?= to |$)", f"--{name}", str(e))) from None
        if os.path.realpath(target) in map(os.path.realpath, targets.values()):
            raise EocodecError(f"several results would be written to {target}")
        targets[name] = target
    return targets


def _pictures_at(folder: Path, target: Path) -> list[str]:
    """The pictures of a folder that a target would replace."""
    from eocodec.image import read_picture

    found = []
    for path in folder.iterdir():
        if target.is_file() and path.is_file() and path.samefile(target):
            with suppress(EocodecError):
                read_picture(path)
                found.append(str(path))
    return found


def _compression(
    folder: Path,
    codecs: Sequence[str],
    model: "Model",
    limit: int | None,
    rates: tuple[float, float],
    scorer: "Scorer",
    published: Sequence[Path],
    anchors: Path | None,
) -> dict[str, Any]:
    from eocodec.bench import compression

    with _progress() as (say, tick):
        result = compression.compression(folder, codecs, model, limit, rates, say, scorer, tick, anchors)
    if published:
        result["published"] = compression.published(published, result)
    return result


def _sheet(
    target: str,
    folder: Path,
    codecs: Sequence[str],
    model: "Model",
    rates: Sequence[float],
    limit: int | None,
    scorer: "Scorer",
    force: bool,
) -> None:
    from eocodec.bench import sheets
    from eocodec.writing import encode_picture

    with _progress() as (say, tick):
        image = sheets.look(folder, codecs, model, rates, limit, scorer, say, tick)
    files.write_bytes(target, encode_picture(image, files.picture_suffix(target)), force)
    click.echo(f"{target}  {image.width}x{image.height}", err=target == files.PIPE)


@click.command("bench")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw rate against every measure here; with --denoise, PSNR and SSIM against sigma.",
)
@click.option(
    "--codecs",
    default="eocodec,eocodec-psnr,jpeg,webp,avif,avif-s2-444,jxl",
    show_default=True,
    metavar="NAME,...",
    help="Which codecs to run: eocodec-psnr is eocodec --tune psnr, avif is at speed 6, jxl at effort 7.",
)
@click.option(
    "--measures",
    metavar="NAME,...",
    help="Of psnr, ms_ssim, ssimulacra2, butteraugli; default: all that work here.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Pictures measured at a time; default: one per core.")
@click.option("--no-cache", is_flag=True, help="Measure again what the user's cache folder has.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first pictures.")
@click.option(
    "--range",
    "rates",
    type=(float, float),
    default=(0.15, 1.5),
    show_default=True,
    help="BD-rate range, bpp; SSIMULACRA2's is from score 30 to 80.",
)
@click.option(
    "--published",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Published curve to compare with, JSON as CompressAI keeps it; may be repeated.",
)
@click.option(
    "--anchors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the other codecs from an earlier --json on the same pictures.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead: crops of every codec at equal bytes, side by side, as a picture file.",
)
@click.option("--sheet-bpp", metavar="B,...", help=f"Bits per pixel of the sheet's rows.  [default: {SHEET_RATES}]")
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
@files.force_option
@files.model_option
@files.threads_option
@files.device_option
def command(
    folder: Path,
    json_file: Path | None,
    plot: Path | None,
    codecs: str,
    measures: str | None,
    jobs: int | None,
    no_cache: bool,
    limit: int | None,
    rates: tuple[float, float],
    published: tuple[Path, ...],
    anchors: Path | None,
    sheet: Path | None,
    sheet_bpp: str | None,
    denoise: bool,
    sigmas: tuple[str, ...],
    methods: str | None,
    levels: str | None,
    noise: str | None,
    grey: bool,
    force: bool,
    model: str | None,
    threads: int,
    device: str,
) -> None:
    """Compare with JPEG, WebP, AVIF and JPEG XL on a folder of pictures (needs the extra `bench`).

    Real file sizes in memory; PSNR, MS-SSIM, SSIMULACRA2 and, where butteraugli_main is on the path, Butteraugli
    (3-norm) of 8-bit RGB pictures; seconds; Bjøntegaard rate differences in percent by each measure. Transparency is
    not coded; what it hides is given to no codec and counts in no measure.

    With --denoise: PSNR, SSIM and seconds of eocodec, BM3D (needs the extra `bench-bm3d`), non-local means and
    BayesShrink on the same noisy pictures, and errors of the estimated noise level. --noise poisson is
    signal-dependent with sigma as its mean; jpeg is clipped, rounded and compressed at quality 75.

    Where --json, --plot or --sheet is -, the result goes to standard output and the table to standard error.

    \b
    Examples:
      eocodec bench kodak/ --json out.json --plot rd.png
      eocodec bench kodak/ --codecs eocodec,avif --published vtm.json
      eocodec bench kodak/ --codecs eocodec,eocodec-psnr --anchors out.json
      eocodec bench kodak/ --codecs eocodec,avif,jxl --limit 8 --sheet sheet.png --sheet-bpp 0.15,0.3
      eocodec bench cbsd68/ --denoise --sigma 15,25,50 --json out.json
      eocodec bench cbsd68/ --denoise --methods net,bm3d --noise poisson
      eocodec bench cbsd68/ --levels 0,5,10,20,40
    """
    if sum((denoise, levels is not None, sheet is not None)) > 1:
        raise click.UsageError("--denoise, --levels and --sheet exclude one another")
    if sheet_bpp is not None and sheet is None:
        raise click.UsageError("--sheet-bpp goes with --sheet")
    if sheet is not None and (json_file or plot or published or anchors):
        raise click.UsageError("--json, --plot, --published and --anchors do not go with --sheet")
    if not denoise and (sigmas or methods is not None):
        raise click.UsageError("--sigma and --methods go with --denoise")
    if not denoise and levels is None and (noise or grey):
        raise click.UsageError("--noise and --grey go with --denoise or --levels")
    if (denoise or levels is not None) and (published or anchors):
        name = "--published" if published else "--anchors"
        raise click.UsageError(f"{name} does not go with --denoise or --levels")
    if (denoise or levels is not None) and (measures or jobs):
        raise click.UsageError("--measures and --jobs do not go with --denoise or --levels")
    if levels is not None and plot:
        raise click.UsageError("--plot does not go with --levels")
    wanted = _numbers("--levels", [levels]) if levels is not None else _numbers("--sigma", sigmas or [SIGMAS])
    try:
        from eocodec.bench import compression, plots
        from eocodec.bench.measures import MEASURES
        from eocodec.bench.pictures import read_folder

        if plot:
            import matplotlib  # noqa: F401  (what is missing shows now)
        if denoise or levels is not None:
            from eocodec.bench import denoising
    except ImportError as e:
        raise EocodecError(f"the benchmark needs {e.name}; install it with: pip install 'eocodec[bench]'") from None
    from eocodec.model.library import load_model

    targets = _outputs(folder, force, json=json_file, plot=plot, sheet=sheet)
    piped = files.PIPE in targets.values()
    kind = plots.file_type(targets["plot"]) if plot else ""
    if sheet:
        files.picture_suffix(targets["sheet"])
    loaded = load_model(model or "photo", threads, device=device)

    written = False  # by this command, which may replace what it has written itself

    def keep(result: dict[str, Any]) -> None:
        nonlocal written
        if json_file and targets["json"] != files.PIPE:
            _write_json(result, targets["json"], force or written)
            written = True

    if levels is not None:
        result = denoising.levels(folder, wanted, loaded, noise=noise or "gaussian", grey=grey, limit=limit, say=_say)
        click.echo(denoising.levels_table(result), err=piped)
    elif denoise:
        names = list(denoising.METHODS) if methods is None else methods.split(",")
        result = denoising.compare(
            folder, wanted, loaded, names, noise=noise or "gaussian", grey=grey, limit=limit, say=_say, keep=keep
        )
        click.echo(denoising.table(result), err=piped)
    else:
        read_folder(folder, 1)  # a folder without pictures is all that is said
        default = SHEET_MEASURES if sheet else tuple(MEASURES)
        with _scorer(measures.split(",") if measures else default, jobs, not no_cache) as scorer:
            if sheet:
                at = _numbers("--sheet-bpp", [sheet_bpp or SHEET_RATES], "bits per pixel")
                _sheet(targets["sheet"], folder, codecs.split(","), loaded, at, limit, scorer, force)
                return
            result = _compression(folder, codecs.split(","), loaded, limit, rates, scorer, published, anchors)
        click.echo(compression.compression_table(result), err=piped)
    if json_file:
        _write_json(result, targets["json"], force or written)
    if plot:
        files.write_bytes(targets["plot"], (denoising if denoise else compression).plot(result, kind), force)


def _write_json(result: dict[str, Any], target: str, force: bool) -> None:
    files.write_bytes(target, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode(), force)
