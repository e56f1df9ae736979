"""What an adaptation is to do, and how far it has come: kept on the disk so that it goes on after an interruption.

In: an :class:`Order`. Out: :class:`Progress`, `state.json` in the folder beside the output.
"""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from eocodec.errors import EocodecError
from eocodec.files import atomic_write

if TYPE_CHECKING:
    from eocodec.adapt.measure import Curve
    from eocodec.adapt.survey import Survey
    from eocodec.model.bundle import Model

__all__ = ["Clock", "Order", "Progress", "mark_of", "read_progress", "write_progress"]

STATE = "state.json"
VERSION = 2  # of what lies in the folder


class Clock:
    """Seconds since this began, with those of earlier runs."""

    def __init__(self) -> None:
        self.start, self.passed = time.monotonic(), 0.0

    def now(self) -> float:
        """Seconds."""
        return self.passed + time.monotonic() - self.start


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Arguments:
        pictures: folder, shard or pattern of shards.
        out: the `.eocm` file to write.
        minutes: for everything.
        model: name or path of the bundle to start from.
        goal: one of :data:`eocodec.adapt.goals.GOALS`.
        full: write a whole bundle, not a delta.
        device: "auto", "cpu" or "cuda".
        threads: 0: one per core.
        seed: of the pictures' order.
    """

    pictures: str
    out: Path
    minutes: float = 30.0
    model: str = "photo"
    goal: str = "rate"
    full: bool = False
    device: str = "auto"
    threads: int = 0
    seed: int = 1

    @property
    def state(self) -> Path:
        """The folder that holds what is needed to go on."""
        return self.out.with_name(f"{self.out.name}.adapt")


@dataclass
class Progress:
    """How far an adaptation has come; `state.json`."""

    mark: str
    before: "list[Curve]"
    passed: float = 0.0
    iterations: list[int] = field(default_factory=list)
    """Of the parts that are done, and of the one that is not."""
    part: int = 0
    begun: bool = False
    start: float = 0.0
    """Seconds that had passed when training began."""
    best: float = -math.inf
    best_at: float = 0.0
    followed: int = 0
    """Held-out pictures on which training is followed."""
    history: list[tuple[float, float]] = field(default_factory=list)
    """Seconds and gain of every look at the held-out pictures."""
    exported: float = 0.0
    """Seconds that had passed when the bundle was there whose refinement is trained on files; 0: it is not."""


def mark_of(order: Order, pictures: "Survey", base: "Model") -> str:
    """Changes with everything that a state on the disk depends on, but the time."""
    values = [VERSION, pictures.digest, base.full_id.hex(), order.goal, order.seed]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def read_progress(order: Order, mark: str) -> Progress | None:
    """How far an adaptation has come that was interrupted; None: it has not begun.

    Raises:
        EocodecError: the state is damaged, or belongs to something else.
    """
    path = order.state / STATE
    try:
        progress = Progress(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as e:
        raise EocodecError(f"{path} is damaged ({e}); remove {order.state} to begin anew") from None
    if progress.mark != mark:
        raise EocodecError(
            f"{order.state} belongs to other pictures, another model, goal or version; remove it to begin anew"
        )
    progress.history = [(t, g) for t, g in progress.history]
    progress.before = [[(r, q) for r, q in curve] for curve in progress.before]
    return progress


def write_progress(order: Order, progress: Progress) -> None:
    """Write how far an adaptation has come; it is there as a whole or as it was."""
    order.state.mkdir(parents=True, exist_ok=True)
    atomic_write(order.state / STATE, json.dumps(asdict(progress)).encode())
