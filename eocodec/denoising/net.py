"""Denoising by the learned gain network of a model (`denoise/clean`), and its estimate of the noise (`denoise/sigma`).

In: a noisy picture `(H, W, 3)`, float32, nominally in 0 to 1, and its noise. Out: the clean picture. The nets work on
the coefficients of the flow's base wavelet, in tiles whose overlap hides their borders.

References:
    Zhang, Zuo & Zhang, *FFDNet*, 2018. https://doi.org/10.1109/TIP.2018.2839891
    Foi et al., *Practical Poissonian-Gaussian noise modeling and fitting*, 2008. https://doi.org/10.1109/TIP.2008.2001399
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.denoising import places
from eocodec.model.bundle import Model
from eocodec.model.manifest import DENOISING_GRAPHS
from eocodec.model.threads import side_by_side
from eocodec.model.tiles import Tile, padded, shifted, tiles

__all__ = ["TURNS", "Noise", "Readings", "apply", "brightness", "measure", "of_grey", "read"]

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]

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
        places: standard deviation of areas of 8x8 pixels in units of `sigma`, `(⌈H/8⌉, ⌈W/8⌉)`, of noise that differs
            from place to place in another way than by its variance over brightness; None for all other.
    """

    sigma: float
    floor: float
    slope: float
    coarse: float | None = None
    places: Float32 | None = field(default=None, compare=False)

    @classmethod
    def white(cls, sigma: float) -> "Noise":
        """Noise that is the same everywhere."""
        return cls(sigma, sigma**2, 0.0)

    @classmethod
    def correlated(cls, sigma: float, coarse: float) -> "Noise":
        """Noise that went through a filter, the same everywhere."""
        return cls(sigma, sigma**2, 0.0, coarse)

    @classmethod
    def of_places(cls, sigmas: Float32) -> "Noise":
        """Noise with these standard deviations in areas of 8x8 pixels, `(⌈H/8⌉, ⌈W/8⌉)`."""
        sigma = math.sqrt(float(np.square(sigmas, dtype=np.float64).mean()))
        return cls(sigma, sigma**2, 0.0, None, sigmas / np.float32(max(sigma, 1e-9)))

    def scaled(self, factor: float) -> "Noise":
        """The same noise with `factor` times the standard deviation."""
        coarse = None if self.coarse is None else self.coarse * factor
        return replace(
            self, sigma=self.sigma * factor, floor=self.floor * factor**2, slope=self.slope * factor**2, coarse=coarse
        )

    def levels(self, values: Float32) -> Float32:
        """Standard deviation in areas of 8x8 pixels of a picture `(H, W, 3)`, `(⌈H/8⌉, ⌈W/8⌉)`."""
        if self.places is not None:
            return self.places * np.float32(self.sigma)
        if self.slope == 0:
            return np.full([-(-n // AREA) for n in values.shape[:2]], self.sigma, np.float32)
        return np.sqrt(np.maximum(self.floor + self.slope * brightness(values), 0)).astype(np.float32)


def brightness(values: Float32) -> Float32:
    """Mean of the channels in areas of 8x8 pixels (smaller at the right and the bottom), limited to 0 to 1."""
    mean = values.mean(2)
    rows, columns = (np.arange(0, n, AREA) for n in mean.shape)
    total = np.add.reduceat(np.add.reduceat(mean, rows, 0), columns, 1)
    count = np.outer(np.diff([*rows, mean.shape[0]]), np.diff([*columns, mean.shape[1]]))
    return np.clip(total / count, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Readings:
    """What the net for the level reads in areas of 8x8 pixels of a picture; arrays are `(⌈H/8⌉, ⌈W/8⌉)`.

    Arguments:
        weight: mean weight of the readings in an area, 0 where it is not to be trusted.
        total: mean of the weighted readings, which are log(1 + level in 8-bit levels).
        light: the areas' brightness, 0 to 1.
    """

    weight: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    light: Float32

    def even(self) -> Noise:
        """Noise that is the same everywhere, or whose variance is a line over brightness."""
        place = np.minimum((self.light * BINS).astype(int), BINS - 1).ravel()
        parts = (self.weight, self.total, self.weight * self.light)
        sums = np.array([np.bincount(place, part.ravel(), BINS) for part in parts], np.float64)
        mean = float(np.expm1(min(sums[1].sum() / max(sums[0].sum(), 1e-6), 9.0)))
        return _fitted(min(max(0.0, mean) / 255, LARGEST), sums, float(self.light.mean()))

    def uneven(self, even: Floats, grey: bool, cut_off: bool) -> Float32 | None:
        """Standard deviations of areas, range 0 to 1; None if they are not clearly others than those of even noise.

        Arguments:
            even: standard deviations that areas with even noise would have.
            grey: all channels are equal.
            cut_off: 0 and 255 cut noise off; what is left of it is less in dark and in bright tones.
        """
        level = 255 * float(even.mean()) / (math.sqrt(3) if grey else 1.0)
        expected = np.log1p(255 * even)
        of_tones = places.of_tones(self.weight, self.total, self.light)
        doubt = places.DOUBT_GREY if grey else places.DOUBT
        readings, sure = places.of_areas(self.weight, self.total, of_tones, doubt)
        if not places.uneven(readings, expected, sure, level, places.UNEVEN_GREY if grey else places.UNEVEN):
            readings, known = of_tones, (self.weight > 0).astype(np.float64)
            if cut_off or not places.uneven(
                readings, expected, known, level, places.TONES_GREY if grey else places.TONES
            ):
                return None
        return np.clip(np.expm1(readings) / 255, 0, LARGEST).astype(np.float32)


def measure(model: Model, values: Float32, areas: npt.NDArray[np.bool_] | None = None) -> Noise:
    """Estimated noise of a picture `(H, W, 3)`; with equal channels that of the luma axis, √3 times theirs.

    Arguments:
        model: that has the nets.
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured, see `eocodec.denoising.noise_areas.trusted`; default: all.
    """
    return read(model, values, areas).even()


def read(model: Model, values: Float32, areas: npt.NDArray[np.bool_] | None = None) -> Readings:
    """What the net for the level reads in a picture `(H, W, 3)`; arguments as for :func:`measure`."""
    height, width = values.shape[:2]
    light = brightness(values)
    sums = np.zeros((3, *light.shape))  # readings, weight, weighted reading
    with model.runtime.series(SIGMA, height * width > WHOLE):
        for tile, picture in _pieces(model, values):
            (planes,) = model.run(SIGMA, {"picture": picture})
            value, weight = (_inside(plane, tile, height, width) for plane in planes[0])
            rows = (np.arange(value.shape[0]) * 2 + tile.rows.start) // AREA
            columns = (np.arange(value.shape[1]) * 2 + tile.columns.start) // AREA
            where = (rows[:, None] * light.shape[1] + columns).ravel()
            for k, quantity in enumerate((np.ones_like(value), weight, weight * value)):
                sums[k] += np.bincount(where, quantity.ravel(), light.size).reshape(light.shape)
    weight, total = sums[1:] / np.maximum(sums[0], 1)
    share = sums[0] / sums[0].max()  # areas at the right and the bottom are smaller
    if areas is not None:
        share = share * areas
    return Readings(weight * share, total * share, light)


def of_grey(sigma: Floats) -> Floats:
    """Levels of the noise of grey pictures, along the luma axis, of which the net reads `sigma`, range 0 to 1.

    The net has learnt from noise in three channels that are independent. Where chroma has none it overlooks weak noise:
    of 3 levels it reads 1.5, of 5 levels 3.7.
    """
    read = 255 * np.asarray(sigma, np.float64) / math.sqrt(3)
    held = np.where(read < READ[-1], np.interp(read, READ, HELD), read * HELD[-1] / READ[-1])
    return held * math.sqrt(3) / 255


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
    levels = noise.levels(values)
    contrast = largest / max(noise.sigma if noise.places is None else float(levels.max()), largest)
    if contrast < 1:
        values = (values - np.float32(MIDDLE)) * np.float32(contrast) + np.float32(MIDDLE)
        levels *= np.float32(contrast)
    area = [np.arange(n) // AREA for n in values.shape[:2]]  # of each row, and of each column
    at_once = model.share if turns % model.share == 0 else 1  # no thread is to be without work

    def clean(turn: tuple[bool, bool, bool]) -> Float32:
        transposed, *back = turn
        down, right = (-1 if b else 1 for b in back)
        turned, held = (x.swapaxes(0, 1) if transposed else x for x in (values, levels))
        rows, columns = area[::-1] if transposed else area
        found = _clean(model, turned[::down, ::right], held, rows[::down], columns[::right], at_once > 1)
        found = found[::down, ::right]
        return found.swapaxes(0, 1) if transposed else found

    total = np.zeros_like(values)
    with model.runtime.series(CLEAN, values.shape[0] * values.shape[1] > WHOLE):
        for first in range(0, turns, at_once):
            for found in side_by_side(clean, TURNS[first : first + at_once], at_once):
                total += found
    total /= np.float32(turns)
    return total if contrast == 1 else (total - np.float32(MIDDLE)) / np.float32(contrast) + np.float32(MIDDLE)


def _clean(
    model: Model,
    values: Float32,
    levels: Float32,
    area_rows: npt.NDArray[np.int64],
    area_columns: npt.NDArray[np.int64],
    one_of_many: bool,
) -> Float32:
    """The clean picture, given the levels of areas and the area of each row and of each column."""
    result = np.empty(values.shape, np.float32)
    height, width = values.shape[:2]
    for tile, piece in _pieces(model, values):
        down = area_rows[_mirrored(tile.outer_rows, height)][::2]
        across = area_columns[_mirrored(tile.outer_columns, width)][::2]
        plane = np.minimum(levels[np.ix_(down, across)], np.float32(LARGEST))[None, None]
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
