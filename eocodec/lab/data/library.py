"""Sets by name, as a report's file has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eocodec.errors import EocodecError
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.data.factor_analysis import DESIGNS, factor_analysis
from eocodec.lab.data.manifolds import torus, two_moons
from eocodec.lab.data.pictures import digits, faces
from eocodec.lab.data.sprites import sprites

__all__ = ["SETS", "load_set"]


def _design(name: str) -> Callable[..., Dataset]:
    return lambda **options: factor_analysis(name, **options)


SETS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    **{name: (_design(name), ("samples", "seed")) for name in DESIGNS},
    "torus": (torus, ("samples", "seed")),
    "moons": (two_moons, ("samples", "seed")),
    "digits": (digits, ("seed",)),
    "sprites": (sprites, ("samples", "seed")),
    "sprites-hue": (lambda **options: sprites(hue=True, **options), ("samples", "seed")),
    "faces": (faces, ("train", "held_out", "limit")),
}
"""What makes a set, and the options that it takes."""


def load_set(values: dict[str, Any], folder: Path) -> Dataset:
    """The set that the table `[data]` of a report's file describes.

    Arguments:
        values: `set`, its name, and its options.
        folder: of the file; paths of pictures are relative to it.

    Raises:
        EocodecError: the set or an option is unknown, or pictures cannot be read.
    """
    values = dict(values)
    name = values.pop("set", None)
    if name not in SETS:
        raise EocodecError(f"no set is called {name}; known are: {', '.join(SETS)}")
    make, options = SETS[name]
    for key, value in values.items():
        if key not in options:
            raise EocodecError(f"the set {name} has no option {key}; known are: {', '.join(options)}")
        path = key in ("train", "held_out")
        least = 0 if key == "seed" else 20
        if not (isinstance(value, str) if path else type(value) is int and value >= least):
            raise EocodecError(f"{key} of the set {name} cannot be {value!r}")
        if path:
            values[key] = folder / value
    missing = [key for key in ("train", "held_out") if key in options and key not in values]
    if missing:
        raise EocodecError(f"the set {name} needs {' and '.join(missing)}: a tar or folder of pictures")
    return make(**values)
