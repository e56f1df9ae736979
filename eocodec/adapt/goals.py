"""What a model is adapted for: fewer bytes at equal PSNR, fewer for the eye, fewer without loss, or less noise.

In: a name. Out: a :class:`Goal`: how the outcome is measured and, for what `eocodec.flow` trains (:class:`FlowGoal`),
stages of training with their shares of the time.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from eocodec.adapt.measure import Curve, centre, estimated, file_points, mean_curve, saving, tensor_psnr
from eocodec.codec import compress_picture
from eocodec.denoising import denoise
from eocodec.errors import EocodecError
from eocodec.flow.context import EYE_OFFSETS, OCTAVE
from eocodec.flow.eye import score
from eocodec.flow.model import PhotoConfig, PhotoModel
from eocodec.flow.pictures import Picture
from eocodec.flow.trainable import Stage
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

__all__ = ["GOALS", "FlowGoal", "Goal", "Part"]

STEP_RANGE = (3.0, 160.0)  # 8-bit levels
COARSE = 3  # the entropy nets from this level on are half of all bytes of the nets, and code a tenth of the bits
# Squared steps that a bit is worth when everything is trained, and in rounding then: with more of it, flow and nets
# move to lower rates, where they are worse than they were (docs/METHOD.md, 11).
WORTH = 0.13
SIGMAS = (10.0, 25.0, 50.0)  # 8-bit levels of white noise on which denoising is measured


@dataclass(frozen=True)
class Part:
    """A stretch of training.

    Arguments:
        share: of the time for training.
        stage: its iterations follow from the time.
    """

    share: float
    stage: Stage


def _stage(objective: str, learning_rate: float, final_rate: float, **more: Any) -> Stage:
    """A stage with the integer entropy model, whose length is not known yet."""
    return Stage(objective, 1, learning_rate, final_rate, warmup=20, step=STEP_RANGE, quantised=True, **more)


def _joint(**more: Any) -> Stage:
    """Everything together, from nets that fit the pictures already."""
    fixed = {"fixed_steps": True, "weight": WORTH, "dead_zone": WORTH}
    return _stage("rate-distortion", 2e-4, 2e-6, **fixed, **more)


class Goal(ABC):
    """What is wanted."""

    name: str
    place_name = "bits per pixel"
    """What the first number of a point is."""
    quality_name: str
    """What the second is."""
    gain_unit: str
    loss_unit: str
    """Of what is said where the gain is negative."""
    least: float
    """A gain below this is none."""

    @abstractmethod
    def measure(self, model: Model, pictures: Sequence[Picture]) -> list[Curve]:
        """A bundle's points for every held-out picture."""

    def gain(self, before: Sequence[Curve], after: Sequence[Curve]) -> float:
        """How much better the second is, in :attr:`gain_unit`."""
        return saving(before, after)

    def shown(self, curves: Sequence[Curve]) -> Curve:
        """What people see of them."""
        return mean_curve(curves)

    def said(self, gain: float) -> str:
        """A gain or a loss in words."""
        if gain < 0 and self.loss_unit != self.gain_unit:
            return f"{-gain:.2f} {self.loss_unit}"
        return f"{gain:+.2f} {self.gain_unit}"


class FlowGoal(Goal):
    """What is wanted of flow, entropy nets, refinement, or the nets for denoising."""

    on_files = True
    """Whether it is files that change."""
    refined: float = 0.0
    """Share of the time for training in which the refinement is trained on files, at the end."""
    eye_share: float = 0.0
    """Of these files, those that are tuned for the eye."""

    @abstractmethod
    def parts(self, tuned: bool) -> tuple[Part, ...]:
        """The stretches of training in order, for a model that can be tuned or not; their shares add up to 1."""

    def sizes(self, config: PhotoConfig) -> PhotoConfig:
        """Sizes of the model to train, given the bundle's: without nets that are not needed for it.

        Raises:
            EocodecError: the bundle lacks what is to be adapted.
        """
        return replace(config, gain_widths=())

    def prepare(self, model: PhotoModel) -> None:
        """Change what is not learnt, once, before training."""
        return

    def freeze(self, model: PhotoModel) -> None:
        """Exclude from training what is not worth its bytes in a delta."""
        return

    @abstractmethod
    def estimate(self, model: PhotoModel, pictures: Sequence[Picture], base: Model) -> list[Curve]:
        """A model's points in training for every held-out picture; `base` is the bundle it started from."""


