"""The training objectives: likelihood with manifold total correlation, and rate-distortion.

Notation (docs/METHOD.md): `f` flow, `g` its inverse, `J_i` the i-th column of ∂g/∂h, `H_i` explained entropy,
`I = E[Σ log ‖J_i‖ − log |det J|]` the manifold total correlation. The photo flow preserves volume and its last layer
is diagonal given the integers it conditions on, so `I = E[Σ log ‖∂g/∂h_i‖]`.

References:
    Galperin & Köthe, *Analyzing generative models by manifold entropic metrics*, AISTATS 2025.
    https://arxiv.org/abs/2410.19426
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LAGRANGE", "log_column_norms", "total_correlation"]

# Squared steps that one bit per sample is worth: D / (LAGRANGE · Δ²) joins R. High-resolution theory gives ln 2 / 6
# = 0.116 for the optimum at step Δ; dead zones and entropy coding of mostly-zero bands move it up.
LAGRANGE = 0.17


def log_column_norms(
    inverse: Callable[[list[Tensor]], Tensor], h: list[Tensor], band: int, channel: int, spacing: int
) -> Tensor:
    """Log-norms of some columns of ∂g/∂h, by one forward-mode product.

    Impulses in one channel of one band stand on a lattice of `spacing` pixels; the energy of the response inside the
    cell around an impulse is that column's squared norm, up to what leaks into neighbouring cells.

    Arguments:
        inverse: the decoder g, latents to pictures `(B, 3, H, W)`.
        h: latents at which to linearise.
        band: index into `h`.
        channel: channel of that band.
        spacing: lattice constant in pixels, a divisor of H and W.

    Returns:
        `(B, H / spacing, W / spacing)` natural logarithms.
    """
    height = h[-1].shape[-2] * 2
    stride = spacing * h[band].shape[-2] // height
    tangent = [torch.zeros_like(b) for b in h]
    offset = stride // 2
    tangent[band][:, channel, offset::stride, offset::stride] = 1.0

    def from_tuple(*latents: Tensor) -> Tensor:
        return inverse(list(latents))

    _, response = torch.func.jvp(from_tuple, tuple(h), tuple(tangent))
    energy = torch.nn.functional.avg_pool2d(response.square().sum(1, keepdim=True), spacing, divisor_override=1)
    return 0.5 * torch.log(energy[:, 0] + 1e-12)


def total_correlation(
    inverse: Callable[[list[Tensor]], Tensor], h: list[Tensor], generator: torch.Generator, spacing: int = 48
) -> Tensor:
    """Unbiased estimate of I in nats per latent: one random band and channel, drawn in proportion to its latents."""
    sizes = torch.tensor([float(b.shape[-1] * b.shape[-2]) for b in h for _ in range(b.shape[1])])
    k = int(torch.multinomial(sizes, 1, generator=generator))
    band = 0
    while k >= h[band].shape[1]:
        k -= h[band].shape[1]
        band += 1
    return log_column_norms(inverse, h, band, k, spacing).mean()
