"""Where things are, for the tests; and the types of the fixtures `run`, `made_once` and `decoded_once`."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from eocodec.model import threads

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
VECTORS = ROOT / "tests" / "vectors"
MODELS = ROOT / "eocodec" / "models"
Runner = Callable[..., subprocess.CompletedProcess[bytes]]
Maker = Callable[[str, Callable[[Path], object]], Path]
Decoded = Callable[[dict[str, Any]], npt.NDArray[Any]]


def bundle_of(model: str) -> Path:
    """The bundle of a test vector's model: a shipped one's name, or that of a file among the vectors.

    Vectors of `photo` are of the first one.
    """
    if model == "photo":
        return MODELS / "earlier" / "photo-26cc94c0.eocm"
    return VECTORS / model if model.endswith(".eocm") else MODELS / f"{model}.eocm"


def in_rgb(read: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A picture as OpenCV reads it, `(H, W)` or `(H, W, 3|4)` with blue first, as `(H, W, 3|4)` with red first."""
    if read.ndim == 2:
        return np.repeat(read[..., None], 3, 2)
    return np.dstack([read[..., 2::-1], read[..., 3:]])


def picture_of(vector: dict[str, Any]) -> npt.NDArray[Any]:
    """What a test vector decodes to, `(H, W, 3)` or with transparency `(H, W, 4)`, of 8 or 16 bits."""
    picture = in_rgb(cv2.imread(str(VECTORS / f"{vector['name']}.png"), cv2.IMREAD_UNCHANGED))
    return picture if vector["alpha"] else picture[..., :3]


def wait_until(condition: Callable[[], object], seconds: float = 120, every: float = 0.02) -> None:
    """Wait for a condition; the seconds are only what a broken program may take.

    Raises:
        AssertionError: it does not come true.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what is waited for does not happen"
        time.sleep(every)


def end_pool() -> None:
    """Let the library's threads finish what they have begun, and end them; new ones start when they are needed.

    Sessions that are opened ahead outlive the call that began to open them: a test that replaces what they use, or
    counts what is done, would otherwise meet those of the one before.
    """
    pool = threads._pool
    if pool is not None:
        pool.shutdown()
    threads._abandon()


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 if it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bound_by_modes() -> list[str]:
    """What to put before a command so that it may read and write only what modes of files allow, by root too."""
    if not hasattr(os, "geteuid"):
        pytest.skip("files have no such modes here")
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]


def environment() -> dict[str, str]:
    """This process's environment with the checkout's packages importable."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "export", "cli"))}
