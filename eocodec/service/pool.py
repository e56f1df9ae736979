"""Work off the event loop: a few processes, a short queue, and an answer at once when both are full.

In: a function and its arguments, both picklable. Out: its result, or :class:`Busy`, :class:`TooSlow`, :class:`Died`.
Each process has a pipe of its own: one that is killed, at whatever moment, costs its own request and no lock.
"""

import asyncio
import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pickle import PicklingError
from typing import Any

from eocodec.errors import EocodecError

__all__ = ["Busy", "Died", "Gone", "Pool", "TooSlow", "first_sentence"]

STILLBORN = 0.5  # seconds within which a process that ends was probably dead before it got the work
START = 120.0  # seconds that a process may take to load its models
GLANCE = 0.5  # seconds between two looks whether a client that waits is still there
SMOOTHING = 0.1  # weight of the last request in the mean time of one

Function = Callable[..., Any]


class Busy(Exception):
    """All processes work and the queue is full; `seconds` from now there may be room."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the service is busy; try again in {seconds} s")
        self.seconds = seconds


class TooSlow(Exception):
    """The work took longer than a request may."""


class Died(Exception):
    """The process died while it worked, or cannot be started."""


class Gone(Exception):
    """The client left before its turn came."""


def _serve(pipe: "Connection[Any, Any]", initializer: Function, arguments: tuple[Any, ...]) -> None:
    """A process: says None when it is ready, then takes work and gives (whether it went well, result or error)."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)  # both may go to the whole group; the service ends its processes
    try:
        try:
            initializer(*arguments)
        except Exception as e:
            pipe.send((False, e))
            return
        pipe.send((True, None))
        while True:
            function, given = pipe.recv()
            try:
                answer = True, function(*given)
            except Exception as e:
                answer = False, e
            try:
                pipe.send(answer)
            except (TypeError, AttributeError, PicklingError) as e:
                pipe.send((False, Died(f"an answer cannot be sent ({e})")))
    except (EOFError, OSError):  # the service has ended
        return


class _Process:
    """One process, replaced when it is dead. Used by one thread at a time."""

    def __init__(self, initializer: Function, arguments: tuple[Any, ...]) -> None:
        self.initializer, self.arguments = initializer, arguments
        self.process: Any = None
        self.pipe: Any = None

    def _start(self) -> None:
        """Start a process and wait until it is ready.

        Raises:
            Died: it ends before, or takes too long.
            Exception: what its initializer raised.
        """
        context = multiprocessing.get_context("spawn")  # forked ones would inherit the threads' locks of this one
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.initializer, self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        try:
            fine, error = self.pipe.recv() if self.pipe.poll(START) else (False, Died("a process does not start"))
        except (EOFError, OSError):
            fine, error = False, Died("a process ends before it has started")
        if not fine:
            self.end()
            raise error

    def call(self, function: Function, arguments: tuple[Any, ...], limit: float, again: bool = True) -> Any:
        """Run a function in the process.

        Raises:
            TooSlow, Died: see :class:`Pool`.
            Exception: what the function raised.
        """
        if self.process is None or not self.process.is_alive():
            self.end()
            self._start()
        started = time.monotonic()
        clock = threading.Timer(limit, self.process.kill)  # ends a process wherever it hangs, in its pipe even
        clock.start()
        try:
            self.pipe.send((function, arguments))
            fine, result = self.pipe.recv()
        except (EOFError, OSError):
            seconds = time.monotonic() - started
            self.process.join()
            code = self.process.exitcode
            self.end()
            if seconds >= limit:
                raise TooSlow(f"the picture took longer than {limit:g} s; send a smaller one") from None
            if again and seconds < STILLBORN:
                return self.call(function, arguments, limit, again=False)
            raise Died(f"the process that worked at the picture ended with code {code}") from None
        finally:
            clock.cancel()
        if not fine:
            raise result
        return result

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.pipe.close()
            self.process.kill()
            self.process.join()
            self.process = None


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
        self, workers: int, queue: int, timeout: float, initializer: Function, arguments: tuple[Any, ...]
    ) -> None:
        self.workers, self.queue, self.timeout = workers, queue, timeout
        self.taken = 0
        self._mean = 0.5  # seconds a request takes; only for Retry-After
        self._free = asyncio.Semaphore(workers)
        self._idle = [_Process(initializer, arguments) for _ in range(workers)]
        self._all = list(self._idle)
        self._threads = ThreadPoolExecutor(workers)  # each waits for one process

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

    async def run(self, function: Function, *arguments: Any, gone: Callable[[], Awaitable[bool]] | None = None) -> Any:
        """Run a function in a process; to be called while holding a place.

        Arguments:
            function, arguments: what to run.
            gone: tells whether the client has left; asked while the request waits for a process.

        Raises:
            Gone: it has left.
            TooSlow: it took longer than the pool allows.
            Died: the process ended, for want of memory for example.
            Exception: what the function raised.
        """
        await self._turn(gone)
        started = time.monotonic()
        process = self._idle.pop()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, process.call, function, arguments, self.timeout
        )

        def release(_: Any) -> None:
            self._idle.append(process)
            self._free.release()

        work.add_done_callback(release)
        result = await asyncio.shield(work)  # a process is not worth ending because its client is gone
        self._mean += SMOOTHING * (time.monotonic() - started - self._mean)
        return result

    async def _turn(self, gone: Callable[[], Awaitable[bool]] | None) -> None:
        """Wait for a free process, in order."""
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            while not (await asyncio.wait({turn}, timeout=GLANCE))[0]:
                if gone is not None and await gone():
                    raise Gone
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._free.release()
            raise

    async def close(self) -> None:
        """Let the processes finish what they have, for as long as a request may take, and end them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                for _ in range(self.workers):
                    await self._free.acquire()
        for process in self._all:
            await asyncio.to_thread(process.end)
        self._threads.shutdown(wait=False, cancel_futures=True)


def first_sentence(e: BaseException) -> str:
    """What to tell of an error that ends the service."""
    return str(e) if isinstance(e, EocodecError | Died) else f"{type(e).__name__}: {e}"
