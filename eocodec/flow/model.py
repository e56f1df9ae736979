"""The photo model as one torch module: flow, latent model, refinement.

This is what training optimises, checkpoints hold and the exporter reads.
"""

from dataclasses import asdict, dataclass

import torch  # noqa: F401  (the example uses it)
from torch import Tensor, nn

from eocodec.flow.context import Coded, LatentModel
from eocodec.flow.objective import LAGRANGE
from eocodec.flow.photo import PhotoFlow, Refinement, log2_step_level

__all__ = ["PhotoConfig", "PhotoModel"]


@dataclass(frozen=True)
class PhotoConfig:
    """Sizes of the nets; `block` is 2**levels pixels, its latents 3 * 4**levels."""

    levels: int = 4
    width: int = 48
    steps: int = 2
    features: int = 32
    context_width: int = 48
    refine_width: int = 48
    refine_depth: int = 4


class PhotoModel(nn.Module):
    """Flow f, conditional last layer p(h | coarser integers) and refinement of the quantised picture.

    Arguments:
        config: sizes; stored in every checkpoint.

    Example:
        >>> model = PhotoModel(PhotoConfig(width=8, steps=1, features=8, context_width=8, refine_width=8))
        >>> picture, coded = model(torch.rand(2, 3, 64, 32), torch.tensor([0.05, 0.2]))
        >>> tuple(picture.shape), tuple(coded.bits.shape)
        ((2, 3, 64, 32), (2,))
    """

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = PhotoFlow(config.levels, config.width, config.steps)
        self.latents = LatentModel(config.levels, config.features, config.context_width)
        self.refine = Refinement(config.refine_width, config.refine_depth)

    def forward(
        self, x: Tensor, step: Tensor, weight: float = LAGRANGE, quantised: bool = False
    ) -> tuple[Tensor, Coded]:
        """Decoded pictures `(B, 3, H, W)` (not clamped) and their price at steps `step (B,)` in units of x."""
        coded = self.latents(self.flow(x), step, log2_step_level(step), weight, quantised)
        return self.refine(self.flow.inverse(coded.decoded), step), coded

    def describe(self) -> dict[str, int]:
        """The sizes as a plain dictionary, for checkpoints."""
        return asdict(self.config)
