"""FA sets: features made linearly from a few factors, in blocks that are known.

`x = L f + 0.3 ε`, every feature loads on one factor with magnitude in 0.8 to 1.2 and a random sign, then all features
are standardised. With uniform factors the factors are identifiable; with Gaussian factors only the sizes of the blocks
tell, and with equal blocks nothing does: `fa15-gauss-equal` is the negative control, on which no method can win.

References:
    Lang & Liu, bfVAE, 2026. https://arxiv.org/abs/2603.11242 (names and numbers of features; the rest is our reading)
"""

import math
from dataclasses import dataclass

import numpy as np

from eocodec.lab.data.dataset import Dataset, Floats
from eocodec.lab.measures.supervised.factors import Factors

__all__ = ["DESIGNS", "Design", "factor_analysis"]

NOISE = 0.3
LOADINGS = (0.8, 1.2)
SAMPLES = 4000


@dataclass(frozen=True)
class Design:
    """Blocks and factors of a set.

    Arguments:
        blocks: features of each factor.
        gaussian: Gaussian factors instead of uniform ones, both of variance 1.
        warp: features pass through tanh before the noise.
    """

    blocks: tuple[int, ...]
    gaussian: bool = False
    warp: bool = False


DESIGNS = {
    "fa15": Design((5, 5, 5)),
    "fa15-gauss": Design((8, 4, 3), gaussian=True),
    "fa15-gauss-equal": Design((5, 5, 5), gaussian=True),
    "fa24": Design((9, 6, 5, 4)),
    "fa100": Design((10,) * 10),
    "fa100-tanh": Design((10,) * 10, warp=True),
}


def factor_analysis(name: str, samples: int = SAMPLES, seed: int = 0) -> Dataset:
    """A set of the design of this name; as many samples are held out as there are to train on.

    Arguments:
        name: key of `DESIGNS`.
        samples: to train on.
        seed: of loadings, factors and noise.

    Raises:
        KeyError: there is no such design.

    Example:
        >>> factor_analysis("fa15", 100).train.shape
        (100, 15)
    """
    design = DESIGNS[name]
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(design.blocks)), design.blocks)
    loading = random.uniform(*LOADINGS, len(owner)) * random.choice([-1.0, 1.0], len(owner))

    def draw() -> tuple[Floats, Floats]:
        size = (samples, len(design.blocks))
        f = random.standard_normal(size) if design.gaussian else random.uniform(-math.sqrt(3), math.sqrt(3), size)
        x = f[:, owner] * loading
        return f, (np.tanh(x) if design.warp else x) + NOISE * random.standard_normal((samples, len(owner)))

    (_, x), (factors, y) = draw(), draw()
    mean, deviation = x.mean(0), x.std(0)
    names = tuple(f"f{k + 1}.{j + 1}" for k, size in enumerate(design.blocks) for j in range(size))
    train, held_out = (((a - mean) / deviation).astype(np.float32) for a in (x, y))
    return Dataset(name, train, held_out, Factors.continuous(factors), names, noise=NOISE / float(deviation.mean()))
