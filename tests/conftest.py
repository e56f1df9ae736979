"""Fixtures: sample pictures, the shipped model, a runner for the command, and the measuring data where it is."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eocodec_cli import group, main
from paths import ROOT, SAMPLES, VECTORS, Decoded, Maker, Runner, bundle_of, end_pool, environment
from PIL import Image

from eocodec.model.bundle import Model
from eocodec.model.library import FOLDER_VARIABLE, load_model

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

collect_ignore_glob = ["vectors/*.py"]  # programs that make the vectors

# Fixtures that make a test one of a kind: `run` starts Python anew for every command, `browser` drives Chromium.
KINDS = {"run": pytest.mark.slow, "browser": pytest.mark.browser}

# Models that somebody has added on this machine are not there for the tests, nor for the commands that they start.
os.environ[FOLDER_VARIABLE] = str(ROOT / "tests" / "no-models")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or commands that tests interrupt would ignore it, too
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as below nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by what they use, so that none is forgotten."""
    for item in items:
        for fixture, mark in KINDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def _nothing_goes_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test has begun in the library's threads ends before its patches do."""
    yield
    end_pool()


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model("photo")


@pytest.fixture(scope="session")
def chelsea() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))


@pytest.fixture(scope="session")
def samples() -> dict[str, np.ndarray]:
    return {p.stem: np.asarray(Image.open(p).convert("RGB")) for p in sorted(SAMPLES.glob("*.png"))}


@pytest.fixture(scope="session")
def shared() -> Path:
    """Measuring data beside the checkout, where there is any."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no measuring data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Make a folder of that name once for all processes of this run; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    # A process's folder is in one that it shares with the others; without locks each makes its own.
    if "PYTEST_XDIST_WORKER" in os.environ and fcntl is not None:
        base = base.parent

    def maker(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / f"once-{name}", base / f"once-{name}.done"
        with open(base / f"once-{name}.lock", "w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return maker


@pytest.fixture(scope="session")
def decoded_once(made_once: Maker) -> Decoded:
    """What the library decodes a test vector to, `(H, W, 3|4)`; once for the tests of all ports."""

    def decoded(vector: dict[str, Any]) -> np.ndarray:
        def decode(folder: Path) -> None:
            from eocodec.codec import decompress

            data = (VECTORS / f"{vector['name']}.eoc").read_bytes()
            np.save(folder / "picture.npy", decompress(data, bundle_of(vector["model"])))

        picture: np.ndarray = np.load(made_once(f"decoded-{vector['name']}", decode) / "picture.npy")
        return picture

    return decoded


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Runner:
    """What `run` does, but in this process: for tests of what commands do, not of how they start and end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group, "_leave_at_once", lambda code: None)

    def caller(*arguments: object) -> "subprocess.CompletedProcess[bytes]":
        capfdbinary.readouterr()
        code: object = 0
        try:
            main(list(map(str, arguments)))
        except SystemExit as e:
            code = e.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, *capfdbinary.readouterr())

    return caller


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run `eocodec …` in an empty folder; returns the finished process."""

    def runner(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "eocodec_cli", *map(str, arguments)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=tmp_path,
            env=environment(),
            timeout=300,
        )

    return runner
