"""Adapts flow, entropy nets and refinement, or the nets for denoising: trains for the time given, exports the best.

In: an order, a goal, pictures, a bundle to start from. Out: the files of the adapted bundle. What is needed to go on
after an interruption lies in the state's folder until then:

    mine.eocm.adapt/checkpoint.pt    the training run (`eocodec.flow.training`)
    mine.eocm.adapt/grey.eocm        what it starts from where all pictures are grey: the part for those
    mine.eocm.adapt/best.pt          the weights that were best on the held-out pictures
    mine.eocm.adapt/plain.eocm       the bundle before its refinement is trained on files, when all else is done
    mine.eocm.adapt/refinement/      that last stage (`eocodec.adapt.stages`)
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eocodec.adapt.goals import FlowGoal, Part
from eocodec.adapt.measure import Curve
from eocodec.adapt.stages import Exporter, Stretch
from eocodec.adapt.state import Clock, Order, Progress, mark_of, read_progress, write_progress
from eocodec.adapt.survey import Survey, evenly
from eocodec.cores import cores
from eocodec.files import atomic_file
from eocodec.flow.configuration import TrainingConfig
from eocodec.flow.model import PhotoModel, build
from eocodec.flow.pictures import Picture
from eocodec.flow.states import load_state, readable
from eocodec.flow.training import Run, load_start
from eocodec.image import is_grey
from eocodec.model.bundle import Model, read_bundle, write_bundle
from eocodec.model.grey import GreyFiles
from eocodec.model.library import bundle_files

__all__ = ["FlowTraining", "Tick", "compact", "trained_files"]

CROP, BATCH = 160, 8  # on CPUs: nets that see more of a picture gain more than steps do
GPU_CROP, GPU_BATCH = 192, 16
TOO_SMALL = 0.1  # share of the pictures that may be too small for the crop
AVERAGE = 0.995  # decay of the averaged weights
FOLLOWED = 6  # held-out pictures on which training is followed, or fewer, so that a look takes
ONE_LOOK = 0.04  # of the time at most
CALIBRATED = 24  # training pictures on which tables are fitted, or fewer:
CALIBRATED_A_MINUTE = 3
FEWEST = 2  # half of them for each of two passes; also the fewest coloured pictures that are worth adapting to
CHECKS = 12  # looks at the held-out pictures, or fewer, so that they take
MOST_LOOKING = 0.08  # of the time at most
PATIENCE = 4  # looks without a better one after which a part ends
SAVE_SECONDS = 60.0
PLAN_SECONDS = 2.0  # between two plans of how many iterations are left
LEAST_ITERATIONS = 8  # of a part; if fewer fit into its time it is left out
Tick = Callable[[float, float, str], None]


def trained_files(
    training: "FlowTraining",
    export: Exporter,
    clock: Clock,
    times: tuple[float, float],
    tick: Tick,
    held: list[Picture],
    card: str,
) -> dict[str, bytes]:
    """Train until the first of two times, and export; or what was exported before an interruption.

    The second of `times` is when everything is to be over; `card` is for the manifest.
    """
    order = training.order
    plain = order.state / "plain.eocm"
    if training.progress.exported and plain.exists():
        return read_bundle(plain)
    training.carry_out(clock, *times, tick)
    training.report("exporting")
    count = max(FEWEST, min(CALIBRATED, int(CALIBRATED_A_MINUTE * order.minutes)))
    files = export(
        training.best(),
        training.base_files,
        [p for _, p in evenly(training.pictures.train, count)],
        held,
        name=order.out.stem,
        card=card,
        report=training.report,
    )
    if training.refined:
        write_bundle(plain, files)
        training.progress.exported = clock.now()
        training.save_progress(clock)
    return files


class FlowTraining:
    """The run, what it is followed by, and its state on the disk."""

    def __init__(
        self, order: Order, goal: FlowGoal, pictures: Survey, path: Path, base: Model, report: Callable[[str], None]
    ) -> None:
        self.base_files = dict(bundle_files(path))
        if goal.on_files and base.grey is not None:
            coloured = _coloured(pictures)
            if not coloured.train and not coloured.held_out:
                report("all are grey: the model for grey pictures is adapted")
                base, path = base.grey, order.state / "grey.eocm"
                order.state.mkdir(parents=True, exist_ok=True)
                write_bundle(path, dict(GreyFiles(self.base_files)))
            elif min(len(coloured.train), len(coloured.held_out)) >= FEWEST:  # files of the others are another model's
                pictures = coloured
        self.order, self.goal, self.base, self.report, self.pictures = order, goal, base, report, pictures
        started = load_start(path)
        self.parts = goal.parts(started.config.tuned)
        self.sizes = goal.sizes(started.config)
        self.refined = goal.refined if started.config.refine_blocks else 0.0  # others cannot be trained on files
        self.start = started.average
        mark = mark_of(order, pictures, base)
        resumed = read_progress(order, mark)
        device = _device(order.device)
        config = _config(order, self.sizes, self.parts, pictures, device)
        if resumed is not None:
            self.progress = resumed
            config = replace(config, stages=self._stages())
            resume = (order.state / "checkpoint.pt").exists()
        else:
            self.progress = Progress(mark, [])
            resume = False
        small = sum(min(p.shape[:2]) < config.crop * 3 // 2 for _, p in pictures.train)  # see `flow.streams`
        if small:
            few = "1 of the pictures is" if small == 1 else f"{small} of the pictures are"
            report(f"{few} less than {config.crop * 3 // 2} pixels wide or high and not trained on")
        self.run = Run(config, device, resume, None if resume else path, pictures=(pictures.train, pictures.held_out))
        assert isinstance(self.run.model, PhotoModel)  # no other kind has weights in its bundle
        self.model = self.run.model
        goal.freeze(self.model)
        self.held, goal_before = self._followed(self.progress.followed if resume else 0)
        if not resume:
            goal.prepare(self.model)
            self.run.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.progress = Progress(mark, goal_before, followed=len(self.held))
        else:
            report(f"going on after {self.progress.passed / 60:.1f} minutes")

    def _followed(self, count: int) -> tuple[list[Picture], list[Curve]]:
        """The held-out pictures on which training is followed, and where it begins there.

        Arguments:
            count: of these pictures, for a run that goes on with what it began with; 0: as many as the time allows.
        """
        pictures = [p for _, p in evenly(self.pictures.held_out, count or FOLLOWED)]
        began = time.monotonic()
        before = self._estimate_of(self.model, pictures[:1])
        seconds = time.monotonic() - began
        if not count:
            count = max(1, min(len(pictures), int(ONE_LOOK * 60 * self.order.minutes / max(seconds, 1e-9))))
            pictures = [p for _, p in evenly(self.pictures.held_out, count)]
            before = self._estimate_of(self.model, pictures)
        self.look_seconds = seconds * len(pictures)
        return pictures, before

    def carry_out(self, clock: Clock, until: float, total: float, tick: Tick) -> None:
        """Train until `until` seconds have passed, or nothing more is gained."""
        progress = self.progress
        if not progress.begun:
            progress.start = clock.now()
        every = max(1.0, until / CHECKS, self.look_seconds / MOST_LOOKING)
        end = progress.start
        try:
            for number, part in enumerate(self.parts):
                end += part.share * max(0.0, until - progress.start)
                if number >= progress.part:
                    self._part(number, clock, end, every, total, tick)
        except KeyboardInterrupt:
            if progress.begun:
                self._save(clock)
            raise
        self._look(clock, total, tick)
        self._save(clock)

    def _part(self, number: int, clock: Clock, end: float, every: float, total: float, tick: Tick) -> None:
        """One part, until its time is up or several looks in a row have shown nothing better."""
        progress = self.progress
        if not (progress.begun and progress.part == number):
            progress.part, progress.begun = number, True
            progress.iterations = [*progress.iterations[:number], 0]
        self._plan(math.inf)
        looked, planned, saved = clock.now(), 0.0, clock.now()
        seconds, since_best = 0.0, 0
        while clock.now() < end:
            before = clock.now()
            self.run.advance()
            progress.iterations[number] += 1
            now = clock.now()
            spent = now - before
            seconds = spent if seconds == 0 else 0.9 * seconds + 0.1 * spent
            if progress.iterations[number] == 3 and (end - now) / seconds < LEAST_ITERATIONS:
                break
            if now - planned > PLAN_SECONDS or progress.iterations[number] < 5:
                self._plan((end - now) / seconds)
                planned = now
                tick(now, total, self._said())
            if now - looked > every:
                since_best = 0 if self._look(clock, total, tick) else since_best + 1
                looked = clock.now()
                if since_best >= PATIENCE:
                    break
            if now - saved > SAVE_SECONDS:
                self._save(clock)
                saved = clock.now()

    def _plan(self, left: float) -> None:
        """Let the current part have so many iterations more; the learning rate falls over all of them."""
        self.left = 1 << 30 if math.isinf(left) else max(1, round(left))
        self.run.replan(self._stages())

    def _stages(self) -> tuple[Any, ...]:
        done = self.progress.iterations or [0]
        left = getattr(self, "left", 1 << 30)
        counts = [*done[:-1], done[-1] + left]
        return tuple(replace(p.stage, iterations=n) for p, n in zip(self.parts, counts, strict=False) if n)

    def _said(self) -> str:
        best = self.progress.best
        return self.goal.said(best) if math.isfinite(best) else ""

    def _estimate_of(self, model: PhotoModel, pictures: list[Picture]) -> list[Curve]:
        return self.goal.estimate(model, pictures, self.base)

    def _averaged(self) -> PhotoModel:
        model = _built(self.sizes).to(self.run.device).eval()
        model.load_state_dict(self.run.average)
        return model

    def _look(self, clock: Clock, total: float, tick: Tick) -> bool:
        """Measure the averaged weights on held-out pictures and keep them if they are the best; says whether."""
        gain = self.goal.gain(self.progress.before, self._estimate_of(self._averaged(), self.held))
        if math.isfinite(gain):
            self.progress.history.append((clock.now(), gain))
        better = gain > self.progress.best
        if better:
            self.progress.best, self.progress.best_at = gain, clock.now()
            self.order.state.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.order.state / "best.pt") as file:
                torch.save(self.run.average, file)
        tick(clock.now(), total, self._said())
        return better

    def best(self) -> PhotoModel:
        """The model, on the CPU, with the weights that were best on the held-out pictures, compact."""
        path = self.order.state / "best.pt"
        if path.exists():
            with readable(path):
                self.model.load_state_dict(load_state(path))
        else:
            self.model.load_state_dict(self.run.average)
        self._compact_weights(self.model)
        model = _built(self.sizes).eval().requires_grad_(False)
        model.load_state_dict({k: v.cpu() for k, v in self.model.state_dict().items()})
        return model

    @torch.no_grad()
    def _compact_weights(self, model: PhotoModel) -> None:
        """Round float nets that were changed; 8 bits would take a fifth of the gain from a flow."""
        for prefix, rounded in (("flow.", shortened), ("refine.", compact)):
            own = {k: p for k, p in model.named_parameters() if k.startswith(prefix)}
            if all(torch.equal(p.cpu(), self.start[k]) for k, p in own.items()):
                continue
            for p in own.values():
                p.copy_(rounded(p))

    def stretch(self, clock: Clock, seconds: float, total: float, tick: Tick) -> Stretch:
        """For the training of the refinement: so many seconds from when the bundle for it was there."""
        start = self.progress.exported

        def show(text: str) -> None:
            tick(clock.now(), total, f"{self._said()}, {text}" if text else self._said())

        return Stretch(
            self.order.state / "refinement", clock.now, start, start + seconds, lambda: self.save_progress(clock), show
        )

    def _save(self, clock: Clock) -> None:
        self.run.save()
        self.save_progress(clock)

    def save_progress(self, clock: Clock) -> None:
        """Write the time that has passed, and all else but the weights."""
        self.progress.passed = clock.now()
        write_progress(self.order, self.progress)


def shortened(p: torch.Tensor) -> torch.Tensor:
    """Weights rounded to 16-bit floats."""
    return p.half().float()


def compact(p: torch.Tensor) -> torch.Tensor:
    """Weights rounded to 8 bits and a power of two for every output channel, biases to 16-bit floats."""
    if p.dim() < 2:
        return p.half().float()
    largest = p.abs().flatten(1).amax(1).clamp(min=2.0**-12)
    unit = torch.exp2(torch.ceil(torch.log2(largest / 127))).reshape(-1, *[1] * (p.dim() - 1))
    return torch.round(p / unit) * unit


def _coloured(pictures: Survey) -> Survey:
    """Without the grey ones."""
    train, held_out = (
        [(name, p) for name, p in part if not is_grey(p)] for part in (pictures.train, pictures.held_out)
    )
    return replace(pictures, train=train, held_out=held_out)


def _built(sizes: Any) -> PhotoModel:
    model = build(sizes)
    assert isinstance(model, PhotoModel)
    return model


def _device(name: str) -> torch.device:
    from eocodec.flow.distributed import pick_device

    return pick_device(name)


def _crop(edges: list[int], largest: int, multiple: int) -> int:
    """The largest crop for which few pictures, by their shorter edges, are too small: those are not trained on."""
    edge = sorted(edges)[int(TOO_SMALL * len(edges))]
    return max(multiple, min(largest, edge * 2 // 3 // multiple * multiple))


def _config(
    order: Order, sizes: Any, parts: tuple[Part, ...], pictures: Survey, device: torch.device
) -> TrainingConfig:
    crop, batch = (GPU_CROP, GPU_BATCH) if device.type == "cuda" else (CROP, BATCH)
    crop = _crop([min(p.shape[:2]) for _, p in pictures.train], crop, 2 ** (sizes.levels + 1))
    return TrainingConfig(
        out=order.state,
        folder=Path(order.pictures),
        stages=tuple(p.stage for p in parts),
        model=sizes,
        seed=order.seed,
        crop=crop,
        batch=batch,
        rescale=0.0,
        turns="mirror",
        threads=order.threads or cores(),
        average=AVERAGE,
        optimiser="soap",
    )
