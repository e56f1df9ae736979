"""Noise is found where it can be seen, is never absurd, and is left alone where it may be texture."""

import numpy as np
import pytest
from paths import SAMPLES
from PIL import Image, ImageDraw, ImageFilter

import eocodec
from eocodec.denoising import clipped, denoise_picture, estimate_sigma
from eocodec.denoising.coarse import coarse_level
from eocodec.denoising.noise_areas import correlated, hidden, trusted
from eocodec.image import Picture
from eocodec.model.bundle import Model


def _noisy(picture: np.ndarray, sigma: float, seed: int = 5) -> np.ndarray:
    return np.clip(picture + np.random.default_rng(seed).normal(0, sigma, picture.shape) + 0.5, 0, 255).astype(np.uint8)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))[100:260, 150:390]


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 255, 128])
def test_flat_margins_do_not_hide_noise(crop: np.ndarray, model: Model, value: int) -> None:
    noisy = np.pad(_noisy(crop, 20), ((70, 70), (70, 70), (0, 0)), constant_values=value)
    done = denoise_picture(noisy, model=model)
    assert done.sigma == pytest.approx(20, rel=0.2)
    inner = done.rgb[70:-70, 70:-70]
    assert _psnr(crop, inner) > _psnr(crop, noisy[70:-70, 70:-70]) + 6


def test_transparent_areas_do_not_hide_noise(crop: np.ndarray, model: Model) -> None:
    alpha = np.zeros(crop.shape[:2], np.uint8)
    alpha[40:120, 60:180] = 255
    smooth = np.where(alpha[..., None] > 0, _noisy(crop, 20), np.arange(240, dtype=np.uint8)[None, :, None])
    assert estimate_sigma(Picture(smooth, alpha), model) == pytest.approx(20, rel=0.25)


def test_two_levels_are_no_noise(model: Model) -> None:
    y, x = np.mgrid[:128, :128]
    grey = Image.open(SAMPLES / "coffee.png").convert("L").crop((150, 100, 278, 228))
    dots = (np.cos(np.pi * x / 2) * np.cos(np.pi * y / 2) + 1) * 127.5
    for picture in (((x + y) & 1) * 255, (np.asarray(grey) > dots) * 255, np.asarray(grey.convert("1")) * 255):
        done = denoise_picture(picture.astype(np.uint8), model=model)
        assert done.sigma == 0 and (done.rgb[..., 0] == picture).all()


def test_no_level_is_larger_than_the_nets_have_seen(model: Model) -> None:
    y, x = np.mgrid[:128, :128]
    checker = (((x + y) & 1) * 200 + 27).astype(np.uint8)
    assert 0 <= estimate_sigma(checker, model) <= 121
    assert estimate_sigma(np.dstack([checker, checker.T, 255 - checker]), model) <= 121


