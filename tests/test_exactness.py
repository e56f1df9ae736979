"""The symbols of every test vector are the same whatever computes them: threads, optimisation, instruction sets."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT, VECTORS, bundle_of

from eocodec.coding.symbols import symbols
from eocodec.model.library import load_model

INDEX: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
# Vectors that an emulated processor decodes, and how many of their bytes: of an embedded stream each takes its time.
EMULATED = dict.fromkeys(("colour", "grey", "noise", "lossless-grey", "face-tiny", "small-map", "exact-grey"), 1 << 20)
EMULATED["embedded-deep"] = 60
PROGRAM = """
import sys
sys.path[:0] = {path!r}
import hashlib
from pathlib import Path
from eocodec.model.library import load_model
from eocodec.coding.symbols import symbols
for name, bundle, size in {names!r}:
    data = (Path({folder!r}) / f"{{name}}.eoc").read_bytes()[:size]
    print(name, hashlib.sha256(symbols(data, load_model(bundle, 1)).astype("<i4").tobytes()).hexdigest(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "optimisation"), [(1, "off"), (2, "basic"), (4, "all"), (1, "all")])
def test_symbols_are_the_same_with_any_threads_and_optimisation(threads: int, optimisation: str) -> None:
    names = {v["model"] for v in INDEX}
    models = {name: load_model(bundle_of(name), threads, optimisation, "cpu") for name in names}
    for vector in INDEX:
        if vector["name"] in ("wide", "embedded", "embedded-deep") and (threads, optimisation) != (2, "basic"):
            continue  # each takes as long as all the others
        values = symbols((VECTORS / f"{vector['name']}.eoc").read_bytes(), models[vector["model"]])
        assert hashlib.sha256(values.astype("<i4").tobytes()).hexdigest() == vector["sha256"], vector["name"]


@pytest.mark.ports
@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("qemu-x86_64") is None,
    reason="needs an x86-64 machine and qemu-x86_64 (Debian: qemu-user)",
)
@pytest.mark.parametrize("processor", ["SandyBridge", "max"])
def test_symbols_are_the_same_without_avx2_and_without_avx512(processor: str) -> None:
    """SandyBridge has AVX, but neither AVX2 nor fused multiply-add; "max" has these, but not AVX-512."""
    program = PROGRAM.format(
        path=[str(ROOT), sysconfig.get_paths()["platlib"], sysconfig.get_paths()["purelib"]],
        names=[(v["name"], str(bundle_of(v["model"])), EMULATED[v["name"]]) for v in INDEX if v["name"] in EMULATED],
        folder=str(VECTORS),
    )
    python = str(Path(sys.executable).resolve())
    done = subprocess.run(
        ["qemu-x86_64", "-cpu", processor, python, "-c", program], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    expected = {v["name"]: v["sha256"] for v in INDEX if v["name"] in EMULATED}
    begun = (VECTORS / "embedded-deep.eoc").read_bytes()[: EMULATED["embedded-deep"]]
    values = symbols(begun, load_model(bundle_of("photo")))
    assert len(np.unique(values)) > 10
    expected["embedded-deep"] = hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()
    assert found == expected
