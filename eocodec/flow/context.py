"""The conditional last layer of the photo flow: mean and scale of every latent given the already coded integers.

Coding order (L = 4 shown; `Y` luma, `C` both chroma axes; the number is the level, 1 = finest):

    LL ─► Y4 p0 p1 p2 p3 ─► C4 p0 p1 ─► Y3 p0 … ─► C1 p1
           │  a level's positions fall into 2x2 quads      phase order in a quad:  0 2
           └─ luma pass k codes phase k of every quad,                             3 1
              chroma pass k codes phases 2k and 2k+1

All nets of level l run on the quad grid (H / 2**(l+1), W / 2**(l+1)), which is also the resolution of level l+1:
`feature[l]` digests level l+1 and `feature[l+1]`; each pass net sees `feature[l]` and the phases decoded before it.
Latents enter the nets in units of their step, companded by :func:`compand`, so everything the entropy decoder needs
is a function of integers. With `quantised=True` weights and activations are rounded (straight-through) exactly as
the exported integer graphs round them (docs/FORMAT.md): weights int8 with a power-of-two scale per output channel,
activations uint8 with 1/32 as unit.

References:
    Ballé et al., *Integer networks for data compression with latent-variable models*, ICLR 2019.
    https://openreview.net/forum?id=S1zz2i0cY7
    He et al., *Checkerboard context model for efficient learned image compression*, CVPR 2021.
    https://arxiv.org/abs/2103.15306
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eocodec.coding.scales import MEAN_UNIT, SCALE_MIN, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.units import PHASES

__all__ = [
    "ACTIVATION_UNIT",
    "MEAN_UNIT",
    "PHASES",
    "SCALES",
    "SCALE_MIN",
    "SCALE_PER_OCTAVE",
    "ContextModel",
    "LatentModel",
    "compand",
    "laplace_bits",
    "quads",
    "scale_of_index",
    "unquads",
]

ACTIVATION_UNIT = 32
INDEX_UNIT = 8  # the nets' output times 8 is the scale index
BITS_PER_NAT = 1 / math.log(2)


def scale_of_index(index: Tensor) -> Tensor:
    """Laplace scale, in steps, of a (real) scale index."""
    return SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)


def compand(v: Tensor) -> Tensor:
    """Monotone odd map of a latent in steps to the nets' input: sign(v) · log2(1 + 2|v|) / 2."""
    return torch.sign(v) * torch.log2(1 + 2 * v.abs()) * 0.5


def round_through(x: Tensor) -> Tensor:
    """Round to the nearest integer; gradient of the identity."""
    return x + (torch.floor(x + 0.5) - x).detach()


def quads(x: Tensor) -> Tensor:
    """`(B, C, H, W)` to phases `(B, 4, C, H/2, W/2)` in coding order."""
    return torch.stack([x[..., i::2, j::2] for i, j in PHASES], 1)


def unquads(x: Tensor) -> Tensor:
    """Inverse of :func:`quads`."""
    a, d, b, c = x.unbind(1)
    top, bottom = torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2)


def laplace_bits(m: Tensor, scale: Tensor) -> Tensor:
    """Bits of the integer residual m (any sign) under a Laplace density of `scale`, integrated over unit bins."""
    magnitude = m.abs()
    tail = torch.log(0.5 * (-torch.expm1(-1 / scale)))
    nonzero = (magnitude - 0.5) / scale - tail
    zero = -torch.log(-torch.expm1(-0.5 / scale))
    return torch.where(magnitude < 0.5, zero, nonzero) * BITS_PER_NAT


