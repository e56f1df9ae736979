"""Inputs and outputs of the commands: several files, folders, pipes, and nothing overwritten by accident.

In: the paths on the command line and `-o`. Out: pairs of (input, output) and the loop over them.
"""

import functools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec.errors import EocodecError

if TYPE_CHECKING:
    from eocodec.model.bundle import Model

__all__ = [
    "Job",
    "Lanes",
    "cores",
    "for_each",
    "inputs_argument",
    "json_option",
    "output_option",
    "plan",
    "read_bytes",
    "write_bytes",
]

PIPE = "-"
LARGE = 1 << 22  # pixels from which on a picture is worked at alone, with all threads, for the sake of memory

inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
output_option = click.option(
    "-o", "--output", metavar="FILE|DIR", help="Output file, folder, or - for standard output."
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per input.")
threads_option = click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads; 0: one per core.")
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the transform runs; auto: CUDA if it works. Entropy coding always runs on the CPU.",
)
model_option = click.option("--model", default=None, metavar="NAME|PATH", help="Model name or .eocm bundle.")


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; `-` is a pipe."""

    source: str
    target: str


def plan(inputs: Sequence[str], output: str | None, suffix: str, force: bool, own: bytes = b"") -> list[Job]:
    """Pair inputs with outputs.

    Arguments:
        inputs: paths, or `-`.
        output: a file (one input), a folder, `-`, or None for the input's name with `suffix`.
        suffix: of derived names, such as ".eoc".
        force: allow derived names to replace existing files.
        own: an existing file that starts with these bytes may be replaced all the same.

    Raises:
        EocodecError: two results would have the same name, or a derived name exists already.
    """
    folder = output is not None and output != PIPE and (Path(output).is_dir() or output.endswith("/"))
    if output not in (None, PIPE) and not folder and len(inputs) > 1:
        raise EocodecError(f"{output} is not a folder; several inputs need one")
    if inputs.count(PIPE) > 1 or (output == PIPE and len(inputs) > 1):
        raise EocodecError("only one input can go through a pipe")
    jobs = []
    for source in inputs:
        if output == PIPE or (source == PIPE and output is None):
            target = PIPE
        elif output is not None and not folder:
            target = output
        else:
            name = Path("stdin" if source == PIPE else source)
            base = Path(str(output)) if folder else name.parent
            stem = name.stem if name.suffix else name.name
            target = str(base / f"{stem}{suffix}")
            if not force and Path(target).exists() and not _starts_with(Path(target), own):
                raise EocodecError(f"{target} exists; use --force to overwrite it, or -o to choose another name")
        both = PIPE not in (source, target) and Path(target).exists() and Path(source).exists()
        if both and Path(target).samefile(source):
            raise EocodecError(f"{target} is the input itself; choose another output with -o")
        jobs.append(Job(source, target))
    targets = [j.target for j in jobs]
    for j in jobs:
        if targets.count(j.target) > 1:
            raise EocodecError(f"several inputs would be written to {j.target}")
    if folder:
        try:
            Path(str(output)).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise EocodecError(f"{output}: cannot be made ({e.strerror})") from None
    return jobs


def _starts_with(path: Path, own: bytes) -> bool:
    if not own:
        return False
    try:
        with path.open("rb") as f:
            return f.read(len(own)) == own
    except OSError:
        return False


def read_bytes(source: str) -> bytes:
    """Content of a file or of standard input.

    Raises:
        EocodecError: missing, a folder, or not readable.
    """
    if source == PIPE:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except FileNotFoundError:
        raise EocodecError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise EocodecError(f"{source}: is a folder") from None
    except OSError as e:
        raise EocodecError(f"{source}: cannot be read ({e.strerror or e})") from None


def write_bytes(target: str, content: bytes) -> None:
    """Write to a file, all or nothing, or to standard output."""
    from eocodec.image import atomic_write

    if target == PIPE:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        atomic_write(Path(target), content)


class Lanes:
    """How several pictures share the cores: with at least as many pictures as threads, one thread for each picture.

    That is faster than one picture after another on all threads, since not everything in a picture can be shared out.
    Large pictures still come one at a time, on all threads.

    Arguments:
        pictures: how many there are.
        threads, device: as on the command line; 0 threads are one per core.
    """

    def __init__(self, pictures: int, threads: int, device: str) -> None:
        self.device = device
        lanes = threads or cores()
        self.workers = lanes if pictures >= lanes else 1
        self.threads = threads if self.workers == 1 else 1  # for a picture that is not large
        self._all = threads
        self._turn = threading.Condition()
        self._small, self._large = 0, False

    def load(self, name: str) -> "Model":
        """The model for pictures that are not large; what is wrong with it or the device shows here, not file by file.

        CUDA is looked for before there are several threads, since its loader is only kept from printing in one.
        """
        from eocodec.model.library import load_model

        model = load_model(name, self.threads, device=self.device)
        if self.workers > 1:
            model.settle()
        return model

    @contextmanager
    def turn(self, pixels: int) -> Iterator[int]:
        """Wait for the lane of a picture; gives the number of threads to work with."""
        if self.workers == 1:
            yield self.threads
            return
        large = pixels >= LARGE
        with self._turn:
            self._turn.wait_for(lambda: not self._large and not (large and self._small))
            if large:
                self._large = True
            else:
                self._small += 1
        try:
            yield self._all if large else self.threads
        finally:
            with self._turn:
                if large:
                    self._large = False
                else:
                    self._small -= 1
                self._turn.notify_all()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(
    jobs: Sequence[Job],
    work: Callable[[Job], dict[str, Any]],
    line: Callable[[dict[str, Any]], str],
    as_json: bool,
    workers: int = 1,
) -> None:
    """Run `work` on every job, print a line (or JSON) for each, go on after errors, exit with 1 if there were any.

    With several `workers` as many jobs run at a time; lines keep the order of the jobs. They go to standard error when
    a result goes to standard output; a progress bar shows on a terminal only.
    """
    piped = any(j.target == PIPE for j in jobs)
    failed = 0
    with _results(jobs, work, workers) as results:
        for job, result in _progress(jobs, results):
            try:
                row = result()
            except EocodecError as e:
                failed += 1
                message = str(e)
                if job.source != PIPE and not message.startswith(job.source):
                    message = f"{job.source}: {message}"
                if as_json:
                    click.echo(json.dumps({"input": job.source, "error": message}), err=piped)
                click.echo(f"eocodec: {message}", err=True)
            else:
                click.echo(json.dumps(row) if as_json else line(row), err=piped)
    if failed:
        raise click.exceptions.Exit(1)


Result = Callable[[], dict[str, Any]]


@contextmanager
def _results(jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], workers: int) -> Iterator[list[Result]]:
    """For every job a function that gives its result, or raises its error."""
    if workers == 1:
        yield [functools.partial(work, job) for job in jobs]
        return
    pool = ThreadPoolExecutor(min(workers, len(jobs)))
    try:
        yield [pool.submit(work, job).result for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(jobs: Sequence[Job], results: Sequence[Result]) -> Iterator[tuple[Job, Result]]:
    pairs = list(zip(jobs, results, strict=True))
    if len(jobs) < 2 or not sys.stderr.isatty():
        yield from pairs
        return
    with click.progressbar(pairs, file=sys.stderr, item_show_func=lambda p: p[0].source if p else "") as bar:
        yield from bar
