"""ONNX Runtime as eocodec uses it: without telemetry, with one bounded pool of threads, its errors as sentences.

In: how many threads are wanted. Out: the imported package, session options with threads, and exceptions of eocodec's.
"""

import contextlib
import functools
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

from eocodec.errors import EocodecError, ModelError, OutOfMemoryError

__all__ = ["cores", "failure", "onnxruntime", "share_threads", "without_cuda"]

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
GPU_INSTALLATION = "pip install --force-reinstall --no-deps onnxruntime-gpu"
FATAL = 4  # level of onnxruntime's log from which on it is printed; its errors are raised as well
PLENTY = 16  # threads; the nets are too small for more, and those that wait for work burn time
MEMORY_SIGNS = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "available memory of")

_making = threading.Lock()
_shared = 0  # threads of the pool that all sessions of the process share; 0: there is none yet


@functools.cache
def onnxruntime() -> Any:
    """The package `onnxruntime`, imported with its telemetry off.

    From 1.29 on it otherwise writes an identifier and a queue of events below the user's cache folder, and sends them.
    A value of `ORT_DISABLE_TELEMETRY` that is set already stays.
    """
    late = "onnxruntime" in sys.modules
    os.environ.setdefault(NO_TELEMETRY, "1")
    import onnxruntime as ort

    if late and hasattr(ort, "disable_telemetry_events"):
        ort.disable_telemetry_events()
    ort.set_default_logger_severity(FATAL)
    return ort


def share_threads(options: Any, threads: int) -> None:
    """Let a session run on the calling thread alone (`threads` = 1), or on that and the pool of the process.

    All sessions share the pool. The first that needs it decides its size: as many threads as it asks for (0: one for
    each core, at most :data:`PLENTY`), never more than there are cores or than the system allows.
    """
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    if threads == 1:
        return
    wanted = min(threads or PLENTY, cores())
    if hasattr(onnxruntime(), "set_global_thread_pool_sizes"):
        if _pool(wanted) > 1:
            options.use_per_session_threads = False
    else:  # older versions have a pool for every session
        options.intra_op_num_threads = _startable(wanted)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _pool(threads: int) -> int:
    """Number of threads of the pool, which is made if there is none."""
    global _shared
    with _making:
        if not _shared:
            _shared = _startable(threads)
            if _shared > 1:
                with contextlib.suppress(Exception):  # another user of onnxruntime in this process has made one
                    onnxruntime().set_global_thread_pool_sizes(_shared, 1)
        return _shared


def _startable(threads: int) -> int:
    """How many of so many threads the system lets this process have; onnxruntime would wait for the others for ever."""
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


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control groups' quota of time.

    References:
        Linux kernel, *Control Group v2*, cpu.max. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(found, _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup"), member: Path = Path("/proc/self/cgroup")) -> float:
    """Cores that the control groups of this process grant, infinite without a limit."""
    try:
        lines = [line.split(":", 2) for line in member.read_text().splitlines()]
    except (OSError, ValueError):
        return math.inf
    limits = [math.inf]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            limits.append(_limit(folder))
            if folder == base:
                break
    return min(limits)


def _limit(group: Path) -> float:
    """Quota over period of one control group, in version 2 or 1."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def without_cuda() -> str:
    """Why onnxruntime has no CUDA provider, and what gives it one.

    The packages onnxruntime and onnxruntime-gpu are the same module: the one that is installed last is there.
    """
    from importlib import metadata  # takes its time

    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return f"onnxruntime was built without it; {GPU_INSTALLATION} puts another in its place"
    return f"onnxruntime was installed over onnxruntime-gpu and hides it; {GPU_INSTALLATION} undoes that"


def failure(doing: str, e: Exception) -> EocodecError:
    """What to raise for an exception of onnxruntime's, whose classes are not exported.

    Arguments:
        doing: what failed, such as "the model's graph decoder failed".
    """
    message = str(e).splitlines()[0] if str(e) else type(e).__name__
    if isinstance(e, MemoryError) or any(sign in str(e).lower() for sign in MEMORY_SIGNS):
        return OutOfMemoryError("not enough memory for this picture")
    return ModelError(f"{doing}: {message}")
