"""Where graphs run: ONNX Runtime sessions, opened when they are first used, on the CPU or CUDA.

In: the graphs of a bundle and their inputs. Out: their outputs. A graph is checked before a runtime sees it. ONNX
Runtime is used without telemetry, with few threads, its errors as sentences.
"""

import contextlib
import ctypes
import functools
import io
import os
import re
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy.typing as npt

from eocodec.errors import EocodecError, ModelError, OutOfMemoryError
from eocodec.model import unrefined
from eocodec.model.graphs import check_graph
from eocodec.model.threads import ahead, share, startable

__all__ = [
    "CPU",
    "CUDA",
    "DEVICES",
    "GPU_INSTALLATION",
    "USUAL",
    "Runtime",
    "bound_threads",
    "failure",
    "interrupt",
    "is_exact",
    "onnxruntime",
    "without_cuda",
]

EXACT = ("entropy/", "embedded/", "lossless/")  # folders of integer graphs, which always run on the CPU
DEVICES = ("auto", "cuda", "cpu")
# Optimising takes three times as long as opening. It pays for the nets that see most latents, those of the finest
# level: on AVX2 they run a tenth faster. Lossless nets, and those of other levels, gain less than it takes.
USUAL = "usual"
FINEST = re.compile(r"entropy/(feature1|[a-z]+1_\d+)")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ALONE = " alone"  # behind the name of a graph: its session on the calling thread only
# Without TF32, whose ten bits show in the picture; searching for the best kernels would start anew for every size.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
GPU_INSTALLATION = "pip install --force-reinstall --no-deps onnxruntime-gpu"
FATAL = 4  # level of onnxruntime's log from which on it is printed; its errors are raised as well
LARGE = 3 << 19  # values of an input, half a megapixel, from which on a run gives its memory back; 3 % of its time
MEMORY_SIGNS = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "available memory of")

_runtimes: "weakref.WeakSet[Runtime]" = weakref.WeakSet()
_running: dict[int, Any] = {}  # options of the runs in progress, by thread


def interrupt() -> None:
    """Let the runs in progress, of all models and threads of this process, end with an error at their next node."""
    for options in list(_running.values()):
        options.terminate = True


def _abandon_all() -> None:
    for runtime in list(_runtimes):
        runtime.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def is_exact(graph: str) -> bool:
    """Whether a graph is integer arithmetic, on which the symbols of files depend."""
    return graph.startswith(EXACT)


