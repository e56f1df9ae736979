"""The `photo` flow: colour rotation, then levels of wavelet lifting with learned additive couplings.

In: pictures `x (B, 3, H, W)` in [0, 1], H and W multiples of 2**levels. Out: `h`, a list
`[low-pass, details of the coarsest level, ..., details of the finest level]`. The map is volume preserving, so its
log-determinant is zero and all likelihood terms live in the conditional last layer (`eocodec.flow.context`).

References:
    Ma et al., *End-to-end optimized versatile image compression with wavelet-like transform*, TPAMI 2020.
    https://doi.org/10.1109/TPAMI.2020.3026003
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from eocodec.flow import wavelet
from eocodec.flow.modules import ModuleList

__all__ = ["COLOUR", "Coupling", "DeepRefinement", "PhotoFlow", "Refinement", "log2_step_level"]

# Rows: luma, then two chroma axes; orthonormal (the 3-point DCT, the KLT of highly correlated R, G, B).
COLOUR = (
    (0.5773502691896258, 0.5773502691896258, 0.5773502691896258),
    (0.7071067811865476, 0.0, -0.7071067811865476),
    (-0.4082482904638631, 0.8164965809277261, -0.4082482904638631),
)
FAR = 2.0  # steps, beyond which the refinement need not know how large a latent is
# Offset that moves mid-grey (0.5, 0.5, 0.5) to zero luma before the wavelet.
GREY = 0.5


def log2_step_level(step: Tensor) -> Tensor:
    """Condition for Δ: log2 of the step in 8-bit levels, centred on 32 levels and clamped to the trained range."""
    return (torch.log2(step * 255.0) - 5.0).clamp(-5.0, 3.0)


class Coupling(nn.Module):
    """A small conv net whose last layer starts at zero, so that the flow starts at its base wavelet.

    Arguments:
        inputs: channels in.
        outputs: channels out.
        width: hidden channels.
        depth: number of 3x3 convolutions, at least 2.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs] + [width] * (depth - 1) + [outputs]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])
        last = self.net[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).to(x.dtype)


