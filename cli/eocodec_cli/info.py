"""`eocodec info`."""

from typing import Any

import click

from eocodec_cli import files


@click.command("info")
@files.inputs_argument
@files.json_option
def command(inputs: tuple[str, ...], as_json: bool) -> None:
    """Show what .eoc and tiny files hold: size, C, step, model, segments and whether the file is whole.

    \b
    Examples:
      eocodec info photo.eoc
      eocodec info --json *.eoc
    """
    from eocodec import format
    from eocodec.bundle import Model, load_model, peek_id, shipped_models
    from eocodec.codec import latents_after_segments

    known: dict[bytes, Model] = {}

    def recognise(identity: bytes) -> None:
        for name, path in shipped_models().items():
            if identity not in known and peek_id(path)[:4] == identity:
                known[identity] = load_model(name)

    def work(job: files.Job) -> dict[str, Any]:
        data = format.tiny_from_text(files.read_bytes(job.source))
        if format.is_tiny(data):
            return _tiny(job.source, data)
        file = format.parse(data, salvage=True)
        h = file.header
        recognise(h.model)
        if h.embedded:
            return _embedded(job.source, file, len(data), known.get(h.model))
        if h.model in known and known[h.model].kind == "flat":  # one segment holds all latents
            kept = [0.0] + [h.rate / format.RATE_UNIT] * len(file.segments)
        else:
            kept = latents_after_segments(file)
        ends = format.segment_ends(file)
        return {
            "input": job.source,
            "width": h.width,
            "height": h.height,
            "grey": h.grey,
            "alpha": file.alpha is not None,
            "lossless": file.lossless is not None,
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
        if r.get("tiny"):
            return (
                f"{r['input']}: tiny file, {r['width']}x{r['height']} {'grey' if r['grey'] else 'colour'}, "
                f"{r['bytes']} bytes\n  model {r['model']}, C={r['rate']:g}, step {r['step']:.2f} levels"
            )
        kind = ("grey" if r["grey"] else "colour") + (" with transparency" if r["alpha"] else "")
        if r.get("progressive"):
            state = "damaged" if r["damaged"] else "with its last checksum" if r["complete"] else "cut off somewhere"
            rate = "" if r["rate"] is None else f", as good as C={r['rate']:g}"
            return (
                f"{r['input']}: {r['width']}x{r['height']} {kind}, {r['bytes']} bytes ({r['bpp']:.3f} bpp), {state}\n"
                f"  model {r['model'] or 'unknown'} ({r['model_id']}), embedded stream{rate}"
            )
        state = "damaged" if r["damaged"] else "whole" if r["complete"] else "cut inside a segment"
        if r["lossless"]:
            state = "lossless" if r["complete"] else f"lossless before it was {'damaged' if r['damaged'] else 'cut'}"
        rows = [
            f"{r['input']}: {r['width']}x{r['height']} {kind}, {r['bytes']} bytes ({r['bpp']:.3f} bpp), {state}",
            f"  model {r['model'] or 'unknown'} ({r['model_id']}), C={r['rate']:g}, step {r['step']:.2f} levels",
        ]
        rows += [f"  to byte {s['end']:>9}: {s['latents']:g} latents a block" for s in r["segments"]]
        return "\n".join(rows)

    files.for_each([files.Job(i, "") for i in inputs], work, line, as_json)


def _embedded(source: str, file: Any, size: int, model: Any) -> dict[str, Any]:
    from eocodec.codec import embedded_rate

    h = file.header
    return {
        "input": source,
        "progressive": True,
        "width": h.width,
        "height": h.height,
        "grey": h.grey,
        "alpha": file.alpha is not None,
        "lossless": False,
        "model": None if model is None else model.name,
        "model_id": h.model.hex(),
        "rate": None if model is None else round(embedded_rate(model, file), 2),
        "bytes": size,
        "bpp": round(8 * size / (h.width * h.height), 5),
        "overhead": size - sum(len(s.payload) for s in file.segments),
        "segments": [],
        "complete": file.complete,
        "damaged": file.damaged,
    }


def _tiny(source: str, data: bytes) -> dict[str, Any]:
    from eocodec import flat, format
    from eocodec.codec import find_tiny_model

    file = format.parse_tiny(data)
    model = find_tiny_model(file.number, None)
    size = model.flat.size
    return {
        "input": source,
        "tiny": True,
        "width": size,
        "height": size,
        "grey": file.grey,
        "alpha": False,
        "model": model.name,
        "model_id": model.id.hex(),
        "rate": round(flat.rate_of_delta(model.flat, file.delta), 3),
        "step": round(file.delta * 255, 4),
        "bytes": len(data),
        "bpp": round(8 * len(data) / size**2, 5),
        "overhead": len(data) - len(file.payload),
    }
