"""`eocodec doctor`."""

import dataclasses
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from eocodec.doctor import Diagnosis


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(quick: bool, as_json: bool) -> None:
    """Show versions, providers, cores and models, and what is slow here and why.

    \b
    Examples:
      eocodec doctor
      eocodec doctor --json --quick
    """
    from eocodec.doctor import diagnose

    found = diagnose(measure=not quick)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: "Diagnosis") -> list[str]:
    counted = found.cores
    load = "" if counted["load"] is None else f", load {counted['load']:.1f}"
    lines = [f"{name:16} {version}" for name, version in found.versions.items()]
    lines.append(f"{'providers':16} {', '.join(found.providers)}")
    lines.append(f"{'GPUs':16} {', '.join(found.gpus) or 'none seen'}")
    lines.append(f"{'cores':16} {counted['usable']} usable of {counted['machine']}{load}; {' '.join(found.flags)}")
    for row in found.models:
        state = row.get("error") or f"{row['bytes'] / 1e6:.1f} MB  {row['path']}"
        lines.append(f"{'model':16} {row['name']}  id {row['id']}  {state}")
    if found.speed is not None:
        speed = found.speed
        lines.append(
            f"{'speed':16} {speed['megapixels']:.2f} megapixels compressed in {speed['compress_seconds']:.2f} s, "
            f"decompressed in {speed['decompress_seconds']:.2f} s"
        )
    if not found.findings:
        lines.append("nothing is wrong")
    for finding in found.findings:
        lines += [f"! {finding.what}", f"  {finding.remedy}"]
    return lines
