"""The denoising nets of a photo model as ONNX graphs: `denoise/clean` and `denoise/sigma`.

In: a trained `PhotoModel` with these nets. Out: serialised graphs, checked against torch.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eocodec.errors import ModelError
from eocodec.flow.gains import pooled_level
from eocodec.flow.model import PhotoModel
from eocodec.model.bundle import Model
from eocodec_export.graphs import export_graph, halved, rounded

__all__ = ["check_denoising", "corrected", "denoising_graphs", "fit_level", "round_weights"]

TOLERANCE = 1e-3  # of the range 0 to 1
LEVELS = (0.5, 2, 5, 8, 12, 18, 25, 35, 50, 65, 80)  # 8-bit levels, at which the estimate is corrected


class _Clean(nn.Module):
    def __init__(self, model: PhotoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        return self.model.clean(picture, noise)


class _Level(nn.Module):
    def __init__(self, model: PhotoModel, correction: Sequence[float]) -> None:
        super().__init__()
        self.model, self.correction = model, correction

    def forward(self, picture: Tensor) -> Tensor:
        value, weight = self.model.noise_estimate(picture).chunk(2, 1)
        return torch.cat([corrected(value, self.correction), weight], 1)


def corrected(value: Tensor, correction: Sequence[float]) -> Tensor:
    """The polynomial of a value whose coefficients are `correction`, the constant first."""
    a, b, c = correction
    return a + value * (b + value * c)


@torch.no_grad()
def fit_level(model: PhotoModel, pictures: Sequence[npt.NDArray[np.uint8]]) -> tuple[float, float, float]:
    """What turns the net's log(1 + σ) for white noise into the true one: least squares on noisy pictures.

    The net has learnt from noise of several kinds, some of which it cannot see well, and is biased for this one.
    """
    generator = np.random.default_rng(0)
    unit = 2 ** (model.config.levels + 1)
    measured, true = [], []
    for picture in pictures:
        height, width = (n // unit * unit for n in picture.shape[:2])
        clean = picture[:height, :width].transpose(2, 0, 1)[None] / 255.0
        for sigma in LEVELS:
            noisy = clean + generator.normal(0, sigma / 255, clean.shape)
            measured.append(float(pooled_level(model.noise_estimate(torch.from_numpy(noisy.astype(np.float32))))))
            true.append(math.log1p(sigma))
    a, b, c = np.polynomial.polynomial.polyfit(measured, true, 2)
    return float(a), float(b), float(c)


def round_weights(model: PhotoModel) -> None:
    """Weights of the denoising nets to 8 bits and a power of two a channel, so that the bundle stays small."""
    with torch.no_grad():
        for net in (model.gains, model.noise):
            for p in net.parameters():
                p.copy_(rounded(p))


def denoising_graphs(model: PhotoModel, correction: Sequence[float]) -> dict[str, bytes]:
    """`denoise/clean`: `picture (B, 3, H, W)`, `noise (B, 1, H/2, W/2)` → `clean (B, 3, H, W)`, in the range 0 to 1.

    `denoise/sigma`: `picture` → `level (B, 2, H/2, W/2)`, log(1 + σ in 8-bit levels) and its weight.

    Arguments:
        model: with rounded weights, see :func:`round_weights`.
        correction: of the level, see :func:`fit_level`.
    """
    size = 2 ** len(model.config.gain_widths)
    picture = torch.rand(1, 3, size * 2, size * 3)
    noise = torch.full_like(picture[:, :1, ::2, ::2], 0.1)
    clean = export_graph(_Clean(model), (picture, noise), ["picture", "noise"], ["clean"])
    level = export_graph(_Level(model, correction), (picture,), ["picture"], ["level"])
    return {"denoise/clean": halved(clean, scaled=True), "denoise/sigma": halved(level, scaled=True)}


@torch.no_grad()
def check_denoising(
    model: PhotoModel, bundle: Model, pictures: Sequence[npt.NDArray[np.uint8]], correction: Sequence[float]
) -> float:
    """Largest difference between torch and ONNX Runtime on noisy pictures, in the range 0 to 1.

    Raises:
        ModelError: it is above 1e-3, or the levels differ by more than 1 %.
    """
    generator = np.random.default_rng(0)
    worst = 0.0
    for picture in pictures:
        height, width = (n // bundle.multiple * bundle.multiple for n in picture.shape[:2])
        x = picture[:height, :width].transpose(2, 0, 1)[None].astype(np.float32) / 255
        x = np.ascontiguousarray(x + generator.normal(0, 0.1, x.shape), np.float32)
        noise = np.full((1, 1, height // 2, width // 2), 0.1, np.float32)
        want = model.clean(torch.from_numpy(x), torch.from_numpy(noise))
        (got,) = bundle.run("denoise/clean", {"picture": x, "noise": noise})
        worst = max(worst, float(np.abs(want.numpy() - got).max()))
        (level,) = bundle.run("denoise/sigma", {"picture": x})
        if not np.abs(level - _Level(model, correction)(torch.from_numpy(x)).numpy()).max() <= 0.01:
            raise ModelError("torch and ONNX Runtime differ in the noise level; the export is refused")
    if not worst <= TOLERANCE:
        raise ModelError(f"torch and ONNX Runtime differ by {worst:.2g} in the denoising; the export is refused")
    return worst
