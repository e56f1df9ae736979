"""GAS: which latent of one run is which of another, by greedy alignment, the most alike first.

In: codes `(n, K)` of the same samples from two runs or more. Out: pairs with signs and strengths.

References:
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (greedy, most alike first; the rest is our reading)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.supervised.factors import active_codes
from eocodec.lab.measures.supervised.information import mutual_information_matrix

__all__ = ["FLOOR", "Alignment", "align", "greedy", "similarity", "stability"]

FLOOR = 0.2  # below it latents are left unmatched

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """Matched latents of a reference and another run, the most alike first.

    Arguments:
        reference, other: places of the latents `(P,)`.
        strength: similarity of each pair `(P,)`, 0 to 1.
        sign: of their correlation, 1 or −1 `(P,)`.
    """

    reference: npt.NDArray[np.intp]
    other: npt.NDArray[np.intp]
    strength: Floats
    sign: Floats

    def apply(self, codes: Floats, latents: int) -> Floats:
        """The other run's codes `(n, K')` in the order and with the signs of the reference, `(n, latents)`.

        Latents of the reference without a partner are 0.
        """
        out = np.zeros((len(codes), latents))
        out[:, self.reference] = codes[:, self.other] * self.sign
        return out


def greedy(matrix: Floats, floor: float = 0.0) -> list[tuple[int, int]]:
    """Places `(row, column)` of the largest entry, of the largest in other rows and columns, and so on down to `floor`.

    The sum of the entries is at least half of the best assignment's.

    Example:
        >>> greedy(np.array([[0.9, 0.8], [0.85, 0.1]]))
        [(0, 0), (1, 1)]
    """
    left = np.array(matrix, np.float64)
    pairs: list[tuple[int, int]] = []
    for _ in range(min(left.shape)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        if not left[row, column] >= floor:
            break
        pairs.append((row, column))
        left[row] = left[:, column] = -np.inf
    return pairs


def similarity(a: Floats, b: Floats, measure: str = "pearson") -> Floats:
    """How alike latents are, `(K, K')` in 0 to 1, of codes `(n, K)` and `(n, K')` of the same samples.

    Arguments:
        a, b: the codes; a constant latent is like nothing.
        measure: "pearson" or "spearman", absolute correlations; "information", `sqrt(1 − exp(−2 I))` of the binned
            mutual information, which for Gaussian latents is the absolute correlation.

    Raises:
        ValueError: another measure.
        EocodecError: codes are not finite.
    """
    if measure == "information":
        strength = np.sqrt(-np.expm1(-2 * mutual_information_matrix(a, b)))
    else:
        strength = np.abs(_correlation(a, b, measure))
    return np.where(np.outer(active_codes(a, None), active_codes(b, None)), strength, 0.0)


def _correlation(a: Floats, b: Floats, measure: str) -> Floats:
    if measure not in ("pearson", "spearman"):
        raise ValueError(f"The similarity is pearson, spearman or information, not {measure}.")
    if measure == "spearman":
        from scipy.stats import rankdata

        a, b = rankdata(a, axis=0), rankdata(b, axis=0)
    a, b = (np.asarray(x, np.float64) - np.mean(x, 0, dtype=np.float64) for x in (a, b))
    norms = np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))
    return np.where(norms > 0, a.T @ b / np.where(norms > 0, norms, 1.0), 0.0)


def align(reference: Floats, other: Floats, measure: str = "pearson", floor: float = FLOOR) -> Alignment:
    """Greedy alignment of two runs' codes of the same samples.

    Arguments:
        reference, other: `(n, K)` and `(n, K')`.
        measure: see `similarity`.
        floor: the weakest pair that is matched.
    """
    strengths = similarity(reference, other, measure)
    signs = np.sign(_correlation(reference, other, "spearman" if measure == "spearman" else "pearson"))
    pairs = greedy(strengths, floor)
    rows = np.array([r for r, _ in pairs], np.intp)
    columns = np.array([c for _, c in pairs], np.intp)
    sign = np.where(signs[rows, columns] < 0, -1.0, 1.0)
    return Alignment(rows, columns, strengths[rows, columns], sign)


def stability(runs: Sequence[Floats], measure: str = "pearson") -> float:
    """Mean strength of all matched pairs between any two runs; NaN for fewer than two runs.

    Arguments:
        runs: codes `(n, K)` of every run, informative latents only. Every pair of latents is matched, however weak:
            the smaller number of latents counts.
    """
    found = [
        align(a, b, measure, floor=0.0).strength.mean()
        for i, a in enumerate(runs)
        for b in runs[i + 1 :]
        if a.shape[1] and b.shape[1]
    ]
    return float(np.mean(found)) if found else float("nan")
