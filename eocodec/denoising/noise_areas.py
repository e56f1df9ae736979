"""Where in a picture its noise can be seen, and how strong it is where it is not white.

In: values `(H, W, 3)`, float32 in 0 to 1, noise added. Out: areas to measure in; a level with how sure it is.

Noise that went through a demosaicer, a scaler or a blur has lost its finest frequencies, by which white noise is
distinguished from the picture. It still differs from texture: in the smoothest patches its standard deviation is the
same everywhere, and pixels further apart than the filter's reach do not depend on one another.

References:
    Pyatykh, Hesser & Zheng, *Image noise level estimation by principal component analysis*, 2013.
    https://doi.org/10.1109/TIP.2012.2221728 (the smoothest patches)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["AREA", "LARGEST_PEAK", "MOST_FAR", "Correlated", "Hidden", "correlated", "hidden", "means", "trusted"]

Float32 = npt.NDArray[np.float32]

AREA = 8  # edge in pixels of the areas that are trusted or not
DEAD = 0.3 / 255  # standard deviation of an area below which it is drawn, not photographed …
DRAWN, REPEATED = 8 / 255, 0.2  # … as it is from such a deviation on if a share of it repeats what is left and above …
# … or if a share of it has one and the same colour or level of grey, half as much where its deviation is large, which
# noise that 0 and 255 have cut off has not.
SAME_COLOUR, SAME_GREY, BOLD = 0.2, 0.5, 48 / 255
CLIPPED = 0.5  # share of an area's values that are 0 or 1, beyond which noise is cut off there
# Noise on white paper is cut off at half of its values. Where no more areas than a few are flat, so that there is noise
# everywhere, areas count up to larger shares of black or white: so many times that of a colour, and that of an area.
FEW_FLAT, AT_AN_END, MOST_CLIPPED = 0.02, 1.5, 0.75
PATCH = 16  # edge in pixels of the patches in which noise that is not white is measured
SMOOTH, ALIKE = 0.02, 1.6  # share of patches that are the smoothest; those up to so many times as rough are like them
LEVEL_ALIKE = 1.3  # likewise, for the level of noise that all channels share
EVEN, EVEN_ALIKE = 0.05, 1.5  # likewise, of the differences of channels
PAIRS = ((0, 1), (0, 2), (1, 2))  # of channels
FEWEST = 12  # patches from which a level can be told
FAR = (4, 5)  # pixels apart; demosaicers and scalers by up to 2 reach less far
# Bounds between noise and texture. Differences of channels hold little texture: in a noisy picture most patches have
# the noise's level there, in a clean one few are alike. Of 355 clean pictures (CBSD68 and photos of ImageNet, as they
# are, demosaiced, blurred, scaled) in which these bounds were chosen, textures that fill a picture come nearest.
LEAST_LEVEL = 1.5 / 255
LEAST_NEAR, MOST_FAR = 0.15, 0.15
SHARED, LEAST_CROWD = 0.45, 7.0  # correlation of the channels; how many times as many patches are alike as are smooth
SHARED_IF_SURE, SURE = 0.7, 16.0
LARGEST_PEAK = 3.95  # kurtosis of differences; noise on photographs has up to 3.8, smooth lines have 4.1 and more
# Of grey pictures, which have no differences: noise is normally distributed, texture has edges and blurred texture
# correlates further than blurred noise.
LEAST_GREY_CROWD, MOST_GREY_NEAR, MOST_PEAKED = 12.0, 0.79, 3.12


def trusted(values: Float32, alpha: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.bool_]:
    """Areas of 8x8 pixels in which noise can be measured, `(⌈H/8⌉, ⌈W/8⌉)`: neither flat, drawn, clipped nor hidden.

    Neighbours of flat or hidden areas do not count either: an edge that was drawn between them looks like noise.
    """
    deviation = _deviation(values)
    flat = deviation < DEAD
    covered = flat.mean() <= FEW_FLAT
    drawn = (deviation >= DRAWN) & (_repeated(values) >= REPEATED)
    same = _one_colour(values, (deviation >= DRAWN) & ~drawn, AT_AN_END if covered else 1.0)
    drawn |= same >= np.where(deviation >= BOLD, 0.5, 1.0) * (SAME_GREY if _is_grey(values) else SAME_COLOUR)
    none = flat | drawn
    clipped = means((values == 0) | (values == 1)).max(2) > (MOST_CLIPPED if covered else CLIPPED)
    if alpha is not None:
        none |= means((alpha == 0)[:, :, None])[:, :, 0] > 0
    return ~(_grown(none) | clipped)


def _deviation(values: Float32) -> Float32:
    """Standard deviation in areas of 8x8 pixels, that of the channel that has most, `(⌈H/8⌉, ⌈W/8⌉)`."""
    mean, square = means(values), means(values * values)
    return np.sqrt(np.maximum(square - mean * mean, 0)).max(2)


def _is_grey(values: Float32) -> bool:
    return bool((values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all())


def _one_colour(values: Float32, among: npt.NDArray[np.bool_], at_an_end: float) -> Float32:
    """Share of the pixels of some whole areas that have the area's most common colour, in 8 bits, `(⌈H/8⌉, ⌈W/8⌉)`.

    It is divided by `at_an_end` where that colour is black or white.

    What was drawn and scaled or stored as JPEG keeps the colour of its paper in places, and few tones their levels.
    """
    high, wide = (n // AREA for n in values.shape[:2])
    rows, columns = np.nonzero(among[:high, :wide])
    parts = values[: high * AREA, : wide * AREA].reshape(high, AREA, wide, AREA, 3)[rows, :, columns]
    levels = np.rint(255 * parts.reshape(-1, AREA * AREA, 3)).astype(np.int64) & 0x3FF
    colours = np.sort(levels @ np.array([1 << 20, 1 << 10, 1]), 1)
    most, run, commonest = np.ones(len(colours)), np.ones(len(colours)), colours[:, 0]
    for before, after in zip(colours.T[:-1], colours.T[1:], strict=True):
        run = np.where(before == after, run + 1, 1)
        commonest = np.where(run > most, after, commonest)
        most = np.maximum(most, run)
    end = (commonest == 0) | (commonest == 255 * ((1 << 20) + (1 << 10) + 1))
    found = np.zeros(among.shape, np.float32)
    found[rows, columns] = most / AREA**2 / np.where(end, at_an_end, 1)
    return found


def _repeated(values: Float32) -> Float32:
    """Share of the pixels of areas that equal their neighbours to the left and above, `(⌈H/8⌉, ⌈W/8⌉)`.

    Of noise with a deviation of one level it is a tenth where all channels are equal, and next to nothing elsewhere.
    """
    same = np.zeros((*values.shape[:2], 1), np.bool_)
    inner = values[1:, 1:]
    same[1:, 1:, 0] = ((inner == values[1:, :-1]) & (inner == values[:-1, 1:])).all(2)
    return means(same)[:, :, 0]


def means(values: Float32 | npt.NDArray[np.bool_]) -> Float32:
    """Means over areas of 8x8 pixels, smaller at the right and the bottom, `(⌈H/8⌉, ⌈W/8⌉, N)`."""
    rows, columns = (np.arange(0, n, AREA) for n in values.shape[:2])
    exact = np.uint16 if values.dtype == np.bool_ else np.float64
    total = np.add.reduceat(np.add.reduceat(values, rows, 0, dtype=exact), columns, 1)
    count = np.outer(np.diff([*rows, values.shape[0]]), np.diff([*columns, values.shape[1]]))
    return total / count[:, :, None]


def _grown(areas: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The areas and their eight neighbours."""
    padded = np.pad(areas, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


@dataclass(frozen=True)
class Hidden:
    """Noise that is not white: standard deviation in a channel, in the range 0 to 1.

    Arguments:
        level: at full size.
        coarse: of means of 2x2 pixels; of white noise half as much.
        near: correlation of pixels next to each other; of white noise 0.
    """

    level: float
    coarse: float
    near: float


def hidden(values: Float32, areas: npt.NDArray[np.bool_], grey: bool = False) -> Hidden | None:
    """Noise that is not white; None where what looks like it may as well be texture.

    Arguments:
        values: the picture.
        areas: of 8x8 pixels in which noise can be measured.
        grey: all channels are equal.
    """
    found = correlated(values, areas)
    if found is None or found.near < LEAST_NEAR or abs(found.far) > MOST_FAR:
        return None
    if grey:
        sure = found.crowd >= LEAST_GREY_CROWD and found.near <= MOST_GREY_NEAR and found.peaked <= MOST_PEAKED
        noise = Hidden(found.smooth, found.smooth_coarse, found.near)
    else:
        sure = found.colours <= SHARED and found.even >= LEAST_CROWD
        sure |= found.colours <= SHARED_IF_SURE and found.even >= SURE
        sure &= found.peaked <= LARGEST_PEAK
        noise = Hidden(found.level, found.coarse, found.near)
    return noise if sure and noise.level >= LEAST_LEVEL else None


@dataclass(frozen=True)
class Correlated:
    """Noise as the smoothest patches show it; levels are standard deviations in a channel, in the range 0 to 1.

    Arguments:
        level, coarse: at full size, and of means of 2x2 pixels, from differences of channels, which hold little
            texture; noise that the channels share is not in it.
        even: how many times as many patches have about that level as count as the ones with the least.
        smooth, smooth_coarse: levels in the smoothest patches, with what channels share.
        crowd: how many times as many patches are about as smooth as count as the smoothest.
        near, far: correlation of pixels next to each other, and of pixels as far apart as :data:`FAR`.
        colours: correlation of the channels; that of noise is small, that of texture large.
        peaked: kurtosis of differences in the smoothest patches, typically; 3 is that of normal noise.
        roughness: standard deviation in a channel, texture and what channels share included.
    """

    level: float
    coarse: float
    even: float
    smooth: float
    smooth_coarse: float
    crowd: float
    near: float
    far: float
    colours: float
    peaked: float
    roughness: float


def correlated(values: Float32, areas: npt.NDArray[np.bool_]) -> Correlated | None:
    """Measure noise in trusted patches of 16x16 pixels; None if there are too few."""
    high, wide = values.shape[0] // PATCH, values.shape[1] // PATCH
    if not high or not wide:
        return None
    cut = values[: high * PATCH, : wide * PATCH].reshape(high, PATCH, wide, PATCH, 3)
    good = areas[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2).all((1, 3))
    patches = cut.transpose(0, 2, 4, 1, 3)[good]  # (N, 3, 16, 16)
    if len(patches) < FEWEST:
        return None
    rest = _without_plane(patches.astype(np.float64))
    roughness = np.sqrt((rest**2).mean((2, 3))).mean(1)
    lowest, fewest = np.quantile(roughness, SMOOTH), np.sort(roughness)[FEWEST - 1]
    alike = roughness <= max(ALIKE * lowest, fewest)
    chosen = rest[alike]
    variance = (chosen**2).mean()
    if variance <= 0:
        return None

    def correlation(apart: int) -> float:
        down = (chosen[:, :, apart:] * chosen[:, :, :-apart]).mean()
        across = (chosen[:, :, :, apart:] * chosen[:, :, :, :-apart]).mean()
        return float((down + across) / 2 / variance)

    differences = np.stack([rest[:, a] - rest[:, b] for a, b in PAIRS], 1) / np.sqrt(2)
    uneven = np.sqrt((differences**2).mean((1, 2, 3)))
    least = np.quantile(uneven, EVEN)
    even = uneven <= EVEN_ALIKE * least
    smooth = roughness <= max(LEVEL_ALIKE * lowest, fewest)
    power = (chosen**2).mean((0, 2, 3))
    colours = [(chosen[:, a] * chosen[:, b]).mean() / max(np.sqrt(power[a] * power[b]), 1e-12) for a, b in PAIRS]
    return Correlated(
        level=float(np.median(uneven[even])),
        coarse=_coarse(differences[even]),
        even=float(even.mean()) / EVEN,
        smooth=float(np.median(roughness[smooth])),
        smooth_coarse=_coarse(rest[smooth]),
        crowd=float(alike.mean()) / SMOOTH,
        near=correlation(1),
        far=float(np.mean([correlation(apart) for apart in FAR])),
        colours=float(np.mean(colours)),
        peaked=_peaked(chosen.mean(1)),
        roughness=float(np.median(roughness[alike])),
    )


def _coarse(patches: npt.NDArray[np.float64]) -> float:
    """Standard deviation of means of 2x2 pixels of patches `(N, C, 16, 16)`, typically."""
    means = patches.reshape(*patches.shape[:2], PATCH // 2, 2, PATCH // 2, 2).mean((3, 5))
    return float(np.median(np.sqrt((means**2).mean((1, 2, 3)))))


def _peaked(patches: npt.NDArray[np.float64]) -> float:
    """Kurtosis of the differences of pixels two apart in patches `(N, 16, 16)`, the median.

    Differences of neighbours will not do: scalers interpolate some of them from the same samples.
    """
    down, across = patches[:, 2:] - patches[:, :-2], patches[:, :, 2:] - patches[:, :, :-2]
    both = np.concatenate([down.reshape(len(patches), -1), across.reshape(len(patches), -1)], 1)
    both /= np.maximum(np.sqrt((both**2).mean(1, keepdims=True)), 1e-12)
    return float(np.median((both**4).mean(1)))


def _without_plane(patches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Patches `(N, 3, 16, 16)` without their mean and slopes."""
    ramp = np.arange(PATCH) - (PATCH - 1) / 2
    norm = (ramp**2).sum() * PATCH
    rest = patches - patches.mean((2, 3), keepdims=True)
    down = (rest * ramp[:, None]).sum((2, 3), keepdims=True) / norm
    across = (rest * ramp).sum((2, 3), keepdims=True) / norm
    return rest - down * ramp[:, None] - across * ramp
