"""Training starts from a bundle: its weights come back, and give the same integers and pictures."""

import re
from pathlib import Path

import numpy as np
import pytest
from paths import MODELS

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from eocodec_export.bundle import check_parity  # noqa: E402

from eocodec.errors import EocodecError, ModelError  # noqa: E402
from eocodec.flow.configuration import load_config  # noqa: E402
from eocodec.flow.model import PhotoConfig, PhotoModel  # noqa: E402
from eocodec.flow.restored import photo_weights  # noqa: E402
from eocodec.flow.training import load_start  # noqa: E402
from eocodec.model.bundle import read_bundle  # noqa: E402
from eocodec.model.library import load_model, shipped_models  # noqa: E402


@pytest.mark.slow
def test_the_shipped_bundle_comes_back_exactly(coffee: np.ndarray) -> None:
    """Float graphs within rounding of floats, integer graphs to the last bit, on random and real inputs."""
    path = shipped_models()["photo"]
    config, weights = photo_weights(read_bundle(path))
    sizes = load_config(MODELS / "photo-progressive.toml").model
    assert isinstance(sizes, PhotoConfig)
    assert config == sizes
    model = PhotoModel(config).eval().requires_grad_(False)
    assert model.start_from(config, weights)
    assert set(model.state_dict()) - set(weights) == {"latents.low_scale"}  # only training needs it
    worst = check_parity(model, load_model(path), [coffee[:128, :192]])  # raises where integers differ
    assert worst["encoder"] < 1e-4 and worst["decoder"] < 1e-4


def test_a_larger_model_starts_with_the_flow_of_a_bundle() -> None:
    loaded = load_start(shipped_models()["photo"])
    model = PhotoModel(PhotoConfig(rotated=True, tuned=True, context_depth=2, refine_blocks=1, refine_coarse=16))
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.start_from(loaded.config, loaded.average)
    for name, value in model.state_dict().items():
        if re.match(r"flow|latents\.(gain|low)", name) and name in loaded.average:
            assert torch.equal(value, loaded.average[name])
        else:
            assert torch.equal(value, fresh[name])
    assert not PhotoModel(PhotoConfig(width=16)).start_from(loaded.config, loaded.average)


def test_what_is_no_photo_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="photo model that training can start from"):
        load_start(shipped_models()["face64"])
    (tmp_path / "not.eocm").write_bytes(b"PK nothing")
    with pytest.raises(EocodecError):
        load_start(tmp_path / "not.eocm")
