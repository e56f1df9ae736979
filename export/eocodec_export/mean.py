"""The mean of the weights of several runs that began alike, for a start or for a bundle.

    python -m eocodec_export.mean CHECKPOINT CHECKPOINT... OUT

In: checkpoints of `eocodec train`, of the same sizes: a run's start and its end, or ends of runs from one start with
other seeds. Out: a checkpoint with the mean of their averaged weights and without what a run needs to be resumed.

References:
    Izmailov et al., *Averaging weights leads to wider optima and better generalization*, UAI 2018.
    Wortsman et al., *Model soups*, ICML 2022.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eocodec.errors import EocodecError
from eocodec.files import atomic_file
from eocodec.flow.training import load_checkpoint
from eocodec_export.commands import ending

__all__ = ["mean_of"]

KEPT = ("model_kind", "model_config", "seed", "hold_out", "hold_out_by", "iteration")


def mean_of(paths: Sequence[Path]) -> dict[str, Any]:
    """What a checkpoint with the mean of the weights holds; integers are those of the first.

    Arguments:
        paths: of checkpoints.

    Raises:
        EocodecError: fewer than two, one is no checkpoint, or they are of models of different sizes.
    """
    if len(paths) < 2:
        raise EocodecError("a mean is of two checkpoints or more")
    loaded = [load_checkpoint(path) for path in paths]
    first = loaded[0]
    for path, other in zip(paths, loaded, strict=True):
        if (other.kind, other.config) != (first.kind, first.config):
            raise EocodecError(f"{path} is of a model of other sizes than {paths[0]}")
    mean = {
        name: torch.stack([c.average[name].double() for c in loaded]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.average.items()
    }
    return {k: v for k, v in first.raw.items() if k in KEPT} | {"average": mean}


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    content = mean_of(options.checkpoints)
    with atomic_file(options.out) as file:
        torch.save(content, file)


if __name__ == "__main__":
    main()
