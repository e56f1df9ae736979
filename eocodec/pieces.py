"""Checksums of a file's elements, and the pieces of an embedded stream, each of which has one.

In: a stream, or bytes that begin with one. Out: bytes; or the stream and how it ended.
"""

import zlib
from dataclasses import dataclass

from eocodec.errors import FormatError

__all__ = ["LENGTH", "Joined", "checksum_of", "join", "split"]

LENGTH = 2048  # bytes of a stream between two checksums


@dataclass(frozen=True)
class Joined:
    """A stream as far as it is there; the rest as of :class:`eocodec.format.File`."""

    payload: bytes
    complete: bool
    damaged: bool
    trailing: int


def checksum_of(head: bytes, position: int, element: bytes) -> bytes:
    """CRC-32 of the file header, the element's ordinal and the element: one of another file does not pass."""
    return zlib.crc32(element, zlib.crc32(bytes([position & 0xFF]), zlib.crc32(head))).to_bytes(4, "little")


def split(head: bytes, position: int, payload: bytes) -> bytes:
    """A stream in pieces with their checksums, the first of which has the ordinal `position`."""
    out = []
    for number, start in enumerate(range(0, len(payload), LENGTH), position):
        piece = payload[start : start + LENGTH]
        out += [piece, checksum_of(head, number, piece)]
    return b"".join(out)


def join(head: bytes, position: int, data: bytes, salvage: bool) -> Joined:
    """Inverse of :func:`split`; a last piece without its checksum is the end of a prefix.

    Where a checksum fails, but one that holds comes earlier in the piece, the stream ended there, and what follows is
    no part of it.

    Raises:
        FormatError: a whole piece does not have its checksum, and damage is not to be salvaged.
    """
    payload = bytearray()
    complete = True
    for number, start in enumerate(range(0, len(data), LENGTH + 4), position):
        whole = data[start : start + LENGTH + 4]
        piece = whole[:-4]
        intact = len(whole) > 4 and whole[-4:] == checksum_of(head, number, piece)
        end = None if intact else _earlier_end(head, number, whole)
        if end is not None:
            return Joined(bytes(payload + whole[:end]), True, False, len(data) - (start + end + 4))
        if not intact and len(whole) == LENGTH + 4:
            if not salvage:
                raise FormatError(f"the file is damaged: the checksum of piece {number + 1} does not match")
            return Joined(bytes(payload), False, True, 0)
        payload += piece if intact else whole[:LENGTH]
        complete = intact
    return Joined(bytes(payload), complete, False, 0)


def _earlier_end(head: bytes, position: int, data: bytes) -> int | None:
    """Where a piece ends that is followed by its checksum, and that by other bytes."""
    sofar = int.from_bytes(checksum_of(head, position, b""), "little")
    for end in range(1, len(data) - 4):
        sofar = zlib.crc32(data[end - 1 : end], sofar)
        if sofar.to_bytes(4, "little") == data[end : end + 4]:
            return end
    return None
