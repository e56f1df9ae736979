"""Training pictures: read from a folder or from tar shards into memory, and split for validation.

In: a folder (searched recursively), a `.tar`, or a pattern of several. Out: uint8 arrays with their names, in an order
that depends on the names alone: a folder and shards made of it give the same pictures in the same order.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec.errors import EocodecError, ImageError
from eocodec.flow.shards import expand, read_shard
from eocodec.image import Picture as Opened
from eocodec.image import read_picture
from eocodec.kinds import SUFFIXES
from eocodec.matte import filled

__all__ = ["HOLD_OUT_BY", "Picture", "Source", "decoded", "greyed", "opened", "read_pictures", "sources", "split"]

Picture = npt.NDArray[np.uint8]
Source = tuple[str, str, Path | bytes]  # path that orders it, name for messages, where its bytes are

HOLD_OUT_BY = ("picture", "group")
NAMED = 5  # unreadable pictures that a message names


def read_pictures(source: Path | str) -> list[tuple[str, Picture]]:
    """All pictures of a folder or of shards in name order, as (file name, `(H, W, 3)` uint8).

    Arguments:
        source: a folder of pictures or of `.tar` shards, a `.tar`, or a pattern: `shards-{000..011}.tar`, `*.tar`.

    Raises:
        EocodecError: nothing there, a shard missing or damaged, or pictures that cannot be decoded, which are named.
    """
    found = sorted(sources(str(source)), key=lambda s: PurePosixPath(s[0]).parts)
    if not found:
        raise EocodecError(f"no pictures found under {source}")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        read = list(threads.map(_named, found))
    errors = [one for one in read if isinstance(one, ImageError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise EocodecError(
            f"{len(errors)} of {len(found)} pictures cannot be read: {'; '.join(map(str, errors[:NAMED]))}{more}"
        )
    return [one for one in read if not isinstance(one, ImageError)]


def sources(pattern: str) -> Iterator[Source]:
    """What a folder, a shard or a pattern of shards holds, in no order: see :func:`read_pictures`.

    Raises:
        EocodecError: it does not exist, a folder below cannot be read, or a shard is damaged.
    """
    for place in map(Path, expand(pattern)):
        if place.is_dir():
            files = _files_below(place)
            shards = sorted(p for p in files if p.suffix == ".tar")
            loose = [p for p in files if p.suffix.lower() in SUFFIXES]
            if shards and loose:
                raise EocodecError(f"{place} holds both pictures and .tar shards; keep them in folders of their own")
            yield from ((p.relative_to(place).as_posix(), str(p), p) for p in loose)
        elif place.suffix == ".tar":
            shards = [place]
        elif place.is_file():
            raise EocodecError(f"{place} is neither a folder nor a .tar shard")
        else:
            raise EocodecError(f"{place} does not exist")
        for shard in shards:
            yield from ((name, f"{name} in {shard}", content) for name, content in read_shard(shard))


def _files_below(folder: Path) -> list[Path]:
    """The files in a folder and below it; not pipes, from which one would wait for ever.

    Raises:
        EocodecError: one of the folders cannot be read.
    """

    def refuse(e: OSError) -> None:
        raise e

    try:
        found = (Path(at, name) for at, _, names in os.walk(folder, onerror=refuse) for name in names)
        return [p for p in found if not p.name.startswith(".") and p.is_file()]
    except OSError as e:
        raise EocodecError(f"{e.filename}: cannot be read ({e.strerror})") from None


def decoded(source: Source) -> Picture:
    """A picture `(H, W, 3)` as it is compressed: upright, in sRGB, 8 bits a sample, smooth where it is transparent.

    Raises:
        ImageError: it cannot be decoded; the message begins with its name.
    """
    return np.ascontiguousarray(opened(source).rgb)


def opened(source: Source) -> Opened:
    """A picture of :func:`decoded`, with what else is known of it.

    Raises:
        ImageError: see :func:`decoded`.
    """
    _, name, place = source
    return filled(read_picture(place if isinstance(place, Path) else io.BytesIO(place), name))


def _named(source: Source) -> tuple[str, Picture] | ImageError:
    try:
        return PurePosixPath(source[0]).name, decoded(source)
    except ImageError as e:
        return e


def greyed(picture: Picture) -> Picture:
    """A picture `(H, W, 3)` without its colour, as Pillow's mode L has it."""
    return np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))


def split(
    pictures: Sequence[tuple[str, Picture]], every: int, by: str = "picture"
) -> tuple[list[tuple[str, Picture]], list[tuple[str, Picture]]]:
    """Training and validation pictures: each `every`-th picture or group (by name order) is held out.

    Arguments:
        pictures: names and arrays, in name order.
        every: interval of what is held out.
        by: "picture", or "group": pictures whose names differ only in a trailing `_digits` stay together.

    Example:
        >>> names = ["Ann_Lee_0001.png", "Ann_Lee_0002.png", "Bo_0001.png", "Cy_0001.png"]
        >>> train, held_out = split([(n, np.zeros((1, 1, 3), np.uint8)) for n in names], 3, "group")
        >>> [name for name, _ in held_out]
        ['Ann_Lee_0001.png', 'Ann_Lee_0002.png']
    """
    if by == "group":
        names = [re.sub(r"_\d+$", "", name.split(".")[0]) for name, _ in pictures]
        numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
        places = [numbers[name] for name in names]
    else:
        places = list(range(len(pictures)))
    train = [p for p, k in zip(pictures, places, strict=True) if k % every]
    return train, [p for p, k in zip(pictures, places, strict=True) if k % every == 0]
