"""Denoising in the ordered latent space: by a learned gain, by shrinkage, or by dropping latents below the noise.

In: a noisy picture and its noise level (or "auto"). Out: a clean picture of the same shape, uint8 or float.

Shrinkage and dropping are averaged over several shifts of the picture against the wavelet lattice, the learned gain
over flips and transpositions; models of one size, such as `face64`, drop the latents beyond the C that suits the level.

References:
    Coifman & Donoho, *Translation-invariant de-noising*, 1995. https://doi.org/10.1007/978-1-4612-2544-7_9
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.arguments import check_number, check_numbers, is_whole
from eocodec.denoising import clipped, dropping, net, noise_areas, shrinkage
from eocodec.denoising.ceiling import most_noise, most_white, most_white_around, shows
from eocodec.denoising.coarse import coarse_level, coarse_removed
from eocodec.denoising.net import Noise
from eocodec.errors import EocodecError
from eocodec.image import Bytes, ImageLike, Picture, as_picture
from eocodec.model.bundle import Model
from eocodec.model.library import ModelLike, load_model
from eocodec.model.manifest import FlatManifest, Manifest, PhotoManifest
from eocodec.model.transform import analyse_vector, to_levels
from eocodec.remarks import CLEANED

__all__ = ["METHODS", "SHIFTS", "Denoised", "denoise", "denoise_picture", "estimate_sigma"]

Float32 = npt.NDArray[np.float32]
Areas = npt.NDArray[np.bool_]

METHODS = ("auto", "net", "shrink", "drop")
# Offsets against the lattice; every prefix spreads evenly over the positions in blocks of 2, 4, 8 and 16 pixels.
SHIFTS = ((0, 0), (7, 3), (10, 13), (13, 6), (1, 15), (4, 9), (11, 10), (6, 4))
DEFAULT_SHIFTS = {"net": 2, "shrink": 8, "drop": 8}
SMALLEST_SIGMA = 0.3  # 8-bit levels; below, a picture counts as clean
LARGEST_STRENGTH = 4.0
UNSEEN = 0.7  # share of the level in smooth patches below which the net has overlooked noise that is not white
FEW, LITTLE = 64, 0.02  # areas, and share of them; of fewer than both nothing is told
FARTHEST = 4.0  # standard deviations: what is farther from a noisy value is hardly ever what the noise has hidden
LEAST_APART = 0.05  # share of the variance of noise by which pixels next to each other differ at least
DOUBTED = 2 / 255  # level from which on it is compared with the most that there can be
# Share of areas whose level may be beyond what neighbouring pixels around them differ by; edges of text make it 0.3 to
# 0.6, noise that differs from place to place on photographs up to 0.17.
MOST_BEYOND = 0.25
OVERLOOKED = 4.0  # 8-bit levels on an axis of colour, up to which other noise is looked for at coarser scales, too
LARGEST_VALUE = 16.0  # of a floating-point picture; beyond, it surely has another range than 0 to 1


@dataclass(frozen=True)
class Denoised:
    """A clean picture and how it was made.

    Arguments:
        values: `(H, W, 3)` float32 in 0 to 1.
        method: "net", "shrink" or "drop".
        sigma: noise level given or estimated, 8-bit levels, before `strength`; None where a rate was given instead.
        places: levels of areas of 8x8 pixels, `(⌈H/8⌉, ⌈W/8⌉)`, where they were found to differ from place to place;
            `sigma` is then their root mean square, and the net takes each area's.
        removed: whether any noise was removed: the level times `strength` is 0.3 or more, or a rate was given.
    """

    values: Float32
    method: str
    sigma: float | None
    places: Float32 | None = None
    removed: bool = True

    @property
    def rgb(self) -> Bytes:
        """`(H, W, 3)` uint8."""
        return to_levels(self.values)


def denoise(
    image: ImageLike | Picture,
    sigma: float | str = "auto",
    *,
    method: str = "auto",
    rate: float | None = None,
    strength: float = 1.0,
    shifts: int | None = None,
    detail: float = 0.0,
    model: ModelLike = "photo",
) -> npt.NDArray[Any]:
    """Remove white noise from a picture.

    Arguments:
        image: array `(H, W)` or `(H, W, 1 or 3)`: uint8, uint16, or float, nominally in 0 to 1, which noise may leave;
            or a Pillow image. Transparency is not part of the result.
        sigma: standard deviation of the noise in each channel, of a grey picture in its values, in 8-bit levels from
            0 to 255; or "auto" to estimate it.
        method: "net", a learned gain for every latent; "shrink", the posterior mean of every latent under the entropy
            model; "drop", every latent is either kept or dropped to what the entropy model expects; or "auto", the
            first of these that the model has.
        rate: instead of a level: keep the top C latents of every block and set the rest to zero, a kind of "drop".
        strength: what the level is multiplied by: 0 removes nothing, 1 the noise as given or estimated; at most 4.
        shifts: how many shifts, of the net flips and transpositions, are averaged, 1 to 8: slower and better; default:
            what suits the method.
        detail: share of what was removed that is given back, from 0 to 1: a little keeps grain and fine texture.
        model: a shipped model's name, a bundle's path or a loaded model.

    Returns:
        `(H, W, 3)`: uint8, of 16-bit integers as well, of which an `EocodecWarning` tells, or float32 in 0 to 1 for
        floating-point input. A picture whose level is below 0.3 comes back as it is.

    Raises:
        EocodecError: an argument is out of range, the model does not have the method, or the picture is of an
            unsupported kind.

    Example:
        >>> import numpy as np, eocodec
        >>> noisy = 0.5 + np.random.default_rng(0).normal(0, 0.1, (40, 60, 3))
        >>> clean = eocodec.denoise(noisy, sigma=25.5)
        >>> clean.shape, bool(clean.std() < 0.03)
        ((40, 60, 3), True)
    """
    done = denoise_picture(
        image, sigma, method=method, rate=rate, strength=strength, shifts=shifts, detail=detail, model=model
    )
    floating = isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)
    return done.values if floating else done.rgb


def denoise_picture(
    image: ImageLike | Picture,
    sigma: float | str = "auto",
    *,
    method: str = "auto",
    rate: float | None = None,
    strength: float = 1.0,
    shifts: int | None = None,
    detail: float = 0.0,
    model: ModelLike = "photo",
) -> Denoised:
    """Remove white noise from a picture and tell how; see :func:`denoise` for arguments and errors."""
    loaded = load_model(model)
    _check(sigma, rate, strength, shifts, loaded)
    check_number("detail", detail)
    if not 0 <= detail <= 1:
        raise EocodecError(f"the detail must be from 0 to 1, not {detail:g}")
    denoiser = _denoiser(loaded)
    chosen = _choose(method, rate, loaded)
    values, grey, alpha = _values(image, CLEANED)
    level, places, removed = None, None, True
    if rate is not None:
        clean = denoiser.keep_top(values, rate, shifts or DEFAULT_SHIFTS["drop"])
    else:
        # Equal noise in three channels lies along the luma axis, where it is sqrt(3) times as large.
        spread = math.sqrt(3) if grey else 1.0
        if isinstance(sigma, str):
            noise = _measured(denoiser, values, grey, alpha)
        else:
            noise = Noise.white(sigma * spread / 255)
        level = 255 * noise.sigma / spread
        places = None if noise.places is None else noise.places * np.float32(level)
        removed = level * strength >= SMALLEST_SIGMA
        clean = values
        if removed:
            noise = noise.scaled(strength)
            clean = denoiser.remove(values, noise, chosen, shifts or DEFAULT_SHIFTS[chosen])
            most = _of_pixels(noise.levels(values), values.shape) * np.float32(FARTHEST / spread)
            clean = np.clip(clean, values - most, values + most)
    clean = np.clip(clean, 0, 1)
    clean += np.float32(detail) * (np.clip(values, 0, 1) - clean)
    if grey:
        clean = np.repeat(clean.mean(2, keepdims=True, dtype=np.float32), 3, 2)
    return Denoised(clean, chosen, level, places, removed)


def estimate_sigma(image: ImageLike | Picture, model: ModelLike = "photo") -> float:
    """Estimated standard deviation of white noise in a picture, in 8-bit levels.

    It is that of each channel, and of a grey picture that of its values.

    Raises:
        EocodecError: the picture is of an unsupported kind, or of another size than the model is for.
    """
    values, grey, alpha = _values(image)
    noise = _measured(_denoiser(load_model(model)), values, grey, alpha)
    return 255 * noise.sigma / (math.sqrt(3) if grey else 1.0)


class _Denoiser(ABC):
    """How models of a kind denoise.

    Arguments:
        model: the bundle.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def measure(self, values: Float32, grey: bool, areas: Areas, alpha: Bytes | None = None) -> Noise:
        """Estimated noise of a picture, along an axis of colour; of a grey picture, the luma axis.

        Arguments:
            values: the picture.
            grey: all channels are equal.
            areas: of 8x8 pixels in which noise can be measured, at least one.
            alpha: transparency `(H, W)`, if there is any.
        """

    @abstractmethod
    def remove(self, values: Float32, noise: Noise, method: str, shifts: int) -> Float32:
        """The picture without its noise, which lies along the luma axis if it is grey."""

    @abstractmethod
    def keep_top(self, values: Float32, rate: float, shifts: int) -> Float32:
        """The picture of its top C latents."""


