"""Effort: rounds of looking for latents whose file is better, and what they must not change."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import Runner

from eocodec import EocodecError, codec, decompress, effort
from eocodec.codec import compress_picture
from eocodec.metrics import psnr
from eocodec.model.library import load_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("ssimulacra2")

from eocodec.flow.eye import score  # noqa: E402


@pytest.fixture(scope="module")
def crop(coffee: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(coffee[100:292, 200:424])


def compress(picture: np.ndarray, rate: float | None = None, **options: Any) -> bytes:
    """On one thread: tests run side by side, and PyTorch's threads would wait for one another."""
    return codec.compress(picture, rate, **{"model": load_model("photo", 1), **options})


def _score(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (a, b))
    return float(score(x, y))


def _saved(crop: np.ndarray, tune: str, quality: Callable[[np.ndarray, np.ndarray], float], rounds: int) -> float:
    """Share of the bytes that rounds save at equal quality, by a line through two files without any."""
    points = []
    for rate, n in ((48, 0), (60, 0), (48, rounds)):
        data = compress(crop, rate, tune=tune, effort=n)
        points.append((np.log(len(data)), quality(crop, decompress(data))))
    (a, p), (b, q), (size, reached) = points
    return float(1 - np.exp(size - (a + (b - a) * (reached - p) / (q - p))))


def test_rounds_save_bytes_at_equal_squared_error(crop: np.ndarray) -> None:
    assert _saved(crop, "psnr", psnr, 4) > 0.015


def test_rounds_save_bytes_for_the_eye_and_lose_no_squared_error(crop: np.ndarray) -> None:
    assert _saved(crop, "eye", _score, 4) > 0.04
    assert _saved(crop, "eye", psnr, 4) > 0


def test_no_effort_is_the_file_as_ever(crop: np.ndarray) -> None:
    assert compress(crop, 30, effort=0) == compress(crop, 30)


def test_effort_is_the_same_every_time_and_changes_no_input(crop: np.ndarray) -> None:
    before = crop.copy()
    assert compress(crop, 30, effort=2) == compress(crop, 30, effort=2)
    assert np.array_equal(crop, before)


def test_files_decode_to_what_the_encoder_measured(crop: np.ndarray) -> None:
    done = compress_picture(crop, 40, model=load_model("photo", 1), effort=1, measure=True, verify=True)
    assert done.psnr == pytest.approx(psnr(crop, decompress(done.data)), abs=1e-3)


@pytest.mark.parametrize("target", [{"max_bytes": 3000}, {"psnr": 33.0}])
def test_targets_are_met(crop: np.ndarray, target: dict[str, float]) -> None:
    data = compress(crop, effort=1, **target)
    if "psnr" in target:
        assert target["psnr"] <= psnr(crop, decompress(data)) <= target["psnr"] + 0.1
    else:
        assert 0.97 * target["max_bytes"] <= len(data) <= target["max_bytes"]


def test_tiles_give_what_the_whole_gives(crop: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eocodec.flow.distributed.bfloat16_pays", lambda device: False)  # which depends on the sizes
    found = []  # what is coded later may differ by far more: one latent at an edge of rounding is context of others
    best = effort._Slopes.best

    def remember(self: effort._Slopes, have: list[np.ndarray]) -> list[np.ndarray]:
        result = best(self, have)
        found.append((have, result))
        return result

    monkeypatch.setattr(effort._Slopes, "best", remember)
    whole = compress(crop, 40, effort=1, tune="psnr")
    monkeypatch.setattr(effort, "WHOLE", 1)
    monkeypatch.setattr(effort, "TILE", 64)
    tiled = compress(crop, 40, effort=1, tune="psnr")
    (have, wanted), (_, got) = found
    for before, one, other in zip(have, wanted, got, strict=True):
        moved = np.abs(one - before).mean()
        assert moved > 0 and np.abs(one - other).mean() < 0.01 * moved
    assert len(tiled) == pytest.approx(len(whole), rel=0.01)
    assert psnr(crop, decompress(tiled)) == pytest.approx(psnr(crop, decompress(whole)), abs=0.03)


def test_what_transparency_hides_has_no_error(crop: np.ndarray) -> None:
    height, width = crop.shape[:2]
    alpha = np.full((height, width), 255, np.uint8)
    alpha[: height // 2] = 0
    data = compress(np.dstack([crop, alpha]), 40, effort=2, tune="psnr")
    back = decompress(data)
    plain = decompress(compress(np.dstack([crop, alpha]), 40, tune="psnr"))
    assert np.array_equal(back[..., 3], alpha)
    assert psnr(crop, back[..., :3], alpha) > psnr(crop, plain[..., :3], alpha)


def test_grey_stays_grey(crop: np.ndarray) -> None:
    grey = np.repeat(crop[..., 1:2], 3, axis=2)
    back = decompress(compress(grey, 40, effort=2, tune="psnr"))
    assert np.array_equal(back[..., 0], back[..., 1])
    assert psnr(grey, back) > psnr(grey, decompress(compress(grey, 40, tune="psnr")))


def test_sixteen_bits_are_coded_as_ever(crop: np.ndarray) -> None:
    deep = crop.astype(np.uint16) * 257
    done = compress_picture(deep, 300, model=load_model("photo", 1), effort=1)
    assert done.data == compress(deep, 300)
    assert done.notes == ("effort does nothing for pictures of 16 bits a sample",)


def test_rounds_may_be_a_number_of_numpy(crop: np.ndarray) -> None:
    assert compress(crop, 20, effort=np.int64(1)) == compress(crop, 20, effort=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [-1, 21, 1.5, True, np.int64(-1), np.float64(1), np.bool_(True)])
def test_rounds_that_are_none(crop: np.ndarray, rounds: int) -> None:
    with pytest.raises(EocodecError, match=r"^the effort must be a whole number from 0 to 20, not "):
        compress(crop, effort=rounds)


@pytest.mark.parametrize("form", [{"lossless": True}, {"progressive": True}, {"model": "face64", "resize": True}])
def test_other_forms_say_that_they_have_none(crop: np.ndarray, form: dict[str, object]) -> None:
    with pytest.raises(EocodecError, match="effort is for ordinary files"):
        compress(crop, effort=1, **form)  # type: ignore[arg-type]


def test_without_torch_it_says_what_to_install(crop: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EocodecError, match=r"effort needs torch; install it with: pip install 'eocodec\[effort\]'"):
        compress(crop, effort=1)


def test_the_command_takes_it(run: Runner, crop: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(crop).save(tmp_path / "a.png")
    assert run("compress", "--threads", 1, "--effort", 1, "--rate", 40, "a.png", "-o", "a.eoc").returncode == 0
    assert (tmp_path / "a.eoc").read_bytes() == compress(crop, 40, effort=1)
    for command in (("batch", ".", "out"), ("compress", "a.png")):
        refused = run(*command, "--effort", 1, "--progressive")
        assert refused.returncode == 2 and b"--effort is for ordinary files, without" in refused.stderr
    for command in (("compress", "a.png", "-o", "b.eoc"), ("batch", ".", "none")):
        refused = run(*command, "--effort", 21)
        assert refused.returncode == 2 and b"21 is not in the range 0<=x<=20" in refused.stderr
    assert not (tmp_path / "none").exists()
