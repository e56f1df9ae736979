"""The ladder of scales that table indices stand for, and the unit of means: 0.05 · 2**(k / 5) steps, k = 0 … 63.

In: indices. Out: Laplace scales in steps. Training, export, coding and denoising all take the ladder from here.
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["LIKELY", "MEAN_UNIT", "SCALES", "SCALE_MIN", "SCALE_PER_OCTAVE", "log2_scales", "scales"]

SCALES = 64
SCALE_MIN = 0.05  # Laplace scale of index 0, in steps
SCALE_PER_OCTAVE = 5
MEAN_UNIT = 16  # means are coded in 1/16 of a step
LIKELY = 14  # index from which on a latent of an embedded stream is decided in the first stage of its pass


def scales() -> npt.NDArray[np.float64]:
    """Scale of every index, in steps, `(64,)`."""
    return np.asarray(SCALE_MIN * 2 ** (np.arange(SCALES) / SCALE_PER_OCTAVE))


def log2_scales() -> npt.NDArray[np.float64]:
    """The same in octaves."""
    return math.log2(SCALE_MIN) + np.arange(SCALES) / SCALE_PER_OCTAVE
