"""Principal components as a subject."""

import warnings
from dataclasses import dataclass

import numpy as np

from eocodec.errors import EocodecError, EocodecWarning
from eocodec.lab.subjects.subject import Float32, Floats, Posterior, Subject

__all__ = ["PrincipalComponents"]


@dataclass
class PrincipalComponents(Subject):
    """The first principal components, each latent with unit variance.

    Arguments:
        mean: `(p,)`.
        rows: orthonormal `(K, p)`.
        deviation: of the components `(K,)`.
        shape: of a sample.
        noise: deviation of what the other components hold, per feature.
        name: in reports.
    """

    mean: Floats
    rows: Floats
    deviation: Floats
    shape: tuple[int, ...]
    noise: float
    name: str = "PCA"

    @staticmethod
    def fit(x: Float32, latents: int, name: str = "PCA") -> "PrincipalComponents":
        """Of samples `(n, *shape)`; at most `min(n − 1, p)` components, those whose variance is more than rounding.

        Raises:
            EocodecError: the samples do not differ.

        Warns:
            EocodecWarning: there are fewer components than `latents`.

        Example:
            >>> x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
            >>> PrincipalComponents.fit(x, 2).encode(x).mean.std(0).round(6).tolist()
            [1.0, 1.0]
        """
        flat = x.reshape(len(x), -1).astype(np.float64)
        mean = flat.mean(0)
        centred = flat - mean
        if flat.shape[1] <= len(flat):
            values, vectors = np.linalg.eigh(centred.T @ centred / len(flat))
            values, rows = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
        else:
            values, left = np.linalg.eigh(centred @ centred.T / len(flat))
            values = np.maximum(values[::-1], 0.0)
            rows = left[:, ::-1].T @ centred
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        some = min(len(flat) - 1, int((values > values.max() * max(flat.shape) * np.finfo(np.float64).eps).sum()))
        if some < 1:
            raise EocodecError(f"{name}: samples that do not differ have no principal components ({len(flat)} given)")
        if latents > some:
            note = f"{name} has {some} of {latents} latents: {len(flat)} samples vary in no more directions"
            warnings.warn(note, EocodecWarning, stacklevel=2)
            latents = some
        rest = max(flat.shape[1] - latents, 1)
        noise = float(np.sqrt(values[latents:].sum() / rest))
        deviation = np.sqrt(np.maximum(values[:latents], 1e-300))
        return PrincipalComponents(mean, rows[:latents], deviation, x.shape[1:], max(noise, 1e-6), name)

    def __post_init__(self) -> None:
        self.latents = len(self.rows)

    def encode(self, x: Float32) -> Posterior:
        return Posterior((x.reshape(len(x), -1) - self.mean) @ self.rows.T / self.deviation)

    def importance(self, x: Float32) -> Floats:
        return self.deviation

    def decode(self, z: Floats) -> Float32:
        x = self.mean + (z * self.deviation) @ self.rows
        return x.reshape(-1, *self.shape).astype(np.float32)

    def jvp(self, z: Floats, v: Floats) -> Floats:
        return np.asarray((v * self.deviation) @ self.rows)
