"""Quality figures against known values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from eocodec.errors import EocodecError
from eocodec.metrics import bd_rate, ms_ssim, psnr, with_hidden_of


def test_psnr() -> None:
    a = np.zeros((10, 10, 3), np.uint8)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ValueError, match="shapes"):
        psnr(a, a[1:])


def test_what_is_hidden_counts_in_no_psnr() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 40, 30, 3), np.uint8)
    alpha = np.full((40, 30), 9, np.uint8)
    assert psnr(a, b, alpha) == psnr(a, b)
    alpha[:, 11:] = 0
    assert psnr(a, b, alpha) == pytest.approx(psnr(a[:, :11], b[:, :11]), abs=1e-9)
    assert psnr(a, with_hidden_of(a, b, alpha), alpha) == psnr(a, b, alpha)
    assert psnr(a.astype(np.uint16) * 257, b.astype(np.uint16) * 257, alpha) == pytest.approx(psnr(a, b, alpha))
    assert psnr(a, b, np.zeros_like(alpha)) == math.inf and with_hidden_of(a, b, None) is b
    with pytest.raises(ValueError, match="shapes"):
        psnr(a, b, alpha[1:])


def test_bd_rate_of_a_scaled_curve_is_its_scale() -> None:
    anchor = [(0.1 * 2**k, 25 + 3 * k) for k in range(6)]
    assert bd_rate(anchor, anchor, 0.15, 1.5) == pytest.approx(0, abs=1e-9)
    assert bd_rate(anchor, [(0.8 * r, q) for r, q in anchor], 0.15, 1.5) == pytest.approx(-20, abs=0.01)
    with pytest.raises(ValueError, match="overlap"):
        bd_rate(anchor, [(r, q + 40) for r, q in anchor], 0.15, 1.5)


def test_bd_rate_of_straight_curves_is_the_integral_by_hand() -> None:
    """ln rate = a + b·dB for both: the mean difference over the common range of qualities has a closed form."""
    (a, b), (c, d) = (-5.0, 0.13), (-5.3, 0.14)
    anchor = [(math.exp(a + b * q), q) for q in (26.0, 29.0, 33.0, 36.0, 40.0)]
    test = [(math.exp(c + d * q), q) for q in (27.0, 30.0, 34.0, 39.0)]
    low, high = 27.0, 39.0
    mean = (c - a) + (d - b) * (low + high) / 2
    assert bd_rate(anchor, test, 1e-9, 1e9) == pytest.approx(100 * (math.exp(mean) - 1), abs=1e-3)


def test_bd_rate_is_near_that_of_bjontegaards_polynomials() -> None:
    """VCEG-M33 fits third-degree polynomials of log rate over dB; on smooth curves of four points both must agree."""
    anchor = [(0.126, 27.3), (0.334, 30.7), (0.93, 35.7), (1.91, 39.9)]
    test = [(0.142, 28.3), (0.352, 31.4), (0.89, 36.0), (1.78, 40.1)]
    fits = [np.poly1d(np.polyfit([q for _, q in c], np.log([r for r, _ in c]), 3)).integ() for c in (anchor, test)]
    low, high = max(anchor[0][1], test[0][1]), min(anchor[-1][1], test[-1][1])
    areas = [fit(high) - fit(low) for fit in fits]
    want = 100 * (math.exp((areas[1] - areas[0]) / (high - low)) - 1)
    assert want < -5
    assert bd_rate(anchor, test, 1e-9, 1e9) == pytest.approx(want, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["noise", "weak noise", "smooth", "dark"])
def test_psnr_and_ms_ssim_are_those_of_torchmetrics(change: str, coffee: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.functional.image")
    coffee = coffee[100:292, 150:374]
    noise = np.random.default_rng(0).normal(0, 1, coffee.shape)
    smooth = np.asarray(Image.fromarray(coffee).filter(ImageFilter.GaussianBlur(2)))
    changed = {"noise": coffee + 20 * noise, "weak noise": coffee + 5 * noise, "smooth": smooth, "dark": coffee * 0.8}
    other = np.clip(np.round(changed[change]), 0, 255).astype(np.uint8)
    pair = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].double() for p in (other, coffee)]
    assert psnr(coffee, other) == pytest.approx(float(image.peak_signal_noise_ratio(*pair, data_range=255.0)), abs=1e-4)
    want = float(image.multiscale_structural_similarity_index_measure(*pair, data_range=255.0))
    assert ms_ssim(coffee, other) == pytest.approx(want, abs=1e-3) and want < 0.999


def test_ms_ssim(coffee: np.ndarray) -> None:
    assert ms_ssim(coffee, coffee) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(0, 20, coffee.shape)
    worse = np.clip(coffee + noise, 0, 255).astype(np.uint8)
    assert 0.7 < ms_ssim(coffee, worse) < 0.99
    with pytest.raises(ValueError, match="176"):
        ms_ssim(coffee[:100], worse[:100])


def test_published_curves_are_read_and_compared(tmp_path: Path) -> None:
    benchmark = pytest.importorskip("eocodec.bench.compression")
    ours = [{"bpp": b, "psnr": 30 + 5 * np.log2(b)} for b in (0.1, 0.2, 0.5, 1.0, 2.0)]
    result = {"codecs": {"eocodec": ours}, "bd_range": [0.15, 1.5]}
    worse: dict[str, list[float]] = {"bpp": [0.25, 0.5, 1.0, 2.0]}
    worse["psnr-rgb"] = [30 + 5 * np.log2(b / 2) for b in worse["bpp"]]  # twice our rate
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"name": "Other", "results": worse}))
    curves = benchmark.published([file], result)
    assert curves["Other"]["bd_rate"] == pytest.approx(-50, abs=0.5)
    file.write_text('{"results": {"bpp": [1]}}')
    with pytest.raises(EocodecError, match="no published curve"):
        benchmark.published([file], result)
