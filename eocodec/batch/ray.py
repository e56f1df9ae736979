"""Corpora on a Ray cluster: an engine for `eocodec.batch` (extra `ray`).

In: the address of a cluster that runs. Out: an :data:`eocodec.batch.Engine`. Ray Data hands names of sources to the
cluster's workers, which read the sources and write the outputs themselves; only rows come back, and the process that
started the run alone writes the manifest.

What was lost with a worker or a node (see `PASSES`) is found missing at the end of a pass and worked at once more. Ray
itself repeats nothing: it would do so without end where a picture needs more memory than a node has.
"""

import logging
import os
import socket
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eocodec.batch.corpus import Source, as_name
from eocodec.batch.work import LOST, PARTIAL, Engine, Row, Work
from eocodec.errors import EocodecError

__all__ = ["cluster"]

PASSES = (32, 1, 1)  # sources of one task, in one pass after the other
TASKS = 16  # tasks for every CPU, so that all end at about the same time
CONNECT_SECONDS = 10.0
CURRENT = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # see `ray.init`
WINDOW = 100_000  # sources that Ray Data is given at a time; it keeps something of every task


def cluster(address: str = "auto") -> Engine:
    """The engine that works on a Ray cluster.

    Arguments:
        address: "HOST:PORT", or "auto": the cluster that this machine belongs to.

    Raises:
        EocodecError: there is no cluster, or Ray is missing.
    """
    ray, ours = _connected(address)

    def engine(work: Work, sources: Sequence[Source]) -> Iterator[Row]:
        try:
            yield from _coded(ray, work, sources)
        finally:
            if ours:
                ray.shutdown()  # ends its thread that prints, too

    return engine


def _coded(ray: Any, work: Work, sources: Sequence[Source]) -> Iterator[Row]:
    """Rows of all sources."""
    for name, store in (("source", work.corpus), ("results", work.results)):
        if store.is_private:
            raise EocodecError(f"{store.url}: the {name} must be where all of a cluster's machines see it")
    _try_nodes(ray, work, sources[0])
    for start in range(0, len(sources), WINDOW):
        missing = {source.name: source for source in sources[start : start + WINDOW]}
        for size in PASSES:
            for row in _passed(ray, work, list(missing.values()), size) if missing else ():
                if missing.pop(row.source, None):
                    yield row
        yield from (work.row(source, LOST) for source in missing.values())


def _connected(address: str) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether it was not before. It starts none, and sends no usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as e:
        raise EocodecError(f"--engine ray needs {e.name}; install it with: pip install 'eocodec[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        try:
            _reach(address)
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as e:  # connection, version and address errors have no common class
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise EocodecError(
                f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, "
                "or give --ray-address"
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # rows of tasks that ended with their process are missing, and the pass goes on
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray, ours


def _reach(address: str) -> None:
    """Raise OSError if nothing listens there; Ray would go on trying for many minutes."""
    if address == "auto":
        if not CURRENT.is_file():  # `ray.init` says what is wrong, if it is
            return
        address = CURRENT.read_text().strip()  # is left behind where a cluster was killed
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise OSError("not HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _try_nodes(ray: Any, work: Work, source: Source) -> None:
    """Raise EocodecError if a machine lacks eocodec or the model, or does not see the same source and results."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = f"{PARTIAL}/{uuid.uuid4().hex}"
    work.results.write(mark, b"")
    trial = ray.remote(max_retries=0, num_cpus=0)(_tried)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    for node, answer in [
        (
            node,
            trial.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                work, source, mark
            ),
        )
        for node in nodes
    ]:
        try:
            fault = ray.get(answer)
        except ray.exceptions.RayTaskError as e:
            fault = str(e.cause)
        except ray.exceptions.RayError:  # the machine has gone; then it does no harm
            continue
        if fault:
            raise EocodecError(f"the cluster's machine {node['NodeManagerHostname']} cannot take part: {fault}")


def _tried(work: Work, source: Source, mark: str) -> str:
    """On a worker: what keeps it from working."""
    try:
        work.settings.loaded()
    except EocodecError as e:
        return str(e)
    for store, name in ((work.corpus, as_name(source.name)), (work.results, mark)):
        if not store.filesystem.exists(store.path(name)):
            return f"it does not see {store.where(name)}"
    return ""


def _passed(ray: Any, work: Work, sources: Sequence[Source], size: int) -> Iterator[Row]:
    """Rows of the sources in tasks of `size` at most; of tasks that were lost there are none."""
    cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    tasks = max(-(-len(sources) // size), min(len(sources), TASKS * cpus))
    names = ray.data.from_items([asdict(source) for source in sources], override_num_blocks=tasks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args`")  # Ray 2.64 is to have another way, or none
        rows = names.map(_worked, fn_args=(work,), num_cpus=1, max_retries=0)
    try:
        yield from (Row(**row) for row in rows.iter_rows())
    except ray.exceptions.RayError:  # a row was lost on its way; so may others be, and all that are missing come again
        return


def _worked(source: dict[str, Any], work: Work) -> dict[str, Any]:
    """On a worker: one source's row."""
    return asdict(work(Source(**source)))
