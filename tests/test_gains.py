"""The learned denoising: what it is trained on, its nets' arithmetic, tiles, noise that grows with brightness."""

import math
import threading

import numpy as np
import pytest
from paths import end_pool

from eocodec.denoising import net
from eocodec.denoising.net import Noise
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model
from eocodec.model.runtime import Runtime


def _noisy(picture: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return ((picture + noise) / 255).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("part", [np.s_[100:196, 100:520], np.s_[0:390, 200:296]], ids=["wide", "tall"])
def test_tiles_hide_their_borders(
    model: Model, coffee: np.ndarray, part: tuple[slice, slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On strips that are longer than a tile with what is computed around it."""
    noisy = _noisy(coffee[part], 25)
    whole = net.apply(model, noisy, Noise.white(25 / 255))
    level = net.measure(model, noisy)
    monkeypatch.setattr(net, "WHOLE", 1 << 14)
    monkeypatch.setattr(net, "TILE", 128)
    assert max(noisy.shape) > 128 + 2 * net.HALO
    tiled = net.apply(model, noisy, Noise.white(25 / 255))
    assert np.abs(whole - tiled).max() * 255 < 1
    assert net.measure(model, noisy).sigma == pytest.approx(level.sigma, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (17, 3), (2, 300), (33, 31)])
def test_odd_sizes_keep_their_shape(model: Model, shape: tuple[int, int]) -> None:
    noisy = _noisy(np.full((*shape, 3), 100, np.uint8), 20)
    noise = net.measure(model, noisy)
    clean = net.apply(model, noisy, noise, turns=2)
    assert clean.shape == noisy.shape and np.isfinite(clean).all()
    assert 0 <= noise.sigma < 1


@pytest.mark.slow
def test_turned_pictures_average_to_a_better_one(model: Model, chelsea: np.ndarray) -> None:
    picture = chelsea[60:188, 100:260]
    noisy = _noisy(picture, 30)
    one, eight = (net.apply(model, noisy, Noise.white(30 / 255), turns=n) for n in (1, 8))
    assert psnr(picture, eight * 255) > psnr(picture, one * 255)
    # The whole sum is symmetric: a flipped picture gives the flipped result.
    flipped = net.apply(model, np.ascontiguousarray(noisy[:96, 95::-1]), Noise.white(30 / 255), turns=8)
    straight = net.apply(model, np.ascontiguousarray(noisy[:96, :96]), Noise.white(30 / 255), turns=8)
    assert np.abs(flipped[:, ::-1] - straight).max() < 1e-3


@pytest.mark.parametrize(("turns", "at_once"), [(4, 2), (3, 1)])
def test_turns_run_side_by_side_where_every_thread_has_one(
    chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch, turns: int, at_once: int
) -> None:
    """Each in a session without threads of its own, with the result of one after another."""
    monkeypatch.setattr("eocodec.model.threads.cores", lambda: 2)
    noisy, noise = _noisy(chelsea[60:124, 100:180], 30), Noise.white(30 / 255)
    end_pool()  # the next has the threads of two cores
    two, one = load_model("photo", threads=2), load_model("photo", threads=1)
    met: list[int] = []
    begun = threading.Barrier(2, timeout=60)
    run = Runtime.run

    def counted(runtime: Runtime, graph: str, inputs: dict[str, np.ndarray], one_of_many: bool = False) -> object:
        if one_of_many:
            met.append(begun.wait())
        return run(runtime, graph, inputs, one_of_many)

    expected = net.apply(one, noisy, noise, turns)
    assert not met
    monkeypatch.setattr(Runtime, "run", counted)
    assert np.abs(net.apply(two, noisy, noise, turns) - expected).max() < 1e-5
    assert len(met) == (turns if at_once == 2 else 0)
    end_pool()


@pytest.mark.parametrize(("sigma", "least"), [(120, 37), (150, 36), (255, 31)])
def test_noise_beyond_what_the_net_has_seen_is_removed(model: Model, sigma: float, least: float) -> None:
    down, right = np.mgrid[0:96, 0:128] / 128
    sky = np.dstack([100 + 60 * down, 120 + 40 * right, 200 - 40 * down])
    clean = net.apply(model, _noisy(sky, sigma), Noise.white(sigma / 255), turns=2)
    assert psnr(sky.round().astype(np.uint8), clean * 255) > least


def test_grey_noise_that_black_and_white_cut_off_keeps_its_tones(model: Model, coffee: np.ndarray) -> None:
    grey = coffee[60:220, 100:260].mean(2, keepdims=True).round().repeat(3, 2)
    noise = np.random.default_rng(1).normal(0, 50, (*grey.shape[:2], 1))
    noisy = (np.clip(grey + noise, 0, 255).round() / 255).astype(np.float32)
    clean = net.apply(model, noisy, Noise.white(math.sqrt(3) * 50 / 255)).mean(2)
    assert psnr(grey.astype(np.uint8), clean[..., None].repeat(3, 2) * 255) > 27.2  # 24.9 in full contrast
    dark = grey[..., 0] < 40
    assert abs(255 * clean[dark].mean() - grey[..., 0][dark].mean()) < 8


def test_brightness_is_a_mean_over_areas() -> None:
    values = np.random.default_rng(1).random((19, 9, 3), np.float32)
    got = net.brightness(values)
    assert got.shape == (3, 2)
    assert got[0, 0] == pytest.approx(values[:8, :8].mean(), abs=1e-6)
    assert got[2, 1] == pytest.approx(values[16:, 8:].mean(), abs=1e-6)


def test_levels_follow_brightness() -> None:
    values = np.zeros((32, 64, 3), np.float32)
    values[:, 32:] = 0.75
    noise = Noise(0.1, 0.001, 0.02)
    levels = noise.levels(values)
    assert levels.shape == (4, 8)
    assert levels[1, 1] == pytest.approx(math.sqrt(0.001)) and levels[1, 6] == pytest.approx(math.sqrt(0.016))
    assert noise.scaled(2).levels(values)[1, 6] == pytest.approx(2 * math.sqrt(0.016))
    assert (Noise.white(0.1).levels(values) == np.float32(0.1)).all()


def test_noise_that_grows_with_brightness_is_found(model: Model) -> None:
    random = np.random.default_rng(2)
    ramp = np.repeat(np.linspace(0.05, 0.95, 512, dtype=np.float32)[None, :, None], 384, 0).repeat(3, 2)
    white = net.measure(model, ramp + random.normal(0, 20 / 255, ramp.shape).astype(np.float32))
    assert white.slope == 0 and white.sigma * 255 == pytest.approx(20, rel=0.1)
    deviation = np.sqrt(0.0005 + 0.01 * ramp)
    shot = net.measure(model, (ramp + random.normal(0, 1, ramp.shape) * deviation).astype(np.float32))
    assert shot.slope == pytest.approx(0.01, rel=0.35)
    assert shot.sigma == pytest.approx(math.sqrt(0.0005 + 0.005), rel=0.1)


def test_training_noise_is_what_the_net_is_told() -> None:
    torch = pytest.importorskip("torch")
    from eocodec.flow.gains import corrupt
    from eocodec.flow.trainable import Draws

    x = torch.full((400, 3, 32, 32), 0.5)
    clean, noisy, told = corrupt(x, Draws(3, 0, 400), 60)
    assert (clean == 0.5).all()
    error = noisy - clean
    grey = (error[:, 0] == error[:, 1]).flatten(1).all(1)
    spread = error.flatten(1).std(1) * torch.where(grey, math.sqrt(3), 1.0)
    ratio = spread / told.mean((1, 2, 3)).clamp(min=2 / 255)
    assert 0.02 < grey.float().mean() < 0.2
    usual = (ratio > 0.9) & (ratio < 1.1)
    assert usual.float().mean() > 0.85  # the others went through JPEG
    assert told.max() * 255 <= 60 * math.sqrt(3) + 1


def test_the_loss_is_minimal_for_the_clean_picture() -> None:
    torch = pytest.importorskip("torch")
    from eocodec.flow.gains import level_loss, restoration_loss

    clean, noise = torch.rand(2, 3, 16, 16), torch.full((2, 1, 8, 8), 0.1)
    losses = [float(restoration_loss(clean, clean + e, noise)[0]) for e in (0.0, 0.01, 0.1)]
    assert losses == sorted(losses) and losses[2] > losses[1] + 1
    estimate = torch.stack([torch.full((2, 8, 8), math.log1p(25.5)), torch.rand(2, 8, 8) + 0.1], 1)
    assert float(level_loss(estimate, noise)) == pytest.approx(0, abs=1e-5)
    assert float(level_loss(estimate + torch.tensor([0.1, 0.0])[None, :, None, None], noise)) == pytest.approx(
        0.1, rel=1e-4
    )
