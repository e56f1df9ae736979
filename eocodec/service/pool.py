"""Work off the event loop: a few processes, a short queue, and an answer at once when both are full.

In: a function and its arguments, both picklable. Out: its result, or :class:`Busy`, :class:`TooSlow`, :class:`Died`.
"""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager
from typing import Any

from pebble import ProcessExpired, ProcessPool

__all__ = ["Busy", "Died", "Gone", "Pool", "TooSlow"]

GLANCE = 0.5  # seconds between two looks whether a client that waits is still there
STILLBORN = 0.5  # seconds within which a process that ends was probably dead before it got the work
SMOOTHING = 0.1  # weight of the last request in the mean time of one


class Busy(Exception):
    """All processes work and the queue is full; `seconds` from now there may be room."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the service is busy; try again in {seconds} s")
        self.seconds = seconds


class TooSlow(Exception):
    """The work took longer than a request may."""


class Died(Exception):
    """The process died while it worked."""


class Gone(Exception):
    """The client left before its turn came."""


class Pool:
    """A bounded pool of processes.

    Requests first take a place (:meth:`place`), of which there are as many as processes and room in the queue
    together; whoever finds none is told at once. Work is handed to a process only when one is free, so requests whose
    client is gone can leave the queue without harm.

    Arguments:
        workers: processes.
        queue: requests that may wait.
        timeout: seconds that a process may work at a request; then it is ended and replaced.
        initializer, arguments: run in every new process.
    """

    def __init__(
        self, workers: int, queue: int, timeout: float, initializer: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self.workers, self.queue, self.timeout = workers, queue, timeout
        self.taken = 0
        self._free = asyncio.Semaphore(workers)
        self._mean = 0.5  # seconds a request takes; only for Retry-After
        # Forked processes would inherit the threads' locks of this one.
        context = multiprocessing.get_context("spawn")
        self._processes = ProcessPool(workers, initializer=initializer, initargs=arguments, context=context)

    @property
    def waiting(self) -> int:
        """Requests that have a place but no process."""
        return max(0, self.taken - self.workers)

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
        self, function: Callable[..., Any], *arguments: Any, gone: Callable[[], Awaitable[bool]] | None = None
    ) -> Any:
        """Run a function in a process; to be called while holding a place.

        Arguments:
            function, arguments: what to run.
            gone: tells whether the client has left; asked while the request waits for a process.

        Raises:
            Gone: it has left.
            TooSlow: it took longer than the pool allows.
            Died: the process ended, for want of memory for example.
        """
        async with self._turn(gone):
            started = time.monotonic()
            result = await self._work(function, arguments)
            self._mean += SMOOTHING * (time.monotonic() - started - self._mean)
            return result

    async def _work(self, function: Callable[..., Any], arguments: tuple[Any, ...], again: bool = True) -> Any:
        started = time.monotonic()
        future = self._processes.schedule(function, args=arguments, timeout=self.timeout)
        try:
            # Shielded: a process is not worth ending because its client is gone.
            return await asyncio.shield(asyncio.wrap_future(future))
        except FutureTimeoutError:
            raise TooSlow(f"the picture took longer than {self.timeout:g} s; send a smaller one") from None
        except ProcessExpired as e:
            if again and time.monotonic() - started < STILLBORN:
                return await self._work(function, arguments, again=False)
            raise Died(f"the process that worked at the picture ended with code {e.exitcode}") from None

    @asynccontextmanager
    async def _turn(self, gone: Callable[[], Awaitable[bool]] | None) -> AsyncIterator[None]:
        """Wait for a free process, in order, and hold it."""
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            while not (await asyncio.wait({turn}, timeout=GLANCE))[0]:
                if gone is not None and await gone():
                    raise Gone
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._free.release()
            raise
        try:
            yield
        finally:
            self._free.release()

    async def close(self) -> None:
        """Let the processes finish and end them."""
        self._processes.close()  # type: ignore[no-untyped-call]
        try:
            await asyncio.to_thread(self._processes.join, self.timeout)
        except FutureTimeoutError:
            self._processes.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(self._processes.join)
