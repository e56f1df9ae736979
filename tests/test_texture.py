"""Texture drawn where nothing is coded."""

from pathlib import Path

import numpy as np
import pytest
from paths import Runner
from PIL import Image
from scipy import stats  # type: ignore[import-untyped]

import eocodec
from eocodec.coding.scales import scales
from eocodec.coding.texture import DEAD_ZONE, Texture
from eocodec.coding.units import units
from eocodec.errors import EocodecError
from eocodec.metrics import psnr


def test_draws_have_the_model_s_density_within_the_dead_zone() -> None:
    unit = units(4)[-6]  # luma of the finest level
    for index in (5, 20, 40):
        drawn = Texture(1.0).residuals(unit, slice(0, 200), np.full((unit.places, 200, 100), index, np.uint8))
        scale = scales()[index]
        inside = 1 - np.exp(-DEAD_ZONE / scale)

        def distribution(x: np.ndarray, scale: float = scale, inside: float = inside) -> np.ndarray:
            return 0.5 + 0.5 * np.sign(x) * (1 - np.exp(-np.abs(x) / scale)) / inside

        assert np.abs(drawn).max() <= DEAD_ZONE
        assert stats.kstest(drawn.ravel()[::7], distribution).statistic < 0.02
        for axis in (1, 2):  # neighbours know nothing of one another
            n = drawn.shape[axis]
            pair = [np.take(drawn, range(k, n - 1 + k), axis).ravel() for k in (0, 1)]
            assert abs(np.corrcoef(*pair)[0, 1]) < 0.02


def test_draws_depend_on_the_place_alone() -> None:
    unit = units(4)[2]
    index = np.full((unit.places, 12, 9), 30, np.uint8)
    whole = Texture(0.5).residuals(unit, slice(0, 12), index)
    assert (Texture(0.5).residuals(unit, slice(4, 12), index[:, 4:]) == whole[:, 4:]).all()
    assert (whole * 2 == Texture(1.0).residuals(unit, slice(0, 12), index)).all()


@pytest.mark.slow
def test_smooth_areas_become_as_rough_as_they_were(chelsea: np.ndarray) -> None:
    """At a low rate the picture lacks fine contrast; with texture it has more of it again."""
    data = eocodec.compress(chelsea, bpp=0.2)
    plain, rough = eocodec.decompress(data), eocodec.decompress(data, texture=1.0)

    def contrast(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())

    assert contrast(plain) < contrast(rough) <= 1.3 * contrast(chelsea)
    assert psnr(chelsea, plain) - 3 < psnr(chelsea, rough) < psnr(chelsea, plain)
    assert (eocodec.decompress(data, texture=0.0) == plain).all()


@pytest.mark.parametrize("texture", [-0.1, 1.5, "much", float("nan")])
def test_wrong_amounts_are_refused(texture: object, chelsea: np.ndarray) -> None:
    with pytest.raises(EocodecError, match="texture must be"):
        eocodec.decompress(eocodec.compress(chelsea[:32, :32]), texture=texture)  # type: ignore[arg-type]


def test_the_command_draws_texture(call: Runner, tmp_path: Path, chelsea: np.ndarray) -> None:
    data = eocodec.compress(chelsea[:96, :128], bpp=0.3)
    (tmp_path / "a.eoc").write_bytes(data)
    assert call("decompress", "--texture", 0.7, "a.eoc").returncode == 0
    assert (np.asarray(Image.open(tmp_path / "a.png")) == eocodec.decompress(data, texture=0.7)).all()
    assert call("decompress", "--texture", 2, "a.eoc", "-o", "b.png").returncode == 2
    assert b"texture" not in call("decompress", "--texture", 0.7, "a.eoc", "-f").stderr
    for options in ({"progressive": True}, {"lossless": True}):
        (tmp_path / "c.eoc").write_bytes(eocodec.compress(chelsea[:48, :64], **options))
        done = call("decompress", "--texture", 0.7, "c.eoc", "-f")
        assert done.returncode == 0 and b"texture is drawn in ordinary files only" in done.stderr
