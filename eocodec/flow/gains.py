"""The denoising nets of the photo model: gains and offsets for every latent, and the level of the noise.

In: coefficients of a noisy picture's base wavelet, the flow's without its couplings, and the standard deviation of the
noise. Out: those of the clean picture; or, from the noisy ones alone, the level itself. The couplings are not linear:
without them white noise stays white. A U-Net reads the finest details d and the low-pass beside them, which stands for
all coarser latents, at half the picture's resolution. Details become `g·d + m`: the gain g in (0, 1) shrinks what is
noise, the offset m is what the neighbourhood says; the low-pass gets an offset. (Gains for the coupled latents, of all
levels or the finest, were tried and were worse: docs/METHOD.md.)

References:
    Zhang, Zuo & Zhang, *FFDNet*, 2018 (the level as an input plane). https://doi.org/10.1109/TIP.2018.2839891
    Zhang et al., *Plug-and-play image restoration with deep denoiser prior*, 2021 (U-Net of residual blocks).
    https://doi.org/10.1109/TPAMI.2021.3088914
    Liu et al., *Multi-level wavelet-CNN for image restoration*, 2018. https://doi.org/10.1109/CVPRW.2018.00121
"""

import io
import math
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from eocodec.flow.modules import ModuleList
from eocodec.flow.trainable import Draws

__all__ = [
    "GainNet",
    "NoiseNet",
    "corrupt",
    "level_loss",
    "pooled_level",
    "restoration_loss",
]

LUMA = (0.299, 0.587, 0.114)
GREY_SHARE, POISSON_SHARE, JPEG_SHARE = 0.08, 0.08, 0.08  # of the training pictures
SMALLEST = 0.1 / 255  # floor of the root mean square error in the loss
TOLERANCE = 0.25  # of the noise: errors of easy crops count little below it, as they do within a whole picture
AREA = 8  # edge in pixels of the areas in which brightness decides about signal-dependent noise


class Block(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= 0.3
            nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


class GainNet(nn.Module):
    """Clean details and low-pass of the finest level, see the module's text.

    Arguments:
        widths: channels at every level of the U-Net, the finest first.
        blocks: residual blocks at every level, on the way down and on the way up.

    Example:
        >>> net = GainNet((8, 8))
        >>> low, details = net(torch.rand(1, 3, 8, 12), torch.rand(1, 9, 8, 12), torch.full((1, 1, 8, 12), 0.1))
        >>> tuple(low.shape), tuple(details.shape)
        ((1, 3, 8, 12), (1, 9, 8, 12))
    """

    def __init__(self, widths: tuple[int, ...], blocks: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(13, widths[0], 3, padding=1)
        self.down = ModuleList(nn.Sequential(*(Block(w) for _ in range(blocks))) for w in widths)
        self.up = ModuleList(nn.Sequential(*(Block(w) for _ in range(blocks))) for w in widths[:-1])
        self.shrink = ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        self.grow = ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[0], 21, 3, padding=1)
        with torch.no_grad():
            self.out.weight *= 0.1
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def takes(self, other: "GainNet") -> bool:
        """Whether :meth:`start` can take this net over, being as large at least, with as many scales and blocks."""
        own, theirs = self.state_dict(), other.state_dict()
        return own.keys() == theirs.keys() and all(
            a >= b for k in own for a, b in zip(own[k].shape, theirs[k].shape, strict=True)
        )

    @torch.no_grad()
    def start(self, other: "GainNet") -> None:
        """Take over a trained net that may have fewer channels; those it has more have no influence at first."""
        for mine, theirs in zip(self.modules(), other.modules(), strict=True):
            if isinstance(mine, nn.Conv2d | nn.ConvTranspose2d):
                assert isinstance(theirs, nn.Conv2d | nn.ConvTranspose2d)
                assert mine.bias is not None and theirs.bias is not None
                mine.bias[: theirs.out_channels] = theirs.bias
                turned = isinstance(mine, nn.ConvTranspose2d)  # channels in, channels out
                own, given = ((w.transpose(0, 1) if turned else w) for w in (mine.weight, theirs.weight))
                own[: theirs.out_channels] = 0
                own[: theirs.out_channels, : theirs.in_channels] = given

    def forward(self, low: Tensor, details: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Clean low-pass and details.

        Arguments:
            low, details: of the base wavelet, `(B, 3, H/2, W/2)` and `(B, 9, H/2, W/2)`.
            noise: standard deviation of the noise in the picture's range 0 to 1, `(B, 1, H/2, W/2)`.
        """
        x = self.head(torch.cat([low, details * 2, noise * 2], 1) * 2)
        beside: list[Tensor] = []
        for k, blocks in enumerate(self.down):
            x = blocks(x if k == 0 else self.shrink[k - 1](x))
            beside.append(x)
        for k in reversed(range(len(self.up))):
            x = self.up[k](self.grow[k](x) + beside[k])
        shift, offset, gain = self.out(x).float().split((3, 9, 9), 1)
        return low + shift, torch.sigmoid(gain + 3) * details + offset


class NoiseNet(nn.Module):
    """Level of the noise at every place of the finest level, and how far it is to be trusted.

    `forward(details)`: the base wavelet's finest details `(B, 9, H/2, W/2)` to `(B, 2, H/2, W/2)`: log(1 + σ in 8-bit
    levels), and a weight in (0, 1). Their weighted mean is the level, see :func:`pooled_level`. The weights are
    bounded, or a few places would decide, and in a large picture other ones than in the small ones of training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(9, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2, 1),
        )

    def forward(self, details: Tensor) -> Tensor:
        levels = details * 255.0
        value, weight = self.net(torch.sign(levels) * torch.log1p(levels.abs() / 2)).float().chunk(2, 1)
        return torch.cat([value, torch.sigmoid(weight)], 1)


