"""What pictures there are to adapt to, and which of them are held out.

In: a folder, or shards. Out: a :class:`Survey`: pictures to train on, pictures to measure on, and sentences about them.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from eocodec.errors import EocodecError, ImageError
from eocodec.flow.pictures import Picture, Source, opened, sources
from eocodec.headers import read_header

__all__ = ["LEAST_PICTURES", "Survey", "evenly", "held_out_places", "jpeg_quality", "survey"]

Named = tuple[str, Picture]
T = TypeVar("T")

LEAST_EDGE = 96  # pixels; smaller pictures are left out
LARGEST_EDGE = 2048  # of larger ones the middle is used
LEAST_PICTURES = 8
FEW_PICTURES = 40  # below which the gain is likely to be small
MOST_PICTURES = 4000
MOST_PIXELS = 400 << 20  # kept in memory, 3 bytes each
HELD_SHARE, MOST_HELD = 8, 40  # one in so many pictures is held out, up to so many
STRETCHES = 4  # in which they are held out: neighbours by name may be frames of one film
GREY_LEVELS = 2  # 8-bit levels by which the channels of a grey picture may differ
NAMED = 3  # of the pictures that cannot be read
POOR_QUALITY = 85  # JPEG quality below which the traces of it are learnt too
# Luma table of JPEG at quality 50, in zigzag order as files have it, summed (ITU-T T.81, table K.1).
STANDARD_LUMA = 3688


@dataclass(frozen=True)
class Survey:
    """Pictures and what is to be said of them.

    Arguments:
        train, held_out: names and `(H, W, 3)` uint8 pictures, at least one each.
        facts: counts by name, for the card.
        notes: sentences for the user.
        digest: changes with the pictures.
    """

    train: list[Named]
    held_out: list[Named]
    facts: dict[str, int]
    notes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class _Read:
    name: str
    picture: Picture | None
    quality: int | None = None
    grey: bool = False
    deep: bool = False
    large: bool = False
    small: bool = False
    digest: bytes = b""


def survey(source: str) -> Survey:
    """Look at all pictures of a folder or of shards, or at an even selection of very many.

    Arguments:
        source: see :func:`eocodec.flow.pictures.read_pictures`.

    Raises:
        EocodecError: nothing there, or too few pictures that can be used.
    """
    found = sorted(sources(source), key=lambda s: PurePosixPath(s[0]).parts)
    if not found:
        raise EocodecError(f"no pictures found under {source}")
    chosen = evenly(found, MOST_PICTURES)
    counts: Counter[str] = Counter(found=len(found))
    usable: list[_Read] = []
    seen: set[bytes] = set()
    unreadable: list[str] = []
    pixels = 0
    for read in _read_all(chosen):
        if read.small:
            counts["small"] += 1
        elif read.picture is None:
            counts["unreadable"] += 1
            unreadable.append(read.name)
        elif read.digest in seen:
            counts["duplicates"] += 1
        elif pixels < MOST_PIXELS:
            seen.add(read.digest)
            usable.append(read)
            pixels += read.picture.shape[0] * read.picture.shape[1]
    counts.update(used=len(usable), **{k: sum(getattr(r, k) for r in usable) for k in ("grey", "deep", "large")})
    if len(usable) < LEAST_PICTURES:
        raise EocodecError(
            f"{source}: {len(usable)} of {len(found)} pictures can be used, and {LEAST_PICTURES} are needed"
            f"{_reasons(counts)}"
        )
    qualities = [r.quality for r in usable if r.quality is not None]
    counts["compressed"] = len(qualities)
    places = held_out_places(len(usable))
    pairs = [(r.name, r.picture) for r in usable if r.picture is not None]
    return Survey(
        [p for k, p in enumerate(pairs) if k not in places],
        [p for k, p in enumerate(pairs) if k in places],
        dict(counts),
        tuple(_notes(usable, counts, qualities, unreadable)),
        hashlib.sha256(b"".join(r.digest for r in usable)).hexdigest(),
    )


def held_out_places(count: int) -> set[int]:
    """Which of so many pictures, in the order of their names, are held out: a few stretches, evenly spread.

    Example:
        >>> sorted(held_out_places(16))
        [3, 11]
        >>> len(held_out_places(220)), len(held_out_places(5000))
        (27, 40)
    """
    held = max(2, min(MOST_HELD, count // HELD_SHARE))
    stretches = min(STRETCHES, held)
    places: set[int] = set()
    for k in range(stretches):
        length = held // stretches + (k < held % stretches)
        first = (2 * k + 1) * count // (2 * stretches) - (length + 1) // 2
        places.update(range(first, first + length))
    return places


def jpeg_quality(tables: Sequence[Sequence[int]]) -> int:
    """Quality, 1 to 100, that the Independent JPEG Group's software would have made these quantisation tables with.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (16, 16)).save(file, "JPEG", quality=75)
        >>> jpeg_quality(list(Image.open(file).quantization.values()))
        75
    """
    scale = 100 * sum(tables[0]) / STANDARD_LUMA
    return max(1, min(100, round((200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def evenly(items: list[T], most: int) -> list[T]:
    """As many of them as there may be, evenly spread."""
    return items if len(items) <= most else [items[k * len(items) // most] for k in range(most)]


def _read_all(chosen: list[Source]) -> Iterator[_Read]:
    batch = 64  # decoded ahead
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for k in range(0, len(chosen), batch):
            yield from threads.map(_read, chosen[k : k + batch])


def _read(source: Source) -> _Read:
    path = source[0]
    try:
        found = opened(source)
    except ImageError:
        return _Read(path, None)
    picture = np.ascontiguousarray(found.rgb)
    if min(picture.shape[:2]) < LEAST_EDGE:
        return _Read(path, None, small=True)
    digest = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()
    top, left = (max(0, n - LARGEST_EDGE) // 2 for n in picture.shape[:2])
    picture = np.ascontiguousarray(picture[top : top + LARGEST_EDGE, left : left + LARGEST_EDGE])
    spread = np.abs(picture[..., :2].astype(np.int16) - picture[..., 1:]).max()
    return _Read(
        path,
        picture,
        _jpeg_quality(source),
        grey=bool(spread <= GREY_LEVELS),
        deep=found.keeps > 8,
        large=max(found.rgb.shape[:2]) > LARGEST_EDGE,
        digest=digest,
    )


def _jpeg_quality(source: Source) -> int | None:
    """Quality of a JPEG file that can be read; None of another."""
    place = source[2]
    seen = read_header(place if isinstance(place, Path) else io.BytesIO(place))
    return jpeg_quality(seen.tables) if seen is not None and seen.tables else None


def _reasons(counts: Counter[str]) -> str:
    reasons = {
        "unreadable": ("cannot be read", "cannot be read"),
        "small": (f"is smaller than {LEAST_EDGE} pixels", f"are smaller than {LEAST_EDGE} pixels"),
        "duplicates": ("is there twice", "are there twice"),
    }
    said = [f"{counts[key]} {_form(counts[key], *forms)}" for key, forms in reasons.items() if counts[key]]
    return f" ({', '.join(said)})" if said else ""


def _form(count: int, one: str, more: str) -> str:
    """The form of a word that goes with a number."""
    return one if count == 1 else more


def _notes(usable: list[_Read], counts: Counter[str], qualities: list[int], unreadable: list[str]) -> Iterator[str]:
    sizes = Counter(f"{r.picture.shape[1]}x{r.picture.shape[0]}" for r in usable if r.picture is not None)
    (size, times), *others = sizes.most_common()
    shown = size if not others else f"{size} ({times}) and {len(others)} other {_form(len(others), 'size', 'sizes')}"
    yield f"{counts['used']} of {counts['found']} pictures, {shown}{_reasons(counts)}"
    if unreadable:
        more = f", and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
        yield f"cannot be read: {', '.join(unreadable[:NAMED])}{more}"
    if counts["large"]:
        yield f"of {counts['large']} the middle is used, {LARGEST_EDGE} pixels wide and high at most"
    if counts["grey"]:
        grey = counts["grey"]
        yield "all are grey" if grey == counts["used"] else f"{grey} {_form(grey, 'is', 'are')} grey"
    if counts["deep"]:
        yield f"{counts['deep']} {_form(counts['deep'], 'has', 'have')} 16 bits a sample; they are looked at with 8"
    if qualities:
        middle = sorted(qualities)[len(qualities) // 2]
        were = _form(len(qualities), "was", "were")
        yield f"{len(qualities)} {were} compressed as JPEG before (quality {middle} in the middle)"
        if middle < POOR_QUALITY:
            yield "the model will learn the traces of that compression too; pictures from before it would be better"
    if counts["used"] < FEW_PICTURES:
        yield f"these are few pictures; from {FEW_PICTURES} on the gain is more certain"
