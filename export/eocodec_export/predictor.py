"""A net for lossless files: mean and scale of a sample from its context, trained in floats and exported in integers.

In: a training context, see `eocodec.coding.lattice.Lattice.context`, and what a second net found around the sample.
Out: graphs of integer arithmetic, and the same in 64-bit integers to check them with.

The mean is a linear prediction, plus a few more of them, each times a gate between -1 and 1 that the net opens, plus a
correction in units of the scale. Gates let the prediction turn with the edges of the picture; a net alone, which sees
its inputs on a logarithmic scale, can say how large they are but hardly add them up.

References:
    Jacobs, Jordan, Nowlan & Hinton, *Adaptive mixtures of local experts*, Neural Computation 3, 1991.
    https://doi.org/10.1162/neco.1991.3.1.79
"""

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto
from torch import Tensor, nn

from eocodec.coding.lossless_walk import SEEN_AROUND
from eocodec.errors import ModelError
from eocodec.flow.context import (
    ACTIVATION_UNIT,
    BITS_PER_NAT,
    INDEX_UNIT,
    MEAN_UNIT,
    SCALE_MIN,
    SCALE_PER_OCTAVE,
    SCALES,
    IntegerConv,
    IntegerNet,
    round_through,
)
from eocodec.flow.restored import constants, eight_bit_layer, float_layer
from eocodec_export.graphs import EXACT, MEAN_LIMIT, GraphBuilder, halved

__all__ = [
    "LARGEST",
    "Predictor",
    "Surroundings",
    "companded",
    "features_graph",
    "integer_features",
    "integers",
    "mixture_bits",
    "predictor_graph",
    "restore_features",
    "restore_predictor",
]

Int16 = npt.NDArray[np.int16]
Integers = npt.NDArray[np.int64]

LINEAR_UNIT = 2048  # of the linear parts' weights
GATE_UNIT = 128  # a gate is -128 ... 127 of these
GATE_RANGE = GATE_UNIT // ACTIVATION_UNIT  # the net's output where a gate is fully open
LARGEST = 510  # magnitude of an input
LIMIT = 1023 * MEAN_UNIT  # of the mean
GATED_LIMIT = 255 * MEAN_UNIT  # of a gated prediction
SHARE = 0.5  # of the Laplace density in the mixture that is trained; the rest is logistic
FLOOR = 1e-6
FIRST_INDEX = 3.3  # of the net before training, a scale of 2 levels


def compand_table() -> npt.NDArray[np.int8]:
    """What the nets see of −510 … 510: sign · round(14 · log2(1 + |d|)), at 0, 1, …, 510, −510, …, −1."""
    d = np.concatenate([np.arange(LARGEST + 1), np.arange(-LARGEST, 0)])
    return (np.sign(d) * np.floor(14 * np.log2(1.0 + np.abs(d)) + 0.5)).astype(np.int8)


def scale_table() -> Integers:
    """Scale of every index in 1/16 levels, at least 1: the unit of the nets' correction of the mean."""
    k = np.arange(SCALES)
    return np.maximum(1, np.floor(MEAN_UNIT * SCALE_MIN * 2.0 ** (k / SCALE_PER_OCTAVE) + 0.5)).astype(np.int64)


def companded(context: Int16) -> npt.NDArray[np.float32]:
    """What nets see of a context, in 1/32."""
    return _SEEN[context]  # negative numbers count from the end of the table


_SEEN: npt.NDArray[np.float32] = (compand_table() / ACTIVATION_UNIT).astype(np.float32)


class Surroundings(nn.Module):
    """What is around the samples of an axis before its phases: features of every quad, from a wider view.

    Arguments:
        channels: of `eocodec.coding.lattice.Lattice.surroundings`.
        width: channels of the hidden layers.
        features: channels of the result.
    """

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.net = IntegerNet(
            [channels, *[width] * (SEEN_AROUND - 1), features], [3] * SEEN_AROUND, True, eight_bit=True
        )
        self.net.convs[0].eight_bit = False  # its inputs have a sign

    def forward(self, seen: Tensor, quantised: bool) -> Tensor:
        """Features `(B, features, rows, columns)` in 0 to 255/32, of what was companded, `(B, channels, …)`."""
        return self.net(seen, quantised)


