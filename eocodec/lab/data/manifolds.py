"""Sets on known manifolds: a torus whose entropies are known exactly, and two moons.

References:
    Galperin & Köthe, *Analyzing generative models by manifold entropic metrics*, AISTATS 2025.
    https://arxiv.org/abs/2410.19426
"""

import math

import numpy as np

from eocodec.lab.data.dataset import Dataset, Floats
from eocodec.lab.measures.manifold import H0

__all__ = ["torus", "torus_spectrum", "two_moons"]

ANGLES = 0.44 * np.exp(np.linspace(-1.5, 0, 10))
RADII = 0.05 * np.exp(np.linspace(-1.5, 0, 10))


def torus(samples: int = 20000, seed: int = 0, circles: int = len(ANGLES)) -> Dataset:
    """Circles, angles `N(π/2, s_k)` and radii `N(1, t_k)`, each in two of the dimensions, which are turned at random.

    Arguments:
        samples: for training; at most 2000 more are held out.
        seed: of samples and turn.
        circles: ten, or fewer of them, those that spread most.

    Example:
        >>> torus(10).train.shape
        (10, 20)
    """
    random = np.random.default_rng(seed)
    dims = 2 * circles
    turn = np.linalg.qr(random.standard_normal((dims, dims)))[0]

    def draw(count: int) -> Floats:
        angle = math.pi / 2 + ANGLES[-circles:] * random.standard_normal((count, circles))
        radius = 1 + RADII[-circles:] * random.standard_normal((count, circles))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle) - 1], 2)
        return points.reshape(count, dims) @ turn

    train, held_out = (draw(n).astype(np.float32) for n in (samples, min(samples, 2000)))
    names = tuple(f"x{k + 1}" for k in range(dims))
    return Dataset("torus", train, held_out, None, names, noise=float(RADII.min()) / 10)


def torus_spectrum(circles: int = len(ANGLES)) -> Floats:
    """True explained entropies of the torus' angles and radii, falling, in nats: `H0 + log s`, `(2 circles,)`."""
    return np.sort(H0 + np.log(np.concatenate([ANGLES[-circles:], RADII[-circles:]])))[::-1]


def two_moons(samples: int = 10000, noise: float = 0.1, seed: int = 0) -> Dataset:
    """Two interleaving half circles of radius 1 with Gaussian noise, as scikit-learn draws them.

    Example:
        >>> two_moons(10).held_out.shape
        (10, 2)
    """
    from sklearn.datasets import make_moons

    train, held_out = (
        make_moons(n, noise=noise, random_state=seed + k)[0].astype(np.float32)
        for k, n in enumerate((samples, min(samples, 4000)))
    )
    return Dataset("moons", train, held_out, None, ("x", "y"), noise=noise)