def _camera(values: np.ndarray) -> np.ndarray:
    """A Bayer mosaic and bilinear interpolation."""
    height, width = values.shape[:2]
    kept = np.zeros((height, width, 3))
    kept[::2, ::2, 0] = kept[::2, 1::2, 1] = kept[1::2, ::2, 1] = kept[1::2, 1::2, 2] = 1

    def blurred(plane: np.ndarray) -> np.ndarray:
        taps = ((-1, 0.5), (0, 1), (1, 0.5))
        return sum(a * b * np.roll(plane, (i, j), (0, 1)) for i, a in taps for j, b in taps)  # type: ignore[return-value]

    return np.clip(blurred(values * kept) / blurred(kept) + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_noise_seen_through_a_demosaicer_is_found_and_removed(model: Model, coffee: np.ndarray) -> None:
    coffee = coffee[60:316, 100:420]
    clean = _camera(coffee.astype(float))
    noisy = _camera(coffee + np.random.default_rng(0).normal(0, 10, coffee.shape))
    level = float((noisy.astype(float) - clean).std())
    done = denoise_picture(noisy, model=model)
    assert done.sigma == pytest.approx(level, rel=0.25)
    assert _psnr(clean, done.rgb) > _psnr(clean, noisy) + 2


def test_texture_is_no_noise(samples: dict[str, np.ndarray]) -> None:
    for picture in samples.values():
        values = picture.astype(np.float32) / np.float32(255)
        assert hidden(values, trusted(values)) is None


def test_what_is_too_small_or_flat_has_no_level() -> None:
    for shape in ((7, 9, 3), (16, 16, 3), (40, 40, 3)):
        values = np.full(shape, 0.5, np.float32)
        assert correlated(values, trusted(values)) is None and not trusted(values).any()


@pytest.mark.slow
def test_detail_is_given_back(crop: np.ndarray, model: Model) -> None:
    noisy = _noisy(crop, 20)
    clean, half, same = (eocodec.denoise(noisy, 20, detail=d, model=model).astype(int) for d in (0, 0.5, 1))
    assert (same == noisy).all()
    assert np.abs(half - (clean + noisy) / 2).max() <= 1
    for wrong in (-0.1, 1.1, None):
        with pytest.raises(eocodec.EocodecError):
            eocodec.denoise(noisy, 20, detail=wrong, model=model)  # type: ignore[arg-type]


def _malvar(values: np.ndarray) -> np.ndarray:
    """A Bayer mosaic of colours `(H, W, 3)` filled by Malvar, He & Cutler's filters (2004), borders repeated."""
    red, blue = (np.zeros(values.shape[:2], bool) for _ in range(2))
    red[::2, ::2] = blue[1::2, 1::2] = True
    raw = np.where(red, values[..., 0], np.where(blue, values[..., 2], values[..., 1]))
    padded = np.pad(raw, 2, "reflect")

    def filtered(kernel: list[list[float]]) -> np.ndarray:
        shifted = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
        return np.einsum("abij,ij->ab", shifted, np.array(kernel) / 8)

    straight = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
    opposite = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    cross = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
    along, down = filtered(straight), filtered(np.transpose(straight).tolist())
    even = np.arange(len(raw))[:, None] % 2 == 0
    at_green = ~(red | blue)
    other = filtered(opposite)
    channels = [
        np.where(red, raw, np.where(at_green, np.where(even, along, down), other)),
        np.where(at_green, raw, filtered(cross)),
        np.where(blue, raw, np.where(at_green, np.where(even, down, along), other)),
    ]
    return np.clip(np.dstack(channels) + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True])
def test_noise_that_channels_share_behind_a_demosaicer_is_found(grey: bool, model: Model) -> None:
    scene = np.asarray(Image.open(SAMPLES / "rocket.png").convert("RGB"))[:192, :192].astype(float)
    clean, noisy = _malvar(scene), _malvar(scene + np.random.default_rng(0).normal(0, 10, scene.shape))
    if grey:
        clean, noisy = (v[..., 1:2].repeat(3, 2) for v in (clean, noisy))
    assert estimate_sigma(clean, model) < 0.3
    done = denoise_picture(noisy, shifts=1, model=model)
    assert done.sigma is not None and 4 < done.sigma < 10
    assert _psnr(clean, done.rgb) > _psnr(clean, noisy) + 1.5


