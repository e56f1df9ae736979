"""The pictures of a folder, and what figures were measured on."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec import matte
from eocodec.errors import EocodecError, ImageError, UnknownTypeError
from eocodec.image import Picture, read_picture
from eocodec.kinds import SUFFIXES

__all__ = ["Bytes", "machine", "read_folder", "read_pictures"]

Bytes = npt.NDArray[np.uint8]


def read_folder(
    folder: Path, limit: int | None = None, left_out: Callable[[str, str], None] = lambda name, reason: None
) -> list[tuple[str, Bytes]]:
    """Names and `(H, W, 3)` pictures of a folder in the order of their names, see :func:`read_pictures`."""
    return [(name, picture.rgb) for name, picture in read_pictures(folder, limit, left_out)]


def read_pictures(
    folder: Path, limit: int | None = None, left_out: Callable[[str, str], None] = lambda name, reason: None
) -> list[tuple[str, Picture]]:
    """Names and pictures of a folder in the order of their names, at most `limit`.

    Colours under full transparency continue what is visible around them, for all codecs alike.

    Arguments:
        folder: of pictures and, perhaps, other files.
        limit: only the first pictures.
        left_out: gets the name of a picture that cannot be read, and why.

    Raises:
        EocodecError: there is none that can be read.
    """
    found = []
    for path in sorted(Path(folder).iterdir()):
        if path.is_file():
            try:
                found.append((path.name, matte.filled(read_picture(path))))
            except ImageError as e:
                if not isinstance(e, UnknownTypeError) or path.suffix.lower() in SUFFIXES:
                    left_out(path.name, str(e).removeprefix(f"{path}: "))
        if limit and len(found) == limit:
            break
    if not found:
        raise EocodecError(f"{folder} holds no picture that can be read")
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
