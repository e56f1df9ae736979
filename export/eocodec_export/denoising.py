"""The denoising nets of a photo model as ONNX graphs: `denoise/gains` and `denoise/level`.

In: a trained `PhotoModel` with these nets. Out: serialised graphs, checked against torch.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eocodec import transform
from eocodec.bundle import Model
from eocodec.errors import ModelError
from eocodec.flow.model import PhotoModel
from eocodec_export.graphs import export_graph, halved, rounded

__all__ = ["check_denoising", "denoising_graphs", "round_weights"]

TOLERANCE = 1e-3  # of the range 0 to 1


class _Gains(nn.Module):
    def __init__(self, model: PhotoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.restore(list(inputs[:-1]), inputs[-1]))


class _Level(nn.Module):
    def __init__(self, model: PhotoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *bands: Tensor) -> Tensor:
        return self.model.level(list(bands))


def round_weights(model: PhotoModel) -> None:
    """Weights of the denoising nets to 8 bits and a power of two a channel, so that the bundle stays small."""
    with torch.no_grad():
        for net in (model.gains, model.noise):
            for p in net.parameters():
                p.copy_(rounded(p))


def denoising_graphs(model: PhotoModel) -> dict[str, bytes]:
    """`denoise/gains`: `low`, `detailL`, …, `detail1`, `noise (B, 1, H/2, W/2)` → `clean_low`, …, `clean_detail1`.

    `denoise/level`: `low`, …, `detail1` → `level (B, 2, H/2, W/2)`, log(1 + σ in 8-bit levels) and its weight.
    """
    size = 2 ** (model.config.levels + 1)
    bands = model.flow(torch.rand(1, 3, size * 2, size * 3))
    names = transform.band_names(model.config.levels)
    noise = torch.full_like(bands[-1][:, :1], 0.1)
    clean = [f"clean_{n}" for n in names]
    return {
        "denoise/gains": halved(export_graph(_Gains(model), (*bands, noise), [*names, "noise"], clean)),
        "denoise/level": halved(export_graph(_Level(model), tuple(bands), names, ["level"])),
    }


@torch.no_grad()
def check_denoising(model: PhotoModel, bundle: Model, pictures: list[npt.NDArray[np.uint8]]) -> float:
    """Largest difference between torch and ONNX Runtime on noisy pictures, in the latents' units.

    Raises:
        ModelError: it is above 1e-3 of the range 0 to 1, or the levels differ by more than 1 %.
    """
    generator = np.random.default_rng(0)
    names = transform.band_names(bundle.manifest.levels)
    worst = 0.0
    for picture in pictures:
        height, width = (n // bundle.multiple * bundle.multiple for n in picture.shape[:2])
        x = picture[:height, :width].transpose(2, 0, 1)[None].astype(np.float32) / 255
        x = (x + generator.normal(0, 0.1, x.shape)).astype(np.float32)
        h = model.flow(torch.from_numpy(x))
        noise = torch.full_like(h[-1][:, :1], 0.1)
        want = model.restore(h, noise)
        feed = {n: np.ascontiguousarray(b) for n, b in zip(names, h, strict=True)}
        got = bundle.run("denoise/gains", {**feed, "noise": np.ascontiguousarray(noise)})
        worst = max(worst, *(float(np.abs(a.numpy() - b).max()) for a, b in zip(want, got, strict=True)))
        (level,) = bundle.run("denoise/level", feed)
        if not np.abs(level - model.level(h).numpy()).max() <= 0.01:
            raise ModelError("torch and ONNX Runtime differ in the noise level; the export is refused")
    if not worst <= TOLERANCE:
        raise ModelError(f"torch and ONNX Runtime differ by {worst:.2g} in the denoising; the export is refused")
    return worst
