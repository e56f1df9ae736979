"""What training needs of a model, and what it passes to it: the interface between `eocodec.flow.training` and the nets.

A new kind of model is a class with the methods of :class:`Trainable`, a frozen dataclass of plain values for its sizes,
and one line in `eocodec.flow.model.MODELS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eocodec.errors import EocodecError
from eocodec.flow.context import Steps
from eocodec.flow.objective import LAGRANGE

__all__ = ["Draws", "Stage", "Trainable"]


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Arguments:
        objective: "likelihood" (NLL + λ·I), "rate-distortion" (R + D / (w Δ²)), "entropy" (the same with the
            error of the latents for D; only the entropy nets learn), "refinement" (the same as "rate-distortion", but
            only the refinement learns), "embedded" (the bits of the embedded stream's passes at dead zones near 2/3 Δ),
            "denoising" (the error of the restored picture) or "noise-level" (that
            of the estimated level). The last three train only nets of their own.
        iterations: optimiser steps.
        learning_rate: at the start; falls to `final_rate` as a half cosine.
        flow_rate: factor of the learning rate for the flow's own parameters (`flow.*`).
        warmup: iterations in which the learning rate rises from zero.
        step: range of Δ in 8-bit levels, drawn log-uniformly for every picture.
        noise: σ_a in 8-bit levels. "likelihood": of the noise augmentation. "rate-distortion": the largest level of
            the noise on a third of the pictures (uniform from 0), which are to be decoded without it. "denoising",
            "noise-level": the largest level.
        correlation: λ, the weight of the manifold total correlation (likelihood only).
        anchor: weight of the error of the inverse flow alone, relative to D (rate-distortion only): without it content
            moves into latents that are not coded, and the refinement stands in for it.
        quantised: round weights and activations of the entropy model as the exported graphs do.
        dead_zone: weight of the rate in the rounding decision, squared steps per bit.
        tuned: share of pictures whose steps follow the eye, half of them fully and half to any degree ("entropy" and
            "rate-distortion").
        varied: share of pictures whose steps vary over the picture (the same).
        eye: how much of D is SSIMULACRA2's error instead of the squared error, in a fully tuned picture, or in all
            where `tuned` is 0 ("rate-distortion" and "refinement").
        fixed_steps: keep the steps of the bands as they are ("likelihood" and "rate-distortion"). Otherwise they follow
            the flow, so that a step of Δ stays one of Δ in the picture; a flow that would rather have another step for
            a band then scales that band without end (docs/METHOD.md, section 11).
        weight: w, squared steps of error that a bit is worth; above 0 ("rate-distortion", "entropy" and "refinement").
    """

    objective: str
    iterations: int
    learning_rate: float = 1e-3
    final_rate: float = 1e-3
    flow_rate: float = 1.0
    warmup: int = 100
    step: tuple[float, float] = (2.0, 200.0)
    noise: float = 0.0
    correlation: float = 0.0
    anchor: float = 0.0
    quantised: bool = False
    dead_zone: float = LAGRANGE
    tuned: float = 0.0
    varied: float = 0.0
    eye: float = 0.0
    fixed_steps: bool = False
    weight: float = LAGRANGE


