"""States of training on the disk: tensors and plain values, so that nothing in a file is run.

In: a file that `torch.save` wrote. Out: what it holds, or a sentence that says which file to remove.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from eocodec.errors import ModelError

__all__ = ["load_state", "readable"]


def load_state(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """What a state holds, with its tensors on a device.

    Raises:
        ModelError: it is damaged, or holds something else.
    """
    with readable(path):
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError("it holds no state")
    return state


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of reading a state, and of taking it over, as one sentence.

    Raises:
        ModelError: what happens inside fails, other than for lack of memory.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:  # pickle.UnpicklingError, zip errors and those of tensors differ between torch versions
        raise ModelError(f"{path} is no state of training that can be read; remove it to begin anew") from e
