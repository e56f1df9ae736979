"""The loss of one part of a batch: what is drawn for it, the objective, and its optional compilation.

In: pictures and the iteration's seed. Out: the loss and its figures. The part may be the whole batch, the share of one
process or a micro-batch of that: the mean of the parts' losses is the batch's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eocodec.flow.context import Steps
from eocodec.flow.eye import eye_error
from eocodec.flow.trainable import Draws, Stage, Trainable

__all__ = ["RATE_BINS", "BatchLoss", "Drawn", "compiled", "rate_bin"]


OFFSET_CELL = 32  # pixels, the edge of a cell with a step of its own
LARGEST_OFFSET = 1.5  # octaves by which the steps of cells vary in training
EYE_UNIT = 2e-4  # mean squared error (range 0 to 1) that goes with one unit of `eye_error` in photographs
RATE_BINS = 30  # bins of log2 Δ, three an octave, in which the running loss is kept, to weigh all rates alike


def rate_bin(step: Tensor) -> Tensor:
    """Bin of a step, int64."""
    return (3 * torch.log2(step * 255.0)).round().long().clamp(0, RATE_BINS - 1)


class BatchLoss(nn.Module):
    """Draws noise and steps for some pictures of a batch and evaluates the stage's objective.

    Arguments:
        model: to be trained.
        autocast: compute in bfloat16 where that is enough.
        compile: compile the model's objectives with `torch.compile`, if that works here.
        report: called with one sentence if it does not.
    """

    def __init__(self, model: Trainable, autocast: bool, compile: bool, report: Callable[[str], None]) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast
        self.objectives: dict[str, Callable[..., Any]] = {
            "likelihood": model.likelihood,
            "rate-distortion": model.rate_distortion,
            "entropy": model.entropy,
            "refinement": model.refinement,
            "embedded": model.embedded_stream,
            "denoising": model.denoising,
            "noise-level": model.noise_level,
        }
        if compile:
            state = _Compiler(report)
            self.objectives = {k: compiled(f, state) for k, f in self.objectives.items()}

    def forward(
        self, stage: Stage, x: Tensor, expected: Tensor, seed: int, first: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Evaluate pictures `x (n, 3, H, W)`, the `first`-th of the batch and those after it.

        Arguments:
            stage: with the objective.
            x: pictures in [0, 1].
            expected: `(RATE_BINS,)` running mean of R + D / (w Δ²), zero where there is none yet.
            seed: of the iteration.
            first: place of x[0] in the batch.

        Returns:
            Loss; figures, means over x; and `(2, n)`, the steps and R + D / (w Δ²) of each picture (zero if the
            objective is the likelihood).
        """
        draws = Draws(seed, first, len(x), x.device)
        if stage.objective != "likelihood":
            return self.evaluate(stage, self.drawn(stage, x, draws), expected)
        step = _drawn_step(stage, draws)
        if stage.noise:
            x = x + draws.normal(*x.shape[1:]) * (stage.noise / 255.0)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            loss, figures = self.objectives["likelihood"](x, step, stage, draws)
        return loss, figures, torch.stack([step, torch.zeros_like(step)])

    def drawn(self, stage: Stage, x: Tensor, draws: Draws) -> "Drawn":
        """All that is drawn for pictures `x (n, 3, H, W)`, whatever the objective but the likelihood."""
        step = _drawn_step(stage, draws)
        if stage.objective == "embedded":
            return Drawn(x, x, step)
        if stage.objective in ("denoising", "noise-level"):
            with torch.autocast(x.device.type, enabled=False):
                clean, noisy, noise = self.model.noisy(x, stage, draws)
            return Drawn(clean, noisy, step, noise=noise)
        given = x
        if stage.noise:
            level = (3 * draws.uniform() - 2).clamp(min=0) * (stage.noise / 255.0)
            given = x + draws.normal(*x.shape[1:]) * level[:, None, None, None]
        steps = drawn_steps(step, stage, draws, (x.shape[2], x.shape[3]))
        return Drawn(x, given, step, steps.tune, steps.offset)

    def evaluate(self, stage: Stage, drawn: "Drawn", expected: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """As :meth:`forward`, with nothing left to be drawn."""
        if stage.objective in ("embedded", "denoising", "noise-level"):
            objective, step = self.objectives[stage.objective], drawn.step
            with torch.autocast(step.device.type, torch.bfloat16, enabled=self.autocast):
                if stage.objective == "embedded":
                    loss, figures = objective(drawn.x, step, stage)
                else:
                    loss, figures = objective(drawn.x, drawn.given, drawn.noise)
            return loss, figures, torch.stack([step, torch.zeros_like(step)])
        x, given, step = drawn.x, drawn.given, drawn.step
        steps = Steps(step, drawn.tune, drawn.offset)
        objective = self.objectives[stage.objective]
        if stage.objective == "entropy":
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
                bits, error = (v / x[0].numel() for v in objective(given, steps, stage.dead_zone, stage.quantised))
            each = bits + error / stage.weight
            figures = {"bits_per_pixel": 3 * bits, "squared_steps": error, "lagrangian": each}
            return _weighed(each, each, figures, step, expected)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            picture, bits, plain = objective(given, steps, stage.dead_zone, stage.quantised)
        picture = picture.float()
        squared = distortion = (picture - x).square().mean((1, 2, 3))
        rate = bits / x[0].numel()
        figures = {"bits_per_pixel": 3 * rate, "mse": squared}
        if stage.eye:
            share = stage.eye * (torch.ones_like(step) if steps.tune is None else steps.tune)
            seen = eye_error(x, picture.clamp(0, 1) + 0.1 * (picture - picture.clamp(0, 1)))
            distortion = (1 - share) * squared + share * EYE_UNIT * seen
            figures["eye"] = seen
        each = rate + distortion / (stage.weight * step.square())
        figures["lagrangian"] = each
        wanted = each
        if stage.anchor:
            flow_alone = (plain.float() - x).square().mean((1, 2, 3))
            wanted = each + stage.anchor * flow_alone / (stage.weight * step.square())
            figures["mse_flow"] = flow_alone
        return _weighed(wanted, each, figures, step, expected)


@dataclass
class Drawn:
    """Pictures `x` and what the model is given for them, both `(n, 3, H, W)`; steps as in `Steps`; the noise's level.

    `noise` is what `Trainable.noisy` says of it.
    """

    x: Tensor
    given: Tensor
    step: Tensor
    tune: Tensor | None = None
    offset: Tensor | None = None
    noise: Tensor | None = None


def _drawn_step(stage: Stage, draws: Draws) -> Tensor:
    low, high = (math.log(s / 255.0) for s in stage.step)
    return torch.exp(low + (high - low) * draws.uniform())


def drawn_steps(step: Tensor, stage: Stage, draws: Draws, size: tuple[int, int]) -> Steps:
    """Steps as a stage sets them: some pictures tuned for the eye, some with steps that vary over the picture."""
    tune = offset = None
    if stage.tuned:
        chosen, degree = draws.uniform() < stage.tuned, (2 * draws.uniform()).clamp(max=1)
        tune = torch.where(chosen, degree, torch.zeros_like(degree))
    if stage.varied:
        cells = draws.normal(1, *(n // OFFSET_CELL for n in size)) * (LARGEST_OFFSET / 3)
        cells = cells.clamp(-LARGEST_OFFSET, LARGEST_OFFSET)
        offset = torch.where((draws.uniform() < stage.varied)[:, None, None, None], cells, torch.zeros_like(cells))
    return Steps(step, tune, offset)


def _weighed(
    wanted: Tensor, each: Tensor, figures: dict[str, Tensor], step: Tensor, expected: Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The mean of what is `wanted (n,)` to be small, every rate weighing alike; figures; steps and Lagrangians."""
    usual = expected[rate_bin(step)]
    usual = torch.where(usual > 0, usual, each.detach()).clamp(min=0.01)
    means = {k: v.detach().mean() for k, v in figures.items()}
    return (wanted / usual).mean(), means, torch.stack([step, each.detach()])


@dataclass
class _Compiler:
    """Whether compiling worked so far, and whom to tell when it does not."""

    report: Callable[[str], None]
    works: bool = True


def compiled(function: Callable[..., Any], compiler: _Compiler) -> Callable[..., Any]:
    """`function` compiled by `torch.compile`; once that fails it and its siblings run as they are, after one message.

    A function that draws gets fresh :class:`Draws` for the second try, so the fallback computes what an uncompiled run
    would.
    """
    from torch._dynamo.exc import TorchDynamoException

    fast = torch.compile(function)

    def call(*arguments: Any) -> Any:
        if compiler.works:
            try:
                return fast(*(_fresh(a) for a in arguments))
            except TorchDynamoException as e:
                compiler.works = False
                reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
                compiler.report(f"torch.compile does not work here, training goes on without it: {reason[:200]}")
        return function(*arguments)

    return call


def _fresh(argument: Any) -> Any:
    return argument.copy() if isinstance(argument, Draws) else argument
