"""Denoising by the learned gain network of a model (`denoise/clean`), and its estimate of the noise (`denoise/sigma`).

In: a noisy picture `(H, W, 3)`, float32, nominally in 0 to 1, and its noise. Out: the clean picture. The nets work on
the coefficients of the flow's base wavelet, in tiles whose overlap hides their borders.

References:
    Zhang, Zuo & Zhang, *FFDNet*, 2018. https://doi.org/10.1109/TIP.2018.2839891
    Foi et al., *Practical Poissonian-Gaussian noise modeling and fitting*, 2008. https://doi.org/10.1109/TIP.2008.2001399
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.model.bundle import Model
from eocodec.model.manifest import DENOISING_GRAPHS
from eocodec.model.threads import side_by_side
from eocodec.model.tiles import Tile, padded, shifted, tiles

__all__ = ["TURNS", "Noise", "apply", "brightness", "measure", "of_grey"]

Float32 = npt.NDArray[np.float32]

CLEAN, SIGMA = (name.removesuffix(".onnx") for name in DENOISING_GRAPHS)
TILE = 768  # pixels; the inner edge of a tile
HALO = 128  # pixels on each side (docs/METHOD.md has what is left of a seam)
WHOLE = 1 << 20  # pixels up to which a picture is one tile
AREA = 8  # edge in pixels of the areas in which brightness decides about signal-dependent noise
LARGEST = 121 / 255  # the largest level that the nets have seen
LARGEST_GREY = 60 / 255  # of noise that channels share: beyond, what 0 and 255 cut off of it misleads them
MIDDLE = 0.5  # grey around which contrast is taken away
BINS = 16  # of brightness, to fit signal-dependent noise
UNEVEN = 1.25  # from this ratio of levels between dark and bright areas on, noise counts as signal-dependent
# What the net reads of grey pictures, whose chroma has no noise, and the level of their values, 8-bit levels: medians
# of 12 training photos (docs/METHOD.md). Only at 0.3, which some clean ones read, more noise than that is left.
READ = (0, 0.3, 0.72, 1.16, 1.53, 2.1, 2.63, 3.74, 5.0, 7.35, 9.45, 13.48, 19.8, 26.9, 36.1, 53.4)
HELD = (0, 0.3, 1.8, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 14, 20, 27, 35, 50)
# Flips and transpositions whose results can be averaged: (transposed, upside down, left to right).
TURNS = (
    (False, False, False), (True, True, False), (False, True, True), (True, False, True),
    (False, True, False), (True, False, False), (False, False, True), (True, True, True),
)  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """Noise of a picture: its variance is `floor + slope · brightness`, all in the range 0 to 1.

    Arguments:
        sigma: standard deviation over the whole picture.
        floor, slope: of the variance; for white noise σ² and 0.
        coarse: standard deviation of means of 2x2 pixels, of noise that is not white; None for white noise, of which
            it is half of `sigma`.
    """

    sigma: float
    floor: float
    slope: float
    coarse: float | None = None

    @classmethod
    def white(cls, sigma: float) -> "Noise":
        """Noise that is the same everywhere."""
        return cls(sigma, sigma**2, 0.0)

    @classmethod
    def correlated(cls, sigma: float, coarse: float) -> "Noise":
        """Noise that went through a filter, the same everywhere."""
        return cls(sigma, sigma**2, 0.0, coarse)

    def scaled(self, factor: float) -> "Noise":
        """The same noise with `factor` times the standard deviation."""
        coarse = None if self.coarse is None else self.coarse * factor
        return Noise(self.sigma * factor, self.floor * factor**2, self.slope * factor**2, coarse)

    def in_contrast(self, factor: float) -> "Noise":
        """That of a picture whose distances from middle grey are multiplied by `factor`."""
        floor = factor**2 * (self.floor + self.slope * MIDDLE * (1 - 1 / factor))
        coarse = None if self.coarse is None else self.coarse * factor
        return Noise(self.sigma * factor, floor, self.slope * factor, coarse)

    @property
    def largest(self) -> float:
        """Standard deviation where it is largest, which is where the picture is brightest."""
        return math.sqrt(self.floor + max(self.slope, 0.0))

    def plane(self, values: Float32) -> Float32:
        """Standard deviation for every 2x2 pixels of a picture with even sides, `(H/2, W/2)`."""
        height, width = values.shape[:2]
        if self.slope == 0:
            return np.full((height // 2, width // 2), min(self.sigma, LARGEST), np.float32)
        variance = self.floor + self.slope * brightness(values)
        plane = np.sqrt(np.clip(variance, 0, LARGEST**2)).astype(np.float32)
        spread = np.repeat(np.repeat(plane, AREA // 2, 0), AREA // 2, 1)
        return spread[: height // 2, : width // 2]


def brightness(values: Float32) -> Float32:
    """Mean of the channels in areas of 8x8 pixels (smaller at the right and the bottom), limited to 0 to 1."""
    mean = values.mean(2)
    rows, columns = (np.arange(0, n, AREA) for n in mean.shape)
    total = np.add.reduceat(np.add.reduceat(mean, rows, 0), columns, 1)
    count = np.outer(np.diff([*rows, mean.shape[0]]), np.diff([*columns, mean.shape[1]]))
    return np.clip(total / count, 0, 1).astype(np.float32)


def measure(model: Model, values: Float32, areas: npt.NDArray[np.bool_] | None = None) -> Noise:
    """Estimated noise of a picture `(H, W, 3)`; with equal channels that of the luma axis, √3 times theirs.

    Arguments:
        model: that has the nets.
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured, see `eocodec.denoising.noise_areas.trusted`; default: all.
    """
    height, width = values.shape[:2]
    bright = brightness(values)
    sums = np.zeros((3, BINS))  # weight, weighted level, weighted brightness by bin of brightness
    for tile, picture in _pieces(model, values):
        (planes,) = model.run(SIGMA, {"picture": picture})
        value, weight = (_inside(plane, tile, height, width) for plane in planes[0])
        rows = (np.arange(value.shape[0]) * 2 + tile.rows.start) // AREA
        columns = (np.arange(value.shape[1]) * 2 + tile.columns.start) // AREA
        where = np.ix_(np.minimum(rows, bright.shape[0] - 1), np.minimum(columns, bright.shape[1] - 1))
        light = bright[where]
        weight = weight if areas is None else weight * areas[where]
        place = np.minimum((light * BINS).astype(int), BINS - 1).ravel()
        for k, quantity in enumerate((np.ones_like(value), value, light)):
            sums[k] += np.bincount(place, (weight * quantity).ravel(), BINS)
    mean = float(np.expm1(min(sums[1].sum() / max(sums[0].sum(), 1e-6), 9.0)))
    return _fitted(min(max(0.0, mean) / 255, LARGEST), sums, float(bright.mean()))


def of_grey(noise: Noise) -> Noise:
    """The noise of a grey picture, along the luma axis, of which :func:`measure` gave `noise`.

    The net has learnt from noise in three channels that are independent. Where chroma has none it overlooks weak noise:
    of 3 levels it reads 1.5, of 5 levels 3.7.
    """
    read = 255 * noise.sigma / math.sqrt(3)
    if read == 0:
        return noise
    return noise.scaled(float(np.interp(read, READ, HELD)) / read if read < READ[-1] else HELD[-1] / READ[-1])


def _fitted(sigma: float, sums: npt.NDArray[np.float64], bright: float) -> Noise:
    """Variance as a line over brightness, through the weighted levels of the bins; white unless clearly uneven.

    `bright` is the mean brightness of the whole picture, at which the line gives `sigma`.
    """
    known = sums[0] > 0.01 * sums[0].sum()
    if sigma == 0 or known.sum() < 4:
        return Noise.white(sigma)
    weight = sums[0][known]
    variance = (np.maximum(0, np.expm1(sums[1][known] / weight)) / 255) ** 2
    light = sums[2][known] / weight
    middle = np.average(light, weights=weight)
    spread = np.average((light - middle) ** 2, weights=weight)
    mean = np.average(variance, weights=weight)
    slope = max(0.0, np.average((light - middle) * (variance - mean), weights=weight) / max(spread, 1e-9))
    floor = max(0.0, mean - slope * middle)
    slope = (mean - floor) / max(middle, 1e-9)
    dark, light_end = floor + slope * light.min(), floor + slope * light.max()
    if light_end < UNEVEN**2 * dark or light.max() - light.min() < 0.25:
        return Noise.white(sigma)
    return Noise(math.sqrt(floor + slope * bright), floor, slope)


def apply(model: Model, values: Float32, noise: Noise, turns: int = 1) -> Float32:
    """The clean picture `(H, W, 3)`, not clipped.

    Noise beyond the levels that the net has seen, or has seen often, is removed from the picture in less contrast,
    where it is no larger than that.

    Arguments:
        model: that has the nets, see `eocodec.model.bundle.Model.denoising_methods`.
        values: the noisy picture `(H, W, 3)`.
        noise: of it; for equal channels that of the luma axis.
        turns: flipped and transposed pictures that are averaged, 1 to 8.
    """
    grey = np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 1], values[..., 2])
    largest = LARGEST_GREY if grey else LARGEST
    contrast = largest / max(noise.sigma, largest)
    if contrast < 1:
        values, noise = (
            (values - np.float32(MIDDLE)) * np.float32(contrast) + np.float32(MIDDLE),
            noise.in_contrast(contrast),
        )
    at_once = model.share if turns % model.share == 0 else 1  # no thread is to be without work

    def clean(turn: tuple[bool, bool, bool]) -> Float32:
        transposed, down, right = turn
        turned = values.swapaxes(0, 1) if transposed else values
        turned = turned[:: -1 if down else 1, :: -1 if right else 1]
        found = _clean(model, turned, noise, at_once > 1)[:: -1 if down else 1, :: -1 if right else 1]
        return found.swapaxes(0, 1) if transposed else found

    total = np.zeros_like(values)
    for first in range(0, turns, at_once):
        for found in side_by_side(clean, TURNS[first : first + at_once], at_once):
            total += found
    total /= np.float32(turns)
    return total if contrast == 1 else (total - np.float32(MIDDLE)) / np.float32(contrast) + np.float32(MIDDLE)


def _clean(model: Model, values: Float32, noise: Noise, one_of_many: bool) -> Float32:
    result = np.empty(values.shape, np.float32)
    height, width = values.shape[:2]
    for tile, piece in _pieces(model, values):
        plane = noise.plane(piece[0].transpose(1, 2, 0))[None, None]
        (picture,) = model.run(CLEAN, {"picture": piece, "noise": plane}, one_of_many)
        rows = slice(tile.rows.start, min(tile.rows.stop, height))
        columns = slice(tile.columns.start, min(tile.columns.stop, width))
        inner = picture[0][:, shifted(rows, tile.outer_rows.start), shifted(columns, tile.outer_columns.start)]
        result[rows, columns] = inner.transpose(1, 2, 0)
    return result


def _pieces(model: Model, values: Float32) -> Iterator[tuple[Tile, Float32]]:
    """Tiles of a picture and what the encoder takes of each, `(1, 3, h, w)`.

    The picture is mirrored at the right and the bottom up to the model's multiple.
    """
    height, width = values.shape[:2]
    full_width, full_height = padded(width, model.multiple), padded(height, model.multiple)
    for tile in tiles(full_width, full_height, TILE, HALO, WHOLE):
        if tile.rows.start >= height or tile.columns.start >= width:
            continue
        down = _mirrored(tile.outer_rows, height)
        across = _mirrored(tile.outer_columns, width)
        yield tile, np.ascontiguousarray(values[np.ix_(down, across)].transpose(2, 0, 1)[None])


def _mirrored(part: slice, size: int) -> npt.NDArray[np.int64]:
    """Indices of a part of a row of `size` samples that is mirrored at its end as often as needed."""
    k = np.arange(part.start, part.stop) % (2 * size)
    return np.minimum(k, 2 * size - 1 - k)


def _inside(plane: npt.NDArray[Any], tile: Tile, height: int, width: int) -> npt.NDArray[Any]:
    """The part of a plane at half the resolution that belongs to the tile and to the picture."""
    rows = min(tile.rows.stop, height) - tile.rows.start
    columns = min(tile.columns.stop, width) - tile.columns.start
    top = (tile.rows.start - tile.outer_rows.start) // 2
    left = (tile.columns.start - tile.outer_columns.start) // 2
    return plane[top : top + (rows + 1) // 2, left : left + (columns + 1) // 2]
