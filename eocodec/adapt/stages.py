"""What of an adaptation needs the export, and so lives there; the command passes it in.

In: a model in training or the files of a bundle, pictures, and a stretch of time. Out: files of the adapted bundle:
made of trained weights (:class:`Exporter`), with a refinement trained on files (:class:`Refiner`), with nets for
lossless files trained further (:class:`ExactTrainer`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eocodec.flow.model import PhotoModel
from eocodec.flow.pictures import Picture

__all__ = ["Exact", "ExactTrainer", "Exporter", "Refined", "Refiner", "Stages", "Stretch"]


class Exporter(Protocol):
    """Turns trained weights into the files of a bundle (`eocodec_export.adapted`)."""

    def __call__(
        self,
        model: PhotoModel,
        base: dict[str, bytes],
        pictures: list[Picture],
        held_out: list[Picture],
        *,
        name: str,
        card: str,
        report: Callable[[str], None],
    ) -> dict[str, bytes]:
        """Files of a bundle that differ from `base` only where the weights, or what follows from them, do."""
        ...


@dataclass(frozen=True)
class Stretch:
    """Time for a stage that goes on after an interruption, and what it has to do with those around it.

    Arguments:
        folder: what is needed to go on is kept there.
        clock: seconds that have passed since the adaptation began, those of earlier runs included.
        start, end: of the stage, on that clock.
        save: called whenever the stage has saved its own state, so that the clock is saved with it.
        tick: called now and then with what was gained so far.
    """

    folder: Path
    clock: Callable[[], float]
    start: float
    end: float
    save: Callable[[], None]
    tick: Callable[[str], None]

    def part(self) -> float:
        """How much of the time is over, 0 to 1."""
        return min(1.0, max(0.0, (self.clock() - self.start) / max(1e-9, self.end - self.start)))


@dataclass(frozen=True)
class Refined:
    """What came of the stage.

    Arguments:
        files: of the bundle; those it was given if its own refinement is the better one.
        before, after: error of held-out pictures' files relative to that without any refinement.
        steps: of training.
        pictures: on whose files it was trained.
    """

    files: dict[str, bytes]
    before: float
    after: float
    steps: int
    pictures: int

    @property
    def kept(self) -> bool:
        """Whether the trained refinement is in the files."""
        return self.after < self.before

    def told(self) -> str:
        """A sentence's worth."""
        if not self.kept:
            return "trained on files it got no better, and stays as it was"
        gain = 100 * (1 - self.after / self.before)
        return f"{self.steps} steps on files of {self.pictures} pictures, {gain:.2f} % less error on held-out ones"


class Refiner(Protocol):
    """Trains the refinement of a bundle on what its files decode to (`eocodec_export.refining`)."""

    def __call__(
        self,
        files: dict[str, bytes],
        pictures: list[Picture],
        held_out: list[Picture],
        stretch: Stretch,
        *,
        grey: bool,
        eye_share: float,
        seed: int,
        threads: int,
        report: Callable[[str], None],
    ) -> Refined | None:
        """The bundle with the better refinement; None where it has none that can be trained, or no time for it.

        With `grey` it is that of the bundle's part for grey pictures.
        """
        ...


@dataclass(frozen=True)
class Exact:
    """What came of training the nets for lossless files.

    Arguments:
        files: of the bundle.
        steps: of training, by lattice.
        history: seconds that had passed, and percent of the bits that were saved on held-out pictures, estimated.
    """

    files: dict[str, bytes]
    steps: dict[str, int]
    history: list[tuple[float, float]]


class ExactTrainer(Protocol):
    """Trains the nets for lossless files of a bundle further (`eocodec_export.exact`)."""

    def __call__(
        self,
        files: dict[str, bytes],
        pictures: list[Picture],
        held_out: list[Picture],
        stretch: Stretch,
        *,
        name: str,
        card: str,
        said: Callable[[float], str],
        seed: int,
        threads: int,
        report: Callable[[str], None],
    ) -> Exact:
        """The bundle with the nets that were best on held-out pictures; `said` puts a gain into words."""
        ...


@dataclass(frozen=True)
class Stages:
    """All of them."""

    export: Exporter
    refine: Refiner
    exact: ExactTrainer
