"""Pictures under known transformations: grey pictures that are scaled, turned, coloured and shifted.

In: grey pictures `(B, 1, S, S)` in 0 to 1 and how much of each transformation. Out: `(B, 3, S, S)`. Transformations of
a picture compose by adding their amounts, so that the target of any composition of paths is known.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["TRANSFORMATIONS", "transformed"]

TRANSFORMATIONS = {"scale": 0.12, "rotation": math.radians(14), "hue": 0.11, "shift": 0.14}
"""What one step of each does: times, radians, turns of the colour circle, half edges to the right."""


def transformed(grey: Tensor, steps: dict[str, Tensor]) -> Tensor:
    """Pictures after some steps of each transformation; red, upright and in the middle where there are none.

    Arguments:
        grey: `(B, 1, S, S)`.
        steps: names to numbers of steps `(B,)`, which need not be whole.

    Example:
        >>> transformed(torch.rand(2, 1, 8, 8), {"hue": torch.tensor([0.0, 2.0])}).shape
        torch.Size([2, 3, 8, 8])
    """
    zero = torch.zeros(len(grey))
    amount = {name: unit * steps.get(name, zero) for name, unit in TRANSFORMATIONS.items()}
    scale = 1 / (1 + amount["scale"])
    cos, sin = scale * amount["rotation"].cos(), scale * amount["rotation"].sin()
    away = -amount["shift"]
    rows = [torch.stack([cos, sin, cos * away], 1), torch.stack([-sin, cos, -sin * away], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(grey.shape), align_corners=False)
    moved = functional.grid_sample(grey, grid, align_corners=False)
    # a hexagon of hues: each channel is 1 within a sixth of its colour, and 0 opposite to it
    distance = ((amount["hue"][:, None] - torch.tensor([0.0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5).abs()
    return moved * (2 - 6 * distance).clamp(0, 1)[:, :, None, None]
