"""Dense entropy-ordered flows of vectors: architecture, training by `NLL + λ I`, and the trained flow as a subject."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eocodec.errors import EocodecError
from eocodec.flow.dense import AffineCoupling, DenseFlow, DenseLayer, Linear, Rotation, Scale, log_normal
from eocodec.flow.objective import dense_total_correlation, explained_entropy
from eocodec.flow.soap import Soap
from eocodec.lab.subjects.divergence import check_loss
from eocodec.lab.subjects.subject import Float32, Floats, TorchSubject

__all__ = ["FlowSubject", "FlowTraining", "components_flow", "linear_flow", "random_flow", "train_flow"]

CLIP = 10.0
IMPORTANCE = 512  # samples at which explained entropies are measured


@dataclass(frozen=True)
class FlowTraining:
    """Sizes and training of a dense flow, with a cosine to zero.

    Arguments:
        iterations, batch: of the optimiser.
        rate: of rotations and scales; `net_rate`: of the couplings' nets.
        pairs: of affine couplings; `width`: hidden units of their nets.
        noise: deviation of white noise that is added to every sample, in units of x.
        clip: largest norm of a gradient.
        start: "random" rotations, or "components": the linear Gaussian model of the samples (see `linear_flow`), which
            whitens them; what is left to learn is how they differ from it.
        optimiser: "adam" or "soap" (`eocodec.flow.soap`).
    """

    iterations: int = 1500
    batch: int = 256
    rate: float = 1e-2
    net_rate: float = 1e-3
    pairs: int = 2
    width: int = 64
    noise: float = 0.0
    clip: float = CLIP
    start: str = "random"
    optimiser: str = "adam"

    def __post_init__(self) -> None:
        if self.start not in ("random", "components"):
            raise ValueError(f"A flow starts random or from components, not {self.start}.")
        if self.optimiser not in ("adam", "soap"):
            raise ValueError(f"The optimiser is adam or soap, not {self.optimiser}.")


def _turned(layer: DenseLayer) -> DenseLayer:
    """The layer itself, with random rotations from torch's global generator."""
    for module in layer.modules():
        if isinstance(module, Rotation):
            nn.init.normal_(module.vectors)
    return layer


