"""Measures from groups of samples that share a factor: FactorVAE score, β-VAE score, IRS.

Groups are drawn from the given samples: those in which a factor has one value, or, of factors with many values, lies in
one of 20 quantile bins.

References:
    Kim & Mnih, *Disentangling by factorising*, 2018. https://arxiv.org/abs/1802.05983 (FactorVAE score)
    Higgins et al., *β-VAE*, 2017. https://openreview.net/forum?id=Sy2fzU9gl (β-VAE score)
    Suter et al., *Robustly disentangled causal mechanisms*, 2019. https://arxiv.org/abs/1811.00007 (IRS)
"""

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.supervised.factors import Factors, active_codes
from eocodec.lab.measures.supervised.information import factor_bins

__all__ = ["beta_vae_score", "factor_vae_score", "irs"]

GROUP = 64
VOTES, TEST_VOTES = 2000, 1000
QUANTILE = 0.99

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class _Groups:
    """Draws samples that share the class of a factor."""

    def __init__(self, classes: Integers, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.members = [[np.flatnonzero(c == v) for v in np.unique(c)] for c in classes.T]
        self.samples = len(classes)

    def draw(self, factor: int, size: int) -> npt.NDArray[np.intp]:
        """Samples in which the factor has the class of a sample drawn at random."""
        members = self.members[factor]
        chances = np.array([len(m) for m in members]) / self.samples
        return self.random.choice(members[int(self.random.choice(len(members), p=chances))], size)


def factor_vae_score(
    codes: Floats,
    factors: Factors,
    active: Marks | None = None,
    seed: int = 0,
    votes: tuple[int, int] = (VOTES, TEST_VOTES),
) -> float:
    """Accuracy of guessing which factor was held fixed in 64 samples from the latent that varies least, 0 at chance.

    The latent is that with the smallest variance in units of its own; the guess is the factor that most often made it
    the smallest in other groups. Rescaled from chance, `1 / m`, to 0.

    Arguments:
        codes: `(n, K)`.
        factors: of the same samples, two or more.
        active: latents that count.
        seed: of the groups.
        votes: groups to learn the guess from, and to score it with.
    """
    alive = active_codes(codes, active, factors)
    count = factors.values.shape[1]
    if not alive.any() or count < 2:
        return 0.0
    z = codes[:, alive] / codes[:, alive].std(0)
    groups = _Groups(factor_bins(factors), seed)
    tables = []
    for number in votes:
        table = np.zeros((z.shape[1], count))
        for _ in range(number):
            factor = int(groups.random.integers(count))
            table[int(z[groups.draw(factor, GROUP)].var(0).argmin()), factor] += 1
        tables.append(table)
    learnt, test = tables
    accuracy = test[np.arange(len(test)), learnt.argmax(1)].sum() / test.sum()
    return max(0.0, float(accuracy - 1 / count) / (1 - 1 / count))


def beta_vae_score(
    codes: Floats,
    factors: Factors,
    active: Marks | None = None,
    seed: int = 0,
    votes: tuple[int, int] = (VOTES, TEST_VOTES),
) -> float:
    """Accuracy of a logistic regression that guesses the shared factor from mean absolute differences, 0 at chance.

    Arguments: as for `factor_vae_score`; a point is the mean over 64 pairs that share a factor.
    """
    from sklearn.linear_model import LogisticRegression

    alive = active_codes(codes, active, factors)
    count = factors.values.shape[1]
    if not alive.any() or count < 2:
        return 0.0
    z = codes[:, alive] / codes[:, alive].std(0)
    groups = _Groups(factor_bins(factors), seed)
    truth = groups.random.integers(count, size=sum(votes))
    points = np.stack([_pair_differences(z, groups, int(j)) for j in truth])
    points = (points - points[: votes[0]].mean(0)) / np.maximum(points[: votes[0]].std(0), 1e-12)
    model = LogisticRegression(max_iter=500).fit(points[: votes[0]], truth[: votes[0]])
    accuracy = float(np.mean(model.predict(points[votes[0] :]) == truth[votes[0] :]))
    return max(0.0, (accuracy - 1 / count) / (1 - 1 / count))


def _pair_differences(z: Floats, groups: _Groups, factor: int) -> Floats:
    """Mean over 64 pairs; every pair shares a class of its own."""
    members = groups.members[factor]
    chances = np.array([len(m) for m in members]) / groups.samples
    chosen = groups.random.choice(len(members), GROUP, p=chances)
    places = groups.random.random((GROUP, 2))
    sizes = np.array([len(m) for m in members])[chosen]
    index = (places * sizes[:, None]).astype(np.intp)
    pairs = np.array([[members[c][a], members[c][b]] for c, (a, b) in zip(chosen, index, strict=True)])
    return np.asarray(np.abs(z[pairs[:, 0]] - z[pairs[:, 1]]).mean(0))


def irs(codes: Floats, factors: Factors, active: Marks | None = None) -> float:
    """Interventional robustness: how little a latent moves while its factor stays, whatever the others do; 0 to 1.

    For latent k and factor j the largest deviation (99 % quantile) from the mean at every value of j, averaged over the
    values, is compared with the largest deviation (same quantile) from the mean of all; a latent's score is that of its
    best factor. The plain mean over the latents that count: weighting by their ranges would depend on their scale.
    """
    alive = active_codes(codes, active, factors)
    if not alive.any():
        return 0.0
    z = codes[:, alive]
    limit = np.quantile(np.abs(z - z.mean(0)), QUANTILE, axis=0)
    robust = []
    for classes in factor_bins(factors).T:
        values, counts = np.unique(classes, return_counts=True)
        moved = np.array([np.quantile(np.abs(z[classes == v] - z[classes == v].mean(0)), QUANTILE, 0) for v in values])
        robust.append(1 - (counts / counts.sum()) @ moved / limit)
    return float(np.clip(np.array(robust).max(0), 0, 1).mean())
