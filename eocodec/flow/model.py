"""The photo model as one torch module, and the register of all kinds of models.

A model is what training optimises, checkpoints hold and the exporter reads; `eocodec.flow.trainable` says what each
kind has to offer.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eocodec.errors import EocodecError
from eocodec.flow import wavelet
from eocodec.flow.context import Coded, ContextModel, LatentModel, Steps
from eocodec.flow.embedded import EmbeddedContext, ladder, price
from eocodec.flow.face import FaceConfig, FaceModel
from eocodec.flow.gains import GainNet, NoiseNet, corrupt, level_loss, restoration_loss
from eocodec.flow.objective import LAGRANGE, log_column_norms, total_correlation
from eocodec.flow.photo import DeepRefinement, PhotoFlow, Refinement
from eocodec.flow.trainable import Draws, Stage, Trainable

__all__ = ["MODELS", "PhotoConfig", "PhotoModel", "build", "kind_of"]

ADAPT_RATE = 0.3
CLEAN_SHARE = 0.1  # of the pictures from which the noise level is learnt
CONTEXT = "latents.context."
# The nets by the names of their parameters, and the sizes that each of them depends on besides the flow's.
PARTS: dict[str, tuple[str, ...]] = {
    "flow.": (),
    "latents.gain": (),
    "latents.low_scale": (),
    CONTEXT: ("features", "context_width", "context_coarse", "context_depth", "rotated", "tuned"),
    "embedded.": ("embedded", "embedded_features", "embedded_width", "embedded_coarse", "embedded_depth"),
    "refine.": (
        "refine_width",
        "refine_depth",
        "refine_blocks",
        "refine_coarse",
        "refine_latents",
        "refine_tail",
        "tuned",
    ),
    "gains.": ("gain_widths", "gain_blocks"),
    "noise.": ("noise_width",),
}
ADAPT_PICTURES = 4  # on which a column norm is measured
SPACING = 48  # pixels between impulses when columns are measured while training


@dataclass(frozen=True)
class PhotoConfig:
    """Sizes of the nets; a block is 2**levels pixels, its latents 3 * 4**levels.

    `embedded` adds the nets of the embedded stream, which have `embedded_features`, `embedded_width`,
    `embedded_coarse`, `embedded_depth` and `embedded_eight_bit` of their own (the first two 0: as the others have);
    `gain_widths`, channels at every scale from the finest, those for denoising, with `gain_blocks` residual blocks a
    level and `noise_width` channels for the estimate of the level. `context_coarse`, `context_depth` and `eight_bit`
    are `coarse`, `depth` and `eight_bit` of `ContextModel`; `rotated` is its coding order; with `tuned` entropy nets
    and refinement know how much the steps follow the eye.
    `refine_blocks`, if any, are residual blocks of `refine_coarse` channels; `refine_depth` then means nothing, and
    `refine_tail` is the number of layers behind. With `refine_latents` it sees the finest latents besides the picture;
    with `refine_eight_bit` it is exported for kernels of 8 bits.
    `axes` are the flow's colour axes: 3, or 1 for a model of grey pictures alone.
    """

    levels: int = 4
    width: int = 48
    steps: int = 2
    features: int = 32
    context_width: int = 48
    refine_width: int = 48
    refine_depth: int = 4
    context_coarse: float = 1.0
    context_depth: int = 1
    eight_bit: bool = False
    rotated: bool = False
    tuned: bool = False
    refine_blocks: int = 0
    refine_coarse: int = 64
    refine_latents: bool = False
    refine_tail: int = 2
    refine_eight_bit: bool = False
    embedded: bool = False
    embedded_features: int = 0
    embedded_width: int = 0
    embedded_coarse: float = 1.0
    embedded_depth: int = 1
    embedded_eight_bit: bool = False
    gain_widths: tuple[int, ...] = ()
    gain_blocks: int = 2
    noise_width: int = 24
    axes: int = 3

    def __post_init__(self) -> None:
        if self.axes not in (1, 3):
            raise EocodecError("a model has three colour axes, or one for grey pictures")
        if self.axes == 1 and (not self.tuned or self.embedded or self.gain_widths):
            raise EocodecError("a model of grey pictures must be tuned, without embedded stream and denoising nets")
        if self.tuned != bool(self.refine_blocks):
            raise EocodecError("a model that can be tuned needs refine_blocks, and only such a model can have them")
        if len(self.gain_widths) > self.levels + 1:
            raise EocodecError(f"gain_widths can have at most {self.levels + 1} numbers")


def _context(config: PhotoConfig) -> ContextModel:
    """New entropy nets."""
    return ContextModel(
        config.levels,
        config.features,
        config.context_width,
        config.context_coarse,
        config.context_depth,
        2 if config.tuned else 1,
        config.eight_bit,
        config.axes,
    )


def _embedded_sizes(config: PhotoConfig) -> tuple[int, int]:
    """Channels of the features and of the passes in the nets of the embedded stream."""
    return config.embedded_features or config.features, config.embedded_width or config.context_width


def _embedded_context(config: PhotoConfig) -> EmbeddedContext:
    """New nets for the embedded stream."""
    return EmbeddedContext(
        config.levels,
        *_embedded_sizes(config),
        config.embedded_coarse,
        config.embedded_depth,
        config.embedded_eight_bit,
    )


def _begin_as(own: Any, other: Any, weights: dict[str, Tensor], prefix: str) -> bool:
    """Let nets begin as others, whose weights are those with a prefix, if these are no larger; whether they are."""
    if not own.takes(other):
        return False
    other.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    own.start(other)
    return True


def _sizes(config: PhotoConfig, names: tuple[str, ...]) -> list[Any]:
    """What the nets' sizes are, with what stands for another one's resolved."""
    embedded = _embedded_sizes(config)
    resolved = {"embedded_features": embedded[0], "embedded_width": embedded[1]}
    return [resolved.get(name, getattr(config, name)) for name in names]


class PhotoModel(Trainable):
    """Flow f, conditional last layer p(h | coarser integers) and refinement of the quantised picture.

    Arguments:
        config: sizes; stored in every checkpoint.

    Example:
        >>> model = PhotoModel(PhotoConfig(width=8, steps=1, features=8, context_width=8, refine_width=8))
        >>> picture, coded = model(torch.rand(2, 3, 64, 32), torch.tensor([0.05, 0.2]))
        >>> tuple(picture.shape), tuple(coded.bits.shape)
        ((2, 3, 64, 32), (2,))
    """

    config: PhotoConfig

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__(config)
        self.flow = PhotoFlow(config.levels, config.width, config.steps, config.axes)
        self.latents = LatentModel(_context(config), config.rotated, config.tuned)
        self.refine: Refinement | DeepRefinement = (
            DeepRefinement(
                config.refine_width,
                config.refine_coarse,
                config.refine_blocks,
                config.refine_latents,
                config.refine_tail,
                config.axes,
            )
            if config.refine_blocks
            else Refinement(config.refine_width, config.refine_depth)
        )
        if config.embedded:
            self.embedded = _embedded_context(config)
        if config.gain_widths:
            self.gains = GainNet(config.gain_widths, config.gain_blocks)
            self.noise = NoiseNet(config.noise_width)

    def start_from(self, config: Any, weights: dict[str, Tensor]) -> list[str] | None:
        """As for all models, and from models that differ in anything but the flow: what is not the same begins anew.

        Entropy nets, nets of the embedded stream and those for denoising begin as the checkpoint's if those are no
        larger; nets of the embedded stream, if it has none, as the usual ones.
        """
        if type(config) is not type(self.config) or any(
            getattr(config, k) != getattr(self.config, k) for k in ("levels", "width", "steps", "axes")
        ):
            return None
        same = [prefix for prefix, sizes in PARTS.items() if _sizes(config, sizes) == _sizes(self.config, sizes)]
        own = self.state_dict()
        kept = {k: v for k, v in weights.items() if k in own and k.startswith(tuple(same))}
        self.load_state_dict({**own, **kept})
        order = (config.rotated, config.tuned) == (self.config.rotated, self.config.tuned)
        smaller: dict[str, tuple[Any, Any]] = {CONTEXT: (self.latents.context, _context(config) if order else None)}
        if self.config.gain_widths and config.gain_widths:
            smaller["gains."] = self.gains, GainNet(config.gain_widths, config.gain_blocks)
        if self.config.embedded:
            begins = _embedded_context(config) if config.embedded else _context(config)
            smaller["embedded."] = self.embedded, begins
            if not config.embedded:
                weights = {
                    **weights,
                    **{k.replace(CONTEXT, "embedded."): v for k, v in weights.items() if CONTEXT in k},
                }
        for prefix, (net, other) in smaller.items():
            if prefix not in same and other is not None and _begin_as(net, other, weights, prefix):
                same.append(prefix)
        both = [prefix for prefix in PARTS if all(any(k.startswith(prefix) for k in names) for names in (own, weights))]
        return sorted({prefix.split(".")[0] for prefix in both if prefix not in same})

    def clean(self, x: Tensor, noise: Tensor) -> Tensor:
        """Clean pictures of noisy ones `(B, 3, H, W)`; `noise (B, 1, H/2, W/2)` is its standard deviation, 0 to 1."""
        low, details = self._base(x)
        low, details = self.gains(low, details, noise)
        with torch.autocast(x.device.type, enabled=False):
            return self.flow.colours(wavelet.synthesise(low, details))

    def noise_estimate(self, x: Tensor) -> Tensor:
        """What the net for the noise level says of noisy pictures `(B, 3, H, W)`, see `NoiseNet`."""
        return self.noise(self._base(x)[1])

    def _base(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The finest level's low-pass and details without couplings."""
        with torch.autocast(x.device.type, enabled=False):
            return wavelet.analyse(self.flow.axes(x))

    def noisy(self, x: Tensor, stage: Stage, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Clean and noisy pictures, and the level of the noise, see :func:`corrupt`."""
        if not self.config.gain_widths:
            raise EocodecError("this model has no denoising nets; set gain_widths in [model]")
        return corrupt(x, draws, stage.noise, CLEAN_SHARE if stage.objective == "noise-level" else 0.0)

    def denoising(self, clean: Tensor, noisy: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the restored picture; only the gains are trained."""
        loss, error = restoration_loss(clean, self.clean(noisy, noise), noise)
        return loss, {"psnr": -10 * torch.log10(error).mean()}

    def noise_level(self, clean: Tensor, noisy: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the estimated level of the noise; only the net for it is trained."""
        loss = level_loss(self.noise_estimate(noisy), noise)
        return loss, {"level": loss.detach()}

    def embedded_stream(self, x: Tensor, step: Tensor, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """Relative bits of the significance pass whose dead zone goes with each step.

        Only its nets are trained.
        """
        if not self.config.embedded:
            raise EocodecError("this model has no nets for the embedded stream; set embedded = true in [model]")
        with torch.no_grad():
            h = [band.float() for band in self.flow(x)]
        bits = price(self.embedded, self.latents, h, ladder(step), stage.quantised) / x[0].numel()
        return (bits / (bits.detach() + 1e-3)).mean(), {"bits_per_pixel": 3 * bits.detach().mean()}

    def forward(
        self, x: Tensor, step: Tensor, weight: float = LAGRANGE, quantised: bool = False
    ) -> tuple[Tensor, Coded]:
        """Decoded pictures `(B, 3, H, W)` (not clamped) and their price at steps `step (B,)` in units of x."""
        steps = Steps(step)
        coded = self.latents(self.flow(x), steps, weight, quantised)
        return self.refined(self.flow.inverse(coded.decoded), coded.decoded, steps), coded

    def refined(self, x: Tensor, h: list[Tensor], steps: Steps) -> Tensor:
        """Pictures after the refinement, given what the flow makes of the dequantised latents h."""
        if isinstance(self.refine, Refinement):
            return self.refine(x, steps.step)
        size = (x.shape[2] // 2, x.shape[3] // 2)
        tune = torch.zeros_like(steps.step) if steps.tune is None else steps.tune
        return self.refine(
            x,
            h,
            steps.local(size).expand(-1, 1, *size),
            tune[:, None, None, None].expand(-1, 1, *size),
        )

    def refinement(self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`rate_distortion`; only the refinement is trained."""
        with torch.no_grad():
            coded = self.latents(self.flow(x), steps, dead_zone, quantised)
            plain = self.flow.inverse(coded.decoded)
        return self.refined(plain, coded.decoded, steps), coded.bits, plain

    def entropy(self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool) -> tuple[Tensor, Tensor]:
        """As for all models; the flow is not trained, and no picture is decoded."""
        with torch.no_grad():
            h = [band.float() for band in self.flow(x)]
        coded = self.latents(h, steps, dead_zone, quantised)
        return coded.bits, coded.error

    def likelihood(self, x: Tensor, step: Tensor, stage: Stage, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """NLL per latent, at the resolution of the steps, plus λ times the manifold total correlation."""
        h = self.flow(x)
        coded = self.latents(h, Steps(step), stage.dead_zone, stage.quantised)
        loss = nll = coded.nll.mean() / x[0].numel()
        correlation = torch.zeros_like(nll)
        if stage.correlation:
            with torch.autocast(x.device.type, enabled=False):
                spacing = min(SPACING, x.shape[-1] // 2)
                # Forward-mode derivatives stay uncompiled.
                estimate = torch.compiler.disable(total_correlation)  # type: ignore[no-untyped-call]
                correlation = estimate(self.flow.inverse, [b.float() for b in h], draws.shared, spacing)
            loss = nll + stage.correlation * correlation
        bits_per_dim = nll.detach() / math.log(2) + math.log2(255.0)
        return loss, {"bits_per_dim": bits_per_dim, "total_correlation": correlation.detach()}

    def rate_distortion(
        self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded pictures, the bits of each, and the pictures before the refinement."""
        coded = self.latents(self.flow(x), steps, dead_zone, quantised)
        plain = self.flow.inverse(coded.decoded)
        return self.refined(plain, coded.decoded, steps), coded.bits, plain

    @torch.no_grad()
    def adapt(self, x: Tensor, turn: int) -> None:
        """Measure the column norm of one band and channel, in turn, and let the steps follow it."""
        axes = self.config.axes
        k = turn * 17 % (axes + 3 * axes * self.config.levels)  # 17 is coprime to 39 and 13: all in turn
        band, channel = (0, k) if k < axes else (1 + (k - axes) // (3 * axes), (k - axes) % (3 * axes))
        h = self.flow(x[:ADAPT_PICTURES])
        norm = log_column_norms(self.flow.inverse, h, band, channel, x.shape[-1] // 2).mean()
        self.latents.adapt(band, channel, float(norm), ADAPT_RATE)

    def usable(self, height: int, width: int) -> tuple[int, int]:
        """Multiples of 2**(levels + 1), the edge of a quad of the coarsest level."""
        unit = 2 ** (self.config.levels + 1)
        if min(height, width) < unit:
            raise EocodecError(f"a picture of {width}x{height} pixels is smaller than this model's {unit}x{unit}")
        return height // unit * unit, width // unit * unit


MODELS: dict[str, tuple[type[Any], type[Trainable]]] = {
    "photo": (PhotoConfig, PhotoModel),
    "face": (FaceConfig, FaceModel),
}
"""Kind of model, as in `[model] kind` of a configuration: its dataclass of sizes and its class."""


def kind_of(config: Any) -> str:
    """The kind of model that a dataclass of sizes belongs to."""
    return next(kind for kind, (sizes, _) in MODELS.items() if type(config) is sizes)


def build(config: Any) -> Trainable:
    """A new model of the given sizes."""
    return MODELS[kind_of(config)][1](config)
