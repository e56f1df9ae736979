"""The photo flow of grey pictures: the luma axis alone, with nets that began as those of a flow for colour.

In: a :class:`PhotoFlow` and its :class:`DeepRefinement`. Out: nets of the same widths for one axis instead of three. A
grey picture has no chroma, but a flow for colour makes some of its luma and reads it again. Without that a flow has a
third of the latents, fewer operations, and no chroma to code; it still preserves volume, and its inverse is exact. It
has to be trained again, for what it codes luma as is another thing at first. The entropy nets stay; they see zeros for
chroma.
"""

import copy
import math

import torch
from torch import Tensor, nn

from eocodec.flow.photo import GREY, Coupling, DeepRefinement, PhotoFlow

__all__ = ["GreyFlow", "GreyRefinement", "LumaFlow", "LumaRefinement"]

ORIENTATIONS = 3  # bands of luma in a level's details, which come first
COLOURS = 3


def _narrowed(net: nn.Conv2d, inputs: slice = slice(None), outputs: slice = slice(None)) -> nn.Conv2d:
    """A convolution of some of its input and output channels."""
    net = copy.deepcopy(net)
    net.weight = nn.Parameter(net.weight.detach()[outputs, inputs].clone())
    if net.bias is not None:
        net.bias = nn.Parameter(net.bias.detach()[outputs].clone())
    net.out_channels, net.in_channels = net.weight.shape[:2]
    return net


def _ends(coupling: Coupling, inputs: int, outputs: int) -> None:
    """Let a coupling read and write its first channels only."""
    first, last = coupling.net[0], coupling.net[-1]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    coupling.net[0], coupling.net[-1] = _narrowed(first, slice(inputs)), _narrowed(last, outputs=slice(outputs))


class LumaFlow(PhotoFlow):
    """As the flow that it begins as, for pictures `(B, 1, H, W)`: latents `[(B, 1, …), (B, 3, …), …]`.

    Arguments:
        flow: for colour.

    Example:
        >>> flow = LumaFlow(PhotoFlow(levels=2, width=8, steps=1))
        >>> x = torch.rand(1, 1, 16, 16)
        >>> h = flow(x)
        >>> [tuple(band.shape[1:]) for band in h]
        [(1, 4, 4), (3, 4, 4), (3, 8, 8)]
        >>> bool(torch.allclose(flow.inverse(h), x, atol=1e-5))
        True
    """

    def __init__(self, flow: PhotoFlow) -> None:
        nn.Module.__init__(self)
        self.levels = copy.deepcopy(flow.levels)
        for level in self.levels:
            for predict, update in zip(level.predict, level.update, strict=True):
                _ends(predict, 1, ORIENTATIONS)
                _ends(update, ORIENTATIONS, 1)

    def axes(self, x: Tensor) -> Tensor:
        """Luma of pictures of which each channel is `x`."""
        return (x - GREY) * math.sqrt(COLOURS)

    def colours(self, x: Tensor) -> Tensor:
        """What each of three equal channels is, for luma `x`."""
        return x / math.sqrt(COLOURS) + GREY


class LumaRefinement(DeepRefinement):
    """As the refinement that it begins as, for `x (B, 1, H, W)` and latents of luma.

    At first it gives what that one gives in the mean over R, G and B, for equal channels and without chroma.

    Arguments:
        refine: for colour.
    """

    def __init__(self, refine: DeepRefinement) -> None:
        nn.Module.__init__(self)
        for name, module in refine.named_children():
            setattr(self, name, copy.deepcopy(module))
        self.register_buffer("phases", torch.eye(4).reshape(4, 1, 2, 2), persistent=False)
        head, last = self.head.weight.detach(), self.tail.net[-1]  # channels: 4 · colour + phase, then step and tuning
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        self.head = _narrowed(self.head, slice(6))
        equal = head[:, : 4 * COLOURS].unflatten(1, (COLOURS, 4)).sum(1)
        self.head.weight = nn.Parameter(torch.cat([equal, head[:, 4 * COLOURS :]], 1))
        for k, net in enumerate(self.finest):
            self.finest[k] = _narrowed(net, slice(ORIENTATIONS))
        mean = _narrowed(last, outputs=slice(4))
        mean.weight = nn.Parameter(last.weight.detach().unflatten(0, (COLOURS, 4)).mean(0))
        mean.bias = nn.Parameter(last.bias.detach().unflatten(0, (COLOURS, 4)).mean(0))
        self.tail.net[-1] = mean


def _of_luma(h: list[Tensor]) -> list[Tensor]:
    """The latents of luma of all."""
    return [band[:, : ORIENTATIONS if k else 1] for k, band in enumerate(h)]


class GreyFlow(nn.Module):
    """A :class:`LumaFlow` in the place of a flow for colour: of grey pictures `(B, 3, H, W)`, chroma latents zero."""

    def __init__(self, luma: LumaFlow) -> None:
        super().__init__()
        self.luma = luma

    def forward(self, x: Tensor) -> list[Tensor]:
        """See :class:`PhotoFlow`."""
        bands = self.luma(x[:, :1])
        return [torch.cat([b, b.new_zeros(len(b), 2 * b.shape[1], *b.shape[2:])], 1) for b in bands]

    def inverse(self, h: list[Tensor]) -> Tensor:
        """See :class:`PhotoFlow`."""
        return self.luma.inverse(_of_luma(h)).expand(-1, COLOURS, -1, -1)


class GreyRefinement(nn.Module):
    """A :class:`LumaRefinement` in the place of a refinement for colour."""

    def __init__(self, luma: LumaRefinement) -> None:
        super().__init__()
        self.luma = luma

    def forward(self, x: Tensor, h: list[Tensor], step: Tensor, tune: Tensor) -> Tensor:
        """See :class:`DeepRefinement`."""
        return self.luma(x[:, :1], _of_luma(h), step, tune).expand(-1, COLOURS, -1, -1)
