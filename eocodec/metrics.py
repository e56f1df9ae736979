"""Picture quality and rate-distortion figures.

In: 8-bit arrays `(H, W, 3)`, or rate-distortion points. Out: decibels, MS-SSIM, Bjøntegaard rate differences.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["bd_rate", "ms_ssim", "psnr"]


def psnr(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio in dB over all samples, peak 255; infinite for equal pictures.

    Raises:
        ValueError: shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    total = 0.0
    rows = max(1, (1 << 22) // max(1, a[0].size))
    for k in range(0, len(a), rows):  # in strips: no float copy of a large picture
        d = a[k : k + rows].astype(np.float64) - b[k : k + rows].astype(np.float64)
        total += float(np.dot(d.ravel(), d.ravel()))
    return math.inf if total == 0 else 10 * math.log10(255.0**2 * a.size / total)


_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def _blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    for axis in (0, 1):
        n = x.shape[axis] - 10
        x = sum(w * x.take(range(k, k + n), axis) for k, w in enumerate(_WINDOW))  # type: ignore[assignment]
    return x


def ms_ssim(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity, mean over the RGB channels; both sides at least 176 pixels.

    References:
        Wang, Simoncelli & Bovik, *Multiscale structural similarity for image quality assessment*, 2003.
        https://doi.org/10.1109/ACSSC.2003.1292216

    Raises:
        ValueError: shapes differ or a side is below 176 pixels.
    """
    if a.shape != b.shape or min(a.shape[:2]) < 176:
        raise ValueError("MS-SSIM needs two pictures of the same size, at least 176 pixels on each side")
    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    result = np.ones(a.shape[2])
    for k, weight in enumerate(_WEIGHTS):
        mx, my = _blur(x), _blur(y)
        vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
        structure = (2 * cov + c2) / (vx + vy + c2)
        if k == len(_WEIGHTS) - 1:
            structure = structure * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        result *= np.maximum(structure.mean((0, 1)), 0) ** weight
        h, w = (n // 2 * 2 for n in x.shape[:2])
        x, y = (
            (p[0:h:2, 0:w:2] + p[1:h:2, 0:w:2] + p[0:h:2, 1:w:2] + p[1:h:2, 1:w:2]) / 4 for p in (x, y)
        )
    return float(result.mean())


def bd_rate(
    anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], low: float, high: float
) -> float:
    """Bjøntegaard rate difference in percent: how much more rate `test` needs than `anchor` at equal quality.

    Points are (bits per pixel, dB). Log-rate is interpolated over quality by a monotone cubic (PCHIP) and integrated over
    the quality range in which the anchor's rate lies in [low, high] and both curves are defined.

    References:
        Bjøntegaard, *Calculation of average PSNR differences between RD-curves*, VCEG-M33, 2001.

    Raises:
        ValueError: the curves do not overlap there.
    """
    (ra, qa), (rt, qt) = (_curve(p) for p in (anchor, test))
    to_quality = _pchip(ra, qa)
    bottom = max(float(to_quality(np.array([max(math.log(low), ra[0])]))[0]), qa[0], qt[0])
    top = min(float(to_quality(np.array([min(math.log(high), ra[-1])]))[0]), qa[-1], qt[-1])
    if top - bottom < 0.05:
        raise ValueError("the curves do not overlap in this range")
    q = np.linspace(bottom, top, 2001)
    difference = _pchip(qt, rt)(q) - _pchip(qa, ra)(q)
    return 100 * (math.exp(float(np.trapezoid(difference, q) / (top - bottom))) - 1)


def _curve(points: Sequence[tuple[float, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ordered = sorted(points)
    rate, quality = np.log([p[0] for p in ordered]), np.array([p[1] for p in ordered])
    keep = np.concatenate([[True], quality[1:] > np.maximum.accumulate(quality)[:-1]])
    return rate[keep], quality[keep]


class _pchip:
    """Monotone piecewise cubic interpolation (Fritsch & Carlson 1980)."""

    def __init__(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
        self.x, self.y = x, y
        h, delta = np.diff(x), np.diff(y) / np.diff(x)
        d = np.zeros_like(y)
        if len(x) == 2:
            d[:] = delta[0]
        else:
            w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
            same = delta[:-1] * delta[1:] > 0
            with np.errstate(divide="ignore", invalid="ignore"):
                d[1:-1] = np.where(same, (w1 + w2) / (w1 / delta[:-1] + w2 / delta[1:]), 0.0)
            d[0], d[-1] = delta[0], delta[-1]
        self.d, self.h = d, h

    def __call__(self, q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        k = np.clip(np.searchsorted(self.x, q, side="right") - 1, 0, len(self.x) - 2)
        h, t = self.h[k], (q - self.x[k]) / self.h[k]
        a, b = 2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t
        return np.asarray(a * self.y[k] + b * h * self.d[k] + (1 - a) * self.y[k + 1] + (t**3 - t**2) * h * self.d[k + 1])
