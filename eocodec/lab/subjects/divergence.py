"""Trainings that diverge: what is no longer finite is named at once, and not kept.

In: the loss of an iteration, or a trained subject and samples. Out: an error that says what to change.
"""

import numpy as np
import torch
from torch import Tensor

from eocodec.errors import EocodecError
from eocodec.lab.subjects.subject import Float32, Subject

__all__ = ["check_loss", "diverged", "is_finite"]

SAMPLES = 64  # that a subject is tried on


def diverged(name: str) -> EocodecError:
    """The error for the training of what is called `name`."""
    return EocodecError(f"the training of {name} diverged; lower its rate (of a flow: its rate and net_rate)")


def check_loss(loss: Tensor, name: str) -> None:
    """See that a training can go on.

    Raises:
        EocodecError: the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise diverged(name)


def is_finite(subject: Subject, x: Float32) -> bool:
    """Whether the latents of samples `(n, *shape)`, and what is decoded from them, are finite numbers."""
    found = subject.encode(x[:SAMPLES])
    with np.errstate(over="ignore"):
        spread = () if found.log_variance is None else (np.exp(found.log_variance),)
    return all(np.isfinite(values).all() for values in (found.mean, *spread, subject.decode(found.mean)))
