"""The `face64` model: one global flow on small aligned pictures, its entropy model and its refinement.

In: pictures `x (B, 3, S, S)` in [0, 1]. Out: one flat latent vector `h (B, D)`, D = 3 S², the first `core` latents in
the order in which they are coded. The finest levels are a lifting flow as in `photo`; its coefficients then go through
a rotation that starts at the principal components of the training pictures, and through dense couplings:

    x ─ colour ─ Haar + couplings ─ Haar + couplings ─ flatten ─ rotation ─┬─ core: dense couplings ─ h[:core]
                                                                           └─ rest ──────────────── h[core:]

All of it preserves volume. The conditional last layer codes the core in blocks; a net per block sees the integers of
all blocks before it:

    [0, 4) → [4, 16) → [16, 48) → [48, 128) → [128, 256) → [256, 512) → [512, 768) → [768, 1280)   rest: static

References:
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
    Dinh et al., *NICE: non-linear independent components estimation*, 2015. https://arxiv.org/abs/1410.8516
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from eocodec.errors import EocodecError
from eocodec.flow.context import (
    ACTIVATION_UNIT,
    INDEX_UNIT,
    MEAN_UNIT,
    SCALE_MIN,
    SCALE_PER_OCTAVE,
    SCALES,
    Coded,
    IntegerNet,
    Steps,
    dead_zone,
    laplace_bits,
    net_input,
    round_through,
    scale_of_index,
)
from eocodec.flow.dense import DenseCoupling, Rotation
from eocodec.flow.modules import ModuleList
from eocodec.flow.objective import LAGRANGE, dense_log_column_norms
from eocodec.flow.photo import COLOUR, GREY
from eocodec.flow.trainable import Draws, Stage, Trainable

__all__ = ["BlockContext", "FaceConfig", "FaceFlow", "FaceModel", "FaceRefinement", "condition"]

MEAN_LIMIT = 32.0  # steps
INDEX_LIMIT = 64.0  # what the nets may add to a latent's own table index
ADAPT_RATE = 0.2
POWER_ITERATIONS = 3
OVERSAMPLING = 64
PROBE_STRIDE = 307  # a prime, coprime to the size of the core, so that neighbours are not measured together
WARM_UP_BATCH = 256
WARM_UP_RATE = 1e-3
WARM_UP_STEP = (16.0, 700.0)  # 8-bit levels


@dataclass(frozen=True)
class FaceConfig:
    """Sizes of the nets.

    Arguments:
        size: edge S of the pictures in pixels, a multiple of 2**(levels + 1).
        levels: lifting levels before the dense part.
        width: hidden channels of the lifting couplings.
        core: latents of the dense part; the rank of the rotation.
        turn: train the rotation too; if not, it stays at the principal components.
        head: the first latents, which the dense couplings set against the others of the core.
        dense_width: hidden units of the dense couplings.
        blocks: ends of the coding blocks, rising to `core`.
        context_width: hidden units of the entropy nets.
        dropout: of their hidden units in training.
        refine_width: channels of the refinement at half the resolution.
        warm_up: iterations in which the entropy nets start on the latents of the untrained flow.
    """

    size: int = 64
    levels: int = 2
    width: int = 48
    core: int = 1280
    turn: bool = False
    head: int = 48
    dense_width: int = 256
    blocks: tuple[int, ...] = (4, 16, 48, 128, 256, 512, 768, 1280)
    context_width: int = 384
    dropout: float = 0.15
    refine_width: int = 48
    warm_up: int = 2500


def condition(step: Tensor) -> Tensor:
    """What the nets see of Δ: log2 of the step in 8-bit levels, centred on 32 levels, halved, clamped to [-2.5, 3]."""
    return ((torch.log2(step * 255.0) - 5.0) / 2).clamp(-2.5, 3.0)


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal Haar level: low-pass `(B, C, H/2, W/2)` and details `(B, 3C, H/2, W/2)`."""
    a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return (a + b + c + d) / 2, torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def unhaar(low: Tensor, details: Tensor) -> Tensor:
    """Inverse of :func:`haar`."""
    h, v, g = details.chunk(3, 1)
    a, b, c, d = (low + h + v + g) / 2, (low - h + v - g) / 2, (low + h - v - g) / 2, (low - h - v + g) / 2
    top, bottom = torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2)


