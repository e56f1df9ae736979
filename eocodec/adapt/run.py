"""Carries an adaptation out: trains for the time given, keeps the best, exports, compares files, and writes.

In: pictures, a bundle to start from, a goal and minutes. Out: a bundle with its card, figures and plot, or, where
nothing is gained, nothing. What is needed to go on after an interruption lies in a folder beside the output until then:

    mine.eocm.adapt/state.json    time that has passed, points so far, and what all this belongs to
    mine.eocm.adapt/…             what is trained, see `eocodec.adapt.flow` and `eocodec_export.exact`
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from eocodec.adapt.flow import FlowTraining, Tick, trained_files
from eocodec.adapt.goals import GOALS, FlowGoal, Goal
from eocodec.adapt.measure import Curve, centre
from eocodec.adapt.report import Outcome, write_report
from eocodec.adapt.stages import Refined, Stages, Stretch
from eocodec.adapt.state import Clock, Order, Progress, mark_of, read_progress, write_progress
from eocodec.adapt.survey import Named, Survey, evenly, survey
from eocodec.cores import cores
from eocodec.errors import EocodecError
from eocodec.files import own_folder
from eocodec.flow.pictures import Picture
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.delta import write_delta
from eocodec.model.library import bundle_files, bundle_path, load_model

__all__ = ["NothingGainedError", "adapt"]

COMPARED, COMPARED_EDGE, COMPARED_PIXELS = 12, 768, 2_000_000  # held-out pictures of which files are compared
EXPORT_SHARE, LEAST_EXPORT, MOST_EXPORT = 0.12, 12.0, 190.0  # of the time, and seconds, for the export
LEAST_REFINED = 0.4  # of the time for the refinement, where all before it has taken longer than it should


class NothingGainedError(EocodecError):
    """The adapted model is not better than the one it started from, and nothing was written."""


@dataclass(frozen=True)
class _Task:
    """An adaptation and what it is done with.

    Arguments:
        order: what is to be done.
        pictures: to train and to measure on.
        held: those that files are compared of.
        path, base: the bundle to start from.
        stages: what needs the export.
        before: points of `base` on `held`.
        measured: seconds that these took, which the new model's will take, too.
        report, tick: see :func:`adapt`.
    """

    order: Order
    pictures: Survey
    held: list[Picture]
    path: Path
    base: Model
    stages: Stages
    before: list[Curve]
    measured: float
    report: Callable[[str], None]
    tick: Tick

    @property
    def end(self) -> float:
        """Seconds after which all is to be over."""
        return self.order.minutes * 60

    @property
    def trained(self) -> float:
        """Seconds after which training is to be over."""
        export = max(LEAST_EXPORT, min(MOST_EXPORT, EXPORT_SHARE * self.end))
        return self.end - min(export + self.measured, self.end / 2)

    @property
    def card(self) -> str:
        """What the new bundle's manifest says of it."""
        return f"{self.base.name} adapted to {self.pictures.facts['used']} pictures for {self.order.goal}"


@dataclass(frozen=True)
class _Result:
    """What was trained, and how; see :class:`eocodec.adapt.report.Outcome`."""

    files: dict[str, bytes]
    iterations: dict[str, int]
    history: list[tuple[float, float]]
    machine: str
    refinement: str = ""

    @property
    def rising(self) -> bool:
        """Whether the last of several looks at held-out pictures in training was the best."""
        gains = [gain for _, gain in self.history]
        return len(gains) > 2 and gains[-1] == max(gains)


def adapt(
    order: Order,
    stages: Stages,
    report: Callable[[str], None] = lambda message: None,
    tick: Tick = lambda passed, total, text: None,
) -> Outcome:
    """Adapt a model to pictures.

    Arguments:
        order: what is to be done.
        stages: what needs the export.
        report: called with sentences.
        tick: called now and then with the seconds that have passed and are allowed, and what was gained so far.

    Raises:
        EocodecError: too few pictures, a bundle that cannot be trained, or a state that belongs to something else or is
            being worked on.
        NothingGainedError: it got no better.
    """
    with _own(order):
        return _adapt(order, stages, report, tick)


