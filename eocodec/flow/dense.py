"""Dense flows: invertible maps of vectors `(B, D)`, where any latent may act on all of the signal.

In: vectors `x (B, D)`. Out: latents `z (B, D)` with `log |det ∂f/∂x| (B,)`. Every layer maps by `forward`, back by
`inverse`, and by `push` together with its log-determinant; `DenseFlow` stacks them.

References:
    Schreiber & Van Loan, *A storage-efficient WY representation for products of Householder transformations*, 1989.
    https://doi.org/10.1137/0910005
    Dinh et al., *NICE: non-linear independent components estimation*, 2015. https://arxiv.org/abs/1410.8516
    Dinh et al., *Density estimation using real NVP*, 2017. https://arxiv.org/abs/1605.08803
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from eocodec.flow.modules import ModuleList

__all__ = [
    "AffineCoupling",
    "DenseCoupling",
    "DenseFlow",
    "DenseLayer",
    "Linear",
    "Rotation",
    "Scale",
    "log_normal",
]


def log_normal(z: Tensor) -> Tensor:
    """Log-density of the standard normal prior, latent by latent: `(B, D) -> (B, D)`, in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi))


class DenseLayer(nn.Module, ABC):
    """An invertible map of `(B, D)`; volume preserving unless it overrides `push`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The image `(B, D)` of `x (B, D)`."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The `(B, D)` whose image is `y (B, D)`."""

    def push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image `(B, D)` of `x` and `log |det|` `(B,)` of the map there."""
        return self(x), x.new_zeros(x.shape[0])


class Rotation(DenseLayer):
    """Orthogonal map `y = S Qᵀ x`, Q a product of Householder reflections and S fixed signs.

    `Q = H_1 ⋯ H_r = I − V T Vᵀ` with `T⁻¹ = triu(VᵀV, 1) + diag(VᵀV) / 2` (the compact WY form): two thin products and
    one triangular solve instead of a `D x D` matrix, orthogonal for every V with nonzero columns. Starts at the
    identity; reaches all rotations when `rank >= dim - 1`.

    Arguments:
        dim: D.
        rank: number of reflections r, at most D.

    Example:
        >>> rows = torch.linalg.qr(torch.randn(9, 2))[0].T
        >>> rotation = Rotation.from_basis(rows)
        >>> x = torch.randn(4, 9)
        >>> bool(torch.allclose(rotation(x)[:, :2], x @ rows.T, atol=1e-5))
        True
        >>> bool(torch.allclose(rotation.inverse(rotation(x)), x, atol=1e-5))
        True
    """

    signs: Tensor

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        if not 1 <= rank <= dim:
            raise ValueError(f"A rotation of {dim} dimensions takes 1 to {dim} reflections, not {rank}.")
        self.vectors = nn.Parameter(torch.eye(dim, rank))
        self._frozen: tuple[tuple[int, int], Tensor] | None = None
        # Reflections along the first axes flip these axes; flipping back makes the start the identity.
        self.register_buffer("signs", torch.where(torch.arange(dim) < rank, -1.0, 1.0))

    @classmethod
    def from_basis(cls, rows: Tensor) -> "Rotation":
        """The rotation whose first K outputs are `x @ rows.T`, for orthonormal `rows (K, D)`.

        Reflections are made as in a Householder QR decomposition, with the sign that moves the other axes least: the
        remaining outputs are the input coordinates up to a map of rank K. Raises ValueError when the rows are not
        orthonormal within 1e-3.
        """
        rank, dim = rows.shape
        remaining = rows.detach().cpu().double().T.clone()
        if not torch.allclose(remaining.T @ remaining, torch.eye(rank, dtype=torch.float64), atol=1e-3):
            raise ValueError("The rows of the basis are not orthonormal.")
        vectors = torch.zeros(dim, rank, dtype=torch.float64)
        signs = torch.ones(dim, dtype=torch.float64)
        for k in range(rank):
            v = remaining[k:, k].clone()
            signs[k] = -1.0 if v[0] >= 0 else 1.0
            v[0] -= signs[k] * v.norm()
            v /= v.norm()
            remaining[k:, k + 1 :] -= 2 * torch.outer(v, v @ remaining[k:, k + 1 :])
            vectors[k:, k] = v
        rotation = cls(dim, rank).double()
        with torch.no_grad():
            rotation.vectors.copy_(vectors)
            rotation.signs.copy_(signs)
        return rotation.to(rows)

    def middle(self) -> Tensor:
        """T `(r, r)`; kept from call to call while the reflections are frozen."""
        v = self.vectors
        state = (v.data_ptr(), v._version)
        if self._frozen is not None and not v.requires_grad and self._frozen[0] == state:
            return self._frozen[1]
        gram = v.T @ v
        core = gram.triu(1) + torch.diag(gram.diagonal() / 2)
        inverse = torch.linalg.solve_triangular(core, torch.eye(len(core), dtype=v.dtype, device=v.device), upper=True)
        self._frozen = None if v.requires_grad else (state, inverse)
        return inverse

    def _reflect(self, x: Tensor, transposed: bool) -> Tensor:
        """`x - (V T Vᵀ or V Tᵀ Vᵀ) x`, on rows."""
        t = self.middle()
        return x - x @ self.vectors @ (t if transposed else t.T) @ self.vectors.T

    def forward(self, x: Tensor) -> Tensor:
        return self._reflect(x, transposed=True) * self.signs

    def inverse(self, y: Tensor) -> Tensor:
        return self._reflect(y * self.signs, transposed=False)


class Scale(DenseLayer):
    """Elementwise `y = (x − mean) · exp(log_scale)`; starts at the identity.

    Arguments:
        dim: D.

    Example:
        >>> scale = Scale(3).fit(torch.randn(100, 3) * 5 + 2)
        >>> scale.push(torch.zeros(2, 3))[1].shape
        torch.Size([2])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def fit(self, x: Tensor) -> "Scale":
        """Set mean and scale so that the samples `x (B, D)` come out standardised; returns itself."""
        self.mean.copy_(x.mean(0))
        self.log_scale.copy_(-x.std(0, correction=0).log())
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.log_scale.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() + self.mean

    def push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.log_scale.sum().expand(x.shape[0])


