"""`eocodec batch`."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from eocodec_cli import compress, files
from eocodec_cli.shown import printable

if TYPE_CHECKING:
    from eocodec import batch


@click.command("batch")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@compress.rate_option
@compress.bpp_option
@compress.psnr_option
@compress.denoise_option
@compress.lossless_option
@compress.progressive_option
@compress.effort_option
@files.model_option
@files.device_option
@click.option("--max-pixels", type=click.IntRange(min=1), help="Larger pictures fail.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes, one thread each; default: one per core.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes on this machine, or a Ray cluster.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    default="auto",
    metavar="HOST:PORT",
    help="Ray cluster; default: RAY_ADDRESS, or the one that this machine belongs to.",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Overwrite existing files, and make again what was made with other settings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file, then one with the totals.")
@compress.no_measure_option
def command(
    source: str,
    target: str,
    rate: float | None,
    bpp: float | None,
    psnr: float | None,
    denoise: float | str | None,
    lossless: bool,
    progressive: bool,
    effort: int,
    model: str | None,
    device: str,
    max_pixels: int | None,
    workers: int | None,
    engine: str,
    ray_address: str,
    retry_failed: bool,
    force: bool,
    as_json: bool,
    no_measure: bool,
) -> None:
    """Compress a corpus, on all cores or a cluster; a run that was killed goes on where it was.

    SRC is a folder, searched for pictures with all folders in it, a quoted glob, or an fsspec URL such as s3://bucket/x;
    DST is a folder or URL. NAME becomes NAME.eoc, such as a/b.png a/b.png.eoc, and DST/manifest.parquet gets a row for
    each. What is done already is left alone; files in DST that are not in the manifest are not replaced. Needs pip
    install 'eocodec[batch]', --engine ray 'eocodec[ray]'.

    \b
    Examples:
      eocodec batch photos/ small/ --rate 48
      eocodec batch 'photos/2026-*/*.jpg' small/ --bpp 0.5 --workers 8
      eocodec batch photos/ small/ --bpp 0.5 --retry-failed
      eocodec batch s3://scans/raw s3://scans/exact --lossless --no-measure --json > log.jsonl
      eocodec batch s3://scans/raw s3://scans/small --psnr 38 --engine ray --ray-address 10.0.0.1:6379
    """
    from eocodec import batch
    from eocodec.cores import cores

    if sum(t is not None for t in (rate, bpp, psnr)) > 1:
        raise click.UsageError("give only one of --rate, --bpp and --psnr")
    if lossless and (progressive or denoise is not None or any(t is not None for t in (rate, bpp, psnr))):
        raise click.UsageError("--lossless excludes --rate, --bpp, --psnr, --progressive and --denoise")
    compress.check_effort(effort, lossless, progressive)
    if engine == "ray" and workers is not None:
        raise click.UsageError("--workers goes with --engine local; the cluster has as many as it has CPUs")
    if engine == "ray" and device == "cuda":
        raise click.UsageError("--device cuda goes with --engine local; on a cluster the CPUs work")
    device = "cpu" if engine == "ray" else device
    settings = batch.Settings(
        rate, bpp, psnr, lossless, progressive, denoise, model or "photo", device, not no_measure, max_pixels, effort
    )
    if engine == "ray":
        from eocodec.batch.ray import cluster

        work_at = cluster(ray_address)
    else:
        work_at = batch.local(workers or cores())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: what is done is kept
    start, out = time.monotonic(), sys.stdout
    with (
        contextlib.redirect_stdout(sys.stderr),  # Ray prints what happens on its machines
        batch.Batch(source, target, settings, force=force, retry_failed=retry_failed) as run,
    ):
        for row in _progress(run.run(work_at), len(run.refused) + len(run.pending)):
            if as_json:
                click.echo(json.dumps(asdict(row)), file=out)
        totals = run.totals
    seconds = time.monotonic() - start
    if as_json:
        summary = {
            "files": totals.files,
            "done": totals.done,
            "before": totals.before,
            "failed": totals.failed,
            "bytes_in": totals.bytes_in,
            "bytes_out": totals.bytes_out,
            "bpp": None if totals.bpp is None else round(totals.bpp, 5),
            "psnr": None if totals.psnr is None else round(totals.psnr, 3),
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps({"totals": summary}))
    else:
        click.echo(f"{source} -> {target}  {_line(totals)}  {seconds:.1f} s")
    for name, error in totals.errors:
        click.echo(printable(f"eocodec: {name}: {error}"), err=True)
    if totals.failed > len(totals.errors):
        more = totals.failed - len(totals.errors)
        click.echo(f"eocodec: {more} more failed; {target.rstrip('/')}/{batch.MANIFEST} has their errors", err=True)
    if totals.failed:
        raise click.exceptions.Exit(1)


def _line(totals: "batch.Totals") -> str:
    before = f" ({totals.before} before)" if totals.before else ""
    failed = f", {totals.failed} failed (--retry-failed tries again)" if totals.failed else ""
    sizes = f"{totals.bytes_in} -> {totals.bytes_out} bytes"
    means = "" if totals.bpp is None else f"  mean {totals.bpp:.3f} bpp"
    means += "" if totals.psnr is None else f"  {totals.psnr:.2f} dB"
    return f"{totals.files} files: {totals.done} done{before}{failed}  {sizes}{means}"


def _progress(rows: "Iterator[batch.Row]", count: int) -> "Iterator[batch.Row]":
    """The rows, with a progress bar on a terminal."""
    if count < 2 or not sys.stderr.isatty():
        yield from rows
        return
    with click.progressbar(
        rows, count, file=sys.stderr, item_show_func=lambda r: printable(r.source) if r else ""
    ) as bar:
        yield from bar
