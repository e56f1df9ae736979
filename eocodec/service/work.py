"""What the service's processes do: bytes and options in, bytes and headers out.

Models are loaded once in every process (:func:`start`). Everything that goes wrong with a picture is an
:class:`EocodecError`.
"""

import functools
import io
import os
import time
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from eocodec.codec import compress_picture, decode_file, open_picture
from eocodec.coding.describe import describe
from eocodec.coding.embedded import Embedded, EmbeddedJob, Mark
from eocodec.coding.embedded_tables import TABLES_FILE as EMBEDDED_TABLES
from eocodec.coding.rate_control import Target
from eocodec.coding.walk import Walk
from eocodec.denoising import denoise_picture
from eocodec.errors import EocodecError, FormatError, LimitError
from eocodec.format import MAGIC, File, from_bytes, is_tiny, parse, parse_tiny, tiny_from_text, to_bytes
from eocodec.image import Picture, read_picture, rounded, to_pillow
from eocodec.lab.paths import editing
from eocodec.levels import white_remarks
from eocodec.memory import keep_memory
from eocodec.metrics import psnr, with_hidden_of
from eocodec.model.bundle import Model
from eocodec.model.library import DEFAULT, Library, load_model
from eocodec.model.manifest import PhotoManifest
from eocodec.remarks import denoise_remarks, file_remarks, remarks, type_remarks
from eocodec.results import Compressed
from eocodec.service import rendering
from eocodec.service.opened import Desk
from eocodec.service.rivals import ssimulacra2
from eocodec.writing import encode_picture

__all__ = [
    "FORMATS",
    "TYPES",
    "Answer",
    "Kept",
    "check_picture",
    "compress",
    "decompress",
    "denoise",
    "info",
    "marks",
    "opened_estimate",
    "opened_file",
    "opened_picture",
    "opened_preview",
    "opened_rival",
    "ready",
    "render",
    "start",
    "store",
]

EOC = "image/x-eoc"
DECODED = "its 16 bits a sample are rounded to 8, which is what this service gives"
STORED_RATE = 300.0  # C of pictures that are stored: smaller ones are prefixes of it
EMBEDDED_PIXELS = 1 << 18  # up to which a picture is stored as an embedded stream: 13 s a megapixel, 1.5 s otherwise
# Pillow's names of what may come in; others (EPS, FITS, …) are rarely wanted and have larger decoders to attack.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "GIF")
TYPES = {  # what may go out, best first
    "image/png": ".png",
    "image/webp": ".webp",
    "image/jpeg": ".jpg",
    "image/avif": ".avif",
    "image/tiff": ".tiff",
    "image/bmp": ".bmp",
    "image/x-portable-pixmap": ".ppm",
}


@dataclass(frozen=True)
class Answer:
    """What goes back: a body, its type, headers (names without the prefix X-Eocodec-), and what is to be said of it."""

    body: bytes
    type: str
    headers: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


_models: dict[str, Model] = {}
_pixels = 0
_desk = Desk(lambda body: _read(body))


def start(models: dict[str, str], threads: int, device: str, pixels: int) -> None:
    """Load the models, by name, and remember the largest picture; called once in every process.

    Sessions for ordinary files of the first model are opened now, so that its first picture, in colour or grey, is as
    quick as any other.
    Buffers are kept while a request is worked at; afterwards they go back, as :mod:`eocodec.workers` sees to.
    """
    global _pixels
    _pixels = pixels
    keep_memory()
    for name, path in models.items():
        _models[name] = load_model(path, threads, device=device)
        _models[name].settle()
    first = next(iter(_models.values()))
    if isinstance(first.any_manifest, PhotoManifest):
        for model in (first, *([first.grey] if first.grey is not None else ())):
            for graph in ("encoder", *Walk.graph_names(model)):
                if f"{graph}.onnx" in model.files:  # a bundle for decoders has no encoder
                    model.runtime.open(graph)


