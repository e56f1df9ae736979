"""Learning paths: an autoencoder and a mover on pictures under known transformations, and how equivariant they are.

    L = rec(x_0) + KL(q(z_0 | x_0) ‖ N(0, 1)) + Σ_t rec(x_t | z_t) + what the mover adds

rec is the Bernoulli negative log-likelihood, summed over pixels; the transformation is known and drawn for each batch.
With T = 0 the autoencoder learns alone; `encoded_paths` then gives what `eocodec.lab.paths.frozen` teaches movers, so
that all of them move the latents of one autoencoder.

References:
    Song, Keller, Sebe & Welling, *Flow factorized representation learning*, NeurIPS 2023.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eocodec.errors import EocodecError
from eocodec.flow.soap import Soap
from eocodec.lab.paths.movers import FlowMover, Mover
from eocodec.lab.paths.scenes import transformed
from eocodec.lab.subjects.divergence import check_loss
from eocodec.lab.subjects.objective import kl_divergence
from eocodec.lab.subjects.subject import Floats

__all__ = [
    "Equivariance",
    "PathModel",
    "PathTraining",
    "composition",
    "encoded_paths",
    "equivariance",
    "train_paths",
]


@dataclass(frozen=True)
class PathTraining:
    """Sizes and training, with a cosine to zero.

    Arguments:
        names: of the transformations, see `eocodec.lab.paths.scenes.TRANSFORMATIONS`.
        steps: T; 0 trains the autoencoder alone.
        latents: d.
        width: hidden units of encoder and decoder, two layers.
        iterations, batch, rate: of the optimiser.
        roam: the picture that a path starts from has been through 0 to so many steps of every transformation, drawn
            uniformly; 0 starts all paths from pictures that are plain.
        optimiser: "adam" or "soap" (`eocodec.flow.soap`).
        together: share of the batches in which a second transformation, drawn as well, goes on at the same time, and
            both displacements are added; of such batches only pictures are compared, for what a mover adds to the loss
            is known of one path.

    Raises:
        EocodecError: `together` with fewer than two names.
    """

    names: tuple[str, ...] = ("scale", "rotation", "hue")
    steps: int = 5
    latents: int = 12
    width: int = 256
    iterations: int = 1200
    batch: int = 64
    rate: float = 1e-3
    roam: float = 0.0
    optimiser: str = "adam"
    together: float = 0.0

    def __post_init__(self) -> None:
        if self.optimiser not in ("adam", "soap"):
            raise ValueError(f"The optimiser is adam or soap, not {self.optimiser}.")
        if self.together and len(self.names) < 2:
            raise EocodecError("together needs two transformations at least; name more of them, or leave it 0")


class PathModel(nn.Module):
    """An autoencoder of small pictures with a mover in its latent space.

    Arguments:
        shape: of a picture `(3, S, S)`.
        training: sizes and names.
        mover: what moves latents.
    """

    def __init__(self, shape: tuple[int, ...], training: PathTraining, mover: Mover) -> None:
        super().__init__()
        pixels, width, d = math.prod(shape), training.width, training.latents
        self.shape, self.names, self.mover = shape, training.names, mover
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2 * d),
        )
        self.decoder = nn.Sequential(
            nn.Linear(d, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances `(B, d)`."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of latents `(B, d)`, in 0 to 1."""
        return torch.sigmoid(self.decoder(z)).reshape(-1, *self.shape)

    def reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """Negative log-likelihood, summed over pixels, mean over the batch."""
        logits = self.decoder(z)
        return functional.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum") / len(x)


