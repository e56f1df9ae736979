"""The fixed base wavelet of the photo flow: one 2-D level of CDF 9/7 by lifting, in torch.

In: a picture or low-pass `(B, C, H, W)` with even H and W. Out: low-pass `(B, C, H/2, W/2)` and details
`(B, 3C, H/2, W/2)` ordered channel-major, orientation-minor (HL, LH, HH). The borders are extended symmetrically,
and the inverse undoes each lifting step, so the round trip is exact up to float rounding.

References:
    Daubechies & Sweldens, *Factoring wavelet transforms into lifting steps*, 1998.
    https://doi.org/10.1007/BF02476026
"""

import torch
from torch import Tensor

__all__ = ["analyse", "synthesise"]

# Predict, update, predict, update of CDF 9/7; SCALE makes the transform near-orthonormal.
STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
SCALE = 1.149604398860241


def _next(s: Tensor, dim: int) -> Tensor:
    """s[n + 1] along `dim` (2 or 3), the last sample repeated (whole-sample symmetric extension)."""
    return torch.cat([s[:, :, 1:], s[:, :, -1:]], 2) if dim == 2 else torch.cat([s[..., 1:], s[..., -1:]], 3)


def _previous(d: Tensor, dim: int) -> Tensor:
    """d[n - 1] along `dim` (2 or 3), the first sample repeated."""
    return torch.cat([d[:, :, :1], d[:, :, :-1]], 2) if dim == 2 else torch.cat([d[..., :1], d[..., :-1]], 3)


def _split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    s, d = (x[..., 0::2, :], x[..., 1::2, :]) if dim == 2 else (x[..., 0::2], x[..., 1::2])
    for k, a in enumerate(STEPS):
        if k % 2 == 0:
            d = d + a * (s + _next(s, dim))
        else:
            s = s + a * (d + _previous(d, dim))
    return s * SCALE, d * (1 / SCALE)


def _merge(s: Tensor, d: Tensor, dim: int) -> Tensor:
    s, d = s * (1 / SCALE), d * SCALE
    for k, a in reversed(list(enumerate(STEPS))):
        if k % 2 == 0:
            d = d - a * (s + _next(s, dim))
        else:
            s = s - a * (d + _previous(d, dim))
    return torch.stack([s, d], dim + 1).flatten(dim, dim + 1)


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split `(B, C, H, W)` into low-pass `(B, C, H/2, W/2)` and details `(B, 3C, H/2, W/2)`."""
    low, high = _split(x, 3)
    ll, lh = _split(low, 2)
    hl, hh = _split(high, 2)
    return ll, torch.stack([hl, lh, hh], 2).flatten(1, 2)


def synthesise(ll: Tensor, details: Tensor) -> Tensor:
    """Inverse of :func:`analyse`."""
    hl, lh, hh = (details[:, k::3] for k in range(3))
    return _merge(_merge(ll, lh, 2), _merge(hl, hh, 2), 3)
