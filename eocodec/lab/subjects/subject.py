"""What the measures ask of a subject, and how torch models and parts of subjects give it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eocodec.lab.measures.manifold import grams

__all__ = ["Core", "Posterior", "Subject", "TorchSubject"]

BATCH = 256

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """Latents of samples.

    Arguments:
        mean: `(n, K)`.
        log_variance: `(n, K)`, or None for a subject that maps without noise.
        correlation: of the posterior's noise `(K, K)`, or None for a diagonal posterior.
    """

    mean: Floats
    log_variance: Floats | None = None
    correlation: Floats | None = None

    @property
    def kl(self) -> Floats:
        """Mean KL divergence of every latent's marginal to the prior `(K,)`, nats; of the mean's spread without noise.

        Without posterior noise it is ½ log(1 + Var μ), the information of a Gaussian latent in unit noise.
        """
        if self.log_variance is None:
            return np.asarray(0.5 * np.log1p(self.mean.var(0)))
        v = self.log_variance
        return np.asarray(0.5 * (np.square(self.mean) + np.exp(v) - v - 1).mean(0))

    def sample(self, seed: int) -> Floats:
        """One draw for every sample `(n, K)`."""
        if self.log_variance is None:
            return self.mean
        noise = np.random.default_rng(seed).standard_normal(self.mean.shape)
        if self.correlation is not None:
            noise = noise @ np.linalg.cholesky(self.correlation).T
        return np.asarray(self.mean + np.exp(0.5 * self.log_variance) * noise)


class Subject(ABC):
    """Anything with encode, decode and the prior N(0, 1) for every latent.

    Attributes:
        name: in reports.
        latents: K.
        noise: deviation of the noise on x that the subject assumes, in units of x.
        standard: whether the latents have the prior's scale already; if not, parts of the subject are standardised.
    """

    name: str
    latents: int
    noise: float
    standard: bool = True

    @abstractmethod
    def encode(self, x: Float32) -> Posterior:
        """Latents of samples `(n, *shape)`."""

    @abstractmethod
    def decode(self, z: Floats) -> Float32:
        """Samples `(n, *shape)` of latents `(n, K)`."""

    @abstractmethod
    def jvp(self, z: Floats, v: Floats) -> Floats:
        """`J(z) v` of the decoder, flattened `(n, p)`, at latents and along directions `(n, K)`."""

    def importance(self, x: Float32) -> Floats:
        """What latents are ordered by, `(K,)`, the largest first: mean KL, or explained entropy where it is known."""
        return self.encode(x).kl

    def jacobians(self, z: Floats) -> Floats:
        """Jacobians of the decoder `(n, p, K)`, by K forward-mode products."""
        columns = []
        for k in range(self.latents):
            direction = np.zeros_like(z)
            direction[:, k] = 1.0
            columns.append(self.jvp(z, direction))
        return np.stack(columns, 2)

    def grams(self, z: Floats, batch: int = 16) -> Floats:
        """`JᵀJ` at latents `(n, K)`, `(n, K, K)`, in double precision."""
        return np.concatenate([grams(self.jacobians(z[k : k + batch])) for k in range(0, len(z), batch)])


class TorchSubject(Subject):
    """A subject whose maps are torch functions of batches.

    Arguments:
        name: in reports.
        latents: K.
        noise: see `Subject`.
        dtype: in which the maps run.
    """

    def __init__(self, name: str, latents: int, noise: float, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.latents, self.noise, self.dtype = name, latents, noise, dtype

    @abstractmethod
    def push(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Means and log-variances (or None) `(B, K)` of samples."""

    @abstractmethod
    def pull(self, z: Tensor) -> Tensor:
        """Samples of latents `(B, K)`."""

    correlation: Floats | None = None

    def _tensor(self, x: npt.NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)

    @torch.no_grad()
    def encode(self, x: Float32) -> Posterior:
        parts = [self.push(self._tensor(x[k : k + BATCH])) for k in range(0, len(x), BATCH)]
        mean = torch.cat([m for m, _ in parts]).double().numpy()
        spread = [v for _, v in parts if v is not None]
        return Posterior(mean, torch.cat(spread).double().numpy() if spread else None, self.correlation)

    @torch.no_grad()
    def decode(self, z: Floats) -> Float32:
        parts = [self.pull(self._tensor(z[k : k + BATCH])) for k in range(0, len(z), BATCH)]
        return torch.cat(parts).float().numpy()

    @torch.no_grad()
    def jvp(self, z: Floats, v: Floats) -> Floats:
        out = torch.func.jvp(self.pull, (self._tensor(z),), (self._tensor(v),))[1]
        return out.flatten(1).double().numpy()

    def encoder_rows(self, x: Float32, latent: int) -> Floats:
        """Row F_i of the encoder's Jacobian at samples, flattened `(n, p)`, by one reverse-mode product."""
        given = self._tensor(x).requires_grad_()
        mean, _ = self.push(given)
        (row,) = torch.autograd.grad(mean[:, latent].sum(), given)
        return row.flatten(1).double().numpy()


class Core(Subject):
    """Some latents of a subject, each scaled to unit deviation; the other latents stay at their means.

    Arguments:
        whole: the subject.
        order: which latents, first to last.
        mean, scale: of all the whole's latents, `(K,)`, over the samples that it is measured on.

    Example:
        >>> from eocodec.lab.subjects.linear import PrincipalComponents
        >>> x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
        >>> core = Core.top(PrincipalComponents.fit(x, 5), x, 3)
        >>> core.encode(x).mean.shape, core.decode(np.zeros((2, 3))).shape
        ((50, 3), (2, 6))
    """

    def __init__(self, whole: Subject, order: npt.NDArray[np.intp], mean: Floats, scale: Floats) -> None:
        self.whole, self.order = whole, order
        self.name, self.latents, self.noise = whole.name, len(order), whole.noise
        self.mean, self.scale = mean, np.where(scale > 0, scale, 1.0)

    @staticmethod
    def top(whole: Subject, x: Float32, latents: int) -> "Core":
        """The `latents` latents that matter most on samples `(n, *shape)`, which also give means and deviations."""
        order = np.argsort(-whole.importance(x), kind="stable")[:latents]
        if whole.standard:  # dead latents of a variational posterior are to stay small
            return Core(whole, order, np.zeros(whole.latents), np.ones(whole.latents))
        mean = whole.encode(x).mean
        return Core(whole, order, mean.mean(0), mean.std(0))

    def encode(self, x: Float32) -> Posterior:
        found = self.whole.encode(x)
        k = self.order
        spread = None if found.log_variance is None else found.log_variance[:, k] - 2 * np.log(self.scale[k])
        correlation = None if found.correlation is None else found.correlation[np.ix_(k, k)]
        return Posterior((found.mean[:, k] - self.mean[k]) / self.scale[k], spread, correlation)

    def _whole(self, z: Floats, start: Floats) -> Floats:
        full = np.tile(start, (len(z), 1))
        full[:, self.order] += z * self.scale[self.order]
        return full

    def decode(self, z: Floats) -> Float32:
        return self.whole.decode(self._whole(z, self.mean))

    def jvp(self, z: Floats, v: Floats) -> Floats:
        return self.whole.jvp(self._whole(z, self.mean), self._whole(v, np.zeros_like(self.mean)))
