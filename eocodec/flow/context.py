"""The conditional last layer of the photo flow: mean and scale of every latent given the already coded integers.

Coding order (L = 4 shown; `Y` luma, `C` both chroma axes; the number is the level, 1 = finest):

    LL ─► Y4 p0 p1 p2 p3 ─► C4 p0 p1 ─► Y3 p0 … ─► C1 p1
           │  a level's positions fall into 2x2 quads      phase order in a quad:  0 2
           └─ luma pass k codes phase k of every quad,                             3 1
              chroma pass k codes phases 2k and 2k+1

Rotated passes (`eocodec.coding.units`) take the orientations, and the chroma axes, at different phases: the first one
codes HL at phase 0, LH at 1, HH at 2, so that what is decoded already at a place includes its other orientations.

All nets of level l run on the quad grid (H / 2**(l+1), W / 2**(l+1)), which is also the resolution of level l+1:
`feature[l]` digests level l+1 and `feature[l+1]`; each pass net sees `feature[l]` and the phases decoded before it.
Latents enter the nets in units of their step, companded by :func:`compand`, so everything the entropy decoder needs
is a function of integers. Besides, every net sees condition planes: log2 of the step that the level has at each
place and, in models that can be tuned, how much it is tuned for the eye (:class:`Steps`). With `quantised=True`
weights and activations are rounded (straight-through) exactly as the exported integer graphs round them
(docs/FORMAT.md): weights int8 with a power-of-two scale per output channel, activations uint8 with 1/32 as unit.

Nets with `eight_bit` fit kernels that multiply 8-bit integers: their hidden layers have weights up to ±63, since
without VNNI such a kernel adds two products in 16 bits, which saturate (255 · 63 · 2 < 2¹⁵), and round half to even.

References:
    Ballé et al., *Integer networks for data compression with latent-variable models*, ICLR 2019.
    https://openreview.net/forum?id=S1zz2i0cY7
    He et al., *Checkerboard context model for efficient learned image compression*, CVPR 2021.
    https://arxiv.org/abs/2103.15306
    Li et al., *Neural video compression with diverse contexts* (quadtree partition), CVPR 2023.
    https://arxiv.org/abs/2302.14402
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eocodec.coding.scales import MEAN_UNIT, SCALE_MIN, SCALE_PER_OCTAVE, SCALES
from eocodec.coding.units import CHROMA_PASSES, LUMA_PASSES, PHASES, passes
from eocodec.flow.modules import ModuleDict, ModuleList

__all__ = [
    "ACTIVATION_UNIT",
    "MEAN_UNIT",
    "PHASES",
    "SCALES",
    "SCALE_MIN",
    "SCALE_PER_OCTAVE",
    "ContextModel",
    "LatentModel",
    "Steps",
    "compand",
    "laplace_bits",
    "net_input",
    "quads",
    "scale_of_index",
    "unquads",
]

ACTIVATION_UNIT = 32
WEIGHT, EIGHT_BIT_WEIGHT = 127, 63  # largest integer weights; half of them and 0.2 round up, so e is found again
INDEX_UNIT = 8  # the nets' output times 8 is the scale index
UP = 16  # channels of the coarser level's features at the resolution of a level
BITS_PER_NAT = 1 / math.log(2)
OCTAVE = 16  # offsets of steps are counted in 1/16 octave
# Offsets of the steps of the low-pass and of levels L, L - 1, ..., 1 at full tuning for the eye, in 1/16 octave: finer
# where the eye is sensitive to contrast, coarser for the finest details (docs/METHOD.md).
EYE_OFFSETS = (-10.0, -16.0, -8.0, 0.0, 8.0)
LOWEST_CONDITION, HIGHEST_CONDITION = -5.0, 3.0  # octaves from a step of 32 levels


def scale_of_index(index: Tensor) -> Tensor:
    """Laplace scale, in steps, of a (real) scale index."""
    return SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)


def compand(v: Tensor) -> Tensor:
    """Monotone odd map of a latent in steps to the nets' input: sign(v) · log2(1 + 2|v|) / 2."""
    return torch.sign(v) * torch.log2(1 + 2 * v.abs()) * 0.5