class Rate(FlowGoal):
    """Fewer bytes at equal PSNR: the entropy nets, then everything together."""

    name = "rate"
    quality_name = "PSNR in dB"
    gain_unit = "% fewer bytes"
    loss_unit = "% more bytes"
    least = 0.5
    refined = 0.2
    eye_share = 0.3

    def parts(self, tuned: bool) -> tuple[Part, ...]:
        """See :meth:`FlowGoal.parts`; some crops have steps that follow the eye, for files of that tuning gain too."""
        mixed = {"tuned": 0.3, "varied": 0.15} if tuned else {}
        return Part(0.66, _stage("entropy", 3e-3, 3e-4, **mixed)), Part(0.34, _joint(**mixed))

    def freeze(self, model: PhotoModel) -> None:
        """See :meth:`FlowGoal.freeze`."""
        _freeze_coarse(model)

    def estimate(self, model: PhotoModel, pictures: Sequence[Picture], base: Model) -> list[Curve]:
        """See :meth:`FlowGoal.estimate`."""
        manifest = base.manifest
        return estimated(model, pictures, manifest.dead_zone, manifest.refine_from, tensor_psnr)

    def measure(self, model: Model, pictures: Sequence[Picture]) -> list[Curve]:
        """See :meth:`Goal.measure`."""
        return file_points(model, pictures, psnr, tune="psnr" if model.manifest.tuned else None)


class Eye(FlowGoal):
    """Fewer bytes at equal SSIMULACRA2.

    Models that can be tuned are trained as they are, mostly with steps that follow the eye. The others get such steps
    for good, and nets for them.
    """

    name = "eye"
    quality_name = "SSIMULACRA2"
    gain_unit = "% fewer bytes"
    loss_unit = "% more bytes"
    least = 0.5
    refined = 0.2
    eye_share = 0.75

    def parts(self, tuned: bool) -> tuple[Part, ...]:
        """See :meth:`FlowGoal.parts`; without tuning no stage measures the gains anew, which :meth:`prepare` sets."""
        if tuned:
            mixed = {"tuned": 0.75, "varied": 0.25}
            return Part(0.66, _stage("entropy", 3e-3, 3e-4, **mixed)), Part(0.34, _joint(eye=0.7, **mixed))
        return (
            Part(0.55, _stage("entropy", 3e-3, 2e-4)),
            Part(0.3, _stage("refinement", 1e-3, 1e-5, eye=0.7)),
            Part(0.15, _stage("entropy", 5e-4, 1e-5)),
        )

    @torch.no_grad()
    def prepare(self, model: PhotoModel) -> None:
        """Let the steps of low-pass and levels differ as the eye's sensitivity does (docs/METHOD.md, section 11)."""
        if model.config.tuned:
            return
        offsets = [EYE_OFFSETS[0], *EYE_OFFSETS[-model.config.levels :]]
        for gain, offset in zip(model.latents.gains, offsets, strict=True):
            gain += offset / OCTAVE * math.log(2)

    def freeze(self, model: PhotoModel) -> None:
        """See :meth:`FlowGoal.freeze`; steps that follow the eye are new to nets of a model that cannot be tuned."""
        if model.config.tuned:
            _freeze_coarse(model)

    def estimate(self, model: PhotoModel, pictures: Sequence[Picture], base: Model) -> list[Curve]:
        """See :meth:`FlowGoal.estimate`."""
        manifest = base.manifest
        return estimated(
            model,
            pictures,
            manifest.dead_zone,
            manifest.refine_from,
            lambda x, y: float(score(x, torch.floor(y.clamp(0, 1) * 255 + 0.5) / 255).mean()),
            tune=1.0,
        )

    def measure(self, model: Model, pictures: Sequence[Picture]) -> list[Curve]:
        """See :meth:`Goal.measure`."""

        def quality(original: Picture, decoded: Picture) -> float:
            x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (original, decoded))
            return float(score(x, y).mean())

        return file_points(model, pictures, quality, tune="eye" if model.manifest.tuned else None)


