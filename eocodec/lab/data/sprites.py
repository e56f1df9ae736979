"""Sprites: one white or coloured shape on black, five factors or six, rendered here.

Factors as in dSprites: shape 3 (square, ellipse, heart), scale 6, rotation 40, x 32, y 32, and hue if wanted. Rotations
cover a quarter turn, in which no two pictures of a shape are alike (a whole turn shows the square four times).

References:
    Matthey et al., *dSprites*, 2017. https://github.com/google-deepmind/dsprites-dataset
"""

import math

import numpy as np
import numpy.typing as npt

from eocodec.lab.data.dataset import Dataset, Float32, Floats, pooled
from eocodec.lab.measures.supervised.factors import Factors

__all__ = ["LEVELS", "SHAPES", "render", "sprites"]

SHAPES = ("square", "ellipse", "heart")
LEVELS = {"shape": 3, "scale": 6, "rotation": 40, "x": 32, "y": 32}
SUPERSAMPLING = 3
BATCH = 500


def _inside(shape: npt.NDArray[np.int64], u: Floats, v: Floats) -> npt.NDArray[np.bool_]:
    """Whether points are inside shapes of about equal area, by shape `(n, 1, 1)`."""
    square = np.maximum(np.abs(u), np.abs(v)) < 0.8
    ellipse = u**2 + (v / 0.6) ** 2 < 1.2
    w, t = 1.15 * u, -1.15 * v + 0.1
    heart = (w**2 + t**2 - 1) ** 3 < w**2 * t**3
    return np.where(shape == 0, square, np.where(shape == 1, ellipse, heart))


def render(
    shape: npt.NDArray[np.int64],
    scale: Floats,
    rotation: Floats,
    x: Floats,
    y: Floats,
    hue: Floats | None = None,
    size: int = 32,
) -> Float32:
    """Anti-aliased pictures `(n, C, size, size)` in 0 to 1, one channel, or three with hue.

    Arguments:
        shape: 0 to 2, `(n,)`; all arguments have one entry a picture.
        scale: half the extent of the shape, in edges of the picture.
        rotation: radians.
        x, y: centre, in edges of the picture.
        hue: of full saturation, 0 to 1; None renders white in one channel.
        size: edge in pixels.

    Example:
        >>> zero = np.zeros(1)
        >>> render(np.array([0]), zero + 0.2, zero, zero + 0.5, zero + 0.5).shape
        (1, 1, 32, 32)
    """
    fine = size * SUPERSAMPLING
    row, column = np.meshgrid(*2 * [(np.arange(fine) + 0.5) / fine], indexing="ij")
    out = np.empty((len(shape), size, size), np.float32)
    for start in range(0, len(shape), BATCH):
        part = slice(start, start + BATCH)
        kind = shape[part, None, None]
        s, angle, a, b = (v[part, None, None] for v in (scale, rotation, x, y))
        c, d = np.cos(angle) / s, np.sin(angle) / s
        inside = _inside(kind, (column - a) * c + (row - b) * d, (row - b) * c - (column - a) * d)
        cells = inside.reshape(-1, size, SUPERSAMPLING, size, SUPERSAMPLING)
        out[part] = cells.mean((2, 4), dtype=np.float32)
    if hue is None:
        return out[:, None]
    # a hexagon of hues: each channel is 1 within a sixth of its colour, and 0 opposite to it
    distance = np.abs((hue[:, None] - np.array([0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5)
    colour = np.clip(2 - 6 * distance, 0, 1).astype(np.float32)
    return out[:, None] * colour[:, :, None, None]


def sprites(samples: int = 6000, hue: bool = False, seed: int = 0) -> Dataset:
    """Sprites with factors drawn uniformly; a third as many are held out.

    Example:
        >>> sprites(6).factors.names
        ('shape', 'scale', 'rotation', 'x', 'y')
    """
    random = np.random.default_rng(seed)
    levels = LEVELS | ({"hue": 24} if hue else {})

    def draw(count: int) -> tuple[Float32, Floats]:
        values = {name: random.integers(n, size=count) for name, n in levels.items()}
        pictures = render(
            values["shape"],
            np.float64(0.13) + np.float64(0.02) * values["scale"],
            values["rotation"] * np.float64(math.pi / 2 / levels["rotation"]),
            0.3 + 0.4 * values["x"] / (levels["x"] - 1),
            0.3 + 0.4 * values["y"] / (levels["y"] - 1),
            values["hue"] / levels["hue"] if hue else None,
        )
        return pictures, np.stack([v.astype(np.float64) for v in values.values()], 1)

    train, _ = draw(samples)
    held_out, factors = draw(max(1, samples // 3))
    channels = train.shape[1]
    names = tuple(f"{'rgb'[c] if channels > 1 else ''}{r + 1},{k + 1}" for c in range(channels)
                  for r in range(8) for k in range(8))  # fmt: skip
    discrete = tuple(name == "shape" for name in levels)
    known = Factors(factors, discrete, tuple(levels))
    return Dataset("sprites-hue" if hue else "sprites", train, held_out, known, names, pooled, 0.1, pictures=True)
