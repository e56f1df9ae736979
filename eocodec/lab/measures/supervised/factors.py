"""True factors of a set, and which latents count."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.finite import finite

__all__ = ["DEAD", "Factors", "active_codes"]

DEAD = 1e-6  # of the largest deviation: a latent that varies less is constant but for rounding
ROUNDING = 1e-12  # of its largest value: the same

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """What a set was made from.

    Arguments:
        values: `(n, m)`; of discrete factors any numbers, equal where the factor is.
        discrete: whether a factor has classes without order, `m` entries.
        names: of the factors.

    Raises:
        ValueError: the lengths disagree.
    """

    values: Floats
    discrete: tuple[bool, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values.ndim == 2 or not self.values.shape[1] == len(self.discrete) == len(self.names):
            raise ValueError("Factors need one column, one kind and one name each.")

    @staticmethod
    def continuous(values: Floats) -> "Factors":
        """Factors with an order, named `v1`, `v2`, …"""
        count = values.shape[1]
        return Factors(values, (False,) * count, tuple(f"v{k + 1}" for k in range(count)))

    def take(self, index: npt.NDArray[np.intp]) -> "Factors":
        """The factors of some samples."""
        return Factors(self.values[index], self.discrete, self.names)


def active_codes(
    codes: Floats, active: npt.NDArray[np.bool_] | None, factors: "Factors | None" = None
) -> npt.NDArray[np.bool_]:
    """Which latents count: those given, less the constant ones.

    Arguments:
        codes: `(n, K)`.
        active: informative latents `(K,)`, as `heterogeneity` finds them; None takes all.
        factors: checked to be of as many samples.

    Raises:
        ValueError: the numbers of samples or latents disagree.
        EocodecError: codes are not finite.
    """
    if codes.ndim != 2:
        raise ValueError("Codes are an array of samples by latents.")
    finite(codes, "codes")
    if factors is not None and len(factors.values) != len(codes):
        raise ValueError(f"{len(codes)} codes and {len(factors.values)} factors are not of the same samples.")
    deviation = codes.std(0)
    alive = deviation > np.maximum(DEAD * deviation.max(initial=0.0), ROUNDING * np.abs(codes).max(0, initial=0.0))
    if active is None:
        return np.asarray(alive)
    if active.shape != alive.shape:
        raise ValueError(f"{len(alive)} latents, but {len(active)} marks of which are active.")
    return np.asarray(alive & active)
