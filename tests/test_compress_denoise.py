"""Compressing without the noise: the file holds the clean picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image

import eocodec
from eocodec.codec import compress_picture
from eocodec.errors import EocodecError
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clean(coffee: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(coffee[60:188, 160:352])


@pytest.fixture(scope="module")
def noisy(clean: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    return np.clip(np.round(clean + noise), 0, 255).astype(np.uint8)


def test_the_file_holds_the_clean_picture(clean: np.ndarray, noisy: np.ndarray, model: Model) -> None:
    with_noise = eocodec.compress(noisy, rate=200, model=model)
    without = eocodec.compress(noisy, rate=200, denoise=25, model=model)
    assert len(without) < 0.6 * len(with_noise)
    assert psnr(clean, eocodec.decompress(without)) > psnr(clean, eocodec.decompress(with_noise)) + 4


def test_quality_counts_against_the_clean_picture(noisy: np.ndarray, model: Model) -> None:
    done = compress_picture(noisy, psnr=36, denoise="auto", model=model, measure=True)
    assert done.sigma == pytest.approx(25, rel=0.25) and done.psnr is not None
    denoised = eocodec.denoise(noisy)
    assert 36 <= done.psnr <= 36.1 and psnr(denoised, eocodec.decompress(done.data)) == pytest.approx(done.psnr)


def test_nothing_to_remove_changes_nothing(clean: np.ndarray, model: Model) -> None:
    assert eocodec.compress(clean, denoise=0, model=model) == eocodec.compress(clean, model=model)
    assert compress_picture(clean, model=model).sigma is None
    drawing = np.repeat(np.repeat(np.indices((12, 16)).sum(0) % 2, 8, 0), 8, 1).astype(np.uint8) * 255
    done = compress_picture(drawing, denoise="auto", model=model)
    assert done.sigma == 0 and np.array_equal(eocodec.decompress(done.data)[..., 0], drawing)


def test_transparency_stays_and_progressive_files_work(noisy: np.ndarray) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, noisy.shape[:2], np.uint8)
    decoded = eocodec.decompress(eocodec.compress(np.dstack([noisy, alpha]), max_bytes=60000, denoise=25))
    assert (decoded[:, :, 3] == alpha).all()
    stream = eocodec.compress(noisy, max_bytes=4000, denoise=25, progressive=True)
    assert len(stream) <= 4000 and eocodec.decompress(stream).shape == noisy.shape


def test_tiny_files_of_noisy_faces() -> None:
    face = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))
    noisy = np.clip(np.round(face + np.random.default_rng(0).normal(0, 40, face.shape)), 0, 255).astype(np.uint8)
    plain, cleaned = (eocodec.compress(noisy, max_bytes=150, tiny=True, denoise=d) for d in (None, 40))
    assert len(cleaned) <= 150
    assert psnr(face, eocodec.decompress(cleaned)) > psnr(face, eocodec.decompress(plain)) + 0.2


def test_bad_arguments_are_named(noisy: np.ndarray) -> None:
    with pytest.raises(EocodecError, match="keeps the noise"):
        eocodec.compress(noisy, lossless=True, denoise="auto")
    for level in (-1, 256, float("nan"), "much"):
        with pytest.raises(EocodecError, match="sigma"):
            eocodec.compress(noisy, denoise=level)


def test_the_command_tells_the_level(call: Runner, tmp_path: Path, noisy: np.ndarray) -> None:
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    estimated = json.loads(call("compress", "noisy.png", "--json", "--denoise").stdout)
    assert estimated["sigma"] == pytest.approx(25, rel=0.25)
    given = json.loads(call("compress", "--denoise=30", "noisy.png", "--json", "-f").stdout)
    assert given["sigma"] == 30 and given["bytes"] < estimated["bytes"]
    assert json.loads(call("compress", "noisy.png", "--json", "-f").stdout)["sigma"] is None


@pytest.mark.parametrize("arguments", [("--denoise", "noisy.png"), ("noisy.png", "--denoise", "--lossless")])
def test_the_command_says_what_does_not_go(call: Runner, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "noisy.png")
    done = call("compress", *arguments)
    assert done.returncode == 2 and b"denoise" in done.stderr and not (tmp_path / "noisy.eoc").exists()


@pytest.mark.parametrize("value", ["-3", "-0.5", "-inf", "-x"])
def test_a_negative_level_is_told_the_range(call: Runner, tmp_path: Path, value: str) -> None:
    done = call("compress", f"--denoise={value}", "noisy.png")
    reason = "is neither auto nor a number" if value == "-x" else f"{value} is not in the range from 0 to 255 levels."
    assert done.returncode == 2 and "'--denoise': " in done.stderr.decode() and reason in done.stderr.decode()
    assert b"No such file" not in done.stderr and b"No such option" not in done.stderr


def test_what_follows_two_dashes_is_no_level(call: Runner, tmp_path: Path) -> None:
    assert b"--denoise=-3: no such file" in call("compress", "--", "--denoise=-3").stderr
