"""LSSI and LSDI: how separately the latents own the features, from an association matrix.

In: a non-negative matrix `A (K, p)`, from traversals (`heterogeneity`) or regression (`dirty`). Out: indices in [0, 1].

References:
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (names and zeros; the formula is our reading, docs/LAB.md)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite
from eocodec.lab.measures.heterogeneity import THRESHOLD

__all__ = ["Separation", "separation"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """Indices of an association matrix.

    Arguments:
        lssi: latent space separation index, 0 to 1.
        lsdi: latent space disentanglement index, `coverage · lssi`.
        coverage: mean over all features of the variance explained, at most 1 each.
        informative: latents that were counted.
        features: features that were counted.
    """

    lssi: float
    lsdi: float
    coverage: float
    informative: int
    features: int


def entropy(p: Floats) -> Floats:
    """Entropies of the columns of `p`, which sum to one, in nats."""
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), axis=0)


def separation(association: Floats, threshold: float = THRESHOLD) -> Separation:
    """Mutual information between the index of a latent and the index of a feature, over its maximum.

    `P_kj = A_kj / Σ_k A_kj` over informative rows and covered columns, `m_k = mean_j P_kj`,
    `LSSI = (H(m) − mean_j H(P_·j)) / log K_informative`; 0 with fewer than two informative latents. It is 1 only where
    every covered feature has one owner and the owners have equally many; dead latents change nothing.

    Arguments:
        association: `A (K, p)`, non-negative, in units of explained variance.
        threshold: a row is informative if its maximum is above it, a column covered if its sum is.

    Raises:
        ValueError: an entry is negative.
        EocodecError: an entry is not finite.

    Example:
        >>> round(separation(np.kron(np.eye(3), np.ones((1, 5)))).lssi, 9)
        1.0
        >>> round(separation(np.ones((3, 5))).lssi, 9)
        0.0
    """
    if (finite(association, "associations") < 0).any():
        raise ValueError("An association matrix has no negative entries.")
    informative = association.max(1, initial=0.0) > threshold
    covered = association.sum(0) > threshold
    coverage = float(np.minimum(1.0, association.sum(0)).mean())
    count, features = int(informative.sum()), int(covered.sum())
    lssi = 0.0
    if count >= 2 and features:
        kept = association[informative][:, covered]
        total = kept.sum(0)
        shares = kept[:, total > 0] / total[total > 0]
        gain = float(entropy(shares.mean(1)[:, None])[0] - entropy(shares).mean())
        lssi = min(1.0, max(0.0, gain / float(np.log(count))))
    return Separation(lssi, coverage * lssi, coverage, count, features)
