"""Files that decoders under `samples/` are tried with: of WebP streams inside, and of embedded streams that begin."""

import zlib
from dataclasses import replace

import numpy as np
from paths import VECTORS

from eocodec import format, varint
from eocodec.coding import webp
from eocodec.format import File, Segment

LOSSLESS_UNITS = 37
PACKED_COLOUR, PACKED_GREY = 3, 2
KIND = 3  # of packed samples that are a WebP stream
BEGINNINGS = (*range(14), 16, 20, 25, 32, 40, 50, 64, 80)  # bytes of an embedded stream


def with_webp_alpha() -> bytes:
    """The vector `alpha`, its transparency a WebP stream."""
    file = format.parse((VECTORS / "alpha.eoc").read_bytes())
    height, width = file.header.height, file.header.width
    y, x = np.mgrid[:height, :width]
    return format.serialise(replace(file, alpha=webp.pack((3 * x + y * y).astype(np.uint8))))


def webp_picture(grey: bool) -> bytes:
    """A lossless file of a drawing, packed as a WebP stream; with the model of the vector `lossless`."""
    header = format.parse((VECTORS / "lossless.eoc").read_bytes()).header
    y, x = np.mgrid[:19, :23]
    rgb = np.stack([9 * x, 200 - 7 * y, x * y % 251], 2).astype(np.uint8)
    if grey:
        rgb = np.repeat(rgb[..., :1], 3, 2)
    parameters = zlib.crc32(rgb.tobytes()).to_bytes(4, "little") + bytes([PACKED_GREY if grey else PACKED_COLOUR])
    stream = webp.pack(rgb[..., 0] if grey else rgb)
    head = replace(header, width=23, height=19, grey=grey, webp=True)
    return format.serialise(File(head, None, (Segment(LOSSLESS_UNITS, bytes([KIND]) + stream),), lossless=parameters))


def without_its_flag(data: bytes) -> bytes:
    """A file with a header of 15 bytes and a WebP stream inside, whose flags do not name that."""
    file = format.parse(data)
    plain = replace(file, header=replace(file.header, webp=False))
    if file.alpha is None:
        return format.serialise(plain)
    without = format.serialise(replace(plain, alpha=b""))  # the stream itself would set the flag
    head, element = without[:15], b"\1" + varint.write(len(file.alpha)) + file.alpha
    return head + element + zlib.crc32(head + b"\0" + element).to_bytes(4, "little") + without[15 + 2 + 4 :]


def beginnings(name: str) -> dict[int, bytes]:
    """The first bytes of the stream of an embedded vector, by their number, whose low-pass is cut off or just there."""
    data = (VECTORS / f"{name}.eoc").read_bytes()
    stream = format.parse(data).payload
    start = data.index(stream[:64])
    return {n: data[: start + n] for n in BEGINNINGS}