class _PhotoDenoiser(_Denoiser):
    """Models for pictures of any size."""

    def measure(self, values: Float32, grey: bool, areas: Areas, alpha: Bytes | None = None) -> Noise:
        if "net" in self.model.denoising_methods:
            spread = math.sqrt(3) if grey else 1.0
            most = functools.cache(lambda: spread * most_noise(values, areas))
            readings = net.read(self.model, values, areas)
            uneven = _uneven(readings, values, areas, grey)
            noise = _bounded(readings.even(), values, areas, spread)
            if grey and noise.sigma:
                held = float(net.of_grey(np.array(noise.sigma)))
                noise = _bounded(noise.scaled(held / noise.sigma), values, areas, spread)
            if uneven is None and noise.sigma >= DOUBTED and noise.sigma > most():
                return noise.scaled(most() / noise.sigma)
            noise = _unclipped(noise, values, areas, spread)
            hidden = noise_areas.hidden(values, areas, grey)
            if hidden is not None:
                hidden = replace(hidden, level=hidden.level * spread, coarse=hidden.coarse * spread)
            elif noise.sigma * 255 < OVERLOOKED:
                hidden = coarse_level(values, areas, alpha, lambda v, a: self._white(v, a, spread).sigma, spread)
            shown = noise if uneven is None else uneven
            if hidden is None or noise.sigma >= UNSEEN * hidden.level or hidden.level > most():
                return shown
            if hidden.level > spread * most_white(values, areas) / math.sqrt(max(1 - hidden.near, LEAST_APART)):
                return shown
            return Noise.correlated(hidden.level, hidden.coarse)
        if grey:
            return Noise.white(math.sqrt(3) * min(_grey_level(values[..., 0]), 1.0))
        return Noise.white(min(shrinkage.noise_level(self.model, values), 1.0))

    def _white(self, values: Float32, areas: Areas, spread: float) -> Noise:
        """What the net says of a picture's noise, but no more than its neighbouring pixels differ by."""
        return _bounded(net.measure(self.model, values, areas), values, areas, spread)

    def remove(self, values: Float32, noise: Noise, method: str, shifts: int) -> Float32:
        if method == "net":
            if noise.coarse is not None:
                values = coarse_removed(
                    values, noise.coarse, lambda v, s: net.apply(self.model, v, Noise.white(s), shifts)
                )
            clean = net.apply(self.model, values, noise, shifts)
            return clipped.with_brightness_of(values, clean, noise.levels(values))
        estimator = {"shrink": shrinkage.shrink, "drop": shrinkage.drop}[method]
        clean = _averaged(functools.partial(estimator, self.model, noise=noise.sigma), values, shifts)
        return shrinkage.restore_coarse(values, clean)

    def keep_top(self, values: Float32, rate: float, shifts: int) -> Float32:
        return _averaged(functools.partial(shrinkage.keep_top, self.model, rate=rate), values, shifts)


