"""Rate-distortion points before and after: estimated by the model in training, or of real files.

In: pictures and a model. Out: points (bits per pixel, quality) at the same steps for every picture, their means, and
how many bytes the curves of one model save against those of another.

Savings are those of single pictures, weighted by their bytes: where pictures differ much, means of qualities are mostly
those of empty pictures, and means of bits those of busy ones.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eocodec.codec import compress_picture, decompress
from eocodec.flow.context import Steps
from eocodec.flow.model import PhotoModel
from eocodec.flow.pictures import Picture
from eocodec.metrics import bd_rate, bd_rate_between
from eocodec.model.bundle import Model

__all__ = [
    "FILE_STEPS",
    "Curve",
    "Point",
    "centre",
    "estimated",
    "file_points",
    "mean_curve",
    "saving",
    "tensor_psnr",
]

Point = tuple[float, float]
Curve = list[Point]
TensorQuality = Callable[[Tensor, Tensor], float]

STEPS = (7.0, 18.0, 45.0)  # 8-bit levels at which training is followed
FILE_STEPS = (5.0, 9.0, 16.0, 28.0, 48.0, 80.0)  # 8-bit levels at which files are compared
WINDOW = (0.2, 2.0)  # bits per pixel between which curves are compared, where they reach
FEWEST_POINTS = 3  # with a loss, of a curve that tells something
EDGE = 320  # pixels; estimates are of the middle of larger pictures


def tensor_psnr(original: Tensor, decoded: Tensor) -> float:
    """PSNR of one picture `(1, 3, H, W)` in [0, 1], its decoded version rounded to 8 bits."""
    error = (torch.floor(decoded.clamp(0, 1) * 255 + 0.5) / 255 - original).square().mean()
    return -10 * math.log10(max(float(error), 1e-10))


def centre(picture: Picture, multiple: int, edge: int = EDGE) -> Picture:
    """The middle of a picture, its height and width multiples of `multiple` and at most `edge`."""
    height, width = (min(n, edge) // multiple * multiple for n in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width].copy()


@torch.no_grad()
def estimated(
    model: PhotoModel,
    pictures: Sequence[Picture],
    dead_zone: float,
    refine_from: float,
    quality: TensorQuality,
    tune: float = 0.0,
) -> list[Curve]:
    """The curve of every picture by the model's own estimate of bits, with the entropy nets rounded as in files.

    Arguments:
        model: in training.
        pictures: `(H, W, 3)`.
        dead_zone, refine_from: of the manifest.
        quality: of original and decoded `(1, 3, H, W)`.
        tune: how much the steps follow the eye, 0 to 1; models that cannot be tuned take no notice of it.
    """
    device = next(model.parameters()).device
    follows = torch.tensor([tune], device=device) if model.config.tuned else None
    curves = []
    for picture in pictures:
        part = torch.from_numpy(centre(picture, 2 ** (model.config.levels + 1))).to(device)
        x = part.permute(2, 0, 1)[None].float() / 255
        curve = []
        for level in STEPS:
            steps = Steps(torch.tensor([level / 255.0], device=device), follows)
            refined, bits, plain = model.rate_distortion(x, steps, dead_zone, True)
            decoded = refined if level >= refine_from else plain
            curve.append((float(bits) / (x.shape[2] * x.shape[3]), quality(x, decoded)))
        curves.append(curve)
    return curves


def file_points(
    model: Model,
    pictures: Sequence[Picture],
    quality: Callable[[Picture, Picture], float],
    levels: Sequence[float] = FILE_STEPS,
    **more: Any,
) -> list[Curve]:
    """The curve of every picture's real files, decoded again.

    Arguments:
        model: loaded bundle.
        pictures: `(H, W, 3)`.
        quality: of original and decoded picture.
        levels: steps in 8-bit levels.
        more: for :func:`eocodec.codec.compress_picture`, such as `progressive`.
    """
    rates = [model.manifest.rate_of(level / 255.0) for level in levels]

    def point(picture: Picture, rate: float) -> Point:
        file = compress_picture(picture, rate, model=model, **more).data
        return 8 * len(file) / (picture.shape[0] * picture.shape[1]), quality(picture, decompress(file, model))

    return [[point(p, rate) for rate in rates] for p in pictures]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Means of all curves at each step, or of those of pictures that never came back exactly, if there are any."""
    points = np.array(curves)
    lossy = np.isfinite(points[..., 1]).all(1)
    means = (points[lossy] if lossy.any() else points).mean(0)
    return [(float(rate), float(quality)) for rate, quality in means]


def saving(before: Sequence[Curve], after: Sequence[Curve]) -> float:
    """Percent of the bytes of all pictures that are saved at equal quality; negative if it takes more.

    The saving of a picture (Bjøntegaard) counts as its bytes do; of its points those with a loss count. Pictures whose
    curves cannot be compared, such as those that are always kept exactly, do not count; nan: none can.

    Example:
        >>> curve = [(0.25, 30.0), (0.5, 33.0), (1.0, 36.0), (2.0, 39.0)]
        >>> round(saving([curve], [[(0.9 * r, q) for r, q in curve]]), 6)
        10.0
    """
    each = np.array([_saving(*pair) for pair in zip(before, after, strict=True)])
    weights = np.array([sum(rate for rate, _ in curve) for curve in before])
    known = np.isfinite(each)
    return float(np.average(each[known], weights=weights[known])) if known.any() else math.nan


def _saving(before: Curve, after: Curve) -> float:
    """Of one picture, nan where its curves do not overlap."""
    before, after = ([point for point in curve if math.isfinite(point[1])] for curve in (before, after))
    if min(len(before), len(after)) < FEWEST_POINTS:
        return math.nan
    try:
        return -bd_rate(before, after, *WINDOW)
    except ValueError:  # they do not reach there
        try:
            return -bd_rate_between(before, after, -math.inf, math.inf)
        except ValueError:
            return math.nan
