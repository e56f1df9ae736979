"""Files that decoders are tried with: WebP streams and zstd frames inside, and embedded streams that begin."""

import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import zstandard
from paths import VECTORS
from PIL import Image

from eocodec import format, regions, varint
from eocodec.coding import webp
from eocodec.format import File, Header, Segment
from eocodec.regions import Region

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


def with_transparent_layer() -> bytes:
    """A page whose layer has a transparency of its own, which is ignored, with colours under it that are kept."""
    file = format.parse((VECTORS / "small-page.eoc").read_bytes())
    width, height = file.header.width, file.header.height
    y, x = np.mgrid[:height, :width]
    rgba = np.stack([x, 250 - y, x * y % 251, (x - y) % 5 * 60], 2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "WEBP", lossless=True, exact=True)
    content = out.getvalue()
    start = content.index(b"VP8L") + 8
    stream = content[start : start + int.from_bytes(content[start - 4 : start], "little")]
    places, _ = regions.unpack(file.page or b"", width, height)
    return format.serialise(replace(file, page=regions.pack(places, stream)))


ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
FRAMED = {"alpha": "alpha", "small-map": "offsets", "exact-weights-grey": "lossless", "lossless-deep-ranks": "lossless",
          "lossless-deep": "lossless", "deep": "tables", "lossless-packed": "", "lossless-deep-packed": ""}  # fmt: skip
"""Vectors with a zstd frame, and the element that it is in; where none is named, their one segment."""


