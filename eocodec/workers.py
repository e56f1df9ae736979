"""One process that works for this one, with a pipe of its own, replaced when it dies.

In: functions and their arguments, picklable. Out: their results, in order, or the exceptions that they raised.
A process that is killed, at whatever moment, costs what it had and no lock that others wait for.

    worker.start() ──spawn──> environment, initializer ── ready ──> await_ready()
    worker.send(f, x) ───────────> f(x) ── result or exception ───> receive()
    worker.call(f, x, limit): all of it, in a process that is started or replaced where that is needed
    worker.cancel(): the call in progress raises Cancelled; the process stays
    worker.renew(): a fresh process in place of one that has grown too large (worker.resident)

Importing this module imports neither NumPy nor a model, so that a process can set how many threads those take first.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

__all__ = ["ONE_THREAD", "STILLBORN", "Cancelled", "Crew", "Died", "TooSlow", "Worker"]

if TYPE_CHECKING:
    Pipe = Connection[Any, Any]
else:  # generic for type checkers alone
    Pipe = Connection

START = 120.0  # seconds that a process may take to become ready
LASTING = 0.5  # seconds, of work that is worth giving memory back before its answer is sent
PATIENCE = 5.0  # seconds that a process has to let go of work that is given up
STILLBORN = 0.5  # seconds within which a process that ends was probably dead before it got the work

ONE_THREAD: Mapping[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process whose numerical libraries take one thread each."""


class Died(Exception):
    """A process ended when it had work, or before it was ready; `code` is its exit code, negative for a signal."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code

    def __str__(self) -> str:
        return self.message


class TooSlow(Exception):
    """Work took longer than `seconds`; the process was ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the work took longer than {self.seconds:g} s"


class Cancelled(BaseException):
    """Work was given up, see :meth:`Worker.cancel`; no Exception, so that nothing on its way takes it for a fault."""


