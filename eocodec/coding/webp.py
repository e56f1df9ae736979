"""Lossless WebP inside a file: drawn pictures and transparency, which repeat themselves as photographs do not.

In: samples `(H, W, 3)`, or `(H, W)` of one channel, uint8. Out: a VP8L bitstream without its container, and back. The
coder is libwebp's, by way of Pillow; it copies earlier blocks, and has palettes, a cache of colours and several
predictions.

References:
    *Specification for WebP lossless bitstream*, RFC 9649, section 3. https://www.rfc-editor.org/rfc/rfc9649
"""

import io

import numpy as np
from PIL import Image

from eocodec.errors import FormatError
from eocodec.image import Bytes

__all__ = ["EDGE", "LARGEST", "SIGNATURE", "fits", "pack", "quick_size", "unpack"]

EDGE = 16383  # pixels, of the largest picture
LARGEST = 1 << 26  # pixels, beyond which readers refuse it
SIGNATURE = 0x2F  # the first byte of a stream
CONTAINER = 20  # bytes before a stream in a .webp file
# Limits of the slowest search, which takes 4 s a million pixels and 15 to 150 s a million bytes (most for pictures of
# 256 colours with noise). It has nothing to find where noise takes most of the bits, and saves 5 to 40 % of colour maps
# and smooth drawings.
THOROUGH = 1 << 21  # pixels
THOROUGH_BYTES = 1 << 18
THOROUGH_BITS = 6  # a pixel


def fits(height: int, width: int) -> bool:
    """Whether a picture is small enough."""
    return max(height, width) <= EDGE and height * width <= LARGEST


def pack(samples: Bytes, thorough: bool = True) -> bytes:
    """The stream of samples that :func:`fits`: the shortest of up to three searches, none of which is always the best.

    Arguments:
        samples: of one channel or three.
        thorough: try more than the fast one if there are not too many samples, and the slowest where it may help.
    """
    pixels = samples.shape[0] * samples.shape[1]
    found = _stream(samples, 100, 4)
    if thorough and pixels <= THOROUGH:
        found = min(found, _stream(samples, 100, 5), key=len)
        if len(found) <= min(THOROUGH_BYTES, pixels * THOROUGH_BITS // 8):
            found = min(found, _stream(samples, 100, 6), key=len)
    return found


def quick_size(samples: Bytes) -> int:
    """Bytes of a stream that is found in a fast way."""
    return len(_stream(samples, 50, 2))


def _stream(samples: Bytes, quality: int, method: int) -> bytes:
    colours = samples if samples.ndim == 3 else np.repeat(samples[:, :, None], 3, 2)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(out, "WEBP", lossless=True, quality=quality, method=method)
    file = out.getvalue()
    assert file[12:16] == b"VP8L", "a picture without alpha and metadata is a simple file"
    return file[CONTAINER : CONTAINER + int.from_bytes(file[16:20], "little")]


def unpack(stream: bytes, height: int, width: int) -> Bytes:
    """Inverse of :func:`pack`, `(H, W, 3)`; transparency, which an encoder never writes, is ignored.

    Raises:
        FormatError: not a stream of `height` times `width` pixels.
    """
    damaged = FormatError("the file is damaged: its WebP part cannot be read")
    sides = int.from_bytes(stream[1:5], "little")
    if not fits(height, width) or stream[:1] != bytes([SIGNATURE]):
        raise damaged
    if (sides & 0x3FFF, sides >> 14 & 0x3FFF) != (width - 1, height - 1):
        raise damaged
    even = stream + b"\0" * (len(stream) & 1)
    chunk = b"VP8L" + len(stream).to_bytes(4, "little") + even
    file = b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
    try:
        with Image.open(io.BytesIO(file), formats=["WEBP"]) as image:
            colours = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, MemoryError) as e:
        raise damaged from e
    if colours.shape != (height, width, 3):
        raise damaged
    return colours