def ready() -> str:
    """Where the transform runs; that it returns shows that a process has started."""
    return next(iter(_models.values())).device


def _model(name: str) -> Model:
    try:
        return _models[name]
    except KeyError:
        raise EocodecError(f"no model is called {name[:40]}; there are: {', '.join(_models)}") from None


def _library(shipped: bool = True) -> Library:
    """The service's models, with the decoders of their earlier releases, and behind them the shipped ones."""
    return Library(_models.values(), shipped=shipped, earlier=shipped or DEFAULT in _models)


def _is_file(body: bytes) -> bool:
    """Whether a body is an `.eoc` or tiny file, or the text of one, and not a picture file."""
    return body.startswith(MAGIC) or is_tiny(tiny_from_text(body))


def _read(body: bytes) -> Picture:
    """The picture of a body that is a picture file, or an `.eoc` file."""
    if not body:
        raise EocodecError("the body is empty; it has to be a picture")
    if _is_file(body):
        decoded = _decode(body)
        return Picture(decoded.rgb, decoded.alpha, decoded.grey)
    return read_picture(io.BytesIO(body), "the file", max_pixels=_pixels, formats=FORMATS)


def _decode(body: bytes, salvage: bool = False) -> Any:
    data, model = _with_model(body, salvage)
    return decode_file(data, model, salvage=salvage, max_pixels=_pixels, depth=8)


def _with_model(body: bytes, salvage: bool = False) -> tuple[bytes, Model]:
    """A file, and the model that decodes it.

    Raises:
        EocodecError: it is none, too large, damaged, or of a model that is not here.
    """
    if not body:
        raise EocodecError("the body is empty; it has to be an .eoc file")
    data = tiny_from_text(body)
    if is_tiny(data):
        model = _library().of(parse_tiny(data))
    else:
        header = parse(data, salvage=salvage).header
        if header.width * header.height > _pixels:
            raise LimitError(f"the file holds {header.width}x{header.height} pixels, more than the limit of {_pixels}")
        found = _library(shipped=False).find(header.model)
        if found is None:
            raise FormatError(f"the file needs model {header.model.hex()}, which this service does not have")
        model = found
    return data, model


def check_picture(body: bytes) -> None:
    """See whether a body is a picture that the service can open; an `.eoc` file is not decoded for it.

    Raises:
        EocodecError: it is none, too large, damaged, cut off, or of a model that is not here.
    """
    if _is_file(body):
        _with_model(body)
    else:
        _read(body)


def _number(value: float) -> str:
    return f"{value:.6g}"


def compress(body: bytes, options: dict[str, Any]) -> Answer:
    """Compress a picture; `options` as :func:`eocodec.codec.compress_picture` takes them."""
    started = time.perf_counter()
    model, picture = _model(options["model"]), _read(body)
    done = compress_picture(picture, **{**options, "depth": _depth(options), "model": model})
    return Answer(done.data, EOC, _numbers(done, model, started), _said(picture, done, len(body), options))


def _depth(options: dict[str, Any]) -> int | None:
    """Bits a sample that a file keeps: 8, or None, as many as the picture has, if it is to be lossless."""
    return None if options["lossless"] else 8


def _said(picture: Picture, done: Compressed, source: int, options: dict[str, Any]) -> tuple[str, ...]:
    """What is to be said of a file; `source` is the size of the body it was made of."""
    exact, limited = options["lossless"], any(options[name] is not None for name in ("bpp", "max_bytes"))
    depth = done.depth if exact else None
    return tuple(remarks(picture, done, source, depth=depth, exact=exact, limited=limited))


