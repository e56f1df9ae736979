"""Measures of codes alone under a Gaussian approximation, and dependence of a latent on the others.

In: codes `(n, K)`. Out: total correlation, Wasserstein distance to independence, mean pairwise information (nats).

References:
    Locatello et al., *Challenging common assumptions in the unsupervised learning of disentangled representations*,
    2019. https://arxiv.org/abs/1811.12359 (the three unsupervised scores)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError
from eocodec.lab.measures.finite import finite
from eocodec.lab.measures.supervised.factors import active_codes
from eocodec.lab.measures.supervised.information import mutual_information_matrix

__all__ = [
    "Dependence",
    "copula",
    "dependence",
    "gaussian_total_correlation",
    "gaussian_wasserstein",
    "mean_pairwise_information",
]

PERMUTATIONS = 20
SINGULAR = 1e-14  # of an eigenvalue of a correlation, for each latent: it is 0 but for rounding
INVOLVED = 1e-9  # share of a latent in what has no variance, above which it follows from the others

Floats = npt.NDArray[np.float64]


def _alive(codes: Floats) -> npt.NDArray[np.bool_]:
    """Latents that vary, `(K,)`.

    Raises:
        EocodecError: codes are not finite, or too few to tell how that many latents depend on each other.
    """
    alive = active_codes(codes, None)
    count = int(alive.sum())
    if count > 1 and len(codes) <= count:
        raise EocodecError(f"the dependence of {count} latents needs more than {count} samples, not {len(codes)}")
    return alive


def _gaussian_information(codes: Floats) -> tuple[Floats, float]:
    """`I(z_i; z_−i)` and total correlation of Gaussian columns that vary; infinite where one follows from others.

    With R the correlation, `½ log (R⁻¹)_ii` and `−½ log det R`.
    """
    covariance = np.cov(codes.T)
    deviation = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    lost = values <= SINGULAR * len(values)
    follows = np.square(vectors[:, lost]).sum(1) > INVOLVED
    inverse = (np.square(vectors[:, ~lost]) / values[~lost]).sum(1)
    total = np.inf if lost.any() else -0.5 * float(np.log(values).sum())
    return np.where(follows, np.inf, np.maximum(0.0, 0.5 * np.log(inverse))), total


def gaussian_total_correlation(codes: Floats) -> float:
    """`−½ log det` of the correlation of codes `(n, K)` that vary, in nats; infinite where some follow from others.

    Raises:
        EocodecError: codes are not finite, or not more than latents.
    """
    alive = _alive(codes)
    return max(0.0, _gaussian_information(codes[:, alive])[1]) if alive.sum() > 1 else 0.0


def gaussian_wasserstein(codes: Floats) -> float:
    """Squared 2-Wasserstein distance of `N(0, Σ)` to `N(0, diag Σ)`, over the trace of Σ; 0 for independent codes.

    Raises:
        EocodecError: codes are not finite.
    """
    covariance = np.atleast_2d(np.cov(finite(codes, "codes").T))
    variances = np.diag(covariance)
    root = np.sqrt(variances)
    middle = np.linalg.eigvalsh(root[:, None] * covariance * root)
    distance = 2 * float(variances.sum()) - 2 * float(np.sqrt(np.maximum(middle, 0.0)).sum())
    return max(0.0, distance) / max(float(variances.sum()), 1e-300)


def mean_pairwise_information(codes: Floats) -> float:
    """Mean mutual information of two latents that vary, in nats, binned without its floor.

    Raises:
        EocodecError: codes are not finite.
    """
    alive = codes[:, active_codes(codes, None)]
    told = mutual_information_matrix(alive, alive)
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


def dependence(codes: Floats, seed: int = 0, nonlinear: bool = False) -> Dependence:
    """Dependence of every latent on the others, from samples `(n, K)`.

    Arguments:
        codes: samples of the aggregate posterior; latents that do not vary depend on nothing.
        seed: of permutations and folds.
        nonlinear: also take `−½ log(1 − R²)` of gradient boosting, out of fold, where it is more: slower, and a lower
            bound for any dependence.

    Raises:
        EocodecError: codes are not finite, or too few for their latents.
    """
    alive, information = _alive(codes), np.zeros(codes.shape[1])
    if alive.sum() < 2:
        return Dependence(information, 0.0, 0.0)
    scores = copula(codes[:, alive])
    random = np.random.default_rng(seed)
    told, total = _gaussian_information(scores)
    nulls = [_gaussian_information(random.permuted(scores, axis=0)) for _ in range(PERMUTATIONS)]
    null = float(np.mean([t for _, t in nulls]))
    if not np.isfinite(null):
        raise EocodecError(f"{len(codes)} samples are too few to tell how {len(scores.T)} latents depend on each other")
    told = np.maximum(0.0, told - np.mean([i for i, _ in nulls], axis=0))
    if nonlinear:
        told = np.maximum(told, _boosted_information(scores, seed))
    information[alive] = told
    return Dependence(information, max(0.0, total - null), null)


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
