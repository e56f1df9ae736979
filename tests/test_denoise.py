"""Denoising: clearly better than the noisy picture, close to untouched where there is no noise."""

import numpy as np
import pytest

import eocodec
from eocodec.bundle import Model
from eocodec.denoising import estimate_sigma
from eocodec.errors import EocodecError
from eocodec.metrics import psnr


def _noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    return (picture + np.random.default_rng(0).normal(0, sigma, picture.shape)) / 255


@pytest.mark.parametrize(("sigma", "gain"), [(10, 3.0), (25, 6.5), (50, 9.0)])
def test_noise_is_removed(sigma: float, gain: float, coffee: np.ndarray) -> None:
    noisy = _noisy(coffee, sigma)
    clean = eocodec.denoise(noisy, sigma)
    assert clean.dtype == np.float32 and clean.shape == coffee.shape
    assert psnr(coffee, clean * 255) > psnr(coffee, noisy * 255) + gain


def test_the_level_is_estimated(samples: dict[str, np.ndarray], model: Model) -> None:
    for picture in samples.values():
        for sigma in (10.0, 25.0, 50.0):
            assert estimate_sigma(_noisy(picture, sigma), model) == pytest.approx(sigma, rel=0.25)


def test_eight_bit_in_eight_bit_out(chelsea: np.ndarray) -> None:
    noisy = np.clip(np.round(_noisy(chelsea, 25) * 255), 0, 255).astype(np.uint8)
    clean = eocodec.denoise(noisy)
    assert clean.dtype == np.uint8 and psnr(chelsea, clean) > psnr(chelsea, noisy) + 6


def test_a_clean_picture_is_left_alone(chelsea: np.ndarray) -> None:
    assert (eocodec.denoise(chelsea, 0) == chelsea).all()
    assert psnr(chelsea, eocodec.denoise(chelsea)) > 38


def test_dropping_latents_removes_noise_too(coffee: np.ndarray) -> None:
    noisy = _noisy(coffee, 25)
    assert psnr(coffee, eocodec.denoise(noisy, rate=40) * 255) > psnr(coffee, noisy * 255) + 5


def test_more_shifts_help(coffee: np.ndarray) -> None:
    noisy = _noisy(coffee, 25)
    assert psnr(coffee, eocodec.denoise(noisy, 25, shifts=4) * 255) > psnr(
        coffee, eocodec.denoise(noisy, 25, shifts=1) * 255
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (33, 2)])
def test_small_and_grey_pictures(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(2).integers(0, 256, size, np.uint8)
    got = eocodec.denoise(grey, 20)
    assert got.shape == (*size, 3) and (got[..., 0] == got[..., 2]).all()


def test_bad_arguments_are_named(chelsea: np.ndarray) -> None:
    for arguments in ({"sigma": -1}, {"sigma": "loud"}, {"sigma": float("nan")}, {"shifts": 0}, {"rate": 0}):
        with pytest.raises(EocodecError):
            eocodec.denoise(chelsea, **arguments)
