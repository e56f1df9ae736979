"""Pictures of 16 bits a sample in files: PNG and TIFF, in and out.

In: the bytes of a file, or arrays. Out: arrays, or bytes. Pillow keeps 16 bits of grey only; colours are read and
written by OpenCV, which the extra `deep` installs. What it reads is believed only if its upper 8 bits are Pillow's.
"""

import io
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec.errors import ImageError
from eocodec.kinds import kind_of

__all__ = ["EXTRA", "FORMATS", "available", "colours", "encode", "holds", "unread"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

EXTRA = "pip install 'eocodec[deep]'"
FORMATS = {"PNG", "TIFF"}  # Pillow's names of the types that hold 16 bits
TIFF_HEADS = {b"II*\0": 8, b"MM\0*": 8, b"II+\0": 16, b"MM\0+": 16}  # signatures, and bytes up to where tags are named
NUMBERS = {1: "integers", 2: "signed integers", 3: "floating-point numbers"}  # by a TIFF file's tag SampleFormat


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def available() -> bool:
    """Whether colours of 16 bits can be read and written."""
    return _opencv() is not None


def holds(suffix: str) -> bool:
    """Whether pictures of 16 bits can be written as the type of an extension such as ".png"."""
    return kind_of(suffix) in FORMATS


def colours(data: bytes, rgb: Bytes) -> Words | None:
    """The 16-bit colours `(H, W, 3)` of a file, turned as their upper 8 bits, `rgb`, are; None if there are no such.

    Arguments:
        data: the file.
        rgb: its picture as Pillow reads it, upright.
    """
    cv2 = _opencv()
    if cv2 is None:
        return None
    try:
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        return None
    if read is None or read.dtype != np.uint16 or read.ndim != 3 or read.shape[2] not in (3, 4):
        return None
    for turned in _turns(read[:, :, 2::-1]):
        if turned.shape == rgb.shape and bool((turned >> 8 == rgb).all()):
            return np.ascontiguousarray(turned)
    return None


def unread(file: BinaryIO) -> str | None:
    """A sentence on a TIFF file that Pillow does not know, which says what its samples are; None for other files."""
    file.seek(0)
    head = file.read(16)
    head = head[: TIFF_HEADS.get(head[:4], 0)]
    if not head:
        return None
    from PIL import TiffImagePlugin  # takes its time

    with suppress(Exception):  # a damaged directory raises many kinds of exception
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        bits, numbers = tags[258][0], NUMBERS.get(tags.get(339, (1,))[0], "values of another kind")
        what = f"{tags[277]} samples a pixel, {numbers} of {bits} bits"
        return f"TIFF files of this kind ({what}) cannot be read; make it one of 16-bit integers, or a PNG file"
    return None


def _turns(a: Words) -> "list[Words]":
    """A picture as each of the eight orientations shows it."""
    over = a.transpose(1, 0, 2)
    return [b[::i, ::j] for b in (a, over) for i in (1, -1) for j in (1, -1)]


def encode(rgb: Words, alpha: Bytes | None, grey: bool, suffix: str) -> bytes:
    """Bytes of a file of the type that `suffix` names, without loss.

    Arguments:
        rgb: `(H, W, 3)`.
        alpha: `(H, W)` or None.
        grey: its channels are equal.
        suffix: such as ".png"; the type must be one that :func:`holds`.

    Raises:
        ImageError: OpenCV is needed and not there, or cannot write it.
    """
    if grey and alpha is None:
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(rgb[:, :, 0])).save(out, kind_of(suffix))
        return out.getvalue()
    cv2 = _opencv()
    if cv2 is None:
        raise ImageError(f"colours of 16 bits are written by OpenCV, which is not installed: {EXTRA}; or take 8 bits")
    channels = [rgb[:, :, ::-1]] + ([] if alpha is None else [alpha.astype(np.uint16)[:, :, None] * np.uint16(257)])
    done, data = cv2.imencode(suffix.lower(), np.ascontiguousarray(np.concatenate(channels, 2)))
    if not done:
        raise ImageError(f"the picture cannot be written as {suffix}")
    return bytes(data.tobytes())
