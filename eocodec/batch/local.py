"""An engine of processes on this machine.

In: the work and its sources. Out: rows, in the order in which they are done.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from eocodec.batch.corpus import Source
from eocodec.batch.work import LOST, PARTIAL, Engine, Row, Work
from eocodec.errors import EocodecError
from eocodec.storage import PARTIAL_NAME
from eocodec.workers import ONE_THREAD, Died, Worker

__all__ = ["local"]

AHEAD = 2  # sources that a process has: the one in work and the next
STILLBORN = 3  # processes in a row that may end before they begin


def local(workers: int = 1) -> Engine:
    """An engine of processes on this machine, one thread each.

    The source that a process is killed at (out of memory, a signal) is tried once more when all others are done, alone.

    Arguments:
        workers: how many.
    """

    def engine(work: Work, sources: Sequence[Source]) -> Iterator[Row]:
        if work.corpus.is_private or work.results.is_private:
            yield from map(work, sources)
            return
        again = []
        try:
            for source, row in _worked(work, sources, workers):
                if row is None:
                    again.append(source)
                else:
                    yield row
            for source, row in _worked(work, again, 1):
                yield row or work.row(source, LOST)
        finally:  # processes that were ended in the middle leave unfinished files
            work.results.clear(PARTIAL, PARTIAL_NAME)

    return engine


class _Lane:
    """A worker process and the sources that it has, the one in work first."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.worker = Worker(work.settings.loaded, environment=ONE_THREAD)
        self.worker.start()
        self.given: deque[Source] = deque()
        self.begun = False

    def give(self, queue: deque[Source], most: int) -> None:
        """Give it sources until it has `most`."""
        while queue and len(self.given) < most:
            self.given.append(queue.popleft())
            self.worker.send(self.work, self.given[-1])

    def take(self) -> tuple[Source, Row] | None:
        """What its pipe has: a row, or nothing but that the process is ready.

        Raises:
            Died: the process has ended.
            EocodecError: the model cannot be loaded in it.
        """
        if not self.worker.ready:
            self.worker.await_ready()
            return None
        row: Row = self.worker.receive()
        return self.given.popleft(), row


def _worked(work: Work, sources: Sequence[Source], count: int) -> Iterator[tuple[Source, Row | None]]:
    """Sources with their rows, as they are done by `count` processes; None for one whose process was killed."""
    queue = deque(sources)
    pool: dict[Any, _Lane] = {}
    stillborn = 0
    try:
        while True:
            had = sum(len(lane.given) for lane in pool.values())
            if not queue and not had:
                return
            while queue and len(pool) < min(count, len(queue) + had):
                lane = _Lane(work)
                pool[lane.worker.pipe] = lane
            for lane in pool.values():
                if lane.worker.ready:
                    lane.give(queue, AHEAD if len(queue) > count else 1)
            for pipe in wait([pipe for pipe, lane in pool.items() if lane.given or not lane.worker.ready]):
                lane = pool[pipe]
                try:
                    done = lane.take()
                except Died as e:
                    del pool[pipe]
                    lane.worker.end()
                    stillborn = 0 if lane.begun else stillborn + 1
                    if stillborn > STILLBORN:
                        raise EocodecError(f"worker processes end before they begin (exit code {e.code})") from None
                    if lane.given:
                        queue.extendleft(reversed(list(lane.given)[1:]))
                        yield lane.given[0], None
                    continue
                if done is None:
                    lane.begun = True
                else:
                    yield done
    finally:
        for lane in pool.values():
            lane.worker.end()
