"""Quality from 0 to 100, which stands for a step of the latents and so means the same on every picture.

In: a quality and a model. Out: C, from 1 at quality 0 to the largest of the model at 100.
"""

from eocodec.bundle import Model
from eocodec.codec import _delta_of_rate, _rate_of_delta
from eocodec.errors import EocodecError

__all__ = ["rate_of_quality"]


def rate_of_quality(model: Model, quality: float) -> float:
    """C of a quality: the logarithm of the step Δ falls evenly as the quality rises.

    Raises:
        EocodecError: the quality is not from 0 to 100.
    """
    if not 0 <= quality <= 100:
        raise EocodecError(f"the quality must be from 0 to 100, not {quality:g}")
    coarse, fine = (_delta_of_rate(model, c) for c in (1, model.block))
    delta = coarse * (fine / coarse) ** (quality / 100)
    return min(max(_rate_of_delta(model, delta), 1.0), float(model.block))
