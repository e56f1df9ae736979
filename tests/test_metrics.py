"""Quality figures against known values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from eocodec.errors import EocodecError
from eocodec.metrics import bd_rate, ms_ssim, psnr


def test_psnr() -> None:
    a = np.zeros((10, 10, 3), np.uint8)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ValueError, match="shapes"):
        psnr(a, a[1:])


def test_bd_rate_of_a_scaled_curve_is_its_scale() -> None:
    anchor = [(0.1 * 2**k, 25 + 3 * k) for k in range(6)]
    assert bd_rate(anchor, anchor, 0.15, 1.5) == pytest.approx(0, abs=1e-9)
    assert bd_rate(anchor, [(0.8 * r, q) for r, q in anchor], 0.15, 1.5) == pytest.approx(-20, abs=0.01)
    with pytest.raises(ValueError, match="overlap"):
        bd_rate(anchor, [(r, q + 40) for r, q in anchor], 0.15, 1.5)


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
