"""Training starts from a bundle: its weights come back, and give the same integers and pictures."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import MODELS

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from eocodec_export.bundle import check_parity  # noqa: E402

from eocodec.errors import EocodecError, ModelError  # noqa: E402
from eocodec.flow.configuration import load_config  # noqa: E402
from eocodec.flow.context import Steps  # noqa: E402
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
    assert model.start_from(config, weights) == []
    assert set(model.state_dict()) == set(weights)
    worst = check_parity(model, load_model(path), [coffee[:128, :192]])  # raises where integers differ
    assert worst["encoder"] < 1e-4 and worst["decoder"] < 1e-4


def test_a_larger_model_starts_with_the_flow_of_a_bundle() -> None:
    loaded = load_start(shipped_models()["photo"])
    model = PhotoModel(PhotoConfig(rotated=True, tuned=True, context_depth=2, refine_blocks=1, refine_coarse=16))
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.start_from(loaded.config, loaded.average) is not None
    for name, value in model.state_dict().items():
        if re.match(r"flow|latents\.(gain|low)", name) and name in loaded.average:
            assert torch.equal(value, loaded.average[name])
        else:
            assert torch.equal(value, fresh[name])
    assert PhotoModel(PhotoConfig(width=16)).start_from(loaded.config, loaded.average) is None


@pytest.mark.parametrize("quantised", [False, True])
def test_larger_nets_begin_as_smaller_ones(quantised: bool) -> None:
    """Entropy nets and the denoising net, with channels at random wherever they have no influence."""
    torch.manual_seed(4)
    sizes = PhotoConfig(
        levels=2, width=4, steps=1, features=6, context_width=8, context_depth=2, rotated=True, tuned=True,
        refine_width=4, refine_blocks=1, refine_coarse=4, gain_widths=(8, 12), gain_blocks=1, noise_width=4,
    )  # fmt: skip
    smaller = PhotoModel(sizes).eval().requires_grad_(False)
    for p in (*smaller.latents.context.parameters(), *smaller.gains.parameters()):
        p.uniform_(-0.3, 0.3)
    more = replace(sizes, features=9, context_width=12, context_coarse=1.5, gain_widths=(10, 15))
    larger = PhotoModel(more).eval().requires_grad_(False)
    assert larger.start_from(sizes, smaller.state_dict()) == []
    x, steps = torch.rand(2, 3, 32, 48), Steps(torch.tensor([0.1, 0.03]), torch.tensor([0.0, 1.0]))
    noise = torch.full((2, 1, 16, 24), 0.1)
    coded = [m.rate_distortion(x, steps, 0.1, quantised) for m in (smaller, larger)]
    assert torch.allclose(coded[0][1], coded[1][1], rtol=1e-5)
    assert torch.allclose(coded[0][0], coded[1][0], atol=1e-5)
    assert torch.allclose(smaller.clean(x, noise), larger.clean(x, noise), atol=1e-5)
    assert smaller.start_from(more, larger.state_dict()) == ["gains", "latents"]  # which are too large for it


def test_what_is_no_photo_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="photo model that training can start from"):
        load_start(shipped_models()["face64"])
    (tmp_path / "not.eocm").write_bytes(b"PK nothing")
    with pytest.raises(EocodecError):
        load_start(tmp_path / "not.eocm")
