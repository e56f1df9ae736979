"""Noise is not found in what was drawn: charts, meshes, small text, few tones; it is in photographs on a page."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from eocodec.denoising import denoise, estimate_sigma
from eocodec.denoising.ceiling import shows
from eocodec.denoising.noise_areas import trusted
from eocodec.metrics import psnr


def _page(size: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw, np.random.Generator], None]) -> np.ndarray:
    """Drawn at twice the size, so that edges are smooth."""
    page = Image.new("RGB", (2 * size[0], 2 * size[1]), "white")
    draw(ImageDraw.Draw(page), np.random.default_rng(7))
    return np.asarray(page.resize(size, Image.Resampling.BOX))


def _series() -> np.ndarray:
    def draw(page: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
        for _ in range(60):
            heights = 400 + 14 * random.normal(0, 1, 300).cumsum()
            colour = tuple(int(v) for v in random.integers(0, 200, 3))
            page.line([(40 + 3.6 * k, h) for k, h in enumerate(heights)], colour, 2)

    return _page((560, 400), draw)


def _points() -> np.ndarray:
    def draw(page: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
        for x, y in random.normal(0, 1, (6000, 2)) * (200, 130) + (560, 400):
            page.ellipse((x, y, x + 5, y + 5), tuple(int(v) for v in random.integers(0, 255, 3)))

    return _page((560, 400), draw)


def _text(scale: float) -> np.ndarray:
    page = Image.new("RGB", (720, 480), "white")
    draw, letters = ImageDraw.Draw(page), np.random.default_rng(0)
    for y in range(4, 470, 14):
        draw.text((6, y), " ".join("".join(map(chr, letters.integers(97, 123, 6))) for _ in range(16)), "black")
    return np.asarray(page.resize((int(720 * scale), int(480 * scale)), Image.Resampling.LANCZOS))


def _stored(picture: np.ndarray) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=60)
    return np.asarray(Image.open(stored))


@pytest.mark.parametrize(
    "picture",
    [_series(), _points(), _text(0.6), _text(0.5), _stored(_text(1))],
    ids=["series", "points", "text at 0.6", "text at 0.5", "text as JPEG"],
)
def test_drawings_with_smooth_edges_have_no_noise(picture: np.ndarray) -> None:
    """They were read as having 8 to 44 levels of noise, and lost their lines."""
    assert estimate_sigma(picture) == 0
    assert np.array_equal(denoise(picture), picture)


def test_photographs_of_few_tones_have_no_noise(samples: dict[str, np.ndarray]) -> None:
    for picture in (samples["coffee"] // 32 * 32, samples["chelsea"] // 32 * 32):
        assert estimate_sigma(picture) == 0


@pytest.mark.parametrize(("sigma", "grey"), [(5, False), (20, False), (20, True)])
def test_a_noisy_photograph_on_a_page_is_found(coffee: np.ndarray, sigma: float, grey: bool) -> None:
    photo = coffee[100:228, 200:360]
    if grey:
        photo = photo.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)
    noise = np.random.default_rng(5).normal(0, sigma, (*photo.shape[:2], 1 if grey else 3))
    page = np.full((400, 400, 3), 255, np.uint8)
    page[120:248, 120:280] = np.clip(np.rint(photo + noise), 0, 255)
    clean = page.copy()
    clean[120:248, 120:280] = photo
    assert trusted(page.astype(np.float32) / 255).mean() < 0.25
    assert estimate_sigma(page) == pytest.approx(sigma, rel=0.25)
    assert psnr(clean, np.asarray(denoise(page))) > psnr(clean, page) + 2


def test_noise_shows_in_its_quietest_areas() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(0.5, 0.05, (160, 160, 3)).astype(np.float32)
    areas = np.zeros((20, 20), np.bool_)
    areas[:8] = True
    level = np.full((20, 20), 0.05, np.float32)
    assert shows(noise, areas, level)
    assert not shows(noise, areas, level / 2), "everything is twice as rough as such noise"
    lines = np.repeat(noise[:, :1], 160, 1)  # alike along one direction
    few = areas.copy()
    few[4:] = False
    assert not shows(lines, few, level)
    assert shows(lines, np.ones_like(areas), level), "a photograph may have noise in its textures alone"
