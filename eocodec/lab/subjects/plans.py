"""Subjects as plans: frozen values, as a report's file holds them, that can be trained and kept.

A new kind of subject is a class with the methods of :class:`Plan` and one line in `PLANS`.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from eocodec.errors import EocodecError
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.subjects.flow import FlowSubject, FlowTraining, random_flow, train_flow
from eocodec.lab.subjects.linear import PrincipalComponents
from eocodec.lab.subjects.objective import METHODS, Weights
from eocodec.lab.subjects.subject import Floats, Subject
from eocodec.lab.subjects.vae import VAE, Autoencoder, Training, train_vae

__all__ = ["PLANS", "FaceModelPlan", "FlowPlan", "Plan", "PrincipalComponentsPlan", "VAEPlan", "plan_of"]

Progress = Callable[[int], object]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Plan(ABC):
    """A subject to be trained.

    Arguments:
        name: in reports; empty takes one from the kind.
    """

    kind: ClassVar[str]
    seeded: ClassVar[bool] = True
    """Whether another seed gives another subject."""

    name: str = ""

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or self.kind

    @property
    def iterations_of_training(self) -> int:
        """For progress; 0 for subjects that are computed at once."""
        return 0

    def size(self, data: Dataset) -> int:
        """Latents that the subject has at most."""
        return math.prod(data.shape)

    @abstractmethod
    def train(self, data: Dataset, seed: int, progress: Progress) -> tuple[Subject, State]:
        """The subject and what `restore` needs, which is empty where training takes no time."""

    @abstractmethod
    def restore(self, data: Dataset, state: State) -> Subject:
        """The subject that `train` made."""


def _components(data: Dataset, wanted: int) -> int:
    """Principal components that there are at most."""
    return min(wanted, len(data.train) - 1, math.prod(data.shape))


@dataclass(frozen=True)
class PrincipalComponentsPlan(Plan):
    """Principal components.

    Arguments:
        latents: K.
    """

    kind = "pca"
    seeded = False
    latents: int = 16

    @property
    def title(self) -> str:
        return self.name or "PCA"

    def size(self, data: Dataset) -> int:
        return _components(data, self.latents)

    def train(self, data: Dataset, seed: int, progress: Progress) -> tuple[Subject, State]:
        return self.restore(data, {}), {}

    def restore(self, data: Dataset, state: State) -> Subject:
        return PrincipalComponents.fit(data.train, self.latents, self.title)


@dataclass(frozen=True)
class VAEPlan(Plan):
    """A VAE of `eocodec.lab.subjects.objective.METHODS`, perhaps with other weights.

    Arguments:
        method: key of `METHODS`.
        latents: K.
        iterations, rate, batch, width: see `eocodec.lab.subjects.vae.Training`.
        weights: entries of `eocodec.lab.subjects.objective.Weights` that differ from the method's.
    """

    kind = "vae"
    method: str = "bfVAE"
    latents: int = 10
    iterations: int = 1500
    rate: float = 2e-3
    batch: int = 128
    width: int | None = None
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise EocodecError(f"no VAE is called {self.method}; known are: {', '.join(METHODS)}")
        self.objective()

    @property
    def title(self) -> str:
        return self.name or self.method

    @property
    def iterations_of_training(self) -> int:
        return self.iterations

    def size(self, data: Dataset) -> int:
        return self.latents

    def objective(self) -> Weights:
        """The weights of all terms.

        Raises:
            EocodecError: one is unknown or out of range.
        """
        known = {f.name: f for f in fields(Weights)}
        for key, value in self.weights.items():
            if key not in known:
                raise EocodecError(f"weights of {self.title} have no entry {key}; known are: {', '.join(known)}")
            if not _fits(key, value, known[key].default):
                raise EocodecError(f"{key} in the weights of {self.title} cannot be {value!r}")
        try:
            return dataclasses.replace(METHODS[self.method], **self.weights)
        except ValueError as e:
            raise EocodecError(f"weights of {self.title}: {e}") from None

    def train(self, data: Dataset, seed: int, progress: Progress) -> tuple[Subject, State]:
        training = Training(self.iterations, self.rate, self.batch, self.width)
        subject = train_vae(data.train, self.latents, self.objective(), training, seed, self.title, progress)
        return subject, dict(subject.net.state_dict())

    def restore(self, data: Dataset, state: State) -> Subject:
        net = Autoencoder(data.shape, self.latents, self.width)
        net.load_state_dict(state)
        return VAE(self.title, net, self.objective())


@dataclass(frozen=True)
class FlowPlan(Plan):
    """A dense entropy-ordered flow.

    Arguments:
        correlation: λ, the weight of the manifold total correlation.
        components: principal components of the samples that the flow sees; 0 is all of a vector.
        iterations, batch, rate, net_rate, pairs, width, start, optimiser: see
            `eocodec.lab.subjects.flow.FlowTraining`.
        noise: deviation of the noise added in training, in units of x; None takes that of the set.
    """

    kind = "flow"
    correlation: float = 1.0
    components: int = 0
    iterations: int = 1500
    batch: int = 256
    rate: float = 1e-2
    net_rate: float = 1e-3
    pairs: int = 2
    width: int = 64
    noise: float | None = None
    start: str = "random"
    optimiser: str = "adam"

    def __post_init__(self) -> None:
        self._training(0.0)

    def _training(self, noise: float) -> FlowTraining:
        """Sizes and lengths, with noise in units of what the flow sees.

        Raises:
            EocodecError: one is unknown.
        """
        sizes = (self.iterations, self.batch, self.rate, self.net_rate, self.pairs, self.width)
        try:
            return FlowTraining(*sizes, noise, start=self.start, optimiser=self.optimiser)
        except ValueError as e:
            raise EocodecError(f"{self.title}: {e}") from None

    @property
    def title(self) -> str:
        return self.name or f"flow λ = {self.correlation:g}"

    @property
    def iterations_of_training(self) -> int:
        return self.iterations

    def size(self, data: Dataset) -> int:
        return _components(data, self.components) if self.components else super().size(data)

    def _basis(self, data: Dataset) -> tuple[Floats, Floats, float] | None:
        if not self.components:
            if len(data.shape) > 1:
                raise EocodecError(f"{self.title}: a flow of pictures needs components, the size of their subspace")
            return None
        parts = PrincipalComponents.fit(data.train, self.components, self.title)
        return parts.mean, parts.rows, float(np.sqrt(np.square(parts.deviation).mean()))

    def train(self, data: Dataset, seed: int, progress: Progress) -> tuple[Subject, State]:
        basis = self._basis(data)
        noise = data.noise if self.noise is None else self.noise
        x = data.train.reshape(len(data.train), -1).astype(np.float64)
        unit = 1.0
        if basis:
            unit = basis[2]
            x = (x - basis[0]) @ basis[1].T / unit
        training = self._training(noise / unit)
        vectors = torch.from_numpy(x.astype(np.float32))
        flow = train_flow(vectors, self.correlation, training, seed, progress, self.title)
        return FlowSubject(self.title, flow, data.shape, noise, basis), dict(flow.state_dict())

    def restore(self, data: Dataset, state: State) -> Subject:
        basis = self._basis(data)
        flow = random_flow(len(basis[1]) if basis else data.shape[0], self.pairs, self.width)
        flow.load_state_dict(state)
        noise = data.noise if self.noise is None else self.noise
        return FlowSubject(self.title, flow, data.shape, noise, basis)


@dataclass(frozen=True)
class FaceModelPlan(Plan):
    """The flow of a bundle for aligned faces.

    Arguments:
        model: name or path of the bundle.
    """

    kind = "face"
    seeded = False
    model: str = "face64"

    @property
    def title(self) -> str:
        return self.name or self.model

    def train(self, data: Dataset, seed: int, progress: Progress) -> tuple[Subject, State]:
        return self.restore(data, {}), {}

    def restore(self, data: Dataset, state: State) -> Subject:
        from eocodec.lab.subjects.face import FaceSubject, bundled_flow

        flow, entropies = bundled_flow(self.model)
        size = flow.config.size
        if data.shape != (3, size, size):
            raise EocodecError(f"{self.title} takes pictures of {size}x{size} pixels in colour only")
        return FaceSubject(flow, entropies, self.title)


PLANS: dict[str, type[Plan]] = {
    plan.kind: cast(type[Plan], plan) for plan in (PrincipalComponentsPlan, VAEPlan, FlowPlan, FaceModelPlan)
}


def plan_of(values: dict[str, Any]) -> Plan:
    """The plan that a table of a report's file describes.

    Raises:
        EocodecError: the kind or an entry is unknown, or a value has the wrong type or range.
    """
    values = dict(values)
    kind = values.pop("kind", None)
    if kind not in PLANS:
        raise EocodecError(f"a subject's kind is one of {', '.join(PLANS)}, not {kind}")
    known = {f.name: f for f in fields(PLANS[kind])}
    for key, value in values.items():
        if key not in known:
            raise EocodecError(f"a subject of kind {kind} has no entry {key}; known are: {', '.join(known)}")
        if not _fits(key, value, known[key].default):
            raise EocodecError(f"{key} of a subject of kind {kind} cannot be {value!r}")
    return PLANS[kind](**values)


def _fits(key: str, value: Any, default: Any) -> bool:
    """Whether a value has the type of its default.

    Numbers are finite and positive, or not negative where the default is 0 or a real number.
    """
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, int):
        return type(value) is int and value >= (0 if default == 0 else 1)
    if isinstance(default, float) or (default is None and key == "noise"):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if default is None:
        return type(value) is int and value >= 1
    return isinstance(value, dict)
