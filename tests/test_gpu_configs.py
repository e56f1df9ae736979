"""The configurations for GPUs: every stage runs, on the CPU and small, and their sizes are those that were counted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("ssimulacra2")

from eocodec.flow.configuration import load_config  # noqa: E402
from eocodec.flow.training import Run  # noqa: E402

NAMES = ("photo-24gb", "photo-8gpu")
COUNTED = json.loads((ROOT / "benchmarks" / "training_size.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_what_was_counted_belongs_to_the_configuration(name: str, tmp_path: Path) -> None:
    config = load_config(ROOT / "eocodec" / "models" / f"{name}.toml", tmp_path, tmp_path)
    counted = COUNTED[name]
    assert (config.crop, config.batch, config.accumulate) == tuple(counted[k] for k in ("crop", "batch", "accumulate"))
    stages = [(s.objective, s.iterations) for s in config.stages]
    assert stages == [(s["objective"], s["iterations"]) for s in counted["stages"]]
    assert counted["memory_gib"] < 0.75 * 24, "of 24 GB, with room for what was not counted"
    assert config.batch % counted["devices"] == 0
    assert config.compile and config.autocast == "on"


@pytest.mark.slow
def test_every_stage_of_the_larger_one_runs_on_the_cpu(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = [(f"{k}.png", random.integers(0, 256, (96, 96, 3), np.uint8)) for k in range(2)]
    full = load_config(ROOT / "eocodec" / "models" / "photo-8gpu.toml", tmp_path, tmp_path)
    stages = tuple(dataclasses.replace(s, iterations=1) for s in full.stages)
    small = dataclasses.replace(full, crop=64, batch=2, stages=stages, compile=False, autocast="off", threads=1)
    run = Run(small, torch.device("cpu"), pictures=(pictures, pictures[:1]))
    losses = [run.advance()["loss"] for _ in stages]
    assert run.iteration == run.total and np.isfinite(losses).all()