class PlacedCoupling(nn.Module):
    """A small conv net that knows where it is: the first layer adds a learned value for every place and channel.

    Arguments:
        inputs, outputs, width: channels.
        depth: 3x3 convolutions, at least 2; the last one starts at zero.
        size: rows and columns of the pictures.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, size: int) -> None:
        super().__init__()
        channels = [inputs] + [width] * (depth - 1) + [outputs]
        self.convs = ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        self.place = nn.Parameter(torch.zeros(1, width, size, size))
        _start_at_zero(self.convs[-1])

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.convs[0](x) + self.place)
        for conv in self.convs[1:-1]:
            y = functional.relu(conv(y))
        return self.convs[-1](y).to(x.dtype)


class FaceFlow(nn.Module):
    """Invertible, volume-preserving map between small pictures and flat latent vectors.

    Arguments:
        config: sizes.

    Example:
        >>> flow = FaceFlow(FaceConfig(size=16, width=8, core=12, head=4, dense_width=8, blocks=(4, 12)))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> h = flow(x)
        >>> tuple(h.shape), bool(torch.allclose(flow.inverse(h), x, atol=1e-5))
        ((2, 768), True)
    """

    colour: Tensor
    mean: Tensor

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("colour", torch.tensor(COLOUR), persistent=False)
        sizes = [config.size >> k for k in range(1, config.levels + 1)]
        self.predict = ModuleList(PlacedCoupling(3, 9, config.width, 3, n) for n in sizes)
        self.update = ModuleList(PlacedCoupling(9, 3, config.width, 2, n) for n in sizes)
        self.shapes = [(3, sizes[-1], sizes[-1]), *((9, n, n) for n in reversed(sizes))]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.register_buffer("mean", torch.zeros(sum(self.sizes)))
        self.rotation = Rotation(sum(self.sizes), config.core)
        self.rotation.requires_grad_(config.turn)
        self.couplings = ModuleList(
            DenseCoupling(config.core, config.head, config.dense_width, flipped) for flipped in (False, True)
        )

    def lift(self, x: Tensor) -> Tensor:
        """The lifting part: pictures to centred coefficients `(B, D)`, coarsest first."""
        low = functional.conv2d(x - GREY, self.colour[:, :, None, None])
        bands: list[Tensor] = []
        for predict, update in zip(self.predict, self.update, strict=True):
            low, details = haar(low)
            details = details - predict(low)
            low = low + update(details)
            bands.append(details)
        return torch.cat([b.flatten(1) for b in (low, *reversed(bands))], 1).float() - self.mean

    def unlift(self, v: Tensor) -> Tensor:
        """Inverse of :meth:`lift`."""
        parts = torch.split(v + self.mean, self.sizes, 1)
        low, *bands = (p.reshape(-1, *shape) for p, shape in zip(parts, self.shapes, strict=True))
        for predict, update, details in zip(reversed(self.predict), reversed(self.update), bands, strict=True):
            low = low - update(details)
            low = unhaar(low, details + predict(low))
        return functional.conv2d(low, self.colour.T[:, :, None, None]).float() + GREY

    def forward(self, x: Tensor) -> Tensor:
        """Latents `(B, D)` of pictures `(B, 3, S, S)`."""
        v = self.lift(x)
        with torch.autocast(v.device.type, enabled=False):
            v = self.rotation(v)
        core, rest = v[:, : self.config.core], v[:, self.config.core :]
        for coupling in self.couplings:
            core = coupling(core)
        return torch.cat([core, rest], 1)

    def inverse(self, h: Tensor) -> Tensor:
        """Pictures `(B, 3, S, S)` of latents `(B, D)`; not clamped to [0, 1]."""
        core, rest = h[:, : self.config.core], h[:, self.config.core :]
        for coupling in reversed(self.couplings):
            core = coupling.inverse(core)
        with torch.autocast(h.device.type, enabled=False):
            v = self.rotation.inverse(torch.cat([core.float(), rest.float()], 1))
        return self.unlift(v)

    @torch.no_grad()
    def fit(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Start at the principal components of training pictures `(N, 3, S, S)` uint8 and of their mirror images.

        Returns:
            Standard deviation of the components `(core,)`, in units of [0, 1].
        """
        chunks = [c.float() / 255 for c in torch.split(pictures, 512)]
        v = torch.cat([self.lift(c) for c in chunks] + [self.lift(c.flip(3)) for c in chunks])
        self.mean += v.mean(0)
        v -= v.mean(0)
        rank = min(self.config.core + OVERSAMPLING, *v.shape)
        start = torch.randn(v.shape[1], rank, generator=generator)
        q = torch.linalg.qr(v.T @ (v @ start))[0]
        for _ in range(POWER_ITERATIONS):
            q = torch.linalg.qr(v.T @ (v @ q))[0]
        _, s, w = torch.linalg.svd(v @ q, full_matrices=False)
        rows = torch.linalg.qr((q @ w.T)[:, : self.config.core])[0].T
        if len(rows) < self.config.core:
            raise EocodecError(f"{len(pictures)} pictures are too few for a core of {self.config.core} latents")
        fitted = Rotation.from_basis(rows.contiguous())
        self.rotation.load_state_dict(fitted.state_dict())
        return s[: self.config.core] / math.sqrt(len(v))


