"""Which value of a picture of more than 8 bits stands for white, so that no levels are lost without a word.

In: sample values. Out: the value that is white, values of 8 and 16 bits, and sentences on what is unusual.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import ImageError

__all__ = ["FEW_BITS", "FLOAT_TOLERANCE", "eight_bit", "few_levels", "filled_bits", "scaled", "white_level"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

FEW_BITS = 12  # 16-bit values that need no more are those of a camera or scanner of so many bits
FLOAT_TOLERANCE = 1e-3  # levels; floats nearer to a level than this count as 8-bit values
MOST = 0.99  # of the values of a floating-point picture; the others may be outliers
DARK = 16  # times less than white reaches a floating-point picture whose range is likely to be another one


def eight_bit(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """16-bit to 8-bit, rounded: v / 257."""
    return ((np.asarray(values).astype(np.uint32) + 128) // 257).astype(np.uint8)


def few_levels(values: npt.NDArray[Any]) -> tuple[str, ...]:
    """A sentence if 16-bit values keep next to none of their levels in 8 bits."""
    high = int(values.max())
    if high >= 1 << FEW_BITS or high < 1:
        return ()
    before, after = len(np.unique(values)), len(np.unique(eight_bit(values)))
    return (f"its 16-bit values reach {high} only; of {before} levels {after} remain; scale them first",)


def filled_bits(high: float) -> int:
    """Bits that 16-bit values up to `high` fill if they are those of a camera or scanner of fewer bits, else 16."""
    return max(8, int(high).bit_length()) if 0 < high < 1 << FEW_BITS else 16


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
    bits = filled_bits(high)
    return (1 << bits) - 1, (f"its values fill {bits} of 16 bits; they are taken as {bits}-bit values",)


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
