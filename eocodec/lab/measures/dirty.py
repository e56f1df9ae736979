"""DBSR-LS: sparse regression of features on latents by the dirty model, block-sparse plus element-sparse.

In: codes `Z (n, K)`, features `X (n, p)`. Out: coefficients `B` whose rows are all used or not at all (a latent that
drives many features), and `S` with single entries (a latent that drives few).

References:
    Jalali, Ravikumar, Sanghavi & Ruan, *A dirty model for multi-task learning*, NIPS 2010.
    Beck & Teboulle, *A fast iterative shrinkage-thresholding algorithm*, 2009. https://doi.org/10.1137/080716542
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (the name; the form is our reading, see docs/LAB.md)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite

__all__ = ["BLOCK", "ELEMENT", "SUPPORT", "DirtyModel", "dirty_model", "dirty_model_by_validation", "standardised"]

BLOCK, ELEMENT = 0.3, 0.05  # weights of the penalties
SUPPORT = 0.02  # of a coefficient that counts
TOLERANCE = 1e-6
ITERATIONS = 2000
RATIO = 6.0  # of the weights where they are chosen by validation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DirtyModel:
    """Coefficients of the dirty model, latents by features.

    Arguments:
        block: B `(K, p)`.
        element: S `(K, p)`.
        weights: of the two penalties.
    """

    block: Floats
    element: Floats
    weights: tuple[float, float]

    @property
    def association(self) -> Floats:
        """`D = (B + S)²` `(K, p)`: explained variance, but for the shrinkage."""
        return np.square(self.block + self.element)

    @property
    def support(self) -> npt.NDArray[np.bool_]:
        """Coefficients that count, `(K, p)`."""
        return np.abs(self.block + self.element) > SUPPORT

    @property
    def shared(self) -> npt.NDArray[np.bool_]:
        """Latents with a row in B: those that drive many features, `(K,)`."""
        return np.abs(self.block).max(1) > SUPPORT


def standardised(x: Floats) -> Floats:
    """Columns with mean 0 and deviation 1; constant ones become 0.

    Raises:
        EocodecError: values are not finite.
    """
    x = finite(x, "values")
    deviation = x.std(0)
    steady = deviation <= 1e-9 * max(1.0, float(np.abs(x).max(initial=0.0)))
    return np.where(steady, 0.0, (x - x.mean(0)) / np.where(steady, 1.0, deviation))


def _soft(x: Floats, t: float) -> Floats:
    return np.sign(x) * np.maximum(np.abs(x) - t, 0.0)


def _clip_rows(x: Floats, t: float) -> Floats:
    """Proximal map of `t · max_j |x_kj|`: the row minus its projection on the l1 ball of radius t."""
    ordered = -np.sort(-np.abs(x), axis=1)
    ranks = np.arange(1, x.shape[1] + 1)
    levels = (np.cumsum(ordered, axis=1) - t) / ranks
    last = np.maximum((ordered > levels).sum(1), 1) - 1
    level = np.maximum(levels[np.arange(len(x)), last], 0.0)
    return np.clip(x, -level[:, None], level[:, None])


def _shrink_rows(x: Floats, t: float) -> Floats:
    """Proximal map of `t · ‖x_k‖`."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x * np.maximum(1 - t / np.maximum(norm, 1e-300), 0.0)


def dirty_model(
    codes: Floats, features: Floats, block: float = BLOCK, element: float = ELEMENT, rows: str = "max"
) -> DirtyModel:
    """Minimise `1/(2n) ‖X − Z (B + S)‖² + block · Σ_k ‖B_k‖ + element · Σ |S_kj|` by FISTA with restarts.

    Arguments:
        codes: `(n, K)`; standardised here, constant columns become 0.
        features: `(n, p)`; standardised here.
        block, element: weights. `element >= block` makes S zero, `block >= p · element` makes B zero.
        rows: norm of the rows of B, "max" as in the paper, or "l2".

    Raises:
        ValueError: another norm, or a weight that is not positive.
        EocodecError: codes or features are not finite.
    """
    if rows not in ("max", "l2"):
        raise ValueError(f"The norm of rows is max or l2, not {rows}.")
    if not (block > 0 and element > 0):
        raise ValueError("The weights of the dirty model must be positive.")
    z, x = standardised(codes), standardised(features)
    gram, cross = z.T @ z / len(z), z.T @ x / len(z)
    return _solve(gram, cross, block, element, rows)


def _solve(gram: Floats, cross: Floats, block: float, element: float, rows: str) -> DirtyModel:
    shrink_rows = _clip_rows if rows == "max" else _shrink_rows
    step = 1 / max(2 * float(np.linalg.eigvalsh(gram)[-1]), 1e-12)
    b = s = ahead_b = ahead_s = np.zeros_like(cross)
    momentum = 1.0
    for _ in range(ITERATIONS):
        gradient = gram @ (ahead_b + ahead_s) - cross
        new_b = shrink_rows(ahead_b - step * gradient, step * block)
        new_s = _soft(ahead_s - step * gradient, step * element)
        change = max(float(np.abs(new_b - b).max()), float(np.abs(new_s - s).max()))
        uphill = np.sum((ahead_b - new_b) * (new_b - b)) + np.sum((ahead_s - new_s) * (new_s - s)) > 0
        momentum, before = (1.0, 1.0) if uphill else ((1 + np.sqrt(1 + 4 * momentum**2)) / 2, momentum)
        pull = (before - 1) / momentum
        ahead_b, ahead_s = new_b + pull * (new_b - b), new_s + pull * (new_s - s)
        b, s = new_b, new_s
        if change < TOLERANCE * step:
            break
    return DirtyModel(b, s, (block, element))


def dirty_model_by_validation(
    codes: Floats, features: Floats, seed: int = 0, folds: int = 5, points: int = 12
) -> DirtyModel:
    """The largest weights, `block = 6 · element`, whose fold error is within one standard error of the best.

    Arguments:
        codes, features: as for `dirty_model`.
        seed: of the folds.
        folds: parts of the data.
        points: of the logarithmic grid of `element`, 0.002 to 0.2.
    """
    z, x = standardised(codes), standardised(features)
    part = np.random.default_rng(seed).permutation(len(z)) % folds
    grid = np.geomspace(0.2, 0.002, points)
    errors = np.zeros((points, folds))
    for fold in range(folds):
        seen, held = part != fold, part == fold
        gram, cross = z[seen].T @ z[seen] / seen.sum(), z[seen].T @ x[seen] / seen.sum()
        for k, weight in enumerate(grid):
            found = _solve(gram, cross, RATIO * weight, weight, "max")
            errors[k, fold] = np.square(x[held] - z[held] @ (found.block + found.element)).mean()
    mean, deviation = errors.mean(1), errors.std(1, ddof=1) / np.sqrt(folds)
    best = int(mean.argmin())
    chosen = grid[int(np.flatnonzero(mean <= mean[best] + deviation[best])[0])]
    return dirty_model(codes, features, RATIO * chosen, chosen)
