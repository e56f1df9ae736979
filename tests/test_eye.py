"""SSIMULACRA2 in torch against the package, and as a loss."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
ssimulacra2 = pytest.importorskip("ssimulacra2")

from eocodec.flow.eye import eye_error, score  # noqa: E402


def tensor(image: Image.Image) -> "torch.Tensor":
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("size", [(256, 320), (301, 263)])
def test_scores_are_those_of_the_package(size: tuple[int, int], coffee: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(coffee).crop((90, 20, 90 + size[0], 20 + size[1]))
    image.save(tmp_path / "a.png")
    for quality in (15, 40, 90):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        other = Image.open(buffer).convert("RGB")
        other.save(tmp_path / "b.png")
        expected = ssimulacra2.compute_ssimulacra2(tmp_path / "a.png", tmp_path / "b.png")
        assert score(tensor(image), tensor(other)).item() == pytest.approx(expected, abs=0.05)


def test_the_error_is_zero_for_equal_pictures_and_its_gradient_finite(coffee: np.ndarray) -> None:
    x = tensor(Image.fromarray(coffee[:64, :64]))
    y = x.clone().requires_grad_()
    error = eye_error(x, y)
    error.backward()
    assert error.item() == pytest.approx(0, abs=0.02) and torch.isfinite(y.grad).all()
    noisy = (x + 0.05 * torch.randn_like(x)).requires_grad_()
    before = eye_error(x, noisy)
    before.backward()
    assert eye_error(x, noisy - 0.01 * noisy.grad / noisy.grad.abs().max()).item() < before.item()
