"""The loop over the inputs of a command: in threads, in order, past errors, and over at once when interrupted.

In: jobs and what is to be done with one. Out: a line or a JSON object for each, and the exit code.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import click

from eocodec.errors import EocodecError
from eocodec.memory import keep_memory, take_large_pages
from eocodec_cli.files import PIPE, Job, with_name
from eocodec_cli.group import NO_MEMORY, alone, lacks_memory
from eocodec_cli.shown import printable, warn

__all__ = ["busy", "done", "for_each", "writing"]

Row = dict[str, Any]

TICK = 0.5  # seconds between two looks at what is still worked at
PATIENCE = 2.0  # seconds after which a single picture is shown to be worked at
LAST_WRITES = 10.0  # seconds that files being written when the command is interrupted may take


class _Gate:
    """Lets files be written until it is closed; closing waits for those that are being written."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._writers, self._closed = 0, False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Hold the gate while a file is written.

        Raises:
            EocodecError: it is closed.
        """
        with self._change:
            if self._closed:
                raise EocodecError("interrupted")
            self._writers += 1
        try:
            yield
        finally:
            with self._change:
                self._writers -= 1
                self._change.notify_all()

    def close(self) -> None:
        """Let no more files be begun, and wait for those that are."""
        with self._change:
            self._closed = True
            self._change.wait_for(lambda: not self._writers, LAST_WRITES)


_running: list[Future[Row]] = []
_gate = _Gate()
writing = _gate.passing


def busy() -> bool:
    """Whether threads of an interrupted loop still work; from now on they write nothing."""
    if not any(f.running() for f in _running):
        return False
    _gate.close()
    return True


def done() -> bool:
    """Whether a loop over pictures has run to its end, so that no thread has anything left to do."""
    return bool(_running) and all(f.done() for f in _running)


def for_each(
    jobs: Sequence[Job],
    work: Callable[[Job], Row],
    line: Callable[[Row], str],
    as_json: bool,
    workers: int = 1,
) -> None:
    """Run `work` on every job, print a line (or JSON) for each, go on after errors, exit with 1 if there were any.

    As many jobs as there are `workers` run at a time; lines keep the order of the jobs. They go to standard error when
    a result goes to standard output. What a row has in "warnings" goes to standard error. All work is done in threads,
    so that an interrupt is noticed at once, whatever they do; on a terminal one sees what is worked at.
    """
    if alone():
        keep_memory()
    piped = any(j.target == PIPE for j in jobs)
    failed = 0
    shown = _Shown(jobs)
    with _started(jobs, work, workers) as futures:
        for number, (job, future) in enumerate(zip(jobs, futures, strict=True)):
            shown.wait(number, future)
            try:
                row = future.result()
            except EocodecError as e:
                failed += 1
                _fail(job, str(e), as_json, piped)
            except Exception as e:
                if not lacks_memory(e):
                    raise
                failed += 1
                _fail(job, NO_MEMORY, as_json, piped)
            else:
                _report(row, line, as_json, piped)
    if failed:
        raise click.exceptions.Exit(1)


@contextmanager
def _started(jobs: Sequence[Job], work: Callable[[Job], Row], workers: int) -> Iterator[list[Future[Row]]]:
    pool = ThreadPoolExecutor(max(1, min(workers, len(jobs))), initializer=take_large_pages if alone() else None)
    _running[:] = [pool.submit(_do, work, job) for job in jobs]
    try:
        yield _running
    except BaseException:  # after an error of this loop nobody waits for the others
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _do(work: Callable[[Job], Row], job: Job) -> Row:
    if job.refused:
        raise EocodecError(job.refused)
    return work(job)


def _fail(job: Job, message: str, as_json: bool, piped: bool) -> None:
    if job.source != PIPE:
        message = with_name(job.source, message)
    if as_json:
        click.echo(json.dumps({"input": job.source, "error": message}), err=piped)
    click.echo(printable(f"eocodec: {message}"), err=True)


def _report(row: Row, line: Callable[[Row], str], as_json: bool, piped: bool) -> None:
    if as_json:
        click.echo(json.dumps(row), err=piped)
    else:
        names: Row = {k: printable(row[k]) for k in ("input", "output") if k in row}
        click.echo(line({**row, **names}), err=piped)
    for warning in row.get("warnings", ()):
        warn(row["input"], warning)


class _Shown:
    """One line on a terminal's standard error that says what is worked at; gone before a result is printed."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.begun = time.monotonic()
        self.terminal = sys.stderr is not None and sys.stderr.isatty()

    def wait(self, number: int, future: "Future[Row]") -> None:
        """Wait until a job is done."""
        drawn = False
        while not wait([future], TICK).done:
            drawn = self._draw(number) or drawn
        if drawn:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _draw(self, number: int) -> bool:
        seconds = time.monotonic() - self.begun
        if not self.terminal or (len(self.jobs) == 1 and seconds < PATIENCE):
            return False
        import shutil  # takes its time

        width = max(20, shutil.get_terminal_size().columns - 1)
        text = f"{number + 1} of {len(self.jobs)}  {seconds:.0f} s  {printable(self.jobs[number].source)}"
        click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)
        return True
