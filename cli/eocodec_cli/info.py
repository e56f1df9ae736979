"""`eocodec info`."""

from typing import Any

import click

from eocodec_cli import files


@click.command("info")
@files.inputs_argument
@files.json_option
def command(inputs: tuple[str, ...], as_json: bool) -> None:
    """Show what .eoc files hold: size, C, step, model, segments and whether the file is whole.

    \b
    Examples:
      eocodec info photo.eoc
      eocodec info --json *.eoc
    """
    from eocodec import format
    from eocodec.bundle import Model, load_model, shipped_models
    from eocodec.codec import latents_after_segments

    known: dict[bytes, Model] = {}
    for name in shipped_models():
        loaded = load_model(name)
        known[loaded.id] = loaded

    def work(job: files.Job) -> dict[str, Any]:
        data = files.read_bytes(job.source)
        file = format.parse(data, salvage=True)
        h = file.header
        kept = latents_after_segments(file)
        ends = format.segment_ends(file)
        return {
            "input": job.source,
            "width": h.width,
            "height": h.height,
            "grey": h.grey,
            "alpha": file.alpha is not None,
            "model": known[h.model].name if h.model in known else None,
            "model_id": h.model.hex(),
            "rate": h.rate / format.RATE_UNIT,
            "step": round(h.delta * 255, 4),
            "bytes": len(data),
            "bpp": round(8 * len(data) / (h.width * h.height), 5),
            "overhead": ends[0]
            + sum(b - a - len(s.payload) for a, b, s in zip(ends, ends[1:], file.segments, strict=False)),
            "segments": [
                {"units": s.units, "end": end, "latents": latents}
                for s, end, latents in zip(file.segments, ends[1:], kept[1:], strict=True)
            ],
            "complete": file.complete,
            "damaged": file.damaged,
        }

    def line(r: dict[str, Any]) -> str:
        kind = ("grey" if r["grey"] else "colour") + (" with transparency" if r["alpha"] else "")
        state = "damaged" if r["damaged"] else "whole" if r["complete"] else "cut inside a segment"
        rows = [
            f"{r['input']}: {r['width']}x{r['height']} {kind}, {r['bytes']} bytes ({r['bpp']:.3f} bpp), {state}",
            f"  model {r['model'] or 'unknown'} ({r['model_id']}), C={r['rate']:g}, step {r['step']:.2f} levels",
        ]
        rows += [f"  to byte {s['end']:>9}: {s['latents']:g} latents a block" for s in r["segments"]]
        return "\n".join(rows)

    files.for_each([files.Job(i, "") for i in inputs], work, line, as_json)
