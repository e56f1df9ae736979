"""The integer nets of a bundle: what they give is looked at before anything is coded by it.

In: a graph and its inputs. Out: arrays of the shape that coding needs. A bundle may come from anywhere, and a graph of
allowed operators may give anything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.coding.scales import SCALES
from eocodec.errors import ModelError
from eocodec.model.bundle import Model

__all__ = ["run_exact"]


def run_exact(
    model: Model, graph: str, inputs: dict[str, npt.NDArray[Any]], channels: Sequence[int | None]
) -> list[npt.NDArray[Any]]:
    """Outputs of an integer net at the places of its first input.

    Arguments:
        model: the bundle.
        graph: its name.
        inputs: what it takes, by name; the first is `(1, n, rows, columns)`.
        channels: of each output `(1, channels, rows, columns)`; None: as many as it gives. Outputs behind the first are
            indices of scales.

    Raises:
        ModelError: the graph is missing, does not fit its inputs, or gives something else.
    """
    outputs = model.run(graph, inputs)
    places = next(iter(inputs.values())).shape[2:]
    fits = len(outputs) == len(channels) and all(
        o.ndim == 4 and o.shape == (1, o.shape[1] if n is None else n, *places)
        for o, n in zip(outputs, channels, strict=True)
    )
    if not fits or any(o.dtype != np.uint8 or (o.size and o.max() >= SCALES) for o in outputs[1:]):
        raise ModelError(f"the model's graph {graph} gives something else than such a graph should")
    return outputs
