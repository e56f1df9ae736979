"""What zstd has packed: one frame, which is all that there is of an element or of what an element holds.

In: the frame, and how many bytes it must hold. Out: these. Alpha, maps of steps, choices of tables, levels,
corrections, weights and packed samples are kept so; docs/FORMAT.md, "zstd" under "Overview", gives the rule.
"""

import zstandard

from eocodec.errors import FormatError

__all__ = ["unpack"]

MAX_WINDOW = 1 << 27
PIECE = 1024  # bytes that are unpacked at a time: zstd may make 30,000 of each


def unpack(frame: bytes, size: int, complaint: str) -> bytes:
    """The bytes that exactly one frame holds; memory grows with what is there, not with what is claimed.

    Arguments:
        frame: to its end.
        size: how many bytes it must hold.
        complaint: what is wrong with the file otherwise.

    Raises:
        FormatError: it is no zstd frame of so many bytes, is skippable, has a wrong checksum, or something follows it.
    """
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    raw, at = bytearray(), 0
    try:
        while at < len(frame) and not reader.eof and len(raw) <= size:
            raw += reader.decompress(frame[at : at + PIECE])
            at += PIECE
    except (zstandard.ZstdError, MemoryError) as e:
        raise FormatError(f"the file is damaged: {complaint}") from e
    whole = reader.eof and not reader.unused_data and at >= len(frame)  # also of a skippable frame, which is empty
    if not whole or len(raw) != size:
        raise FormatError(f"the file is damaged: {complaint}")
    return bytes(raw)
