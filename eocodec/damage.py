"""Picture files that are nearly intact: what a browser would show all the same is read, and said.

In: bytes of a PNG or JPEG file that Pillow refuses. Out: bytes that it reads, and what is wrong with the file.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eocodec.errors import CutOffError

__all__ = ["Mended", "leniently_said", "mended"]

PNG, JPEG, END_OF_JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
FEW_ROWS = 32  # two rows of the largest blocks of JPEG; that many may be missing,
FEW = 50  # or this fraction of all, without being asked for
PROBE = bytes([0x55, 0xAA] * 64)  # entropy-coded data that means something else than nothing


@dataclass(frozen=True)
class Mended:
    """A file that can be read: its bytes, and a sentence on what was wrong, if that touches the picture."""

    data: bytes
    note: str | None


def mended(data: bytes, lenient: bool) -> Mended | None:
    """A readable form of a PNG or JPEG file that was refused, None if there is none.

    Arguments:
        data: the file.
        lenient: read a JPEG of which more than a few rows are missing.

    Raises:
        CutOffError: too much of a JPEG is missing.
    """
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(JPEG):
        return _jpeg(data, lenient)
    return None


def leniently_said(refused: Exception) -> str:
    """What is to be said of a file that only a lenient reader reads.

    Arguments:
        refused: why it was refused before.

    Example:
        >>> leniently_said(OSError("image file is truncated (3 bytes not processed)"))
        'it is cut off: what is missing is blank or not as it should be'
    """
    if any(word in str(refused).lower() for word in ("truncated", "end of file", "incomplete", "not enough")):
        return "it is cut off: what is missing is blank or not as it should be"
    return "it is damaged: parts of it are blank or not as they should be"


def _png(data: bytes) -> Mended | None:
    """The file without texts, which no picture depends on, and without ancillary chunks whose checksum is wrong."""
    kept, wrong, end = [PNG], [], len(PNG)
    for kind, body, crc in _chunks(data):
        end += 12 + len(body)
        ancillary = bool(kind[0] & 0x20)
        intact = crc == zlib.crc32(kind + body)
        if ancillary and not intact:
            wrong.append(kind.decode("ascii", "replace"))
        elif kind not in TEXTS:
            kept.append(len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big"))
    changed = b"".join([*kept, data[end:]])
    if changed == data:
        return None
    note = f"its {', '.join(dict.fromkeys(wrong))} has a wrong checksum and is left out" if wrong else None
    return Mended(changed, note)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Name, content and checksum of every whole chunk of a PNG file."""
    at = len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : end - 4], int.from_bytes(data[end - 4 : end], "big")
        at = end


def _jpeg(data: bytes, lenient: bool) -> Mended | None:
    """The file with an end, if only that and a few rows are missing."""
    if data.endswith(END_OF_JPEG):
        return None
    whole = data.rstrip(b"\xff") + END_OF_JPEG
    missing, rows = _missing(data.rstrip(b"\xff"))
    if missing > max(FEW_ROWS, rows // FEW) and not lenient:
        raise CutOffError(f"the picture is cut off: {missing} of {rows} rows are missing or not as they should be")
    if missing:
        return Mended(whole, f"it is cut off: {missing} of {rows} rows are missing or not as they should be")
    return Mended(whole, "its last bytes are missing; all rows are there")


def _missing(data: bytes) -> tuple[int, int]:
    """How many of the rows of a JPEG file without an end depend on what follows, and how many there are."""
    pictures = []
    for tail in (END_OF_JPEG, PROBE + END_OF_JPEG):
        with Image.open(io.BytesIO(data + tail)) as image:
            pictures.append(np.asarray(image))
    differs = np.flatnonzero((pictures[0] != pictures[1]).reshape(len(pictures[0]), -1).any(1))
    rows = len(pictures[0])
    return (rows - int(differs[0]) if len(differs) else 0), rows
