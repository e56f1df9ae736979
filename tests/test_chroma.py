"""Noise of colours: found where it is, left out of files for the eye, and of nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES
from PIL import Image
from sheets import sheet

import eocodec
from eocodec import codec, format
from eocodec.coding import chroma, ordinary
from eocodec.denoising import denoise_picture
from eocodec.image import Bytes
from eocodec.metrics import psnr
from eocodec.model.library import load_model
from eocodec.regions import Region

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
LUMA = np.array([0.299, 0.587, 0.114])


def picture(name: str) -> Bytes:
    return np.asarray(Image.open(SAMPLES / f"{name}.png").convert("RGB"))[:211, :301]


def white(rgb: Bytes, sigma: float) -> Bytes:
    noise = np.random.default_rng(7).normal(0, sigma, rgb.shape)
    return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


def of_light(rgb: Bytes) -> Bytes:
    noise = np.random.default_rng(8).normal(0, 1, rgb.shape) * np.sqrt(4 + rgb / 255.0 * 60)
    return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_found_where_it_is(name: str) -> None:
    clean = picture(name)
    assert chroma.calmed(clean) is None
    for noisy in (white(clean, 5), white(clean, 20), of_light(clean)):
        calm = chroma.calmed(noisy)
        assert calm is not None and calm.rgb.shape == noisy.shape and calm.rgb.dtype == np.uint8
        assert psnr(clean, calm.rgb) > psnr(clean, noisy) + 0.2


@pytest.mark.parametrize(
    "make",
    [
        lambda rgb: np.repeat(white(rgb[..., :1], 9), 3, 2),
        lambda rgb: np.clip(np.rint(rgb + np.random.default_rng(1).normal(0, 9, (*rgb.shape[:2], 1))), 0, 255),
        lambda rgb: np.where(rgb > 128, 255, 0),
        lambda rgb: np.full_like(rgb, 77),
        lambda rgb: white(rgb, 9)[:63],
        lambda rgb: white(rgb, 9)[:, :63],
        lambda rgb: rgb // 32 * 32,
    ],
    ids=["grey", "of luma", "drawn", "flat", "low", "narrow", "few levels"],
)
def test_nothing_else_is_taken_for_it(make: Callable[[Bytes], Any]) -> None:
    assert chroma.calmed(make(picture("coffee")).astype(np.uint8)) is None


def test_luma_and_edges_of_colours_stay() -> None:
    y, x = np.mgrid[:160, :200]
    edges = np.where(((x // 20 + y // 20) % 2)[..., None] == 0, [190, 60, 50], [60, 110, 170]).astype(np.uint8)
    noisy = white(edges, 6)
    found = chroma.calmed(noisy)
    assert found is not None and 3 < found.noise < 5
    calm = found.rgb
    assert np.abs((calm.astype(float) - noisy) @ LUMA).max() <= 1.0
    near = (x % 20 < 1) | (x % 20 > 18)
    for channel in (0, 2):
        wrong = np.abs(calm.astype(float) - edges)[..., channel]
        assert wrong[near].mean() < 1.3 * wrong[~near].mean() + 2
        assert wrong.mean() < np.abs(noisy.astype(float) - edges)[..., channel].mean()


def test_strips_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = white(picture("astronaut"), 8)
    whole = chroma.calmed(noisy)
    monkeypatch.setattr(chroma, "STRIP", 64)
    strips = chroma.calmed(noisy)
    assert whole is not None and strips is not None and np.array_equal(strips.rgb, whole.rgb)


def test_files_for_the_eye_take_fewer_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = white(picture("coffee"), 10)
    done = codec.compress_picture(noisy, measure=True, verify=True)
    assert ordinary.CALM in done.notes
    luma = psnr(
        *(np.repeat((p @ LUMA)[..., None], 3, 2).astype(np.uint8) for p in (noisy, eocodec.decompress(done.data)))
    )
    monkeypatch.setattr(chroma, "calmed", lambda rgb: None)
    before = codec.compress_picture(noisy)
    assert len(done.data) < 0.6 * len(before.data) and ordinary.CALM not in before.notes
    old = psnr(
        *(np.repeat((p @ LUMA)[..., None], 3, 2).astype(np.uint8) for p in (noisy, eocodec.decompress(before.data)))
    )
    assert luma > old - 0.5


@pytest.mark.parametrize(
    "options", [{"tune": "psnr"}, {"psnr": 33}, {"lossless": True}, {"progressive": True}, {"denoise": 10}]
)
def test_other_files_are_as_they_were(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = white(picture("rocket")[:96, :128], 10)
    done = codec.compress_picture(noisy, **options)
    assert ordinary.CALM not in done.notes
    monkeypatch.setattr(chroma, "calmed", lambda rgb: None)
    assert codec.compress_picture(noisy, **options).data == done.data


def test_pages_say_it_of_their_photographs() -> None:
    place = Region(60, 48, 176, 128)
    page = sheet(330, 420, {place: "coffee"})
    assert ordinary.CALM not in codec.compress_picture(page).notes
    page[place.place] = white(page[place.place], 9)
    done = codec.compress_picture(page, verify=True)
    assert format.parse(done.data).header.page and ordinary.CALM in done.notes


def test_fine_steps_keep_it() -> None:
    noisy = white(picture("chelsea"), 6)
    finest = codec.compress_picture(noisy, 768, measure=True)
    assert finest.psnr is not None and finest.psnr > 48 and ordinary.CALM not in finest.notes
    calm = chroma.Calm(noisy, 5.0)
    shares = [calm.share_kept(delta / 255) for delta in (200, 5, 4.8, 4.4, 4.2, 0.1)]
    assert shares[:2] == [0, 0] and shares[-2:] == [1, 1] and 0 < shares[2] < shares[3] < 1
    found = chroma.calmed(noisy)
    assert found is not None
    rate = load_model("photo").manifest.rate_of((0.55 * found.noise + 1.8) / 255)
    between = codec.compress_picture(noisy, rate, measure=True, verify=True)
    assert ordinary.CALM in between.notes and between.psnr is not None and 34 < between.psnr < 48


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
@pytest.mark.parametrize("sigma", [3, 6])
def test_fine_colours_of_small_pictures_stay(name: str, sigma: float) -> None:
    """What is taken is noise: in neither difference of colour does the picture go away from the clean one."""
    image = Image.open(SAMPLES / f"{name}.png").convert("RGB")
    clean = np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))
    noisy = white(clean, sigma)
    calm = chroma.calmed(noisy)
    assert calm is not None
    before, after = (((p.astype(float) - clean) @ chroma.TO_CHROMA.T) ** 2 for p in (noisy, calm.rgb))
    assert (after.mean((0, 1)) < before.mean((0, 1))).all()


@pytest.mark.slow
def test_sizes_are_met_and_effort_goes_with_it() -> None:
    noisy = white(picture("astronaut")[:128, :160], 10)
    sized = codec.compress_picture(noisy, max_bytes=6000, verify=True)
    assert 5880 <= len(sized.data) <= 6000 and ordinary.CALM in sized.notes
    better = codec.compress_picture(noisy, 60, effort=2, verify=True)
    clean = denoise_picture(noisy, 10).rgb
    assert (
        psnr(clean, eocodec.decompress(better.data))
        > psnr(clean, eocodec.decompress(eocodec.compress(noisy, 60))) - 0.1
    )