class Level(nn.Module):
    """One level: base wavelet, then `steps` times `d <- d - P(l)`, `l <- l + U(d)`."""

    def __init__(self, width: int, steps: int, axes: int = 3) -> None:
        super().__init__()
        self.predict = ModuleList(Coupling(axes, 3 * axes, width, 3) for _ in range(steps))
        self.update = ModuleList(Coupling(3 * axes, axes, width, 2) for _ in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.couple(*wavelet.analyse(x))

    def inverse(self, low: Tensor, details: Tensor) -> Tensor:
        return wavelet.synthesise(*self.uncouple(low, details))

    def couple(self, low: Tensor, details: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of the base wavelet's coefficients."""
        for p, u in zip(self.predict, self.update, strict=True):
            details = details - p(low)
            low = low + u(details)
        return low, details

    def uncouple(self, low: Tensor, details: Tensor) -> tuple[Tensor, Tensor]:
        """The base wavelet's coefficients of latents."""
        for p, u in zip(reversed(self.predict), reversed(self.update), strict=True):
            low = low - u(details)
            details = details + p(low)
        return low, details


def _full(x: Tensor) -> Tensor:
    """A tensor in float32, or float64 if it is that."""
    return x if x.dtype == torch.float64 else x.float()


class PhotoFlow(nn.Module):
    """Invertible, volume-preserving map between pictures and wavelet-like latents, in float32 whatever autocast says.

    In bfloat16 its own rounding would be larger than a fine step's, and training would not see what it gains there.

    Arguments:
        levels: number of wavelet levels L; a block of 2**L x 2**L pixels holds 3 * 4**L latents.
        width: hidden channels of the couplings.
        steps: predict/update pairs per level.
        axes: colour axes: 3, or 1 for grey pictures, of which there is luma alone and which come out grey.

    Example:
        >>> flow = PhotoFlow(levels=2, width=8, steps=1)
        >>> x = torch.rand(1, 3, 16, 16)
        >>> h = flow(x)
        >>> [tuple(band.shape[1:]) for band in h]
        [(3, 4, 4), (9, 4, 4), (9, 8, 8)]
        >>> bool(torch.allclose(flow.inverse(h), x, atol=1e-5))
        True
    """

    colour: Tensor

    def __init__(self, levels: int = 4, width: int = 32, steps: int = 2, axes: int = 3) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor(COLOUR[:axes]), persistent=False)
        self.levels = ModuleList(Level(width, steps, axes) for _ in range(levels))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Latents `[LL, d_L, ..., d_1]` of pictures `(B, 3, H, W)`, or, with one axis, of grey ones `(B, 1, H, W)`."""
        with torch.autocast(x.device.type, enabled=False):
            return self.split(self.axes(_full(x)))

    def inverse(self, h: list[Tensor]) -> Tensor:
        """Pictures `(B, 3, H, W)` of latents `[LL, d_L, ..., d_1]`; not clamped to [0, 1]."""
        with torch.autocast(h[0].device.type, enabled=False):
            return self.colours(self.joined(h))

    def split(self, low: Tensor) -> list[Tensor]:
        """Latents of colour axes `(B, axes, H, W)`."""
        bands: list[Tensor] = []
        for level in self.levels:
            low, details = level(low)
            bands.append(details)
        return [low, *reversed(bands)]

    def joined(self, h: list[Tensor]) -> Tensor:
        """Inverse of :meth:`split`."""
        low = _full(h[0])
        for level, details in zip(reversed(self.levels), h[1:], strict=True):
            low = level.inverse(low, _full(details))
        return low

    def grey(self, h: list[Tensor]) -> Tensor:
        """Grey pictures `(B, 1, H, W)` of the latents of a flow with one axis."""
        return self.joined(h) / self.colour.sum() + GREY

    def axes(self, x: Tensor) -> Tensor:
        """Luma and chroma of R, G, B; luma alone of grey pictures `(B, 1, H, W)`, by flows with one axis."""
        if x.shape[1] == 1:
            return (x - GREY) * self.colour.sum()
        return torch.nn.functional.conv2d(x - GREY, self.colour[:, :, None, None])

    def colours(self, x: Tensor) -> Tensor:
        """R, G, B of luma and chroma."""
        return torch.nn.functional.conv2d(x, self.colour.T[:, :, None, None]) + GREY


class Refinement(nn.Module):
    """Decoder-side correction of a quantised picture, scaled by Δ so that it vanishes at high rate.

    Works on 2x2 blocks (12 channels). `forward(x, step)`: `x (B, 3, H, W)` in [0, 1], `step (B,)` in the same range.
    """

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.net = Coupling(13, 12, width, depth)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        blocks = torch.nn.functional.pixel_unshuffle(x - GREY, 2)
        plane = log2_step_level(step)[:, None, None, None].expand(-1, 1, *blocks.shape[2:])
        correction = self.net(torch.cat([blocks, plane], 1)) * step[:, None, None, None]
        return x + torch.nn.functional.pixel_shuffle(correction, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity; the second starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = Coupling(width, width, width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class DeepRefinement(nn.Module):
    """As :class:`Refinement`, with residual blocks at a quarter of the resolution, and steps that vary over a picture.

    `forward(x, h, step, tune)`: `x (B, 3, H, W)` in [0, 1], or grey pictures of one channel; `h` the latents that x was
    made from, the finest ones last; `step (B, 1, H/2, W/2)`, Δ at each place in the same range; `tune (B, 1, H/2,
    W/2)`, how much the steps follow the eye, 0 to 1.

    Arguments:
        width: channels at half the resolution.
        coarse: channels at a quarter.
        blocks: residual blocks there.
        latents: whether it sees the latents of the two finest levels in steps, which tell what is certain: those that
            are zero stand for all that rounds to zero.
        tail: convolutions after both resolutions are joined, the last of which gives the correction.
        axes: colour axes of the latents; with 1 it takes the first channel of pictures and corrects all of them alike.
    """

    def __init__(
        self, width: int, coarse: int, blocks: int, latents: bool = False, tail: int = 2, axes: int = 3
    ) -> None:
        super().__init__()
        self.axes = axes
        self.head = nn.Conv2d(4 * axes + 2, width, 3, padding=1)
        self.down = nn.Conv2d(width, coarse, 2, stride=2)
        sizes = (width, coarse) if latents else ()
        self.finest = ModuleList(nn.Conv2d(3 * axes, size, 3, padding=1, bias=False) for size in sizes)
        for net in self.finest:
            nn.init.zeros_(net.weight)
        self.blocks = ModuleList(Residual(coarse) for _ in range(blocks))
        self.up = nn.Conv2d(coarse, 4 * width, 1)
        self.tail = Coupling(width, 4 * axes, width, tail)
        self.register_buffer("phases", torch.eye(4 * axes).reshape(4 * axes, axes, 2, 2), persistent=False)

    def forward(self, x: Tensor, h: list[Tensor], step: Tensor, tune: Tensor) -> Tensor:
        # As `pixel_unshuffle`, which runtimes do in a transposition of six axes, four times as slow.
        blocks = torch.nn.functional.conv2d(x[:, : self.axes] - GREY, self.get_buffer("phases"), stride=2)
        fine = self.head(torch.cat([blocks, log2_step_level(step), tune], 1))
        if self.finest:
            fine = fine + self.finest[0]((h[-1] / step).clamp(-FAR, FAR))
        fine = torch.relu(fine)
        y = self.down(fine)
        if self.finest:
            y = y + self.finest[1]((h[-2] / step[:, :, ::2, ::2]).clamp(-FAR, FAR))
        for block in self.blocks:
            y = block(y)
        y = fine + torch.nn.functional.pixel_shuffle(self.up(torch.relu(y)), 2)
        return x + torch.nn.functional.pixel_shuffle(self.tail(torch.relu(y)).to(x.dtype) * step, 2)
