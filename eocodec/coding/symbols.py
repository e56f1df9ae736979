"""The integers that a file holds, before any floating-point arithmetic: what other decoders are compared by.

In: `.eoc` bytes or a prefix of them. Out: one flat int32 array in the order that docs/FORMAT.md, "Test vectors", gives.
"""

import numpy as np
import numpy.typing as npt

from eocodec import format
from eocodec.coding.registry import coding_of
from eocodec.model.library import Models, library_of

__all__ = ["symbols"]


def symbols(data: bytes, model: Models = None) -> npt.NDArray[np.int32]:
    """All integers of a file, one after another.

    Arguments:
        data: the file.
        model: bundle, or library of bundles, to use; default: the shipped one that the file names.

    Returns:
        int32 `(n,)`, bands one after another, each in C order: of an ordinary file the low-pass integers and every
        detail latent in 1/16 steps; of an embedded stream the low-pass in 1/16 levels and, of every detail latent,
        its sign times (2 lower + width); of models with one latent vector the latents in 1/16 steps; of a lossless
        file R, G, B of every pixel.

    Raises:
        FormatError: not an `.eoc` file, damaged, or its model is not at hand.
    """
    file = format.from_bytes(data)
    loaded = library_of(model).of(file)
    return coding_of(file, loaded.any_manifest).symbols(loaded, file)
