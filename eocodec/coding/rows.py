"""Planes of bytes, packed without loss: each row minus the row above, then zstd.

In: a plane `(H, W)` uint8. Out: bytes, and back. Transparency and maps of steps are kept so.
"""

import numpy as np
import zstandard

from eocodec.errors import FormatError
from eocodec.image import Bytes

__all__ = ["pack", "unpack"]

EFFORT = 19  # zstd's level …
LARGE, LARGE_EFFORT = 1 << 24, 9  # … and that of planes with more samples than this
MAX_WINDOW = 1 << 27


def pack(plane: Bytes) -> bytes:
    """The packed plane."""
    difference = plane.copy()
    difference[1:] -= plane[:-1]
    level = EFFORT if plane.size <= LARGE else LARGE_EFFORT
    return zstandard.ZstdCompressor(level=level, write_content_size=False).compress(difference.tobytes())


def unpack(data: bytes, width: int, height: int, what: str) -> Bytes:
    """Inverse of :func:`pack`; `what` names the plane in messages.

    Raises:
        FormatError: not `width * height` bytes of zstd data.
    """
    size = width * height
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(data)
        raw = reader.read(size + 1)
    except (zstandard.ZstdError, MemoryError) as e:
        raise FormatError(f"the file is damaged: its {what} cannot be decoded") from e
    if len(raw) != size:
        raise FormatError(f"the file is damaged: its {what} has the wrong size")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width)
    return np.add.accumulate(rows, axis=0, dtype=np.uint8)
