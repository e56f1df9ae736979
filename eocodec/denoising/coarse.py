"""Noise that has lost its finest frequencies: told, and removed, at half the size of the picture.

In: values `(H, W, 3)`, float32 in 0 to 1, and what measures or removes white noise. Out: how strong noise is that is
not white; the picture without it.

Demosaicers, scalers and blurs correlate neighbouring pixels. Means of 2x2 pixels depend on one another much less, so
the measure for white noise sees the noise there; how much stronger it is at full size the smoothest patches tell. At a
quarter of the size less noise is left, while texture shows more: this tells one from the other.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from eocodec.denoising import noise_areas
from eocodec.denoising.noise_areas import Hidden

__all__ = ["coarse_level", "coarse_removed", "halved"]

Float32 = npt.NDArray[np.float32]
Areas = npt.NDArray[np.bool_]

LEAST = 1.5 / 255  # level at half the size, below which nothing is claimed
TEXTURE = 1.2  # from this ratio of the levels at a quarter and at half the size on, it is texture
# Correlation of the channels, beyond which it is texture: that of noise behind a demosaicer is up to 0.85, but so is
# that of the one clean photo of 400 that was taken for noisy.
ALIKE = 0.84
LARGEST_RATIO = 2.0  # of the levels at full and at half size; that of white noise
LEAST_RATIO = 0.65  # of how rough the smoothest patches are at both; below, smooth texture; noise on texture has 0.7
LEAST_SHARE = 0.15  # of all areas, in which noise can be measured; below, most of the picture is flat or drawn
SMALLEST_EDGE = 96  # pixels, of a picture of which a quarter still tells something


def coarse_level(
    values: Float32,
    areas: Areas,
    alpha: npt.NDArray[np.uint8] | None,
    measure: Callable[[Float32, Areas], float],
    spread: float = 1.0,
) -> Hidden | None:
    """Noise as seen at coarser scales, in the terms of `measure`; None where it may be texture.

    Arguments:
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured.
        alpha: transparency `(H, W)`, if there is any.
        measure: level of white noise in a picture and its areas.
        spread: what `measure` gives for the standard deviation of a channel; √3 for the luma axis of grey pictures.
    """
    if min(values.shape[:2]) < SMALLEST_EDGE or areas.mean() < LEAST_SHARE:
        return None
    half = halved(values)
    clear = None if alpha is None else alpha[::2, ::2][: half.shape[0], : half.shape[1]]
    half_areas = noise_areas.trusted(half, clear)
    if not half_areas.any():
        return None
    level = measure(half, half_areas)
    if level < LEAST:
        return None
    quarter = halved(half)
    clear = None if clear is None else clear[::2, ::2][: quarter.shape[0], : quarter.shape[1]]
    quarter_areas = noise_areas.trusted(quarter, clear)
    if not quarter_areas.any() or measure(quarter, quarter_areas) > TEXTURE * level:
        return None
    fine, coarse = noise_areas.correlated(values, areas), noise_areas.correlated(half, half_areas)
    if fine is None or coarse is None or (spread == 1 and fine.colours > ALIKE):
        return None
    ratio = fine.roughness / coarse.roughness
    if ratio < LEAST_RATIO or abs(fine.far) > noise_areas.MOST_FAR or fine.peaked > noise_areas.LARGEST_PEAK:
        return None
    ratio = min(max(ratio, 1.0), LARGEST_RATIO)
    full = min(level * ratio, spread * fine.roughness)  # nowhere is there less than the noise
    return Hidden(full, level, fine.near)


def coarse_removed(values: Float32, coarse: float, remove: Callable[[Float32, float], Float32]) -> Float32:
    """The picture without the part of its noise that is left in means of 2x2 pixels; the finer part is still there.

    What takes noise for white and works at full size finds the fine part weaker and the coarse part stronger than it
    expects: of the latter it leaves most.

    Arguments:
        values: the picture.
        coarse: standard deviation of the noise in means of 2x2 pixels, in the terms of `remove`.
        remove: gives a picture without white noise of a level.
    """
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    half = halved(even)
    noise = half - remove(half, coarse)
    return values - noise.repeat(2, 0).repeat(2, 1)[:height, :width]


def halved(values: Float32) -> Float32:
    """Means of 2x2 pixels; an odd last row or column is left out."""
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    return values[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3), dtype=np.float32)
