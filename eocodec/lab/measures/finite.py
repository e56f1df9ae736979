"""What measures take: finite numbers. Comparisons with NaN are false, so that it would be read as 0 or as dead."""

from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError

__all__ = ["finite"]

Floats = npt.NDArray[np.float64]


def finite(values: npt.NDArray[Any], what: str) -> Floats:
    """The values themselves, in double precision.

    Arguments:
        values: of any shape.
        what: they are, for the error.

    Raises:
        EocodecError: one is not finite.
    """
    if not np.isfinite(values).all():
        raise EocodecError(f"{what} that are not finite numbers cannot be measured")
    return np.asarray(values, np.float64)
