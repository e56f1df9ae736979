"""The shipped model for aligned faces: what the README promises of it, on the sample face and on the measuring data."""

import base64
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image

import eocodec
from eocodec.denoising import estimate_sigma
from eocodec.errors import EocodecError
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model, shipped_models

FACE = SAMPLES / "faces" / "astronaut.png"


@pytest.fixture(scope="module")
def face64() -> Model:
    return load_model("face64")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.asarray(Image.open(FACE).convert("RGB"))


@pytest.fixture(scope="module")
def measured_faces(shared: Path) -> list[np.ndarray]:
    with tarfile.open(shared / "faces64" / "eval.tar") as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)[::16]
        files = [tar.extractfile(m) for m in members]
        return [np.asarray(Image.open(io.BytesIO(f.read())).convert("RGB")) for f in files if f is not None]


def test_the_bundle_is_small() -> None:
    assert shipped_models()["face64"].stat().st_size <= 12_000_000


def test_a_face_fits_into_24_bytes(face: np.ndarray) -> None:
    data = eocodec.compress(face, max_bytes=24, tiny=True)
    assert len(data) <= 24
    assert psnr(face, eocodec.decompress(data)) > 18.5  # a sharp face with a fringe, harder than most


@pytest.mark.slow
def test_every_rate_of_a_face(face: np.ndarray, face64: Model) -> None:
    sizes, quality = [], []
    for rate in (8, 32, 128, 512, face64.block):
        data = eocodec.compress(face, rate, model=face64, tiny=True)
        assert eocodec.compress(face, rate, model=face64, tiny=True) == data
        sizes.append(len(data))
        quality.append(psnr(face, eocodec.decompress(data)))
    assert sizes == sorted(sizes) and quality == sorted(quality)
    assert quality[0] > 17 and quality[-1] > 38


@pytest.mark.slow
def test_measured_quality_at_24_bytes(measured_faces: list[np.ndarray], face64: Model) -> None:
    quality = []
    for picture in measured_faces:
        data = eocodec.compress(picture, max_bytes=24, model=face64, tiny=True)
        assert len(data) <= 24
        quality.append(psnr(picture, eocodec.decompress(data)))
    assert np.mean(quality) >= 24.3


@pytest.mark.parametrize("mirrored", [False, True])
def test_sizes_of_tiny_files_are_never_above_and_little_below(mirrored: bool) -> None:
    face = np.asarray(Image.open(FACE).convert("RGB"))[:, :: -1 if mirrored else 1]
    for limit in (14, 20, 24, 30, 60, 80, 150, 200, 400):
        tiny = eocodec.compress(face, max_bytes=limit, tiny=True)
        assert min(0.94 * limit, limit - 3) <= len(tiny) <= limit, limit
        if limit >= 60:
            assert 0.98 * limit - 1 <= len(eocodec.compress(face, max_bytes=limit, model="face64")) <= limit, limit
    with pytest.raises(EocodecError, match="its smallest file has 11"):
        eocodec.compress(face, max_bytes=10, tiny=True)


def test_the_command_line_with_tiny_files(call: Runner, run: Runner, tmp_path: Path) -> None:
    done = call("compress", "--tiny", "--base64", "--bytes", "24", FACE, "-o", "face.txt", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["bytes"] <= 24 and record["width"] == 64
    text = (tmp_path / "face.txt").read_bytes()
    assert len(base64.b64decode(text)) == record["bytes"]
    assert call("decompress", "face.txt", "-o", "face.png").returncode == 0
    assert Image.open(tmp_path / "face.png").size == (64, 64)
    piped = run("decompress", "-", stdin=text)
    assert piped.returncode == 0 and piped.stdout[:4] == b"\x89PNG"
    shown = call("info", "face.txt", "--json")
    assert json.loads(shown.stdout)["tiny"] is True and json.loads(shown.stdout)["model"] == "face64"
    cut = call("truncate", "--bytes", "10", "face.txt")
    assert cut.returncode == 1 and cut.stderr.count(b"\n") == 1 and b"a tiny file cannot be cut" in cut.stderr


def test_only_commands_with_the_option_suggest_it(call: Runner) -> None:
    for command in (("compress",), ("denoise", "--sigma", 5), ("inspect", "face64")):
        model = () if command[0] == "inspect" else ("--model", "face64")
        refused = call(*command, *model, SAMPLES / "astronaut.png", "-o", "a.out.png")
        assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
        assert b"64x64 pixels, not 512x512; crop and scale the picture first" in refused.stderr
        assert (b"--resize" in refused.stderr) == (b"--resize" in call(command[0], "--help").stdout)
        assert b"which resize" not in refused.stderr


def test_pictures_are_resized_for_models_of_one_size_only(call: Runner) -> None:
    for command in (("compress", "--resize"), ("inspect", "--resize", "photo")):
        refused = call(*command, SAMPLES / "astronaut.png", "-o", "a.eoc")
        assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
        assert b"--resize needs a model for pictures of one size, such as face64; photo takes any" in refused.stderr


def test_the_command_line_resizes_on_request_only(call: Runner, tmp_path: Path) -> None:
    portrait = SAMPLES / "astronaut.png"
    refused = call("compress", "--model", "face64", portrait, "-o", "a.eoc")
    assert refused.returncode == 1 and b"--resize" in refused.stderr and refused.stderr.count(b"\n") == 1
    assert not (tmp_path / "a.eoc").exists()
    done = call("compress", "--model", "face64", "--resize", portrait, "-o", "a.eoc")
    assert done.returncode == 0, done.stderr
    assert call("decompress", "a.eoc", "-o", "a.png").returncode == 0
    assert Image.open(tmp_path / "a.png").size == (64, 64)
    assert call("info", "a.eoc").returncode == 0


def test_denoising_by_dropping(face: np.ndarray, face64: Model) -> None:
    noisy = face / 255 + np.random.default_rng(0).normal(0, 25 / 255, face.shape)
    clean = eocodec.denoise(noisy, "auto", model=face64)
    before, after = (float(((p - face / 255) ** 2).mean()) for p in (noisy, clean))
    assert after < 0.85 * before
    assert abs(estimate_sigma(noisy, face64) / 25 - 1) < 0.1


@pytest.mark.slow
def test_dropping_detail_latents_denoises_faces(face: np.ndarray, measured_faces: list[np.ndarray]) -> None:
    generator = np.random.default_rng(0)

    def gain(picture: np.ndarray) -> tuple[float, float]:
        noisy = picture + generator.normal(0, 25, picture.shape)
        clean = eocodec.denoise(noisy.astype(np.float32) / 255, 25, model="face64")
        return psnr(picture, noisy), psnr(picture, clean * 255)

    before, after = gain(face)
    assert after > before + 6
    assert np.mean([gain(f)[1] for f in measured_faces[::4]]) > 30.5
