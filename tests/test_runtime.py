"""ONNX Runtime keeps to itself: no telemetry, few threads, no harm to forked processes, sentences for its errors."""

import math
import os
import signal
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
from paths import ROOT, SAMPLES, bundle_of, environment
from PIL import ImageFile

import eocodec.cores
from eocodec import image
from eocodec.cached import cached_property
from eocodec.errors import LimitError, ModelError, OutOfMemoryError
from eocodec.model import library, runtime, threads

SPOILED = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "XDG_CACHE_HOME", "CI")
COMPRESS = "import eocodec, numpy as np; eocodec.compress(np.zeros((64, 64, 3), np.uint8))"


def _in_fresh_home(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    home.mkdir()
    env = {k: v for k, v in environment().items() if k not in SPOILED}
    env["HOME"] = str(home)
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=home, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["library", "imported before", "command", "one file"])
def test_nothing_is_written_outside_of_the_results(tmp_path: Path, program: str) -> None:
    picture = str(SAMPLES / "faces" / "astronaut.png")
    embed, vector = ROOT / "samples" / "python" / "embed.py", ROOT / "tests" / "vectors" / "segments.eoc"
    bundle = bundle_of("photo")
    arguments = {
        "library": ["-c", COMPRESS],
        "imported before": ["-c", f"import eocodec; eocodec.load_model('photo').settle(); {COMPRESS}"],
        "command": ["-m", "eocodec_cli", "compress", picture, "-o", str(tmp_path / "x.eoc")],
        "one file": [str(embed), str(bundle), str(vector), str(tmp_path / "x.png")],
    }[program]
    done = _in_fresh_home(tmp_path / "home", *arguments)
    assert done.returncode == 0 and "telemetry" not in done.stderr.lower(), done.stderr
    assert list((tmp_path / "home").iterdir()) == []


THREADS = """
import os, sys, numpy as np, eocodec
from eocodec.model import threads as pool
pool.cores = lambda: 6
def threads(): return len(os.listdir("/proc/self/task"))
before = threads()
for asked in ({asked}, 6, 0):
    model = eocodec.load_model("photo", threads=asked)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # no drawing, which has an exact form
    eocodec.decompress(eocodec.compress(noise, model=model), model)
print(threads() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts tasks in /proc")
@pytest.mark.parametrize(("asked", "made"), [(3, 4 + 10 + 10 + 1), (64, 10 + 10 + 10 + 1), (0, 10 + 10 + 1)])
def test_only_encoder_and_decoder_have_threads_no_more_than_there_are_cores(asked: int, made: int) -> None:
    """Three models (two where the same is asked for twice), each with two pools beside the calling thread.

    One more thread, of the process's own pool, opens sessions ahead; so small a picture is not shared out.
    """
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(asked=asked)], env=environment(), capture_output=True, text=True
    )
    assert done.stdout.strip() == str(made), done.stderr


FORK = """
import os, sys, time, numpy as np, eocodec
from eocodec.model import threads
threads.cores = lambda: 3
black = np.zeros((64, 64, 3), np.uint8)
data = eocodec.compress(black)
child = os.fork()
if child == 0:
    {work}
    sys.exit(5)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    sys.exit("the child hangs")
