"""Where graphs run: ONNX Runtime sessions, opened when they are first used, on the CPU or CUDA.

In: the graphs of a bundle and their inputs. Out: their outputs. A graph is checked before a runtime sees it.
"""

import contextlib
import functools
import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from eocodec.errors import EocodecError, ModelError
from eocodec.model.graphs import check_graph

__all__ = ["CPU", "CUDA", "DEVICES", "Runtime", "is_exact"]

EXACT = ("entropy/", "embedded/", "lossless/")  # folders of integer graphs, which always run on the CPU
DEVICES = ("auto", "cuda", "cpu")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Without TF32, whose ten bits show in the picture; searching for the best kernels would start anew for every size.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def is_exact(graph: str) -> bool:
    """Whether a graph is integer arithmetic, on which the symbols of files depend."""
    return graph.startswith(EXACT)


class Runtime:
    """The sessions of a bundle's graphs.

    Arguments:
        files: the bundle's files; graphs are those that end in `.onnx`.
        threads: threads of ONNX Runtime; 0 is one per core.
        optimisation: graph optimisation level, "off", "basic" or "all"; symbols do not depend on it.
        device: where the transform runs: "cpu", "cuda", or "auto" for CUDA where it works and the CPU elsewhere.
            Integer graphs always run on the CPU.

    Raises:
        EocodecError: there is no such device.
    """

    def __init__(self, files: Mapping[str, bytes], threads: int, optimisation: str, device: str) -> None:
        if device not in DEVICES:
            raise EocodecError(f"the device must be one of {', '.join(DEVICES)}, not {device}")
        self.files = files
        self.threads, self.optimisation, self.device = threads, optimisation, device
        self.must = device == "cuda"
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, graph: str, inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one graph; outputs in the graph's order.

        Raises:
            ModelError: the graph is missing or does not fit its inputs.
        """
        session = self._sessions.get(graph) or self.open(graph)
        try:
            return list(session.run(None, inputs))
        except Exception as e:  # onnxruntime's own exception classes are not exported
            raise ModelError(f"the model's graph {graph} failed: {_first_line(e)}") from e

    def open(self, graph: str) -> Any:
        """The session of a graph.

        Raises:
            ModelError: the graph is missing or none.
            EocodecError: CUDA was asked for and does not work.
        """
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._session(graph)
            return self._sessions[graph]

    def _session(self, graph: str) -> Any:
        try:
            content = self.files[f"{graph}.onnx"]
        except KeyError:
            raise ModelError(f"the model bundle lacks the graph {graph}") from None
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
                session = _session(content, self._options(exact), [CPU])
            except Exception as e:  # onnxruntime's own exception classes are not exported
                raise ModelError(f"the model's graph {graph} cannot be opened: {_first_line(e)}") from e
        return session

    def _open_on_cuda(self, content: bytes) -> Any | None:
        """A session that runs on CUDA, or None if there can be none.

        Raises:
            EocodecError: there can be none, but CUDA was asked for.
        """
        import onnxruntime as ort

        reason = "onnxruntime was built without it (pip install 'eocodec[gpu]' instead of onnxruntime)"
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
            raise EocodecError(f"CUDA does not work here: {reason}")
        return None

    def _options(self, exact: bool) -> Any:
        """Options of a session for an entropy graph (`exact`), or another one."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        # Without an arena each tile's buffers are mapped anew; thirty arenas for the small nets would add up.
        options.enable_cpu_mem_arena = not exact
        # Some thirty sessions take turns: a pool that spins after its turn would slow the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = {
            "off": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "all": levels.ORT_ENABLE_ALL,
        }[self.optimisation]
        return options


@functools.cache
def _preload() -> None:
    """Let onnxruntime (from 1.21 on) find CUDA where pip has put it."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output may be the result
        getattr(ort, "preload_dlls", lambda: None)()


def _session(content: bytes, options: Any, providers: list[Any]) -> Any:
    import onnxruntime as ort

    return ort.InferenceSession(content, options, providers=providers)


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0]
