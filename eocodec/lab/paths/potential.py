"""Potentials, their Hamilton–Jacobi residual, and one step along their gradient with its exact log-determinant.

A path of transformation k follows `z_t = z_{t−1} + ∇u(z_{t−1}, t)`. Optimal transport requires the generalised
Hamilton–Jacobi equation with a learned force that is not positive,

    u_t + ½ ‖∇u‖² = −f(z, t)²,

where without f all paths would be straight, and a path that starts at rest would stay there. ‖·‖² is the sum over
dimensions. A density follows by `log q(z_t) = log q(z_{t−1}) − log |det(1 + Hess u(z_{t−1}, t))|`.

A gradient has no curl: at one time, closed loops in z cannot be represented; that u depends on t relieves this.

References:
    Song, Keller, Sebe & Welling, *Flow factorized representation learning*, NeurIPS 2023.
    Wei, Huang, Duan, Song & Du, *Navigating chemical space with latent flows* (ChemFlow), NeurIPS 2024.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NetPotential", "Potential", "log_diffused", "residual", "step"]

FREQUENCIES = 8


class Potential(nn.Module, ABC):
    """A function u of latents and time; derivatives by automatic differentiation unless a class knows better."""

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """u of latents `(B, d)` at times `(B,)`, `(B,)`; samples independent of each other."""

    def _single(self, z: Tensor, t: Tensor) -> Tensor:
        return self(z[None], t[None])[0]

    def gradient(self, z: Tensor, t: Tensor) -> Tensor:
        """∇u `(B, d)`."""
        return torch.func.vmap(torch.func.grad(self._single))(z, t)

    def hessian(self, z: Tensor, t: Tensor) -> Tensor:
        """Second derivatives in z `(B, d, d)`."""
        return torch.func.vmap(torch.func.hessian(self._single))(z, t)

    def time_derivative(self, z: Tensor, t: Tensor) -> Tensor:
        """u_t `(B,)`."""
        return torch.func.vmap(torch.func.grad(self._single, argnums=1))(z, t)


class NetPotential(Potential):
    """`u = w · tanh(A (tanh(W z) + e(t)) + b)` with a sinusoidal embedding e of time; derivatives in closed form.

    Arguments:
        dim: d.
        width: of both hidden layers.

    Example:
        >>> potential = NetPotential(3, 8)
        >>> z, t = torch.randn(5, 3), torch.ones(5)
        >>> bool(torch.allclose(potential.gradient(z, t), Potential.gradient(potential, z, t), atol=1e-5))
        True
    """

    frequencies: Tensor

    def __init__(self, dim: int, width: int = 48) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, width, bias=False)
        self.outer = nn.Linear(width, width)
        self.readout = nn.Linear(width, 1, bias=False)
        self.register_buffer("frequencies", math.pi * 2.0 ** -torch.arange(FREQUENCIES, dtype=torch.float32))
        self.first, self.second = nn.Linear(2 * FREQUENCIES, width), nn.Linear(width, width)

    def time(self, t: Tensor) -> Tensor:
        """e of times `(B,)`, `(B, width)`."""
        angle = t[:, None] * self.frequencies
        return self.second(functional.gelu(self.first(torch.cat([angle.sin(), angle.cos()], 1))))

    def _speed(self, t: Tensor) -> Tensor:
        """de/dt, `(B, width)`; gelu(x) is x Φ(x), and its derivative Φ(x) + x φ(x)."""
        angle = t[:, None] * self.frequencies
        x = self.first(torch.cat([angle.sin(), angle.cos()], 1))
        turning = torch.cat([angle.cos() * self.frequencies, -angle.sin() * self.frequencies], 1)
        slope = torch.special.ndtr(x) + x * torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
        return (slope * (turning @ self.first.weight.mT)) @ self.second.weight.mT

    def _layers(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.tanh(self.inner(z))
        return low, torch.tanh(self.outer(low + self.time(t)))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.readout(self._layers(z, t)[1])[:, 0]

    def _to_low(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """du/d(low + e) and the slope of the inner tanh, `(B, width)` each."""
        return ((1 - high.square()) * self.readout.weight[0]) @ self.outer.weight, 1 - low.square()

    def gradient(self, z: Tensor, t: Tensor) -> Tensor:
        back, slope = self._to_low(*self._layers(z, t))
        return (back * slope) @ self.inner.weight

    def hessian(self, z: Tensor, t: Tensor) -> Tensor:
        low, high = self._layers(z, t)
        back, slope = self._to_low(low, high)
        into = (self.outer.weight * slope[:, None, :]) @ self.inner.weight  # (B, width, d)
        curved = -2 * high * (1 - high.square()) * self.readout.weight[0]
        direct = -2 * low * slope * back
        inner = self.inner.weight
        return (into * curved[:, :, None]).mT @ into + (inner * direct[:, :, None]).mT @ inner

    def time_derivative(self, z: Tensor, t: Tensor) -> Tensor:
        back, _ = self._to_low(*self._layers(z, t))
        return (back * self._speed(t)).sum(1)


def residual(
    potential: Potential, z: Tensor, t: Tensor, force: Potential | None = None, gradient: Tensor | None = None
) -> Tensor:
    """`u_t + ½ ‖∇u‖² + f²` `(B,)` at latents `(B, d)` and times `(B,)`; `gradient`: ∇u where it is known already.

    Example:
        >>> r = residual(NetPotential(3), torch.randn(4, 3), torch.ones(4))
        >>> r.shape
        torch.Size([4])
    """
    gradient = potential.gradient(z, t) if gradient is None else gradient
    value = potential.time_derivative(z, t) + 0.5 * gradient.square().sum(1)
    return value if force is None else value + force(z, t).square()


def step(potential: Potential, z: Tensor, t: Tensor, gradient: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`z + ∇u(z, t)` `(B, d)` and `log |det(1 + Hess u)|` `(B,)`, exact: for d up to some dozens.

    `gradient`: ∇u where it is known already.
    """
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    gradient = potential.gradient(z, t) if gradient is None else gradient
    return z + gradient, torch.linalg.slogdet(eye + potential.hessian(z, t))[1]


def log_diffused(z: Tensor, t: float, diffusion: float) -> Tensor:
    """Log-density `(B,)` of the prior at time t: `N(0, 1)` diffused by `ψ = −D log p` is `N(0, (1 + 2 D t) 1)`."""
    variance = 1 + 2 * diffusion * t
    return -0.5 * (z.square().sum(1) / variance + z.shape[1] * math.log(2 * math.pi * variance))
