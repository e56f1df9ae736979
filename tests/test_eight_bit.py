"""Nets for kernels that multiply 8-bit integers: integer ones give those of torch, refinements nearly the picture."""

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from eocodec_export.eight_bit import decoder_inputs, eight_bit_refinement  # noqa: E402
from eocodec_export.graphs import decoder_graph, entropy_graphs, halved  # noqa: E402

from eocodec.flow.context import ContextModel, IntegerConv  # noqa: E402
from eocodec.flow.model import PhotoConfig, PhotoModel  # noqa: E402
from eocodec.flow.restored import float_nets, integer_nets  # noqa: E402
from eocodec.model.graphs import check_graph  # noqa: E402

UNIT = 1 / 32
LEVELS = 2
Context = ContextModel
OPTIMISATIONS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def context_of(largest: float, bias: float) -> Context:
    """Nets with weights up to `largest`, so that many activations are neither 0 nor 255."""
    torch.manual_seed(3)
    context = ContextModel(LEVELS, 8, 16, 1.5, 2, planes=2, eight_bit=True).double().requires_grad_(False)
    for conv in (m for m in context.modules() if isinstance(m, IntegerConv)):
        conv.weight.uniform_(-largest, largest)
        conv.bias.uniform_(-bias, bias)
    return context


def outputs(context: Context, graphs: dict[str, bytes], optimisation: str, seed: int) -> Iterator[tuple[str, object]]:
    """Names and pairs, of torch and of ONNX Runtime, of what every net gives for random integers."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, optimisation)

    def run(name: str, **feed: np.ndarray) -> list[np.ndarray]:
        session = ort.InferenceSession(graphs[name], options, providers=["CPUExecutionProvider"])
        return session.run(None, feed)

    def tensor(values: np.ndarray) -> "torch.Tensor":
        return torch.from_numpy(values).double() * UNIT

    random = np.random.default_rng(seed)
    size = (7, 10)
    for level in range(LEVELS, 0, -1):
        top = level == LEVELS
        coarser = random.integers(-128, 128, (2, 24 if top else 9, 2 * size[0], 2 * size[1])).astype(np.int8)
        condition = random.integers(-80, 49, (2, 2, *coarser.shape[2:])).astype(np.int8)
        feed = {"coarser": coarser, "condition": condition}
        previous = None
        if not top:
            feed["previous"] = random.integers(0, 256, (2, 12, *size)).astype(np.uint8)
            previous = tensor(feed["previous"])
        want = context.features(level, tensor(coarser), previous, tensor(condition), True)
        (feature,) = run(f"entropy/feature{level}", **feed)
        yield f"feature{level}", (want.numpy() / UNIT, feature)
        for kind, base, more in (("luma", 0, 3), ("chroma", 12, 12)):
            for k, net in enumerate(getattr(context, kind)[str(level)]):
                seen = random.integers(-128, 128, (2, base + more * k, *coarser.shape[2:])).astype(np.int8)
                feed = {"feature": feature, "condition": condition} | ({"seen": seen} if seen.shape[1] else {})
                mean, index = context.parameters_of(net, [tensor(feature), tensor(seen), tensor(condition)], True)
                got = run(f"entropy/{kind}{level}_{k}", **feed)
                yield f"{kind}{level}_{k}", (mean.numpy() * 16, got[0])
                yield f"{kind}{level}_{k}", (index.numpy(), got[1])


@pytest.mark.parametrize("optimisation", OPTIMISATIONS)
def test_every_net_gives_the_integers_of_torch(optimisation: str) -> None:
    """Borders too, where what is missing counts as zero although features are shifted."""
    context = context_of(0.09, 0.3)
    graphs = entropy_graphs(context)
    alive = []
    for name, (want, got) in outputs(context, graphs, optimisation, 1):
        assert np.array_equal(want, got), name
        alive.append(np.mean((got > got.min()) & (got < got.max())))
    assert np.median(alive) > 0.2  # not all 0, 255 or at a limit


def test_kernels_without_vnni_do_not_saturate() -> None:
    """The largest weights, of one sign side by side, times large activations: pairs of products are added in 16 bits.

    Half of the channels count against the other half, so that what saturates inside does not at the end as well.
    """
    context = context_of(0.0309, 0.0)
    for conv in (m for m in context.modules() if isinstance(m, IntegerConv)):
        half = conv.in_channels // 2
        conv.weight[::2, :half], conv.weight[::2, half : 2 * half] = 0.0309, -0.0309
    graphs = entropy_graphs(context)
    for seed in range(3):
        for name, (want, got) in outputs(context, graphs, "ORT_ENABLE_ALL", seed):
            assert np.array_equal(want, got), name
    layers = [w for g in graphs.values() for w in eight_bit_weights(g)]
    assert len(layers) > 10 and max(np.abs(w).max() for w in layers) == 63


def eight_bit_weights(graph: bytes) -> Iterator[np.ndarray]:
    """Of the layers that 8-bit kernels run."""
    check_graph(graph)
    loaded = onnx.load_from_string(graph).graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in loaded.initializer}
    for node in loaded.node:
        if node.op_type == "QLinearConv":
            yield constants[node.input[3]]


def test_weights_come_back_from_the_graphs() -> None:
    """To the same graphs, so that training can go on from a bundle and export it again unchanged."""
    context = context_of(0.09, 0.3).float()
    graphs = entropy_graphs(context)
    files = {f"{name}.onnx": content for name, content in graphs.items()}
    again = ContextModel(LEVELS, 8, 16, 1.5, 2, planes=2, eight_bit=True)
    again.load_state_dict(
        {
            k: torch.from_numpy(np.array(v, np.float32))
            for level in range(1, LEVELS + 1)
            for k, v in integer_nets(files, "entropy", level).items()
        }
    )
    assert entropy_graphs(again) == graphs


SIZES = PhotoConfig(
    levels=2,
    width=8,
    steps=1,
    features=8,
    context_width=8,
    rotated=True,
    tuned=True,
    refine_width=8,
    refine_blocks=1,
    refine_coarse=8,
    refine_latents=True,
    refine_eight_bit=True,
)


@pytest.mark.slow
def test_a_refinement_of_8_bits_is_nearly_that_of_floats() -> None:
    """And its weights come back, and give the same graph again."""
    torch.manual_seed(5)
    model = PhotoModel(SIZES).eval().requires_grad_(False)
    for name, p in model.refine.named_parameters():
        p.normal_(0, (2 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.1)
        if name.startswith("tail.net.2"):
            p.mul_(0.3)
    picture = np.random.default_rng(2).integers(0, 256, (12, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    inputs = decoder_inputs(model, [picture], 0.12)
    floats = decoder_graph(model)
    eight = eight_bit_refinement(floats, inputs)
    check_graph(halved(eight))
    sessions = [ort.InferenceSession(g, providers=["CPUExecutionProvider"]) for g in (floats, halved(eight))]
    changed = []
    for given in inputs:
        want, got = (s.run(None, given)[0] for s in sessions)
        step = given["step"].item()
        plain = model.flow.inverse([torch.from_numpy(v) for n, v in given.items() if n not in ("step", "tune")]).numpy()
        refinement = np.sqrt(np.square(want - plain).mean()) / step
        difference = np.sqrt(np.square(want - got).mean()) / step
        assert 0 < difference < 0.05 * refinement, (step, difference, refinement)
        changed.append(refinement)
    assert min(changed) > 0.05
    integers = {k: v for k, v in quantised_weights(eight).items() if k.startswith("refine.")}
    assert set(integers) == {
        f"refine.{k}.weight" for k in ("blocks.0.net.net.0", "blocks.0.net.net.2", "tail.net.0", "tail.net.2")
    }
    assert max(np.abs(w).max() for w in integers.values()) <= 64  # two products fit 16 bits
    found = float_nets(halved(eight))
    own = dict(model.refine.state_dict())
    assert {k for k in found if k.startswith("refine.")} == {f"refine.{k}" for k in own}
    for name, value in own.items():
        again = torch.from_numpy(np.array(found[f"refine.{name}"]))
        assert (again - value).abs().max() <= value.abs().max() / 100, name
        value.copy_(again)
    restored = quantised_weights(eight_bit_refinement(decoder_graph(model), inputs))
    assert all(np.array_equal(restored[k], v) for k, v in integers.items())


def quantised_weights(graph: bytes) -> dict[str, np.ndarray]:
    """Integer weights by the names of the parameters."""
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in onnx.load_from_string(graph).graph.initializer}
    return {k.removesuffix("_quantized"): v for k, v in constants.items() if k.endswith("weight_quantized")}
