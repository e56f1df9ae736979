"""The nets of the embedded stream (`eocodec.coding.embedded`): what a layer makes significant, given all layers before.

In: latents of a flow and a dead zone Z. Out: the bits of the significance pass with dead zone Z, all passes before it
being known: outside 2 Z the cells of width 2 Z, inside it nothing.

Order and nets are those of `eocodec.flow.context`; a level's feature net sees in addition what the layers before left
known of the whole level and of the finer one, so positions that come later count too. A pass's outputs are mean and
scale of a Laplace density in steps of 3/2 Z; the price of an outcome is −log of its share of what was possible.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from eocodec.flow.context import ContextModel, IntegerNet, LatentModel, net_input, quads, scale_of_index, unquads

__all__ = ["EmbeddedContext", "known_channels", "ladder", "price", "significance_bits"]

STEP_PER_ZONE = 1.5
LOW_STEP = 128.0  # 8-bit levels
LAST = 0.5  # 8-bit levels, the smallest dead zone


def known_channels(level: int) -> int:
    """Channels that a level's feature net has for what is known: own latents in four phases, and those of the finer."""
    return 36 if level == 1 else 72


class EmbeddedContext(ContextModel):
    """Nets of every level as in `ContextModel`, with feature nets that also see what is known.

    Arguments:
        levels, features, width: as in `ContextModel`.
    """

    def __init__(self, levels: int = 4, features: int = 32, width: int = 48) -> None:
        super().__init__(levels, features, width)
        for level in range(levels, 0, -1):
            inputs = (25 if level == levels else 26) + known_channels(level)
            self.feature[str(level)] = IntegerNet([inputs, features, features], [3, 3], True)

    @torch.no_grad()
    def start(self, context: ContextModel) -> None:
        """Take over trained nets; what they do not know has no influence at first."""
        own = self.state_dict()
        for name, value in context.state_dict().items():
            if own[name].shape == value.shape:
                own[name].copy_(value)
            else:  # the first layer of a feature net: its inputs, then the new ones
                own[name].zero_()
                own[name][:, : value.shape[1]] = value


def ladder(step: Tensor) -> Tensor:
    """The dead zone of embedded streams (a power of two in 8-bit levels) next to that of a step; range 0 to 1."""
    return torch.exp2(torch.round(torch.log2(step * 255 / STEP_PER_ZONE)).clamp(math.log2(LAST), 10.0)) / 255


def significance_bits(h: Tensor, zone: float, mean: Tensor, scale: Tensor) -> Tensor:
    """Bits of every latent in a significance pass; zero for those that are significant already.

    Arguments:
        h: latents, in steps of 3/2 Z.
        zone: Z in these steps.
        mean, scale: of their Laplace densities.
    """
    mean = mean.clamp(-2 * zone, 2 * zone)

    def below(x: Tensor) -> Tensor:
        """Distribution function at x."""
        t = (x - mean) / scale
        tail = 0.5 * torch.exp(-t.abs())
        return torch.where(t < 0, tail, 1 - tail)

    a, b, c, d = (below(torch.full_like(mean, k * zone)) for k in (-2, -1, 1, 2))
    inside, low, high = c - b, b - a, d - c
    outcome = torch.where(h.abs() < zone, inside, torch.where(h < 0, low, high))
    bits = torch.log2((inside + low + high).clamp(min=1e-9)) - torch.log2(outcome.clamp(min=1e-9))
    return bits * (h.abs() < 2 * zone)


def price(context: EmbeddedContext, latents: LatentModel, h: list[Tensor], zone: Tensor, quantised: bool) -> Tensor:
    """Bits `(B,)` of the significance pass with dead zones `zone (B,)`, in units of the pictures' range 0 to 1."""
    gains = [torch.exp(g)[:, None, None] for g in latents.gains]
    step = (STEP_PER_ZONE * zone)[:, None, None, None]
    relative = 1 / STEP_PER_ZONE
    condition = torch.log2(step[:, 0, 0, 0] * 255.0) - 5.0
    width = torch.minimum(2 * zone, torch.full_like(zone, LOW_STEP / 255))[:, None, None, None]
    low = torch.round(h[0] / gains[0] / width) * width / step
    dx = functional.pad(low[..., 1:] - low[..., :-1], (0, 1))
    dy = functional.pad(low[..., 1:, :] - low[..., :-1, :], (0, 0, 0, 1))
    coarser = quads(net_input(torch.cat([dx, dy], 1), quantised)).flatten(1, 2)
    targets = [v / g / step for v, g in zip(h[1:], gains[1:], strict=True)]
    known = [net_input(_middle(t, 2 * relative, 2 * relative), quantised) for t in targets]
    feature: Tensor | None = None
    bits = torch.zeros_like(zone)
    levels = context.n
    for k, level in enumerate(range(levels, 0, -1)):
        plane = condition.clamp(-5, 3)[:, None, None, None]
        plane = torch.floor(plane * 16 + 0.5) / 32 if quantised else plane / 2
        plane = plane.expand(-1, 1, *coarser.shape[2:])
        extra = [quads(known[k]).flatten(1, 2)]
        if level > 1:
            extra.append(quads(largest_below(known[k + 1])).flatten(1, 2))
        feature = context.features(level, coarser, feature, torch.cat([plane, *extra], 1), quantised)
        target = quads(targets[k])
        now = quads(_middle(targets[k], relative, 2 * relative))
        out: list[list[Tensor]] = [[] for _ in range(4)]
        seen: list[Tensor] = []
        for p in range(4):
            mean, index = context.parameters_of(context.luma[str(level)][p], [feature, *seen, plane], quantised)
            cost, value = _pass(target[:, p, :3], now[:, p, :3], mean, index, relative)
            bits = bits + cost.sum((1, 2, 3))
            out[p].append(value)
            seen.append(net_input(value, quantised))
        luma = list(seen)
        for p in range(2):
            mean, index = context.parameters_of(context.chroma[str(level)][p], [feature, *seen, plane], quantised)
            pair, state = (t[:, 2 * p : 2 * p + 2, 3:].flatten(1, 2) for t in (target, now))
            cost, value = _pass(pair, state, mean, index, relative)
            bits = bits + cost.sum((1, 2, 3))
            out[2 * p].append(value[:, :6])
            out[2 * p + 1].append(value[:, 6:])
            seen = [*luma, net_input(value, quantised)]
        values = torch.stack([torch.cat(o, 1) for o in out], 1)
        coarser = net_input(unquads(values), quantised)
    return bits


def _pass(h: Tensor, now: Tensor, mean: Tensor, index: Tensor, zone: float) -> tuple[Tensor, Tensor]:
    """Bits of a pass and what later nets see of its latents."""
    cost = significance_bits(h, zone, mean, scale_of_index(index))
    middle = mean.detach().clamp(-zone, zone)
    return cost, torch.where(now == 0, middle, now)


def _middle(v: Tensor, zone: float, width: float) -> Tensor:
    """Middles of cells `width` wide outside a dead zone; if that is narrower, the cell [Z, 2 Z) comes in between."""
    size = v.abs()
    cell = (torch.floor(size / width) + 0.5) * width
    fresh = (size >= zone) & (size < width)  # [Z, 2 Z), newly significant
    cell = torch.where(fresh, 1.5 * zone, cell)
    return torch.where(size < zone, torch.zeros_like(v), torch.sign(v) * cell)


def largest_below(v: Tensor) -> Tensor:
    """Largest magnitude of the four latents below each latent of the coarser level."""
    return functional.max_pool2d(v.abs(), 2)