class Predictor(nn.Module):
    """Mean and scale of a sample from its context.

    Arguments:
        channels: of the context.
        hidden: channels of the net's hidden layers.
        gates: linear predictions besides the first, each with a gate.
        features: channels of what :class:`Surroundings` gives.
    """

    scales: Tensor

    def __init__(self, channels: int, hidden: tuple[int, ...], gates: int, features: int = 0) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Parameter(torch.zeros(channels))
        self.gated = nn.Parameter(torch.empty(gates, channels).normal_(0, 0.1))
        self.net = IntegerNet([channels + features, *hidden, 2 + gates], [1] * (len(hidden) + 1), False)
        last = self.net.convs[-1]
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.bias[1] = FIRST_INDEX
        self.register_buffer("scales", torch.from_numpy(scale_table().astype(np.float32)), persistent=False)

    def forward(self, context: Tensor, seen: Tensor, quantised: bool, fast: bool = False) -> tuple[Tensor, Tensor]:
        """Mean minus reference value, in levels, and scale index, `(N,)` each.

        Arguments:
            context: `(channels, N)`.
            seen: the same companded, then features, `(channels + features, N)`.
            quantised: weights and activations as in the graph.
            fast: hidden layers in bfloat16.
        """
        x = seen
        for k, conv in enumerate(self.net.convs):
            last = k + 1 == len(self.net.convs)
            w, b = conv.rounded() if quantised else (conv.weight, conv.bias)
            assert b is not None
            with torch.autocast("cpu", torch.bfloat16, enabled=fast and not last):
                x = torch.addmm(b[:, None], w[:, :, 0, 0], x.float() if last else x)
            if not last:
                if quantised:
                    x = round_through(x * ACTIVATION_UNIT) / ACTIVATION_UNIT
                x = torch.nn.functional.hardtanh(x, 0, 255 / ACTIVATION_UNIT)
        correction, index, gate = x[0], x[1] * INDEX_UNIT, x[2:] / GATE_RANGE
        if quantised:
            correction, index = round_through(correction * MEAN_UNIT) / MEAN_UNIT, round_through(index)
            gate = round_through(gate * GATE_UNIT) / GATE_UNIT
        index = index.clamp(0, SCALES - 1)
        unit = SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)
        if quantised:
            unit = unit * (self.scales[index.detach().long()] / MEAN_UNIT / unit).detach()
        correction = correction.clamp(-MEAN_LIMIT / MEAN_UNIT, MEAN_LIMIT / MEAN_UNIT) * unit
        gated = (gate.clamp(-1, 1 - 1 / GATE_UNIT) * (self.gated @ context)).sum(0)
        return self.linear @ context + gated + correction, index


def mixture_bits(residual: Tensor, index: Tensor) -> Tensor:
    """Bits of integers at distance `residual` from the mean: Laplace and logistic densities over unit bins."""
    scale = SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)
    low, high = residual.abs() - 0.5, residual.abs() + 0.5
    tail = 0.5 * torch.exp(-low.abs() / scale)
    laplace = torch.where(low < 0, 1 - tail, tail) - 0.5 * torch.exp(-high / scale)
    logistic = torch.sigmoid(-low / (0.7 * scale)) - torch.sigmoid(-high / (0.7 * scale))
    return -torch.log(SHARE * laplace.abs() + (1 - SHARE) * logistic.abs() + FLOOR) * BITS_PER_NAT


def _weights(linear: Tensor) -> npt.NDArray[np.float64]:
    weights = np.floor(linear.detach().double().numpy() * LINEAR_UNIT + 0.5)
    if weights.size and np.abs(weights).sum(-1).max() * LARGEST + LINEAR_UNIT >= EXACT:
        raise ModelError("a linear predictor's sums could leave the exact range of 2**24")
    return np.asarray(weights)


def _outputs(last: nn.Module, first: int, count: int) -> IntegerConv:
    """Some output channels of a net's last layer as a layer of their own."""
    assert isinstance(last, IntegerConv) and last.bias is not None
    part = IntegerConv(last.in_channels, count, 1)
    part.weight = nn.Parameter(last.weight[first : first + count])
    part.bias = nn.Parameter(last.bias[first : first + count])
    return part


def features_graph(model: Surroundings) -> bytes:
    """`context (B, channels, rows, columns)` int16 → `features` uint8.

    Raises:
        ModelError: a partial sum could leave the exactly representable range.
    """
    g = GraphBuilder()
    first = model.net.convs[0]
    g.input("context", TensorProto.INT16, first.in_channels)
    x, _ = g.conv(first, _companded(g, "context"), np.full(first.in_channels, 127), 0)
    x = g.node("Cast", g.clip(x, 0, 255), to=TensorProto.UINT8)
    for conv in model.net.convs[1:]:
        x = g.eight_bit_conv(conv, x, None)
    last = model.net.convs[-1]
    return halved(g.finish([(x, "features", TensorProto.UINT8, last.out_channels)]))