def _with_frame(name: str, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """A vector whose frame is what `change` makes of it and of what it holds, under checksums that match."""
    file, element = format.parse((VECTORS / f"{name}.eoc").read_bytes()), FRAMED[name]
    before = getattr(file, element) if element else file.segments[0].payload
    levels = name == "lossless-deep-ranks"  # something follows this frame, whose length stands before it
    start = before.index(ZSTD)
    stop = start + int.from_bytes(before[start - 2 : start], "little") if levels else len(before)
    frame = before[start:stop]
    found = change(frame, zstandard.ZstdDecompressor().stream_reader(frame).read())
    head = before[: start - 2] + len(found).to_bytes(2, "little") if levels else before[:start]
    after = head + found + before[stop:]
    if element:
        return format.serialise(replace(file, **{element: after}))
    return format.serialise(replace(file, segments=(replace(file.segments[0], payload=after),)))


def _checked(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(content)


def frames(refused: bool) -> dict[str, tuple[str, bytes]]:
    """Names of vectors and files made of them, in whose zstd frames is what must be refused, or what must be read."""
    compress = zstandard.ZstdCompressor().compress
    wrong = {
        "byte behind": lambda frame, content: frame + b"\0",
        "frame behind": lambda frame, content: frame + compress(b""),
        "two frames": lambda frame, content: compress(content[:9]) + compress(content[9:]),
        "skippable before": lambda frame, content: SKIPPABLE + frame,
        "skippable behind": lambda frame, content: frame + SKIPPABLE,
        "wrong checksum": lambda frame, content: _checked(content)[:-1] + bytes([_checked(content)[-1] ^ 1]),
        "no checksum": lambda frame, content: _checked(content)[:-4],
        "cut off": lambda frame, content: frame[:-1],
        "too long": lambda frame, content: compress(content + b"\0"),
        "nothing": lambda frame, content: b"",
    }
    right = {
        "checksum": lambda frame, content: _checked(content),
        "size": lambda frame, content: compress(content),
    }
    changes = wrong if refused else right
    optional = {("deep", "nothing"), ("lossless-deep", "nothing")}
    cases = [(v, how) for v in FRAMED for how in changes if (v, how) not in optional]
    return {f"{v}, {how}": (v, _with_frame(v, changes[how])) for v, how in cases}


def _page(head: bytes, layer: bytes, *photographs: bytes, units: int = 1) -> bytes:
    """A page with a header that has no sides, whose checksums match, whatever is in it."""
    elements = [varint.write(len(layer)) + layer]
    elements += [varint.write(units) + varint.write(len(p)) + p for p in photographs]
    sums = [zlib.crc32(head + bytes([n]) + e).to_bytes(4, "little") for n, e in enumerate(elements)]
    return head + b"".join(e + s for e, s in zip(elements, sums, strict=True))


def hostile_pages() -> dict[str, tuple[bytes, str]]:
    """Pages under checksums that match which every decoder must refuse, and what those under `samples/` say of them.

    The model is `small.eocm`.
    """
    data = (VECTORS / "small-page-grey.eoc").read_bytes()
    file = format.parse(data)
    width, element = file.header.width, file.page or b""
    head = data[: data.index(varint.write(len(element)) + element)]
    places, layer = regions.unpack(element, width, file.header.height)
    photographs = [s.payload for s in file.segments]
    first, (r, *others) = photographs[0], places
    part = format.parse(first)
    start = len(element) - len(layer)

    def placed(*regions: Region) -> bytes:
        numbers = b"".join(varint.write(n) for r in regions for n in (r.x, r.y, r.width, r.height))
        return bytes([len(regions)]) + numbers + layer

    def flags(value: int) -> bytes:
        return _page(head[:8] + bytes([format.FLAG_GREY | value]) + head[9:], element, *photographs)

    def holding(header: Header, **changes: Any) -> bytes:
        return _page(head, element, format.serialise(replace(part, header=header, **{"segments": (), **changes})))

    bare = Header(part.header.model, r.width, r.height, 0, 0, grey=True)
    unread, outside = "the places of its photographs cannot be read", "a photograph is empty or lies outside the page"
    kind, unknown = "a photograph is of another kind or model than the page can hold", "this program does not know"
    stream = "WebP stream (that )?cannot be read"
    return {
        "no photograph": (_page(head, b"\0" + layer), unread),
        "65 photographs": (_page(head, placed(*[Region(0, k, 1, 1) for k in range(65)])), unread),
        "places cut off": (_page(head, element[:4]), unread),
        "empty": (_page(head, placed(replace(r, width=0), *others)), outside),
        "outside": (_page(head, placed(replace(r, x=width - r.width + 1), *others), *photographs), outside),
        "far outside": (_page(head, placed(replace(r, y=(1 << 32) - 1), *others), *photographs), outside),
        "overlap": (_page(head, placed(r, replace(r, x=r.x + r.width - 1, width=1)), first), "two photographs overlap"),
        "too many": (_page(head, placed(r), first, first), "more photographs than places"),
        "two units": (_page(head, element, *photographs, units=2), "a photograph of a page has one coding unit"),
        "text": (_page(head, element, b"text"), "not an .eoc file"),
        "nothing": (_page(head, element, b""), "not an .eoc file"),
        "tiny": (_page(head, element, (VECTORS / "face-tiny.eoc").read_bytes()), f"not an .eoc file|{kind}"),
        "page": (_page(head, element, data), kind),
        "embedded": (holding(replace(bare, embedded=True)), kind),
        "lossless": (holding(replace(bare, step=format.LOSSLESS_STEP), lossless=bytes(5)), kind),
        "deep": (holding(replace(bare, deep=True), tables=b""), kind),
        "transparency": (holding(bare, alpha=b"?"), kind),
        "model": (holding(replace(bare, model=b"none")), kind),
        "colours": (holding(replace(bare, grey=False)), kind),
        "size": (holding(replace(bare, width=r.width + 1)), "a photograph has another size than its place"),
        "cut off": (_page(head, element, first[:12]), "cut off before its first segment"),
        "second one cut off": (_page(head, element, first, first[:11]), "cut off before its first segment"),
        "damaged": (_page(head, element, first[:-9] + bytes([first[-9] ^ 1]) + first[-8:]), "checksum of segment"),
        "not named": (flags(0), f"of a kind that its flags do not name|{stream}"),
        "flag of embedded streams": (flags(format.FLAG_WEBP | format.FLAG_EMBEDDED), unknown),
        "flag of 16 bits": (flags(format.FLAG_WEBP | format.FLAG_DEEP), unknown),
        "another kind of file": (_page(head[:9] + b"\5" + head[10:], element, *photographs), unknown),
        "layer cut off": (_page(head, element[:-30], *photographs), stream),
        "no layer": (_page(head, element[:start], *photographs), stream),
        "layer of another size": (_page(head, element[: start + 1] + b"\0" + element[start + 2 :], first), stream),
        "layer of another kind": (_page(head, element[:start] + b"\x28" + layer[1:], first), stream),
        "checksum": (data[:40] + bytes([data[40] ^ 1]) + data[41:], "checksum of (its|the) exact layer"),
    }
