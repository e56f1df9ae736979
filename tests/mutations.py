"""Hostile files made from good ones: damage to bytes, and damage to structure under checksums that match.

In: good files and a random generator. Out: one mutated file a call. For the fuzz test and `benchmarks/fuzz.py`.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from eocodec import format
from eocodec.errors import EocodecError
from eocodec.format import File, Header, Segment

__all__ = ["mutate"]

SIZES = (1, 2, 3, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, 300)
SIDES = (*SIZES, 1000, 4096, 65535, 65536, 1 << 20)
WORDS = (0, 1, 2, 63, 64, 127, 128, 255, 256, 32768, 32767, 47104, 65535)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    length = rng.choice((1, 2, 4, 8, 64))
    data[at : at + length] = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * length


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 50))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 4, 30, 400))]
    data[at:at] = piece * rng.choice((1, 2, 5))


def _append(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.choice((1, 3, 4, 5, 40, 2052)))


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, start = rng.randrange(len(data)), rng.randrange(len(other))
    data[at : at + rng.randrange(200)] = other[start : start + rng.randrange(400)]


def _payload(payload: bytes, rng: random.Random) -> bytes:
    data = bytearray(payload or b"\0")
    rng.choice((_flip, _overwrite, _cut, _remove, _repeat, _append))(data, rng)
    return bytes(data)


def _forge(header: Header, rng: random.Random, sides: Sequence[int]) -> Header:
    """The header with some other values."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        field = rng.choice(("width", "height", "rate", "step", "grey", "embedded", "model"))
        if field in ("width", "height"):
            header = replace(header, **{field: rng.choice(sides)})
        elif field in ("rate", "step"):
            header = replace(header, **{field: rng.choice((*WORDS, rng.randrange(65536)))})
        elif field == "model":
            header = replace(header, model=rng.choice((header.model, header.model, rng.randbytes(4))))
        else:
            header = replace(header, **{field: not getattr(header, field)})
    return header


def _restructure(data: bytes, other: bytes, rng: random.Random, sides: Sequence[int]) -> bytes | None:
    """A file with forged parts whose checksums are right."""
    try:
        file, second = format.parse(data, salvage=True), format.parse(other, salvage=True)
    except EocodecError:
        return None
    for _ in range(rng.choice((1, 1, 2, 3))):
        segments = list(file.segments)
        kind = rng.randrange(9)
        if kind == 0:
            file = replace(file, header=_forge(file.header, rng, sides))
        elif kind == 1 and segments:
            k = rng.randrange(len(segments))
            segments[k] = Segment(segments[k].units, _payload(segments[k].payload, rng))
        elif kind == 2 and segments:
            k = rng.randrange(len(segments))
            segments[k] = Segment(rng.choice((1, 2, 6, 24, 25, 26, 37, 38, 200, (1 << 35) - 1)), segments[k].payload)
        elif kind == 3 and second.segments:
            segments.insert(rng.randrange(len(segments) + 1), rng.choice(second.segments))
        elif kind == 4 and segments:
            segments.append(rng.choice(segments))
        elif kind == 5 and segments:
            del segments[rng.randrange(len(segments))]
        elif kind == 6:
            alpha = file.alpha or second.alpha
            file = replace(file, alpha=rng.choice((None, alpha and _payload(alpha, rng), rng.randbytes(20))))
        elif kind == 7:
            lossless = file.lossless or second.lossless
            file = replace(file, lossless=rng.choice((None, lossless, lossless and _payload(lossless, rng))))
        else:
            rng.shuffle(segments)
        file = replace(file, segments=tuple(segments))
    if file.lossless is not None:
        file = replace(file, header=replace(file.header, embedded=False, step=format.LOSSLESS_STEP))
    try:
        return format.serialise(File(file.header, file.alpha, file.segments, lossless=file.lossless))
    except (EocodecError, OverflowError):
        return None


def mutate(files: Sequence[bytes], rng: random.Random, sides: Sequence[int] = SIDES) -> bytes:
    """One mutation of one of these files; `sides` are the widths and heights that are forged."""
    data, other = rng.choice(files), rng.choice(files)
    if rng.random() < 0.5:
        forged = _restructure(data, other, rng, sides)
        if forged is not None:
            if rng.random() < 0.8:
                return forged
            data = forged
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind = rng.randrange(8)
        if not mutated:
            break
        if kind == 6:
            _splice(mutated, other, rng)
        elif kind == 7:
            return bytes(mutated[: rng.randrange(40)])
        else:
            (_flip, _overwrite, _cut, _remove, _repeat, _append)[kind](mutated, rng)
    return bytes(mutated)