def _numbers(done: Compressed, model: Model, started: float) -> dict[str, str]:
    """Headers of a file."""
    headers = {
        "Rate": _number(done.rate),
        "Bpp": _number(done.bits_per_pixel),
        "Bytes": str(len(done.data)),
        "Width": str(done.size[1]),
        "Height": str(done.size[0]),
        "Model": model.name,
        "Seconds": f"{time.perf_counter() - started:.3f}",
    }
    if done.psnr is not None:
        headers["Psnr"] = f"{done.psnr:.3f}"
    if done.sigma is not None:
        headers["Sigma"] = f"{done.sigma:.2f}"
    return headers


def decompress(body: bytes, kind: str, salvage: bool) -> Answer:
    """Decode a file to a picture of a type in :data:`TYPES`."""
    decoded = _decode(body, salvage)
    image = to_pillow(decoded.rgb, decoded.alpha, decoded.grey)
    state = "damaged" if decoded.damaged else "complete" if decoded.complete else "prefix"
    headers = {"Width": str(image.width), "Height": str(image.height), "State": state}
    data = tiny_from_text(body)
    file = from_bytes(data, salvage)
    notes = file_remarks(file)
    if isinstance(file, File) and file.header.deep:
        notes += [DECODED, *white_remarks(decoded.white, file.header.span)]
    notes += type_remarks(TYPES[kind], alpha=decoded.alpha is not None)
    return Answer(encode_picture(image, TYPES[kind]), kind, headers, tuple(notes))


def denoise(body: bytes, kind: str, options: dict[str, Any]) -> Answer:
    """Remove noise; `options` as :func:`eocodec.denoising.denoise_picture` takes them."""
    started = time.perf_counter()
    picture = _read(body)
    done = denoise_picture(picture, **{**options, "model": _model(options["model"])})
    image = to_pillow(done.rgb, picture.alpha, picture.grey)
    headers = {
        "Method": done.method,
        "Width": str(image.width),
        "Height": str(image.height),
        "Seconds": f"{time.perf_counter() - started:.3f}",
    }
    if done.sigma is not None:
        headers["Sigma"] = f"{done.sigma:.2f}"
    estimated = options["sigma"] == "auto" and options["rate"] is None and options["strength"] > 0
    notes = denoise_remarks(picture, done.removed, TYPES[kind], 8, estimated=estimated)
    return Answer(encode_picture(image, TYPES[kind]), kind, headers, tuple(notes))


@functools.cache
def _paths(model: Model) -> editing.Paths | None:
    return editing.shipped_paths(model)


def edit(faces: list[bytes], kind: str, options: dict[str, Any]) -> Answer:
    """Change a face along paths, and on towards a second one.

    Arguments:
        faces: one or two files of a model that has paths, or pictures of its size.
        kind: of picture, in :data:`TYPES`.
        options: `amounts` by path, `share` of the second face, and whether the result is to be a file.
    """
    started = time.perf_counter()
    pictures = [_read(face) for face in faces]
    if options["share"] and len(pictures) < 2:
        raise EocodecError("a share needs a second face: send both in a form")
    if any(p.alpha is not None for p in pictures):
        raise EocodecError("the face has transparency, which paths do not know")
    height, width = pictures[0].rgb.shape[:2]
    model = next((m for m in _models.values() if m.size == f"{width}x{height}" and _paths(m)), None)
    if model is None:
        raise EocodecError("this service has no paths for pictures of this size")
    paths, whole = _paths(model), True
    assert paths is not None
    for face in filter(_is_file, faces):
        data, made = _with_model(face)
        whole = whole and (is_tiny(data) or parse(data).complete)
        if made is not model:
            raise EocodecError(f"the file was made with {made.name}, not with {model.name}")
    result = editing.edit(pictures[0].rgb, options["amounts"], paths, model)
    if options["share"]:
        (result,) = editing.blend(result, pictures[1].rgb, [options["share"]], model)
    headers = {
        "Width": str(width),
        "Height": str(height),
        "Model": model.name,
        "State": "complete" if whole else "prefix",
        "Seconds": f"{time.perf_counter() - started:.3f}",
    }
    notes = tuple(note for p in pictures for note in p.notes)
    if not options["as_file"]:
        return Answer(encode_picture(to_pillow(result, None, False), TYPES[kind]), kind, headers, notes)
    if _is_file(faces[0]):
        data = editing.encoded_anew(result, pictures[0].rgb, tiny_from_text(faces[0]), model)
    else:
        data = compress_picture(Picture(result), model=model).data
    return Answer(data, EOC, {**headers, "Bytes": str(len(data))}, notes)