class _FlatDenoiser(_Denoiser):
    """Models for pictures of one size."""

    def measure(self, values: Float32, grey: bool, areas: Areas, alpha: Bytes | None = None) -> Noise:
        if grey:
            return Noise.white(math.sqrt(3) * min(_grey_level(values[..., 0]), 1.0))
        return Noise.white(dropping.noise_level(self.model.flat, analyse_vector(self.model, values)))

    def remove(self, values: Float32, noise: Noise, method: str, shifts: int) -> Float32:
        return dropping.keep_top(self.model, values, dropping.rate_of_noise(self.model.flat, noise.sigma))

    def keep_top(self, values: Float32, rate: float, shifts: int) -> Float32:
        return dropping.keep_top(self.model, values, rate)


_DENOISERS: tuple[tuple[type[Manifest], type[_Denoiser]], ...] = (
    (PhotoManifest, _PhotoDenoiser),
    (FlatManifest, _FlatDenoiser),
)


def _denoiser(model: Model) -> _Denoiser:
    return next(made for kind, made in _DENOISERS if isinstance(model.any_manifest, kind))(model)


def _measured(denoiser: _Denoiser, values: Float32, grey: bool, alpha: Bytes | None) -> Noise:
    """Estimated noise of a picture, along an axis of colour; of a grey picture, the luma axis.

    Flat, clipped and transparent areas say nothing of it, but where most of a picture is paper on which noise is cut
    off, that tells it. Noise that a camera's or a scaler's filter has gone over is taken at the level that it has where
    the picture is smooth, if it is larger than what shows of it elsewhere.
    """
    paper = clipped.on_paper(values, alpha)
    if paper is not None:
        return Noise.white(paper * math.sqrt(3) if grey else paper)
    areas = noise_areas.trusted(values, alpha)
    if areas.sum() < min(FEW, LITTLE * areas.size):
        return Noise.white(0.0)
    noise = denoiser.measure(values, grey, areas, alpha)
    levels = noise.levels(values) / np.float32(math.sqrt(3) if grey else 1.0)
    return noise if shows(values, areas, levels) else Noise.white(0.0)


