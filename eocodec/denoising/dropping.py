"""Denoising by models for pictures of one size: the latents beyond the C that suits the noise are dropped.

In: pictures of the model's size, or their latents, and the level of the noise. Out: clean pictures; levels and C.
"""

import math

import numpy as np
import numpy.typing as npt

from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.manifest import FlatManifest

__all__ = ["keep_top", "noise_level", "rate_of_noise"]

Float32 = npt.NDArray[np.float32]


def rate_of_noise(manifest: FlatManifest, sigma: float) -> float:
    """C at which dropping serves best against white noise of level `sigma` (range 0 to 1).

    Between the levels of `manifest.drop` log C is linear in log σ; beyond them it is that of the nearest.
    """
    levels, rates = np.log(np.array(manifest.drop)).T
    return float(np.exp(np.interp(math.log(max(255 * sigma, 1e-9)), levels, rates)))


def noise_level(manifest: FlatManifest, latents: Float32) -> float:
    """Level of white noise (range 0 to 1) in a picture, from the quarter of its latents with the least signal.

    The median of their magnitudes over their response to noise, less what clean pictures have there.
    """
    quiet = np.argsort(np.array(manifest.entropy))[: len(manifest.entropy) // 4]
    response = np.array(manifest.noise)[quiet]
    spread = float(np.median(np.abs(latents[quiet]) / response)) / 0.6745
    signal = float(np.median(np.exp(np.array(manifest.entropy)[quiet] + np.array(manifest.gain)[quiet]) / response))
    signal /= math.sqrt(2 * math.pi * math.e)
    return math.sqrt(max(0.0, spread**2 - signal**2))


def keep_top(model: Model, values: Float32, rate: float) -> Float32:
    """A picture `(S, S, 3)` from its top C = `rate` latents."""
    kept = transform.analyse_vector(model, values) * model.flat.kept(rate)
    return transform.synthesise_vectors(model, kept[None], model.flat.core_step(rate))[0]
