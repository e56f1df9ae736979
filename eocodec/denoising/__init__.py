"""Denoising in the ordered latent space: the methods, and the nets and estimators behind them.

Knows models and the walk of the entropy model (`eocodec.coding.walk`), which tells what latents are likely.
"""

from eocodec.denoising.methods import (
    METHODS,
    SHIFTS,
    SMALLEST_SIGMA,
    Denoised,
    denoise,
    denoise_picture,
    estimate_sigma,
)

__all__ = ["METHODS", "SHIFTS", "SMALLEST_SIGMA", "Denoised", "denoise", "denoise_picture", "estimate_sigma"]
