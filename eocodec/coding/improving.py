"""What an encoder may do to latents before they are coded, other than take them from the transform.

In: the latents of a picture, and what a decoder makes of latents. Out: latents whose file comes closer to the picture.
The ordinary form calls it; what does it (`eocodec.effort`) needs gradients, which coding knows nothing of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from eocodec.format import Header
from eocodec.image import Picture
from eocodec.model.bundle import Model
from eocodec.model.transform import Places

__all__ = ["Improver", "PictureAtStep"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PictureAtStep:
    """A picture on its way into a file whose step is known.

    Arguments:
        model: that encodes.
        picture: what a decoded file is compared with.
        values: its colours before they were rounded, `(H, W, 3)` in 0 to 1, if they are known.
        header: of the file; size, step, tuning and greyness matter.
        places: what the decoder graph takes besides latents and Δ.
        refined: whether the file's picture takes the refinement.
    """

    model: Model
    picture: Picture
    values: Float32 | None
    header: Header
    places: Places
    refined: bool


class Improver(Protocol):
    """Finds latents for a picture and a step."""

    def __call__(
        self,
        wanted: PictureAtStep,
        latents: list[Float32],
        decoded: Callable[[list[Float32]], list[Float32]],
    ) -> list[Float32]:
        """Latents `[LL (3, h, w), details L (9, h, w), …]` to code in place of those of the transform.

        Arguments:
            wanted: the picture and its file.
            latents: of the transform; they stay as they are.
            decoded: the latents that a decoder has, of a file of these.
        """
        ...
