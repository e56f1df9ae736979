"""`eocodec train`."""

import sys
from pathlib import Path
from typing import Any

import click

from eocodec.errors import EocodecError

REPORT_EVERY = 100  # iterations between lines when there is no terminal


@click.command("train")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run's checkpoint; the curve goes on as if uninterrupted.")
@click.option("--start", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Start from these weights.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def command(config: Path, data: Path | None, out: Path | None, resume: bool, start: Path | None, device: str) -> None:
    """Train a model from a TOML configuration (needs the extra `train`).

    Shows loss, bits and total correlation; writes checkpoint.pt, log.jsonl, TensorBoard events and validation
    pictures to the run's folder.

    \b
    Examples:
      eocodec train eocodec/models/photo.toml --data photos/ --out runs/photo
      eocodec train eocodec/models/photo.toml --data photos/ --out runs/photo --resume
    """
    try:
        from eocodec.flow.training import Run, load_config, pick_device
    except ImportError as e:
        raise EocodecError(
            f"training needs {e.name or 'torch'}; install it with: pip install 'eocodec[train]'"
        ) from None

    loaded = load_config(config, data, out)
    if not resume and (loaded.out / "checkpoint.pt").exists():
        raise EocodecError(f"{loaded.out} holds a checkpoint already; use --resume to continue it, or another --out")
    run = Run(loaded, pick_device(device), resume=resume, start=start)
    recent: dict[str, float] = {}
    terminal = sys.stderr.isatty()
    bar: Any
    with click.progressbar(
        length=run.total,
        file=sys.stderr,
        hidden=not terminal,
        item_show_func=lambda _: "  ".join(f"{k} {v:.4g}" for k, v in recent.items()),
    ) as bar:
        bar.update(run.iteration)
        for record in run:
            for k, v in record.items():
                if k in ("loss", "bits_per_dim", "bits_per_pixel", "total_correlation", "lagrangian"):
                    recent[k] = 0.98 * recent[k] + 0.02 * v if k in recent else v
            bar.update(1)
            iteration = int(record["iteration"])
            if not terminal and iteration % REPORT_EVERY == 0:
                figures = "  ".join(f"{k} {v:.4g}" for k, v in recent.items())
                click.echo(f"{iteration}/{run.total}  {figures}", err=True)
            if iteration % loaded.validate_every == 0 or iteration == run.total:
                for step, (bpp, psnr) in run.validate()["points"].items():
                    click.echo(f"validation {iteration}: step {step}  {bpp:.4f} bpp (estimated)  {psnr:.3f} dB")
    click.echo(f"checkpoint: {run.checkpoint}")