class Linear(DenseLayer):
    """Any invertible affine map, as rotation, scale, rotation (a singular value decomposition); starts at the identity.

    Arguments:
        dim: D.
        rank: reflections in either rotation; D (the default) makes the map general.

    Example:
        >>> layer = Linear(4)
        >>> y, log_det = layer.push(torch.randn(3, 4))
        >>> log_det.tolist()
        [0.0, 0.0, 0.0]
    """

    def __init__(self, dim: int, rank: int | None = None) -> None:
        super().__init__()
        self.first = Rotation(dim, rank or dim)
        self.scale = Scale(dim)
        self.second = Rotation(dim, rank or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.scale(self.first(x)))

    def inverse(self, y: Tensor) -> Tensor:
        return self.first.inverse(self.scale.inverse(self.second.inverse(y)))

    def push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.scale.push(self.first(x))
        return self.second(y), log_det


class DenseCoupling(DenseLayer):
    """Additive coupling `b ← b + net(a)` of the first `split` coordinates a and the others b; starts at the identity.

    Arguments:
        dim: D.
        split: how many coordinates come first.
        width: hidden units of the net.
        flipped: exchange the roles, `a ← a + net(b)`.
        depth: linear layers of the net, at least 2; SiLU in between, the last one starts at zero.

    Example:
        >>> coupling = DenseCoupling(5, 2, 16)
        >>> x = torch.randn(3, 5)
        >>> bool(torch.equal(coupling(x), x))
        True
    """

    outputs_per_coordinate = 1

    def __init__(self, dim: int, split: int, width: int, flipped: bool = False, depth: int = 3) -> None:
        super().__init__()
        self.split = split
        self.flipped = flipped
        given, moved = (dim - split, split) if flipped else (split, dim - split)
        sizes = [given] + [width] * (depth - 1) + [moved * self.outputs_per_coordinate]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.net = nn.Sequential(*layers[:-1])
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates given to the net and those it moves."""
        a, b = x[:, : self.split], x[:, self.split :]
        return (b, a) if self.flipped else (a, b)

    def _join(self, given: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, given) if self.flipped else (given, moved), 1)

    def forward(self, x: Tensor) -> Tensor:
        given, moved = self._parts(x)
        return self._join(given, moved + self.net(given))

    def inverse(self, y: Tensor) -> Tensor:
        given, moved = self._parts(y)
        return self._join(given, moved - self.net(given))


class AffineCoupling(DenseCoupling):
    """Coupling `b ← b · exp(s(a)) + t(a)` with `|s| < 1`; arguments as for `DenseCoupling`.

    Example:
        >>> coupling = AffineCoupling(5, 2, 16, flipped=True)
        >>> y, log_det = coupling.push(torch.randn(3, 5))
        >>> log_det.tolist()
        [0.0, 0.0, 0.0]
    """

    outputs_per_coordinate = 2

    def _log_scale_and_shift(self, given: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.net(given).chunk(2, 1)
        return torch.tanh(log_scale), shift

    def forward(self, x: Tensor) -> Tensor:
        return self.push(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        given, moved = self._parts(y)
        log_scale, shift = self._log_scale_and_shift(given)
        return self._join(given, (moved - shift) / torch.exp(log_scale))

    def push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given, moved = self._parts(x)
        log_scale, shift = self._log_scale_and_shift(given)
        return self._join(given, moved * torch.exp(log_scale) + shift), log_scale.sum(1)


class DenseFlow(nn.Module):
    """A stack of dense layers with a standard normal prior.

    Arguments:
        layers: applied first to last.

    Example:
        >>> flow = DenseFlow([Rotation(6, 6), DenseCoupling(6, 3, 16), AffineCoupling(6, 3, 16), Scale(6)])
        >>> x = torch.randn(5, 6)
        >>> z, log_det = flow(x)
        >>> bool(torch.allclose(flow.inverse(z), x, atol=1e-5))
        True
        >>> flow.nll(z, log_det).shape
        torch.Size([5])
    """

    def __init__(self, layers: Iterable[DenseLayer]) -> None:
        super().__init__()
        self.layers = ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(B, D)` and `log |det ∂f/∂x|` `(B,)` of vectors `(B, D)`."""
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, term = layer.push(x)
            log_det = log_det + term
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Vectors `(B, D)` of latents `(B, D)`."""
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def nll(self, z: Tensor, log_det: Tensor) -> Tensor:
        """`−log p(x)` `(B,)` in nats, from what `forward` returned."""
        return -log_normal(z).sum(1) - log_det
