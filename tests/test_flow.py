"""The flow and its objective against mathematics."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from eocodec.coding.units import passes  # noqa: E402
from eocodec.flow import wavelet  # noqa: E402
from eocodec.flow.context import (  # noqa: E402
    EYE_OFFSETS,
    ContextModel,
    LatentModel,
    Steps,
    compand,
    dead_zone,
    laplace_bits,
    quads,
    unquads,
)
from eocodec.flow.loss import RATE_BINS, BatchLoss  # noqa: E402
from eocodec.flow.model import PhotoConfig, PhotoModel  # noqa: E402
from eocodec.flow.objective import log_column_norms, total_correlation  # noqa: E402
from eocodec.flow.photo import COLOUR, PhotoFlow  # noqa: E402
from eocodec.flow.trainable import Stage  # noqa: E402

SMALL = PhotoConfig(levels=2, width=8, steps=1, features=8, context_width=8, refine_width=8, refine_depth=3)


def random_flow(levels: int = 2, scale: float = 0.05) -> PhotoFlow:
    torch.manual_seed(0)
    flow = PhotoFlow(levels, 8, 2).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(torch.randn_like(p) * scale)
    return flow


def test_the_base_wavelet_reconstructs_and_is_nearly_orthonormal() -> None:
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    low, details = wavelet.analyse(x)
    assert torch.allclose(wavelet.synthesise(low, details), x, atol=1e-12)
    energy = low.square().sum() + details.square().sum()
    assert energy / x.square().sum() == pytest.approx(1, abs=0.08)


def test_colour_rotation_is_orthonormal() -> None:
    c = torch.tensor(COLOUR, dtype=torch.float64)
    assert torch.allclose(c @ c.T, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_the_flow_is_exactly_invertible() -> None:
    flow = random_flow(4)
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert torch.allclose(flow.inverse(flow(x)), x, atol=1e-6)  # the colour rotation is kept in float32
    single = flow.float()
    x = x.float()
    assert (single.inverse(single(x)) - x).abs().max() < 1e-4


def test_the_flow_is_as_exact_under_autocast() -> None:
    """In bfloat16 its rounding would be larger than a fine step's, and hide from training what it gains there."""
    flow = random_flow().float()
    x = torch.rand(2, 3, 32, 32)
    expected = flow(x)
    with torch.autocast("cpu", torch.bfloat16):
        h = flow(x)
        back = flow.inverse([band.bfloat16() for band in h])
    assert all(band.dtype == torch.float32 and torch.equal(band, e) for band, e in zip(h, expected, strict=True))
    assert torch.equal(back, flow.inverse([band.bfloat16().float() for band in h]))


def test_the_flow_preserves_volume() -> None:
    flow = random_flow(2, 0.2)
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: torch.cat([b.flatten() for b in flow(v)]), x)
    _, log_det = torch.linalg.slogdet(jacobian.reshape(192, 192))
    assert abs(log_det.item()) < 1e-4


@pytest.mark.slow
def test_column_norms_match_the_full_jacobian() -> None:
    flow = random_flow(2, 0.1)
    h = [b.detach() for b in flow(torch.rand(1, 3, 16, 16, dtype=torch.float64))]
    band, channel = 2, 4
    got = log_column_norms(flow.inverse, h, band, channel, 16)[0, 0, 0]

    def inverse(v: "torch.Tensor") -> "torch.Tensor":
        return flow.inverse([*h[:2], v])

    place = h[band].shape[-1] // 2
    column = torch.autograd.functional.jacobian(inverse, h[band], vectorize=True)[..., 0, channel, place, place]
    assert got.item() == pytest.approx(0.5 * math.log(column.square().sum().item()), abs=1e-6)


@pytest.mark.slow
def test_total_correlation_estimate_is_unbiased() -> None:
    """The mean of many single-band estimates equals the sum over all columns of the full Jacobian."""
    flow = random_flow(1, 0.3)
    h = [b.detach() for b in flow(torch.rand(1, 3, 16, 16, dtype=torch.float64))]
    sizes = [b.numel() for b in h]

    def inverse(v: "torch.Tensor") -> "torch.Tensor":
        parts = v.split(sizes)
        return flow.inverse([p.reshape(b.shape) for p, b in zip(parts, h, strict=True)])

    vector = torch.cat([b.flatten() for b in h])
    jacobian = torch.autograd.functional.jacobian(inverse, vector, vectorize=True).reshape(sum(sizes), -1)
    _, log_det = torch.linalg.slogdet(jacobian)
    exact = (0.5 * jacobian.square().sum(0).log().sum() - log_det).item() / sum(sizes)
    assert exact > 0
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = [total_correlation(flow.inverse, h, generator, spacing=4).item() for _ in range(160)]
    error = np.std(draws) / math.sqrt(len(draws))
    # Cells of 4 pixels cut off tails and leave out other positions: allow for that besides the standard error.
    assert error < 0.1 * exact
    assert np.mean(draws) == pytest.approx(exact, abs=4 * error + 0.15 * exact)


