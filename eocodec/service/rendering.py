"""Pictures for web pages: decoded, cropped, scaled, and in the type that a browser likes best.

In: a decoded picture and what is wanted of it. Out: bytes of an AVIF, WebP, JPEG or PNG file. The type is chosen
(:func:`kind_for`) among those that can hold the picture, before anything is decoded.
"""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from eocodec.errors import EocodecError, ImageError, LimitError

__all__ = ["KINDS", "finished_size", "kind_for", "render"]

KINDS = {"avif": "image/avif", "webp": "image/webp", "jpeg": "image/jpeg", "png": "image/png"}  # the best first
EDGES = {"image/avif": 65536, "image/webp": 16383, "image/jpeg": 65535, "image/png": (1 << 31) - 1}
LOSSLESS = 100  # quality
AVIF_SPEED = 8  # of 10; a third of the time of the usual 6 for 3 % more bytes

Box = tuple[int, int, int, int]


def kind_for(accept: str, size: tuple[int, int], alpha: bool) -> str:
    """The type that Accept weighs most of those that it names and that can hold a picture; PNG if it names none.

    Arguments:
        accept: the header.
        size: of the finished picture.
        alpha: whether it has transparency.
    """
    named = {kind.lower(): weight for kind, weight in parse_accept_header(accept, MIMEAccept)}
    able = [k for k in KINDS.values() if max(size) <= EDGES[k] and not (alpha and k == "image/jpeg")]
    chosen = max(able, key=lambda k: named.get(k, 0.0))
    return chosen if named.get(chosen, 0.0) > 0 else "image/png"


def _cropped(size: tuple[int, int], crop: Box | None) -> Box:
    """Left, top, right, bottom.

    Raises:
        EocodecError: nothing of the crop lies in the picture.
    """
    if crop is None:
        return 0, 0, *size
    left, top, width, height = crop
    right, bottom = min(size[0], left + width), min(size[1], top + height)
    if left >= right or top >= bottom:
        raise EocodecError(f"crop: lies outside of the picture, which has {size[0]}x{size[1]} pixels")
    return left, top, right, bottom


def _plan(size: tuple[int, int], options: Mapping[str, Any]) -> tuple[Box, tuple[float, float, float, float], Any]:
    """What is cut out first, what of that is scaled, and the size to which."""
    box = _cropped(size, options["crop"])
    width, height = box[2] - box[0], box[3] - box[1]
    wanted_width, wanted_height = options["width"], options["height"]
    part = (0.0, 0.0, float(width), float(height))
    if wanted_width is None and wanted_height is None:
        return box, part, (width, height)
    if options["fit"] == "inside" or wanted_width is None or wanted_height is None:
        scales = [w / n for w, n in ((wanted_width, width), (wanted_height, height)) if w is not None]
        scale = min(1.0, *scales)  # nothing is gained by pixels that are not there
        return box, part, (max(1, round(width * scale)), max(1, round(height * scale)))
    if options["fit"] == "cover":
        scale = max(wanted_width / width, wanted_height / height)
        kept_width, kept_height = wanted_width / scale, wanted_height / scale
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        part = (left, top, min(width, left + kept_width), min(height, top + kept_height))
    return box, part, (wanted_width, wanted_height)


def finished_size(size: tuple[int, int], options: Mapping[str, Any], most: int) -> tuple[int, int]:
    """Width and height of what :func:`render` makes of a picture.

    Arguments:
        size: of the picture.
        options: as of :func:`render`.
        most: pixels that it may have.

    Raises:
        EocodecError: nothing of the crop lies in the picture.
        LimitError: it would have more pixels.
    """
    width, height = _plan(size, options)[2]
    if width * height > most:
        raise LimitError(f"a picture of {width}x{height} pixels is larger than the limit of {most} pixels")
    return width, height


def render(image: Image.Image, kind: str, options: Mapping[str, Any], most: int) -> bytes:
    """A picture file.

    Arguments:
        image: L, LA, RGB or RGBA.
        kind: one of :data:`KINDS`.
        options: crop (left, top, width, height), width, height, fit ("inside", "cover", "fill"), quality.
        most: pixels that it may have.

    Raises:
        EocodecError: nothing of the crop lies in the picture.
        LimitError: it would have more pixels.
        ImageError: the type cannot hold it.
    """
    box, part, size = _plan(image.size, options)
    finished_size(image.size, options, most)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    if size != image.size or part != (0.0, 0.0, *map(float, image.size)):
        image = image.resize(size, Image.Resampling.LANCZOS, box=part, reducing_gap=3.0)
    if max(image.size) > EDGES[kind]:
        raise ImageError(f"pictures of more than {EDGES[kind]} pixels an edge cannot be sent as {kind}")
    quality = options["quality"]
    saver, more = {
        "image/avif": ("AVIF", {"quality": quality, "speed": AVIF_SPEED}),
        "image/webp": ("WEBP", {"lossless": True} if quality == LOSSLESS else {"quality": quality}),
        "image/jpeg": ("JPEG", {"quality": quality, "optimize": True}),
        "image/png": ("PNG", {}),
    }[kind]
    if saver == "JPEG" and image.mode in ("LA", "RGBA"):
        image = image.convert(image.mode[:-1])
    out = io.BytesIO()
    try:
        image.save(out, saver, **more)
    except (OSError, ValueError) as e:
        raise ImageError(f"the picture cannot be written as {kind}: {e}") from e
    return out.getvalue()
