"""What `eocodec adapt --for lossless` trains: the nets for lossless files, further, on the user's own pictures.

In: the files of a bundle, pictures, and a stretch of time. Out: the bundle's files with nets and tables for these
pictures. The nets of a lattice are trained together, from the coarsest lattice to the finest, each for a share of the
time; those that were best on held-out pictures stay, which may be the ones there were. Pictures without colours train
the nets of brightness alone. In the stretch's folder, until it is over:

    4.pt, 2.pt, 1.pt    training of the nets for the lattices of stride h, and the weights that were best
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from eocodec.adapt.measure import centre
from eocodec.adapt.stages import Exact, Stretch
from eocodec.coding.lattice import AXES, to_planes
from eocodec.coding.lossless_tables import TABLES_FILE, unpack_tables
from eocodec.cores import cores
from eocodec.errors import EocodecError, ModelError
from eocodec.files import atomic_file
from eocodec.flow.states import load_state, readable
from eocodec.image import Bytes
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec_export.adapted import all_grey
from eocodec_export.lossless import (
    FURTHER,
    HALVES,
    Counter,
    LatticeNets,
    LatticeTrainer,
    check,
    first_residuals,
    fit_tables,
    graphs,
    left,
    restored,
)

__all__ = ["exact_files"]

Int16 = npt.NDArray[np.int16]
Weights = dict[str, torch.Tensor]

SHARES = {4: 0.05, 2: 0.17, 1: 0.78}  # of the time, by h
MOST_PIXELS = 48 << 20  # of training pictures, 12 bytes each in memory
FOLLOWED, FOLLOWED_EDGE = 8, 320  # held-out pictures on which training is followed, and pixels of their middles
LOOKS = 6  # at these, for every lattice
COUNTED_PIXELS = 1_500_000  # of training pictures that tables are fitted to
BASE_COUNT = 3000.0  # residuals that a table of the base is worth beside these
SAVE_SECONDS = 60.0
TELL_SECONDS = 2.0  # between two words of what was gained


def exact_files(
    files: dict[str, bytes],
    pictures: list[Bytes],
    held_out: list[Bytes],
    stretch: Stretch,
    *,
    name: str,
    card: str,
    said: Callable[[float], str],
    seed: int,
    threads: int,
    report: Callable[[str], None] = lambda message: None,
) -> Exact:
    """Train the nets for lossless files until the stretch is over; see :class:`eocodec.adapt.stages.ExactTrainer`.

    Arguments:
        files: of the bundle.
        pictures: `(H, W, 3)` to train on.
        held_out: to choose by.
        stretch: time and folder.
        name, card: for the manifest.
        said: puts a gain, in percent of the bits, into words.
        seed: of everything that is drawn.
        threads: 0: one per core.
        report: called with sentences.

    Raises:
        EocodecError: the bundle has no nets for lossless files that training can go on from.
        ModelError: a graph disagrees with integer arithmetic.
    """
    try:
        nets = restored(files, FURTHER)
    except ModelError as e:
        raise EocodecError(f"{e}; only models with those that `photo` has can be adapted") from None
    torch.set_num_threads(threads or cores())
    axes = 1 if all_grey([*pictures, *held_out]) else AXES
    if axes == 1:
        report("all are grey: the nets of brightness alone are trained")
    held = [to_planes(centre(p, 16, FOLLOWED_EDGE))[:axes] for p in _some(held_out, FOLLOWED)]
    progress = _Followed(held, nets, stretch, said)
    stretch.folder.mkdir(parents=True, exist_ok=True)
    planes = [to_planes(p)[:axes] for p in _within(pictures, MOST_PIXELS, seed)]
    residuals = [first_residuals(p) for p in planes]
    steps, passed = {}, 0.0
    for half in HALVES:
        lattices = [p[:, ::half, ::half] for p in planes]
        settings = FURTHER.nets[half]
        trainer = LatticeTrainer(
            half, settings, lattices, residuals, FURTHER.rate, FURTHER.linear_rate, nets[half], seed=seed
        )
        times = passed, passed + SHARES[half]
        nets[half] = _Lattice(half, trainer, nets[half], times, stretch, progress).trained()
        steps[f"h = {half}"], passed = trainer.steps, times[1]
        progress.settle(half, nets[half])
        if half > 1:
            residuals = [left(nets[half], p, r)[1] for p, r in zip(lattices, residuals, strict=True)]
    report("graphs and tables of lossless files")
    chosen = _within(pictures, COUNTED_PIXELS, seed)
    return Exact(_with_nets(files, nets, axes, chosen, name, card, threads), steps, progress.history)


class _Followed:
    """Bits of held-out pictures, lattice by lattice, against those of the nets that the bundle has.

    Arguments:
        planes: of the pictures, `(axes, H, W)` each.
        nets: that the bundle has.
        stretch, said: see :func:`exact_files`.
    """

    def __init__(
        self, planes: list[Int16], nets: Mapping[int, LatticeNets], stretch: Stretch, said: Callable[[float], str]
    ) -> None:
        self.planes, self.stretch, self.said = planes, stretch, said
        self.residuals = [first_residuals(p) for p in planes]
        self.before: dict[int, float] = {}
        self.history: list[tuple[float, float]] = []
        residuals = self.residuals
        for half in HALVES:
            found = [left(nets[half], p, r) for p, r in zip(self._lattices(half), residuals, strict=True)]
            self.before[half] = float(np.mean([bits for bits, _ in found])) / (2 * half) ** 2
            residuals = [r for _, r in found]
        self.now = dict(self.before)

    def _lattices(self, half: int) -> list[Int16]:
        return [p[:, ::half, ::half] for p in self.planes]

    def bits(self, half: int, nets: LatticeNets) -> float:
        """Bits a pixel that a lattice takes."""
        pairs = zip(self._lattices(half), self.residuals, strict=True)
        return float(np.mean([left(nets, p, r)[0] for p, r in pairs])) / (2 * half) ** 2

    def settle(self, half: int, nets: LatticeNets) -> None:
        """The nets of a lattice are those from now on."""
        pairs = zip(self._lattices(half), self.residuals, strict=True)
        found = [left(nets, p, r) for p, r in pairs]
        self.now[half] = float(np.mean([bits for bits, _ in found])) / (2 * half) ** 2
        self.residuals = [r for _, r in found]

    def gain(self) -> float:
        """Percent of the bits that are saved."""
        return 100 * (1 - sum(self.now.values()) / sum(self.before.values()))

    def saw(self, half: int, bits: float) -> None:
        """The best nets of a lattice so far take so many bits."""
        self.now[half] = bits
        self.history.append((self.stretch.clock(), self.gain()))
        self.stretch.tick(self.said(self.gain()))


@dataclass
class _Best:
    """The weights that took the fewest bits a pixel of held-out pictures; none: those the bundle has."""

    bits: float
    weights: Weights | None = None


class _Lattice:
    """The nets of a lattice in training.

    Arguments:
        half: h.
        trainer: of the nets.
        start: the nets that the bundle has.
        times: first and last part of the stretch.
        stretch, progress: see :func:`exact_files`.
    """

    def __init__(
        self,
        half: int,
        trainer: LatticeTrainer,
        start: LatticeNets,
        times: tuple[float, float],
        stretch: Stretch,
        progress: _Followed,
    ) -> None:
        self.half, self.trainer, self.start = half, trainer, start
        self.stretch, self.progress = stretch, progress
        self.first, self.length = times[0], times[1] - times[0]
        self.path = stretch.folder / f"{half}.pt"
        self.best = _Best(progress.bits(half, start))

    def trained(self) -> LatticeNets:
        """The best nets when the time is over, or what was left of it after an interruption."""
        self._load()
        looks, saved, told = math.floor(max(0.0, self._part()) * LOOKS), self.stretch.clock(), 0.0
        try:
            while (part := self._part()) < 1:
                self.trainer.step(max(0.0, part))
                if part * LOOKS >= looks + 1:
                    looks = math.floor(part * LOOKS)
                    self._look()
                now = self.stretch.clock()
                if now - saved > SAVE_SECONDS:
                    saved = now
                    self._save()
                if now - told > TELL_SECONDS:
                    told = now
                    self.stretch.tick(self.progress.said(self.progress.gain()))
        except KeyboardInterrupt:
            self._save()
            raise
        self._look()
        self._save()
        nets = LatticeNets(self.trainer.nets)
        nets.load_state_dict(self.start.state_dict() if self.best.weights is None else self.best.weights)
        return nets.requires_grad_(False)

    def _part(self) -> float:
        """How much of the lattice's time is over."""
        return (self.stretch.part() - self.first) / self.length

    def _look(self) -> None:
        """Keep the weights if they are the best."""
        bits = self.progress.bits(self.half, self.trainer.model)
        if bits < self.best.bits:
            weights = {k: v.detach().clone() for k, v in self.trainer.model.state_dict().items()}
            self.best.bits, self.best.weights = bits, weights
        self.progress.saw(self.half, self.best.bits)

    def _save(self) -> None:
        with atomic_file(self.path) as file:
            best = self.best.bits, self.best.weights
            torch.save({"training": self.trainer.state(), "best": best, "history": self.progress.history}, file)
        self.stretch.save()

    def _load(self) -> None:
        if self.path.exists():
            with readable(self.path):
                kept = load_state(self.path)
                self.trainer.load(kept["training"])
                self.best.bits, self.best.weights = kept["best"]
                self.progress.history = kept["history"]
            self.progress.now[self.half] = self.best.bits