class Runtime:
    """The sessions of a bundle's graphs.

    Arguments:
        files: the bundle's files; graphs are those that end in `.onnx`.
        threads: threads to work with; 0 is one per core.
        optimisation: graph optimisation level, "off", "basic" or "all", or "usual": all for the transform and the
            integer graphs of the finest level, none for the others. Symbols do not depend on it.
        device: where the transform runs: "cpu", "cuda", or "auto" for CUDA where it works and the CPU elsewhere.
            Integer graphs always run on the CPU.
        trusted: open graphs without :func:`eocodec.model.graphs.check_graph`, which takes as long as ONNX Runtime does
            for small ones.

    Raises:
        EocodecError: there is no such device.
    """

    def __init__(
        self, files: Mapping[str, bytes], threads: int, optimisation: str, device: str, trusted: bool = False
    ) -> None:
        if device not in DEVICES:
            raise EocodecError(f"the device must be one of {', '.join(DEVICES)}, not {device}")
        self.files, self.trusted = files, trusted
        self.threads, self.optimisation, self.device = threads, optimisation, device
        self.share = share(threads)
        self.must = device == "cuda"
        self._start()
        _runtimes.add(self)

    def _start(self) -> None:
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._series: Counter[str] = Counter()  # of runs of a graph that are in progress

    def abandon(self) -> None:
        """Forget the sessions without ending them, in a forked process: the threads they would wait for are not there.

        They are never freed; new ones are opened when they are needed.
        """
        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._start()

    def run(
        self, graph: str, inputs: Mapping[str, npt.NDArray[Any]], one_of_many: bool = False
    ) -> list[npt.NDArray[Any]]:
        """Run one graph; outputs in the graph's order.

        Arguments:
            graph: its name.
            inputs: what it takes, by name.
            one_of_many: of as many runs at the same time as there are threads: on the CPU each then has its own, which
                takes less time than one run after another with all of them.

        Raises:
            ModelError: the graph is missing or does not fit its inputs.
        """
        name = f"{graph}{ALONE}" if one_of_many and not self.may_use_cuda else graph
        session = self._sessions.get(name) or self.open(name)
        options = onnxruntime().RunOptions()
        large = max(v.size for v in inputs.values()) >= LARGE
        if large and not self._series[graph] and self.device != "cuda" and not is_exact(graph):
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        _running[threading.get_ident()] = options
        try:
            return list(session.run(None, inputs, options))
        except Exception as e:  # onnxruntime's own exception classes are not exported
            raise failure(f"the model's graph {graph} failed", e) from e
        finally:
            _running.pop(threading.get_ident(), None)

    @property
    def may_use_cuda(self) -> bool:
        """Whether transforms run on CUDA, as far as that is known before one has run."""
        return self.device != "cpu" and (self.must or CUDA in onnxruntime().get_available_providers())

    def open(self, graph: str) -> Any:
        """The session of a graph; with `ALONE` behind its name one that works on the calling thread only.

        Raises:
            ModelError: the graph is missing or none.
            EocodecError: CUDA was asked for and does not work.
        """
        with self._lock:  # transforms, one after another: the first decides on the device
            lock = self._locks.setdefault(graph if is_exact(graph) else "", threading.Lock())
        with lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._session(graph)
            return self._sessions[graph]

    @contextlib.contextmanager
    def series(self, graph: str, several: bool) -> Iterator[None]:
        """Let runs of a transform for the tiles of a picture, if there are several, leave their memory to the next.

        After the last of them it is given back, and the session is opened again when it is used again: hundreds of
        megabytes, for nothing if what comes next is something else. Giving them back after each run, to fill them with
        zeros for the next, takes a tenth of a large picture's time. A single run gives back what it takes, and its
        session stays.
        """
        if not several:
            yield
            return
        with self._lock:
            self._series[graph] += 1
        try:
            yield
        finally:
            with self._lock:
                self._series[graph] -= 1
                if self.device == "cpu" and not self._series[graph]:
                    for name in (graph, f"{graph}{ALONE}"):
                        self._sessions.pop(name, None)

    def open_ahead(self, graphs: Iterable[str]) -> None:
        """Begin to open sessions in another thread, if there may be one; what fails shows when it is used.

        Not those for CUDA, whose loader can only be kept from printing in the thread that waits for it.
        """
        if self.share > 1:
            exact_only = self.may_use_cuda
            wanted = [g for g in graphs if g not in self._sessions and (is_exact(g) or not exact_only)]
            ahead(self.open, wanted, self.share)

    def _session(self, name: str) -> Any:
        graph = name.removesuffix(ALONE)
        content = self._content(graph)
        if not self.trusted:
            try:
                check_graph(content)
            except ModelError as e:
                raise ModelError(f"the model's graph {graph} cannot be opened: {e}") from None
        exact = is_exact(graph)
        session = None
        if self.device != "cpu" and not exact:
            session = self._open_on_cuda(content)
            self.device = "cpu" if session is None else "cuda"
        if session is None:
            try:
                session = _session(content, self._options(exact, graph, name.endswith(ALONE)), [CPU])
            except Exception as e:  # onnxruntime's own exception classes are not exported
                raise failure(f"the model's graph {graph} cannot be opened", e) from e
        return session

    def _content(self, graph: str) -> bytes:
        """The bytes of a graph; the decoder's own if it cannot do without its refinement."""
        name = "decoder" if graph == unrefined.GRAPH else graph
        content = self.files.get(f"{name}.onnx")
        if content is None:
            raise ModelError(f"the model bundle lacks the graph {name}")
        return (unrefined.unrefined(content) or content) if graph == unrefined.GRAPH else content

    def _open_on_cuda(self, content: bytes) -> Any | None:
        """A session that runs on CUDA, or None if there can be none.

        Raises:
            EocodecError: there can be none, but CUDA was asked for.
        """
        ort = onnxruntime()
        reason = ""
        if CUDA in ort.get_available_providers():
            _preload()
            reason = "onnxruntime cannot open a session on it; are the driver, CUDA and cuDNN installed?"
            try:
                session = _session(content, self._options(exact=False), [(CUDA, CUDA_OPTIONS), CPU])
                if CUDA in session.get_providers():  # onnxruntime goes on without a provider that fails
                    return session
            except Exception as e:  # onnxruntime's own exception classes are not exported
                reason = _first_line(e)
        if self.must:
            raise EocodecError(f"CUDA does not work here: {reason or without_cuda()}")
        return None

    def _options(self, exact: bool, graph: str = "", alone: bool = False) -> Any:
        """Options of a session for an integer graph (`exact`), or another one, on the calling thread `alone` or not."""
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = FATAL
        bound_threads(options, 1 if alone else self.threads, exact)
        options.enable_mem_pattern = False
        # Without an arena each tile's buffers are mapped anew; thirty arenas for the small nets would add up.
        options.enable_cpu_mem_arena = not exact
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = {
            "off": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "all": levels.ORT_ENABLE_ALL,
            USUAL: levels.ORT_DISABLE_ALL if exact and not FINEST.fullmatch(graph) else levels.ORT_ENABLE_ALL,
        }[self.optimisation]
        return options


@functools.cache
def _preload() -> None:
    """Let onnxruntime (from 1.21 on) find CUDA where pip has put it."""
    ort = onnxruntime()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output may be the result
        getattr(ort, "preload_dlls", lambda: None)()


def _session(content: bytes, options: Any, providers: list[Any]) -> Any:
    return onnxruntime().InferenceSession(content, options, providers=providers)


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0]


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


def bound_threads(options: Any, threads: int, exact: bool) -> None:
    """Let a session run on the calling thread alone, or, if it is a transform and `threads` is not 1, on a pool.

    Every session with a pool has one of its own; onnxruntime's common pool would refuse all other sessions of the
    process that do not ask for it. Integer nets have none: they are many and small. A pool has as many threads as asked
    for, see :func:`eocodec.model.threads.share`, and no more than the system allows: onnxruntime would wait for the
    others for ever.
    """
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    if exact or threads == 1:
        return
    options.intra_op_num_threads = startable(share(threads))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


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
