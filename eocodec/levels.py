"""Which value of a picture of more than 8 bits stands for white, so that no levels are lost without a word.

In: sample values. Out: the value that is white, 8-bit values, and sentences on what is unusual.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FEW_BITS", "eight_bit", "few_levels", "white_level"]

FEW_BITS = 12  # 16-bit values that need no more are those of a camera or scanner of so many bits
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
    bits = max(8, int(high).bit_length())
    return (1 << bits) - 1, (f"its values fill {bits} of 16 bits; they are taken as {bits}-bit values",)