sys.exit(os.waitstatus_to_exitcode(status) != 5)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("work", ["pass", "eocodec.decompress(data)"])
def test_a_forked_child_ends_as_usual_and_may_decode(work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK.format(work=work)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


class _Slow:
    def __init__(self, wait: threading.Event | None) -> None:
        self._wait, self.entered = wait, threading.Event()

    @cached_property
    def value(self) -> int:
        """What takes long in one thread."""
        self.entered.set()
        assert self._wait is None or self._wait.wait(60)
        return 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_what_one_thread_works_at_holds_up_neither_others_nor_forked_processes() -> None:
    end = threading.Event()
    slow = _Slow(end)
    thread = threading.Thread(target=lambda: slow.value)
    reading, reader = threading.Event(), image.pillow_settings(True)

    def read() -> None:
        with reader, library._loading:
            reading.set()
            end.wait(60)

    holder = threading.Thread(target=read)
    thread.start()
    holder.start()
    try:
        assert slow.entered.wait(60) and reading.wait(60)
        other = threading.Thread(target=lambda: _Slow(None).value, daemon=True)
        other.start()
        other.join(20)
        assert not other.is_alive()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with image.pillow_settings(False), library._loading:
                os._exit(0 if _Slow(None).value == 5 and not ImageFile.LOAD_TRUNCATED_IMAGES else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ImageFile.LOAD_TRUNCATED_IMAGES
    finally:
        end.set()
        thread.join()
        holder.join()
    assert slow.value == 5


def test_where_no_more_threads_can_be_started_those_that_can_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [2]

    class Thread(threads.threading.Thread):  # type: ignore[name-defined,misc]
        def start(self) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            super().start()

    monkeypatch.setattr(threads.threading, "Thread", Thread)  # type: ignore[attr-defined]
    assert threads.startable(64) == 3


@pytest.mark.parametrize(
    ("member", "files", "cores"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,x:/x", {"cpu,x/x/cpu.cfs_quota_us": "300000", "cpu,x/x/cpu.cfs_period_us": "1e5"}, 1e9),
        ("4:cpu,x:/x", {"cpu,x/x/cpu.cfs_quota_us": "300000", "cpu,x/x/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 1e9),
        ("5:memory:/x", {"memory/x/cpu.max": "100000 100000"}, 1e9),
        ("nonsense", {}, 1e9),
    ],
)  # fmt: skip
def test_the_quota_of_control_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, files: dict[str, str], cores: float
) -> None:
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content + "\n")
    (tmp_path / "cgroup").write_text(member + "\n")
    quota = eocodec.cores._quota(tmp_path / "root", tmp_path / "cgroup")
    assert min(quota, 1e9) == cores
    monkeypatch.setattr(eocodec.cores, "_quota", lambda: quota)
    monkeypatch.setattr(eocodec.cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)  # type: ignore[attr-defined]
    assert eocodec.cores.cores() == min(8, max(1, math.ceil(min(quota, 8))))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("std::bad_alloc", OutOfMemoryError),
        ("[ONNXRuntimeError] : 6 : bad allocation", OutOfMemoryError),
        ("Failed to allocate memory for requested buffer of size 100", OutOfMemoryError),
        ("Got invalid dimensions", ModelError),
    ],
)
def test_too_little_memory_is_told_from_other_failures(message: str, kind: type[Exception]) -> None:
    e = runtime.failure("the model's graph decoder failed", RuntimeError(message))
    assert type(e) is kind and ("memory" in str(e)) is (kind is OutOfMemoryError)
    assert isinstance(e, LimitError) is (kind is OutOfMemoryError)


@pytest.mark.parametrize(("installed", "word"), [(True, "hides it"), (False, "built without")])
def test_the_lack_of_cuda_is_explained(monkeypatch: pytest.MonkeyPatch, installed: bool, word: str) -> None:
    def version(name: str) -> str:
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert word in runtime.without_cuda() and "pip install --force-reinstall --no-deps" in runtime.without_cuda()
    assert runtime.GPU_INSTALLATION in " ".join((ROOT / "README.md").read_text().split())


@pytest.mark.skipif(not os.environ.get("EOCODEC_TEST_INSTALL"), reason="downloads 700 MB: set EOCODEC_TEST_INSTALL=1")
def test_the_documented_way_gives_a_runtime_with_cuda(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "new"], check=True)
    python = tmp_path / "new" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", ROOT], check=True)
    subprocess.run([python, "-m", *runtime.GPU_INSTALLATION.split()], check=True)
    code = "from eocodec.model import runtime; print(runtime.onnxruntime().get_available_providers())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "CUDAExecutionProvider" in done.stdout