class BlockContext(nn.Module):
    """The integer nets of the conditional last layer: one per block, each sees all blocks before its own and Δ."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.edges = (0, *config.blocks)
        self.dropout = config.dropout
        width = config.context_width
        self.nets = ModuleList(
            IntegerNet([a + 1, width, width, 2 * (b - a)], [1, 1, 1], False) for a, b in pairwise(self.edges)
        )
        for net in self.nets:
            _start_at_zero(net.convs[-1])

    def parameters_of(self, block: int, seen: Tensor, quantised: bool) -> tuple[Tensor, Tensor]:
        """Mean (steps) and what to add to the table index, `(B, n)` each, of `seen (B, a + 1)`."""
        convs = self.nets[block].convs
        x = seen
        for k, conv in enumerate(convs):
            # A product of matrices: as convolutions of single pixels these layers would be several times slower.
            weight, bias = conv.rounded() if quantised else (conv.weight, conv.bias)
            x = functional.linear(x, weight[..., 0, 0], bias)
            if k + 1 < len(convs):
                if quantised:
                    x = round_through(x * ACTIVATION_UNIT) / ACTIVATION_UNIT
                x = functional.dropout(x.clamp(0, 255 / ACTIVATION_UNIT), self.dropout, self.training)
        mean, index = x.float().chunk(2, 1)
        index = index * INDEX_UNIT
        if quantised:
            mean, index = round_through(mean * MEAN_UNIT) / MEAN_UNIT, round_through(index)
        return mean.clamp(-MEAN_LIMIT, MEAN_LIMIT), index.clamp(-INDEX_LIMIT, INDEX_LIMIT)


class FaceRefinement(nn.Module):
    """Decoder-side correction of a quantised picture: three scales, aware of the place and of Δ, scaled by Δ.

    `forward(x, step)`: `x (B, 3, S, S)` in [0, 1], `step (B,)` in the same range.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        a, b, c = width, 2 * width, width * 8 // 3
        n = size // 2
        self.first, self.fine = nn.Conv2d(13, a, 3, padding=1), nn.Conv2d(a, a, 3, padding=1)
        self.down1, self.middle = nn.Conv2d(a, b, 2, stride=2), _pair(b)
        self.down2, self.coarse = nn.Conv2d(b, c, 2, stride=2), _pair(c)
        self.up2, self.after2 = nn.Conv2d(c, 4 * b, 1), nn.Conv2d(b, b, 3, padding=1)
        self.up1, self.after1 = nn.Conv2d(b, 4 * a, 1), nn.Conv2d(a, a, 3, padding=1)
        self.last = nn.Conv2d(a, 12, 3, padding=1)
        self.places = nn.ParameterList(torch.zeros(1, w, m, m) for w, m in ((a, n), (b, n // 2), (c, n // 4)))
        _start_at_zero(self.last)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        blocks = functional.pixel_unshuffle(x - GREY, 2) * 2
        plane = condition(step)[:, None, None, None].expand(-1, 1, *blocks.shape[2:])
        y = functional.relu(self.first(torch.cat([blocks, plane], 1)) + self.places[0])
        fine = y + functional.relu(self.fine(y))
        y = functional.relu(self.down1(fine) + self.places[1])
        middle = y + self.middle(y)
        y = functional.relu(self.down2(middle) + self.places[2])
        y = y + self.coarse(y)
        y = middle + functional.relu(functional.pixel_shuffle(self.up2(y), 2))
        y = y + functional.relu(self.after2(y))
        y = fine + functional.relu(functional.pixel_shuffle(self.up1(y), 2))
        y = self.last(y + functional.relu(self.after1(y)))
        return x + functional.pixel_shuffle(y, 2).float() * (0.3 * step.clamp(max=1.0))[:, None, None, None]


def _pair(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )


def _start_at_zero(conv: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


class FaceModel(Trainable):
    """Flow f, conditional last layer p(h | integers before) and refinement of the quantised picture.

    Arguments:
        config: sizes; stored in every checkpoint.

    Example:
        >>> config = FaceConfig(size=16, width=8, core=12, head=4, dense_width=8, blocks=(4, 12), refine_width=6)
        >>> steps = Steps(torch.tensor([0.1, 0.3]))
        >>> picture, bits, _ = FaceModel(config).rate_distortion(torch.rand(2, 3, 16, 16), steps)
        >>> tuple(picture.shape), tuple(bits.shape)
        ((2, 3, 16, 16), (2,))
    """

    config: FaceConfig
    gain: Tensor

    def __init__(self, config: FaceConfig) -> None:
        super().__init__(config)
        if not 0 < config.head < config.core:
            raise EocodecError(f"head must be between 0 and core = {config.core}, not {config.head}")
        if config.blocks[-1] != config.core or list(config.blocks) != sorted(set(config.blocks)):
            raise EocodecError(f"blocks must rise to core = {config.core}, not {list(config.blocks)}")
        if config.size % 2 ** (config.levels + 1) or config.size % 8:
            raise EocodecError(f"size must be a multiple of 8 and of {2 ** (config.levels + 1)}, not {config.size}")
        dims = 3 * config.size**2
        self.flow = FaceFlow(config)
        self.context = BlockContext(config)
        self.refine = FaceRefinement(config.size, config.refine_width)
        # Log Laplace scale of every latent in units of [0, 1]; the nets adjust those of the core.
        self.log_scale = nn.Parameter(torch.full((dims,), math.log(4 / 255)))
        self.register_buffer("gain", torch.zeros(dims))

    def prepare(self, pictures: Tensor, generator: torch.Generator) -> None:
        """Start from data: principal components, scales, and entropy nets trained on the latents as they are then.

        Arguments:
            pictures: `(N, 3, S, S)` uint8.
            generator: of all random numbers.
        """
        deviation = self.flow.fit(pictures, generator)
        with torch.no_grad():
            self.log_scale[: self.config.core] = torch.log(0.7 * deviation)
            parts = [self.flow(p.float() / 255) for c in torch.split(pictures, 512) for p in (c, c.flip(3))]
            rest = torch.cat([p[::16, self.config.core :] for p in parts])
            self.log_scale[self.config.core :] = torch.log(rest.abs().mean(0).clamp(min=1e-4))
            latents = torch.cat([p[:, : self.config.core] for p in parts])
        learned = [*self.context.parameters(), self.log_scale]
        optimiser = torch.optim.Adam(learned, betas=(0.9, 0.99))
        low, high = (math.log(s / 255) for s in WARM_UP_STEP)
        for k in range(self.config.warm_up):
            optimiser.param_groups[0]["lr"] = 0.5 * WARM_UP_RATE * (1 + math.cos(math.pi * k / self.config.warm_up))
            h = latents[torch.randint(len(latents), (WARM_UP_BATCH,), generator=generator)]
            step = torch.exp(low + (high - low) * torch.rand(len(h), generator=generator))
            coded = self.code(h, step)
            each = coded.bits + (coded.decoded[0] - h).square().sum(1) / (LAGRANGE * step.square())
            optimiser.zero_grad()
            torch.autograd.backward((each / each.detach()).mean())
            optimiser.step()

    def code(self, h: Tensor, step: Tensor, weight: float = LAGRANGE, quantised: bool = False) -> Coded:
        """Code the core of latents `h (B, D)` at steps `step (B,)`; the rest, which may be missing, decodes to zero.

        `nll` is that of all latents, with the conditional density of the core at this resolution; `decoded` is one
        `(B, D)` tensor; `band_nll` holds `(B, D)` negative log-densities.
        """
        core = self.config.core
        steps = step[:, None] * torch.exp(self.gain)
        v = h[:, :core] / steps[:, :core]
        base = SCALE_PER_OCTAVE * (self.log_scale[:core] - steps[:, :core].log() - math.log(SCALE_MIN)) / math.log(2)
        plane = condition(step)[:, None]
        if quantised:
            base = round_through(base)
            plane = torch.floor(plane * ACTIVATION_UNIT + 0.5) / ACTIVATION_UNIT
        seen, values, densities = [plane], [], []
        bits = torch.zeros_like(step)
        for block, (a, b) in enumerate(pairwise(self.context.edges)):
            mean, offset = self.context.parameters_of(block, torch.cat(seen, 1), quantised)
            scale = scale_of_index((base[:, a:b] + offset).clamp(0, SCALES - 1))
            residual = v[:, a:b] - mean
            m = dead_zone(residual.detach(), scale.detach(), torch.as_tensor(weight))
            bits = bits + laplace_bits(residual + (m - residual).detach(), scale).sum(1)
            # A zero decodes to the mean whatever v is; see `LatentModel._code` for why it passes no gradient to v.
            kept = v[:, a:b] * (m != 0)
            values.append((m + mean.detach()) + (kept - kept.detach()) + (mean - mean.detach()) * (m == 0))
            densities.append((2 * scale).log() + residual.abs() / scale)
            seen.append(net_input(m + mean.detach(), quantised))
        scale = self.log_scale[core : h.shape[1]]
        rest = math.log(2) + scale + h[:, core:].abs() * torch.exp(-scale)
        density = torch.cat([torch.cat(densities, 1) + steps[:, :core].log(), rest], 1)
        decoded = torch.cat([torch.cat(values, 1) * steps[:, :core], torch.zeros_like(h[:, core:])], 1)
        error = (torch.cat(values, 1) - v).square().sum(1)
        return Coded(bits, density.sum(1), error, [decoded], [density])

    def likelihood(self, x: Tensor, step: Tensor, stage: Stage, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """NLL per latent plus λ times the manifold total correlation, from one column of the Jacobian a picture."""
        h = self.flow(x).float()
        nll = self.code(h, step, stage.dead_zone, stage.quantised).nll.mean() / h.shape[1]
        loss, correlation = nll, torch.zeros_like(nll)
        if stage.correlation:
            probability = self.probing().to(h.device)
            cumulative = probability.cumsum(0)
            index = torch.searchsorted(cumulative, draws.uniform() * cumulative[-1]).clamp(max=h.shape[1] - 1)
            with torch.autocast(x.device.type, enabled=False):
                norms = dense_log_column_norms(self.vector_inverse, h, index)
            correlation = (norms / probability[index]).mean() / h.shape[1]
            loss = nll + stage.correlation * correlation
        bits_per_dim = nll.detach() / math.log(2) + math.log2(255.0)
        return loss, {"bits_per_dim": bits_per_dim, "total_correlation": correlation.detach()}

    def probing(self) -> Tensor:
        """Probability `(D,)` with which a latent's column is probed: half of the probes go to the core."""
        dims, core = 3 * self.config.size**2, self.config.core
        return torch.cat([torch.full((core,), 0.5 / core), torch.zeros(dims - core)]) + 0.5 / dims

    def vector_inverse(self, h: Tensor) -> Tensor:
        return self.flow.inverse(h).flatten(1)

    def adapt(self, x: Tensor, turn: int) -> None:
        """Measure one column of the core at each picture, in turn, and let the gains follow their mean."""
        h = self.flow(x)
        core = self.config.core
        index = (turn * len(h) + torch.arange(len(h), device=h.device)) * PROBE_STRIDE % core
        norm = dense_log_column_norms(self.vector_inverse, h, index)
        self.gain[index] += ADAPT_RATE * (-norm - self.gain[index])

    def rate_distortion(
        self, x: Tensor, steps: Steps, dead_zone: float = LAGRANGE, quantised: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded pictures, the bits of each and the pictures before the refinement; the rest is not coded."""
        coded = self.code(self.flow(x).float(), steps.step, dead_zone, quantised)
        plain = self.flow.inverse(coded.decoded[0])
        return self.refine(plain, steps.step), coded.bits, plain

    def usable(self, height: int, width: int) -> tuple[int, int]:
        """Pictures of S x S pixels and no others."""
        if (height, width) != (self.config.size, self.config.size):
            raise EocodecError(f"this model takes pictures of {self.config.size}x{self.config.size} pixels only")
        return height, width