def _uneven(readings: net.Readings, values: Float32, areas: Areas, grey: bool) -> Noise | None:
    """Noise that differs from place to place; None if what is read is not clearly that."""
    spread = math.sqrt(3) if grey else 1.0
    sigmas = readings.uneven(readings.even().levels(values), grey, clipped.is_clipped(values))
    if sigmas is None:
        return None
    if grey:
        sigmas = net.of_grey(sigmas).astype(np.float32)
    most = spread * most_white_around(values, areas)
    beyond = (sigmas >= DOUBTED) & (sigmas > most)
    if beyond[areas].mean() > MOST_BEYOND:
        return None
    noise = Noise.of_places(np.where(beyond, most, sigmas))
    sigmas = noise.levels(values)
    loud = areas & (sigmas >= noise.sigma)
    if not loud.any() or (noise.sigma >= DOUBTED and sigmas[loud].mean() > spread * most_noise(values, loud)):
        return None
    return _unclipped(noise, values, areas, spread)


def _of_pixels(of_areas: Float32, shape: tuple[int, ...]) -> Float32:
    """What areas have, for each pixel of a picture, `(H, W, 1)`."""
    rows, columns = (np.arange(n) // net.AREA for n in shape[:2])
    return of_areas[np.ix_(rows, columns)][:, :, None]


def _bounded(noise: Noise, values: Float32, areas: Areas, spread: float) -> Noise:
    """Noise, but no more than the neighbouring pixels of a picture differ by."""
    if noise.sigma < DOUBTED:
        return noise
    return noise.scaled(min(1.0, spread * most_white(values, areas) / noise.sigma))


def _unclipped(noise: Noise, values: Float32, areas: Areas, spread: float) -> Noise:
    """Noise as it was before it was cut off at 0 and 1, if it was; `spread`: what its level is of a channel's."""
    level = noise.sigma / spread
    if level == 0 or not clipped.is_clipped(values):
        return noise
    return noise.scaled(clipped.before_clipping(level, net.brightness(values)[areas]) / level)


def _grey_level(values: Float32) -> float:
    """Level of white noise in grey values `(H, W)`, from the median of their second differences in both directions.

    References:
        Immerkær, *Fast noise variance estimation*, 1996. https://doi.org/10.1006/cviu.1996.0060
    """
    x = np.pad(values, 1, "edge")
    x = x[:-2] - 2 * x[1:-1] + x[2:]
    x = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    return float(np.median(np.abs(x))) / 6 / 0.6745


def _check(sigma: float | str, rate: float | None, strength: float, shifts: int | None, model: Model) -> None:
    """Raise an :class:`EocodecError` for arguments that are out of range or exclude one another."""
    check_number("strength", strength)
    check_numbers(shifts=shifts, rate=rate)
    if not isinstance(sigma, str):
        check_number("sigma", sigma)
    if isinstance(sigma, str):
        if sigma != "auto":
            raise EocodecError(f"sigma must be a number of 8-bit levels or auto, not {sigma}")
    elif not 0 <= sigma <= 255:
        raise EocodecError(f"sigma must be from 0 to 255 levels, not {sigma:g}")
    if not 0 <= strength <= LARGEST_STRENGTH:
        raise EocodecError(f"the strength must be from 0 to {LARGEST_STRENGTH:g}, not {strength:g}")
    if shifts is not None and not (is_whole(shifts) and 1 <= shifts <= len(SHIFTS)):
        raise EocodecError(f"shifts must be a whole number from 1 to {len(SHIFTS)}, not {shifts}")
    if rate is not None:
        if not 1 <= rate <= model.block:
            raise EocodecError(f"the rate must be from 1 to {model.block} latents a block, not {rate:g}")
        if sigma != "auto" or strength != 1:
            raise EocodecError("with a rate there is no noise level to choose; leave sigma and strength out")


def _choose(method: str, rate: float | None, model: Model) -> str:
    """The method to use.

    Raises:
        EocodecError: there is no such method, the model does not have it, or it does not go with a rate.
    """
    if method not in METHODS:
        raise EocodecError(f"the method must be one of {', '.join(METHODS)}, not {method}")
    if rate is not None and method not in ("auto", "drop"):
        raise EocodecError(f"a rate goes with the method drop, not with {method}")
    known = model.denoising_methods
    if method == "auto":
        return "drop" if rate is not None else known[0]
    if method not in known:
        if known == ("drop",):
            raise EocodecError(f"the model {model.name} denoises by the method drop only, not by {method}")
        raise EocodecError(f"the model {model.name} has no denoising net; use the method shrink")
    return method


def _averaged(remove: Callable[[Float32], Float32], values: Float32, shifts: int) -> Float32:
    """Mean of the clean pictures over shifts against the lattice."""
    total = np.zeros_like(values)
    for down, right in SHIFTS[:shifts]:
        shifted = np.pad(values, ((down, 0), (right, 0), (0, 0)), "edge")
        total += remove(shifted)[down:, right:]
    return total / np.float32(shifts)


def _values(image: ImageLike | Picture, losing: str | None = None) -> tuple[Float32, bool, Bytes | None]:
    """`(H, W, 3)` float32, whether all channels are equal, and alpha; floats may leave 0 to 1, as noise does.

    `losing` is that of :func:`eocodec.image.as_picture`.
    """
    alpha = None
    if isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)) or 0 in image.shape:
            raise EocodecError(
                f"a floating-point picture must have the shape (H, W), (H, W, 1) or (H, W, 3), not {image.shape}"
            )
        if not np.isfinite(image).all():
            raise EocodecError("the picture holds values that are not finite")
        if np.abs(image).max() > LARGEST_VALUE:
            raise EocodecError("a floating-point picture must hold values from 0 to 1, and noise; divide it by 255")
        values = np.asarray(image, np.float32).reshape(*image.shape[:2], -1)
        values = np.broadcast_to(values, (*image.shape[:2], 3))
    else:
        picture = as_picture(image, losing=losing)
        alpha = picture.alpha
        values = picture.rgb.astype(np.float32) / np.float32(255)
    grey = bool((values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all())
    return np.ascontiguousarray(values), grey, alpha
