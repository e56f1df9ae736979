"""Planes of bytes, packed without loss: each row minus the row above, then zstd.

In: a plane `(H, W)` uint8. Out: bytes, and back. Transparency and maps of steps are kept so.
"""

import numpy as np
import zstandard

from eocodec.coding import frames
from eocodec.image import Bytes

__all__ = ["pack", "unpack"]

EFFORT = 19  # zstd's level …
LARGE, LARGE_EFFORT = 1 << 24, 9  # … and that of planes with more samples than this


def pack(plane: Bytes) -> bytes:
    """The packed plane."""
    difference = plane.copy()
    difference[1:] -= plane[:-1]
    level = EFFORT if plane.size <= LARGE else LARGE_EFFORT
    return zstandard.ZstdCompressor(level=level, write_content_size=False).compress(difference.tobytes())


def unpack(data: bytes, width: int, height: int, what: str) -> Bytes:
    """Inverse of :func:`pack`; `what` names the plane in messages.

    Raises:
        FormatError: not a zstd frame of `width * height` bytes.
    """
    raw = frames.unpack(data, width * height, f"its {what} cannot be decoded")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width)
    return np.add.accumulate(rows, axis=0, dtype=np.uint8)
