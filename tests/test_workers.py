"""A worker process: whatever happens to it, the next call is served, and nothing of it stays."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from paths import environment, processor_seconds, wait_until
from work import (
    add,
    die,
    fail,
    fail_oddly,
    infer,
    large,
    leave,
    number,
    open_file,
    refuse,
    sleep,
    spin,
    start,
    stubborn,
    swallow,
    variables,
    whose,
)

from eocodec.errors import EocodecError
from eocodec.workers import ONE_THREAD, Cancelled, Crew, Died, TooSlow, Worker

LIMIT = 60.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    w = Worker(start, (7,))
    yield w
    w.end()


def test_functions_run_in_one_process_after_its_initializer(worker: Worker) -> None:
    first = worker.call(number, limit=LIMIT)
    assert first[0] == 7 and first[1] != os.getpid()
    assert worker.call(number, limit=LIMIT) == first and worker.call(add, 3, 4, limit=LIMIT) == 7


def test_exceptions_arrive_and_the_process_stays(worker: Worker) -> None:
    process = worker.call(number, limit=LIMIT)
    with pytest.raises(EocodecError, match="no such thing"):
        worker.call(fail, limit=LIMIT)
    with pytest.raises(Died, match="Odd: 1 is not 2"):
        worker.call(fail_oddly, limit=LIMIT)
    with pytest.raises(Died, match="cannot be sent"):
        worker.call(open_file, limit=LIMIT)
    assert worker.call(number, limit=LIMIT) == process


def test_a_process_that_dies_is_replaced_for_the_next_call(worker: Worker) -> None:
    before = worker.call(number, limit=LIMIT)
    with pytest.raises(Died) as caught:
        worker.call(die, limit=LIMIT)
    assert caught.value.code == -signal.SIGKILL and not worker.alive
    after = worker.call(number, limit=LIMIT)
    assert after[0] == 7 and after[1] != before[1]


def test_a_process_that_was_killed_while_idle_costs_no_call(worker: Worker) -> None:
    _, pid = worker.call(number, limit=LIMIT)
    os.kill(pid, signal.SIGKILL)
    assert worker.call(add, 1, 1, limit=LIMIT) == 2


def test_work_that_takes_too_long_is_ended(worker: Worker) -> None:
    _, pid = worker.call(number, limit=LIMIT)
    with pytest.raises(TooSlow, match=r"longer than 0\.3 s"):
        worker.call(sleep, LIMIT, limit=0.3)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert worker.call(add, 1, 1, limit=LIMIT) == 2


def test_a_process_that_is_stopped_while_it_sends_is_ended(worker: Worker) -> None:
    """The limit holds wherever a process hangs."""
    _, pid = worker.call(number, limit=LIMIT)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TooSlow):
        worker.call(large, 1 << 22, limit=0.5)
    assert len(worker.call(large, 1 << 22, limit=LIMIT)) == 1 << 22


def test_results_come_in_the_order_of_the_work(worker: Worker) -> None:
    worker.start()
    worker.await_ready()
    for k in range(3):
        worker.send(add, k, 10)
    assert [worker.receive() for _ in range(3)] == [10, 11, 12]


def test_what_keeps_a_process_from_starting_is_raised() -> None:
    with pytest.raises(EocodecError, match="not today"):
        Worker(refuse).call(add, 1, 1, limit=LIMIT)
    with pytest.raises(Died) as caught:
        Worker(leave).call(add, 1, 1, limit=LIMIT)
    assert caught.value.code == 3


def test_a_process_that_is_not_ready_in_time_is_ended() -> None:
    worker = Worker(sleep, (LIMIT,))
    worker.start()
    with pytest.raises(Died, match="not ready"):
        worker.await_ready(0.2)
    assert not worker.alive


def test_threads_are_set_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    worker = Worker(add, (1, 1), ONE_THREAD)
    try:
        found = worker.call(variables, list(ONE_THREAD), limit=LIMIT)
        assert dict(zip(ONE_THREAD, found, strict=True)) == {**ONE_THREAD, "MKL_NUM_THREADS": "3"}
    finally:
        worker.end()


def test_signals_to_the_group_do_not_end_it(worker: Worker) -> None:
    process = worker.call(number, limit=LIMIT)
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(process[1], sign)
    assert worker.call(number, limit=LIMIT) == process


PARENT = """
import sys, time
from eocodec.workers import Worker
if __name__ == "__main__":
    worker = Worker(time.time)
    worker.start()
    worker.await_ready()
    worker.send(time.sleep, 600)
    print(worker.pid, flush=True)
    sys.stdin.read()
