"""What the header of a picture file says, without its pixels.

In: a file. Out: a :class:`Header`, up to the format's own limit of pixels, whatever Pillow's is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from eocodec.settings import pillow_settings

__all__ = ["Header", "read_header"]


@dataclass(frozen=True)
class Header:
    """Pixels, and the quantisation tables of a JPEG file, else none."""

    width: int
    height: int
    tables: tuple[tuple[int, ...], ...] = ()


def read_header(source: str | Path | BinaryIO) -> Header | None:
    """The header of a picture file; nothing is decoded. None: it cannot be read, and `read_picture` says why."""
    try:
        with pillow_settings(False), Image.open(source) as picture:
            tables = getattr(picture, "quantization", None) or {}
            return Header(*picture.size, tuple(tuple(table) for table in tables.values()))
    except Exception:  # Pillow's readers raise many kinds of exception for damaged files
        return None
