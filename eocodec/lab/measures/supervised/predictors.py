"""Measures from predictors of factors: DCI, SAP, explicitness.

DCI depends on the regressor: here random forests of depth 8 (scikit-learn) for continuous and discrete factors alike.

References:
    Eastwood & Williams, *A framework for the quantitative evaluation of disentangled representations*, 2018.
    https://openreview.net/forum?id=By-7dz-AZ (DCI)
    Kumar, Sattigeri & Balakrishnan, *Variational inference of disentangled latent concepts*, 2018.
    https://arxiv.org/abs/1711.00848 (SAP)
    Ridgeway & Mozer, *Learning deep disentangled embeddings with the F-statistic loss*, 2018.
    https://arxiv.org/abs/1802.05312 (explicitness)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.separation import entropy
from eocodec.lab.measures.supervised.factors import Factors, active_codes

__all__ = ["DCI", "dci", "explicitness", "sap"]

TREES, DEPTH = 30, 8
HELD_OUT = 1 / 3  # of the samples, to score predictions

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness, informativeness, each 0 to 1.

    Arguments:
        disentanglement: does a latent serve one factor? Weighted by the latents' importance.
        completeness: is a factor served by one latent?
        informativeness: R² (continuous) or rescaled balanced accuracy (discrete) of the predictors on held-out samples.
        importance: of latents for factors `(K, m)`; rows of latents that do not count are 0.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Floats


def _split(count: int, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    order = np.random.default_rng(seed).permutation(count)
    cut = round(count * (1 - HELD_OUT))
    return order[:cut], order[cut:]


def _rescaled_accuracy(truth: Floats, guess: Floats) -> float:
    """Balanced accuracy, 0 at chance."""
    classes = np.unique(truth)
    recall = np.mean([np.mean(guess[truth == c] == c) for c in classes])
    chance = 1 / len(classes)
    return max(0.0, float(recall - chance) / (1 - chance)) if len(classes) > 1 else 0.0


def _r2(truth: Floats, guess: Floats) -> float:
    spread = float(np.square(truth - truth.mean()).sum())
    return max(0.0, 1 - float(np.square(truth - guess).sum()) / spread) if spread > 0 else 0.0


def _spreads(matrix: Floats) -> Floats:
    """`1 − H / log n` of every column of n entries; 0 where the column is zero, 1 where n = 1."""
    total = matrix.sum(0)
    shares = matrix / np.where(total > 0, total, 1.0)
    limit = np.log(len(matrix)) if len(matrix) > 1 else 1.0
    return np.where(total > 0, 1 - entropy(shares) / limit, 0.0)


def dci(codes: Floats, factors: Factors, active: Marks | None = None, seed: int = 0) -> DCI:
    """Importance of every latent for every factor by random forests, and what follows from it.

    Arguments:
        codes: `(n, K)`.
        factors: of the same samples.
        active: latents that count; entropies are normalised by their number for completeness.
        seed: of the split and the forests.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    alive = active_codes(codes, active, factors)
    importance = np.zeros((codes.shape[1], factors.values.shape[1]))
    if not alive.any():
        return DCI(0.0, 0.0, 0.0, importance)
    fit, held = _split(len(codes), seed)
    z = codes[:, alive]
    scores = []
    for j, discrete in enumerate(factors.discrete):
        truth = factors.values[:, j]
        kind: Any = RandomForestClassifier if discrete else RandomForestRegressor
        # every split may use every latent: with a few at random, importance would leak to idle ones
        forest = kind(n_estimators=TREES, max_depth=DEPTH, max_features=None, random_state=seed, n_jobs=1)
        target = _classes(truth) if discrete else truth
        forest.fit(z[fit], target[fit])
        guess = np.asarray(forest.predict(z[held]), np.float64)
        importance[alive, j] = forest.feature_importances_
        scores.append(_rescaled_accuracy(target[held], guess) if discrete else _r2(target[held], guess))
    kept = importance[alive]
    weights = kept.sum(1) / max(float(kept.sum()), 1e-300)
    return DCI(float(weights @ _spreads(kept.T)), float(_spreads(kept).mean()), float(np.mean(scores)), importance)


def _classes(values: Floats) -> Floats:
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def sap(codes: Floats, factors: Factors, active: Marks | None = None, seed: int = 0) -> float:
    """Separated attribute predictability: gap between the two best latents' scores, the mean over factors.

    The score of a latent for a continuous factor is the squared correlation. For a discrete one it is the balanced
    accuracy, 0 at chance, of a tree on that latent with up to four leaves a class: a linear classifier, as in the
    original, cannot find a class between two others on one axis.

    Arguments:
        codes: `(n, K)`.
        factors: of the same samples.
        active: latents that count; a single one has a rival that tells nothing.
        seed: of the split.
    """
    alive = active_codes(codes, active, factors)
    if not alive.any():
        return 0.0
    fit, held = _split(len(codes), seed)
    z = codes[:, alive]
    gaps = []
    for j, discrete in enumerate(factors.discrete):
        truth = factors.values[:, j]
        scores = [_tree_score(c, _classes(truth), fit, held) if discrete else _squared(c, truth) for c in z.T]
        best = sorted([0.0, *scores])
        gaps.append(best[-1] - best[-2])
    return float(np.mean(gaps))


def _squared(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1] ** 2) if a.std() > 0 and b.std() > 0 else 0.0


def _tree_score(code: Floats, truth: Floats, fit: npt.NDArray[np.intp], held: npt.NDArray[np.intp]) -> float:
    from sklearn.tree import DecisionTreeClassifier

    leaves = 4 * len(np.unique(truth))
    tree = DecisionTreeClassifier(max_leaf_nodes=max(2, leaves), class_weight="balanced", random_state=0)
    tree.fit(code[fit, None], truth[fit])
    return _rescaled_accuracy(truth[held], np.asarray(tree.predict(code[held, None])))


def explicitness(codes: Floats, factors: Factors, active: Marks | None = None, seed: int = 0) -> float:
    """Area under the ROC curve of a logistic regression, one class against the others, rescaled: 0 at chance.

    Continuous factors are cut into ten classes at their quantiles.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from eocodec.lab.measures.dirty import standardised
    from eocodec.lab.measures.supervised.information import factor_bins

    alive = active_codes(codes, active, factors)
    if not alive.any():
        return 0.0
    fit, held = _split(len(codes), seed)
    z = standardised(codes[:, alive])
    areas = []
    for classes in factor_bins(factors, 10).T:
        if len(np.unique(classes[fit])) < 2:
            continue
        model = LogisticRegression(max_iter=300).fit(z[fit], classes[fit])
        chances = model.predict_proba(z[held])
        for place, c in enumerate(model.classes_):
            truth = classes[held] == c
            if truth.any() and not truth.all():
                areas.append(roc_auc_score(truth, chances[:, place]))
    return float(2 * np.mean(areas) - 1) if areas else 0.0
