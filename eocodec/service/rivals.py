"""Other codecs at equal bytes, to look at beside a file of eocodec's.

In: a picture and a number of bytes. Out: the largest file of another codec that has no more, with how close it comes.
JPEG XL needs the package `pillow-jxl-plugin`, SSIMULACRA2 the package `ssimulacra2`; without them they are left out.
"""

import importlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eocodec.errors import EocodecError, counted
from eocodec.image import Bytes

__all__ = ["RIVALS", "Rival", "rival", "rivals", "ssimulacra2"]

RIVALS = {"avif": "AVIF", "webp": "WEBP", "jpeg": "JPEG", "jxl": "JXL"}  # Pillow's names
MORE: dict[str, dict[str, object]] = {
    "AVIF": {"speed": 7},
    "WEBP": {"method": 4},
    "JPEG": {"optimize": True, "progressive": True},
    "JXL": {"effort": 4},
}


def rivals() -> list[str]:
    """The codecs that there are."""
    try:
        importlib.import_module("pillow_jxl")
        return list(RIVALS)
    except ImportError:
        return [name for name in RIVALS if name != "jxl"]


@dataclass(frozen=True)
class Rival:
    """A file of another codec, what it decodes to, and the quality that its encoder was given."""

    data: bytes
    rgb: Bytes
    quality: int


def rival(rgb: Bytes, codec: str, size: int) -> Rival:
    """The best file of a codec that has at most `size` bytes, by halving its scale of qualities.

    Arguments:
        rgb: `(H, W, 3)`.
        codec: one of :func:`rivals`.
        size: bytes.

    Raises:
        EocodecError: there is no such codec here, or its smallest file is larger.
    """
    if codec not in rivals():
        raise EocodecError(f"no codec is called {codec[:20]} here; there are: {', '.join(rivals())}")
    image = Image.fromarray(rgb)
    best: tuple[bytes, int] | None = None
    smallest = 0
    low, high = 1, 100
    while low <= high:
        quality = (low + high) // 2
        data = _encoded(image, RIVALS[codec], quality)
        smallest = len(data)
        if len(data) <= size:
            best, low = (data, quality), quality + 1
        else:
            high = quality - 1
    if best is None:
        most = counted(size, "byte")
        raise EocodecError(f"{codec} cannot make a file of {most} of this picture; its smallest has {smallest}")
    return Rival(best[0], np.asarray(Image.open(io.BytesIO(best[0])).convert("RGB")), best[1])


def _encoded(image: Image.Image, saver: str, quality: int) -> bytes:
    out = io.BytesIO()
    try:
        image.save(out, saver, quality=quality, **MORE[saver])
    except (OSError, ValueError) as e:
        raise EocodecError(f"{saver} cannot hold this picture ({e})") from None
    return out.getvalue()


def ssimulacra2(reference: Bytes, rgb: Bytes) -> float | None:
    """SSIMULACRA2 of two pictures `(H, W, 3)`; None where it cannot be told: no package, or less than 8 pixels."""
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError:
        return None
    if min(reference.shape[:2]) < 8:
        return None
    return float(compute_ssimulacra2(_png(reference), _png(rgb)))


def _png(rgb: Bytes) -> io.BytesIO:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=0)
    out.seek(0)
    return out