"""


def test_it_ends_with_the_process_that_started_it_even_at_work(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    wait_until(lambda: _gone(child))


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"  # whoever adopts it has not looked yet


def test_another_thread_can_stop_a_call_for_good(worker: Worker) -> None:
    _, pid = worker.call(number, limit=LIMIT)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.call, spin, limit=LIMIT)
        used = processor_seconds(pid)
        wait_until(lambda: processor_seconds(pid) > used)
        worker.stop()
        with pytest.raises(Died):  # and not TooSlow
            running.result(LIMIT)
    with pytest.raises(Died, match="stopped"):
        worker.call(add, 1, 1, limit=LIMIT)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ending_leaves_no_process_and_can_be_done_twice(worker: Worker) -> None:
    _, pid = worker.call(number, limit=LIMIT)
    worker.end()
    worker.end()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_crew_shares_calls_and_keeps_their_order(tmp_path: Path) -> None:
    with Crew(2) as crew:
        results = crew.map(whose, [(k, str(tmp_path)) for k in range(12)])
        assert [number for number, _ in results] == list(range(12))
        processes = {pid for _, pid in results}
        assert len(processes) == 2 and os.getpid() not in processes
        assert {pid for _, pid in crew.map(whose, [(1, str(tmp_path)), (2, str(tmp_path))])} <= processes
        with pytest.raises(EocodecError, match="no such thing"):
            crew.map(fail, [()])
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_crew_says_when_a_process_dies() -> None:
    with Crew(2) as crew, pytest.raises(Died):
        crew.map(die, [(), ()])


@pytest.mark.parametrize("work", [spin, swallow])
def test_work_that_is_given_up_ends_and_leaves_its_process(worker: Worker, work: Callable[[], None]) -> None:
    before = worker.call(number, limit=LIMIT)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.call, work, limit=LIMIT)
        used = processor_seconds(before[1])
        wait_until(lambda: processor_seconds(before[1]) > used)
        worker.cancel()
        with pytest.raises(Cancelled):
            running.result(LIMIT)
    worker.cancel()  # there is nothing to give up
    assert worker.call(add, 1, 2, limit=LIMIT) == 3
    assert worker.call(number, limit=LIMIT) == before


def test_a_process_that_does_not_let_go_is_replaced(worker: Worker) -> None:
    before = worker.call(number, limit=LIMIT)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.call, stubborn, limit=LIMIT)
        used = processor_seconds(before[1])
        wait_until(lambda: processor_seconds(before[1]) > used)
        worker.cancel(patience=0.1)
        with pytest.raises(Cancelled):
            running.result(LIMIT)
    assert worker.call(number, limit=LIMIT)[1] != before[1]


def test_giving_up_at_any_moment_never_harms_the_next_work(worker: Worker) -> None:
    worker.call(number, limit=LIMIT)
    with ThreadPoolExecutor(1) as threads:
        for k in range(200):
            running = threads.submit(worker.call, add, k, 1, limit=LIMIT)
            worker.cancel()
            try:
                assert running.result(LIMIT) == k + 1
            except Cancelled:
                continue


@pytest.mark.slow
def test_a_net_that_runs_is_interrupted_between_its_nodes() -> None:
    from eocodec.model.runtime import interrupt

    worker = Worker(start, (7,), interrupt=interrupt)
    try:
        pid = worker.call(number, limit=LIMIT)[1]
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(worker.call, infer, limit=LIMIT)
            used = processor_seconds(pid)
            wait_until(lambda: processor_seconds(pid) > used + 1)
            worker.cancel()
            with pytest.raises(Cancelled):
                running.result(LIMIT)
        assert worker.call(number, limit=LIMIT)[1] == pid
    finally:
        worker.end()


def test_a_process_that_cannot_start_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    worker = Worker(time.monotonic)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.context.SpawnProcess, "start", refuse)
        with pytest.raises(Died, match="does not start"):
            worker.call(add, 1, 2, limit=60)
        worker.stop()  # there is nothing to kill
        worker.end()
    worker = Worker(time.monotonic)
    assert worker.call(add, 1, 2, limit=60) == 3
    worker.end()
