"""More work for better files: latents are moved to where the decoded picture is closer to the original.

In: the latents of a picture, and what a decoder has of latents (:class:`eocodec.coding.improving.Improver`). Out:
latents to code instead. The transform gives each latent as if all others were exact. But their errors reach the same
pixels, through couplings and refinement, and some of what one latent gets wrong others can put right. So a round
decodes the file, takes the gradient of the picture's error by every decoded latent, and moves what is to be coded a
little towards where that latent would be best with all others as they are. Decoders know nothing of it.

The error is the squared one or, of files tuned for the eye, that with a share of SSIMULACRA2's.

References:
    Campos et al., *Content adaptive optimization for neural image compression*, 2019. https://arxiv.org/abs/1906.01223
    Yang et al., *Improving inference for neural image compression*, 2020. https://arxiv.org/abs/2006.04240
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eocodec.arguments import MOST_EFFORT, is_whole
from eocodec.coding.improving import Improver, PictureAtStep
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model
from eocodec.model.tiles import Tile, scaled, shifted, tiles
from eocodec.model.transform import scales

if TYPE_CHECKING:
    import torch

    from eocodec.flow.model import PhotoModel

__all__ = ["improver"]

Float32 = npt.NDArray[np.float32]

PACE = 0.05  # of the way to where a latent would be best, in each round: all move at once
EYE_SHARE = 0.25  # of SSIMULACRA2 in the error of files tuned for the eye
EYE_UNIT = 2e-4  # squared error of a sample (range 0 to 1) that goes with one unit of the metric's error
CAUTION = 2.0  # by which second derivatives of the metric are taken for larger: those of single places are
OUTSIDE = 0.1  # of what lies outside the range of colours, that the metric sees
TILE, HALO, WHOLE = 512, 64, 1 << 19  # pixels: a round takes some 2.6 kB for each of a tile's


def improver(rounds: int) -> Improver | None:
    """What improves latents in so many rounds, None for none.

    Raises:
        EocodecError: there cannot be so many, or PyTorch and what else is needed is not installed.
    """
    if not is_whole(rounds) or not 0 <= rounds <= MOST_EFFORT:
        raise EocodecError(f"the effort must be a whole number from 0 to {MOST_EFFORT}, not {rounds!r}")
    if not rounds:
        return None
    if "torch" not in sys.modules:  # else its threads burn time while they wait, several times that of the work
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import onnx
        import ssimulacra2
        import torch
    except ImportError as e:
        raise EocodecError(f"effort needs {e.name}; install it with: pip install 'eocodec[effort]'") from None
    del onnx, ssimulacra2, torch
    return _Rounds(int(rounds))


@dataclass(frozen=True)
class _Rounds:
    """So many rounds of improvement."""

    rounds: int

    def __call__(
        self,
        wanted: PictureAtStep,
        latents: list[Float32],
        decoded: Callable[[list[Float32]], list[Float32]],
    ) -> list[Float32]:
        """See :class:`Improver`."""
        with _threads(wanted.model.share):
            slopes = _Slopes(wanted, (latents[0].shape[1], latents[0].shape[2]))
            result = [band.copy() for band in latents]
            for _ in range(self.rounds):
                have = decoded(result)
                for band, best in zip(result, slopes.best(have), strict=True):
                    band += np.float32(PACE) * (best - band)
            return result


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Slopes:
    """Where each latent of a picture would be best, given the others.

    Arguments:
        wanted: the picture and its file.
        coarsest: rows and columns of the low-pass, padding included.
    """

    def __init__(self, wanted: PictureAtStep, coarsest: tuple[int, int]) -> None:
        import torch

        from eocodec.flow.distributed import bfloat16_pays

        model, picture, header = wanted.model, wanted.picture, wanted.header
        self.wanted = wanted
        self.factors = scales(model.manifest.levels)
        self.net = model.derived(_net)
        self.device = torch.device("cuda" if model.device == "cuda" and torch.cuda.is_available() else "cpu")
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.autocast = bfloat16_pays(self.device)
        self.height, self.width = (size * self.factors[0] for size in coarsest)
        seen = np.ones(picture.rgb.shape[:2], np.float32) if picture.alpha is None else picture.alpha > 0
        below = (self.height - len(picture.rgb), self.width - picture.rgb.shape[1])
        self.seen = np.pad(seen.astype(np.float32), [(0, n) for n in below])
        rgb = wanted.values
        if rgb is None:
            rgb = picture.rgb.astype(np.float32) / np.float32(np.iinfo(picture.rgb.dtype).max)
        self.rgb = np.pad(rgb, [*((0, n) for n in below), (0, 0)], "edge").transpose(2, 0, 1)
        self.share = EYE_SHARE * wanted.places.tune
        self.step = model.manifest.decoder_step(header.delta)
        # Squared error grows by a latent's own error times its column's squared norm, which the steps follow.
        self.curvature = [(header.delta / s.reshape(-1, 1, 1)) ** 2 for s in model.manifest.steps(header.delta)]
        self.steeper: dict[int, list[float]] = {}  # by tile: how much more the whole error grows, for each band

    def best(self, have: list[Float32]) -> list[Float32]:
        """Where each latent would be best, given what a decoder has of all."""
        result = [np.empty_like(band) for band in have]
        for number, t in enumerate(tiles(self.width, self.height, TILE, HALO, WHOLE)):
            slopes = self._slopes(have, number, t)
            for k, f in enumerate(self.factors):
                rows, columns = scaled(t.rows, f), scaled(t.columns, f)
                inner = shifted(rows, t.outer_rows.start // f), shifted(columns, t.outer_columns.start // f)
                change = slopes[k][:, inner[0], inner[1]] / (2 * self.curvature[k] * self.steeper[number][k])
                result[k][:, rows, columns] = have[k][:, rows, columns] - change
        return result

    def _slopes(self, have: list[Float32], number: int, t: Tile) -> list[Float32]:
        """Gradient of the error of a tile, halo included, by its latents."""
        import torch

        outer = t.outer_rows, t.outer_columns
        bands = [
            torch.from_numpy(np.ascontiguousarray(band[None, :, scaled(outer[0], f), scaled(outer[1], f)]))
            .to(self.device, memory_format=torch.channels_last)
            .requires_grad_(True)
            for band, f in zip(have, self.factors, strict=True)
        ]
        with torch.enable_grad():
            squared, unlike = self._errors(bands, t)
            error = squared if unlike is None else (1 - self.share) * squared + self.share * unlike
            first = number not in self.steeper
            slopes = torch.autograd.grad(error, bands, retain_graph=first and unlike is not None)
            if first:
                self.steeper[number] = [1.0] * len(bands)
                if unlike is not None:
                    both = zip(torch.autograd.grad(squared, bands), slopes, strict=True)
                    self.steeper[number] = [self._steeper(plain, whole) for plain, whole in both]
        return [g[0].cpu().numpy() for g in slopes]

    def _steeper(self, squared: "torch.Tensor", whole: "torch.Tensor") -> float:
        """How much faster the whole error grows than the squared one, from slopes of both with a share of the latter.

        Both are zero in the same place, nearly, and grow with the square of what is between, so that their second
        derivatives are as far apart as their slopes.
        """
        plain = float(squared.square().sum().sqrt())
        unlike = float((whole - (1 - self.share) * squared).square().sum().sqrt())
        return 1 - self.share + CAUTION * (unlike / plain if plain else self.share)

    def _errors(self, bands: "list[torch.Tensor]", t: Tile) -> "tuple[torch.Tensor, torch.Tensor | None]":
        """Squared error of a tile's picture, and how unlike it is for an eye, in the same unit, if that counts."""
        import torch

        from eocodec.flow.eye import SMALLEST, eye_error

        x, seen = (
            torch.from_numpy(np.ascontiguousarray(plane[..., t.outer_rows, t.outer_columns])).to(self.device)[None]
            for plane in (self.rgb, self.seen)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            y = self.net.flow.inverse(bands)
            if self.wanted.refined:
                y = self._refined(y, bands, t)
        if self.wanted.header.grey:
            y = y.mean(1, keepdim=True).expand_as(y)
        difference = (y - x) * seen
        squared = difference.square().sum()
        if not self.share or min(x.shape[2:]) < SMALLEST:
            return squared, None
        bounded = (x + difference).clamp(0, 1)
        beyond = OUTSIDE * (x + difference - bounded)  # a slope that leads back into the range
        return squared, eye_error(x, bounded + beyond).sum() * (EYE_UNIT * x.numel())

    def _refined(self, y: "torch.Tensor", bands: "list[torch.Tensor]", t: Tile) -> "torch.Tensor":
        import torch

        from eocodec.flow.photo import Refinement

        step = torch.full((1,), self.step, device=self.device)
        if isinstance(self.net.refine, Refinement):
            return self.net.refine(y, step)
        size = y.shape[2] // 2, y.shape[3] // 2
        given = self.wanted.places.inputs(self.step, t, self.wanted.model.multiple)
        planes = (torch.from_numpy(given[name]).to(self.device).expand(1, 1, *size) for name in ("step", "tune"))
        return self.net.refine(y, bands, *planes)


def _net(model: Model) -> "PhotoModel":
    """The flow and refinement of a bundle, with gradients."""
    from eocodec.flow.model import PhotoModel
    from eocodec.flow.restored import photo_weights

    sizes, weights = photo_weights(model.runtime.files)
    net = PhotoModel(sizes)
    net.load_state_dict(weights, strict=False)
    return net.eval().requires_grad_(False)
