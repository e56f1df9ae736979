"""The objective of bfVAE, of which the other VAEs are ablations: a weight of zero is a term less.

    L = R + β |KL − C(t)| + γ TC + λ_od Σ_{i≠j} Cov_ij² + λ_d Σ_i (Cov_ii − 1)²

R is the negative log-likelihood, summed over features; KL that of the posterior to the prior; TC the total correlation
`KL(q(z) ‖ Π q(z_j))`; Cov the covariance of the posterior's means, or of its samples. All are means over the batch.

References:
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (the terms as far as known; the union is our reading)
    Kingma & Welling, *Auto-encoding variational Bayes*, 2014. https://arxiv.org/abs/1312.6114
    Higgins et al., *β-VAE*, 2017. https://openreview.net/forum?id=Sy2fzU9gl
    Burgess et al., *Understanding disentangling in β-VAE*, 2018. https://arxiv.org/abs/1804.03599 (capacity)
    Kim & Mnih, *Disentangling by factorising*, 2018. https://arxiv.org/abs/1802.05983 (density ratio)
    Chen et al., *Isolating sources of disentanglement in VAEs*, 2018. https://arxiv.org/abs/1802.04942 (stratified TC)
    Kumar et al., *Variational inference of disentangled latent concepts*, 2018. https://arxiv.org/abs/1711.00848 (Cov)
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "METHODS",
    "Discriminator",
    "Weights",
    "covariance_penalty",
    "equicorrelation",
    "kl_divergence",
    "stratified_total_correlation",
]


@dataclass(frozen=True)
class Weights:
    """Weights of the terms, and how two of them are estimated.

    Arguments:
        kl: β.
        capacity: C after the ramp, nats; 0 leaves β KL.
        ramp: iterations in which C rises from 0.
        total_correlation: γ.
        off_diagonal, diagonal: λ_od and λ_d.
        warm_up: iterations in which β rises from 1, and λ_od and λ_d from 0; 0 has them from the start. Total
            correlation turns latents from mixtures of factors to factors, which is slow while wide posteriors and
            latents without content that are held at variance 1 hide how far from independent they are.
        of_samples: Cov is that of the samples, means' plus mean variance (DIP-VAE II), not that of the means (I).
        estimator: of TC: "stratified" (minibatch stratified sampling), or "density-ratio" (a discriminator).
        correlation: ρ of the posterior's noise between any two latents: 0 in every published method; more violates
            that latents carry their information whatever the others are.
    """

    kl: float = 1.0
    capacity: float = 0.0
    ramp: int = 1000
    total_correlation: float = 0.0
    off_diagonal: float = 0.0
    diagonal: float = 0.0
    warm_up: int = 0
    of_samples: bool = False
    estimator: str = "stratified"
    correlation: float = 0.0

    def warmed(self, iteration: int) -> "Weights":
        """The weights in this iteration of the warm-up, themselves after it."""
        if iteration >= self.warm_up:
            return self
        share = iteration / self.warm_up
        kl = 1 + share * (self.kl - 1)
        return replace(self, kl=kl, off_diagonal=share * self.off_diagonal, diagonal=share * self.diagonal)

    def __post_init__(self) -> None:
        if self.estimator not in ("stratified", "density-ratio"):
            raise ValueError(f"The estimator is stratified or density-ratio, not {self.estimator}.")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"The correlation of the noise is from 0 to less than 1, not {self.correlation}.")


METHODS = {
    "VAE": Weights(),
    "β-VAE": Weights(kl=4.0),
    "annealed VAE": Weights(kl=10.0, capacity=8.0),
    "FactorVAE": Weights(total_correlation=6.0),
    "FactorVAE density ratio": Weights(total_correlation=6.0, estimator="density-ratio"),
    "DIP-VAE I": Weights(off_diagonal=5.0, diagonal=50.0),
    "DIP-VAE II": Weights(off_diagonal=5.0, diagonal=5.0, of_samples=True),
    "β-TCVAE": Weights(total_correlation=5.0),
    "bfVAE": Weights(kl=2.0, total_correlation=6.0, off_diagonal=5.0, diagonal=5.0, warm_up=750),
}


def equicorrelation(latents: int, rho: float) -> Tensor:
    """The matrix `(K, K)` with ones on the diagonal and ρ elsewhere."""
    return torch.full((latents, latents), rho) + (1 - rho) * torch.eye(latents)


def kl_divergence(mean: Tensor, log_variance: Tensor, correlation: Tensor | None = None) -> Tensor:
    """KL of the posterior to the standard normal prior `(B,)`, nats.

    Noise with correlation R (unit diagonal) adds `−½ log det R`.
    """
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
    return kl if correlation is None else kl - 0.5 * torch.logdet(correlation)


def stratified_total_correlation(
    z: Tensor, mean: Tensor, log_variance: Tensor, samples: int, correlation: Tensor | None = None
) -> Tensor:
    """TC of the aggregate posterior from a batch, by minibatch stratified sampling; a scalar, nats.

    `mean_a [log Σ_b w_ab q(z_a | x_b) − Σ_j log Σ_b w_ab q(z_aj | x_b)]` with `w_aa = 1 / N` and
    `w_ab = (N − 1) / (N (B − 1))`. Biased upwards for small batches: for training, not for reports.

    Arguments:
        z: samples of the posterior `(B, K)`.
        mean, log_variance: of the posterior `(B, K)`.
        samples: N, of the training set.
        correlation: of the posterior's noise `(K, K)`; None is independent noise.
    """
    batch = len(z)
    residual = (z[:, None] - mean[None]) * torch.exp(-0.5 * log_variance)[None]
    each = -0.5 * (residual.square() + log_variance[None] + math.log(2 * math.pi))
    if correlation is None:
        joint = each.sum(2)
    else:
        inverse = torch.linalg.inv(correlation) - torch.eye(z.shape[1])
        joint = each.sum(2) - 0.5 * ((residual @ inverse) * residual).sum(2) - 0.5 * torch.logdet(correlation)
    weight = torch.full((batch, batch), (samples - 1) / (samples * max(batch - 1, 1))).fill_diagonal_(1 / samples).log()
    return (torch.logsumexp(joint + weight, 1) - torch.logsumexp(each + weight[:, :, None], 1).sum(1)).mean()


def covariance_penalty(mean: Tensor, log_variance: Tensor, weights: Weights) -> Tensor:
    """`λ_od Σ_{i≠j} Cov_ij² + λ_d Σ_i (Cov_ii − 1)²` of a batch `(B, K)`."""
    centred = mean - mean.mean(0)
    covariance = centred.T @ centred / len(mean)
    if weights.of_samples:
        covariance = covariance + torch.diag(log_variance.exp().mean(0))
    diagonal = covariance.diagonal()
    off = covariance.square().sum() - diagonal.square().sum()
    return weights.off_diagonal * off + weights.diagonal * (diagonal - 1).square().sum()


class Discriminator(nn.Module):
    """Tells samples of q(z) from samples of the product of its marginals; `(B, K) -> (B, 2)` logits.

    Arguments:
        latents: K.
        width: of three hidden layers.
        seed: of its weights and of the permutations, apart from those of the VAE.
    """

    def __init__(self, latents: int, width: int = 128, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = [latents, width, width, width]
            layers: list[nn.Module] = []
            for a, b in pairwise(sizes):
                layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
            self.net = nn.Sequential(*layers, nn.Linear(width, 2))
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)

    def total_correlation(self, z: Tensor) -> Tensor:
        """Density-ratio estimate of TC: mean of logit 0 (joint) less logit 1; may be negative."""
        joint, product = self(z).unbind(1)
        return (joint - product).mean()

    def loss(self, joint: Tensor, independent: Tensor) -> Tensor:
        """Cross-entropy of both kinds, from two independent batches of samples `(B, K)`, detached here."""
        order = torch.rand(independent.shape, generator=self.generator).argsort(0)
        permuted = independent.detach().gather(0, order)
        zeros = torch.zeros(len(joint), dtype=torch.long)
        loss = functional.cross_entropy(self(joint.detach()), zeros)
        return 0.5 * (loss + functional.cross_entropy(self(permuted), torch.ones(len(permuted), dtype=torch.long)))
