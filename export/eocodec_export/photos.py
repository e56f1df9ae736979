"""Photos to train lossless nets on: without the traces of JPEG, and as people have them.

In: photos as they were distributed. Out: smaller ones, sharp as from a screen, soft and grainy as from a camera or a
scanner, and half of them with chroma of half the resolution, as every picture has that once was a JPEG file, a frame
of a film, or on a Photo CD.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["prepared", "with_half_chroma"]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BICUBIC)
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. ITU-R BT.601-7, as JFIF takes it
_BLUE, _RED = 1.772, 1.402  # B − Y and R − Y of Cb and Cr
_LUMA_STEPS = (0.0, 1.0, 1.36)  # that luma is rounded to; 0 keeps it as it is, the last is a Photo CD's
_CHROMA_STEPS = (0.0, 1.0, 1.0, 1.5, 2.2)


def prepared(pictures: Sequence[Bytes], count: int, seed: int = 0) -> list[Bytes]:
    """Training pictures: scaled down; a third scaled up again, with noise; half with chroma of half the resolution.

    The soft and grainy third stands for what cameras and scanners give at full resolution, the grain itself softened
    by what comes after the sensor or left as it is.

    Arguments:
        pictures: photos `(H, W, 3)`.
        count: how many to take, every picture once before any is taken twice.
        seed: of everything that is drawn.
    """
    generator = np.random.default_rng(seed)
    result: list[Bytes] = []
    while len(result) < count:
        for k in generator.permutation(len(pictures))[: count - len(result)].tolist():
            image = _scaled(Image.fromarray(pictures[k]), len(result) % 3 == 2, generator)
            result.append(_developed(with_half_chroma(image, generator), generator) if generator.integers(2) else image)
    return result


def _scaled(image: Image.Image, soft: bool, generator: np.random.Generator) -> Bytes:
    factor = 0.5 if soft else 0.6 if image.width * image.height > 100_000 else 0.8
    size = round(image.width * factor), round(image.height * factor)
    image = image.resize(size, _FILTERS[int(generator.integers(4))])
    if soft:
        image = _grainy(image, generator, 0.5 * float(generator.uniform(0, 3)))
        factor = float(generator.uniform(1.3, 1.8))
        image = image.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BICUBIC)
        image = _grainy(image, generator, 0.7 * float(generator.uniform(0.3, 3)))
    return np.asarray(image)


def _grainy(image: Image.Image, generator: np.random.Generator, sigma: float) -> Image.Image:
    """With noise of `sigma` levels in brightness and as much in every colour."""
    values = np.asarray(image, np.float64)
    values = values + generator.normal(0, sigma, (*values.shape[:2], 1))
    values = values + generator.normal(0, sigma, values.shape)
    return Image.fromarray(_rounded(values))


def _rounded(values: Floats) -> Bytes:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def with_half_chroma(picture: Bytes, generator: np.random.Generator) -> Bytes:
    """A picture `(H, W, 3)` as it comes back when its chroma was kept at half the resolution.

    What is drawn: whether only columns are halved, where the samples of chroma lie, how they are scaled up, and what
    they and luma were rounded to, before and after.
    """
    values = picture.astype(np.float64)
    luma = values @ _LUMA
    chroma = [(values[..., 2] - luma) / _BLUE, (values[..., 0] - luma) / _RED]
    luma = _to_steps(luma, _LUMA_STEPS[int(generator.integers(len(_LUMA_STEPS)))])
    axes = (1,) if generator.integers(5) == 0 else (1, 0)
    beside, smooth = bool(generator.integers(2)), bool(generator.integers(4))
    step = _CHROMA_STEPS[int(generator.integers(len(_CHROMA_STEPS)))]
    again = step if generator.integers(2) else 0.0
    blue, red = (_to_steps(_through_half(c, axes, beside, smooth, step), again) for c in chroma)
    r, b = luma + _RED * red, luma + _BLUE * blue
    return _rounded(np.stack([r, (luma - _LUMA[0] * r - _LUMA[2] * b) / _LUMA[1], b], -1))


def _developed(picture: Bytes, generator: np.random.Generator) -> Bytes:
    """What becomes of a picture afterwards: half get noise of up to a level in every colour, a third a tone curve."""
    if generator.integers(2):
        picture = _rounded(picture + generator.normal(0, generator.uniform(0, 1), picture.shape))
    if generator.integers(3) == 0:
        gamma, gain = generator.uniform(0.75, 1.3), generator.uniform(0.85, 1.15)
        picture = _rounded(255 * gain * (picture / 255) ** gamma)
    return picture


def _to_steps(plane: Floats, step: float) -> Floats:
    return np.floor(plane / step + 0.5) * step if step else plane


def _through_half(plane: Floats, axes: tuple[int, ...], beside: bool, smooth: bool, step: float) -> Floats:
    """A plane halved along `axes`, rounded to `step`, and doubled again.

    Arguments:
        plane: `(H, W)`.
        axes: those along which it is halved.
        beside: samples lie on every other place (as in MPEG-2), else between two (as in JFIF).
        smooth: doubled by interpolation, else by repetition.
        step: 0 does not round.
    """
    half = plane
    for axis in axes:
        half = _halved(half, axis, beside)
    half = _to_steps(half, step)
    for axis in axes:
        half = _doubled(half, axis, beside, smooth)
    return half[: plane.shape[0], : plane.shape[1]]


def _halved(plane: Floats, axis: int, beside: bool) -> Floats:
    x = np.moveaxis(plane, axis, 0)
    x = np.concatenate([x, x[-1:]]) if len(x) % 2 else x
    even, odd = x[::2], x[1::2]
    if beside:
        before = np.concatenate([odd[:1], odd[:-1]])
        return np.moveaxis(even / 2 + (before + odd) / 4, 0, axis)
    return np.moveaxis((even + odd) / 2, 0, axis)


def _doubled(half: Floats, axis: int, beside: bool, smooth: bool) -> Floats:
    x = np.moveaxis(half, axis, 0)
    before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
    if not smooth:
        even = odd = x
    elif beside:
        even, odd = x, (x + after) / 2
    else:
        even, odd = (3 * x + before) / 4, (3 * x + after) / 4
    return np.moveaxis(np.stack([even, odd], 1).reshape(2 * len(x), *x.shape[1:]), 0, axis)
