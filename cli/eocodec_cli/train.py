"""`eocodec train`."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec.errors import EocodecError
from eocodec.files import own_folder

if TYPE_CHECKING:
    from eocodec.flow.training import Run, TrainingConfig

REPORT_EVERY = 100  # iterations between lines when there is no terminal
DRY_ITERATIONS = 3  # of every stage
SHOWN = ("loss", "bits_per_dim", "bits_per_pixel", "total_correlation", "lagrangian")


@click.command("train")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", help="Folder of pictures or of .tar shards, a .tar, or a pattern: 'shards-{000..011}.tar'.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run's checkpoint; the curve goes on as if uninterrupted.")
@click.option("--start", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Start from these weights.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--dry-run", is_flag=True, help="Try a few iterations of every stage; write nothing.")
@click.option("--benchmark-loader", is_flag=True, help="Only measure how fast the pictures come.")
def command(
    config: Path,
    data: str | None,
    out: Path | None,
    resume: bool,
    start: Path | None,
    device: str,
    dry_run: bool,
    benchmark_loader: bool,
) -> None:
    """Train a model from a TOML configuration (needs the extra `train`).

    Shows loss, bits and total correlation; writes checkpoint.pt, log.jsonl, TensorBoard events and validation
    pictures to the run's folder. Started by torchrun, several processes share every batch.

    \b
    Examples:
      eocodec train eocodec/models/photo.toml --data photos/ --out runs/photo --dry-run
      eocodec train eocodec/models/photo.toml --data photos/ --out runs/photo
      eocodec train eocodec/models/photo.toml --data photos/ --out runs/photo --resume
      torchrun --nproc-per-node 8 -m -- eocodec_cli train photo.toml --data 'shards-{000..011}.tar' --out runs/photo
    """
    try:
        from eocodec.flow.distributed import join
        from eocodec.flow.training import Run, load_config
    except ImportError as e:
        raise EocodecError(
            f"training needs {e.name or 'torch'}; install it with: pip install 'eocodec[train]'"
        ) from None

    if resume and start is not None:
        raise click.UsageError("--resume goes on with a run as it is; --start begins a new one: give one of them")
    loaded = load_config(config, data, out)
    begun = os.path.exists(loaded.out / "checkpoint.pt")  # False where the path cannot be looked at
    if resume and not begun:
        raise EocodecError(f"{loaded.out} holds no checkpoint to go on from; leave --resume out to begin")
    if benchmark_loader:
        _benchmark(loaded)
        return
    if not (resume or dry_run) and begun:
        raise EocodecError(f"{loaded.out} holds a checkpoint already; use --resume to continue it, or another --out")
    with join(device) as (ranks, place), _own(loaded.out) if ranks.main and not dry_run else nullcontext():
        run = Run(loaded, place, resume, start, ranks, report=lambda message: click.echo(message, err=True))
        if ranks.main:
            click.echo(run.describe(), err=True)
        if dry_run:
            _try(run)
        else:
            _train(run)


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Make the run's folder, see that it can be written to before pictures are read, and keep other runs out of it.

    It is removed again where the run leaves nothing in it.

    Raises:
        EocodecError: it cannot, or another run is at work there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(own_folder(out))
        except BlockingIOError:
            raise EocodecError(f"{out}: another training is at work there") from None
        except OSError as e:
            raise EocodecError(f"{out}: cannot be written to ({e.strerror})") from None
        yield


def _train(run: "Run") -> None:
    if run.ranks.main and run.iteration >= run.total:
        done = f"iteration {run.iteration} is reached, and the stages have {run.total} together"
        click.echo(f"nothing is left to do: {done}", err=True)
    recent: dict[str, float] = {}
    main, terminal = run.ranks.main, sys.stderr.isatty()
    speed = ""
    bar: Any
    with click.progressbar(
        length=run.total,
        file=sys.stderr,
        hidden=not (main and terminal),
        item_show_func=lambda _: "  ".join([*(f"{k} {v:.4g}" for k, v in recent.items()), speed]),
    ) as bar:
        bar.update(run.iteration)
        for record in run:
            if not main:
                continue
            iteration = int(record["iteration"])
            for k in SHOWN:
                if k in record:
                    recent[k] = 0.98 * recent[k] + 0.02 * record[k] if k in recent else record[k]
            if iteration % REPORT_EVERY == 0 or not speed:
                speed = _speed(run)
            bar.update(1)
            if not terminal and iteration % REPORT_EVERY == 0:
                figures = "  ".join(f"{k} {v:.4g}" for k, v in recent.items())
                click.echo(f"{iteration}/{run.total}  {figures}  {speed}", err=True)
            if run.held_out and (iteration % run.config.validate_every == 0 or iteration == run.total):
                for step, (bpp, psnr) in run.validate()["points"].items():
                    click.echo(f"validation {iteration}: step {step}  {bpp:.4f} bpp (estimated)  {psnr:.3f} dB")
    if main:
        click.echo(f"checkpoint: {run.checkpoint}")


def _speed(run: "Run") -> str:
    figures = run.speed()
    return (
        f"{figures['pictures_per_second']:.4g} pictures/s (loader {figures['loader_pictures_per_second']:.4g}/s, "
        f"waiting {figures['waiting']:.0%})"
    )


def _try(run: "Run") -> None:
    """A few iterations of every stage and one validation picture, without writing."""
    start = 0
    for number, stage in enumerate(run.config.stages, 1):
        run.iteration = start
        began = time.perf_counter()
        for k in range(DRY_ITERATIONS):
            record = run.advance()
            if k == 0:  # memory is allocated and kernels are chosen or compiled
                began = time.perf_counter()
        seconds = (time.perf_counter() - began) / (DRY_ITERATIONS - 1)
        figures = "  ".join(f"{k} {record[k]:.4g}" for k in SHOWN if k in record)
        if run.ranks.main:
            click.echo(
                f"stage {number}, {stage.objective}: {figures}  {seconds:.3g} s an iteration, "
                f"{stage.iterations * seconds / 3600:.2g} h for {stage.iterations}"
            )
        start += stage.iterations
    if run.ranks.main:
        if run.held_out:
            run.validate(limit=1, write=False)
        click.echo("dry run finished; nothing was written")


def _benchmark(config: "TrainingConfig") -> None:
    """Pictures a second of reading and of the stream alone."""
    from eocodec.flow.streams import throughput
    from eocodec.flow.training import open_pictures

    began = time.perf_counter()
    stream, _ = open_pictures(config)
    click.echo(f"reading and decoding all pictures: {time.perf_counter() - began:.2f} s")
    pictures, megapixels = throughput(stream, config.batch)
    click.echo(f"loader: {pictures:.0f} pictures/s, {megapixels:.1f} megapixels/s in batches of {config.batch}")
