"""Pictures of more than 8 bits a sample in files: PNG and TIFF, in and out, and PPM, in.

In: the bytes of a file, or arrays. Out: arrays, or bytes. Pillow keeps 16 bits of grey only; colours are read and
written by OpenCV, which the extra `deep` installs. 16-bit colours that it reads are believed only if their upper 8 bits
are Pillow's; floating-point ones, which Pillow does not know, if their shape and type are those of the directory. The
colours of a PPM file are three columns of a grey picture for each of its own, as which Pillow reads them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PpmImagePlugin

from eocodec import tiff
from eocodec.errors import ImageError
from eocodec.kinds import kind_of
from eocodec.levels import eight_bit_enough
from eocodec.tiff import FloatColours

__all__ = ["EXTRA", "FORMATS", "available", "colours", "encode", "floats", "holds", "unread"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

EXTRA = "pip install 'eocodec[deep]'"
FORMATS = {"PNG", "TIFF"}  # Pillow's names of the types that hold 16 bits


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


def colours(data: bytes, rgb: Bytes, kind: str, frame: int = 0) -> tuple[Words, bool] | None:
    """The 16-bit colours `(H, W, 3)` of a file, turned as those of 8 bits, `rgb`, are; None if there are no such.

    And whether 8 bits hold its transparency.

    Arguments:
        data: the file.
        rgb: its picture as Pillow reads it, upright.
        kind: Pillow's name of its type.
        frame: which of several pictures.
    """
    if kind == "PPM":
        return (_ppm_colours(data), True) if frame == 0 else None
    cv2 = _opencv()
    if cv2 is None or kind not in FORMATS or (frame and kind != "TIFF"):
        return None
    with _silence(cv2):
        try:
            first = tiff.starting_at(data, frame) if frame else data
            read = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_UNCHANGED)
        except (cv2.error, MemoryError):
            return None
    if read is None or read.dtype != np.uint16 or read.ndim != 3 or read.shape[2] not in (3, 4):
        return None
    for turned in _turns(read[:, :, 2::-1]):
        if turned.shape == rgb.shape and bool((turned >> 8 == rgb).all()):
            return np.ascontiguousarray(turned), eight_bit_enough(read[:, :, 3:])
    return None


def _ppm_colours(data: bytes) -> Words:
    """The colours `(H, W, 3)` of a PPM file, scaled to 65535 as Pillow scales grey ones."""
    with PpmImagePlugin.PpmImageFile(io.BytesIO(data)) as image:
        width, height = image.size
        _, _, begin, how = image.tile[0]
    maximum = int((how or (0,))[-1])
    header = b"%s\n%d %d\n%d\n" % (b"P2" if data.startswith(b"P3") else b"P5", 3 * width, height, maximum)
    with PpmImagePlugin.PpmImageFile(io.BytesIO(header + data[begin:])) as image:
        return np.asarray(image).astype(np.uint16).reshape(height, width, 3)


def unread(kind: str, profile: bool) -> str:
    """What is to be said of a file whose 16-bit colours are not read, without a subject.

    Arguments:
        kind: Pillow's name of its type.
        profile: whether it has a colour profile.
    """
    if kind in FORMATS and not available():
        return f"its samples have more than 8 bits, of which 8 are read; {EXTRA} reads them all"
    if profile:
        return "its samples have more than 8 bits, which are brought to 8 with its colour profile"
    return "its samples have more than 8 bits, of which 8 are read"


def floats(file: BinaryIO, found: FloatColours) -> npt.NDArray[np.floating[Any]] | None:
    """The samples `(H, W, 3 or 4)` of a TIFF file of floating-point colours, upright; None if they cannot be read."""
    cv2 = _opencv()
    if cv2 is None:
        return None
    file.seek(0)
    data = bytearray(file.read())
    if found.turned is not None:  # some versions of OpenCV turn pictures, others do not
        data[found.turned : found.turned + 2] = b"\1\0" if found.little else b"\0\1"
    with _silence(cv2):
        try:
            read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except (cv2.error, MemoryError):
            return None
    shape = (found.height, found.width, found.samples)
    if read is None or read.shape != shape or read.dtype != np.dtype(f"f{found.bits // 8}"):
        return None
    return _turned(read[..., [2, 1, 0, 3][: found.samples]], found.orientation)


@contextmanager
def _silence(cv2: Any) -> Iterator[None]:
    """Let OpenCV print nothing: what is wrong with a file is said in a sentence."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _turned(a: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A stored picture as an orientation of EXIF, 1 to 8, says that it is to be seen."""
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    return (a if orientation < 5 else a.transpose(1, 0, 2))[::rows, ::columns]


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
