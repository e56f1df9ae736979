"""Noise of colours, which files for the eye leave out: most of a noisy picture's bits, and the least that is seen.

In: a picture. Out: the picture with calm colours, if it is noisy. Other codecs keep colours at half the resolution,
whatever the picture; here that is done where colours are nothing but noise at the finest scale, and edges stay.

Noise is told from fine colours by what is left of the two differences of colour between neighbouring pixels (the Haar
details): of white noise all three have one deviation, whereas diagonal details of pictures are smaller, and its values
are spread as a normal distribution's are, whereas those of pictures have long tails. Both are judged in blocks, within
which noise is the same (by the median rule of Donoho & Johnstone, *Ideal spatial adaptation by wavelet shrinkage*,
Biometrika 81, 1994). The deviation of a block is what counts as noise there, but no more than that of the median block:
in a block of fine colours the details are the colours. docs/METHOD.md, "Noise of colours", has the figures.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from eocodec.image import Bytes

__all__ = ["Calm", "calmed"]

Float32 = npt.NDArray[np.float32]

BLOCK = 32  # pixels, the edge of a block that is judged by itself
SAMPLE = 16  # blocks of a row, and of a column, that are looked at
LEAST = 1.5  # 8-bit levels, deviation of a colour difference from which on it is worth it
FLAT = 0.25  # levels, the deviation of blocks that hold nothing to judge by
LONGEST_TAIL = 2.6  # of the 0.9-quantile to the median of magnitudes; a normal distribution's is 2.44
LEAST_DIAGONAL = 0.85  # of the deviation of diagonal details to the smaller of the others
MAD = 1.4826  # deviation of a normal distribution over the median of its magnitudes
EDGE = 3.0  # deviations beyond which a difference is no noise
NEAR = ImageFilter.MaxFilter(5)  # pixels that belong to an edge: two around its own
STRIP = 256  # rows that are worked at together
REACH = BLOCK  # rows that are seen above and below them
# Steps down to so many deviations and levels are coarse against noise; at those so many octaves finer it is all coded.
DEVIATIONS, LEVELS, BETWEEN = 0.6, 2.0, 0.25
# Differences of colour, R, G, B to Cb and Cr, and back what they add to R, G, B (ITU-R BT.601).
TO_CHROMA = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
FROM_CHROMA = np.array([[0.0, 1.402], [-0.344136, -0.714136], [1.772, 0.0]], np.float32)


@dataclass(frozen=True)
class Calm:
    """A picture without the noise of its colours: `rgb (H, W, 3)`, and the deviation of what was taken, 8-bit levels.

    Arguments:
        rgb: the picture.
        noise: of the differences of colour.
    """

    rgb: Bytes
    noise: float

    def share_kept(self, delta: float) -> float:
        """How much of the noise is coded at step Δ (range 0 to 1): none where it is coarse against it, else all."""
        octaves = math.log2((DEVIATIONS * self.noise + LEVELS) / (255 * delta))
        return min(max(octaves / BETWEEN, 0.0), 1.0)


def calmed(rgb: Bytes) -> Calm | None:
    """The picture `(H, W, 3)` of 8 bits without the noise of its colours; None if there is none that is worth it."""
    noise = _noise(rgb) if min(rgb.shape[:2]) >= 2 * BLOCK else None
    if noise is None:
        return None
    result = np.empty_like(rgb)
    height = len(rgb)
    for top in range(0, height, STRIP):
        first, last = max(0, top - REACH), min(height, top + STRIP + REACH)
        result[top : top + STRIP] = _calm(rgb[first:last], noise)[top - first : top - first + STRIP]
    return Calm(result, float(noise.max()))


def _noise(rgb: Bytes) -> Float32 | None:
    """Deviation of the white noise `(2,)` of a picture's differences of colour; None if their details are none.

    Judged by a sample of its blocks.
    """
    height, width = rgb.shape[:2]
    tops, lefts = (_spread(size) for size in (height, width))
    blocks = np.stack([rgb[y : y + BLOCK, x : x + BLOCK] for y in tops for x in lefts])
    chroma = blocks.astype(np.float32) @ TO_CHROMA.T
    magnitudes = [np.abs(d).reshape(len(blocks), -1, 2) for d in _haar(chroma)]
    medians = [_quantile(m, 0.5, 1) for m in magnitudes]
    deviation, tail = MAD * medians[2], _quantile(magnitudes[2], 0.9, 1) / np.maximum(medians[2], FLAT)
    diagonal = medians[2] / np.maximum(np.minimum(medians[0], medians[1]), FLAT)
    levels, noisy = np.zeros(2, np.float32), False
    for channel in range(2):
        there = deviation[:, channel] > FLAT
        if there.mean() < 0.5:
            continue
        level, white, long = (_quantile(a[there, channel], 0.5, 0) for a in (deviation, diagonal, tail))
        levels[channel] = level
        noisy |= bool(level >= LEAST and white >= LEAST_DIAGONAL and long <= LONGEST_TAIL)
    return levels if noisy else None


def _quantile(a: Float32, share: float, axis: int) -> Float32:
    """A quantile along an axis, one of the values (`np.median` imports masked arrays, which takes its time)."""
    at = int(share * a.shape[axis])
    return np.asarray(np.partition(a, at, axis).take(at, axis))


def _spread(size: int) -> list[int]:
    """Where blocks begin that are spread evenly over a side, at even places."""
    count = min(SAMPLE, size // BLOCK)
    return [int(x) // 2 * 2 for x in np.linspace(0, size - BLOCK, count)]


def _haar(a: Float32) -> tuple[Float32, Float32, Float32]:
    """Horizontal, vertical and diagonal details of planes `(…, 2 h, 2 w, channels)`, with the deviation of noise."""
    p, q, r, s = (a[..., i::2, j::2, :] for i in (0, 1) for j in (0, 1))
    half = np.float32(0.5)
    return (p + q - r - s) * half, (p - q + r - s) * half, (p - q - r + s) * half


def _calm(rgb: Bytes, noise: Float32) -> Bytes:
    """Rows of a picture without the noise of their colours, of a deviation `(2,)` at most."""
    height, width = rgb.shape[:2]
    whole = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.float32)
    chroma = whole @ TO_CHROMA.T
    edge = EDGE * np.minimum(_deviation(_haar(chroma)[2]), noise)
    change = np.empty_like(chroma)
    for channel in range(2):
        fine = np.ascontiguousarray(chroma[..., channel])
        size = fine.shape[1], fine.shape[0]
        coarse = Image.fromarray(fine).resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)
        details = fine - np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
        edges = Image.fromarray((np.abs(details) > edge[..., channel]).astype(np.uint8)).filter(NEAR)
        change[..., channel] = np.where(np.asarray(edges), 0, -details)
    whole += change @ FROM_CHROMA.T
    return np.clip(np.rint(whole), 0, 255).astype(np.uint8)[:height, :width]


def _deviation(diagonal: Float32) -> Float32:
    """Deviation of noise at every pixel `(2 h, 2 w, 2)`, that of its block, from diagonal details `(h, w, 2)`."""
    edge = BLOCK // 2
    rows, columns = (-(-n // edge) for n in diagonal.shape[:2])
    missing = rows * edge - diagonal.shape[0], columns * edge - diagonal.shape[1]
    whole = np.pad(np.abs(diagonal), ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")
    blocks = whole.reshape(rows, edge, columns, edge, 2).transpose(0, 2, 1, 3, 4).reshape(rows, columns, -1, 2)
    deviation = np.float32(MAD) * _quantile(blocks, 0.5, 2)
    every = deviation.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return every[: 2 * diagonal.shape[0], : 2 * diagonal.shape[1]]
