"""Variational autoencoders: nets, training by the objective of bfVAE, and the trained net as a subject."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eocodec.lab.subjects.divergence import check_loss
from eocodec.lab.subjects.objective import (
    Discriminator,
    Weights,
    covariance_penalty,
    equicorrelation,
    kl_divergence,
    stratified_total_correlation,
)
from eocodec.lab.subjects.subject import Float32, TorchSubject

__all__ = ["VAE", "Autoencoder", "Training", "train_vae"]

VARIANCE = 0.1  # of the Gaussian likelihood of standardised features
CLIP = 10.0
DISCRIMINATOR_RATE, DISCRIMINATOR_BETAS = 1e-3, (0.5, 0.9)


class Autoencoder(nn.Module):
    """Encoder and decoder nets; the likelihood is Gaussian for vectors and Bernoulli for pictures.

    Arguments:
        shape: of a sample, `(p,)` or `(C, S, S)`, S a multiple of 8.
        latents: K.
        width: hidden units for vectors, two layers of tanh; channels of the first convolution for pictures.
    """

    def __init__(self, shape: tuple[int, ...], latents: int, width: int | None = None) -> None:
        super().__init__()
        self.shape, self.latents = shape, latents
        self.pictures = len(shape) == 3
        if self.pictures:
            self._pictures(shape, latents, width or 32)
        else:
            width = width or 64
            self.encoder = _dense([shape[0], width, width, 2 * latents])
            self.decoder = _dense([latents, width, width, shape[0]])

    def _pictures(self, shape: tuple[int, ...], latents: int, width: int) -> None:
        """Convolutions of 4×4 and stride 2 down to 4×4 or less, one dense layer, and the mirror image."""
        channels, size = shape[0], shape[1]
        widths = [channels, width]
        while size > 2 * 4:
            size //= 2
            widths.append(2 * width if size <= 8 else width)
        size = shape[1] >> (len(widths) - 1)
        hidden = 128 if shape[1] <= 32 else 256
        down: list[nn.Module] = []
        for a, b in pairwise(widths):
            down += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
        flat = widths[-1] * size * size
        self.encoder = nn.Sequential(
            *down, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents)
        )
        up: list[nn.Module] = []
        for a, b in pairwise(reversed(widths)):
            up += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden),
            nn.ReLU(),
            nn.Linear(hidden, flat),
            nn.Unflatten(1, (widths[-1], size, size)),
            *up,
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances `(B, K)`."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Expected samples: means, or probabilities of pixels."""
        return torch.sigmoid(self.decoder(z)) if self.pictures else self.decoder(z)

    def reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """`−log p(x | z)` up to a constant, `(B,)`, summed over features."""
        out = self.decoder(z)
        if self.pictures:
            return functional.binary_cross_entropy_with_logits(out, x, reduction="none").flatten(1).sum(1)
        return (out - x).square().sum(1) / (2 * VARIANCE)


def _dense(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Training:
    """How a VAE is trained, by Adam with a cosine to zero.

    Arguments:
        iterations: of the optimiser.
        rate: learning rate at the start.
        batch: samples an iteration.
        width: see `Autoencoder`.
    """

    iterations: int = 1500
    rate: float = 2e-3
    batch: int = 128
    width: int | None = None


class VAE(TorchSubject):
    """A trained autoencoder.

    Arguments:
        name: in reports.
        net: the nets.
        weights: of the objective.
    """

    def __init__(self, name: str, net: Autoencoder, weights: Weights) -> None:
        super().__init__(name, net.latents, VARIANCE**0.5 if not net.pictures else 0.1)
        self.net, self.weights = net.eval().requires_grad_(False), weights
        if weights.correlation:
            self.correlation = equicorrelation(net.latents, weights.correlation).double().numpy()

    def push(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.net.encode(x)

    def pull(self, z: Tensor) -> Tensor:
        return self.net.decode(z)


def train_vae(
    x: Float32,
    latents: int,
    weights: Weights,
    training: Training = Training(),
    seed: int = 0,
    name: str = "VAE",
    progress: Callable[[int], object] = lambda done: None,
) -> VAE:
    """Train on samples `(n, *shape)`.

    Terms whose weight is zero are not computed and draw no random numbers: an ablation is bit for bit the method that
    it is named after.

    Arguments:
        x: samples; pictures in 0 to 1.
        latents: K.
        weights: of the objective.
        training: length and speed.
        seed: of weights, batches and noise.
        name: in reports.
        progress: called with the number of iterations done.

    Raises:
        EocodecError: the training diverges.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Autoencoder(tuple(x.shape[1:]), latents, training.width)
    data = torch.from_numpy(np.ascontiguousarray(x))
    random = torch.Generator().manual_seed(seed)
    correlation = equicorrelation(latents, weights.correlation) if weights.correlation else None
    root = None if correlation is None else torch.linalg.cholesky(correlation)
    rival = weights.total_correlation != 0 and weights.estimator == "density-ratio"
    discriminator = Discriminator(latents, seed=seed + 1) if rival else None
    optimiser = torch.optim.Adam(net.parameters(), training.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.iterations)
    chase = None
    if discriminator:
        chase = torch.optim.Adam(discriminator.parameters(), DISCRIMINATOR_RATE, DISCRIMINATOR_BETAS)
    before: Tensor | None = None  # samples of the batch before, which is independent of this one
    for k in range(training.iterations):
        batch = data[torch.randint(len(data), (training.batch,), generator=random)]
        mean, log_variance = net.encode(batch)
        noise = torch.randn(mean.shape, generator=random)
        z = mean + torch.exp(0.5 * log_variance) * (noise if root is None else noise @ root.T)
        kl = kl_divergence(mean, log_variance, correlation).mean()
        capacity = weights.capacity * min(1.0, k / weights.ramp)
        now = weights.warmed(k)
        loss = net.reconstruction(batch, z).mean() + now.kl * (kl - capacity).abs()
        if discriminator:
            loss = loss + weights.total_correlation * discriminator.total_correlation(z)
        elif weights.total_correlation:
            tc = stratified_total_correlation(z, mean, log_variance, len(data), correlation)
            loss = loss + weights.total_correlation * tc
        if now.off_diagonal or now.diagonal:
            loss = loss + covariance_penalty(mean, log_variance, now)
        check_loss(loss, name)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        if discriminator and chase:
            if before is not None:
                chase.zero_grad()
                torch.autograd.backward(discriminator.loss(z, before))
                chase.step()
            before = z.detach()
        progress(k + 1)
    return VAE(name, copy.deepcopy(net), weights)
