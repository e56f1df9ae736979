"""FVH-LT: what every latent does to every feature, by traversals (feature variance heterogeneity).

In: a decoder, base codes, grids. Out: `A (K, p)`, the variance of feature j that moving latent k alone makes, in units
of the feature's variance in the data, with the latents that are informative and the features they cover.

References:
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (the idea; the steps are our reading, see docs/LAB.md)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite

__all__ = ["THRESHOLD", "Heterogeneity", "heterogeneity", "quantile_grid"]

THRESHOLD = 0.05  # of explained variance, above which a latent is informative or a feature covered
ROUNDING = 1e-20  # of the largest variance: a feature that varies less is constant but for rounding
BATCH = 4096  # codes that are decoded at a time

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Heterogeneity:
    """Explained variance of features by latents.

    Arguments:
        variance: `A (K, p)`, in units of the data's variance.
        threshold: what counts.

    Example:
        >>> found = Heterogeneity(np.array([[0.9, 0.0], [0.1, 0.0]]), 0.05)
        >>> found.informative.tolist(), found.covered.tolist(), found.shares[:, 0].tolist()
        ([True, True], [True, False], [0.9, 0.1])
    """

    variance: Floats
    threshold: float = THRESHOLD

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """Latents that move some feature by more than the threshold, `(K,)`."""
        return np.asarray(self.variance.max(1) > self.threshold)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Features that the latents together move by more than the threshold, `(p,)`."""
        return np.asarray(self.variance.sum(0) > self.threshold)

    @property
    def shares(self) -> Floats:
        """Share of latent k in feature j: `w_kj = A_kj / Σ_k A_kj` `(K, p)`; zero where no latent moves it."""
        total = self.variance.sum(0)
        return self.variance / np.where(total > 0, total, 1.0)

    @property
    def gini(self) -> Floats:
        """How unevenly every latent spreads over the features: Gini coefficients `(K,)`, 0 for a dead latent."""
        rows = np.sort(self.variance, axis=1)
        p = rows.shape[1]
        total = rows.sum(1)
        weighted = rows @ (2 * np.arange(1, p + 1) - p - 1)
        return weighted / np.where(total > 0, p * total, 1.0)


def quantile_grid(codes: Floats, points: int = 21, tails: float = 0.025) -> Floats:
    """Where latents are moved to: quantiles of the codes `(n, K)` from `tails` to `1 − tails`; `(R, K)`."""
    return np.quantile(codes, np.linspace(tails, 1 - tails, points), axis=0)


def heterogeneity(
    decode: Callable[[Floats], Floats],
    codes: Floats,
    grid: Floats,
    variance: Floats,
    threshold: float = THRESHOLD,
    progress: Callable[[int], object] = lambda done: None,
) -> Heterogeneity:
    """Move one latent at a time through its grid, from every base code, and take the variance of the features.

    Arguments:
        decode: codes `(n, K)` to features `(n, p)`; for pictures, the features are statistics of the decoded picture.
        codes: base codes `(N, K)`.
        grid: values of every latent, `(R, K)`.
        variance: of the features in the data, `(p,)`; a feature without variance counts as not covered.
        threshold: see `Heterogeneity`.
        progress: called with the number of latents done.

    Returns:
        `A_kj = mean_b Var_r x̂[b, k, r, j] / Var x_j`.

    Raises:
        EocodecError: decoded features or variances are not finite.

    Example:
        >>> loadings = np.array([[1.0, 0.0], [0.0, 2.0]])
        >>> z = np.random.default_rng(0).standard_normal((400, 2))
        >>> x = z @ loadings
        >>> heterogeneity(lambda z: z @ loadings, z, quantile_grid(z), x.var(0)).informative.tolist()
        [True, True]
    """
    points, latents = grid.shape
    result = np.zeros((latents, len(variance)))
    chunk = max(1, BATCH // points)
    for k in range(latents):
        for start in range(0, len(codes), chunk):
            base = codes[start : start + chunk]
            moved = np.repeat(base, points, axis=0)
            moved[:, k] = np.tile(grid[:, k], len(base))
            features = finite(decode(moved), "features of what is decoded").reshape(len(base), points, -1)
            result[k] += features.var(1).sum(0)
        progress(k + 1)
    result /= len(codes)
    known = finite(variance, "variances") > ROUNDING * variance.max(initial=0.0)
    return Heterogeneity(np.where(known, result / np.where(known, variance, 1.0), 0.0), threshold)
