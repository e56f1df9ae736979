"""Denoising: clearly better than the noisy picture, close to untouched where there is no noise."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image

import eocodec
from eocodec.denoising import clipped, denoise_picture, estimate_sigma, net, shrinkage
from eocodec.errors import EocodecError
from eocodec.metrics import psnr
from eocodec.model import transform
from eocodec.model.bundle import Model

pytestmark = pytest.mark.slow

METHODS = ("auto", "shrink", "drop")


@pytest.fixture(scope="module")
def crop(coffee: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(coffee[60:188, 160:352])


def _noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    return (picture + np.random.default_rng(0).normal(0, sigma, picture.shape)) / 255


def _quality(picture: np.ndarray, clean: np.ndarray) -> float:
    return psnr(picture, clean * 255)


@pytest.mark.parametrize(("sigma", "gain"), [(10, 3.5), (25, 7.5), (50, 10.5)])
def test_noise_is_removed(sigma: float, gain: float, crop: np.ndarray) -> None:
    noisy = _noisy(crop, sigma)
    clean = eocodec.denoise(noisy, sigma, method="shrink")
    assert clean.dtype == np.float32 and clean.shape == crop.shape
    assert _quality(crop, clean) > _quality(crop, noisy) + gain


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_deciding_about_each_latent_beats_wavelet_thresholds_and_any_c(sigma: float, crop: np.ndarray) -> None:
    restoration = pytest.importorskip("skimage.restoration")
    noisy = _noisy(crop, sigma)
    wavelets = restoration.denoise_wavelet(
        noisy, method="BayesShrink", mode="soft", convert2ycbcr=True, rescale_sigma=True, channel_axis=-1
    )
    core = max(_quality(crop, eocodec.denoise(noisy, rate=c, shifts=4)) for c in (24, 48, 96))
    got = _quality(crop, eocodec.denoise(noisy, sigma, method="drop", shifts=4))
    assert got > _quality(crop, wavelets) + 0.5 and got > core + 0.5


def test_the_threshold_has_the_least_risk() -> None:
    random = np.random.default_rng(1)
    for row, b in ((40, 0.25), (44, 0.5), (48, 1.0)):
        x = random.laplace(0, b, 400_000)
        y = x + random.normal(0, 1, x.shape)
        best = shrinkage._thresholds()[row]
        risks = [np.mean((np.where(np.abs(y) > t, y, 0) - x) ** 2) for t in (best, best / 1.5, best * 1.5)]
        assert risks[0] < min(risks[1:]) + 1e-4, b


def test_what_was_removed_from_coarse_parts_is_given_back(crop: np.ndarray) -> None:
    clean = crop.astype(np.float32) / 255
    assert np.allclose(shrinkage.restore_coarse(clean + np.float32(0.1), clean), clean + 0.1, atol=1e-6)
    noisy = _noisy(crop, 25).astype(np.float32)
    assert np.std(shrinkage.restore_coarse(noisy, clean) - clean) < 0.1 * np.std(noisy - clean)


def test_the_level_is_estimated(samples: dict[str, np.ndarray], model: Model) -> None:
    for picture in (p[60:252, 80:336] for p in samples.values()):
        for sigma in (10.0, 25.0, 50.0):
            assert estimate_sigma(_noisy(picture, sigma), model) == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5])
def test_what_is_left_of_noise_that_was_cut_off_tells_its_level(sigma: float) -> None:
    places = np.repeat(np.random.default_rng(1).uniform(0, 1, 400), 256).reshape(400, 256)
    values = np.clip(places + np.random.default_rng(2).normal(0, sigma, places.shape), 0, 1)
    left = np.sqrt(values.var(1).mean())
    assert left < 0.99 * sigma and clipped.is_clipped(values)
    assert clipped.before_clipping(left, values.mean(1)) == pytest.approx(sigma, rel=0.02)
    assert not clipped.is_clipped(values + 0.01)


@pytest.mark.parametrize("sigma", [50, 75, 100])
def test_the_level_of_strong_noise_is_not_what_eight_bits_have_left_of_it(
    sigma: float, chelsea: np.ndarray, model: Model
) -> None:
    noisy = np.clip(np.rint(255 * _noisy(chelsea[:192, :192], sigma)), 0, 255).astype(np.uint8)
    assert estimate_sigma(noisy, model) == pytest.approx(sigma, rel=0.09)


@pytest.mark.parametrize("sigma", [5, 10])
def test_the_level_of_noise_at_night_is_not_what_zero_has_left_of_it(
    sigma: float, samples: dict[str, np.ndarray], model: Model
) -> None:
    dark = (samples["rocket"][60:240, 200:440] / 255.0) ** 2 * 30
    noisy = np.clip(np.rint(255 * _noisy(dark, sigma)), 0, 255).astype(np.uint8)
    assert (noisy == 0).mean() > 0.3
    assert estimate_sigma(noisy, model) == pytest.approx(sigma, rel=0.25)
    found = eocodec.denoise(noisy, "auto", model=model)
    assert psnr(dark, found) > psnr(dark, eocodec.denoise(noisy, 0.65 * sigma, model=model)) + 2


def test_the_level_of_a_grey_picture_is_that_of_its_values(coffee: np.ndarray, model: Model) -> None:
    grey = coffee.mean(2)
    noisy = _noisy(grey, 20)
    levels = np.clip(np.round(noisy * 255), 0, 255).astype(np.uint8)
    for picture in (noisy, Image.fromarray(levels), np.repeat(levels[:, :, None], 3, 2)):
        assert estimate_sigma(picture, model) == pytest.approx(20, rel=0.1)
    face = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("L"))
    assert estimate_sigma(_noisy(face, 20), "face64") == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("sigma", [3, 5, 8, 50])
def test_weak_and_strong_noise_of_grey_pictures_is_read_as_it_is(sigma: int, chelsea: np.ndarray, model: Model) -> None:
    noisy = _noisy(chelsea.mean(2), sigma)  # of a σ of 3 the net, which knows coloured pictures, reads 1.5
    assert estimate_sigma(noisy, model) == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("method", METHODS)
def test_grey_pictures_lose_as_much_noise_as_the_luma_of_coloured_ones(method: str, crop: np.ndarray) -> None:
    grey = np.repeat(crop.mean(2, keepdims=True), 3, 2)
    clean = eocodec.denoise(_noisy(grey[:, :, 0], 20), 20, method=method, shifts=2)
    assert (clean[..., 0] == clean[..., 2]).all()
    level = 20 * 3**0.5  # in each channel; the luma then has the same noise as the grey picture
    coloured = eocodec.denoise(_noisy(crop, level), level, method=method, shifts=2).mean(2, keepdims=True)
    assert _quality(grey, clean) > _quality(grey, np.repeat(coloured, 3, 2)) - 0.5


def test_eight_bit_in_eight_bit_out(chelsea: np.ndarray) -> None:
    picture = chelsea[60:252, 80:336]
    noisy = np.clip(np.round(_noisy(picture, 25) * 255), 0, 255).astype(np.uint8)
    clean = eocodec.denoise(noisy)
    assert clean.dtype == np.uint8 and psnr(picture, clean) > psnr(picture, noisy) + 7


@pytest.mark.parametrize("method", METHODS)
def test_a_clean_picture_is_left_alone(method: str, chelsea: np.ndarray) -> None:
    picture = chelsea[60:252, 80:336]
    assert (eocodec.denoise(picture, 0, method=method) == picture).all()
    assert (eocodec.denoise(picture, 30, method=method, strength=0) == picture).all()
    assert psnr(picture, eocodec.denoise(picture, method=method, shifts=2)) > 42


def test_strength_multiplies_the_level(crop: np.ndarray, model: Model) -> None:
    noisy = _noisy(crop, 20)
    twice = denoise_picture(noisy, 10, strength=2, shifts=1, model=model)
    assert twice.sigma == 10
    assert (twice.values == eocodec.denoise(noisy, 20, shifts=1)).all()
    assert _quality(crop, twice.values) > _quality(crop, eocodec.denoise(noisy, 10, shifts=1))


def test_dropping_latents_removes_noise_too(crop: np.ndarray, model: Model) -> None:
    noisy = _noisy(crop, 25)
    done = denoise_picture(noisy, rate=40, model=model)
    assert (done.method, done.sigma) == ("drop", None)
    assert _quality(crop, done.values) > _quality(crop, noisy) + 4


def test_more_shifts_help(crop: np.ndarray) -> None:
    noisy = _noisy(crop, 25)
    one, four, eight = (_quality(crop, eocodec.denoise(noisy, 25, method="shrink", shifts=n)) for n in (1, 4, 8))
    assert one + 0.3 < four < eight


def test_auto_takes_the_net_where_the_model_has_one(
    monkeypatch: pytest.MonkeyPatch, crop: np.ndarray, model: Model
) -> None:
    without = Model({name: content for name, content in model.files.items() if not name.startswith("denoise/")})
    assert denoise_picture(crop, 9, shifts=1, model=without).method == "shrink"
    with pytest.raises(EocodecError, match="no denoising net"):
        eocodec.denoise(crop, 9, method="net", model=without)
    told = []
    monkeypatch.setattr(net, "apply", lambda model, values, *rest: told.extend(rest) or values * 0)
    monkeypatch.setattr(clipped, "with_brightness_of", lambda values, clean, levels: clean)
    done = denoise_picture(crop, 25.5, strength=2, shifts=3, model=model)
    nearest = np.clip(crop / 255 - 4 * 0.2, 0, 1)  # nothing is moved farther than noise could have moved it
    assert done.method == "net" and np.allclose(done.values, nearest, atol=1e-6)
    assert told[0].sigma == pytest.approx(0.2) and told[1] == 3
    assert denoise_picture(crop, 9, method="shrink", shifts=1, model=model).values.any()
    assert denoise_picture(crop[:64, :64], 9, model="face64").method == "drop"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (17, 3), (2, 1100)])
def test_any_size_level_and_range(method: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    for picture in (random.normal(0.5, 1, size), random.normal(0.5, 1, (*size, 3))):
        for sigma, strength in ((20, 1), (255, 4)):
            shifts = 1 if max(size) > 1000 else 2
            got = eocodec.denoise(picture, sigma, method=method, strength=strength, shifts=shifts)
            assert got.shape == (*size, 3) and got.dtype == np.float32
            assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1
    assert 0 <= estimate_sigma(picture) < 1000


def test_tiles_show_no_seam(monkeypatch: pytest.MonkeyPatch, coffee: np.ndarray, model: Model) -> None:
    noisy = _noisy(coffee[60:260, 90:370], 25).astype(np.float32)
    for estimator in (shrinkage.shrink, shrinkage.drop):
        whole = estimator(model, noisy, 25 / 255)
        with monkeypatch.context() as patch:
            patch.setattr(transform, "WHOLE", 1)
            patch.setattr(transform, "TILE", 128)
            tiled = estimator(model, noisy, 25 / 255)
        assert np.mean(np.abs(tiled - whole) > 2e-3) < 1e-3  # a hard decision on the edge may turn out otherwise


@pytest.mark.parametrize(
    "arguments",
    [
        {"sigma": -1},
        {"sigma": "loud"},
        {"sigma": float("nan")},
        {"sigma": 256},
        {"shifts": 0},
        {"shifts": 9},
        {"rate": 0},
        {"rate": 769},
        {"strength": -0.1},
        {"strength": 4.1},
        {"strength": float("nan")},
        {"strength": None},
        {"method": "magic"},
        {"method": "shrink", "rate": 40},
        {"sigma": 20, "rate": 40},
        {"strength": 2, "rate": 40},
        {"method": "shrink", "model": "face64"},
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], chelsea: np.ndarray) -> None:
    with pytest.raises(EocodecError):
        eocodec.denoise(chelsea[:64, :64], **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 255.0])
def test_values_that_are_no_picture_are_refused(value: float, crop: np.ndarray) -> None:
    picture = crop / 255
    picture[5, 7, 1] = value
    with pytest.raises(EocodecError):
        eocodec.denoise(picture, 20)


def test_the_command_tells_method_and_level(call: Runner, tmp_path: Path, crop: np.ndarray) -> None:
    alpha = np.arange(crop.shape[0] * crop.shape[1]).reshape(crop.shape[:2]).astype(np.uint8)
    noisy = np.clip(np.round(_noisy(crop, 25) * 255), 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([noisy, alpha])).save(tmp_path / "noisy.png")
    done = call("denoise", "noisy.png", "--method", "drop", "--strength", "0.9", "--shifts", "2", "--json")
    told = json.loads(done.stdout)
    assert told["method"] == "drop" and told["sigma"] == pytest.approx(25, rel=0.25)
    clean = np.asarray(Image.open(tmp_path / "noisy.denoised.png"))
    assert (clean[:, :, 3] == alpha).all() and psnr(crop, clean[:, :, :3]) > psnr(crop, noisy) + 5
    core = call("denoise", "noisy.png", "--rate", "40", "--shifts", "1", "-o", "-", "--json")
    assert Image.open(io.BytesIO(core.stdout)).size == (192, 128)


def test_the_command_says_when_it_finds_no_noise(call: Runner, tmp_path: Path, chelsea: np.ndarray) -> None:
    crop = chelsea[:192, :256]
    Image.fromarray(crop).save(tmp_path / "clean.png")
    done = call("denoise", "clean.png", "--json")
    assert len(json.loads(done.stdout)["warnings"]) == 1 and b"no noise was found" in done.stderr
    assert (np.asarray(Image.open(tmp_path / "clean.denoised.png")) == crop).all()
    told = call("denoise", "clean.png", "--sigma", "0", "-o", "told.png", "--json")
    assert json.loads(told.stdout)["warnings"] == []


def test_the_command_says_what_the_strength_made_of_it(call: Runner, tmp_path: Path, chelsea: np.ndarray) -> None:
    """A level below the least that is removed is beyond it four times as strong."""
    crop = chelsea[:192, 80:336]
    assert 0.3 / 4 < eocodec.estimate_sigma(crop) < 0.3
    Image.fromarray(crop).save(tmp_path / "clean.png")
    done = call("denoise", "clean.png", "--strength", "4", "--json")
    assert json.loads(done.stdout)["warnings"] == []
    assert (np.asarray(Image.open(tmp_path / "clean.denoised.png")) != crop).any()


def test_the_command_says_between_which_levels_noise_is(call: Runner, tmp_path: Path, coffee: np.ndarray) -> None:
    picture, noise = coffee[:192, :256], np.random.default_rng(1).normal(0, 20, (192, 256, 3))
    noise[:, :128] /= 10
    Image.fromarray(np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)).save(tmp_path / "half.png")
    least, most = json.loads(call("denoise", "half.png", "--json").stdout)["sigma_range"]
    assert least < 6 and 15 < most < 25
    assert f"({least:.1f} to {most:.1f})".encode() in call("denoise", "half.png", "--force").stdout
    Image.fromarray(picture).save(tmp_path / "even.png")
    assert json.loads(call("denoise", "even.png", "--json").stdout)["sigma_range"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rate", "40", "--method", "shrink"),
        ("--rate", "40", "--sigma", "20"),
        ("--strength", "5"),
        ("--sigma", "much"),
        ("--method", "magic"),
    ],
)
def test_conflicting_options_are_usage_errors(call: Runner, arguments: tuple[str, ...]) -> None:
    done = call("denoise", "missing.png", *arguments)
    assert done.returncode == 2 and done.stderr.decode().strip().count("Error:") == 1
