"""Denoising in the ordered latent space: empirical-Bayes shrinkage, or dropping latents below the water line.

In: a noisy picture and its noise level (or "auto"). Out: a clean picture of the same shape, uint8 or float.

Shrinkage visits the latents from core to detail, as the entropy decoder does. The integer entropy model, fed with the
latents already cleaned, predicts mean μ and scale b of the next ones; their posterior mean under a Laplace prior and
Gaussian noise replaces them. The result is averaged over shifts of the picture against the wavelet lattice.

References:
    Coifman & Donoho, *Translation-invariant de-noising*, 1995. https://doi.org/10.1007/978-1-4612-2544-7_9
    Chang, Yu & Vetterli, *Adaptive wavelet thresholding for image denoising and compression*, 2000.
    https://doi.org/10.1109/83.862633
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec import flat, transform
from eocodec.bundle import Manifest, Model, load_model
from eocodec.entropy import Walk
from eocodec.errors import EocodecError
from eocodec.format import Header
from eocodec.image import ImageLike, Picture, as_picture
from eocodec.latents import PHASES, Unit, band_steps, step_code

__all__ = ["SHIFTS", "denoise", "estimate_sigma"]

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

# Offsets against the lattice; every prefix spreads over the parities of the finest two levels.
SHIFTS = ((0, 0), (1, 1), (3, 2), (2, 3), (5, 0), (0, 5), (6, 7), (7, 6))
SMALLEST_SIGMA = 0.3  # 8-bit levels; below, a picture counts as clean

# Grid of the posterior mean: |y| / s in 1/8 up to 16, log2(b / s) in 1/4 from −12 to 12.
_Y = np.arange(129) / 8
_LOG_B = np.arange(-48, 49) / 4


@functools.cache
def _posterior() -> npt.NDArray[np.float64]:
    """E[x | y] in units of the noise: x Laplace of scale b, y = x + N(0, 1); rows log2 b, columns y."""
    t = np.linspace(-7, 7, 281)
    x = _Y[:, None] + t
    result = np.empty((len(_LOG_B), len(_Y)))
    for k, b in enumerate(np.exp2(_LOG_B)):
        log_weight = -np.abs(x) / b - t**2 / 2
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        result[k] = (weight * x).sum(1) / weight.sum(1)
    return result


def _posterior_rows(noise: float) -> Float32:
    """Posterior means for the 64 scale indices at noise `noise` (steps): `(64, 129)`, in units of the noise."""
    table = _posterior()
    log_b = math.log2(0.05) + np.arange(64) / 5 - math.log2(noise)
    place = np.clip((log_b - _LOG_B[0]) * 4, 0, len(_LOG_B) - 1.001)
    low = place.astype(int)
    part = (place - low)[:, None]
    return (table[low] * (1 - part) + table[low + 1] * part).astype(np.float32)


class _Shrinkage:
    """The coder that :class:`eocodec.entropy.Walk` asks: cleans latents instead of coding them."""

    def __init__(self, targets: list[Float32], noise: list[npt.NDArray[np.float64]], levels: int) -> None:
        self.targets, self.levels = targets, levels
        self.clean = [targets[0], *(np.empty_like(t) for t in targets[1:])]
        self.noise = [np.maximum(n, 1e-4) for n in noise]
        self.rows = [np.stack([_posterior_rows(float(s)) for s in n]) for n in self.noise]

    def wants(self, unit: int) -> bool:
        """Every unit is cleaned."""
        return True

    def begin(self, unit: int) -> None:
        """Nothing to do."""

    def low(self, predicted: Int32, index: UInt8, place: tuple[int, slice, slice]) -> Int32:
        """The low-pass is kept; its integers are context only."""
        return np.floor(self.targets[0][place[0]][place[1:]] + np.float32(0.5)).astype(np.int32)

    def strip(self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: UInt8) -> Int32:
        """Posterior means of a strip, kept in `clean`; returns them rounded, as context."""
        k = 1 + self.levels - unit.level
        band, out = self.targets[k][unit.channels], self.clean[k][unit.channels]
        noise = self.noise[k][unit.channels].astype(np.float32)[:, None, None]
        tables = self.rows[k][unit.channels]
        channel = np.arange(len(band))[:, None, None]
        result = np.empty(mean.shape, np.int32)
        for n, p in enumerate(unit.phases):
            i, j = PHASES[p]
            mu = mean[n].astype(np.float32) * np.float32(1 / 16)
            r = band[:, i::2, j::2][:, rows] - mu
            y = np.abs(r) / noise * np.float32(8)
            low = np.minimum(y, 127.0).astype(np.intp)
            part = np.minimum(y - low, 1.0)
            x = tables[channel, index[n], low] * (1 - part) + tables[channel, index[n], low + 1] * part
            x += np.maximum(y - 128, 0) / 8  # beyond the grid the shrinkage is constant
            x = np.copysign(x * noise, r)
            out[:, i::2, j::2][:, rows] = x + mu
            result[n] = np.floor(x + np.float32(0.5)).astype(np.int32) * 16 + mean[n]
        return result


def _noise_gain(manifest: Manifest) -> list[npt.NDArray[np.float64]]:
    return [np.array(row) for row in manifest.denoise["gain"]]


def _estimate(manifest: Manifest, latents: list[Float32], grey: bool) -> float:
    """Noise level (range 0 to 1) from the median of the finest diagonal band; the quietest colour axis counts."""
    gain = _noise_gain(manifest)[-1]
    axes = (0,) if grey else (0, 1, 2)
    spread = min(float(np.median(np.abs(latents[-1][3 * a + 2]))) / float(gain[3 * a + 2]) for a in axes)
    return spread / 0.6745 / float(manifest.denoise["estimate"])


def estimate_sigma(image: ImageLike | Picture, model: str | Path | Model = "photo") -> float:
    """Estimated standard deviation of white noise in a picture, in 8-bit levels.

    Raises:
        EocodecError: the picture is of an unsupported kind.
    """
    loaded = load_model(model)
    rgb, grey = _values(image)
    if loaded.kind == "flat":
        return 255 * flat.noise_level(loaded.flat, flat.encode_picture(loaded, rgb))
    return 255 * _estimate(loaded.manifest, transform.encode_picture(loaded, rgb), grey)


def _values(image: ImageLike | Picture) -> tuple[Float32, bool]:
    """`(H, W, 3)` float32 and whether it is grey; float arrays may leave 0 to 1, as unclipped noise does."""
    if isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)) or 0 in image.shape:
            raise EocodecError(
                f"a floating-point picture must have the shape (H, W), (H, W, 1) or (H, W, 3), not {image.shape}"
            )
        if not np.isfinite(image).all():
            raise EocodecError("the picture holds values that are not finite")
        values = np.asarray(image, np.float32).reshape(*image.shape[:2], -1)
        return (np.repeat(values, 3, 2), True) if values.shape[2] == 1 else (values, False)
    picture = as_picture(image)
    return picture.rgb.astype(np.float32) / np.float32(255), picture.grey


def _shrink_once(model: Model, values: Float32, latents: list[Float32], sigma: float) -> Float32:
    """One pass of shrinkage at noise level `sigma` (range 0 to 1)."""
    manifest = model.manifest
    height, width = values.shape[:2]
    delta = float(np.clip(manifest.denoise["step"] * sigma, 1.0 / 255, 1.0))
    header = Header(model.id, width, height, 0, step_code(delta))
    steps = band_steps(manifest, header.delta)
    factor = manifest.denoise["noise"] * sigma
    noise = [factor * g / s[:, 0, 0] for g, s in zip(_noise_gain(manifest), steps, strict=True)]
    coder = _Shrinkage([h / s for h, s in zip(latents, steps, strict=True)], noise, manifest.levels)
    Walk(model, header).run(coder)
    clean = [c * s for c, s in zip(coder.clean, steps, strict=True)]
    return _picture(model, clean, header.delta, values.shape)


def _keep_top(model: Model, values: Float32, latents: list[Float32], rate: float) -> Float32:
    """The picture of the first C latents in the order of explained entropy; the band at the cut is scaled."""
    manifest = model.manifest
    kept = [np.zeros_like(h) for h in latents]
    left = rate
    for band, channel in manifest.order:
        count = 1 if band == 0 else 4 ** (band - 1)
        kept[band][channel] = latents[band][channel] * np.float32(min(1.0, max(0.0, left / count)))
        left -= count
    return _picture(model, kept, 1.0 / 255, values.shape)


def _drop(model: Model, values: Float32, sigma: float | None, rate: float | None) -> Float32:
    """A small picture from its top C latents by a flat model; C follows from the noise level, measured if not given."""
    latents = flat.encode_picture(model, values)
    if rate is None:
        level = flat.noise_level(model.flat, latents) if sigma is None else sigma
        if level * 255 < SMALLEST_SIGMA:
            return values
        rate = flat.rate_of_noise(model.flat, level)
    kept = flat.keep_top(model.flat, latents, rate)
    return flat.synthesise(model, kept[None], flat.core_step(model.flat, rate))[0]


def _picture(model: Model, latents: list[Float32], delta: float, shape: tuple[int, ...]) -> Float32:
    result = np.empty(shape, np.float32)
    for rows, columns, piece in transform.decode_tiles(model, latents, delta, shape[1], shape[0]):
        result[rows, columns] = piece.transpose(1, 2, 0)
    return result


def denoise(
    image: ImageLike | Picture,
    sigma: float | str = "auto",
    *,
    rate: float | None = None,
    shifts: int = 4,
    model: str | Path | Model = "photo",
) -> npt.NDArray[Any]:
    """Remove white noise from a picture.

    Arguments:
        image: as for `eocodec.compress`; floating-point arrays may leave the range 0 to 1.
        sigma: standard deviation of the noise in 8-bit levels, or "auto" to estimate it.
        rate: instead of shrinking, keep the top C latents of every block and set the rest to zero.
        shifts: pictures averaged over shifts, 1 to 8: slower and better.
        model: a shipped model's name, a bundle's path or a loaded model.

    Returns:
        `(H, W, 3)`: uint8, or float32 in 0 to 1 for floating-point input.

    Raises:
        EocodecError: an argument is out of range, or the picture is of an unsupported kind.
    """
    loaded = load_model(model)
    if not 1 <= shifts <= len(SHIFTS):
        raise EocodecError(f"shifts must be from 1 to {len(SHIFTS)}, not {shifts}")
    if isinstance(sigma, str):
        if sigma != "auto":
            raise EocodecError(f"sigma must be a number of 8-bit levels or auto, not {sigma}")
    elif not (math.isfinite(sigma) and 0 <= sigma <= 255):
        raise EocodecError(f"sigma must be from 0 to 255 levels, not {sigma:g}")
    floating = isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)
    values, grey = _values(image)
    if rate is not None and not 1 <= rate <= loaded.block:
        raise EocodecError(f"the rate must be from 1 to {loaded.block} latents a block, not {rate:g}")
    height, width = values.shape[:2]
    total = np.zeros_like(values)
    level = 0.0 if isinstance(sigma, str) else float(sigma) / 255
    if loaded.kind == "flat":
        total, shifts = _drop(loaded, values, None if isinstance(sigma, str) else level, rate), 0
    for number, (down, right) in enumerate(SHIFTS[:shifts]):
        shifted = np.pad(values, ((down, 0), (right, 0), (0, 0)), "edge")
        latents = transform.encode_picture(loaded, shifted)
        if rate is not None:
            total += _keep_top(loaded, shifted, latents, rate)[down:, right:]
            continue
        if number == 0 and isinstance(sigma, str):
            level = _estimate(loaded.manifest, latents, grey)
        if level * 255 < SMALLEST_SIGMA:
            total = values * shifts
            break
        total += _shrink_once(loaded, shifted, latents, level)[down:, right:]
    result = np.clip(total / np.float32(max(1, shifts)), 0, 1)
    if grey:
        result = np.repeat(result.mean(2, keepdims=True, dtype=np.float32), 3, 2)
    assert result.shape == (height, width, 3)
    return result if floating else np.floor(result * 255 + np.float32(0.5)).astype(np.uint8)