def _enlarged(values: np.ndarray) -> np.ndarray:
    """Twice as large, bilinear."""
    size = (2 * values.shape[1], 2 * values.shape[0])
    planes = [Image.fromarray(v.astype(np.float32)) for v in values.transpose(2, 0, 1)]
    large = np.dstack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes])
    return np.clip(large + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.slow
def test_noise_that_was_enlarged_is_found_and_removed_at_the_scale_that_it_has(grey: bool, model: Model) -> None:
    scene = np.asarray(Image.open(SAMPLES / "rocket.png").convert("RGB"))[:128, 60:188].astype(float)
    noise = np.random.default_rng(0).normal(0, 12, scene.shape)
    if grey:
        scene, noise = (v[..., 1:2].repeat(3, 2) for v in (scene, noise))
    clean, noisy = _enlarged(scene), _enlarged(scene + noise)
    level = float((noisy.astype(float) - clean).std())
    assert estimate_sigma(clean, model) < 0.3
    done = denoise_picture(noisy, shifts=1, model=model)
    assert done.sigma == pytest.approx(level, rel=0.25)
    told = denoise_picture(noisy, level, shifts=1, model=model)  # at one scale
    assert _psnr(clean, done.rgb) > max(_psnr(clean, noisy) + 4, _psnr(clean, told.rgb) + 1)


@pytest.mark.slow
def test_texture_is_no_noise_at_coarser_scales_either(samples: dict[str, np.ndarray], model: Model) -> None:
    for picture in samples.values():
        for part in (picture[:160, :240], picture[:160, :240, 1]):
            assert estimate_sigma(part, model) < 2


def test_a_few_areas_of_a_drawing_tell_nothing(model: Model) -> None:
    page = np.full((400, 500), 200, np.uint8)
    random = np.random.default_rng(1)
    for edge, read in ((56, False), (96, True)):
        noisy = page.copy()
        noisy[80 : 80 + edge, 96 : 96 + edge] = np.clip(random.normal(128, 20, (edge, edge)), 0, 255)
        assert (estimate_sigma(noisy, model) > 10) is read


@pytest.mark.parametrize("shown", [0.1, 0.5])
def test_noise_at_coarser_scales_is_not_claimed_of_pictures_that_are_mostly_flat(shown: float) -> None:
    values = _enlarged(np.random.default_rng(2).normal(128, 12, (128, 128, 3))).astype(np.float32) / 255
    areas = np.zeros((32, 32), np.bool_)
    areas[:, : round(32 * shown)] = True
    found = coarse_level(values, areas, None, lambda v, a: float(v.std()))
    assert (found is not None) is (shown > 0.15), found


def _enlarged_noise(grey: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Values of noise that was enlarged, and all areas."""
    noise = np.random.default_rng(2).normal(128, 12, (128, 128, 1 if grey else 3)).repeat(3 if grey else 1, 2)
    return _enlarged(noise).astype(np.float32) / 255, np.ones((32, 32), np.bool_)


def test_noise_at_coarser_scales_is_nowhere_stronger_than_the_picture_is_rough() -> None:
    values, areas = _enlarged_noise()
    rough = correlated(values, areas)
    assert rough is not None
    for spread in (1.0, 3**0.5):
        found = coarse_level(values, areas, None, lambda v, a: 0.9, spread)
        assert found is not None and found.level == pytest.approx(spread * rough.roughness)


def test_what_is_transparent_is_not_measured_at_any_scale() -> None:
    values, areas = _enlarged_noise()
    alpha = np.full((256, 256), 255, np.uint8)
    alpha[:, :128] = 0
    seen: list[np.ndarray] = []

    def measure(part: np.ndarray, where: np.ndarray) -> float:
        seen.append(where)
        return float(part.std())

    assert coarse_level(values, areas, alpha, measure) is not None
    assert [a.shape for a in seen] == [(16, 16), (8, 8)]
    for where in seen:
        left = where.shape[1] // 2
        assert not where[:, :left].any() and where[:, left + 1 :].all()


def test_channels_that_are_alike_are_texture_but_in_grey_pictures() -> None:
    values, areas = _enlarged_noise(grey=True)
    assert coarse_level(values, areas, None, lambda v, a: float(v.std())) is None
    assert coarse_level(values, areas, None, lambda v, a: float(v.std()), 3**0.5) is not None


@pytest.mark.parametrize("hidden_by", ["flat", "a transparent pixel", "clipped"])
def test_neighbours_of_flat_and_transparent_areas_are_not_trusted(hidden_by: str) -> None:
    values = np.random.default_rng(3).uniform(0.3, 0.7, (64, 64, 3)).astype(np.float32)
    alpha = np.full((64, 64), 255, np.uint8)
    expected = np.ones((8, 8), np.bool_)
    if hidden_by == "clipped":
        values[24:32, 32:40, 0] = np.round(values[24:32, 32:40, 0])  # of one channel
        expected[3, 4] = False
    else:
        expected[2:5, 3:6] = False
        if hidden_by == "flat":
            values[24:32, 32:40] = 0.5
        else:
            alpha[27, 35] = 0
    assert (trusted(values, alpha) == expected).all()


def _page(paper: int, ink: int) -> np.ndarray:
    page = Image.new("RGB", (320, 240), (paper,) * 3)
    draw = ImageDraw.Draw(page)
    for top in range(10, 230, 22):
        draw.text((10, top), "noise on paper is cut off at its half, 0123456789", (ink,) * 3)
    return np.asarray(page)


@pytest.mark.slow
@pytest.mark.parametrize(("paper", "ink"), [(255, 10), (0, 200)])
@pytest.mark.parametrize("sigma", [4, 8, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_on_white_and_on_black_paper_is_found(
    paper: int, ink: int, sigma: float, channels: int, model: Model
) -> None:
    page = _page(paper, ink)
    noise = np.random.default_rng(3).normal(0, sigma, (*page.shape[:2], channels))
    noisy = np.clip(np.rint(page + noise), 0, 255).astype(np.uint8)
    assert sigma > 8 or trusted(noisy.astype(np.float32) / 255).mean() > 0.3
    done = denoise_picture(noisy, model=model)
    assert done.sigma == pytest.approx(sigma, rel=0.12)
    assert _psnr(page, done.rgb) > _psnr(page, noisy) + 1.2
    assert (denoise_picture(page, model=model).rgb == page).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [3, 20, 60])
def test_paper_tells_the_level_of_noise_that_is_cut_off(sigma: float, channels: int) -> None:
    page = np.full((160, 160, 3), 250, np.uint8)
    page[40:60], page[100:104] = 30, 0
    noise = np.random.default_rng(7).normal(0, sigma, (160, 160, channels))
    values = np.clip(np.rint(page + noise), 0, 255).astype(np.float32) / 255
    told = clipped.on_paper(values)
    if sigma == 3:  # next to nothing is cut off
        assert told is None
        return
    assert told is not None and 255 * told == pytest.approx(sigma, rel=0.08)
    assert clipped.on_paper(1 - values) == pytest.approx(told)
    assert clipped.on_paper((page + noise).astype(np.float32) / 255) is None  # nothing is cut off
    alpha = np.full((160, 160), 255, np.uint8)
    alpha[:128] = 0
    assert clipped.on_paper(values, alpha) is not None
    alpha[:, 24:] = 0
    assert clipped.on_paper(values, alpha) is None  # too little is left of it


def _dithered(tone: int) -> np.ndarray:
    return np.asarray(Image.new("L", (160, 160), tone).convert("1").convert("RGB"))


@pytest.mark.parametrize(
    "drawn",
    [
        _page(255, 0),
        np.asarray(Image.fromarray(_page(255, 0)).resize((200, 150), Image.Resampling.LANCZOS)),
        _dithered(128),
        np.where(np.random.default_rng(1).random((160, 160, 1)) < 0.4, 0, 255).repeat(3, 2).astype(np.uint8),
        np.asarray(Image.fromarray(_page(255, 0)).filter(ImageFilter.GaussianBlur(1.5))),
    ],
    ids=["text", "small text", "dithered", "grains", "blurred"],
)
def test_what_is_drawn_on_paper_is_no_noise(drawn: np.ndarray) -> None:
    assert clipped.on_paper(drawn.astype(np.float32) / 255) is None


def test_noise_that_a_filter_has_gone_over_is_not_read_from_paper() -> None:
    page = np.full((160, 160, 3), 255.0)
    noise = np.random.default_rng(7).normal(0, 20, (161, 161, 3))
    smooth = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 2
    values = np.clip(np.rint(page + smooth), 0, 255).astype(np.float32) / 255
    assert clipped.on_paper(values) is None


@pytest.mark.slow
@pytest.mark.parametrize("tone", [20, 60, 128, 200, 235])
@pytest.mark.parametrize("true", [0, 6])
def test_a_level_that_is_too_high_makes_nothing_brighter_or_darker(tone: int, true: float, model: Model) -> None:
    flat = np.full((96, 96, 3), tone, np.uint8)
    clean = denoise_picture(_noisy(flat, true) if true else flat, 25, model=model).rgb
    assert abs(clean.mean() - tone) < 3


def test_what_noise_has_lost_is_given_back_and_no_more() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], 256, 0).repeat(3, 2)
    values = np.clip(truth + random.normal(0, 0.1, truth.shape), 0, 1).astype(np.float32)
    levels = np.full((32, 32), 0.1, np.float32)
    assert np.abs(clipped.with_brightness_of(values, truth, levels) - truth).max() < 0.002
    brighter = clipped.with_brightness_of(values, truth + np.float32(0.05), levels)
    assert np.abs(brighter - truth)[:, 64:192].max() < 0.02
    unclipped = clipped.with_brightness_of(truth, truth + np.float32(0.05), levels)
    assert np.abs(unclipped - truth)[:, 16:240].max() < 0.02
