"""Noise that differs from place to place: readings of areas, when they tell, and what the net makes of them."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from eocodec.denoising import denoise_picture, estimate_sigma, net, places
from eocodec.denoising.ceiling import most_white, most_white_around
from eocodec.denoising.net import Noise
from eocodec.metrics import psnr
from eocodec.model.bundle import Model


def _noisy(picture: np.ndarray, deviation: np.ndarray, grey: bool = False) -> np.ndarray:
    noise = np.random.default_rng(4).normal(0, 1, (*picture.shape[:2], 1 if grey else 3))
    return np.clip(np.rint(picture + noise * deviation[..., None]), 0, 255).astype(np.uint8)


def _halves(shape: tuple[int, ...], left: float, right: float) -> np.ndarray:
    deviation = np.full(shape[:2], left)
    deviation[:, shape[1] // 2 :] = right
    return deviation


@pytest.mark.parametrize(("grey", "gain"), [(False, 2.5), (True, 2.0)])
def test_each_place_is_rid_of_its_own_noise(coffee: np.ndarray, grey: bool, gain: float) -> None:
    picture = coffee[:256, :384]
    if grey:
        picture = picture.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)
    noisy = _noisy(picture, _halves(picture.shape, 2, 20), grey)
    done = denoise_picture(noisy, shifts=1)
    even = denoise_picture(noisy, sigma=done.sigma, shifts=1)
    assert psnr(picture, done.rgb) > psnr(picture, even.rgb) + gain
    assert done.places is not None and done.places.shape == (32, 48)
    assert np.median(done.places[:, 30:]) == pytest.approx(20, rel=0.2)
    assert np.median(done.places[:, :18]) < 6
    assert done.sigma == pytest.approx(math.sqrt((2**2 + 20**2) / 2), rel=0.2)
    assert estimate_sigma(noisy) == pytest.approx(done.sigma)


@pytest.mark.parametrize("sigma", [0, 3, 10, 50])
@pytest.mark.parametrize("grey", [False, True])
def test_noise_that_is_the_same_everywhere_is_taken_for_it(coffee: np.ndarray, sigma: float, grey: bool) -> None:
    picture = coffee[60:252, 100:356]
    if grey:
        picture = picture.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)
    noisy = _noisy(picture, np.full(picture.shape[:2], sigma), grey)
    assert denoise_picture(noisy, shifts=1).places is None


def test_noise_that_0_and_255_cut_off_is_the_same_everywhere(coffee: np.ndarray) -> None:
    """What is left of it in white is less, which says nothing of places."""
    picture = coffee[:256, 200:520].copy()
    picture[:, 160:] = 245 + picture[:, 160:] // 25
    noisy = _noisy(picture, np.full(picture.shape[:2], 30))
    assert denoise_picture(noisy, shifts=1).places is None


def test_turns_take_the_levels_with_them(model: Model, coffee: np.ndarray) -> None:
    """Flipped and transposed, a picture of odd sides gives the same result from the same levels."""
    picture = coffee[100:197, 100:243]
    deviation = _halves(picture.shape, 2, 30)
    noisy = (_noisy(picture, deviation) / np.float32(255)).astype(np.float32)
    levels = np.full((13, 18), 2 / 255, np.float32)
    levels[:, 9:] = 30 / 255
    noise = Noise.of_places(levels)
    assert np.allclose(noise.levels(noisy), levels)
    one, all_turns = (psnr(picture, 255 * net.apply(model, noisy, noise, turns=n)) for n in (1, 8))
    assert all_turns > one > 30
    mirrored = Noise.of_places(levels[:, ::-1])
    assert psnr(picture, 255 * net.apply(model, noisy, mirrored, turns=8)) < all_turns - 3


def test_sure_readings_outweigh_doubtful_ones() -> None:
    weight = np.full((16, 24), 0.1)
    weight[:, 12:] = 1e-4  # texture, read as three times the level
    reading = np.where(weight > 0.01, np.log1p(5), np.log1p(15))
    light = np.full(weight.shape, 0.5, np.float32)
    tones = places.of_tones(weight, weight * reading, light)
    found, sure = places.of_areas(weight, weight * reading, tones, places.DOUBT)
    np.testing.assert_allclose(np.expm1(found[:, 18:]), 5, rtol=0.1)
    assert sure[8, 2] > 0.7 > 0.1 > sure[8, 20]
    even = np.full(weight.shape, np.log1p(5))
    assert not places.uneven(found, even, sure, 5, places.UNEVEN)
    assert places.uneven(found, even + 0.5, sure, 5, places.UNEVEN)
    assert not places.uneven(found, even + 0.5, sure, 0, places.UNEVEN), "weak noise needs more"
    assert not places.uneven(found, even + 0.5, np.minimum(sure, 0.05), 5, places.UNEVEN)


def test_tones_are_told_apart() -> None:
    """Alternating columns of dark and bright areas: no region has a level of its own, tones have."""
    light = np.tile(np.float32([0.2, 0.8]), (20, 15))
    weight = np.full(light.shape, 0.02)
    reading = np.where(light < 0.5, np.log1p(12), np.log1p(4))
    tones = places.of_tones(weight, weight * reading, light)
    np.testing.assert_allclose(np.expm1(tones), np.where(light < 0.5, 12, 4), rtol=0.15)
    found, _ = places.of_areas(weight, weight * reading, tones, places.DOUBT)
    np.testing.assert_allclose(found, tones, atol=0.1)


def test_neighbours_bound_the_noise_around_them() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, (64, 144, 3)).astype(np.float32)
    values[:, :64] = 0.5 + (values[:, :64] - 0.5) / 10
    areas = np.ones((8, 18), np.bool_)
    around = most_white_around(values, areas)
    np.testing.assert_allclose(around[:, :8], 1.3 * 0.01, rtol=0.05)
    np.testing.assert_allclose(around[:, 8:16], 1.3 * 0.1, rtol=0.05)
    assert most_white(values[:, 64:128], areas[:, :8]) == pytest.approx(float(around[0, 8]))
    areas[:, :8] = False
    assert np.isinf(most_white_around(values, areas)[:, :8]).all()


@pytest.mark.parametrize("sigma", [3, 12])
def test_letters_are_no_places_with_more_noise(sigma: float) -> None:
    """Their edges are read as noise, which most neighbouring pixels around them contradict."""
    page = Image.new("RGB", (360, 240), "white")
    draw, letters = ImageDraw.Draw(page), np.random.default_rng(0)
    for y in range(4, 230, 16):
        draw.text((6, y), " ".join("".join(map(chr, letters.integers(97, 123, 6))) for _ in range(8)), "black")
    picture = (np.asarray(page) * 0.9 + 12).astype(np.uint8)
    done = denoise_picture(_noisy(picture, np.full(picture.shape[:2], sigma)), shifts=1)
    assert done.places is None and done.sigma < 1.4 * sigma