def net_input(v: Tensor, quantised: bool) -> Tensor:
    """What the nets see of latents in steps: companded, and with `quantised` rounded as the integer nets have it."""
    t = compand(v)
    return (torch.floor(t * ACTIVATION_UNIT + 0.5) / ACTIVATION_UNIT).clamp(-4, 127 / 32) if quantised else t


def round_through(x: Tensor, even: bool = False) -> Tensor:
    """Round to the nearest integer, halves up or to an `even` one; gradient of the identity."""
    return x + ((torch.round(x) if even else torch.floor(x + 0.5)) - x).detach()


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
    """A convolution whose weights can be rounded to int8 times a power of two per output channel.

    Attributes:
        eight_bit: whether kernels for 8-bit integers must be able to run it, so that its weights are ±63 at most.
    """

    eight_bit = False

    def exponent(self) -> Tensor:
        """Exponent e of each output channel `(C,)`: the integer weight is round(w · 2**e)."""
        largest = self.weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-8)
        limit = EIGHT_BIT_WEIGHT if self.eight_bit else WEIGHT
        return torch.floor(torch.log2((limit + 0.4) / largest)).clamp(0, 14)

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
    """Convolutions with ReLU between them; `kernels[k]` is the size of the k-th. Activations live in [0, 255/32].

    Layers that end in ReLU have `eight_bit` as given; what leaves a net without has more than 8 bits.
    """

    def __init__(self, sizes: list[int], kernels: list[int], last_relu: bool, eight_bit: bool = False) -> None:
        super().__init__()
        self.convs = ModuleList(
            IntegerConv(a, b, k, padding=k // 2) for a, b, k in zip(sizes[:-1], sizes[1:], kernels, strict=True)
        )
        self.last_relu = last_relu
        for conv in self.convs if last_relu else self.convs[:-1]:
            conv.eight_bit = eight_bit

    def forward(self, x: Tensor, quantised: bool) -> Tensor:
        for k, conv in enumerate(self.convs):
            x = conv.apply_rounded(x, quantised)
            if self.last_relu or k + 1 < len(self.convs):
                if quantised:
                    x = round_through(x * ACTIVATION_UNIT, conv.eight_bit) / ACTIVATION_UNIT
                x = torch.nn.functional.hardtanh(x, 0, 255 / ACTIVATION_UNIT)  # as clamp, but its gradient is faster
        return x


@torch.no_grad()
def start_last(net: IntegerNet, index: float) -> None:
    """Let a net start with mean 0 and one scale index for everything, `index` in its own units."""
    last = net.convs[-1]
    assert last.bias is not None
    last.weight.zero_()
    last.bias.zero_()
    last.bias[len(last.bias) // 2 :] = index


def _grow(own: IntegerNet, other: IntegerNet, inputs: list[tuple[int, int, int]]) -> None:
    """Let a net begin as another that may be smaller: what it has more has no influence at first.

    Arguments:
        own: the net to change; its kernels may be larger.
        other: the net it begins as.
        inputs: where channels of the first layer go: from, in the other net, and how many.
    """
    for k, (mine, theirs) in enumerate(zip(own.convs, other.convs, strict=True)):
        assert mine.bias is not None and theirs.bias is not None
        count = theirs.out_channels
        mine.weight[:count] = 0
        mine.bias[:count] = theirs.bias
        margin = (mine.kernel_size[0] - theirs.kernel_size[0]) // 2
        centre = slice(margin, margin + theirs.kernel_size[0])
        for to, start, size in inputs if k == 0 else [(0, 0, theirs.in_channels)]:
            mine.weight[:count, to : to + size, centre, centre] = theirs.weight[:, start : start + size]


class ContextModel(nn.Module):
    """The nets of every level; see the module's drawing.

    Arguments:
        levels: wavelet levels.
        features: channels of `feature[l]`.
        width: hidden channels of the pass nets.
        coarse: factor of both at all levels but the finest, where there are few pixels.
        depth: number of 3x3 convolutions of a pass net, 1 or 2: files are coded in strips with two more rows.
        planes: condition planes.
        eight_bit: whether kernels for 8-bit integers must be able to run the nets; see the module.
        axes: colour axes of the latents; with 1 there are no nets for chroma.
    """

    def __init__(
        self,
        levels: int = 4,
        features: int = 32,
        width: int = 48,
        coarse: float = 1.0,
        depth: int = 1,
        planes: int = 1,
        eight_bit: bool = False,
        axes: int = 3,
    ) -> None:
        super().__init__()
        if not 1 <= depth <= 2:
            raise ValueError("a pass net has one or two 3x3 convolutions")
        self.n, self.planes, self.eight_bit, self.axes = levels, planes, eight_bit, axes
        self.feature: ModuleDict[IntegerNet] = ModuleDict()
        self.expand: ModuleDict[IntegerNet] = ModuleDict()
        self.luma: ModuleDict[ModuleList[IntegerNet]] = ModuleDict()
        self.chroma: ModuleDict[ModuleList[IntegerNet]] = ModuleDict()
        for level in range(levels, 0, -1):
            top, factor = level == levels, 1.0 if level == 1 else coarse
            f, w = round(features * factor), round(width * factor)
            if not top:
                self.expand[str(level)] = IntegerNet([round(features * coarse), 4 * UP], [1], True, eight_bit)
            inputs = 8 * axes if top else 3 * axes + UP
            self.feature[str(level)] = IntegerNet([inputs + planes, f, f], [3, 3], True, eight_bit)
            sizes, kernels = [w] * max(2, depth), [3] * depth + [1] * max(1, 3 - depth)
            self.luma[str(level)] = ModuleList(
                IntegerNet([f + 3 * k + planes, *sizes, 6], kernels, False, eight_bit) for k in range(LUMA_PASSES)
            )
            self.chroma[str(level)] = ModuleList(
                IntegerNet([f + 12 + 12 * k + planes, *sizes, 24], kernels, False, eight_bit)
                for k in range(CHROMA_PASSES if axes > 1 else 0)
            )
            for net in self.of_passes(level):
                start_last(net, 2.0)  # a scale index of 16

    def of_passes(self, level: int) -> list[IntegerNet]:
        """The nets of a level's passes in coding order: six, or four without chroma."""
        return [*self.luma[str(level)], *self.chroma[str(level)]]

    def convolutions(self) -> list[IntegerConv]:
        """The layers of all nets, in an order that does not depend on their sizes."""
        nets: list[IntegerNet] = []
        for level in range(self.n, 0, -1):
            own = [self.expand[str(level)]] if str(level) in self.expand else []
            nets += [*own, self.feature[str(level)], *self.of_passes(level)]
        return [conv for net in nets for conv in net.convs]

    def known_channels(self, level: int) -> int:
        """Channels that a level's feature net has besides latents, the coarser level's features and the planes."""
        return 0

    def takes(self, other: "ContextModel") -> bool:
        """Whether :meth:`start` can take these nets over, being as large at least."""
        pairs = zip(self.convolutions(), other.convolutions(), strict=True)
        return (self.n, self.axes, self.planes <= other.planes) == (other.n, other.axes, True) and all(
            a.out_channels >= b.out_channels and a.kernel_size[0] >= b.kernel_size[0] for a, b in pairs
        )

    @torch.no_grad()
    def start(self, other: "ContextModel") -> None:
        """Take over trained nets with the same order of latents; what they do not know has no influence at first.

        They may be smaller, with one 3x3 layer a pass instead of two, and see more condition planes.
        """
        for level in range(self.n, 0, -1):
            key = str(level)
            if key in self.expand:
                _grow(self.expand[key], other.expand[key], [(0, 0, other.expand[key].convs[0].in_channels)])
            own, theirs = self.feature[key], other.feature[key]
            first = (8 * self.axes if level == self.n else 3 * self.axes + UP) + self.planes
            known = min(self.known_channels(level), other.known_channels(level))
            _grow(own, theirs, [(0, 0, first), (first, first, known)])
            f, g = own.convs[-1].out_channels, theirs.convs[-1].out_channels
            for mine, theirs in zip(self.of_passes(level), other.of_passes(level), strict=True):
                more = mine.convs[0].in_channels - f  # latents of earlier passes, the planes
                _grow(mine, theirs, [(0, 0, g), (f, g, more)])

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
    """What coding the latents of a batch gave.

    `bits`, `nll` (nats) and `error` (squared steps, all latents) per picture `(B,)`, and the latents decoded.
    """

    bits: Tensor
    nll: Tensor
    error: Tensor
    decoded: list[Tensor]
    band_nll: list[Tensor]


@dataclass
class Steps:
    """How finely the pictures of a batch are coded.

    Arguments:
        step: Δ in units of the pictures' range, `(B,)`.
        tune: how much the levels' steps follow the eye, 0 to 1, `(B,)`; None is 0.
        offset: what the step of a place differs by, in octaves, `(B, 1, h, w)` on the quad grid of the coarsest level;
            None is 0.
    """

    step: Tensor
    tune: Tensor | None = None
    offset: Tensor | None = None

    def octaves(self, band: int, size: tuple[int, int] | None = None) -> Tensor:
        """log2 of the step of a band (0: the low-pass, 1: level L, ...) over Δ = 1, `(B, 1, 1 or h, 1 or w)`.

        Arguments:
            band: which.
            size: of the grid on which it is wanted, a multiple of the coarsest level's; None where nothing varies.
        """
        log = torch.log2(self.step)[:, None, None, None]
        if self.offset is not None and size is not None:
            log = log + torch.nn.functional.interpolate(self.offset, size=size, mode="nearest")
        if self.tune is not None:
            log = log + (self.tune * (EYE_OFFSETS[band] / OCTAVE))[:, None, None, None]
        return log

    def local(self, size: tuple[int, int]) -> Tensor:
        """The step Δ at each place of a grid, whatever the band, `(B, 1, 1 or h, 1 or w)`."""
        log = torch.log2(self.step)[:, None, None, None]
        if self.offset is not None:
            log = log + torch.nn.functional.interpolate(self.offset, size=size, mode="nearest")
        return torch.exp2(log)

    def planes(self, band: int, size: tuple[int, int], quantised: bool, tuned: bool) -> Tensor:
        """The condition planes of a band on its quad grid, `(B, 1 or 2, h, w)`, as the nets see them.

        The first is half of log2 (step / 32 levels), in 1/16 octave if quantised; the second, if the model is `tuned`,
        the tuning.
        """
        log = (self.octaves(band, size) + math.log2(255.0) - 5.0).clamp(LOWEST_CONDITION, HIGHEST_CONDITION)
        log = torch.floor(log * OCTAVE + 0.5) / (2 * OCTAVE) if quantised else log / 2
        planes = log.expand(-1, 1, *size)
        if not tuned:
            return planes
        tune = torch.zeros_like(self.step) if self.tune is None else self.tune
        return torch.cat([planes, tune[:, None, None, None].expand(-1, 1, *size)], 1)


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
    while training (`adapt`), not learned, so scaling a band against another changes nothing; where another step than Δ
    would suit a band, nothing holds its scale, and a long training has to keep the gains (`Stage.fixed_steps`).

    Arguments:
        context: its nets.
        rotated: the coding order, see `eocodec.coding.units`.
        tuned: whether the nets see the tuning.
    """

    def __init__(self, context: ContextModel, rotated: bool = False, tuned: bool = False) -> None:
        super().__init__()
        self.context, self.tuned = context, tuned
        axes = context.axes
        self.passes = passes(rotated, axes)
        # Channels of the quads `(B, 12 axes, h, w)` in the order of the passes, and back.
        order = torch.tensor([3 * axes * phase + channel for places in self.passes for phase, channel in places])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", torch.argsort(order), persistent=False)
        for k in range(context.n + 1):
            self.register_buffer(f"gain{k}", torch.zeros(3 * axes if k else axes))
        # Training-time price of the low-pass (the files use integer tables): scale = exp(a) + exp(b) · activity.
        self.low_scale = nn.Parameter(torch.tensor([[0.0] * axes, [-1.5] * axes]))

    @property
    def gains(self) -> list[Tensor]:
        """Gain of every band and channel."""
        return [self.get_buffer(f"gain{k}") for k in range(self.context.n + 1)]

    def adapt(self, band: int, channel: int, log_norm: float, rate: float) -> None:
        """Move one gain towards −`log_norm`, a fresh measurement of E[log ‖J‖]."""
        gain = self.gains[band]
        gain[channel] += rate * (-log_norm - gain[channel])

    def steps(self, steps: Steps, h: list[Tensor]) -> list[Tensor]:
        """Step of every latent, `(B, C, 1 or h, 1 or w)` for each band of `h`."""
        result = []
        for k, (gain, band) in enumerate(zip(self.gains, h, strict=True)):
            size = None if steps.offset is None else (band.shape[2], band.shape[3])
            result.append(torch.exp2(steps.octaves(k, size)) * torch.exp(gain)[:, None, None])
        return result

    def forward(self, h: list[Tensor], steps: Steps, weight: float = 0.17, quantised: bool = False) -> Coded:
        """Code latents `h` at the given steps; `weight` is the dead zone's, see :func:`dead_zone`."""
        levels = self.context.n
        widths = self.steps(steps, h)
        b = h[0].shape[0]
        band_nll: list[Tensor] = []

        q, bits, nll = self._low_pass(h[0] / widths[0])
        error = (q - h[0] / widths[0]).square().sum((1, 2, 3))
        band_nll.append(nll + widths[0].log().expand_as(h[0]).sum((2, 3)))
        decoded = [q * widths[0]]

        exact = q.detach()
        dx = torch.nn.functional.pad(exact[..., 1:] - exact[..., :-1], (0, 1))
        dy = torch.nn.functional.pad(exact[..., 1:, :] - exact[..., :-1, :], (0, 0, 0, 1))
        coarser = quads(net_input(torch.cat([dx, dy], 1), quantised)).flatten(1, 2)
        feature: Tensor | None = None
        for k, level in enumerate(range(levels, 0, -1), 1):
            size = (coarser.shape[2], coarser.shape[3])
            plane = steps.planes(k, size, quantised, self.tuned)
            feature = self.context.features(level, coarser, feature, plane, quantised)
            ordered = quads(h[k] / widths[k]).flatten(1, 2).index_select(1, self.get_buffer("order"))
            targets = torch.split(ordered, [len(places) for places in self.passes], 1)  # (B, ., gh, gw)
            values: list[Tensor] = []
            densities: list[Tensor] = []
            luma: list[Tensor] = []
            seen: list[Tensor] = []
            for p, (net, target) in enumerate(zip(self.context.of_passes(level), targets, strict=True)):
                mean, scale = self.context.parameters_of(net, [feature, *luma, *seen, plane], quantised)
                value, cost, density = self._code(target, mean, scale, weight)
                bits = bits + cost.sum((1, 2, 3))
                error = error + (value - target).square().sum((1, 2, 3))
                values.append(value)
                densities.append(density)
                (luma if p < LUMA_PASSES else seen).append(net_input(value.detach(), quantised))
            level_nll = torch.unflatten(self._quads(densities), 1, (4, -1)).sum((1, 3, 4))
            band_nll.append(level_nll + widths[k].log().expand_as(h[k]).sum((2, 3)))
            # Values decoded, with gradients for the distortion.
            whole = unquads(torch.unflatten(self._quads(values), 1, (4, -1)))
            decoded.append(whole * widths[k])
            coarser = net_input(whole.detach(), quantised)
        total = torch.stack([n.sum(1) for n in band_nll]).sum(0)
        assert bits.shape == (b,)
        return Coded(bits, total, error, decoded, band_nll)

    def _quads(self, coded: list[Tensor]) -> Tensor:
        """What all passes of a level coded, `(B, 12 axes, h, w)` in the order of the quads."""
        return torch.cat(coded, 1).index_select(1, self.get_buffer("back"))

    def _low_pass(self, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Integers of the low-pass `(B, axes, h, w)`, bits `(B,)` and nats `(B, axes)`, in units of the step."""
        q = round_through(low)
        predicted, activity = neighbours(q[..., 0::2, 0::2])
        scale = (self.low_scale[0].exp()[:, None, None] + self.low_scale[1].exp()[:, None, None] * activity).clamp(
            min=SCALE_MIN
        )
        price = torch.zeros_like(predicted)
        nll = torch.zeros_like(price)
        for i, j in PHASES[1:]:
            price = price + laplace_bits(q[..., i::2, j::2] - predicted, scale)
            nll = nll + (2 * scale).log() + (low[..., i::2, j::2] - predicted).abs() / scale
        return q, price.sum((1, 2, 3)) * (4 / 3), nll.sum((2, 3)) * (4 / 3)

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