@torch.no_grad()
def dead_zone(v: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Rate-distortion optimal rounding of v: a magnitude moves up only if the distortion saved pays for its bits.

    The magnitude m - 1 is left for m when v > m - 1/2 + weight · (bits(m) - bits(m - 1)) / 2, with distortion in
    squared steps and `weight`, which broadcasts against v, in squared steps per bit.
    """
    one = torch.ones_like(scale)
    first = 0.5 + 0.5 * weight * (laplace_bits(one, scale) - laplace_bits(0 * one, scale)).clamp(0, 12)
    later = 0.5 + 0.5 * weight * (BITS_PER_NAT / scale).clamp(0, 12)
    magnitude = v.abs()
    m = torch.floor(magnitude + 1 - later).clamp(min=1)
    m = torch.where(magnitude < first, torch.zeros_like(m), m)
    return torch.sign(v) * m


class IntegerConv(nn.Conv2d):
    """A convolution whose weights can be rounded to int8 times a power of two per output channel."""

    def exponent(self) -> Tensor:
        """Exponent e of each output channel `(C,)`: the integer weight is round(w · 2**e)."""
        largest = self.weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-8)
        return torch.floor(torch.log2(127.4 / largest)).clamp(0, 14)

    def rounded(self) -> tuple[Tensor, Tensor]:
        """Weights and bias as the exported graph uses them, with straight-through gradients."""
        assert self.bias is not None
        scale = torch.exp2(self.exponent())
        w = round_through(self.weight * scale[:, None, None, None]) / scale[:, None, None, None]
        b = round_through(self.bias * scale * ACTIVATION_UNIT) / (scale * ACTIVATION_UNIT)
        return w, b

    def apply_rounded(self, x: Tensor, quantised: bool) -> Tensor:
        if not quantised:
            return self(x)
        w, b = self.rounded()
        return torch.nn.functional.conv2d(x, w, b, padding=self.padding)


class IntegerNet(nn.Module):
    """Convolutions with ReLU between them; `kernels[k]` is the size of the k-th. Activations live in [0, 255/32]."""

    def __init__(self, sizes: list[int], kernels: list[int], last_relu: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            IntegerConv(a, b, k, padding=k // 2) for a, b, k in zip(sizes[:-1], sizes[1:], kernels, strict=True)
        )
        self.last_relu = last_relu

    def forward(self, x: Tensor, quantised: bool) -> Tensor:
        for k, conv in enumerate(self.convs):
            x = conv.apply_rounded(x, quantised)
            if self.last_relu or k + 1 < len(self.convs):
                if quantised:
                    x = round_through(x * ACTIVATION_UNIT) / ACTIVATION_UNIT
                x = x.clamp(0, 255 / ACTIVATION_UNIT)
        return x


class ContextModel(nn.Module):
    """The nets of every level; see the module's drawing.

    Arguments:
        levels: wavelet levels.
        features: channels of `feature[l]`.
        width: hidden channels of the pass nets.
    """

    def __init__(self, levels: int = 4, features: int = 32, width: int = 48) -> None:
        super().__init__()
        self.n = levels
        self.feature, self.expand = nn.ModuleDict(), nn.ModuleDict()
        self.luma, self.chroma = nn.ModuleDict(), nn.ModuleDict()
        for level in range(levels, 0, -1):
            top = level == levels
            if not top:
                self.expand[str(level)] = IntegerNet([features, 64], [1], True)
            self.feature[str(level)] = IntegerNet([25 if top else 9 + 16 + 1, features, features], [3, 3], True)
            self.luma[str(level)] = nn.ModuleList(
                IntegerNet([features + 3 * k + 1, width, width, 6], [3, 1, 1], False) for k in range(4)
            )
            self.chroma[str(level)] = nn.ModuleList(
                IntegerNet([features + 12 + 12 * k + 1, width, width, 24], [3, 1, 1], False) for k in range(2)
            )
            for net in (*self.luma[str(level)], *self.chroma[str(level)]):
                nn.init.zeros_(net.convs[-1].weight)
                nn.init.constant_(net.convs[-1].bias, 0.0)
                with torch.no_grad():  # second half: scale index / 8
                    net.convs[-1].bias[len(net.convs[-1].bias) // 2 :] = 2.0

    def features(self, level: int, coarser: Tensor, previous: Tensor | None, plane: Tensor, quantised: bool) -> Tensor:
        """`feature[level]` from the companded coarser level (or the low-pass gradients) and `feature[level + 1]`."""
        inputs = [coarser]
        if previous is not None:
            up = self.expand[str(level)](previous, quantised)
            inputs.append(torch.nn.functional.pixel_shuffle(up, 2))
        inputs.append(plane)
        return self.feature[str(level)](torch.cat(inputs, 1), quantised)

    def parameters_of(self, net: nn.Module, inputs: list[Tensor], quantised: bool) -> tuple[Tensor, Tensor]:
        """Mean (steps) and scale index of a pass."""
        out = net(torch.cat(inputs, 1), quantised).float()
        mean, index = out.chunk(2, 1)
        index = index * INDEX_UNIT
        if quantised:
            mean, index = round_through(mean * MEAN_UNIT) / MEAN_UNIT, round_through(index)
        return mean.clamp(-32, 32), index.clamp(0, SCALES - 1)


@dataclass
class Coded:
    """What coding the latents of a batch gave: `bits` and `nll` (nats) per picture `(B,)`, and the latents decoded."""

    bits: Tensor
    nll: Tensor
    decoded: list[Tensor]
    band_nll: list[Tensor]


def neighbours(q: Tensor) -> tuple[Tensor, Tensor]:
    """Low-pass prediction from the phase-0 lattice: for phase 1 the mean and activity of 4 diagonal neighbours."""
    a = q
    right = torch.cat([a[..., 1:], a[..., -1:]], -1)
    down = torch.cat([a[..., 1:, :], a[..., -1:, :]], -2)
    corner = torch.cat([right[..., 1:, :], right[..., -1:, :]], -2)
    four = torch.stack([a, right, down, corner])
    return four.mean(0), four.amax(0) - four.amin(0)


class LatentModel(nn.Module):
    """Steps per band and the context model: quantises, prices and dequantises the latents of a flow.

    The step of band b is Δ · exp(gain_b), gain_b = −E[log ‖J_b‖]: a step of Δ in the picture. The gains are measured
    while training (`adapt`), not learned, so scaling a band against another changes nothing and cannot drift.
    """

    def __init__(self, levels: int = 4, features: int = 32, width: int = 48) -> None:
        super().__init__()
        self.context = ContextModel(levels, features, width)
        for k in range(levels + 1):
            self.register_buffer(f"gain{k}", torch.zeros(9 if k else 3))
        # Training-time price of the low-pass (the files use integer tables): scale = exp(a) + exp(b) · activity.
        self.low_scale = nn.Parameter(torch.tensor([[0.0] * 3, [-1.5] * 3]))

    @property
    def gains(self) -> list[Tensor]:
        """Gain of every band and channel."""
        return [self.get_buffer(f"gain{k}") for k in range(self.context.n + 1)]

    def adapt(self, band: int, channel: int, log_norm: float, rate: float) -> None:
        """Move one gain towards −`log_norm`, a fresh measurement of E[log ‖J‖]."""
        gain = self.gains[band]
        gain[channel] += rate * (-log_norm - gain[channel])

    def steps(self, step: Tensor) -> list[Tensor]:
        """Step of every band, `(B, C, 1, 1)` each, for steps `(B,)`."""
        return [(step[:, None] * torch.exp(g))[:, :, None, None] for g in self.gains]

    def forward(
        self, h: list[Tensor], step: Tensor, condition: Tensor, weight: float = 0.17, quantised: bool = False
    ) -> Coded:
        """Code latents `h` at steps `step (B,)`; `weight` is the dead zone's, see :func:`dead_zone`."""
        levels = self.context.n
        steps = self.steps(step)
        b = h[0].shape[0]
        bits = torch.zeros(b, device=h[0].device)
        band_nll: list[Tensor] = []

        low = h[0] / steps[0]
        q = round_through(low)
        predicted, activity = neighbours(q[..., 0::2, 0::2])
        scale = (self.low_scale[0].exp()[:, None, None] + self.low_scale[1].exp()[:, None, None] * activity).clamp(
            min=SCALE_MIN
        )
        price = torch.zeros_like(low[:, :, 0::2, 0::2])
        nll = torch.zeros_like(price)
        for i, j in PHASES[1:]:
            residual = q[..., i::2, j::2] - predicted
            price = price + laplace_bits(residual, scale)
            nll = nll + (2 * scale).log() + (low[..., i::2, j::2] - predicted).abs() / scale
        bits = bits + price.sum((1, 2, 3)) * (4 / 3)
        log_step = steps[0].log()
        band_nll.append(nll.sum((2, 3)) * (4 / 3) + log_step[..., 0, 0] * low[0, 0].numel())
        decoded = [q * steps[0]]

        exact = q.detach()
        dx = torch.nn.functional.pad(exact[..., 1:] - exact[..., :-1], (0, 1))
        dy = torch.nn.functional.pad(exact[..., 1:, :] - exact[..., :-1, :], (0, 0, 0, 1))
        coarser = quads(self._input(torch.cat([dx, dy], 1), quantised)).flatten(1, 2)
        feature: Tensor | None = None
        for k, level in enumerate(range(levels, 0, -1)):
            plane = condition[:, None, None, None]
            plane = torch.floor(plane * 16 + 0.5) / 32 if quantised else plane / 2
            plane = plane.expand(-1, 1, *coarser.shape[2:])
            feature = self.context.features(level, coarser, feature, plane, quantised)
            target = quads(h[k + 1] / steps[k + 1])  # (B, 4, 9, gh, gw)
            # Values decoded so far (phase, band), with gradients for the distortion.
            out: list[list[Tensor]] = [[] for _ in PHASES]
            level_nll = torch.zeros_like(target[:, 0])
            seen: list[Tensor] = []
            for p in range(4):
                mean, index = self.context.parameters_of(
                    self.context.luma[str(level)][p], [feature, *seen, plane], quantised
                )
                value, cost, density = self._code(target[:, p, :3], mean, index, weight)
                out[p].append(value)
                bits = bits + cost.sum((1, 2, 3))
                level_nll[:, :3] += density
                seen.append(self._input(value.detach(), quantised))
            luma = list(seen)
            for p in range(2):
                mean, index = self.context.parameters_of(
                    self.context.chroma[str(level)][p], [feature, *seen, plane], quantised
                )
                pair = target[:, 2 * p : 2 * p + 2, 3:].flatten(1, 2)
                value, cost, density = self._code(pair, mean, index, weight)
                out[2 * p].append(value[:, :6])
                out[2 * p + 1].append(value[:, 6:])
                bits = bits + cost.sum((1, 2, 3))
                level_nll[:, 3:] += density[:, :6] + density[:, 6:]
                seen = [*luma, self._input(value.detach(), quantised)]
            values = unquads(torch.stack([torch.cat(o, 1) for o in out], 1))
            band_nll.append(level_nll.sum((2, 3)) + steps[k + 1].log()[..., 0, 0] * values[0, 0].numel())
            decoded.append(values * steps[k + 1])
            coarser = self._input(values.detach(), quantised)
        total = torch.stack([n.sum(1) for n in band_nll]).sum(0)
        return Coded(bits, total, decoded, band_nll)

    @staticmethod
    def _input(v: Tensor, quantised: bool) -> Tensor:
        t = compand(v)
        return (torch.floor(t * ACTIVATION_UNIT + 0.5) / ACTIVATION_UNIT).clamp(-4, 127 / 32) if quantised else t

    @staticmethod
    def _code(y: Tensor, mean: Tensor, index: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded value (steps), bits and negative log density (nats, in units of the step) of latents y."""
        scale = scale_of_index(index)
        residual = y - mean
        m = dead_zone(residual.detach(), scale.detach(), torch.as_tensor(weight))
        through = residual + (m - residual).detach()
        # Straight through for y where something is coded. A zero decodes to the mean whatever y is: passing its
        # gradient to y would reward growing latents that are dropped anyway, and training drifts (docs/METHOD.md).
        coded = y * (m != 0)
        value = (m + mean).detach() + (coded - coded.detach()) + (mean - mean.detach())
        density = (2 * scale).log() + residual.abs() / scale
        return value, laplace_bits(through, scale), density
