"""TIFF files that Pillow does not know: what their directory says of their samples.

In: a file. Out: what it takes to read floating-point colours, or a sentence on why samples cannot be read.

References:
    *TIFF, revision 6.0*, sections 2 and 8, and *Supplement 1* (SampleFormat, ExtraSamples), for the tags.
    https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

__all__ = ["ASSOCIATED", "UNASSOCIATED", "FloatColours", "float_colours", "starting_at", "unread"]

HEADS = {b"II*\0": 8, b"MM\0*": 8, b"II+\0": 16, b"MM\0+": 16}  # signatures, and bytes up to where tags are named
WIDTH, HEIGHT, BITS, COLOURS, ORIENTATION, SAMPLES, PLANES = 256, 257, 258, 262, 274, 277, 284
FURTHER, NUMBERS, PROFILE = 338, 339, 34675
FLOATING = 3  # in tag NUMBERS
KINDS = {1: "integers", 2: "signed integers", FLOATING: "floating-point numbers"}
RGB, TOGETHER = 2, 1  # in tags COLOURS and PLANES
ASSOCIATED, UNASSOCIATED = 1, 2  # transparency in tag FURTHER: with colours that are multiplied by it, or not
UPRIGHT = 1
MOST_FRAMES = 1 << 16
SHORT = 3  # type of a tag's value


@dataclass(frozen=True)
class FloatColours:
    """What a file says of its first picture, whose colours are floating-point numbers, one pixel after another.

    Arguments:
        width, height: as it is stored.
        samples: of a pixel, three or four.
        bits: of a sample.
        fourth: what the fourth sample is: :data:`ASSOCIATED`, :data:`UNASSOCIATED`, or something else.
        orientation: as in EXIF, 1 to 8.
        turned: byte of the file where the orientation stands, two of them; None if it has none.
        little: whether these two are in little-endian order.
        profile: of its colours.
        frames: pictures in the file.
    """

    width: int
    height: int
    samples: int
    bits: int
    fourth: int
    orientation: int
    turned: int | None
    little: bool
    profile: bytes | None
    frames: int


def float_colours(file: BinaryIO) -> FloatColours | None:
    """What a file says of its floating-point colours; None for other files, and for samples in planes."""
    with suppress(Exception):  # a damaged directory raises many kinds of exception
        tags = _tags(file)
        if tags is None:
            return None
        samples, bits, numbers = tags[SAMPLES], set(tags[BITS]), set(tags[NUMBERS])
        known = samples in (3, 4) and bits in ({32}, {64}) and numbers == {FLOATING}
        if not known or tags[COLOURS] != RGB or tags.get(PLANES, TOGETHER) != TOGETHER:
            return None
        directories = list(_directories(file))
        turned = _place(file, directories[0], ORIENTATION)
        orientation = int(tags.get(ORIENTATION, UPRIGHT)) if turned is not None else UPRIGHT
        return FloatColours(
            int(tags[WIDTH]),
            int(tags[HEIGHT]),
            samples,
            bits.pop(),
            tags.get(FURTHER, (0,))[0] if samples == 4 else 0,
            orientation if 1 <= orientation <= 8 else UPRIGHT,
            turned,
            _head(file)[:2] == b"II",
            tags.get(PROFILE),
            len(directories),
        )
    return None


def unread(file: BinaryIO) -> str | None:
    """A sentence on a TIFF file that Pillow does not know, which says what its samples are; None for other files."""
    with suppress(Exception):  # a damaged directory raises many kinds of exception
        tags = _tags(file)
        if tags is None:
            return None
        bits, numbers = tags[BITS][0], KINDS.get(tags.get(NUMBERS, (1,))[0], "values of another kind")
        what = f"{tags[SAMPLES]} samples a pixel, {numbers} of {bits} bits"
        return f"TIFF files of this kind ({what}) cannot be read; make it one of 16-bit integers, or a PNG file"
    return None


def starting_at(data: bytes, frame: int) -> bytes:
    """A file in which a further picture is the first, for readers that know no others; as it is if there is none."""
    with suppress(Exception):  # a damaged directory raises many kinds of exception
        file = io.BytesIO(data)
        head = _head(file)
        number, _, pointer = _layout(head)
        begin, _ = next(islice(_directories(file), frame, None))
        where = len(head) - struct.calcsize(pointer)
        return data[:where] + struct.pack(pointer, begin - struct.calcsize(number)) + data[len(head) :]
    return data


def _head(file: BinaryIO) -> bytes:
    """The header, empty for other files."""
    file.seek(0)
    head = file.read(16)
    return head[: HEADS.get(head[:4], 0)]


def _tags(file: BinaryIO) -> Any | None:
    """The tags of the first picture, by number; None for other files."""
    from PIL import TiffImagePlugin  # takes its time

    head = _head(file)
    if not head:
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _layout(head: bytes) -> tuple[str, int, str]:
    """Of a directory: the number of tags, bytes of a tag, and where the next one is."""
    order = "<" if head[:2] == b"II" else ">"
    return (f"{order}Q", 20, f"{order}Q") if len(head) == 16 else (f"{order}H", 12, f"{order}I")


def _directories(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where the tags of each picture begin, and how many there are."""
    head = _head(file)
    number, length, pointer = _layout(head)
    at = struct.unpack(pointer, head[-struct.calcsize(pointer) :])[0]
    seen: set[int] = set()
    while at and at not in seen and len(seen) < MOST_FRAMES:
        seen.add(at)
        file.seek(at)
        count = struct.unpack(number, file.read(struct.calcsize(number)))[0]
        begin = at + struct.calcsize(number)
        yield begin, count
        file.seek(begin + length * count)
        following = file.read(struct.calcsize(pointer))
        at = struct.unpack(pointer, following)[0] if len(following) == struct.calcsize(pointer) else 0


def _place(file: BinaryIO, directory: tuple[int, int], tag: int) -> int | None:
    """Where the value of a tag stands that is a single number of 16 bits, None if there is no such."""
    head = _head(file)
    order, length = "<" if head[:2] == b"II" else ">", _layout(head)[1]
    begin, count = directory
    for at in range(begin, begin + length * count, length):
        file.seek(at)
        if struct.unpack(f"{order}HH", file.read(4)) == (tag, SHORT):
            return at + (12 if length == 20 else 8)
    return None