@contextmanager
def _own(order: Order) -> Iterator[None]:
    """Keep other runs out of the state's folder, which goes again where nothing is left in it.

    Raises:
        EocodecError: it cannot be made, or another run is at work there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(own_folder(order.state))
        except BlockingIOError:
            raise EocodecError(f"{order.out}: another adaptation is at work on it; give this one another -o") from None
        except OSError as e:
            raise EocodecError(f"{order.state}: cannot be written to ({e.strerror})") from None
        yield


def _adapt(order: Order, stages: Stages, report: Callable[[str], None], tick: Tick) -> Outcome:
    clock = Clock()
    goal = GOALS[order.goal]
    if order.device == "cuda" and not isinstance(goal, FlowGoal):
        raise EocodecError("the nets for lossless files are trained on the CPU; leave --device out")
    pictures = survey(order.pictures)
    for note in pictures.notes:
        report(note)
    path = bundle_path(order.model)
    base = load_model(path, order.threads)
    held = _compared(pictures.held_out)
    began = clock.now()
    before = goal.measure(base, held)
    task = _Task(order, pictures, held, path, base, stages, before, clock.now() - began, report, tick)
    result = _by_flow(task, goal, clock) if isinstance(goal, FlowGoal) else _exactly(task, goal, clock)
    report("comparing files of held-out pictures")
    after = goal.measure(Model(result.files, order.threads), held)
    gain = goal.gain(before, after)
    if not gain >= goal.least:
        shutil.rmtree(order.state, ignore_errors=True)
        more = "; the estimate was still rising, so that more --minutes may help" if result.rising else ""
        if gain < 0:
            found = f"there was a loss on the held-out pictures ({goal.said(gain)})"
        else:
            found = (
                f"too little was gained on the held-out pictures ({goal.said(gain)}, and {goal.least:g} is the least)"
            )
        raise NothingGainedError(f"{found}; {base.name} stays the better choice, and nothing was written{more}")
    base_files = dict(bundle_files(path))
    identity = (write_bundle if order.full else _delta_writer(base_files))(order.out, result.files)
    outcome = Outcome(
        name=order.out.stem,
        identity=identity.hex(),
        base=base.name,
        base_identity=base.full_id.hex(),
        goal=goal.name,
        place=goal.place_name,
        quality=goal.quality_name,
        unit=goal.gain_unit,
        gain=gain,
        before=goal.shown(before),
        after=goal.shown(after),
        held_out=len(held),
        facts=pictures.facts,
        notes=pictures.notes,
        iterations=result.iterations,
        refinement=result.refinement,
        history=result.history,
        seconds=clock.now(),
        size=order.out.stat().st_size,
        delta=not order.full,
        dropped=sorted(_groups(base_files) - _groups(result.files)),
        machine=result.machine,
    )
    write_report(order.out, outcome)
    shutil.rmtree(order.state, ignore_errors=True)
    return outcome


def _by_flow(task: _Task, goal: FlowGoal, clock: Clock) -> _Result:
    """Train what files with losses, or denoising, depend on."""
    order, report = task.order, task.report
    training = FlowTraining(order, goal, task.pictures, task.path, task.base, report)
    clock.passed += training.progress.passed
    stage = training.refined * task.trained
    until = task.trained - stage, task.end
    files = trained_files(training, task.stages.export, clock, until, task.tick, task.held, task.card)
    refined: Refined | None = None
    if stage:
        refined = task.stages.refine(
            files,
            [p for _, p in task.pictures.train],
            task.held,
            training.stretch(clock, _seconds_left(task, training, stage), task.end, task.tick),
            grey=training.sizes.axes == 1,
            eye_share=goal.eye_share,
            seed=order.seed,
            threads=order.threads,
            report=report,
        )
        if refined is not None:
            files = refined.files
            report(f"refinement: {refined.told()}")
    counts = zip(training.parts, training.progress.iterations, strict=False)
    return _Result(
        files,
        {f"part {k}, {part.stage.objective}": n for k, (part, n) in enumerate(counts, 1)},
        training.progress.history,
        _cores() if training.run.device.type == "cpu" else torch.cuda.get_device_name(),
        refined.told() if refined else "",
    )


def _seconds_left(task: _Task, training: FlowTraining, stage: float) -> float:
    """Seconds that the refinement may be trained for: less than planned where the export has taken longer."""
    return min(stage, max(LEAST_REFINED * stage, task.end - task.measured - training.progress.exported))


def _exactly(task: _Task, goal: Goal, clock: Clock) -> _Result:
    """Train the nets for lossless files."""
    order = task.order
    mark = mark_of(order, task.pictures, task.base)
    progress = read_progress(order, mark)
    if progress is None:
        progress = Progress(mark, [], start=clock.now())
    else:
        task.report(f"going on after {progress.passed / 60:.1f} minutes")
    clock.passed += progress.passed

    def save() -> None:
        progress.passed = clock.now()
        write_progress(order, progress)

    def show(text: str) -> None:
        task.tick(clock.now(), task.end, text)

    trained = task.stages.exact(
        dict(bundle_files(task.path)),
        [p for _, p in task.pictures.train],
        task.held,
        Stretch(order.state / "lossless", clock.now, progress.start, task.trained, save, show),
        name=order.out.stem,
        card=task.card,
        said=goal.said,
        seed=order.seed,
        threads=order.threads,
        report=task.report,
    )
    return _Result(trained.files, trained.steps, trained.history, _cores())


def _cores() -> str:
    return "1 core" if cores() == 1 else f"{cores()} cores"


def _compared(pictures: list[Named]) -> list[Picture]:
    """The middles of some pictures, few enough that coding them at all steps takes a minute or two."""
    middles = [centre(p, 1, COMPARED_EDGE) for _, p in evenly(pictures, COMPARED)]
    mean = sum(p.shape[0] * p.shape[1] for p in middles) / len(middles)
    count = min(len(middles), max(2, int(COMPARED_PIXELS / mean)))
    return [middles[k * len(middles) // count] for k in range(count)]


def _delta_writer(base: dict[str, bytes]) -> Callable[[Path, dict[str, bytes]], bytes]:
    return lambda path, files: write_delta(path, base, files)


def _groups(files: dict[str, bytes]) -> set[str]:
    """Folders of a bundle's files: what it can do besides plain files."""
    return {name.split("/")[0] for name in files if "/" in name}
