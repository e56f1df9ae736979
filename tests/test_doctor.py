"""`eocodec doctor`: what it finds, and that it names what is wrong."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from eocodec_cli import cli

import eocodec
from eocodec import cores, doctor
from eocodec.doctor import diagnose
from eocodec.model.library import FOLDER_VARIABLE


def test_versions_models_and_cores_are_shown() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--quick", "--json"])
    found = json.loads(done.output)
    assert found["versions"]["eocodec"] == eocodec.__version__ and "numpy" in found["versions"]
    assert [(m["name"], len(m["id"])) for m in found["models"]] == [("face64", 8), ("photo", 8)]
    assert found["cores"]["usable"] == cores.cores() and "CPUExecutionProvider" in found["providers"]
    assert found["speed"] is None
    text = CliRunner().invoke(cli, ["doctor", "--quick"]).output
    assert f"photo  id {eocodec.load_model('photo').id.hex()}" in text and "usable of" in text


def test_a_sample_is_measured() -> None:
    speed = diagnose().speed
    assert speed is not None and speed["megapixels"] == pytest.approx(0.135, abs=0.01)
    assert min(speed["compress_seconds"], speed["decompress_seconds"]) > 0


def _findings(monkeypatch: pytest.MonkeyPatch, **more: object) -> str:
    for name, value in more.items():
        monkeypatch.setattr(doctor, name, lambda value=value: value)
    return "\n".join(f"{f.what}: {f.remedy}" for f in diagnose(measure=False).findings)


def test_both_builds_of_onnxruntime_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _findings(monkeypatch, _versions={"onnxruntime": "1", "onnxruntime-gpu": "1"})
    assert "hides the other" in said and "pip install --force-reinstall --no-deps onnxruntime-gpu" in said


def test_a_gpu_without_a_provider_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _findings(monkeypatch, _gpus=["NVIDIA Test"], _versions={"onnxruntime": "1"})
    assert "there is a GPU (NVIDIA Test), but ONNX Runtime was built without CUDA" in said


def test_cores_that_are_taken_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _findings(monkeypatch, _cores={"usable": 2, "machine": 8, "bound": 8, "load": 9.0, "throttled": 0.25})
    assert "may use 2 of the machine's 8 cores" in said and "in 25% of the scheduler's periods" in said
    assert "9.0 processes want a core" in said


def test_waiting_for_a_core_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {"megapixels": 1.0, "compress_seconds": 3.0, "decompress_seconds": 3.0, "processor_seconds": 1.0}
    monkeypatch.setattr(doctor, "_speed", lambda: speed)
    assert any("had a core for only 1.00 s" in f.what for f in diagnose().findings)


def test_models_that_cannot_be_used_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.eocm").write_bytes(b"no bundle")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert "the model broken cannot be used" in _findings(monkeypatch)


def test_the_driver_names_its_devices(tmp_path: Path) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA Test\nIRQ: 1\n")
    assert doctor._gpus(tmp_path) == ["NVIDIA Test"]


@pytest.mark.parametrize(
    ("content", "share"),
    [("nr_periods 200\nnr_throttled 50\n", 0.25), ("nr_periods 0\nnr_throttled 0\n", None), ("", None)],
)
def test_throttling_is_read_from_control_groups(tmp_path: Path, content: str, share: float | None) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "cpu.stat").write_text(content)
    (tmp_path / "cgroup").write_text("0::/a\n")
    assert cores.throttled(tmp_path / "root", tmp_path / "cgroup") == share