def _companded(g: GraphBuilder, context: str) -> str:
    places = g.node("Cast", context, to=TensorProto.INT32)
    return g.node("Gather", g.constant(compand_table().astype(np.float32)), places, axis=0)


def predictor_graph(model: Predictor) -> bytes:
    """`context (B, channels, rows, columns)` int16 → `mean` int16, 1/16 levels from the reference; `index` uint8.

    With features it takes `features` uint8 as well.

    Raises:
        ModelError: a partial sum could leave the exactly representable range.
    """
    g = GraphBuilder()
    channels, gates = len(model.linear), len(model.gated)
    x = g.floats(g.input("context", TensorProto.INT16, channels))
    t, largest = _companded(g, "context"), np.full(channels, 127)
    if model.features:
        t = g.node("Concat", t, g.floats(g.input("features", TensorProto.UINT8, model.features)), axis=1)
        largest = np.concatenate([largest, np.full(model.features, 255)])
    last = len(model.net.convs) - 1
    hidden = g.hidden(model.net, t, largest, last)

    def output(first: int, count: int, unit: int, low: int, high: int) -> str:
        conv = _outputs(model.net.convs[-1], first, count)
        shift = (ACTIVATION_UNIT // unit).bit_length() - 1
        return g.clip(g.conv(conv, hidden, np.full(conv.in_channels, 255), shift)[0], low, high)

    def rounded(value: str, divisor: int) -> str:
        half = g.constant(np.float32(0.5))
        return g.node("Floor", g.node("Add", g.node("Mul", value, g.constant(np.float32(1 / divisor))), half))

    def predictions(linear: Tensor) -> str:
        weights = _weights(linear)[:, :, None, None] * (MEAN_UNIT / LINEAR_UNIT)  # a power of two: sums stay exact
        half = g.constant(np.full(len(weights), 0.5, np.float32))
        sums = g.node("Conv", x, g.constant(weights.astype(np.float32)), half, kernel_shape=[1, 1])
        return g.node("Floor", sums)

    correction = output(0, 1, MEAN_UNIT, -MEAN_LIMIT, MEAN_LIMIT)
    index = output(1, 1, INDEX_UNIT, 0, SCALES - 1)
    table = g.constant(scale_table().astype(np.float32))
    unit = g.node("Gather", table, g.node("Cast", index, to=TensorProto.INT32), axis=0)
    mean = g.node("Add", predictions(model.linear[None]), rounded(g.node("Mul", correction, unit), MEAN_UNIT))
    if gates:
        gate = output(2, gates, ACTIVATION_UNIT, -GATE_UNIT, GATE_UNIT - 1)
        if gates * GATE_UNIT * GATED_LIMIT >= EXACT:
            raise ModelError(f"{gates} gates could leave the exact range of 2**24")
        gated = g.node("Mul", gate, g.clip(predictions(model.gated), -GATED_LIMIT, GATED_LIMIT))
        total = g.node("ReduceSum", gated, g.constant(np.array([1], np.int64)), keepdims=1)
        mean = g.node("Add", mean, rounded(total, GATE_UNIT))
    mean = g.clip(mean, -LIMIT, LIMIT)
    return halved(g.finish([(mean, "mean", TensorProto.INT16, 1), (index, "index", TensorProto.UINT8, 1)]))


def restore_features(model: Surroundings, content: bytes) -> None:
    """Give a net the weights that its graph holds: rounding them again gives the same graph.

    Raises:
        ModelError: the graph is not of a net of this size.
    """
    graph, arrays = constants(content)
    user = {node.input[0]: node for node in graph.graph.node}
    convs = [node for node in graph.graph.node if node.op_type in ("Conv", "QLinearConv")]
    if len(convs) != len(model.net.convs):
        raise _other_size()
    for conv, node in zip(model.net.convs, convs, strict=True):
        if node.op_type == "Conv":
            _restore(conv, *float_layer(arrays, node, user[node.output[0]], ACTIVATION_UNIT))
        else:
            _restore(conv, *eight_bit_layer(arrays, node))


def restore_predictor(model: Predictor, content: bytes) -> None:
    """As :func:`restore_features`."""
    graph, arrays = constants(content)
    user = {node.input[0]: node for node in graph.graph.node}
    convs = [node for node in graph.graph.node if node.op_type == "Conv"]
    linear = [c for c in convs if user[c.output[0]].op_type == "Floor"]  # all others are scaled first
    layers = [c for c in convs if c not in linear]
    hidden, gates = len(model.net.convs) - 1, len(model.gated)
    if len(layers) != hidden + (3 if gates else 2) or len(linear) != (2 if gates else 1):
        raise _other_size()
    units = [ACTIVATION_UNIT] * hidden + [MEAN_UNIT, INDEX_UNIT, ACTIVATION_UNIT]
    found = [float_layer(arrays, c, user[c.output[0]], unit) for c, unit in zip(layers, units, strict=False)]
    for conv, layer in zip(model.net.convs[:hidden], found, strict=False):
        _restore(conv, *layer)
    _restore(model.net.convs[-1], *(np.concatenate(part) for part in zip(*found[hidden:], strict=True)))
    for weights, node in zip((model.linear[None], model.gated), linear, strict=False):
        values = arrays[node.input[1]].astype(np.float64)[:, :, 0, 0] / MEAN_UNIT
        if values.shape != weights.shape:
            raise _other_size()
        weights.data.copy_(torch.from_numpy(values))


def _other_size() -> ModelError:
    return ModelError("the bundle's nets for lossless files have other sizes than these")


def _restore(conv: nn.Conv2d, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
    if conv.weight.shape != weight.shape or conv.bias is None:
        raise _other_size()
    conv.weight.data.copy_(torch.from_numpy(weight))
    conv.bias.data.copy_(torch.from_numpy(bias))


def integer_features(model: Surroundings, context: Int16) -> Integers:
    """What the graph must give for `context (channels, rows, columns)`, in 64-bit integers."""
    x = compand_table().astype(np.int64)[context]
    for conv in model.net.convs:
        weight, bias, exponent = _integer_layer(conv)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        total = np.einsum("oikl,ihwkl->ohw", weight, windows) + bias[:, None, None]
        divisor = 1 << exponent[:, None, None]
        rounded = (2 * total + divisor) // (2 * divisor)
        if conv.eight_bit:  # halves go to the even neighbour
            rounded -= ((2 * total + divisor) % (2 * divisor) == 0) & (rounded % 2 == 1)
        x = np.clip(rounded, 0, 255)
    return x


def _integer_layer(conv: IntegerConv) -> tuple[Integers, Integers, Integers]:
    """Weights, biases, and exponents of the channels of a layer."""
    assert conv.bias is not None
    exponent = conv.exponent().double().numpy()
    weight = np.floor(conv.weight.detach().double().numpy() * 2 ** exponent[:, None, None, None] + 0.5)
    bias = np.floor(conv.bias.detach().double().numpy() * 2**exponent * ACTIVATION_UNIT + 0.5)
    return weight.astype(np.int64), bias.astype(np.int64), exponent.astype(np.int64)


def integers(model: Predictor, context: Int16, features: npt.NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """What the graph must give for `context (N, channels)`, in 64-bit integers: mean in 1/16, index.

    Arguments:
        model: the net.
        context: of the samples.
        features: `(N, features)`, without any for nets that take none.
    """
    x = np.concatenate([compand_table().astype(np.int64)[context], features.astype(np.int64)], 1)
    for k, conv in enumerate(model.net.convs):
        w, b, exponent = _integer_layer(conv)
        w = w[:, :, 0, 0]
        last = k + 1 == len(model.net.convs)
        units = np.array([1, 2] + [0] * len(model.gated))  # 1/16, 1/8, and 1/32 as in hidden layers
        shift = exponent + (units if last else 0)
        half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
        x = (x @ w.T + b + half) >> shift
        if not last:
            x = np.clip(x, 0, 255)
    correction, index = np.clip(x[:, 0], -MEAN_LIMIT, MEAN_LIMIT), np.clip(x[:, 1], 0, SCALES - 1)
    divisor = LINEAR_UNIT // MEAN_UNIT

    def predictions(linear: Tensor) -> Integers:
        return (context.astype(np.int64) @ _weights(linear).astype(np.int64).T + divisor // 2) // divisor

    gate = np.clip(x[:, 2:], -GATE_UNIT, GATE_UNIT - 1)
    gated = (gate * np.clip(predictions(model.gated), -GATED_LIMIT, GATED_LIMIT)).sum(1)
    scaled = (correction * scale_table()[index] + MEAN_UNIT // 2) // MEAN_UNIT
    opened = (gated + GATE_UNIT // 2) // GATE_UNIT
    return np.clip(predictions(model.linear) + opened + scaled, -LIMIT, LIMIT), index