def _with_nets(
    files: dict[str, bytes],
    nets: Mapping[int, LatticeNets],
    axes: int,
    pictures: Sequence[Bytes],
    name: str,
    card: str,
    threads: int,
) -> dict[str, bytes]:
    """The bundle's files with other nets for the first axes, and tables that go with them."""
    manifest = {**json.loads(files["manifest.json"]), "name": name, "card": card}
    made = {n: content for half in HALVES for n, content in graphs(half, nets[half])}
    kept = {n for n in made if int(Path(n).stem.split("_")[1]) >= axes}  # they were not trained
    changed = {n: content for n, content in made.items() if n not in kept}
    rest = {n: content for n, content in files.items() if n != parts.LIST}
    found = {**rest, **changed, "manifest.json": json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()}
    model = Model(found, threads)
    for half in HALVES:
        check(half, nets[half], model)
    counter = Counter()
    for picture in pictures:
        counter.count(model, picture)
    counts = counter.counts.astype(np.float64)
    middle = counts.shape[1] // 2
    for count, table in zip(counts, unpack_tables(files[TABLES_FILE]), strict=True):
        radius = len(table) // 2
        count[middle - radius : middle + radius + 1] += BASE_COUNT * table / table.sum()
    return parts.listed({**found, TABLES_FILE: fit_tables(np.rint(counts).astype(np.int64))})


def _some(pictures: Sequence[Bytes], most: int) -> list[Bytes]:
    places = np.unique(np.linspace(0, len(pictures) - 1, most).astype(int)).tolist()
    return [pictures[k] for k in places]


def _within(pictures: Sequence[Bytes], pixels: int, seed: int) -> list[Bytes]:
    """Pictures in an order that is drawn, up to so many pixels, at least one."""
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    ends = np.cumsum([pictures[k].shape[0] * pictures[k].shape[1] for k in order])
    return [pictures[k] for k in order[: max(1, int(np.searchsorted(ends, pixels, "right")))]]
