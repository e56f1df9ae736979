"""Rate-distortion points before and after: estimated by the model in training, or of real files.

In: pictures and a model. Out: points (bits per pixel, quality), means over the pictures at equal steps, and how many
bytes one curve saves against another.
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

__all__ = ["FILE_STEPS", "Point", "centre", "estimated", "file_points", "saving", "tensor_psnr"]

Point = tuple[float, float]
TensorQuality = Callable[[Tensor, Tensor], float]

STEPS = (7.0, 18.0, 45.0)  # 8-bit levels at which training is followed
FILE_STEPS = (5.0, 9.0, 16.0, 28.0, 48.0, 80.0)  # 8-bit levels at which files are compared
WINDOW = (0.2, 2.0)  # bits per pixel between which curves are compared, where they reach
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
) -> list[Point]:
    """Points by the model's own estimate of bits, with the entropy nets rounded as in files.

    Arguments:
        model: in training.
        pictures: `(H, W, 3)`.
        dead_zone, refine_from: of the manifest.
        quality: of original and decoded `(1, 3, H, W)`.
        tune: how much the steps follow the eye, 0 to 1; models that cannot be tuned take no notice of it.
    """
    device = next(model.parameters()).device
    points = []
    for level in STEPS:
        rates, qualities = [], []
        for picture in pictures:
            part = torch.from_numpy(centre(picture, 2 ** (model.config.levels + 1))).to(device)
            x = part.permute(2, 0, 1)[None].float() / 255
            follows = torch.tensor([tune], device=device) if model.config.tuned else None
            steps = Steps(torch.tensor([level / 255.0], device=device), follows)
            refined, bits, plain = model.rate_distortion(x, steps, dead_zone, True)
            rates.append(float(bits) / (x.shape[2] * x.shape[3]))
            qualities.append(quality(x, refined if level >= refine_from else plain))
        points.append((float(np.mean(rates)), float(np.mean(qualities))))
    return points


def file_points(
    model: Model, pictures: Sequence[Picture], quality: Callable[[Picture, Picture], float], **more: Any
) -> list[Point]:
    """Points of real files, decoded again.

    Arguments:
        model: loaded bundle.
        pictures: `(H, W, 3)`.
        quality: of original and decoded picture.
        more: for :func:`eocodec.codec.compress_picture`, such as `progressive`.
    """
    points = []
    for level in FILE_STEPS:
        rate = model.manifest.rate_of(level / 255.0)
        files = [compress_picture(p, rate, model=model, **more).data for p in pictures]
        bits = [8 * len(f) / (p.shape[0] * p.shape[1]) for f, p in zip(files, pictures, strict=True)]
        qualities = [quality(p, decompress(f, model)) for f, p in zip(files, pictures, strict=True)]
        points.append((float(np.mean(bits)), float(np.mean(qualities))))
    return points


def saving(before: Sequence[Point], after: Sequence[Point]) -> float:
    """Percent of the bytes that are saved at equal quality (Bjøntegaard); negative if it takes more.

    Example:
        >>> curve = [(0.25, 30.0), (0.5, 33.0), (1.0, 36.0), (2.0, 39.0)]
        >>> round(saving(curve, [(0.9 * r, q) for r, q in curve]), 6)
        10.0
    """
    try:
        return -bd_rate(before, after, *WINDOW)
    except ValueError:  # they do not reach there
        try:
            return -bd_rate_between(before, after, -math.inf, math.inf)
        except ValueError:
            return math.nan
