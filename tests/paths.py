"""Where things are, for the tests; and the type of the `run` fixture."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
VECTORS = ROOT / "tests" / "vectors"
Runner = Callable[..., subprocess.CompletedProcess[bytes]]


def environment() -> dict[str, str]:
    """This process's environment with the checkout's packages importable."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "export", "cli"))}