def test_likelihood_of_the_last_layer_is_a_density() -> None:
    """exp(−NLL) integrates to one over a latent: the Laplace density at the nets' mean and scale."""
    scale = torch.tensor([0.3, 2.0], dtype=torch.float64)
    grid = torch.linspace(-60, 60, 240001, dtype=torch.float64)
    density = torch.exp(-((2 * scale[:, None]).log() + grid.abs() / scale[:, None]))
    assert torch.allclose(torch.trapezoid(density, grid), torch.ones(2, dtype=torch.float64), atol=1e-3)
    m = torch.arange(-400, 401, dtype=torch.float64)
    for s in (0.06, 0.5, 7.0):
        total = torch.exp2(-laplace_bits(m, torch.full_like(m, s))).sum()
        assert total.item() == pytest.approx(1, abs=1e-6)


def test_rounding_is_rate_distortion_optimal() -> None:
    v = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    for s in (0.15, 0.4, 1.5):
        scale, weight = torch.full_like(v, s), 0.1
        got = dead_zone(v, scale, torch.tensor(weight))
        candidates = torch.arange(-8, 9, dtype=torch.float64)
        cost = (v[:, None] - candidates).square() + weight * laplace_bits(candidates, scale[:, None])
        best = cost.min(1).values
        chosen = (v - got).square() + weight * laplace_bits(got, scale)
        assert (chosen <= best + 0.02).all()


def test_quads_invert() -> None:
    x = torch.randn(2, 5, 6, 8)
    assert torch.equal(unquads(quads(x)), x)


def test_companding_is_monotone_and_odd() -> None:
    v = torch.linspace(-50, 50, 999)
    assert (compand(v).diff() > 0).all() and torch.allclose(compand(-v), -compand(v))


@pytest.mark.parametrize("rotated", [False, True])
def test_coding_a_picture_costs_what_its_context_allows(rotated: bool) -> None:
    """No latent's parameters depend on itself or on latents coded after it."""
    torch.manual_seed(1)
    model = LatentModel(ContextModel(2, 8, 8, coarse=1.5, depth=1 + rotated), rotated)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    h = [torch.randn(1, c, 8 * k, 8 * k) for c, k in ((3, 1), (9, 1), (9, 2))]
    steps = Steps(torch.tensor([0.5]))
    captured: list[list[torch.Tensor]] = []
    original = ContextModel.parameters_of

    def spy(self: ContextModel, *arguments: object) -> tuple["torch.Tensor", "torch.Tensor"]:
        out = original(self, *arguments)  # type: ignore[arg-type]
        captured[-1].append(torch.cat(out, 1).detach())
        return out

    ContextModel.parameters_of = spy  # type: ignore[method-assign]
    try:
        captured.append([])
        model(h, steps)
        changed = [b.clone() for b in h]
        second = quads(changed[2])  # what the second luma pass of the finest level codes
        for phase, channel in passes(rotated)[1]:
            second[:, phase, channel] += 3.0
        changed[2] = unquads(second)
        captured.append([])
        model(changed, steps)
    finally:
        ContextModel.parameters_of = original  # type: ignore[method-assign]
    same = [torch.equal(a, b) for a, b in zip(*captured, strict=True)]
    assert same[:8] == [True] * 8  # level 2 (six passes), then luma passes 0 and 1 of level 1
    assert same[8:] == [False] * 4


@pytest.mark.parametrize("rotated", [False, True])
def test_every_place_of_a_quad_is_coded_once(rotated: bool) -> None:
    places = [place for one in passes(rotated) for place in one]
    assert sorted(places) == [(phase, channel) for phase in range(4) for channel in range(9)]
    for one in passes(rotated)[:4]:  # a luma pass takes each orientation, rotated ones at phases of their own
        assert [channel for _, channel in one] == [0, 1, 2]
        assert len({phase for phase, _ in one}) == (3 if rotated else 1)


