"""A set of samples: what is trained on, what is measured on, the true factors, and features that people can read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.supervised.factors import Factors

__all__ = ["Dataset", "pooled"]

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def _itself(x: Float32) -> Floats:
    return np.asarray(x.reshape(len(x), -1), np.float64)


@dataclass(frozen=True)
class Dataset:
    """Samples for training and for measuring.

    Arguments:
        name: of the set.
        train, held_out: `(n, *shape)`; pictures are `(n, C, H, W)` in 0 to 1, other features are standardised.
        factors: of the held-out samples, if they are known.
        feature_names: of what `features` gives.
        features: samples to features `(n, p)`; for pictures, statistics with a meaning.
        noise: deviation of the noise in the samples, or to be assumed, in units of x.
        pictures: whether the samples are pictures.
    """

    name: str
    train: Float32
    held_out: Float32
    factors: Factors | None
    feature_names: tuple[str, ...]
    features: Callable[[Float32], Floats] = _itself
    noise: float = 0.3
    pictures: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return tuple(self.train.shape[1:])


def pooled(x: Float32, cells: int = 8) -> Floats:
    """Means of `cells × cells` parts of pictures `(n, C, H, W)`, `(n, C · cells²)`."""
    n, channels, height, width = x.shape
    blocks = x.reshape(n, channels, cells, height // cells, cells, width // cells)
    return np.asarray(blocks.mean((3, 5), dtype=np.float64).reshape(n, -1))