class Worker:
    """A spawned process. Used by one thread at a time.

    SIGINT and SIGTERM, which a terminal or an init system sends to a whole group, do not end it; the process that
    started it does, and when that one ends in whatever way, so does this.

    Arguments:
        initializer, arguments: run in every process before its first work; `initializer` may return anything.
        environment: variables that are set, where they are not set already, before anything else is imported.
        interrupt: makes native code that the process runs return soon, called there from another thread; picklable.
    """

    def __init__(
        self,
        initializer: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        environment: Mapping[str, str] | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        self.initializer, self.arguments, self.environment = initializer, arguments, dict(environment or {})
        self.interrupt = interrupt
        self._given_up = False
        self._sent = 0  # work given to the process so far
        self._calling: int | None = None  # the number of the work of a call in progress
        self._lock = threading.Lock()  # of `_calling` and the pipe that cancels
        self._control: Pipe | None = None
        self.ready = False
        self._stopped = False
        self._process: Any = None
        self._pipe: Pipe | None = None

    @property
    def pipe(self) -> Pipe:
        """The end of the pipe at which results arrive, for `multiprocessing.connection.wait`."""
        assert self._pipe is not None, "the worker is not started"
        return self._pipe

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and bool(self._process.is_alive())

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._process is None else self._process.pid

    @property
    def resident(self) -> int:
        """Bytes of memory that the process takes now; 0 if there is none, or where the system does not say."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    def renew(self) -> None:
        """Put a fresh process in place of the one that there is, and wait until it is ready; between two calls.

        Raises:
            Died: it does not start, or the worker is stopped; there is no process then, and the next call starts one.
            Exception: what the initializer raised.
        """
        self.start()
        if self._stopped:
            self.end()
            raise Died("the worker is stopped")
        self.await_ready()

    def start(self) -> None:
        """Start a process, without waiting for it; one that is there already is killed.

        Raises:
            Died: the system has no room for another; there is no process then.
        """
        self.end()
        context = multiprocessing.get_context("spawn")  # a forked one would inherit the locks of this one's threads
        self._pipe, theirs = context.Pipe()
        hears, self._control = context.Pipe(duplex=False)
        ends = theirs, hears, self.environment, self.interrupt
        process = context.Process(target=_serve, args=ends, daemon=True)
        try:
            process.start()
        except OSError as e:  # too many processes, or no memory for one
            self.pipe.close()
            self._control.close()
            raise Died(f"a process does not start ({e.strerror or e})") from None
        finally:
            theirs.close()
            hears.close()
        self._process = process
        self._sent = 0
        self.send(self.initializer, *self.arguments)

    def await_ready(self, seconds: float = START) -> None:
        """Wait until the initializer has run.

        Raises:
            Died: the process ends before, or takes longer than that; it is gone then.
            Exception: what the initializer raised; the process is gone then, too.
        """
        try:
            if not self.pipe.poll(seconds):
                raise Died(f"a process is not ready after {seconds:g} s")
            self.receive()
        except BaseException:
            self.end()
            raise
        self.ready = True

    def send(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Give work to the process, which does one after the other; a process that has ended shows when receiving."""
        self._sent += 1
        with contextlib.suppress(OSError):
            self.pipe.send((function, arguments))

    def receive(self) -> Any:
        """Wait for the result of the oldest work that was sent.

        Raises:
            Died: the process ended before; it is gone then.
            Exception: what the function raised.
        """
        try:
            fine, result = self.pipe.recv()
        except (EOFError, OSError):
            code = self._code()
            self.end()
            raise Died(f"a process ended with code {code}", code) from None
        if not fine:
            raise result
        return result

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """Run a function in the process, which is started if there is none.

        Arguments:
            function, arguments: what to run.
            limit: seconds after which the process is ended, wherever it hangs, in its pipe even.

        Raises:
            TooSlow: it took longer.
            Died: the process ended while it worked, or does not start.
            Cancelled: it was given up.
            Exception: what the function, or the initializer, raised.
        """
        for fresh in (False, True):
            if not self.alive:
                self.renew()
            started = time.monotonic()
            clock = threading.Timer(limit, _kill, (self._process,))
            clock.start()
            try:
                with self._lock:
                    self._calling = self._sent + 1
                self.send(function, *arguments)
                return self.receive()
            except Died as e:
                if self._given_up:
                    raise Cancelled from None
                if e.code is None:  # the result could not be sent; the process is well
                    raise
                seconds = time.monotonic() - started
                if seconds >= limit:
                    raise TooSlow(limit) from None
                if fresh or self._stopped or seconds >= STILLBORN:
                    raise
            finally:
                with self._lock:
                    self._calling, self._given_up = None, False
                clock.cancel()
        raise AssertionError  # the second round returns or raises

    def cancel(self, patience: float = PATIENCE) -> None:
        """Give up the call in progress, if there is one, from whatever thread; it raises :class:`Cancelled`.

        The process stays, with what it has loaded, unless it does not let go of the work within `patience` seconds.
        """
        with self._lock:
            number, process = self._calling, self._process
            if number is None or process is None or self._given_up:
                return
            self._given_up = True
            assert self._control is not None
            with contextlib.suppress(OSError):
                self._control.send(number)

        def insist() -> None:
            with self._lock:
                if self._calling == number and self._process is process:
                    _kill(process)

        clock = threading.Timer(patience, insist)
        clock.daemon = True
        clock.start()

    def _code(self) -> int | None:
        self._process.join()
        return int(self._process.exitcode)

    def stop(self) -> None:
        """Kill the process for good, from whatever thread: calls, one in progress included, raise :class:`Died`."""
        self._stopped = True
        if self._process is not None:
            _kill(self._process)

    def end(self) -> None:
        """Kill the process, if there is one, and wait until it is gone; for the thread that uses the worker."""
        self.ready = False
        if self._process is not None:
            self.pipe.close()
            assert self._control is not None
            self._control.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None


def _kill(process: Any) -> None:
    with contextlib.suppress(ValueError):  # another thread has seen its end, and closed it
        process.kill()


class Crew:
    """Several workers that share independent calls; a context manager, at whose end their processes are gone.

    Arguments:
        count: processes, at most; they start when they are needed.
        initializer, arguments, environment: see :class:`Worker`.
    """

    def __init__(
        self,
        count: int,
        initializer: Callable[..., Any] = time.monotonic,
        arguments: tuple[Any, ...] = (),
        environment: Mapping[str, str] = ONE_THREAD,
    ) -> None:
        self._workers = [Worker(initializer, arguments, environment) for _ in range(count)]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Results of a function for each tuple of arguments, in their order.

        Raises:
            Died: a process ended.
            Exception: what the function, or the initializer, raised.
        """
        waiting = deque(enumerate(calls))
        results: list[Any] = [None] * len(waiting)
        idle, busy = list(self._workers), dict[Any, tuple[Worker, int]]()
        try:
            for worker in idle[: len(waiting)]:
                if not worker.alive:
                    worker.start()
            while waiting or busy:
                while waiting and idle:
                    worker, (number, arguments) = idle.pop(0), waiting.popleft()
                    worker.send(function, *arguments)
                    busy[worker.pipe] = worker, number
                for pipe in wait(list(busy)):
                    worker, number = busy[pipe]
                    if worker.ready:
                        results[number] = worker.receive()
                        idle.append(busy.pop(pipe)[0])
                    else:
                        worker.await_ready()
        except BaseException:  # what others still work at must not be taken for later results
            self.__exit__()
            raise
        return results


class _Desk:
    """What a process works at, and the thread that hears when that is given up."""

    def __init__(self, hears: Pipe, interrupt: Callable[[], None] | None) -> None:
        self.hears, self.interrupt = hears, interrupt
        self.number = 0  # of the work that was received last
        self.busy = False
        self.given_up = 0  # number of the latest work that was
        self.main = threading.main_thread().ident
        if hasattr(signal, "SIGUSR1"):  # elsewhere work is only given up by ending the process
            signal.signal(signal.SIGUSR1, self._stop)
            threading.Thread(target=self._listen, daemon=True).start()

    def _stop(self, *_: object) -> None:
        if self.busy and self.given_up == self.number:
            self.busy = False
            raise Cancelled

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.given_up = self.hears.recv()
                if self.busy and self.given_up == self.number:
                    if self.interrupt is not None:
                        self.interrupt()
                    assert self.main is not None
                    signal.pthread_kill(self.main, signal.SIGUSR1)

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Whether it went well, and the result or the exception."""
        self.number += 1
        try:
            try:
                self.busy = True
                self._stop()  # given up before it began
                result = function(*arguments)
                self.busy = False
            except Exception as e:
                self.busy = False
                return False, Cancelled() if self.given_up == self.number else _picklable(e.with_traceback(None))
        except Cancelled:
            return False, Cancelled()  # without the frames of the work, and all that they hold
        return True, result


def _serve(pipe: Pipe, hears: Pipe, environment: Mapping[str, str], interrupt: Callable[[], None] | None) -> None:
    """The process: takes a function and arguments, gives whether it went well and the result or the exception.

    The first function is the initializer; a process in which that fails ends.
    """
    for sign in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(sign, signal.SIG_IGN)
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    desk = _Desk(hears, interrupt)
    began = False
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while True:
            function, arguments = pipe.recv()
            started = time.monotonic()
            fine, result = desk.run(function, arguments)
            if not fine or time.monotonic() - started > LASTING:
                _give_back()  # whoever gets the answer looks at how large the process is
            answer = fine, result if began or not fine else None  # what an initializer returns, a model perhaps, stays
            try:
                pipe.send(answer)
            except (TypeError, AttributeError, pickle.PicklingError) as e:
                pipe.send((False, Died(f"a result cannot be sent ({e})")))
            if not began and not answer[0]:
                return
            began = True
            del arguments, result, answer
            _give_back()


def _picklable(e: Exception) -> Exception:
    """The exception, or where it would not arrive whole, one that says the same."""
    try:
        pickle.loads(pickle.dumps(e))
    except Exception:
        return Died(f"{type(e).__name__}: {e}")
    return e


def _give_back() -> None:
    """Return freed memory to the system, which glibc does not do by itself."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _libc() -> Any:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # not a system with one
        return None


def _end_with_parent() -> None:
    """End this process when the one that started it has ended; nothing would read its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
