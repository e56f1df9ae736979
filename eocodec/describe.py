"""What a file holds, without its picture: size, C, step, model, segments and whether it is whole.

In: `.eoc` or tiny bytes. Out: a dictionary of plain values, ready for JSON.
"""

from typing import Any

from eocodec import flat, format
from eocodec.bundle import Model, load_model, peek_id, shipped_models
from eocodec.codec import embedded_rate, find_tiny_model, latents_after_segments

__all__ = ["describe"]


def describe(data: bytes, models: "dict[bytes, Model] | None" = None) -> dict[str, Any]:
    """What a file holds.

    Arguments:
        data: an `.eoc` file, a prefix of one, a damaged one, or a tiny file.
        models: by four bytes of their id; default: the shipped ones, loaded when they are needed.

    Returns:
        `width`, `height`, `grey`, `alpha`, `lossless`, `model`, `model_id`, `rate` (C), `bytes`, `bpp`, `overhead`
        (bytes), `segments`, `complete`, `damaged`; `step` (8-bit levels) where there is one; `progressive` or `tiny`.

    Raises:
        FormatError: not an `.eoc` file, or nothing of it can be read.
    """
    if format.is_tiny(data):
        return _tiny(data)
    file = format.parse(data, salvage=True)
    model = _known(file.header.model, models)
    return _embedded(file, len(data), model) if file.header.embedded else _ordinary(file, len(data), model)


def _known(identity: bytes, models: "dict[bytes, Model] | None") -> Model | None:
    if models is not None:
        return models.get(identity)
    names = [name for name, path in shipped_models().items() if peek_id(path)[:4] == identity]
    return load_model(names[0]) if names else None


def _common(file: format.File, size: int, model: Model | None) -> dict[str, Any]:
    h = file.header
    return {
        "width": h.width,
        "height": h.height,
        "grey": h.grey,
        "alpha": file.alpha is not None,
        "lossless": file.lossless is not None,
        "model": None if model is None else model.name,
        "model_id": h.model.hex(),
        "bytes": size,
        "bpp": round(8 * size / (h.width * h.height), 5),
        "complete": file.complete,
        "damaged": file.damaged,
    }


def _ordinary(file: format.File, size: int, model: Model | None) -> dict[str, Any]:
    h = file.header
    if model is not None and model.kind == "flat":  # one segment holds all latents
        kept = [0.0] + [h.rate / format.RATE_UNIT] * len(file.segments)
    else:
        kept = latents_after_segments(file)
    ends = format.segment_ends(file)
    framing = sum(b - a - len(s.payload) for a, b, s in zip(ends, ends[1:], file.segments, strict=False))
    return {
        **_common(file, size, model),
        "rate": h.rate / format.RATE_UNIT,
        "step": round(h.delta * 255, 4),
        "overhead": ends[0] + framing,
        "segments": [
            {"units": s.units, "end": end, "latents": latents}
            for s, end, latents in zip(file.segments, ends[1:], kept[1:], strict=True)
        ],
    }


def _embedded(file: format.File, size: int, model: Model | None) -> dict[str, Any]:
    return {
        **_common(file, size, model),
        "progressive": True,
        "rate": None if model is None else round(embedded_rate(model, file), 2),
        "overhead": size - sum(len(s.payload) for s in file.segments),
        "segments": [],
    }


def _tiny(data: bytes) -> dict[str, Any]:
    file = format.parse_tiny(data)
    model = find_tiny_model(file.number, None)
    size = model.flat.size
    return {
        "tiny": True,
        "width": size,
        "height": size,
        "grey": file.grey,
        "alpha": False,
        "lossless": False,
        "model": model.name,
        "model_id": model.id.hex(),
        "rate": round(flat.rate_of_delta(model.flat, file.delta), 3),
        "step": round(file.delta * 255, 4),
        "bytes": len(data),
        "bpp": round(8 * len(data) / size**2, 5),
        "overhead": len(data) - len(file.payload),
        "complete": True,
        "damaged": False,
    }
