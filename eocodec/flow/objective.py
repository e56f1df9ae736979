"""The training objectives: likelihood with manifold total correlation, and rate-distortion.

Notation (docs/METHOD.md): `f` flow, `g` its inverse, `J_i` the i-th column of ∂g/∂h, `H_i` explained entropy,
`I = E[Σ log ‖J_i‖ − log |det J|]` the manifold total correlation. The photo flow preserves volume and its last layer
is diagonal given the integers it conditions on, so `I = E[Σ log ‖∂g/∂h_i‖]`. Dense flows (`eocodec.flow.dense`)
learn by `L = NLL + λ I`, with one forward-mode product per batch for I.

References:
    Galperin & Köthe, *Analyzing generative models by manifold entropic metrics*, AISTATS 2025.
    https://arxiv.org/abs/2410.19426
    Galperin & Köthe, *Entropy-ordered flows*, 2026. https://arxiv.org/abs/2602.06940
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "LAGRANGE",
    "dense_log_column_norms",
    "dense_total_correlation",
    "draw_latents",
    "explained_entropy",
    "log_column_norms",
    "total_correlation",
]

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

    response = torch.func.jvp(from_tuple, tuple(h), tuple(tangent))[1]
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


def dense_log_column_norms(inverse: Callable[[Tensor], Tensor], z: Tensor, index: Tensor) -> Tensor:
    """`log ‖J_i(z)‖` by one forward-mode product, every sample of the batch with its own i.

    Arguments:
        inverse: the decoder g of a dense flow, `(B, D) -> (B, D)`, samples independent of each other.
        z: latents `(B, D)` at which to linearise.
        index: i for each sample, `(B,)`.

    Returns:
        `(B,)` natural logarithms.
    """
    one_hot = torch.nn.functional.one_hot(index, z.shape[1]).to(z)
    column = torch.func.jvp(inverse, (z,), (one_hot,))[1]
    return 0.5 * torch.log(column.square().sum(1) + 1e-30)


def draw_latents(batch: int, probability: Tensor, generator: torch.Generator | None, stratified: bool = True) -> Tensor:
    """One latent index per sample, each distributed as `probability (D,)`; `(batch,)`.

    Stratified draws are systematic: `batch` equidistant points with a common random offset on the cumulative
    distribution, dealt out to the samples at random. Each latent then occurs within one of `batch · probability`
    times, and every sample's own index is still distributed as `probability`.
    """
    if not stratified:
        return torch.multinomial(probability.cpu(), batch, replacement=True, generator=generator)
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (torch.arange(batch, dtype=torch.float64) + offset) / batch
    cumulative = probability.detach().cpu().double().cumsum(0)
    index = torch.searchsorted(cumulative / cumulative[-1], points, right=True).clamp(max=len(probability) - 1)
    return index[torch.randperm(batch, generator=generator)]


def dense_total_correlation(
    inverse: Callable[[Tensor], Tensor],
    z: Tensor,
    generator: torch.Generator | None,
    log_det: Tensor | None = None,
    weights: Tensor | None = None,
    stratified: bool = True,
) -> Tensor:
    """Unbiased estimate of I for each sample, in nats per sample, by one forward-mode product for the batch.

    `Σ_i log ‖J_i‖` is estimated by `log ‖J_i‖ / q_i`, i drawn from q.

    Arguments:
        inverse: the decoder g of a dense flow, `(B, D) -> (B, D)`.
        z: latents `(B, D)`, as the flow's forward gives them; gradients flow through them.
        generator: source of the draws, on the CPU.
        log_det: `log |det ∂f/∂x|` `(B,)` at the same points; None for a flow that preserves volume.
        weights: q up to a factor, `(D,)`, all positive; None draws uniformly.
        stratified: draw i systematically over the batch (see `draw_latents`); the mean over the batch varies less.

    Returns:
        `(B,)`; the mean over the batch estimates I.

    Raises:
        ValueError: a weight is not positive, for then the estimate would be biased.

    Example:
        >>> def decode(z):
        ...     return z * torch.tensor([3.0, 1.0, 0.5])
        >>> z = torch.randn(6, 3)
        >>> log_det = -torch.tensor(1.5).log().expand(6)
        >>> abs(dense_total_correlation(decode, z, None, log_det).mean().item()) < 1e-5
        True
    """
    batch, dim = z.shape
    if weights is None:
        weights = torch.ones(dim)
    if not bool((weights > 0).all()):
        raise ValueError("Every latent needs a positive weight.")
    probability = weights / weights.sum()
    index = draw_latents(batch, probability, generator, stratified).to(z.device)
    estimate = dense_log_column_norms(inverse, z, index) / probability.to(z)[index]
    return estimate if log_det is None else estimate + log_det


@torch.no_grad()
def explained_entropy(
    inverse: Callable[[Tensor], Tensor], z: Tensor, log_prior: Tensor, probes: int | None = None
) -> Tensor:
    """`H_i = E[−log p(z_i) + log ‖J_i‖]` of a dense flow, in nats; sorted descending it gives the order.

    Arguments:
        inverse: the decoder g of a dense flow, `(B, D) -> (B, D)`.
        z: latents `(B, D)` of samples of the data.
        log_prior: `log p(z_i)`, `(B, D)`.
        probes: forward-mode products, each with another latent for every sample. D (the default) takes every column
            at every sample, which is exact on these samples; fewer see a column at `probes · B / D` of them.

    Returns:
        `(D,)`. With all columns, `I = Σ H_i − E[NLL]`.

    Raises:
        ValueError: too few probes to see every column once.
    """
    batch, dim = z.shape
    probes = probes or dim
    if probes * batch < dim:
        raise ValueError(f"{probes} probes of {batch} samples do not reach all {dim} columns.")
    total, count = z.new_zeros(dim), z.new_zeros(dim)
    start = torch.arange(batch, device=z.device) * probes
    for k in range(probes):
        index = (start + k) % dim
        total.index_add_(0, index, dense_log_column_norms(inverse, z, index))
        count.index_add_(0, index, torch.ones_like(z[:, 0]))
    return total / count - log_prior.mean(0)
