"""Transparency: lossless, by WebP's lossless coder or, where that is smaller, as packed rows.

In: alpha `(H, W)` uint8. Out: bytes, and back.
"""

import numpy as np

from eocodec.coding import rows, webp
from eocodec.image import Bytes

__all__ = ["pack", "unpack"]

WORTH = 64  # bytes that WebP has to save


def pack(alpha: Bytes) -> bytes:
    """The side segment of a file.

    A few bytes do not pay for a stream that not every reader knows (docs/FORMAT.md, flag 128).
    """
    packed = rows.pack(alpha)
    if len(packed) < WORTH or not webp.fits(*alpha.shape):
        return packed
    stream = webp.pack(alpha)
    return stream if len(stream) <= len(packed) - WORTH else packed


def unpack(data: bytes, width: int, height: int) -> Bytes:
    """Inverse of :func:`pack`.

    Raises:
        FormatError: not `width * height` bytes of zstd data, and no WebP stream of that size.
    """
    if data[:1] == bytes([webp.SIGNATURE]):
        return np.ascontiguousarray(webp.unpack(data, height, width)[..., 1])
    return rows.unpack(data, width, height, "transparency")
