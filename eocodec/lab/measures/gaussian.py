"""Measures of codes alone under a Gaussian approximation, and dependence of a latent on the others.

In: codes `(n, K)`. Out: total correlation, Wasserstein distance to independence, mean pairwise information (nats).

References:
    Locatello et al., *Challenging common assumptions in the unsupervised learning of disentangled representations*,
    2019. https://arxiv.org/abs/1811.12359 (the three unsupervised scores)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Dependence",
    "copula",
    "dependence",
    "gaussian_total_correlation",
    "gaussian_wasserstein",
    "mean_pairwise_information",
]

PERMUTATIONS = 20

Floats = npt.NDArray[np.float64]


def _scaled_log_det(covariance: Floats) -> tuple[float, Floats]:
    deviation = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviation, deviation)
    return float(np.linalg.slogdet(correlation)[1]), correlation


def gaussian_total_correlation(codes: Floats) -> float:
    """`−½ log det` of the correlation of codes `(n, K)` that vary, in nats."""
    alive = codes[:, codes.std(0) > 0]
    if alive.shape[1] < 2:
        return 0.0
    return max(0.0, -0.5 * _scaled_log_det(np.cov(alive.T))[0])


def gaussian_wasserstein(codes: Floats) -> float:
    """Squared 2-Wasserstein distance of `N(0, Σ)` to `N(0, diag Σ)`, over the trace of Σ; 0 for independent codes."""
    covariance = np.atleast_2d(np.cov(codes.T))
    variances = np.diag(covariance)
    root = np.sqrt(variances)
    middle = np.linalg.eigvalsh(root[:, None] * covariance * root)
    distance = 2 * float(variances.sum()) - 2 * float(np.sqrt(np.maximum(middle, 0.0)).sum())
    return max(0.0, distance) / max(float(variances.sum()), 1e-300)


def mean_pairwise_information(codes: Floats) -> float:
    """Mean mutual information of two latents, in nats, binned without its floor."""
    from eocodec.lab.measures.supervised.information import mutual_information_matrix

    told = mutual_information_matrix(codes, codes)
    pairs = ~np.eye(len(told), dtype=bool)
    return float(told[pairs].mean()) if pairs.any() else 0.0


def copula(codes: Floats) -> Floats:
    """Normal scores `(n, K)`: every column's ranks through the standard normal quantile function."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri((rankdata(codes, axis=0) - 0.5) / len(codes)))


@dataclass(frozen=True)
class Dependence:
    """How much the other latents tell of one, and all of each other, nats, less the mean of a permutation null.

    Arguments:
        information: `I(z_i; z_−i)` `(K,)`.
        total_correlation: Gaussian-copula estimate.
        null: what the same estimate of the total correlation reads on independent columns (subtracted).
    """

    information: Floats
    total_correlation: float
    null: float


def _copula_information(scores: Floats) -> tuple[Floats, float]:
    log_det, correlation = _scaled_log_det(np.atleast_2d(np.cov(scores.T)))
    return 0.5 * np.log(np.diag(np.linalg.inv(correlation))), -0.5 * log_det


def dependence(codes: Floats, seed: int = 0, nonlinear: bool = False) -> Dependence:
    """Dependence of every latent on the others, from samples `(n, K)`.

    Arguments:
        codes: samples of the aggregate posterior.
        seed: of permutations and folds.
        nonlinear: also take `−½ log(1 − R²)` of gradient boosting, out of fold, where it is more: slower, and a lower
            bound for any dependence.
    """
    scores = copula(codes)
    random = np.random.default_rng(seed)
    if scores.shape[1] < 2:
        return Dependence(np.zeros(scores.shape[1]), 0.0, 0.0)
    told, total = _copula_information(scores)
    nulls = [_copula_information(random.permuted(scores, axis=0)) for _ in range(PERMUTATIONS)]
    null = float(np.mean([t for _, t in nulls]))
    told = np.maximum(0.0, told - np.mean([i for i, _ in nulls], axis=0))
    if nonlinear:
        told = np.maximum(told, _boosted_information(scores, seed))
    return Dependence(told, max(0.0, total - null), null)


def _boosted_information(scores: Floats, seed: int) -> Floats:
    """Lower bounds `(K,)`; out-of-fold R² of noise is not above 0, so that nothing is to be subtracted."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(3, shuffle=True, random_state=seed)
    out = []
    for k in range(scores.shape[1]):
        model = HistGradientBoostingRegressor(max_iter=80, random_state=seed)
        guess = cross_val_predict(model, np.delete(scores, k, 1), scores[:, k], cv=folds)
        r2 = 1 - np.square(scores[:, k] - guess).sum() / np.square(scores[:, k]).sum()
        out.append(-0.5 * np.log(max(1e-12, 1 - max(0.0, float(r2)))))
    return np.array(out)
