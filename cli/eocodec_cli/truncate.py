"""`eocodec truncate`."""

from typing import Any

import click

from eocodec_cli import files
from eocodec_cli.work import for_each


@click.command("truncate")
@files.inputs_argument
@files.output_option
@click.option("--rate", type=float, metavar="C", help="Progressive files: what compress --rate C gives.")
@click.option("--latents", type=float, metavar="K", help="Ordinary files: keep the first K latents of every block.")
@click.option("--bytes", "max_bytes", type=int, metavar="N", help="Keep what fits into N bytes.")
@files.model_option
@files.force_option
@files.times_option
@files.json_option
def command(
    inputs: tuple[str, ...],
    output: str | None,
    rate: float | None,
    latents: float | None,
    max_bytes: int | None,
    model: str | None,
    force: bool,
    as_json: bool,
    keep_times: bool,
) -> None:
    """Cut .eoc files to a lower rate; nothing is coded again.

    Progressive files are cut to the byte, others between segments. Only --rate of a progressive file needs its model.
    The latents that are left of an ordinary file keep its fine step: at the same size it is worse than a file made for
    that size. Writes NAME.cut.eoc beside the input unless -o is given.

    \b
    Examples:
      eocodec truncate --bytes 10000 photo.eoc -o small.eoc
      eocodec truncate --rate 48 progressive.eoc
      eocodec truncate --latents 48 photo.eoc
    """
    from eocodec.codec import truncate
    from eocodec.errors import EocodecError
    from eocodec.format import File, from_bytes
    from eocodec.model.library import library_of

    if sum(t is not None for t in (rate, latents, max_bytes)) != 1:
        raise click.UsageError("give one of --rate, --latents and --bytes")
    library = library_of(model)
    jobs = files.plan(inputs, output, ".cut.eoc", force)
    files.make_folders(jobs)

    def work(job: files.Job) -> dict[str, Any]:
        data = files.read_bytes(job.source)
        file = from_bytes(data)
        if isinstance(file, File):
            if rate is not None and not file.header.embedded:
                raise EocodecError(
                    f"what compress --rate {rate:g} gives cannot be cut from an ordinary file, whose step is finer; "
                    "compress the picture again, cut a progressive file, or use --latents or --bytes"
                )
            if latents is not None and file.header.embedded:
                raise EocodecError("a progressive file is cut with --rate or --bytes")
        cut = truncate(data, rate=rate if latents is None else latents, max_bytes=max_bytes, model=library)
        left = from_bytes(cut)
        if latents is not None and isinstance(left, File) and not left.segments:
            raise EocodecError(f"no segment of the file ends within {latents:g} latents; info shows where they end")
        files.write_bytes(job.target, cut, job.source if keep_times else None)
        return {"input": job.source, "output": job.target, "bytes_before": len(data), "bytes": len(cut)}

    def line(r: dict[str, Any]) -> str:
        return f"{r['input']} -> {r['output']}  {r['bytes_before']} -> {r['bytes']} bytes"

    for_each(jobs, work, line, as_json)
