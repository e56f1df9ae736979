"""Measures from binned mutual information: MIG, modularity; and the estimator itself, without its floor.

Two independent variables in b and v bins read `(b − 1)(v − 1) / (2n)` nats too much (Miller & Madow, 1955): 0.045 at
20 x 20 bins and n = 4000. That is subtracted everywhere, and negative results are 0.

References:
    Chen et al., *Isolating sources of disentanglement in variational autoencoders*, 2018.
    https://arxiv.org/abs/1802.04942 (MIG)
    Ridgeway & Mozer, *Learning deep disentangled embeddings with the F-statistic loss*, 2018.
    https://arxiv.org/abs/1802.05312 (modularity)
"""

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite
from eocodec.lab.measures.supervised.factors import Factors, active_codes

__all__ = [
    "BINS",
    "binned",
    "factor_bins",
    "mig",
    "modularity",
    "mutual_information",
    "mutual_information_matrix",
]

BINS = 20

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def binned(x: Floats, bins: int = BINS, spacing: str = "quantile") -> Integers:
    """Number of the bin of every value `(n, K) -> (n, K)`.

    Arguments:
        x: columns are binned on their own.
        bins: at most; columns with fewer values, or with ties, use fewer.
        spacing: "quantile", as many samples in each, or "width", as the literature has it.

    Raises:
        ValueError: other spacing.
        EocodecError: values are not finite.
    """
    if spacing not in ("quantile", "width"):
        raise ValueError(f"Bins are quantile or width, not {spacing}.")
    out = np.zeros(x.shape, np.int64)
    for k, column in enumerate(finite(x, "values").T):
        if spacing == "quantile":
            edges = np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1]))
        else:
            edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]
        out[:, k] = np.searchsorted(edges, column, side="left" if spacing == "quantile" else "right")
    return out


def factor_bins(factors: Factors, bins: int = BINS) -> Integers:
    """Classes of discrete factors and of those with few values, quantile bins of the others; `(n, m)`, from 0."""
    out = np.zeros(factors.values.shape, np.int64)
    for j, column in enumerate(factors.values.T):
        values, places = np.unique(column, return_inverse=True)
        few = factors.discrete[j] or len(values) <= bins
        out[:, j] = places if few else np.unique(binned(column[:, None], bins)[:, 0], return_inverse=True)[1]
    return out


def mutual_information(a: Integers, b: Integers, corrected: bool = True) -> float:
    """Plug-in mutual information of two columns of integers `(n,)`, in nats, without its floor.

    Example:
        >>> round(mutual_information(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), corrected=False), 4)
        0.6931
    """
    joint = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(joint, (a, b), 1.0)
    rows, columns = joint.sum(1), joint.sum(0)
    expected = np.outer(rows, columns) / len(a)
    seen = joint > 0
    value = float(np.sum(joint[seen] * np.log(joint[seen] / expected[seen])) / len(a))
    floor = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1) / (2 * len(a)) if corrected else 0.0
    return max(0.0, value - floor)


def mutual_information_matrix(a: Floats, b: Floats, bins: int = BINS, spacing: str = "quantile") -> Floats:
    """Mutual information of all pairs of columns of `(n, K)` and `(n, K')`, `(K, K')`, in nats."""
    return _matrix(binned(a, bins, spacing), binned(b, bins, spacing))


def _matrix(a: Integers, b: Integers) -> Floats:
    return np.array([[mutual_information(i, j) for j in b.T] for i in a.T]).reshape(a.shape[1], b.shape[1])


def _entropies(classes: Integers) -> Floats:
    shares = [np.bincount(c) / len(c) for c in classes.T]
    return np.array([-np.sum(p[p > 0] * np.log(p[p > 0])) for p in shares])


def mig(
    codes: Floats,
    factors: Factors,
    active: npt.NDArray[np.bool_] | None = None,
    bins: int = BINS,
    spacing: str = "quantile",
) -> float:
    """Mutual information gap: `mean_j (I_1 − I_2) / H(v_j)` of the two latents that tell most of factor j.

    Arguments:
        codes: `(n, K)`.
        factors: of the same samples.
        active: latents that count; a single one has a rival that tells nothing.
        bins: of codes and of continuous factors.
        spacing: of the bins, see `binned`; "width" reads lower for skewed codes.
    """
    alive = active_codes(codes, active, factors)
    if not alive.any():
        return 0.0
    classes = factor_bins(factors, bins)
    told = np.sort(_matrix(binned(codes[:, alive], bins, spacing), classes), axis=0)
    second = told[-2] if len(told) > 1 else np.zeros_like(told[-1])
    limit = _entropies(classes)
    varies = limit > 0
    return float(np.mean((told[-1] - second)[varies] / limit[varies])) if varies.any() else 0.0


def modularity(codes: Floats, factors: Factors, active: npt.NDArray[np.bool_] | None = None, bins: int = BINS) -> float:
    """`1 − Σ_{j ≠ best} I_kj² / (I_best² (m − 1))`, the mean over latents that count and tell something; 0 to 1.

    Raises:
        ValueError: there is only one factor, to which every latent would be modular.
    """
    if factors.values.shape[1] < 2:
        raise ValueError("Modularity needs two factors or more.")
    alive = active_codes(codes, active, factors)
    if not alive.any():
        return 0.0
    squares = np.square(_matrix(binned(codes[:, alive], bins), factor_bins(factors, bins)))
    best = squares.max(1)
    telling = best > 0
    others = (squares.sum(1) - best)[telling] / (best[telling] * (squares.shape[1] - 1))
    return float(np.mean(1 - others)) if telling.any() else 0.0
