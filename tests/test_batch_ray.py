"""Batches on a Ray cluster of two machines (processes here): nothing is lost with a worker or a machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import Runner, environment, wait_until

pytest.importorskip("pyarrow", reason="batches need the extra `batch`")
ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (extra `ray`)")
pytest.importorskip("ray.data", reason="Ray Data is not installed (extra `ray`)")

import test_batch  # noqa: E402
from test_batch import SMALL, all_of, deadly, files_in, make_corpus, manifest  # noqa: E402

from eocodec.batch import Batch  # noqa: E402

pytestmark = pytest.mark.slow

STORE = 80 << 20  # bytes, the least that Ray takes
COUNT = 40  # pictures: enough that some wait when the second of two processes dies


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and two machines with one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        patch.delenv("RAY_ADDRESS", raising=False)
        found = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": STORE,
                "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
            },
        )
        try:
            for _ in range(2):
                found.add_node(num_cpus=1, object_store_memory=STORE)
            found.wait_for_nodes()
            yield found
        finally:
            ray.shutdown()
            found.shutdown()


def a_worker(cluster: Any) -> tuple[int, Any]:
    """Process id and machine of a worker with a task, as soon as there is one."""
    found: list[tuple[int, Any]] = []
    wait_until(lambda: found.extend((pid, node) for node in cluster.worker_nodes for pid in workers_of(node)) or found)
    return found[0]


def workers_of(node: Any) -> list[int]:
    """Process ids of a machine's workers that have a task."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and b"ray::Map" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # has ended meanwhile
            continue
    return found


@pytest.mark.timeout(900)  # three Ray processes begin, and one is missed after some seconds
def test_all_files_are_done_once_though_a_worker_and_a_machine_are_killed(cluster: Any, tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", COUNT, edge=96)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    arguments = ["batch", "in", "out", "--rate", "24", "--engine", "ray", "--ray-address", cluster.address, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline() for _ in range(3)]
    killed, there = a_worker(cluster)
    os.kill(killed, signal.SIGKILL)
    lines += [process.stdout.readline() for _ in range(3)]
    done_then = len([f for f in files_in(tmp_path / "out") if f.endswith(".eoc")])
    cluster.remove_node(next(n for n in cluster.worker_nodes if n is not there), allow_graceful=False)
    lines += process.stdout.readlines()
    errors = process.stderr.read()
    assert process.wait() == 1, errors  # because of bad.png alone
    assert done_then < COUNT
    ours = [line for line in errors.splitlines() if line.startswith("eocodec:")]
    assert ours == ["eocodec: bad.png: not a picture in a format that can be read"]
    assert "Traceback" not in errors
    *rows, totals = map(json.loads, lines)
    assert sorted(r["source"] for r in rows) == sorted([*names, "bad.png"])
    assert totals["totals"]["done"] == COUNT and totals["totals"]["failed"] == 1
    assert [r["source"] for r in manifest(tmp_path / "out")] == sorted([*names, "bad.png"])
    assert files_in(tmp_path / "out") == [*(f"{n}.eoc" for n in names), "manifest.parquet"]


def test_a_picture_that_kills_every_worker_fails_and_the_others_are_done(cluster: Any, tmp_path: Path) -> None:
    from eocodec.batch.ray import PASSES
    from eocodec.batch.ray import cluster as on_cluster

    names = make_corpus(tmp_path / "in", 12)
    ray.cloudpickle.register_pickle_by_value(test_batch)  # the machines do not have the tests
    run = Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL)
    deadly(run, tmp_path / "marks")
    rows = all_of(run, on_cluster(cluster.address))
    assert sorted(r.source for r in rows) == names
    assert [r.source for r in rows if r.status == "failed"] == ["a/000.png"]
    assert int((tmp_path / "marks" / "a-000.png").read_text()) == len(PASSES)
    assert [r["source"] for r in manifest(tmp_path / "out")] == names


def test_no_cluster_is_one_sentence(run: Runner, tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", 1)
    done = run("batch", "in", "out", "--engine", "ray", "--ray-address", "127.0.0.1:9")
    assert done.returncode == 1 and b"ray start --head" in done.stderr and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "out").exists()