class Draws:
    """Random numbers of one iteration for `count` pictures of a batch, from its `first` one on.

    A picture's numbers depend on the iteration's seed and on the picture's place in the whole batch, not on how the
    batch is cut: over processes, micro-batches or not at all, training sees the same numbers.

    Arguments:
        seed: of the iteration, the same for all parts of the batch.
        first, count: the part of the batch.
        device: where the numbers are drawn and wanted.

    Example:
        >>> whole, part = Draws(7, 0, 4), Draws(7, 2, 2)
        >>> bool((whole.normal(3, 5)[2:] == part.normal(3, 5)).all())
        True
    """

    def __init__(self, seed: int, first: int, count: int, device: str | torch.device = "cpu") -> None:
        self.seed, self.first, self.count, self.device = seed, first, count, torch.device(device)
        self.calls = 0
        self._generator = torch.Generator(self.device)
        self.shared = torch.Generator().manual_seed(_mix(seed, 0, 0))
        """CPU generator in the same state for every part of a batch: for what all pictures share, such as a band."""

    def copy(self) -> "Draws":
        """An independent copy that goes on with the same numbers."""
        other = Draws(self.seed, self.first, self.count, self.device)
        other.calls = self.calls
        other.shared.set_state(self.shared.get_state())
        return other

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `(count, *shape)`, float32."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self._each()])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) `(count, *shape)`, float32."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self._each()])

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high) `(count, *shape)`, int64."""
        return torch.stack([torch.randint(high, shape, generator=g, device=self.device) for g in self._each()])

    def _each(self) -> Any:
        self.calls += 1
        for k in range(self.first, self.first + self.count):
            yield self._generator.manual_seed(_mix(self.seed, self.calls, k + 1))


class Trainable(nn.Module, ABC):
    """A flow with its entropy model, as `eocodec.flow.training.Run` uses it. Nothing else of a model is used there.

    Pictures `x (B, 3, H, W)` and steps Δ `(B,)` are in units of the range 0 to 1. `likelihood` and `rate_distortion`
    are called under bfloat16 autocast where the run uses it; a model turns it off around what needs float32, with
    `torch.autocast(..., enabled=False)`. What a method learns besides parameters lives in registered buffers.

    Arguments:
        config: frozen dataclass of the model's sizes, plain values only; stored in every checkpoint.

    Attributes:
        config: as given.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def prepare(self, pictures: Tensor, generator: torch.Generator) -> None:
        """Start from data; called once, on the CPU, before a new run on aligned pictures (not on random crops).

        Arguments:
            pictures: all training pictures `(N, 3, S, S)`, uint8.
            generator: the only source of random numbers.
        """

    def start_from(self, config: Any, weights: dict[str, Tensor]) -> list[str] | None:
        """Take the weights of a checkpoint as the starting point of a new run.

        Arguments:
            config: sizes of the checkpoint's model.
            weights: its state.

        Returns:
            Names of the nets that both have and that begin anew, since sizes differ; None if the model is another one,
            and then nothing has changed.
        """
        if config != self.config:
            return None
        self.load_state_dict(weights)
        return []

    @abstractmethod
    def likelihood(self, x: Tensor, step: Tensor, stage: Stage, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss NLL + λ·I in nats per dimension, the mean over the pictures, and detached scalars for the log.

        Arguments:
            x: pictures with the stage's noise already added (nothing is left to do about `stage.noise`).
            step: Δ of each picture, for models whose layers depend on it.
            stage: for `correlation` (λ), `quantised` and `dead_zone`.
            draws: the only source of random numbers: `draws.shared` for what the batch shares, else one per picture.

        Returns:
            The loss, a scalar with gradient, and figures that are means over the pictures: by convention at least
            `bits_per_dim` (of 8-bit levels) and `total_correlation` (nats per dimension).
        """

    @abstractmethod
    def rate_distortion(
        self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode what is coded: pictures and bits, with straight-through gradients.

        Arguments:
            x: pictures.
            steps: how finely each picture is coded; models that cannot be tuned use Δ alone.
            dead_zone: weight of the rate in the rounding decision, squared steps per bit.
            quantised: round the entropy model as the exported graphs do.

        Returns:
            Pictures `(B, 3, H, W)`, not clamped; bits `(B,)`; and what the inverse flow alone makes of the decoded
            latents, which `Stage.anchor` holds near the picture (the pictures themselves if nothing refines them).
        """

    def refinement(self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`rate_distortion`, with gradients for the refinement of the decoded picture alone.

        Raises:
            EocodecError: the model has no such objective.
        """
        raise EocodecError("this kind of model has no objective for its refinement alone")

    def entropy(self, x: Tensor, steps: Steps, dead_zone: float, quantised: bool) -> tuple[Tensor, Tensor]:
        """Bits of each picture and the error of its latents in squared steps, both `(B,)`; only entropy nets learn.

        Arguments:
            x, steps, dead_zone, quantised: as for :meth:`rate_distortion`.

        Raises:
            EocodecError: the model has no such objective.
        """
        raise EocodecError("this kind of model has no objective for its entropy nets alone")

    def embedded_stream(self, x: Tensor, step: Tensor, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of the objective "embedded"; for models without such a stream an error.

        Raises:
            EocodecError: the model has no embedded stream.
        """
        raise EocodecError("this kind of model has no embedded stream")

    def noisy(self, x: Tensor, stage: Stage, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures with noise of up to `stage.noise` levels, for the objectives "denoising" and "noise-level".

        Returns:
            Clean pictures, noisy ones, and the standard deviation of the noise as the model's nets take it.

        Raises:
            EocodecError: the model has no nets for it.
        """
        raise EocodecError("this kind of model has no denoising nets")

    def denoising(self, clean: Tensor, noisy: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of the objective "denoising", of what :meth:`noisy` gave.

        Raises:
            EocodecError: the model has no nets for it.
        """
        raise EocodecError("this kind of model has no denoising nets")

    def noise_level(self, clean: Tensor, noisy: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of the objective "noise-level", of what :meth:`noisy` gave.

        Raises:
            EocodecError: the model has no nets for it.
        """
        raise EocodecError("this kind of model has no denoising nets")

    def adapt(self, x: Tensor, turn: int) -> None:
        """Update measured buffers, such as the gains; called now and then, without gradients and in float32.

        Arguments:
            x: the first pictures of the batch (up to 16), the same ones in all processes.
            turn: 1, 2, 3, ...: counts the calls.
        """

    @abstractmethod
    def usable(self, height: int, width: int) -> tuple[int, int]:
        """The largest height and width, at most those given, of a picture that the model takes.

        Raises:
            EocodecError: there is none.
        """


def _mix(seed: int, call: int, place: int) -> int:
    """A seed of 32 bits (what the CPU generator uses) from three numbers: SplitMix64 over each in turn."""
    state = 0
    for value in (seed, call, place):
        state = (state ^ value) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & 0xFFFFFFFF