def random_flow(dim: int, pairs: int = 2, width: int = 64) -> DenseFlow:
    """Linear layer, pairs of affine couplings with rotations between them, linear layer; all rotations random.

    Arguments:
        dim: D.
        pairs: of couplings.
        width: hidden units of their nets.
    """
    layers: list[DenseLayer] = [_turned(Linear(dim))]
    for k in range(pairs):
        if k:
            layers.append(_turned(Rotation(dim, dim)))
        layers += [AffineCoupling(dim, dim // 2, width, flipped) for flipped in (False, True)]
    return DenseFlow([*layers, _turned(Linear(dim))])


def components_flow(x: Tensor, pairs: int = 2, width: int = 64) -> DenseFlow:
    """The layers of `random_flow`, starting as the linear Gaussian model of samples `(n, D)`.

    Arguments:
        x: samples, their covariance of full rank.
        pairs, width: see `random_flow`; the nets' hidden layers are random.
    """
    dim = x.shape[1]
    whitening = Linear(dim)
    rotation, scale = linear_flow(x).layers
    whitening.first.load_state_dict(rotation.state_dict())
    whitening.scale.load_state_dict(scale.state_dict())
    layers: list[DenseLayer] = [whitening]
    for k in range(pairs):
        if k:
            layers.append(Rotation(dim, dim))
        layers += [AffineCoupling(dim, dim // 2, width, flipped) for flipped in (False, True)]
    return DenseFlow([*layers, Linear(dim)])


def linear_flow(x: Tensor) -> DenseFlow:
    """The linear Gaussian model of samples `(n, D)`: principal components, each with its variance.

    Raises:
        EocodecError: the samples do not vary in all dimensions.
    """
    count, dim = x.shape
    values = torch.linalg.eigvalsh(torch.cov(x.T.double())) if count > dim else torch.zeros(1)
    if not values[0] > values[-1] * dim * torch.finfo(torch.float64).eps:
        raise EocodecError(
            f"a flow that starts from components needs more samples than dimensions, varying in each of them, "
            f"not {count} in {dim}"
        )
    _, axes = torch.linalg.eigh(torch.cov(x.T))
    rotation = Rotation.from_basis(axes.T.flip(0))
    return DenseFlow([rotation, Scale(x.shape[1]).fit(rotation(x).detach())])


def train_flow(
    x: Tensor,
    weight: float,
    training: FlowTraining = FlowTraining(),
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
    name: str = "the flow",
) -> DenseFlow:
    """A flow that minimises `NLL + weight · I` on samples `(n, D)`.

    Arguments:
        x: samples.
        weight: λ.
        training: sizes and lengths.
        seed: of the start, the batches and the columns; runs of a seed see the same batches whatever λ is.
        progress: called with the number of iterations done.
        name: in errors.

    Raises:
        EocodecError: the training diverges.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if training.start == "components":
            flow = components_flow(x, training.pairs, training.width)
        else:
            flow = random_flow(x.shape[1], training.pairs, training.width)
    # Two generators: runs of a seed see the same batches whether or not the objective draws columns.
    batches, columns = (torch.Generator().manual_seed(seed) for _ in range(2))
    nets = [p for layer in flow.layers if isinstance(layer, AffineCoupling) for p in layer.parameters()]
    linear = [p for layer in flow.layers if not isinstance(layer, AffineCoupling) for p in layer.parameters()]
    groups = [{"params": linear, "lr": training.rate}, {"params": nets, "lr": training.net_rate}]
    optimiser = Soap(groups) if training.optimiser == "soap" else torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.iterations)
    for k in range(training.iterations):
        batch = x[torch.randint(len(x), (training.batch,), generator=batches)]
        if training.noise:
            batch = batch + training.noise * torch.randn(batch.shape, generator=batches)
        z, log_det = flow(batch)
        loss = flow.nll(z, log_det).mean()
        if weight:
            loss = loss + weight * dense_total_correlation(flow.inverse, z, columns, log_det).mean()
        check_loss(loss, name)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(flow.parameters(), training.clip)
        optimiser.step()
        schedule.step()
        progress(k + 1)
    return flow


class FlowSubject(TorchSubject):
    """A dense flow, perhaps of the first principal components of samples.

    Arguments:
        name: in reports.
        flow: of vectors `(B, D)` with a standard normal prior.
        shape: of a sample, `(D,)` if `basis` is None.
        noise: deviation of the noise on x.
        basis: mean `(p,)`, orthonormal rows `(D, p)` and the unit of the vectors: `v = rows · (x − mean) / unit`.
        dtype: float64 makes identities exact to rounding.

    Example:
        >>> subject = FlowSubject("flow", random_flow(4), (4,), 0.1)
        >>> subject.encode(np.zeros((3, 4), np.float32)).mean.shape
        (3, 4)
    """

    def __init__(
        self,
        name: str,
        flow: DenseFlow,
        shape: tuple[int, ...],
        noise: float,
        basis: tuple[Floats, Floats, float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        dims = len(basis[1]) if basis else math.prod(shape)
        super().__init__(name, dims, noise, dtype)
        self.flow, self.shape = flow.to(dtype).eval().requires_grad_(False), shape
        self.basis: tuple[Tensor, Tensor, float] | None = None
        if basis:
            mean, rows = (torch.from_numpy(np.ascontiguousarray(a)).to(dtype) for a in basis[:2])
            self.basis = mean, rows, basis[2]

    def vectors(self, x: Tensor) -> Tensor:
        """What the flow sees of samples, `(B, D)`."""
        x = x.flatten(1)
        if self.basis is None:
            return x
        mean, rows, unit = self.basis
        return (x - mean) @ rows.T / unit

    def push(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.flow(self.vectors(x))[0], None

    def pull(self, z: Tensor) -> Tensor:
        v = self.flow.inverse(z)
        if self.basis is not None:
            mean, rows, unit = self.basis
            v = mean + unit * (v @ rows)
        return v.reshape(-1, *self.shape)

    @torch.no_grad()
    def importance(self, x: Float32) -> Floats:
        """Explained entropies, `(D,)`."""
        z = self.flow(self.vectors(self._tensor(x[:IMPORTANCE])))[0]
        return explained_entropy(self.flow.inverse, z, log_normal(z)).double().numpy()

    @torch.no_grad()
    def nll(self, x: Float32) -> float:
        """Mean negative log-likelihood of what the flow sees of samples, nats."""
        z, log_det = self.flow(self.vectors(self._tensor(x)))
        return float(self.flow.nll(z, log_det).mean())
