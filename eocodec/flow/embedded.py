"""The nets of the embedded stream (`eocodec.coding.embedded`): what a layer makes significant, given all layers before.

In: latents of a flow and a dead zone Z. Out: the bits of the significance pass with dead zone Z, all passes before it
being known: outside 2 Z the cells of width 2 Z, inside it nothing.

Order and nets are those of `eocodec.flow.context`; a level's feature net sees in addition what the layers before left
known of the whole level and of the finer one, so positions that come later count too. A pass's outputs are mean and
scale of a Laplace density in steps of 3/2 Z; the price of an outcome is −log of its share of what was possible.

A significance pass has two stages, two walks through the nets, as files have: the likely latents first, then, all of
these being known, the others.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from eocodec.coding.scales import LIKELY
from eocodec.flow.context import ContextModel, IntegerNet, LatentModel, net_input, quads, scale_of_index, unquads

__all__ = ["EmbeddedContext", "StageWalk", "known_channels", "ladder", "price", "significance_bits"]

STEP_PER_ZONE = 1.5
LOW_STEP = 128.0  # 8-bit levels
LAST = 0.5  # 8-bit levels, the smallest dead zone
ZONE = 1 / STEP_PER_ZONE  # Z in steps
STAGES = 2


def known_channels(level: int) -> int:
    """Channels that a level's feature net has for what is known: own latents in four phases, and those of the finer."""
    return 36 if level == 1 else 72


class EmbeddedContext(ContextModel):
    """Nets of every level as in `ContextModel`, with feature nets that also see what is known.

    Arguments:
        levels, features, width, coarse, depth, eight_bit: as in `ContextModel`.
    """

    def __init__(
        self,
        levels: int = 4,
        features: int = 32,
        width: int = 48,
        coarse: float = 1.0,
        depth: int = 1,
        eight_bit: bool = False,
    ) -> None:
        super().__init__(levels, features, width, coarse, depth, 1, eight_bit)
        for level in range(levels, 0, -1):
            inputs = (25 if level == levels else 26) + known_channels(level)
            f = self.feature[str(level)].convs[-1].out_channels
            self.feature[str(level)] = IntegerNet([inputs, f, f], [3, 3], True, eight_bit)

    def known_channels(self, level: int) -> int:
        return known_channels(level)


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
    condition = torch.log2(step[:, 0, 0, 0] * 255.0) - 5.0
    width = torch.minimum(2 * zone, torch.full_like(zone, LOW_STEP / 255))[:, None, None, None]
    cells = h[0] / gains[0] / width
    halved = width < 0.99 * LOW_STEP / 255  # a cell's edge, not its middle, is then at zero
    low = torch.where(halved, torch.floor(cells) + 0.5, torch.floor(cells + 0.5)) * width / step
    dx = functional.pad(low[..., 1:] - low[..., :-1], (0, 1))
    dy = functional.pad(low[..., 1:, :] - low[..., :-1, :], (0, 0, 0, 1))
    gradients = quads(net_input(torch.cat([dx, dy], 1), quantised)).flatten(1, 2)
    plane = condition.clamp(-5, 3)[:, None, None, None]
    plane = torch.floor(plane * 16 + 0.5) / 32 if quantised else plane / 2
    targets = [v / g / step for v, g in zip(h[1:], gains[1:], strict=True)]
    known = [_middle(t, 2 * ZONE, 2 * ZONE) for t in targets]
    undecided = [k == 0 for k in known]
    bits = torch.zeros_like(zone)
    for stage in range(STAGES):
        cost, settled = StageWalk(context, plane, quantised, stage).run(gradients, targets, known, undecided)
        bits = bits + cost
        known = [torch.where(s, _middle(t, ZONE, 2 * ZONE), k) for s, t, k in zip(settled, targets, known, strict=True)]
        undecided = [u & ~s for u, s in zip(undecided, settled, strict=True)]
    return bits


class StageWalk:
    """A stage of a significance pass: all nets once.

    Arguments:
        context: the nets.
        plane: what they see of the step, `(B, 1, 1, 1)`.
        quantised: whether they are those of files.
        stage: 0 decides the likely latents only, 1 all.
    """

    def __init__(self, context: EmbeddedContext, plane: Tensor, quantised: bool, stage: int) -> None:
        self.context, self.plane, self.quantised, self.stage = context, plane, quantised, stage

    def run(
        self, coarser: Tensor, targets: list[Tensor], known: list[Tensor], undecided: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Bits, and for every level which latents were decided.

        Arguments:
            coarser: what the nets of the coarsest level see of the low-pass.
            targets: latents in steps, for every level.
            known: middles of their cells, zero in the dead zone 2 Z.
            undecided: which are yet to be decided.
        """
        context, quantised = self.context, self.quantised
        seen_known = [net_input(v, quantised) for v in known]
        feature: Tensor | None = None
        self.bits = torch.zeros(len(coarser), device=coarser.device)
        settled = []
        for k, level in enumerate(range(context.n, 0, -1)):
            self.level = [quads(t) for t in (targets[k], known[k], undecided[k])]
            plane = self.plane.expand(-1, 1, *coarser.shape[2:])
            extra = [quads(seen_known[k]).flatten(1, 2)]
            if level > 1:
                extra.append(quads(largest_below(seen_known[k + 1])).flatten(1, 2))
            feature = context.features(level, coarser, feature, torch.cat([plane, *extra], 1), quantised)
            values: list[list[Tensor]] = [[] for _ in range(4)]
            decided: list[list[Tensor]] = [[] for _ in range(4)]
            seen: list[Tensor] = []
            for p in range(4):
                mean, index = context.parameters_of(context.luma[str(level)][p], [feature, *seen, plane], quantised)
                value, chosen = self._pass(slice(p, p + 1), slice(0, 3), mean, index)
                values[p].append(value)
                decided[p].append(chosen)
                seen.append(net_input(value, quantised))
            luma = list(seen)
            for p in range(2):
                mean, index = context.parameters_of(context.chroma[str(level)][p], [feature, *seen, plane], quantised)
                value, chosen = self._pass(slice(2 * p, 2 * p + 2), slice(3, 9), mean, index)
                for half in (0, 1):
                    values[2 * p + half].append(value[:, 6 * half : 6 * half + 6])
                    decided[2 * p + half].append(chosen[:, 6 * half : 6 * half + 6])
                seen = [*luma, net_input(value, quantised)]
            coarser = net_input(unquads(torch.stack([torch.cat(v, 1) for v in values], 1)), quantised)
            settled.append(unquads(torch.stack([torch.cat(d, 1) for d in decided], 1)))
        return self.bits, settled

    def _pass(self, phases: slice, channels: slice, mean: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Count the bits of a pass; what later nets see of its latents, and which of them it decides."""
        h, known, undecided = (v[:, phases, channels].flatten(1, 2) for v in self.level)
        chosen = undecided & (index >= LIKELY) if self.stage == 0 else undecided
        self.bits = self.bits + (significance_bits(h, ZONE, mean, scale_of_index(index)) * chosen).sum((1, 2, 3))
        now = torch.where(chosen, _middle(h, ZONE, 2 * ZONE), known)
        return torch.where(now == 0, mean.detach().clamp(-ZONE, ZONE), now), chosen


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
