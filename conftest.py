"""What pytest does where an extra is not installed: modules that need it are skipped, tests and doctests alike.

In: the reports of collection. Out: the same, a missing optional package turned from an error into a skip that names it.
Anything else that cannot be imported stays an error. Modules that hold nothing but tests that are not wanted are not
imported. And the tests that run side by side take one thread each.
"""

import gc
import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

from eocodec.workers import ONE_THREAD

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores: more threads would spin while they wait for one another. Before NumPy is loaded, which
    # reads this once; processes that the tests start inherit it.
    os.environ.update({name: os.environ.get(name, value) for name, value in ONE_THREAD.items()})

# What is made while tests are collected lasts to the end. To look through all of it for garbage again and again would
# take a twentieth of the time of the quick tests.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect garbage from here on, but not among what is there."""
    gc.freeze()
    gc.enable()


# Import names of what the extras in pyproject.toml bring; what eocodec always needs is not among them.
OPTIONAL = frozenset(
    (
        *(
            "bm3d",
            "cachetools",
            "cv2",
            "fastapi",
            "fsspec",
            "httpx",
            "matplotlib",
            "multipart",
            "onnx",
            "playwright",
            "prometheus_client",
        ),
        *(
            "pyarrow",
            "pywt",
            "ray",
            "scipy",
            "skimage",
            "starlette",
            "structlog",
            "tensorboard",
            "torch",
            "torchmetrics",
        ),
        "uvicorn",
    )
)


def _missing(error: BaseException | None) -> str | None:
    """The optional package that an import failed for, None if it failed for something else."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            name = error.name.partition(".")[0]
            return name if name in OPTIONAL else None
        error = error.__cause__ or error.__context__
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules whose mark, which all of their tests have, is not wanted: some take seconds to import."""
    if not re.fullmatch(r"test_\w+\.py", collection_path.name):
        return None
    marks = re.search(r"^pytestmark = ([^\n\[]+|\[\n.*?^\]|\[[^\n]+)", collection_path.read_text(), re.M | re.S)
    unwanted = {w.removeprefix("not ") for w in config.option.markexpr.split(" and ") if w.startswith("not ")}
    return True if marks and unwanted & set(re.findall(r"pytest\.mark\.(\w+)", marks[1])) else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a module whose optional dependency is not installed."""
    report = yield
    call = getattr(report, "call", None)
    if report.failed and call is not None and call.excinfo is not None:
        name = _missing(call.excinfo.value)
        if name is not None:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: {name} is not installed")
    return report