def pooled_level(estimate: Tensor) -> Tensor:
    """Weighted mean of a `NoiseNet`'s output, log(1 + σ in 8-bit levels), `(B,)`."""
    value, weight = estimate.flatten(2).unbind(1)
    return (weight * value).sum(1) / weight.sum(1).clamp(min=1e-6)


def corrupt(x: Tensor, draws: Draws, largest: float, clean: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures with noise, to learn from.

    Three quarters get white Gaussian noise; the others are grey with grey noise, or have noise that grows with
    brightness, or were clipped, rounded and compressed as JPEG after the noise was added.

    Arguments:
        x: clean pictures `(B, 3, H, W)`, 0 to 1.
        draws: random numbers.
        largest: the largest level, 0 to 255.
        clean: share of the pictures that get no noise.

    Returns:
        Clean pictures (some grey now), noisy pictures, and the standard deviation of the noise as `GainNet` takes it,
        `(B, 1, H/2, W/2)`: for grey pictures √3 times that of a channel, since all of it is in the luma axis.
    """
    kind, quality = draws.uniform(), draws.uniform()
    sigma = largest / 255 * draws.uniform() ** 1.3
    if clean:
        sigma = torch.where(draws.uniform() < clean, 0.0, sigma)
    grey = kind < GREY_SHARE
    poisson = (kind >= GREY_SHARE) & (kind < GREY_SHARE + POISSON_SHARE)
    jpeg = kind >= 1 - JPEG_SHARE
    luma = functional.conv2d(x, x.new_tensor(LUMA)[None, :, None, None])
    x = torch.where(grey[:, None, None, None], luma, x)
    unit = draws.normal(*x.shape[1:])
    unit = torch.where(grey[:, None, None, None], unit[:, :1], unit)
    part = 0.3 + 0.7 * draws.uniform()  # of the variance that does not depend on brightness, squared
    part = torch.where(poisson, part, 1.0)
    mean = x.mean((1, 2, 3)).clamp(min=0.02)
    floor, slope = (sigma * part).square(), sigma.square() * (1 - part.square()) / mean
    variance = floor[:, None, None, None] + slope[:, None, None, None] * x
    noisy = x + unit * variance.sqrt()
    for k in torch.nonzero(jpeg).flatten().tolist():
        noisy[k] = _jpeg(noisy[k], 30 + int(66 * float(quality[k])))
    bright = functional.avg_pool2d(noisy.mean(1, keepdim=True), AREA).clamp(0, 1)
    variances = floor[:, None, None, None] + slope[:, None, None, None] * bright
    plane = functional.interpolate(variances.sqrt(), scale_factor=AREA // 2, mode="nearest")
    return x, noisy, plane * torch.where(grey, math.sqrt(3), 1.0)[:, None, None, None]


def _jpeg(x: Tensor, quality: int) -> Tensor:
    """A picture `(3, H, W)` clipped to 0 to 1, rounded to 8 bits and compressed."""
    pixels = (x.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0 if quality > 80 else 2)
    return torch.from_numpy(np.array(Image.open(file))).to(x).permute(2, 0, 1) / 255


def restoration_loss(clean: Tensor, restored: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the pictures of ½ log of the mean squared error, whose minimum is the best mean PSNR; and the errors.

    Arguments:
        clean, restored: `(B, 3, H, W)`.
        noise: level `(B, 1, h, w)`; errors far below it count little.
    """
    error = (restored - clean).square().mean((1, 2, 3))
    floor = (TOLERANCE * noise.mean((1, 2, 3))).square() + SMALLEST**2
    return 0.5 * torch.log(error + floor).mean(), error.detach()


def level_loss(estimate: Tensor, noise: Tensor) -> Tensor:
    """Absolute error of log(1 + σ) in a `NoiseNet`'s output, mean over the pictures; `noise (B, 1, h, w)` is true."""
    true = torch.log1p(255 * noise.square().mean((1, 2, 3)).sqrt())
    return (pooled_level(estimate) - true).abs().mean()
