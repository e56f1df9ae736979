"""`eocodec truncate`."""

from typing import Any

import click

from eocodec_cli import files
from eocodec_cli.work import for_each


@click.command("truncate")
@files.inputs_argument
@files.output_option
@click.option("--rate", type=float, metavar="C", help="Keep the first C latents of every block.")
@click.option("--bytes", "max_bytes", type=int, metavar="N", help="Keep what fits into N bytes.")
@files.force_option
@files.json_option
def command(
    inputs: tuple[str, ...], output: str | None, rate: float | None, max_bytes: int | None, force: bool, as_json: bool
) -> None:
    """Cut .eoc files to a lower rate; nothing is coded again.

    Progressive files are cut to the byte, others between segments, which needs no model. Writes NAME.cut.eoc beside the
    input unless -o is given.

    \b
    Examples:
      eocodec truncate --bytes 10000 photo.eoc -o small.eoc
      eocodec truncate --rate 48 photo.eoc
    """
    from eocodec.codec import truncate

    if (rate is None) == (max_bytes is None):
        raise click.UsageError("give either --rate or --bytes")
    jobs = files.plan(inputs, output, ".cut.eoc", force)

    files.make_folders(jobs)

    def work(job: files.Job) -> dict[str, Any]:
        data = files.read_bytes(job.source)
        cut = truncate(data, rate=rate, max_bytes=max_bytes)
        files.write_bytes(job.target, cut)
        return {"input": job.source, "output": job.target, "bytes_before": len(data), "bytes": len(cut)}

    def line(r: dict[str, Any]) -> str:
        return f"{r['input']} -> {r['output']}  {r['bytes_before']} -> {r['bytes']} bytes"

    for_each(jobs, work, line, as_json)
