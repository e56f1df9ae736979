"""Transparency: lossless, by WebP's lossless coder or, where that is smaller, each row minus the row above, then zstd.

In: alpha `(H, W)` uint8. Out: bytes, and back.
"""

import numpy as np
import zstandard

from eocodec.coding import webp
from eocodec.errors import FormatError
from eocodec.image import Bytes

__all__ = ["pack", "unpack"]

EFFORT = 19  # zstd's level …
LARGE, LARGE_EFFORT = 1 << 24, 9  # … and that of pictures with more samples than this
MAX_WINDOW = 1 << 27
WORTH = 64  # bytes that WebP has to save


def pack(alpha: Bytes) -> bytes:
    """The side segment of a file.

    A few bytes do not pay for a stream that not every reader knows (docs/FORMAT.md, flag 16).
    """
    difference = alpha.copy()
    difference[1:] -= alpha[:-1]
    level = EFFORT if alpha.size <= LARGE else LARGE_EFFORT
    packed = zstandard.ZstdCompressor(level=level, write_content_size=False).compress(difference.tobytes())
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
    size = width * height
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(data)
        raw = reader.read(size + 1)
    except (zstandard.ZstdError, MemoryError) as e:
        raise FormatError("the file is damaged: its transparency cannot be decoded") from e
    if len(raw) != size:
        raise FormatError("the file is damaged: its transparency has the wrong size")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width)
    return np.add.accumulate(rows, axis=0, dtype=np.uint8)
