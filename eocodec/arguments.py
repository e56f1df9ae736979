"""What callers pass, checked by type: files, numbers and arrays.

In: whatever was passed. Out: bytes, numbers, arrays to compute with, or one sentence as an :class:`EocodecError`.
"""

import os
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from eocodec.errors import EocodecError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "MOST_EFFORT",
    "check_limits",
    "check_model",
    "check_number",
    "check_numbers",
    "computable",
    "file_bytes",
    "is_whole",
]

MOST_EFFORT = 20  # rounds; later ones gain nothing


def file_bytes(data: Any) -> bytes:
    """The content of a file as bytes.

    Raises:
        EocodecError: it is not bytes, bytearray or memoryview.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, (str, os.PathLike)):
        raise EocodecError("a file's bytes are needed, not its name; read them first")
    raise EocodecError(f"a file's bytes are needed, not {type(data).__name__}")


def check_numbers(**values: Any) -> None:
    """See that every value that is given is a number.

    Raises:
        EocodecError: one is not.
    """
    for name, value in values.items():
        if value is not None:
            check_number(name, value)


def check_number(name: str, value: Any) -> None:
    """See that a value is a number that can be computed with.

    Raises:
        EocodecError: it is not, is missing, or is a whole number beyond all floating-point ones.
    """
    if value is None:
        raise EocodecError(f"{name} must be a number, not NoneType")
    check_limits(**{name: value})
    try:
        float(value)
    except OverflowError:
        raise EocodecError(f"{name} is too large a number to compute with") from None


def check_limits(**values: Any) -> None:
    """See that every limit that is given is a number, which may be of any size.

    Raises:
        EocodecError: one is not.
    """
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise EocodecError(f"{name} must be a number, not {type(value).__name__}")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, Python's or NumPy's; truth values are none.

    Example:
        >>> is_whole(3), is_whole(3.0), is_whole(True)
        (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_model(model: Any, threads: Any) -> None:
    """See that a model is named by text or a path, and that the number of threads is one.

    Raises:
        EocodecError: they are not.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise EocodecError(f"a model is a name, the path of a bundle or a loaded model, not {type(model).__name__}")
    if not is_whole(threads) or threads < 0:
        raise EocodecError("threads must be a whole number, 0 for one per core")


def computable(array: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
    """An array in this machine's byte order; half floats, which end at 65504 and have 11 bits, as single ones."""
    kind = "f4" if array.dtype.str.endswith("f2") else array.dtype.newbyteorder("=")
    return array.astype(kind, copy=False)
