"""Which value of a picture of more than 8 bits stands for white, so that no levels are lost without a word.

In: sample values. Out: the value that is white, values of 8 and 16 bits, and sentences on what is unusual.
"""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import ImageError

__all__ = [
    "FEW_BITS",
    "FLOAT_TOLERANCE",
    "TOP",
    "VALUE_RANGES",
    "ValueRange",
    "eight_bit",
    "eight_bit_enough",
    "few_levels",
    "filled_bits",
    "scaled",
    "span_of",
    "white_level",
    "white_of_bits",
    "white_remarks",
]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

VALUE_RANGES = ("bits", "filled", "full")
ValueRange = str | tuple[int, int]
"""One of :data:`VALUE_RANGES`, or the least and the greatest value."""

FEW_BITS = 12  # 16-bit values that need no more are those of a camera or scanner of so many bits
TOP = 65535  # of 16 bits
FLOAT_TOLERANCE = 1e-3  # levels; floats nearer to a level than this count as 8-bit values
MOST = 0.99  # of the values of a floating-point picture; the others may be outliers
DARK = 16  # times less than white reaches a floating-point picture whose range is likely to be another one


def eight_bit(values: npt.NDArray[np.generic], white: int = TOP) -> npt.NDArray[np.uint8]:
    """16-bit to 8-bit, rounded: 255 v / white, by default v / 257."""
    return ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def eight_bit_enough(values: npt.NDArray[np.uint16]) -> bool:
    """Whether 16-bit values are 257 times those of 8 bits."""
    return bool((values % np.uint16(257) == 0).all())


def few_levels(values: npt.NDArray[Any]) -> tuple[str, ...]:
    """A sentence if 16-bit values keep next to none of their levels in 8 bits."""
    high = int(values.max())
    if high >= 1 << FEW_BITS or high < 1:
        return ()
    before, after = len(np.unique(values)), len(np.unique(eight_bit(values)))
    return (f"its 16-bit values reach {high} only; of {before} levels {after} remain; scale them first",)


def white_of_bits(high: int) -> int:
    """The value that is white in 8 bits: 65535, or that of so few bits as 16-bit values up to `high` need."""
    return (1 << filled_bits(high)) - 1 if 0 < high < 1 << FEW_BITS else TOP


def white_remarks(white: int, span: tuple[int, int] | None = None) -> list[str]:
    """A sentence, if 8 bits of a picture of 16 are not simply the upper ones, or hold next to nothing of it.

    Arguments:
        white: the value that is white in 8 bits.
        span: the least and the greatest value, if they are known.
    """
    bits = white.bit_length()
    if white < TOP:
        return [f"its values fill {bits} of 16 bits; they are taken as {bits}-bit values"]
    if span is not None and span[1] - span[0] < 1 << FEW_BITS:
        return [f"its values are all from {span[0]} to {span[1]}; next to no levels of them remain in 8 bits"]
    return []


def filled_bits(high: float) -> int:
    """Bits, from 8 on, that integers up to `high` need; 16 of nothing but zeros."""
    return max(8, int(high).bit_length()) if high > 0 else 16


def span_of(values: npt.NDArray[np.uint16], wanted: ValueRange = "bits") -> tuple[int, int] | None:
    """The least and the greatest value that 16-bit values are coded between; None: 0 and 65535.

    Arguments:
        values: of a picture.
        wanted: "bits": from 0 to the greatest that needs no more bits than they do; "filled": from the least to the
            greatest of them; "full": all of 16 bits; or two values, between which they all are.

    Raises:
        ImageError: there are values outside the two that are given, or these are none.
    """
    low, high = int(values.min()), int(values.max())
    if wanted == "full":
        return None
    if wanted == "bits":
        span = 0, (1 << filled_bits(high)) - 1
    elif wanted == "filled":
        span = low, high
    elif isinstance(wanted, str) or not _ordered(wanted):
        names = ", ".join(repr(name) for name in VALUE_RANGES)
        raise ImageError(f"a range of values is {names} or two whole numbers from 0 to {TOP}, not {wanted!r}")
    else:
        span = int(wanted[0]), int(wanted[1])
        if not span[0] <= low <= high <= span[1]:
            raise ImageError(f"its values reach from {low} to {high}, beyond the range of {span[0]} to {span[1]}")
    return None if span in ((0, TOP), (low, low)) else span


def _ordered(span: Any) -> bool:
    """Whether these are two 16-bit values, the lesser of which comes first."""
    try:
        low, high = (operator.index(value) for value in span)
    except (TypeError, ValueError):
        return False
    return 0 <= low < high <= TOP


def white_level(values: npt.NDArray[Any], high: float) -> tuple[int, tuple[str, ...]]:
    """The value that stands for white, so that levels are not lost for want of a header that says it; and a note."""
    floating = np.issubdtype(values.dtype, np.floating)
    if floating and high <= 1:
        return 1, ()
    if floating and float(np.quantile(values, MOST)) <= 1 and bool((values % 1 != 0).mean() > 0.5):
        return 1, (f"its values reach {high:g}; those above 1 are shown as white",)
    wide = values.dtype.itemsize > 2
    if high >= 1 << FEW_BITS or (wide and high <= 255) or high == 0:  # 32-bit files that hold 8-bit values
        top = 255 if wide and high <= 255 else 65535
        dark = floating and high < top / DARK and bool((values % 1 != 0).any())
        told = f"its floating-point values reach {high:g} and are taken as levels of {top}; scale them to 0 to 1 first"
        return top, (told,) if dark else ()
    white = white_of_bits(int(high))
    return white, tuple(white_remarks(white))


def scaled(
    values: npt.NDArray[Any], twelve: bool = False, inverted: bool = False
) -> tuple[Bytes, bool, tuple[str, ...], Words]:
    """8-bit values of samples of more bits, whether they were rounded, what is to be said of that; and 16 bits.

    Integers of up to 16 bits are their own 16-bit values, whatever stands for white.

    Arguments:
        values: integers or floating-point numbers.
        twelve: they are 12-bit.
        inverted: zero is white.

    Raises:
        ImageError: there are values that are not finite, or outside 0 to 65535.
    """
    if not np.isfinite(values).all():
        raise ImageError("the picture holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        raise ImageError("the picture's values are outside 0 to 65535")
    top, notes = (4095, ()) if twelve else white_level(values, high)
    levels = np.minimum(values, top).astype(np.float32) * np.float32(255 / top)
    rounded = np.floor(levels + np.float32(0.5)).astype(np.uint8)
    lossy = high > top or bool((np.abs(levels - rounded) > FLOAT_TOLERANCE).any())
    floating = np.issubdtype(values.dtype, np.floating)
    words = (values.clip(0, top) * (65535 / top) + 0.5 if floating else values).astype(np.uint16)
    if inverted:
        return 255 - rounded, lossy, notes, np.uint16(top if twelve else 65535) - words
    return rounded, lossy, notes, words