def train_paths(
    grey: Tensor,
    mover: Callable[[int, int], Mover],
    training: PathTraining = PathTraining(),
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> PathModel:
    """Train an autoencoder and a mover on grey pictures `(n, 1, S, S)` and their transformations.

    Arguments:
        grey: pictures in 0 to 1.
        mover: makes the mover from d and the number of transformations.
        training: sizes and lengths.
        seed: of weights, batches, transformations and noise.
        progress: called with the number of iterations done.

    Raises:
        EocodecError: the training diverges.
    """
    size = grey.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PathModel((3, size, size), training, mover(training.latents, len(training.names)))
    random = torch.Generator().manual_seed(seed)
    optimiser: torch.optim.Optimizer = (Soap if training.optimiser == "soap" else torch.optim.Adam)(
        model.parameters(), training.rate
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.iterations)
    times = torch.arange(training.steps + 1, dtype=grey.dtype).repeat_interleave(training.batch)
    for iteration in range(training.iterations):
        batch = grey[torch.randint(len(grey), (training.batch,), generator=random)]
        k = int(torch.randint(len(training.names), (), generator=random))
        done = {training.names[k]: times}
        other = None
        if training.together and float(torch.rand((), generator=random)) < training.together:
            other = (k + int(torch.randint(1, len(training.names), (), generator=random))) % len(training.names)
            done[training.names[other]] = times
        if training.roam:
            for name in training.names:
                before = training.roam * torch.rand(training.batch, generator=random)
                done[name] = done.get(name, 0) + before.repeat(training.steps + 1)
        targets = transformed(batch.repeat(training.steps + 1, 1, 1, 1), done)  # x_0 … x_T
        mean, log_variance = model.encode(targets[: training.batch])
        noise = torch.randn(mean.shape, generator=random)
        z = mean + torch.exp(0.5 * log_variance) * noise
        density = -0.5 * (noise.square() + log_variance + math.log(2 * math.pi)).sum(1)
        if other is None:
            path, loss = model.mover.travel(k, z, density, training.steps)
        else:
            path, loss = model.mover.superposed((k, other), z, training.steps), z.new_zeros(())
        recovered = (training.steps + 1) * model.reconstruction(targets, torch.cat([z, *path]))
        loss = loss + recovered + kl_divergence(mean, log_variance).mean()
        check_loss(loss, "the paths")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
        schedule.step()
        progress(iteration + 1)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encoded_paths(
    model: PathModel, grey: Tensor, steps: int, roam: float = 0.0, copies: int = 1, seed: int = 0
) -> tuple[Floats, Floats]:
    """Latents of pictures `(n, d)`, and of each transformation after every step `(K, T, n, d)`, means of the encoder.

    Arguments:
        model: its encoder should know pictures under several transformations.
        grey: `(m, 1, S, S)`; n is `copies · m`.
        steps: T.
        roam: see `PathTraining`.
        copies: of every picture; the first starts plain, the others where `roam` takes them.
        seed: of where they start.
    """
    random = torch.Generator().manual_seed(seed)
    start, ends = [], []
    for copy in range(copies):
        drawn = roam * min(copy, 1) * torch.rand((len(model.names), len(grey)), generator=random)
        before = dict(zip(model.names, drawn, strict=True))
        start.append(model.encode(transformed(grey, before))[0])
        after = [
            model.encode(transformed(grey, before | {name: before[name] + t}))[0]
            for name in model.names
            for t in range(1, steps + 1)
        ]
        ends.append(torch.stack(after).reshape(len(model.names), steps, len(grey), -1))
    return torch.cat(start).double().numpy(), torch.cat(ends, 2).double().numpy()


@dataclass(frozen=True)
class Equivariance:
    """How well paths follow a transformation.

    Arguments:
        name: of the transformation.
        error: `E_k = mean Σ_t ‖decode(z_t) − x_t‖₁`, over pixels and channels.
        standing_still: the same of x_0 in the place of the decoded pictures.
        autoencoding: the same of the targets, encoded and decoded.
        residual: mean |r| of the Hamilton–Jacobi equation along the paths; None without potentials.
    """

    name: str
    error: float
    standing_still: float
    autoencoding: float
    residual: float | None

    @property
    def relative(self) -> float:
        """`e_k`: 1 is standing still, 0 exact."""
        return self.error / self.standing_still


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().flatten(1).sum(1).mean())


@torch.no_grad()
def equivariance(model: PathModel, grey: Tensor, steps: int) -> list[Equivariance]:
    """Errors of every transformation on held-out grey pictures `(n, 1, S, S)`; more steps than trained extrapolate."""
    x = transformed(grey, {})
    z, _ = model.encode(x)
    out = []
    for k, name in enumerate(model.names):
        errors = [0.0, 0.0, 0.0]
        for t, z_t in enumerate(model.mover.path(k, z, steps), 1):
            target = transformed(grey, {name: torch.full((len(grey),), float(t))})
            again = model.decode(model.encode(target)[0])
            for place, guess in enumerate((model.decode(z_t), x, again)):
                errors[place] += _distance(guess, target)
        size = None
        if isinstance(model.mover, FlowMover):
            model.mover.travel(k, z, torch.zeros(len(z)), steps)
            size = model.mover.residual
        out.append(Equivariance(name, errors[0], errors[1], errors[2], size))
    return out


@torch.no_grad()
def composition(model: PathModel, grey: Tensor, pair: Sequence[str], steps: int = 2) -> dict[str, float]:
    """Errors of two transformations together, against pictures with both, `‖·‖₁` summed over pixels and channels.

    Arguments:
        model: with paths of both.
        grey: held-out pictures `(n, 1, S, S)`.
        pair: names of the two.
        steps: of each.

    Returns:
        `switch`, one path after the other; `superpose`, the sum of both displacements in every step; `standing still`;
        `autoencoding`, the target encoded and decoded.
    """
    x = transformed(grey, {})
    start, _ = model.encode(x)
    first, second = (model.names.index(name) for name in pair)
    switched = model.mover.path(second, model.mover.path(first, start, steps)[-1], steps)[-1]
    both = model.mover.superposed((first, second), start, steps)[-1]
    target = transformed(grey, {name: torch.full((len(grey),), float(steps)) for name in pair})
    return {
        "switch": _distance(model.decode(switched), target),
        "superpose": _distance(model.decode(both), target),
        "standing still": _distance(x, target),
        "autoencoding": _distance(model.decode(model.encode(target)[0]), target),
    }