def info(body: bytes) -> dict[str, Any]:
    """What a file holds."""
    data = tiny_from_text(body)
    if not is_tiny(data):
        header = parse(data, salvage=True).header
        if header.width * header.height > _pixels:  # the rate of an embedded stream takes work that grows with it
            raise LimitError(f"the file holds {header.width}x{header.height} pixels, more than the limit of {_pixels}")
    return describe(data, _library(shipped=False))


@dataclass(frozen=True)
class Kept:
    """A file to keep, where its stream may be cut if that is known, and what is to be said of it."""

    data: bytes
    marks: tuple[Mark, ...] | None = None
    notes: tuple[str, ...] = ()


def store(body: bytes, options: dict[str, Any]) -> Kept:
    """The file to keep: a whole one as it is, a picture compressed with `options`.

    A picture for which `progressive` is None gets an embedded stream if it has at most :data:`EMBEDDED_PIXELS`, the
    exact form instead if that is no larger, and the ordinary form, which takes a tenth of the time, if it has more
    pixels, or steps that differ (`tune`, `focus`).

    Raises:
        EocodecError: neither of them, or a file that is cut off.
    """
    body = tiny_from_text(body)
    if is_tiny(body):
        _library().of(parse_tiny(body))
        return Kept(body)
    if not body.startswith(MAGIC):
        return _stored(body, options)
    file = parse(body)
    if file.header.width * file.header.height > _pixels:
        raise LimitError(f"the file holds more pixels than the limit of {_pixels}")
    if not file.complete:
        raise FormatError("the file is cut off; only whole files are stored")
    return Kept(body[: len(body) - file.trailing], notes=tuple(file_remarks(file)))


def _stored(body: bytes, options: dict[str, Any]) -> Kept:
    """A picture compressed."""
    model, picture = _model(options["model"]), _read(body)
    target = Target(*(options[k] for k in ("rate", "bpp", "max_bytes", "psnr")))
    progressive = options["progressive"]
    if progressive is None:
        other = ("lossless", "tiny", "tune", "focus")  # what embedded streams cannot be or have
        able = EMBEDDED_TABLES in model.files and not any(options.get(name) for name in other)
        progressive = able and picture.pixels <= EMBEDDED_PIXELS
    if not target.given() and not options["lossless"]:
        target = replace(target, rate=min(STORED_RATE, float(model.block)))
    chosen = any(options.get(name) for name in ("tune", "focus"))
    if options["tiny"] or options["resize"] or options["lossless"] or chosen or not progressive:
        given = {
            **options,
            "depth": _depth(options),
            "model": model,
            "progressive": progressive,
            "rate": target.rate,
            "measure": False,
        }
        done = compress_picture(picture, **given)
        return Kept(done.data, notes=_said(picture, done, len(body), options))
    tuned = {name: options[name] for name in ("denoise", "tune", "focus")}
    opened = open_picture(picture, model, progressive=True, **tuned)
    done = opened.compressed(target)
    exact = opened.no_larger_exact(len(done.data), done.rate) if options["progressive"] is None else None
    if exact is not None:
        data = to_bytes(exact.file)
        stored = replace(done, data=data, notes=())
        return Kept(data, notes=_said(picture, stored, len(body), options))
    assert isinstance(opened.job, EmbeddedJob)
    return Kept(done.data, opened.job.stream.marks, _said(picture, done, len(body), options))


