"""Work side by side: one pool of threads for the whole process, with no more threads than there are cores.

In: a function, what to call it with, and how many threads may take part. Out: the results, in order. The calling thread
always works as well, so nothing ever waits for a place in the pool, and calls may be nested. A forked process starts
without a pool and makes its own.
"""

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from eocodec.cores import cores

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["PLENTY", "WORTH", "ahead", "begun", "in_order", "share", "side_by_side", "startable"]

T = TypeVar("T")
R = TypeVar("R")

WORTH = 1 << 16  # values, from which on a few steps over each are worth sharing out
PLENTY = 16  # threads; the nets are too small for more, and those that wait for work burn time

_lock = threading.Lock()
_pool: "ThreadPoolExecutor | None" = None
_made = False  # whether it is known if there can be a pool


def _abandon() -> None:
    """Forget the pool in a forked process: its threads are not there."""
    global _lock, _pool, _made
    _lock, _pool, _made = threading.Lock(), None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)


def share(threads: int) -> int:
    """How many threads a number on the command line stands for: 0 is one per core; never more than there are cores."""
    return max(1, min(threads or PLENTY, cores()))


def startable(threads: int) -> int:
    """How many of so many threads the system lets this process have, counting the calling one."""
    done = threading.Event()
    started = []
    try:
        for _ in range(threads - 1):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):  # limits on processes or on memory
        pass
    done.set()
    for thread in started:
        thread.join()
    return 1 + len(started)


def side_by_side(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """`function` of every item, in order of the items, up to `threads` at a time, the calling thread among them.

    Raises:
        Exception: what the function raises; then no more items are begun, and none is worked at any more.
    """
    if threads < 2 or len(items) < 2:
        return [function(item) for item in items]
    todo = deque(enumerate(items))
    results: dict[int, R] = {}

    def work() -> None:
        while True:
            try:
                k, item = todo.popleft()
            except IndexError:
                return
            try:
                results[k] = function(item)
            except BaseException:
                todo.clear()
                raise

    helpers = [_submitted(work) for _ in range(min(threads, len(items)) - 1)]
    try:
        work()
    finally:
        begun = [h for h in helpers if not h.cancel()]
        errors = [h.exception() for h in begun]
    for error in errors:
        if error is not None:
            raise error
    return [results[k] for k in range(len(items))]


def in_order(function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`function` of every item, one after another, while other threads work at those that come next.

    Up to `threads` are at work, the calling one among them; at most twice as many results wait to be taken.

    Raises:
        Exception: what the function raises, where its result would come.
    """
    if threads < 2 or len(items) < 2:
        yield from map(function, items)
        return
    futures: dict[int, Future[None]] = {}  # of items that other threads are to do, or have done
    results: dict[int, R] = {}

    def work(k: int) -> None:
        results[k] = function(items[k])

    def free(k: int) -> bool:
        return k not in results and (k not in futures or futures[k].cancel())

    try:
        for k in range(len(items)):
            for later in range(k + 1, min(k + threads, len(items))):
                if later not in results and later not in futures:
                    futures[later] = _submitted(functools.partial(work, later))
            for mine in range(k, min(k + 2 * threads, len(items))):  # this thread does something while it waits for k
                if mine > k and (k in results or futures[k].done()):
                    break
                if free(mine):
                    work(mine)
            if k not in results:
                futures[k].result()
            futures.pop(k, None)
            yield results.pop(k)
    finally:
        for future in [f for f in futures.values() if not f.cancel()]:
            future.exception()


def ahead(function: Callable[[T], Any], items: Iterable[T], threads: int) -> None:
    """Begin to call `function` with the items in another thread, if `threads` allow it, and do not wait for it.

    What it raises is not told: whoever needs its effect calls it again.
    """

    def work() -> None:
        for item in items:
            function(item)

    if threads > 1:
        _submitted(work)


def begun(function: Callable[[], R], threads: int) -> Callable[[], R]:
    """Begin to work something out in another thread, if `threads` allow it; what is returned waits for the result.

    Whatever nobody has begun until then, the thread that wants it works out itself.
    """
    if threads < 2:
        return function
    results: list[R] = []
    future = _submitted(lambda: results.append(function()))

    def result() -> R:
        if future.cancel():
            return function()
        future.result()
        return results[0]

    return result


def _submitted(work: Callable[[], None]) -> "Future[None]":
    """A future of the pool's; cancelled if there is no pool, or no thread for it."""
    from concurrent.futures import Future  # takes its time

    future: Future[None] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                work()
            except BaseException as e:
                future.set_exception(e)
            else:
                future.set_result(None)

    pool = _the_pool()
    try:
        if pool is None:
            future.cancel()
        else:
            pool.submit(run)
    except RuntimeError:  # no thread can be started any more, or the interpreter is ending
        future.cancel()
    return future


def _the_pool() -> "ThreadPoolExecutor | None":
    """The pool, made when it is first used; None where there can be no more than the calling thread."""
    global _pool, _made
    with _lock:
        if not _made:
            size = startable(min(cores(), PLENTY)) - 1
            if size:
                from concurrent.futures import ThreadPoolExecutor

                _pool = ThreadPoolExecutor(size, "eocodec")
            _made = True
        return _pool
