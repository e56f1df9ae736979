"""`eocodec truncate`."""

from typing import Any

import click

from eocodec_cli import files, pictures
from eocodec_cli.work import for_each


@click.command("truncate")
@files.inputs_argument
@files.output_option
@click.option("--rate", type=float, metavar="C", help="Progressive files: what compress --rate C gives, up to their C.")
@click.option("--latents", type=float, metavar="K", help="Other files: keep the first K latents of every block.")
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
    that size. Of a page all photographs are cut alike and everything else stays. What is left without any latents is of
    one colour, which is said on standard error, and in "blank" of --json. Writes NAME.cut.eoc beside the input unless
    -o is given.

    \b
    Examples:
      eocodec truncate --bytes 10000 photo.eoc -o small.eoc
      eocodec truncate --rate 48 progressive.eoc
      eocodec truncate --latents 48 photo.eoc
    """
    from eocodec import format
    from eocodec.codec import truncate_file
    from eocodec.errors import EocodecError, FormatError
    from eocodec.model.library import library_of

    if sum(t is not None for t in (rate, latents, max_bytes)) != 1:
        raise click.UsageError("give one of --rate, --latents and --bytes")
    library = library_of(model)
    jobs = files.plan(inputs, output, ".cut.eoc", force)
    files.make_folders(jobs)

    def work(job: files.Job) -> dict[str, Any]:
        data = format.tiny_from_text(files.read_bytes(job.source))
        try:
            cut = truncate_file(data, rate=rate, latents=latents, max_bytes=max_bytes, model=library)
        except FormatError:
            raise
        except EocodecError as e:
            raise EocodecError(_hint(str(e))) from None
        files.write_bytes(job.target, cut.data, force, job.source if keep_times else None)
        return {
            "input": job.source,
            "output": job.target,
            "bytes_before": len(data),
            "bytes": len(cut.data),
            "blank": cut.blank,
            "warnings": [*cut.notes, *pictures.misnamed(job.target)],
        }

    def line(r: dict[str, Any]) -> str:
        return f"{r['input']} -> {r['output']}  {r['bytes_before']} -> {r['bytes']} bytes"

    for_each(jobs, work, line, as_json)


def _hint(message: str) -> str:
    """The library's sentence with the names of options."""
    said = message.replace("choose latents or bytes", "use --latents or --bytes")
    return said.replace("rate or bytes, not latents", "--rate or --bytes, not --latents")
