"""What moves latents along transformations: flows of potentials, and the baselines that they are measured against."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eocodec.flow.modules import ModuleList
from eocodec.lab.paths.potential import NetPotential, log_diffused, residual, step

__all__ = ["FlowMover", "LinearMover", "Mover", "StaticMover"]


class Mover(nn.Module, ABC):
    """Moves latents `(B, d)` by one step of transformation k; K transformations."""

    @abstractmethod
    def displacement(self, k: int, z: Tensor, t: int) -> Tensor:
        """What is added to `z_{t−1}` to give `z_t`, `(B, d)`; t from 1."""

    def path(self, k: int, z: Tensor, steps: int) -> list[Tensor]:
        """`z_1 … z_steps` from `z_0 (B, d)`."""
        out = []
        for t in range(1, steps + 1):
            z = z + self.displacement(k, z, t)
            out.append(z)
        return out

    def superposed(self, pair: Sequence[int], z: Tensor, steps: int) -> list[Tensor]:
        """As :meth:`path`, of two transformations at once: in every step both displacements are added."""
        out = []
        for t in range(1, steps + 1):
            z = z + sum(self.displacement(k, z, t) for k in pair)
            out.append(z)
        return out

    def travel(self, k: int, z: Tensor, log_density: Tensor, steps: int) -> tuple[list[Tensor], Tensor]:
        """The path, and what training adds to the loss for it: a scalar.

        Arguments:
            k: transformation.
            z: `z_0 (B, d)`.
            log_density: of its posterior, `(B,)`.
            steps: T.
        """
        return self.path(k, z, steps), z.new_zeros(())


class StaticMover(Mover):
    """Stands still: what an autoencoder alone makes of a transformation."""

    def displacement(self, k: int, z: Tensor, t: int) -> Tensor:
        return torch.zeros_like(z)


class LinearMover(Mover):
    """One learned direction for each transformation.

    Arguments:
        dim: d.
        count: K.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(0.1 * torch.randn(count, dim))

    def displacement(self, k: int, z: Tensor, t: int) -> Tensor:
        return self.directions[k].expand_as(z)


class FlowMover(Mover):
    """One potential and one force for each transformation.

    Arguments:
        dim: d.
        count: K.
        width: of the nets.
        hamilton_jacobi: weight of the mean squared residual of a step.
        density: weight of `log q(z_t) − log p_t(z_t)`, which is divided by the number of steps.
        at_rest: weight of the initial condition `‖∇u(z, 0)‖² + f(z, 0)²`.
        diffusion: D of the prior p_t.
    """

    def __init__(
        self,
        dim: int,
        count: int,
        width: int = 48,
        hamilton_jacobi: float = 1.0,
        density: float = 1.0,
        at_rest: float = 0.1,
        diffusion: float = 1.0,
    ) -> None:
        super().__init__()
        self.potentials = ModuleList(NetPotential(dim, width) for _ in range(count))
        self.forces = ModuleList(NetPotential(dim, width) for _ in range(count))
        self.weights = (hamilton_jacobi, density, at_rest)
        self.diffusion = diffusion
        self.residual = 0.0
        """Mean |r| over the steps of the last path that was trained on."""

    def _time(self, z: Tensor, t: int) -> Tensor:
        return torch.full((len(z),), float(t), dtype=z.dtype)

    def displacement(self, k: int, z: Tensor, t: int) -> Tensor:
        return self.potentials[k].gradient(z, self._time(z, t))

    def travel(self, k: int, z: Tensor, log_density: Tensor, steps: int) -> tuple[list[Tensor], Tensor]:
        potential, force = self.potentials[k], self.forces[k]
        transport, density, at_rest = self.weights
        start = self._time(z, 0)
        still = potential.gradient(z, start).square().sum(1) + force(z, start).square()
        loss = at_rest * still.mean()
        z0, gradients, out = z, [], []
        for t in range(1, steps + 1):
            gradients.append(self.displacement(k, z, t))
            z = z + gradients[-1]
            out.append(z)
        # Where the path goes is known by now: all that its steps cost is computed for all of them at once.
        places, gradient = torch.cat([z0, *out[:-1]]), torch.cat(gradients)
        time = torch.arange(1.0, steps + 1, dtype=z.dtype).repeat_interleave(len(z0))
        r = residual(potential, places, time, force, gradient)
        loss = loss + transport * steps * r.square().mean()
        if density:
            change = step(potential, places, time, gradient)[1].reshape(steps, -1).cumsum(0)
            away = (
                log_density - change - torch.stack([log_diffused(q, t, self.diffusion) for t, q in enumerate(out, 1)])
            )
            loss = loss + density * away.mean()
        self.residual = float(r.detach().abs().mean())
        return out, loss
