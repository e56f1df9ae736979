"""The tests themselves: what is skipped where extras are missing, and that marks mean what they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT, environment

BLOCK = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Refuse())
"""


def _collect(folder: Path, *arguments: str, without: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """What pytest collects where packages cannot be imported."""
    (folder / "sitecustomize.py").write_text(BLOCK.format(names=without))
    path = environment()["PYTHONPATH"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-rs", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(folder), path])},
    )


@pytest.mark.slow
def test_without_the_extras_what_needs_them_is_skipped_and_the_rest_collected(tmp_path: Path) -> None:
    done = _collect(tmp_path, without=("torch", "torchmetrics", "onnx", "fastapi", "pyarrow", "ray", "matplotlib"))
    assert done.returncode == 0, done.stdout[-2000:]
    assert "error" not in done.stdout.lower().splitlines()[-1]
    for module in ("eocodec/flow/photo.py", "tests/test_flow.py", "tests/test_export.py", "tests/test_service.py"):
        assert f"{module}:" in done.stdout.partition("short test summary")[2], module
    assert "tests/test_laws.py::" in done.stdout and "tests/test_format.py::" in done.stdout


@pytest.mark.slow
def test_what_eocodec_always_needs_is_not_skipped(tmp_path: Path) -> None:
    done = _collect(tmp_path, "tests/test_entropy.py", without=("constriction",))
    assert done.returncode == 2 and "No module named 'constriction'" in done.stdout


@pytest.mark.slow
def test_an_unknown_mark_is_an_error(tmp_path: Path) -> None:
    test = tmp_path / "test_marked.py"
    test.write_text("import pytest\n\n\n@pytest.mark.slwo\ndef test_nothing() -> None:\n    pass\n")
    done = _collect(tmp_path, "-c", str(ROOT / "pyproject.toml"), str(test))
    assert done.returncode == 2 and "'slwo' not found in `markers`" in done.stdout


@pytest.mark.slow
def test_modules_without_a_test_that_is_wanted_are_not_even_imported(tmp_path: Path) -> None:
    some = [f"--ignore-glob=*/test_{others}*" for others in ("[!emv]", "e[!mn]", "m[!a]", "v[!a]", "en[!d]", "ma[!t]")]
    kept = [f"tests/test_{name}.py::" for name in ("ending", "embed_cpp", "embed_web", "matrix", "varint")]
    every, quick = (_collect(tmp_path, *mark, "tests", *some) for mark in ((), ("-m", "not slow and not ports")))
    assert quick.returncode == 0 and "deselected" not in quick.stdout, "imported first"
    assert [name for name in kept if name in quick.stdout] == [kept[-1]]
    assert kept[0] in every.stdout and kept[-2] in every.stdout  # the others may lack what they need
