"""Training of the embedded stream's nets: it sees what files have, and larger nets begin as smaller ones."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnxruntime as ort  # noqa: E402
from eocodec_export.bundle import check_context  # noqa: E402
from eocodec_export.graphs import entropy_graphs  # noqa: E402

from eocodec.coding.embedded import LowWriter  # noqa: E402
from eocodec.coding.embedded_coder import DecisionWriter, Exhausted  # noqa: E402
from eocodec.coding.embedded_state import LOW_STEP, TOP, State  # noqa: E402
from eocodec.flow import embedded  # noqa: E402
from eocodec.flow.context import ContextModel, IntegerConv, LatentModel, start_last  # noqa: E402
from eocodec.flow.embedded import EmbeddedContext, price  # noqa: E402
from eocodec.flow.model import PhotoConfig, PhotoModel  # noqa: E402
from eocodec.flow.training import load_start  # noqa: E402
from eocodec.model import transform  # noqa: E402
from eocodec.model.library import load_model, shipped_models  # noqa: E402

LAYER = 7  # dead zone of 32 levels
ZONE = TOP / 2**LAYER / 255
SMALL = PhotoConfig(levels=2, width=8, steps=1, features=8, context_width=8, refine_width=8, refine_depth=3)


class _FirstStage(DecisionWriter):
    """Ends where the second stage of a layer begins."""

    def mark(self, depth: float) -> None:
        if depth > LAYER + 0.3:
            raise Exhausted
        super().mark(depth)


def test_the_first_stage_of_training_decides_what_that_of_files_does(
    chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = load_model("photo"), chelsea[60:188, 100:292]
    latents = transform.analyse(model, picture)
    state = State(model, 192, 128, latents)
    assert state.low_truth is not None
    state.start_low(state.walk(LOW_STEP).low_pass(LowWriter(model, state.low_truth / np.float32(LOW_STEP))))
    coder = _FirstStage(math.inf, math.inf)
    for layer in range(LAYER):
        state.find(layer, coder)
        state.refine(layer, coder)
    with pytest.raises(Exhausted):
        state.find(LAYER, coder)

    walked = []
    run = embedded.StageWalk.run

    def spy(self: embedded.StageWalk, *arguments: object) -> object:
        walked.append(run(self, *arguments))  # type: ignore[arg-type]
        return walked[-1]

    monkeypatch.setattr(embedded.StageWalk, "run", spy)
    loaded = load_start(shipped_models()["photo"])
    trained = PhotoModel(loaded.config)
    assert trained.start_from(loaded.config, loaded.average) == []
    h = [torch.from_numpy(band)[None] for band in latents]
    with torch.no_grad():
        price(trained.embedded, trained.latents, h, torch.tensor([ZONE]), True)
    likely, others = (walk[1] for walk in walked)
    for band, first, second, values, gain in zip(state.bands[1:], likely, others, h[1:], state.gain[1:], strict=True):
        differing = np.mean(first[0].numpy() != band.settled)
        assert differing < 0.005 and band.settled.mean() > 8 * differing
        open_before = (values[0].abs() < 2 * ZONE * torch.from_numpy(gain)) & ~first[0]
        assert torch.equal(second[0], open_before)


@pytest.mark.parametrize("index", [16, 8])
def test_every_latent_is_paid_for_once(index: int) -> None:
    """Whether likely (in the first stage) or not: with one density for all, a price in closed form."""
    latents, context = LatentModel(ContextModel(2, 8, 8)), EmbeddedContext(2, 8, 8)
    for level in (1, 2):
        for net in context.of_passes(level):
            start_last(net, index / 8)
    zone = torch.tensor([0.1, 0.05])
    random = torch.Generator().manual_seed(1)
    h = [torch.zeros(2, 3, 4, 4), torch.randn(2, 9, 4, 4, generator=random), torch.randn(2, 9, 8, 8, generator=random)]
    h = [h[0], *(0.06 * band for band in h[1:])]
    with torch.no_grad():
        bits = price(context, latents, h, zone, False)
    scale = 0.05 * 2 ** (index / 5) * 1.5  # in dead zones
    outside, beyond = math.exp(-1 / scale), math.exp(-2 / scale)
    possible = 1 - beyond
    for k, z in enumerate(zone.tolist()):
        size = torch.cat([band[k].abs().flatten() / z for band in h[1:]])
        inside, new = int((size < 1).sum()), int(((size >= 1) & (size < 2)).sum())
        assert inside > 100 and new > 10
        want = -inside * math.log2((1 - outside) / possible) - new * math.log2((outside - beyond) / 2 / possible)
        assert bits[k].item() == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("quantised", [False, True])
def test_larger_nets_begin_as_smaller_ones(quantised: bool) -> None:
    torch.manual_seed(5)
    smaller = PhotoModel(replace(SMALL, embedded=True))
    with torch.no_grad():
        for p in smaller.embedded.parameters():
            p.uniform_(-0.3, 0.3)
    sizes = {"embedded_coarse": 1.5, "embedded_depth": 2}
    larger = PhotoModel(replace(SMALL, embedded=True, **sizes))
    assert larger.start_from(smaller.config, smaller.state_dict()) == []
    h = [torch.randn(1, 3, 4, 4), torch.randn(1, 9, 4, 4), torch.randn(1, 9, 8, 8)]
    with torch.no_grad():
        prices = [price(m.embedded, smaller.latents, h, torch.tensor([0.7]), quantised) for m in (smaller, larger)]
    assert torch.allclose(prices[0], prices[1], rtol=1e-4)
    fresh = {k: v.clone() for k, v in smaller.embedded.state_dict().items()}
    assert smaller.start_from(larger.config, larger.state_dict()) == [
        "embedded"
    ]  # which are too large for it: its own stay
    assert all(torch.equal(v, fresh[k]) for k, v in smaller.embedded.state_dict().items())


def test_nets_of_8_bits_see_what_is_known_as_in_training() -> None:
    torch.manual_seed(3)
    context = EmbeddedContext(2, 8, 16, 1.5, 2, eight_bit=True).requires_grad_(False)
    for conv in (m for m in context.modules() if isinstance(m, IntegerConv)):
        conv.weight.uniform_(-0.09, 0.09)
        conv.bias.uniform_(-0.3, 0.3)
    graphs = entropy_graphs(context, "embedded")

    class Bundle:
        def run(self, name: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            session = ort.InferenceSession(graphs[name], providers=["CPUExecutionProvider"])
            return list(session.run(None, feed))

    assert any(b"QLinearConv" in content for content in graphs.values())
    check_context(context, "embedded", Bundle(), np.random.default_rng(2))  # type: ignore[arg-type]  # raises
