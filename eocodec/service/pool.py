"""Work off the event loop: a few processes, a short queue, and an answer at once when both are full.

In: a function and its arguments, both picklable. Out: its result, or :class:`Busy`, `TooSlow`, `Died`.
"""

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from eocodec.workers import Cancelled, Died, TooSlow, Worker

__all__ = ["Busy", "Gone", "Pool"]

GLANCE = 0.1  # seconds between two looks whether a client that waits is still there
LINGER = 0.4  # seconds that work may wait for a process that knows what it is about and is giving up something else
PATIENCE = 2.0  # seconds that a process has at the end
REMEMBERED = 8  # pictures of which is known in which process they are open
SMOOTHING = 0.1  # weight of the last request in the mean time of one

Function = Callable[..., Any]


class Busy(Exception):
    """All processes work and the queue is full; `seconds` from now there may be room."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the service is busy; try again in {seconds} s")
        self.seconds = seconds


class Gone(Exception):
    """The client left before its work was done."""


class Pool:
    """A bounded pool of processes.

    Requests first take a place (:meth:`place`), of which there are as many as processes and room in the queue
    together; where all are taken, :class:`Busy` is raised at once. Work is handed to a process only when one is free,
    so requests whose client is gone can leave the queue without harm.

    Arguments:
        workers: processes.
        queue: requests that may wait.
        timeout: seconds that a process may work at a request; then it is ended and replaced.
        initializer, arguments: run in every new process.
        interrupt: see :class:`eocodec.workers.Worker`.
        memory: bytes that a process may keep between two requests; above it is replaced. 0: there is no bound.
    """

    def __init__(
        self,
        workers: int,
        queue: int,
        timeout: float,
        initializer: Function,
        arguments: tuple[Any, ...],
        interrupt: Callable[[], None] | None = None,
        memory: int = 0,
    ) -> None:
        self.workers, self.queue, self.timeout, self.memory = workers, queue, timeout, memory
        self.taken = 0
        self.died: Callable[[Exception], None] = lambda e: None  # hears of processes that end at their work
        self.renewed: Callable[[int], None] = lambda size: None  # hears how large processes were that are replaced
        self._mean = 0.5  # seconds a request takes; only for Retry-After
        self._free = asyncio.Semaphore(workers)
        self._idle = [Worker(initializer, arguments, interrupt=interrupt) for _ in range(workers)]
        self._known: dict[Worker, deque[str]] = {w: deque(maxlen=REMEMBERED) for w in self._idle}
        self._leaving: set[Worker] = set()  # what they work at was given up
        self._all = list(self._idle)
        self._threads = ThreadPoolExecutor(workers)  # each waits for one process

    @property
    def waiting(self) -> int:
        """Requests that have a place but no process."""
        return max(0, self.taken - self.workers)

    @property
    def resident(self) -> int:
        """Bytes of memory that the processes take, together; pages that they share count for each."""
        return sum(process.resident for process in self._all)

    def wait_seconds(self) -> int:
        """When to try again: the time that the requests here need, in whole seconds, at most a minute."""
        return min(60, max(1, round(self.taken * self._mean / self.workers)))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places.

        Raises:
            Busy: there is none.
        """
        if self.taken >= self.workers + self.queue:
            raise Busy(self.wait_seconds())
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(
        self,
        function: Function,
        *arguments: Any,
        gone: Callable[[], Awaitable[bool]] | None = None,
        about: str | None = None,
        patience: float = 1.0,
    ) -> Any:
        """Run a function in a process; to be called while holding a place.

        Arguments:
            function, arguments: what to run.
            gone: whether the client has left; its work is given up then.
            about: what it is about: a process that has worked at the same is preferred.
            patience: how many times as long as usual it may take.

        Raises:
            Gone: it has left.
            TooSlow: it took longer than the pool allows, see :class:`eocodec.workers.Worker`.
            Died: the process ended, for want of memory for example.
            Exception: what the function raised.
        """
        await self._turn(gone)
        try:
            await self._settled(about)
        except BaseException:
            self._free.release()
            raise
        started = time.monotonic()
        process = self._take(about)
        call = functools.partial(process.call, function, *arguments, limit=patience * self.timeout)
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        work.add_done_callback(lambda _: self._release(process))
        try:
            while not (await asyncio.wait({work}, timeout=GLANCE))[0]:
                if gone is not None and await gone():
                    self._cancel(process)
                    gone = None
            result = work.result()
        except Cancelled:
            raise Gone from None
        except (Died, TooSlow) as e:
            self.died(e)
            raise
        except asyncio.CancelledError:
            self._cancel(process)
            work.add_done_callback(_forget)
            raise
        self._mean += SMOOTHING * (time.monotonic() - started - self._mean)
        return result

    def _cancel(self, process: Worker) -> None:
        process.cancel()
        self._leaving.add(process)

    async def _settled(self, about: str | None) -> None:
        """Wait a moment for a process that knows what work is about, if it is giving up what it does.

        Who moves a slider gives up one picture for the next of the same; another process would have to transform it.
        """
        end = time.monotonic() + LINGER
        while about is not None and time.monotonic() < end:
            if any(about in self._known[w] for w in self._idle):
                return
            if not any(about in self._known[w] for w in self._leaving):
                return
            await asyncio.sleep(GLANCE / 10)

    def _release(self, process: Worker) -> None:
        """Let others have a process, or a fresh one in its place if it keeps too much; the answer does not wait."""
        self._leaving.discard(process)
        size = process.resident if self.memory else 0
        if size > self.memory:
            self.renewed(size)
            self._known[process].clear()
            renewal = asyncio.get_running_loop().run_in_executor(self._threads, process.renew)
            renewal.add_done_callback(_forget)  # where it fails, the next request starts one, or hears why not
            renewal.add_done_callback(lambda _: self._return(process))
        else:
            self._return(process)

    def _return(self, process: Worker) -> None:
        self._idle.append(process)
        self._free.release()

    def _take(self, about: str | None) -> Worker:
        """A free process; where there is one, one that knows what the work is about."""
        process = next((w for w in self._idle if about in self._known[w]), self._idle[-1])
        self._idle.remove(process)
        if about is not None and about not in self._known[process]:
            self._known[process].append(about)
        return process

    async def _turn(self, gone: Callable[[], Awaitable[bool]] | None) -> None:
        """Wait for a free process, in order.

        Raises:
            Gone: the client left before.
        """
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            while not (await asyncio.wait({turn}, timeout=GLANCE))[0]:
                if gone is not None and await gone():
                    raise Gone
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._free.release()
            raise

    def kill(self) -> None:
        """End the processes at once, whatever they do; from whatever thread."""
        for process in self._all:
            process.stop()

    async def close(self) -> None:
        """Let the processes finish what they have, as long as requests that are given up may take, and end them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for _ in range(self.workers):
                    await self._free.acquire()
        self.kill()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for process in self._all:
            await asyncio.to_thread(process.end)


def _forget(work: asyncio.Future[Any]) -> None:
    """Take the result that nobody waits for any more."""
    if not work.cancelled():
        work.exception()
