"""What the service's processes do: bytes and options in, bytes and headers out.

Models are loaded once in every process (:func:`start`). Everything that goes wrong with a picture is an
:class:`EocodecError`.
"""

import io
import time
from dataclasses import dataclass, field
from typing import Any

from eocodec.codec import compress_picture, decode_file, truncate
from eocodec.coding.describe import describe
from eocodec.denoising import denoise_picture
from eocodec.errors import EocodecError, FormatError, LimitError
from eocodec.format import MAGIC, is_tiny, parse, parse_tiny, tiny_from_text
from eocodec.image import Picture, encode_picture, read_picture, to_pillow
from eocodec.model.bundle import Model
from eocodec.model.library import Library, load_model

__all__ = ["FORMATS", "TYPES", "Answer", "compress", "cut", "decompress", "denoise", "info", "start", "store"]

EOC = "image/x-eoc"
STORED_RATE = 300.0  # C of pictures that are stored: smaller ones are prefixes of it
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
    """What goes back: a body, its type, and headers (names without the prefix X-Eocodec-)."""

    body: bytes
    type: str
    headers: dict[str, str] = field(default_factory=dict)


_models: dict[str, Model] = {}
_pixels = 0


def start(models: dict[str, str], threads: int, device: str, pixels: int) -> None:
    """Load the models, by name, and remember the largest picture; called once in every process."""
    global _pixels
    _pixels = pixels
    for name, path in models.items():
        _models[name] = load_model(path, threads, device=device)
        _models[name].settle()


def ready() -> str:
    """Where the transform runs; that it returns shows that a process has started."""
    return next(iter(_models.values())).device


def _model(name: str) -> Model:
    try:
        return _models[name]
    except KeyError:
        raise EocodecError(f"no model is called {name[:40]}; there are: {', '.join(_models)}") from None


def _library(shipped: bool = True) -> Library:
    """The service's models, and behind them the shipped ones."""
    return Library(_models.values(), shipped=shipped)


def _read(body: bytes) -> Picture:
    """The picture of a body that is a picture file, or an `.eoc` file."""
    if not body:
        raise EocodecError("the body is empty; it has to be a picture")
    if body.startswith(MAGIC) or is_tiny(body):
        decoded = _decode(body)
        return Picture(decoded.rgb, decoded.alpha, decoded.grey)
    return read_picture(io.BytesIO(body), "the file", max_pixels=_pixels, formats=FORMATS)


def _decode(body: bytes, salvage: bool = False) -> Any:
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
    return decode_file(data, model, salvage=salvage, max_pixels=_pixels, depth=8)


def _number(value: float) -> str:
    return f"{value:.6g}"


def compress(body: bytes, options: dict[str, Any]) -> Answer:
    """Compress a picture; `options` as :func:`eocodec.codec.compress_picture` takes them."""
    started = time.perf_counter()
    model = _model(options["model"])
    done = compress_picture(_read(body), **{"depth": 8, **options, "model": model})
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
    return Answer(done.data, EOC, headers)


def decompress(body: bytes, kind: str, salvage: bool) -> Answer:
    """Decode a file to a picture of a type in :data:`TYPES`."""
    decoded = _decode(body, salvage)
    image = to_pillow(decoded.rgb, decoded.alpha, decoded.grey)
    state = "damaged" if decoded.damaged else "complete" if decoded.complete else "prefix"
    headers = {"Width": str(image.width), "Height": str(image.height), "State": state}
    return Answer(encode_picture(image, TYPES[kind]), kind, headers)


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
    return Answer(encode_picture(image, TYPES[kind]), kind, headers)


def info(body: bytes) -> dict[str, Any]:
    """What a file holds."""
    data = tiny_from_text(body)
    if not is_tiny(data):
        header = parse(data, salvage=True).header
        if header.width * header.height > _pixels:  # the rate of an embedded stream takes work that grows with it
            raise LimitError(f"the file holds {header.width}x{header.height} pixels, more than the limit of {_pixels}")
    return describe(data, _library(shipped=False))


def store(body: bytes, options: dict[str, Any]) -> bytes:
    """The `.eoc` file to keep: a whole one as it is, a picture compressed with `options`.

    Raises:
        EocodecError: neither of them, or a file that is cut off.
    """
    if not body.startswith(MAGIC):
        if all(options[k] is None for k in ("rate", "bpp", "max_bytes", "psnr")) and not options["lossless"]:
            options = {**options, "rate": STORED_RATE}
        return compress(body, options).body
    file = parse(body)
    if file.header.width * file.header.height > _pixels:
        raise LimitError(f"the file holds more pixels than the limit of {_pixels}")
    if not file.complete:
        raise FormatError("the file is cut off; only whole files are stored")
    return body


def cut(data: bytes, rate: float | None, size: int | None) -> bytes:
    """A prefix of a stored file, as :func:`eocodec.codec.truncate` makes it; what is small enough comes as it is."""
    if size is not None and size >= len(data):
        return data
    return truncate(data, rate=rate, max_bytes=size, model=_library())
