"""Picture quality and rate-distortion figures.

In: arrays `(H, W, 3)` of 8 or 16 bits, or rate-distortion points. Out: decibels, MS-SSIM, Bjøntegaard rate differences.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "bd_rate",
    "bd_rate_between",
    "decibels",
    "ms_ssim",
    "psnr",
    "squared_error",
    "visible_samples",
    "with_hidden_of",
]

Samples = npt.NDArray[Any]

STRIP = 1 << 18  # samples that are compared at a time


def psnr(a: Samples, b: Samples, alpha: Samples | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all samples that can be seen; infinite if these are equal.

    The peak is 255, or 65535 where the first picture has 16 bits, so that decibels of either depth compare.

    Arguments:
        a, b: the pictures.
        alpha: transparency `(H, W)`; pixels where it is 0 do not count, all others count alike. None: all can be seen.

    Raises:
        ValueError: shapes differ.
    """
    return decibels(squared_error(a, b, alpha), visible_samples(a, alpha), peak(a))


def visible_samples(a: Samples, alpha: Samples | None) -> int:
    """How many samples of a picture `(H, W, 3)` can be seen under its transparency `(H, W)`, None being none."""
    return a.size if alpha is None else int(np.count_nonzero(alpha)) * (a.size // max(1, alpha.size))


def with_hidden_of(a: Samples, b: Samples, alpha: Samples | None) -> Samples:
    """The second picture `(H, W, 3)` with what transparency `(H, W)` hides taken from the first.

    Measures that look at neighbourhoods find no difference there.
    """
    return b if alpha is None else np.where((alpha == 0)[:, :, None], a, b)


def squared_error(a: Samples, b: Samples, alpha: Samples | None = None) -> float:
    """Sum of squared differences where `alpha`, if given, is not 0; exact for values of 8 and 16 bits.

    Raises:
        ValueError: shapes differ.
    """
    if a.shape != b.shape or (alpha is not None and alpha.shape != a.shape[:2]):
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    total = 0.0
    kind = np.int32 if a.dtype == b.dtype == np.uint8 else np.float64
    rows = max(1, STRIP // max(1, a[0].size))
    for k in range(0, len(a), rows):  # in strips: no wider copy of a large picture
        d = np.subtract(a[k : k + rows], b[k : k + rows], dtype=kind)
        if alpha is not None:
            d *= (alpha[k : k + rows] != 0)[:, :, None]
        total += float(np.multiply(d, d, out=d).sum(dtype=np.float64))
    return total


def peak(a: npt.NDArray[np.generic]) -> float:
    """The largest value of a picture's samples: 65535 if they have 16 bits, else 255."""
    return 65535.0 if a.dtype == np.uint16 else 255.0


def decibels(error: float, samples: int, peak: float = 255.0) -> float:
    """PSNR of a sum of squared differences; infinite for none."""
    return math.inf if error == 0 else 10 * math.log10(peak**2 * samples / error)


_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity, mean over RGB; both sides at least 176 pixels (extra `bench`).

    References:
        Wang, Simoncelli & Bovik, *Multiscale structural similarity for image quality assessment*, 2003.
        https://doi.org/10.1109/ACSSC.2003.1292216

    Raises:
        ValueError: shapes differ or a side is below 176 pixels.
    """
    if a.shape != b.shape or min(a.shape[:2]) < 176:
        raise ValueError("MS-SSIM needs two pictures of the same size, at least 176 pixels on each side")
    from scipy.ndimage import gaussian_filter1d

    def blur(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        for axis in (0, 1):  # an 11-tap window, only where it fits
            p = gaussian_filter1d(p, 1.5, axis, radius=5).take(range(5, p.shape[axis] - 5), axis)
        return p

    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    result = np.ones(a.shape[2])
    for k, weight in enumerate(_WEIGHTS):
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        structure = (2 * cov + c2) / (vx + vy + c2)
        if k == len(_WEIGHTS) - 1:
            structure = structure * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        result *= np.maximum(structure.mean((0, 1)), 0) ** weight
        h, w = (n // 2 * 2 for n in x.shape[:2])
        x, y = ((p[0:h:2, 0:w:2] + p[1:h:2, 0:w:2] + p[0:h:2, 1:w:2] + p[1:h:2, 1:w:2]) / 4 for p in (x, y))
    return float(result.mean())


def bd_rate(
    anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], low: float, high: float
) -> float:
    """Bjøntegaard rate difference in percent: how much more rate `test` needs than `anchor` at equal quality.

    Points are (bits per pixel, dB). Log-rate is interpolated over quality by a monotone cubic (PCHIP) and integrated
    over the quality range in which the anchor's rate lies in [low, high] and both curves are defined (extra `bench`).

    References:
        Bjøntegaard, *Calculation of average PSNR differences between RD-curves*, VCEG-M33, 2001.

    Raises:
        ValueError: the curves do not overlap there.
    """
    from scipy.interpolate import PchipInterpolator as Pchip

    (ra, qa), (_, qt) = _curve(anchor), _curve(test)
    to_quality = Pchip(ra, qa)
    bottom = max(float(to_quality(max(math.log(low), ra[0]))), qa[0], qt[0])
    top = min(float(to_quality(min(math.log(high), ra[-1]))), qa[-1], qt[-1])
    return _mean_difference(anchor, test, bottom, top)


def bd_rate_between(
    anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], worst: float, best: float
) -> float:
    """As :func:`bd_rate`, over the qualities from `worst` to `best` as far as both curves have them.

    Raises:
        ValueError: the curves do not overlap there.
    """
    qualities = [_curve(points)[1] for points in (anchor, test)]
    return _mean_difference(
        anchor, test, max(worst, *(q[0] for q in qualities)), min(best, *(q[-1] for q in qualities))
    )


def _mean_difference(
    anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], bottom: float, top: float
) -> float:
    from scipy.interpolate import PchipInterpolator as Pchip

    if top - bottom < 0.05:
        raise ValueError("the curves do not overlap in this range")
    (ra, qa), (rt, qt) = _curve(anchor), _curve(test)
    q = np.linspace(bottom, top, 2001)
    difference = Pchip(qt, rt)(q) - Pchip(qa, ra)(q)
    return 100 * (math.exp(float(np.trapezoid(difference, q) / (top - bottom))) - 1)


def _curve(points: Sequence[tuple[float, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ordered = sorted(points)
    rate, quality = np.log([p[0] for p in ordered]), np.array([p[1] for p in ordered])
    keep = np.concatenate([[True], quality[1:] > np.maximum.accumulate(quality)[:-1]])
    return rate[keep], quality[keep]
