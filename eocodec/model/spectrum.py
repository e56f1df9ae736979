"""The spectrum of a model: explained entropies of its latents in falling order.

In: what a manifest holds. Out: ranks, entropies, deviations, bits at a step (docs/METHOD.md).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["GAUSSIAN", "Spectrum", "noise_floor"]

Floats = npt.NDArray[np.float64]

GAUSSIAN = 0.5 * math.log(2 * math.pi * math.e)  # entropy of the standard normal density, nats
CURVE_POINTS = 400  # of a curve, about; evenly spaced in the logarithm of the rank


@dataclass(frozen=True)
class Spectrum:
    """Explained entropies in falling order, one entry for every latent, or for every group that shares one.

    Arguments:
        entropy: H of every group `(n,)`, nats, pictures in 0 to 1.
        count: latents in every group `(n,)`.
        names: of the groups; `h[i]`, i in coding order, or band and channel.
        unit: what the latents belong to: "picture", or a "block" of that many pixels.
        pixels: of the unit.
    """

    entropy: Floats
    count: npt.NDArray[np.int64]
    names: tuple[str, ...]
    unit: str
    pixels: int

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """Rank of the first latent of every group, from 1."""
        return np.cumsum(self.count) - self.count + 1

    @property
    def deviation(self) -> Floats:
        """Standard deviation σ of the Gaussian with every entropy: σ² = exp(2 H) / (2πe), 8-bit levels."""
        return 255 * np.exp(self.entropy) / math.sqrt(2 * math.pi * math.e)

    def bits(self, delta: float) -> Floats:
        """Bits of one latent of every group at step Δ (range 0 to 1), high-resolution theory: max(0, H − log Δ)."""
        return np.maximum(0.0, self.entropy - math.log(delta)) / math.log(2)

    def cumulative_bits(self, delta: float) -> Floats:
        """Bits of a unit's latents up to the end of every group."""
        return np.cumsum(self.bits(delta) * self.count)

    def above(self, sigma: float) -> int:
        """Latents of a unit whose entropy is above that of white noise of deviation `sigma` (range 0 to 1)."""
        return int(self.count[self.entropy > noise_floor(sigma)].sum())

    def latents_for(self, share: float, delta: float) -> int:
        """How many latents of a unit hold this share of its bits at step Δ."""
        bits = np.cumsum(np.repeat(self.bits(delta), self.count))
        return int(np.searchsorted(bits, share * bits[-1])) + 1 if bits[-1] > 0 else 0

    def curve(self) -> tuple[list[float], list[float]]:
        """Ranks, in the middle of every group, and entropies; long spectra are sorted and thinned out.

        Thinned spectra keep ranks that lie evenly in their logarithm.
        """
        if len(self.entropy) <= CURVE_POINTS:
            return (self.first + (self.count - 1) / 2).tolist(), self.entropy.tolist()
        falling = np.sort(np.repeat(self.entropy, self.count))[::-1]
        largest = math.log(len(falling))
        places = sorted({round(math.exp(k / CURVE_POINTS * largest)) for k in range(CURVE_POINTS + 1)})
        return list(places), [float(falling[p - 1]) for p in places]


def noise_floor(sigma: float) -> float:
    """Entropy in nats of white Gaussian noise of deviation `sigma` in any direction: ½ log(2πe σ²)."""
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2)
