"""What repeats itself is no noise, however rough it is; noise is as strong as it was measured."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from eocodec.denoising import denoise, estimate_sigma
from eocodec.denoising.ceiling import most_noise, most_white
from eocodec.denoising.noise_areas import trusted
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

HEIGHT, WIDTH = 240, 360
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]


def _coloured(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(np.dstack([values, values * 0.8 + 20, 255 - values])), 0, 255).astype(np.uint8)


PATTERNS: dict[str, Callable[[], np.ndarray]] = {
    "checks": lambda: _coloured((X // 3 + Y // 3) % 2 * 200.0),
    "rings": lambda: _coloured(127.5 + 127.5 * np.sin(np.hypot(X - 180, Y - 120) / 3)),
    "dithering": lambda: _coloured(X * 255 / WIDTH + (X + Y) % 2 * 2),
    "weave": lambda: _coloured(128 + 60 * np.sin(X / 1.3) + 60 * np.sin(Y / 1.7)),
    "halftone": lambda: _coloured(np.where(np.hypot(X % 6 - 3, Y % 6 - 3) < 1 + X / 150, 20.0, 235.0)),
    "knit, in grey": lambda: np.repeat(_coloured(128 + 90 * np.sin(X / 2) * np.sin((X + Y) / 3))[..., :1], 3, 2),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_what_repeats_itself_is_no_noise(kind: str, model: Model) -> None:
    picture = PATTERNS[kind]()
    level = estimate_sigma(picture, model=model)
    assert level < 3
    changed = np.asarray(denoise(picture, model=model)).astype(int) - picture
    assert np.abs(changed).mean() < 1


def _noisy(samples: dict[str, np.ndarray], name: str, sigma: float) -> np.ndarray:
    clean = samples[name][:HEIGHT, :WIDTH].astype(float)
    noise = np.random.default_rng(1).normal(0, sigma, clean.shape)
    return np.clip(np.round(clean + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("sigma", [6, 25, 60])
def test_noise_is_never_taken_for_a_pattern(samples: dict[str, np.ndarray], name: str, sigma: float) -> None:
    values = _noisy(samples, name, sigma).astype(np.float32) / 255
    assert sigma / 255 <= most_noise(values, trusted(values)) < 3.5 * sigma / 255


def test_noise_that_a_filter_has_gone_over_is_not_alike_either(samples: dict[str, np.ndarray]) -> None:
    noise = Image.fromarray(_noisy({"grey": np.full((HEIGHT, WIDTH, 3), 128)}, "grey", 40))
    soft = np.asarray(noise.filter(ImageFilter.GaussianBlur(1.2))).astype(np.float32) - 128
    values = np.clip(samples["chelsea"][:HEIGHT, :WIDTH] + soft, 0, 255).astype(np.float32) / 255
    assert most_noise(values, trusted(values)) > soft.std() / 255


def test_noise_behind_jpeg_is_not_overestimated(samples: dict[str, np.ndarray], model: Model) -> None:
    """It has lost its finest part; at what is left of its level more of the picture stays."""
    stored = io.BytesIO()
    Image.fromarray(_noisy(samples, "rocket", 25)).save(stored, "JPEG", quality=75)
    picture = np.asarray(Image.open(stored))
    assert 20 < estimate_sigma(picture, model=model) < 26
    assert psnr(samples["rocket"][:HEIGHT, :WIDTH], np.asarray(denoise(picture, model=model))) > 31.5


def _text(level: float) -> np.ndarray:
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, letters = ImageDraw.Draw(page), np.random.default_rng(0)
    for y in range(4, HEIGHT - 10, 16):
        draw.text((6, y), " ".join("".join(map(chr, letters.integers(97, 123, 6))) for _ in range(8)), "black")
    noise = np.random.default_rng(1).normal(0, level, (HEIGHT, WIDTH, 3))
    return np.clip(np.round(np.asarray(page) * 0.9 + 12 + noise), 0, 255).astype(np.uint8)


def _blocks(edge: int) -> np.ndarray:
    colours = np.random.default_rng(2).integers(0, 256, (HEIGHT // edge, WIDTH // edge, 3), np.uint8)
    return colours.repeat(edge, 0).repeat(edge, 1)


@pytest.mark.parametrize(
    "picture", [_text(0), _blocks(2), _blocks(5), _blocks(8)], ids=["text", "blocks of 2", "of 5", "of 8"]
)
def test_drawings_are_left_alone(picture: np.ndarray, model: Model) -> None:
    """Their edges are rougher than any noise; what repeats its neighbours has none."""
    assert not trusted(picture.astype(np.float32) / 255).any()
    assert np.array_equal(denoise(picture, model=model), picture)


def _lines() -> np.ndarray:
    page, numbers = Image.new("RGB", (600, 400), (240, 235, 220)), np.random.default_rng(3)
    for _ in range(60):
        points = [(int(x), int(y)) for x, y in numbers.integers(0, (600, 400), (3, 2))]
        colour = tuple(int(v) for v in numbers.integers(60, 255, 3))
        ImageDraw.Draw(page).line(points, colour, int(numbers.integers(1, 6)))
    return np.asarray(page.resize((1200, 800), Image.Resampling.BICUBIC).resize((601, 399), Image.Resampling.LANCZOS))


def test_smooth_lines_and_steps_are_left_alone(samples: dict[str, np.ndarray], model: Model) -> None:
    """Lines had 33 as noise that a filter has gone over, three areas of a posterised photograph 37."""
    for picture in (_lines(), samples["coffee"] // 64 * 64 + np.uint8(32)):
        assert estimate_sigma(picture, model=model) < 0.5
        assert psnr(picture, np.asarray(denoise(picture, model=model))) > 60


@pytest.mark.parametrize("sigma", [1, 3, 12])
def test_noise_of_a_scan_is_no_stronger_than_its_paper_shows(sigma: float, model: Model) -> None:
    """Edges of letters made it 17 to 80 where it was 1."""
    scan, clean = _text(sigma), _text(0)
    assert estimate_sigma(scan, model=model) < 1.35 * sigma + 1
    assert psnr(clean, np.asarray(denoise(scan, model=model))) > min(psnr(clean, scan) - 0.5, 39)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("sigma", [6, 25, 60])
def test_differences_of_neighbours_hold_all_white_noise(
    samples: dict[str, np.ndarray], name: str, sigma: float
) -> None:
    values = _noisy(samples, name, sigma).astype(np.float32) / 255
    left = np.std(_noisy(samples, name, sigma) - samples[name][:HEIGHT, :WIDTH].astype(float)) / 255
    assert left <= most_white(values, trusted(values)) < 3.5 * left


def test_smooth_texture_is_no_noise_at_half_the_size(shared: Path, model: Model) -> None:
    """It is smoother at full size than noise with that much left at half of it can be."""
    picture = np.asarray(Image.open(shared / "photos" / "cbsd68" / "0041.png").convert("RGB"))
    assert estimate_sigma(picture, model=model) < 1
    assert psnr(picture, np.asarray(denoise(picture, model=model))) > 55


def test_where_nothing_can_be_compared_anything_may_be_noise() -> None:
    small = np.random.default_rng(0).random((12, 12, 3), np.float32)
    assert most_noise(small, np.ones((2, 2), bool)) == np.inf
    assert most_noise(small, np.zeros((2, 2), bool)) == np.inf
    assert most_noise(small[:5], np.ones((1, 2), bool)) == np.inf
    assert most_white(small, np.zeros((2, 2), bool)) == np.inf
    assert most_white(small[:, :9], np.ones((2, 2), bool)) < 1


def test_steps_at_the_border_of_what_is_measured_do_not_count() -> None:
    """Of as many differences that are zero as are not the median lies between; the border's would decide."""
    values = np.zeros((24, 8, 3), np.float32)
    values[1:8:2] = 0.1
    areas = np.array([[True], [False], [False]])
    found = []
    for beyond in (0.1, 0.7):
        values[8:] = beyond
        found.append(most_white(values, areas))
    assert 0 < found[0] == found[1] < np.inf
    level = most_white(values, np.ones((3, 1), bool))
    assert level < found[0]
