"""`eocodec info`."""

from typing import Any

import click

from eocodec_cli import files
from eocodec_cli.work import for_each


@click.command("info")
@files.inputs_argument
@files.model_option
@files.json_option
def command(inputs: tuple[str, ...], model: str | None, as_json: bool) -> None:
    """Show what .eoc and tiny files hold: size, C, step, model, segments and whether the file is whole.

    \b
    Examples:
      eocodec info photo.eoc
      eocodec info --json *.eoc
    """
    from eocodec.coding.describe import describe
    from eocodec.format import tiny_from_text

    library = None  # the shipped models need not be loaded to be named
    if model:
        from eocodec.model.library import Library

        library = Library((model,))

    def work(job: files.Job) -> dict[str, Any]:
        return {"input": job.source, **describe(tiny_from_text(files.read_bytes(job.source)), library)}

    def line(r: dict[str, Any]) -> str:
        if r.get("tiny"):
            return (
                f"{r['input']}: tiny file, {r['width']}x{r['height']} {'grey' if r['grey'] else 'colour'}, "
                f"{r['bytes']} bytes\n  model {r['model']}, C={r['rate']:g}, step {r['step']:.2f} levels"
            )
        depth = " of 16 bits" if r["depth"] > 8 else ""
        depth += f" from {r['range'][0]} to {r['range'][1]}" if r["range"] else ""
        kind = ("grey" if r["grey"] else "colour") + depth + (" with transparency" if r["alpha"] else "")
        more = f" and {r['trailing']} behind its end" if r["trailing"] else ""
        size = f"{r['bytes'] - r['trailing']} bytes{more} ({r['bpp']:.3f} bpp)"
        if r.get("progressive"):
            state = "damaged" if r["damaged"] else "with its last checksum" if r["complete"] else "cut off somewhere"
            rate = "" if r["rate"] is None else f", as good as C={r['rate']:g}"
            return (
                f"{r['input']}: {r['width']}x{r['height']} {kind}, {size}, {state}\n"
                f"  model {r['model'] or 'unknown'} ({r['model_id']}), embedded stream{rate}"
            )
        cut = "cut inside a segment, or followed by other data"
        state = "damaged" if r["damaged"] else "whole" if r["complete"] else cut
        if r.get("page") and not r["complete"] and not r["damaged"]:
            state = "photographs are missing"
        if r["lossless"]:
            state = "lossless" if r["complete"] else f"lossless before it was {'damaged' if r['damaged'] else 'cut'}"
        rows = [
            f"{r['input']}: {r['width']}x{r['height']} {kind}, {size}, {state}",
            f"  model {r['model'] or 'unknown'} ({r['model_id']}), C={r['rate']:g}, step {r['step']:.2f} levels",
        ]
        if r["blank"] and not r.get("page"):
            rows.append("  no latents: a picture of one colour")
        if r.get("page"):
            rows.append(f"  {r['layer']:>9} bytes: all but the photographs, exact")
            rows += [f"  {p['bytes']:>9} bytes: {_photograph(p)}" for p in r["regions"]]
        else:
            rows += [f"  to byte {s['end']:>9}: {s['latents']:g} latents a block" for s in r["segments"]]
        return "\n".join(rows)

    for_each([files.Job(i, "") for i in inputs], work, line, as_json)


def _photograph(p: dict[str, Any]) -> str:
    """What is to be said of a photograph on a page."""
    size = f"a photograph of {p['width']}x{p['height']} at ({p['x']}, {p['y']})"
    if not p["bytes"]:
        return f"{size}, which is missing"
    kept = f"{p['latents']:g} latents a block" if p["latents"] else "no latents: one colour"
    return f"{size}, step {p['step']:.2f} levels, {kept}"
