"""Transparency, which is kept without loss.

In: alpha `(H, W)` uint8. Out: bytes, and back.
"""

from eocodec.coding import rows
from eocodec.image import Bytes

__all__ = ["pack", "unpack"]


def pack(alpha: Bytes) -> bytes:
    """The side segment of a file."""
    return rows.pack(alpha)


def unpack(data: bytes, width: int, height: int) -> Bytes:
    """Inverse of :func:`pack`.

    Raises:
        FormatError: not `width * height` bytes of zstd data.
    """
    return rows.unpack(data, width, height, "transparency")
