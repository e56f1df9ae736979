"""Manifold entropic metrics from Jacobians of the decoder: spectrum, total correlation, pairwise information, c_i.

In: Gram matrices `JᵀJ (n, K, K)` of Jacobians `J (p, K)` at samples, whose column k is `∂g/∂z_k`, and the level σ of
white noise on x. Out: nats.

The local Gaussian posterior of z given x = g(z) + σε has precision `P = 1 + JᵀJ / σ²` and covariance `S = P⁻¹`:

    I(z_i; x | z_−i) =  ½ log P_ii     → H_i − ½ log(2πe σ²) for small σ, H_i explained entropy (Gaussian prior)
    I(z_i; x)        = −½ log S_ii     → −log(σ ‖F_i‖), F = J⁻¹ with rows F_i
    c_i = ½ log(S_ii P_ii) = I(z_i; z_−i | x) ≥ 0 → log(‖J_i‖ ‖F_i‖)
    Σ c_i = TC(z | x) + DTC(z | x); for small σ, DTC → Σ log ‖J_i‖ − log |det J|, the manifold total correlation

References:
    Galperin & Köthe, *Analyzing generative models by manifold entropic metrics*, AISTATS 2025.
    https://arxiv.org/abs/2410.19426
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
    Yang et al., 2020 (the conditional mutual information of latents and its invariance).
    https://arxiv.org/abs/1911.10922
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite

__all__ = [
    "H0",
    "Gaps",
    "Manifold",
    "cross_pairwise_information",
    "gaps",
    "grams",
    "log_norms",
    "manifold",
    "pairwise_information",
    "small_noise_gaps",
    "variation",
]

H0 = 0.5 * (1 + math.log(2 * math.pi))  # entropy of a standard normal latent, nats
LIMIT = 10.0  # of a pairwise information, nats: identical directions would give infinity
FLOOR = 1e-300

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manifold:
    """Entropies of a decoder's latents.

    Arguments:
        spectrum: explained entropies H_i `(K,)`, in the order of the latents.
        entropy: H of the manifold (of x for K = p).
    """

    spectrum: Floats
    entropy: float

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Latents by falling explained entropy."""
        return np.argsort(-self.spectrum, kind="stable")

    @property
    def total_correlation(self) -> float:
        """MTC `Σ H_i − H`, nats, ≥ 0."""
        return float(self.spectrum.sum()) - self.entropy

    @property
    def total_correlation_per_latent(self) -> float:
        """MTC / K."""
        return self.total_correlation / len(self.spectrum)


def grams(jacobians: Floats) -> Floats:
    """Gram matrices `(n, K, K)` of Jacobians `(n, p, K)`.

    Raises:
        EocodecError: entries are not finite.
    """
    jacobians = finite(jacobians, "Jacobians")
    return np.asarray(np.swapaxes(jacobians, 1, 2) @ jacobians, np.float64)


def manifold(gram: Floats, log_prior: Floats | None = None) -> Manifold:
    """Spectrum and entropy from Gram matrices at samples; latents that move nothing share nothing with others.

    Arguments:
        gram: `(n, K, K)`.
        log_prior: `log p(z_i)` at the samples `(n, K)`; None takes its expectation under N(0, 1), −H0.
    """
    prior = np.full(gram.shape[1], -H0) if log_prior is None else np.asarray(log_prior, np.float64).mean(0)
    norms = log_norms(gram).mean(0)
    cosines = _cosines(gram)
    places = np.arange(gram.shape[1])
    cosines[:, places, places] = 1.0  # also of columns that are zero
    log_volume = float(norms.sum()) + 0.5 * float(np.linalg.slogdet(cosines)[1].mean())
    return Manifold(norms - prior, log_volume - float(prior.sum()))


def _cosines(gram: Floats) -> Floats:
    """Of the angles between columns `(n, K, K)`."""
    inverse = np.exp(-log_norms(gram))
    return np.asarray(gram * inverse[:, :, None] * inverse[:, None, :])


def log_norms(gram: Floats) -> Floats:
    """`log ‖J_i‖` `(n, K)`."""
    return 0.5 * np.log(np.maximum(np.diagonal(gram, axis1=1, axis2=2), FLOOR))


def pairwise_information(gram: Floats) -> Floats:
    """MPMI `(K, K)`: `−½ E log(1 − cos²)` of columns i and j, nats, at most 10; 0 on the diagonal."""
    out = _information(_cosines(gram))
    np.fill_diagonal(out, 0.0)
    return out


def _information(cosines: Floats) -> Floats:
    apart = np.maximum(1 - np.square(cosines), math.exp(-2 * LIMIT))
    return np.asarray(-0.5 * np.log(apart).mean(0))


def cross_pairwise_information(a: Floats, b: Floats) -> Floats:
    """MCPMI `(K, K')`: the same with columns of two models at the same x, `(n, p, K)` and `(n, p, K')`.

    What two identical directions give, infinity, is cut to 10 nats at every sample.

    Raises:
        EocodecError: entries are not finite.
    """
    a, b = finite(a, "Jacobians"), finite(b, "Jacobians")
    units = [j / np.maximum(np.linalg.norm(j, axis=1, keepdims=True), FLOOR) for j in (a, b)]
    return _information(np.swapaxes(units[0], 1, 2) @ units[1])


@dataclass(frozen=True)
class Gaps:
    """Information of latents about x, with and without the others, expectations over samples; nats.

    Arguments:
        given_others: `I(z_i; x | z_−i)` `(K,)`.
        alone: `I(z_i; x)` `(K,)`.
        total_correlation: TC(z | x).
        dual_total_correlation: DTC(z | x); for small noise the manifold total correlation.
    """

    given_others: Floats
    alone: Floats
    total_correlation: float
    dual_total_correlation: float

    @property
    def gap(self) -> Floats:
        """`c_i = I(z_i; z_−i | x)` `(K,)`; their sum is TC + DTC."""
        return self.given_others - self.alone


def gaps(gram: Floats, sigma: float) -> Gaps:
    """The gaps for any noise; right for latents below the noise floor too.

    Arguments:
        gram: `(n, K, K)`, of latents with a standard normal prior.
        sigma: deviation of the noise, in units of x.

    Raises:
        ValueError: sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"The noise must be positive, not {sigma}.")
    precision = gram / sigma**2 + np.eye(gram.shape[1])
    covariance = np.linalg.inv(precision)
    log_p = np.log(np.diagonal(precision, axis1=1, axis2=2))
    log_s = np.log(np.diagonal(covariance, axis1=1, axis2=2))
    log_det = np.linalg.slogdet(precision)[1]
    return Gaps(
        0.5 * log_p.mean(0),
        -0.5 * log_s.mean(0),
        0.5 * float((log_s.sum(1) + log_det).mean()),
        0.5 * float((log_p.sum(1) - log_det).mean()),
    )


def small_noise_gaps(column_norms: Floats, row_norms: Floats) -> Floats:
    """`c_i = E log(‖J_i‖ ‖F_i‖)` `(K,)` from norms of decoder columns and of encoder rows, `(n, K)` each."""
    return np.asarray(np.log(column_norms * row_norms).mean(0))


def variation(norms: Floats) -> Floats:
    """M2: does a latent do the same amount everywhere? The variance over contexts of its mean log effect.

    Arguments:
        norms: `log ‖J_i(z_i, v)‖` at contexts v and values of z_i, `(contexts, values, K)`.

    Returns:
        `Var_v E_{z_i} log ‖J_i‖` `(K,)`; 0 for a linear map.

    Raises:
        EocodecError: norms are not finite.
    """
    return np.asarray(finite(norms, "norms").mean(1).var(0))
