"""SSIMULACRA2 in torch, with gradients: how far a picture is from another one for an eye.

In: pictures `(B, 3, H, W)` in [0, 1], nominally sRGB. Out: the metric's weighted sum of errors, before its last
nonlinear map, or the score (100: no difference; 90: not visible; 70: high; 50: medium; 30: low quality).

At each of six scales, halved in linear light, three perceptual colour axes are compared by structural similarity and by
how much stronger or weaker the edges have become, in the mean and in the 4-norm; 108 weights fitted to people's
judgements add them up. The weights come from the package `ssimulacra2`.

References:
    Sneyers, *SSIMULACRA 2: structural similarity unveiling local and compression related artifacts*.
    https://github.com/cloudinary/ssimulacra2
    Sneyers et al., *CID22: a large-scale subjective quality assessment for high fidelity image compression*, 2023.
    https://doi.org/10.1109/TIP.2023
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["eye_error", "score", "structure_error"]

SCALES = 6
SMALLEST = 8  # pixels; scales smaller than this are left out
STABLE = 0.0009
SIGMA, RADIUS = 1.5, 5
STRUCTURE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's scales
ABSORBANCE = (
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
BIAS = 0.0037930732552754493


@functools.cache
def _weights(device: torch.device) -> Tensor:
    """Weights `(scale, axis, norm, kind)`: norms 1 and 4; structure, new edges, lost edges."""
    from ssimulacra2.ssimulacra2 import weights

    table = torch.tensor(weights, dtype=torch.float32).reshape(3, SCALES, 2, 3).transpose(0, 1).contiguous()
    return table.to(device)


@functools.cache
def _absorbance(device: torch.device) -> Tensor:
    """Responses to linear light, as a kernel."""
    return torch.tensor(ABSORBANCE)[:, :, None, None].to(device)


def eye_error(x: Tensor, y: Tensor) -> Tensor:
    """The metric's weighted sum of errors `(B,)` of pictures y against x; 0 where nothing differs.

    Grows with the square of small errors. Each picture must be at least 8 pixels wide and high. Scales that a picture
    is too small for add nothing; where one is missing (below 225 pixels) other programs give the weights of one axis to
    another.
    """
    both = torch.cat([x, y]).float()
    light = torch.where(both <= 0.04045, both / 12.92, ((both.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    total = torch.zeros(len(x), device=x.device)
    for scale in range(SCALES):
        if min(light.shape[2:]) < SMALLEST:
            break
        weights = _weights(x.device)[scale]
        total = total + (_differences(*_axes(light).chunk(2)) * weights).sum((1, 2, 3))
        light = functional.avg_pool2d(light, 2, ceil_mode=True, count_include_pad=False)
    return total * 0.9562382616834844


def score(x: Tensor, y: Tensor) -> Tensor:
    """SSIMULACRA2 `(B,)` of pictures y against x."""
    e = eye_error(x, y)
    mapped = 2.326765642916932 * e - 0.020884521182843837 * e**2 + 6.248496625763138e-05 * e**3
    return 100 - 10 * mapped.clamp(min=0) ** 0.6276336467831387


def structure_error(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale error of contrast and structure `(B,)` of pictures y against x, mean over R, G and B; 0: the same.

    One less the contrast-structure term of SSIM at each of five scales, summed with the weights of MS-SSIM; scales
    smaller than 8 pixels are left out.

    References:
        Wang, Simoncelli & Bovik, *Multiscale structural similarity for image quality assessment*, 2003.
        https://doi.org/10.1109/ACSSC.2003.1292216
    """
    total = torch.zeros(len(x), device=x.device)
    for weight in STRUCTURE_WEIGHTS:
        if min(x.shape[2:]) < SMALLEST:
            break
        _, _, structure = _structure(x, y)
        total = total + weight * (1 - structure.mean((1, 2, 3)))
        x, y = (functional.avg_pool2d(v, 2) for v in (x, y))
    return total


def _axes(light: Tensor) -> Tensor:
    """The metric's perceptual axes, about 0 to 1, of linear light."""
    mixed = (functional.conv2d(light, _absorbance(light.device)) + BIAS).clamp(min=1e-6)
    response = mixed ** (1 / 3) - math.cbrt(BIAS)
    long, middle, short = response.unbind(1)
    y = 0.5 * (long + middle)
    return torch.stack([0.5 * (long - middle) * 14 + 0.42, y + 0.01, short - y + 0.55], 1)


@functools.cache
def _blurring(size: int, mirrored: bool, device: torch.device) -> Tensor:
    """The blur of σ = 1.5 of `size` samples in a row as a matrix; beyond the ends they are mirrored, or zero."""
    k = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64) ** 2) / (2 * SIGMA**2))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for offset, weight in zip(range(-RADIUS, RADIUS + 1), k / k.sum(), strict=True):
        for row in range(size):
            column = row + offset
            if mirrored:
                column = -column - 1 if column < 0 else 2 * size - 1 - column if column >= size else column
            if 0 <= column < size:
                matrix[row, column] += weight
    return matrix.float().to(device)


def _blur(x: Tensor) -> Tensor:
    """Blur as the metric does it: mirrored above and below, zero left and right. Products suit training's crops."""
    rows = _blurring(x.shape[2], True, x.device)
    columns = _blurring(x.shape[3], False, x.device)
    return rows @ (x @ columns.T)


def _structure(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both pictures blurred, and the contrast-structure term of SSIM at every place."""
    n = len(x)
    blurred = _blur(torch.cat([x, y, x * x, y * y, x * y]))
    a, b, aa, bb, ab = (blurred[k * n : (k + 1) * n] for k in range(5))
    return a, b, (2 * (ab - a * b) + STABLE) / ((aa - a * a) + (bb - b * b) + STABLE)


def _differences(x: Tensor, y: Tensor) -> Tensor:
    """Means over each picture, `(B, axis, norm, kind)`."""
    a, b, structure = _structure(x, y)
    missed = (1 - (1 - (a - b).square()) * structure).clamp(min=0)
    edges = (1 + (y - b).abs()) / (1 + (x - a).abs()) - 1
    maps = torch.stack([missed, edges.clamp(min=0), (-edges).clamp(min=0)], 2)
    fourth = (maps.square().square().mean((3, 4)) + 1e-16) ** 0.25
    return torch.stack([maps.mean((3, 4)), fourth], 2)