def test_latents_decode_to_their_place_in_any_order() -> None:
    """At a step so fine that rounding does not matter, what is decoded is what was coded."""
    h = [torch.randn(1, c, 4 * k, 4 * k) for c, k in ((3, 1), (9, 1), (9, 2))]
    for rotated in (False, True):
        coded = LatentModel(ContextModel(2, 8, 8), rotated)(h, Steps(torch.tensor([1e-3])))
        for band, decoded in zip(h, coded.decoded, strict=True):
            assert torch.allclose(band, decoded, atol=2e-3)


def test_steps_follow_the_tuning_and_the_place() -> None:
    offset = torch.zeros(1, 1, 1, 2)
    offset[..., 1] = 1.0
    model = LatentModel(ContextModel(2, 8, 8, planes=2), tuned=True)
    h = [torch.zeros(1, c, 2 * k, 4 * k) for c, k in ((3, 1), (9, 1), (9, 2))]
    plain, tuned = (model.steps(Steps(torch.tensor([0.5]), t, offset), h) for t in (None, torch.tensor([1.0])))
    for k, (a, b) in enumerate(zip(plain, tuned, strict=True)):
        columns = h[k].shape[3]
        assert torch.allclose(a[..., : columns // 2], torch.tensor(0.5))
        assert torch.allclose(a[..., columns // 2 :], torch.tensor(1.0))
        assert torch.allclose(b, a * 2 ** (EYE_OFFSETS[k] / 16))
    planes = Steps(torch.tensor([32 / 255]), torch.tensor([1.0]), offset).planes(1, (1, 2), True, True)
    assert planes[0, 0, 0].tolist() == [EYE_OFFSETS[1] / 32, (16 + EYE_OFFSETS[1]) / 32]
    assert planes[0, 1, 0].tolist() == [1.0, 1.0]


def test_a_model_that_can_be_tuned_trains_for_the_eye() -> None:
    torch.manual_seed(0)
    sizes = replace(SMALL, rotated=True, tuned=True, refine_blocks=1, refine_coarse=8, context_depth=2)
    model = PhotoModel(sizes)
    x = torch.rand(2, 3, 32, 64)
    trained = {"rate-distortion": {"flow", "latents", "refine"}, "entropy": {"latents"}, "refinement": {"refine"}}
    for objective, parts in trained.items():
        stage = Stage(objective, 1, tuned=1.0, varied=1.0, eye=0.5)
        loss, figures, _ = BatchLoss(model, False, False, print)(stage, x, torch.ones(RATE_BINS), 5, 0)
        model.zero_grad()
        loss.backward()
        moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert moved == parts
        assert ("eye" in figures) == (objective != "entropy")


@pytest.mark.slow
def test_model_trains_and_resumes_the_same_curve(tmp_path: "object", coffee: np.ndarray) -> None:
    from pathlib import Path

    from PIL import Image

    from eocodec.flow.training import Run, Stage, TrainingConfig

    base = Path(str(tmp_path))
    (base / "pictures").mkdir()
    for k in range(3):
        Image.fromarray(coffee[50 * k : 50 * k + 200, 100:400]).save(base / "pictures" / f"{k}.png")

    def config(name: str) -> TrainingConfig:
        stages = (
            Stage("likelihood", 4, warmup=2, noise=2.0, correlation=0.1, step=(2, 8)),
            Stage("rate-distortion", 4, warmup=2),
            Stage("rate-distortion", 4, warmup=2, quantised=True),
        )
        return TrainingConfig(
            base / name, base / "pictures", stages, SMALL, crop=64, batch=2, hold_out=3, autocast="off"
        )

    device = torch.device("cpu")
    whole = [r["loss"] for r in Run(config("whole"), device)]
    first = Run(config("parts"), device)
    parts = [first.advance()["loss"] for _ in range(6)]
    first.save()
    second = Run(config("parts"), device, resume=True)
    parts += [r["loss"] for r in second]
    assert parts == whole
    points = second.validate((16.0,))["points"]
    assert points["16"][0] > 0 and points["16"][1] > 20


def test_photo_model_has_sensible_gradients() -> None:
    torch.manual_seed(0)
    model = PhotoModel(SMALL)
    y, coded = model(torch.rand(2, 3, 32, 32), torch.tensor([0.05, 0.2]))
    (coded.bits.mean() + y.square().mean()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
