"""Paths in the latents of a subject that stays as it is, such as the core of `face64`, learnt from known operations.

In: pictures `(n, C, S, S)`, a subject's core. Each operation is applied to the pictures by 1 … T steps, the results are
encoded, and a mover learns to carry the latents of the picture along; the decoder is not needed for that. Since the
columns of an entropy-ordered flow's Jacobian are nearly orthogonal with norms that vary little, the squared distance of
latents in the units of the flow stands for that of pictures.

References:
    Wei, Huang, Duan, Song & Du, *Navigating chemical space with latent flows* (ChemFlow), NeurIPS 2024: flows in the
    latent space of a frozen decoder.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from eocodec.lab.paths.movers import Mover
from eocodec.lab.subjects.divergence import check_loss
from eocodec.lab.subjects.subject import Core, Float32, Floats

__all__ = ["OPERATIONS", "FrozenError", "carried", "frozen_errors", "learn_frozen"]

BATCH = 64


def _light(x: Tensor, t: float) -> Tensor:
    return x * 1.12**t


def _tint(x: Tensor, t: float) -> Tensor:
    return x + 0.04 * t * torch.tensor([1.0, 0.0, -1.0])[:, None, None]


def _side_light(x: Tensor, t: float) -> Tensor:
    ramp = torch.linspace(-1, 1, x.shape[-1])
    return x * (1 + 0.12 * t * ramp)


def _warp(x: Tensor, angle: float, away: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[cos, sin, -away], [-sin, cos, 0.0]]).expand(len(x), 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "light": _light,
    "tint": _tint,
    "side light": _side_light,
    "turn": lambda x, t: _warp(x, math.radians(4) * t, 0.0),
    "shift": lambda x, t: _warp(x, 0.0, t * 2.0 / x.shape[-1]),
}
"""Pictures and a number of steps to pictures: brighter by 12 %, redder, lit from the right, turned, moved a pixel."""


def carried(core: Core, x: Float32, names: tuple[str, ...], steps: int) -> tuple[Floats, Floats]:
    """Latents of pictures `(n, d)`, and of every operation after every step `(K, T, n, d)`."""
    pictures = torch.from_numpy(x)
    targets = [
        [core.encode(OPERATIONS[name](pictures, float(t)).numpy()).mean for t in range(1, steps + 1)] for name in names
    ]
    return core.encode(x).mean, np.array(targets)


def learn_frozen(
    start: Floats,
    targets: Floats,
    scale: Floats,
    mover: Callable[[int, int], Mover],
    iterations: int = 1500,
    rate: float = 3e-3,
    seed: int = 0,
) -> Mover:
    """A mover that carries latents as the operations did.

    Arguments:
        start: `(n, d)`.
        targets: `(K, T, n, d)`.
        scale: deviation of the latents in the units of the subject `(d,)`, for the distance.
        mover: makes the mover from d and K.
        iterations, rate: of Adam, with a cosine to zero.
        seed: of weights and batches.

    Raises:
        EocodecError: the training diverges.
    """
    count, steps = targets.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mover(start.shape[1], count)
    random = torch.Generator().manual_seed(seed)
    z0, ends = (torch.from_numpy(a.astype(np.float32)) for a in (start, targets))
    weight = torch.from_numpy((np.square(scale) / np.square(scale).mean()).astype(np.float32))
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    for _ in range(iterations):
        k = int(torch.randint(count, (), generator=random))
        index = torch.randint(len(z0), (BATCH,), generator=random)
        path, loss = model.travel(k, z0[index], torch.zeros(BATCH), steps)
        for t, z in enumerate(path):
            loss = loss + (weight * (z - ends[k, t, index]).square()).sum(1).mean()
        check_loss(loss, "the paths")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class FrozenError:
    """How well a mover follows an operation on pictures it has not seen; means of `Σ_t ‖·‖₁` over pixels and channels.

    Arguments:
        name: of the operation.
        error: of the decoded path.
        standing_still: of the decoded picture itself.
        coding: of the targets, encoded and decoded by the core: what no path in it can beat by much.
        plausible: share of the pictures whose latents after the last step are no further out than 99 % of the pictures
            that were not moved.
    """

    name: str
    error: float
    standing_still: float
    coding: float
    plausible: float

    @property
    def relative(self) -> float:
        """1 is standing still; below what coding costs it cannot fall."""
        return self.error / self.standing_still


def frozen_errors(core: Core, mover: Mover, x: Float32, names: tuple[str, ...], steps: int) -> list[FrozenError]:
    """Errors on held-out pictures `(n, C, S, S)`; all are decoded by the core, which leaves detail out.

    Arguments:
        core: the latents that are moved.
        mover: what `learn_frozen` gave.
        x: held-out pictures.
        names: of the operations, in the order of the mover.
        steps: T.
    """
    start, targets = carried(core, x, names, steps)
    still = core.decode(start)
    limit = float(np.quantile(np.square(start).sum(1), 0.99))
    out = []
    for k, name in enumerate(names):
        sums = np.zeros(3)
        path = [z.double().numpy() for z in mover.path(k, torch.from_numpy(start.astype(np.float32)), steps)]
        for t, z in enumerate(path):
            true = OPERATIONS[name](torch.from_numpy(x), float(t + 1)).numpy()
            guesses = (core.decode(z), still, core.decode(targets[k, t]))
            sums += [_distance(guess, true) for guess in guesses]
        inside = float(np.mean(np.square(path[-1]).sum(1) <= limit))
        out.append(FrozenError(name, float(sums[0]), float(sums[1]), float(sums[2]), inside))
    return out


def _distance(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    return float(np.abs(a - b).reshape(len(a), -1).sum(1).mean())
