"""What moves latents along transformations: flows of potentials, and the baselines that they are measured against."""

from abc import ABC, abstractmethod

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
        out, size = [], 0.0
        for t in range(1, steps + 1):
            time = self._time(z, t)
            known = potential.derivatives(z, time, second=density > 0)
            r = residual(potential, z, time, force, known)
            loss = loss + transport * r.square().mean()
            size += float(r.detach().abs().mean()) / steps
            if density > 0:
                z, log_det = step(potential, z, time, known)
                log_density = log_density - log_det
                away = log_density - log_diffused(z, t, self.diffusion)
                loss = loss + density / steps * away.mean()
            else:
                z = z + known.gradient
            out.append(z)
        self.residual = size
        return out, loss