def marks(data: bytes) -> tuple[Mark, ...]:
    """Where the stream of a file may be cut, which takes decoding it."""
    file = parse(data)
    return Embedded().marks(_library().of(file), file)


def render(data: bytes, kind: str, options: dict[str, Any], identity: str) -> Answer:
    """A picture for a web page of a stored file, or of a picture file; see :mod:`eocodec.service.rendering`.

    Pages ask for the same one in several sizes: what was decoded is kept for the next, by the content's `identity`.
    """
    picture = _desk.decoded(identity, data)
    image = to_pillow(picture.rgb, picture.alpha, picture.grey)
    notes = (*picture.notes, *type_remarks(TYPES[kind], alpha=picture.alpha is not None))
    return Answer(rendering.render(image, kind, options, _pixels), kind, notes=notes)


def opened_file(path: str, identity: str, options: dict[str, Any]) -> Answer:
    """The file of an open picture, as :func:`compress` makes it."""
    started = time.perf_counter()
    model = _model(options["model"])
    made = _desk.file(path, identity, model, options)
    job = made.opened.job
    size, depth = (job.height, job.width), job.picture.depth
    done = Compressed(
        made.data,
        made.coded.rate,
        made.bits_per_pixel,
        None,
        size,
        made.coded.tries,
        made.opened.sigma,
        depth=depth,
        notes=made.opened.notes_on(made.coded, len(made.data)),
    )
    said = _said(made.source, done, os.path.getsize(path), options)
    return Answer(made.data, EOC, _numbers(done, model, started), said)


def opened_estimate(path: str, identity: str, options: dict[str, Any]) -> dict[str, Any]:
    """About what the file of an open picture at a rate is like: bytes, bpp, psnr, None where that is not known."""
    found = _desk.estimate(identity, _model(options["model"]), options)
    if found is None:
        return {"bytes": None, "psnr": None, "exact": False}
    return {
        "bytes": found.bytes,
        "psnr": None if found.psnr is None else round(found.psnr, 3),
        "exact": found.exact,
    }


def opened_picture(path: str, identity: str, options: dict[str, Any], scores: bool) -> Answer:
    """The picture, PNG, that the file of an open picture decodes to, with its PSNR, and its SSIMULACRA2 if wanted."""
    made = _desk.file(path, identity, _model(options["model"]), options)
    image, reached = made.picture()
    headers = {"Psnr": f"{reached:.3f}"}
    score = _score(made.opened.job.picture.at_depth(8), rounded(made.rgb)) if scores else None
    if score is not None:
        headers["Ssimulacra2"] = f"{score:.2f}"
    return Answer(_shown(image), "image/png", headers)


def _score(picture: Picture, rgb: Any) -> float | None:
    """SSIMULACRA2 of what can be seen, None where it cannot be told."""
    return ssimulacra2(picture.rgb, with_hidden_of(picture.rgb, rgb, picture.alpha))


def opened_rival(path: str, identity: str, codec: str, size: int) -> Answer:
    """What another codec's file of at most so many bytes decodes to, PNG, with its bytes and measures."""
    found, picture = _desk.rival(path, identity, codec, size)
    headers = {
        "Bytes": str(len(found.data)),
        "Quality": str(found.quality),
        "Psnr": f"{psnr(picture.rgb, found.rgb, picture.alpha):.3f}",
    }
    score = _score(picture, found.rgb)
    if score is not None:
        headers["Ssimulacra2"] = f"{score:.2f}"
    return Answer(_shown(to_pillow(found.rgb)), "image/png", headers)


def _shown(image: Image.Image) -> bytes:
    """A PNG file for the screen: the time counts, not the bytes."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def opened_preview(path: str, identity: str, name: str, rate: float, tune: str | None, focus: Any) -> Answer:
    """A coarse preview, PNG, of what the file at C decodes to."""
    return Answer(_shown(_desk.preview(path, identity, _model(name), rate, tune, focus)), "image/png")