class Denoise(FlowGoal):
    """Less noise: the denoising net alone; files do not change, nor does the model's id."""

    name = "denoise"
    place_name = "noise in 8-bit levels"
    on_files = False
    quality_name = "PSNR in dB of denoised pictures"
    gain_unit = loss_unit = "dB"
    least = 0.02

    def sizes(self, config: PhotoConfig) -> PhotoConfig:
        """See :meth:`FlowGoal.sizes`."""
        if not config.gain_widths:
            raise EocodecError("this model has no nets for denoising that could be adapted")
        return config

    def parts(self, tuned: bool) -> tuple[Part, ...]:
        """See :meth:`FlowGoal.parts`."""
        stage = Stage("denoising", 1, learning_rate=3e-4, final_rate=3e-6, warmup=50, noise=70.0)
        return (Part(1.0, stage),)

    @torch.no_grad()
    def estimate(self, model: PhotoModel, pictures: Sequence[Picture], base: Model) -> list[Curve]:
        """See :meth:`FlowGoal.estimate`; points are (level of the noise, PSNR)."""
        device = next(model.parameters()).device

        def quality(part: Picture, sigma: float, number: int) -> float:
            noisy = torch.from_numpy(_noisy(part, sigma, number)).to(device).permute(2, 0, 1)[None].float() / 255
            clean = model.clean(noisy, torch.full_like(noisy[:, :1, ::2, ::2], sigma / 255))
            return tensor_psnr(torch.from_numpy(part).to(device).permute(2, 0, 1)[None].float() / 255, clean)

        parts = [centre(p, 2 ** (model.config.levels + 1)) for p in pictures]
        return [[(sigma, quality(p, sigma, k)) for sigma in SIGMAS] for k, p in enumerate(parts)]

    def measure(self, model: Model, pictures: Sequence[Picture]) -> list[Curve]:
        """See :meth:`Goal.measure`; points are (level of the noise, PSNR)."""

        def quality(picture: Picture, sigma: float, number: int) -> float:
            return psnr(picture, denoise(_noisy(picture, sigma, number), sigma, model=model))

        return [[(sigma, quality(p, sigma, k)) for sigma in SIGMAS] for k, p in enumerate(pictures)]

    def gain(self, before: Sequence[Curve], after: Sequence[Curve]) -> float:
        """Mean gain in dB over the pictures and the levels of noise."""
        pairs = zip(before, after, strict=True)
        return float(np.mean([[b[1] - a[1] for a, b in zip(*pair, strict=True)] for pair in pairs]))


class Lossless(Goal):
    """Fewer bytes without loss: the nets for lossless files, which have no part in others."""

    name = "lossless"
    place_name = "picture"
    quality_name = "bits per pixel"
    gain_unit = "% fewer bytes"
    loss_unit = "% more bytes"
    least = 0.2

    def measure(self, model: Model, pictures: Sequence[Picture]) -> list[Curve]:
        """See :meth:`Goal.measure`; a picture's only point is (its number, bits per pixel)."""
        sizes = [len(compress_picture(p, lossless=True, model=model).data) for p in pictures]
        pairs = enumerate(zip(sizes, pictures, strict=True), 1)
        return [[(k, 8 * n / (p.shape[0] * p.shape[1]))] for k, (n, p) in pairs]

    def gain(self, before: Sequence[Curve], after: Sequence[Curve]) -> float:
        """Percent that the mean is smaller."""
        return 100 * (1 - sum(bits for [(_, bits)] in after) / sum(bits for [(_, bits)] in before))

    def shown(self, curves: Sequence[Curve]) -> Curve:
        """See :meth:`Goal.shown`; every picture."""
        return [point for curve in curves for point in curve]


def _freeze_coarse(model: PhotoModel) -> None:
    """Exclude the entropy nets of the coarse levels from training."""
    for name, parameter in model.latents.context.named_parameters():
        level = next((int(part) for part in name.split(".") if part.isdigit()), 0)
        parameter.requires_grad_(level < COARSE)


def _noisy(picture: Picture, sigma: float, seed: int) -> Picture:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


GOALS: dict[str, Goal] = {g.name: g for g in (Rate(), Eye(), Lossless(), Denoise())}
