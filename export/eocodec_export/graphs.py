"""ONNX graphs of a photo model: float encoder and decoder, integer entropy nets.

In: a trained `PhotoModel`. Out: serialised graphs with dynamic batch, height and width.
"""

import io
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import GraphProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from eocodec.errors import ModelError
from eocodec.flow.context import (
    ACTIVATION_UNIT,
    EIGHT_BIT_WEIGHT,
    INDEX_UNIT,
    MEAN_UNIT,
    SCALES,
    ContextModel,
    IntegerConv,
    IntegerNet,
)
from eocodec.flow.embedded import EmbeddedContext, known_channels
from eocodec.flow.model import PhotoModel
from eocodec.flow.photo import DeepRefinement, Refinement
from eocodec.model.transform import band_names

__all__ = [
    "OPSET",
    "GraphBuilder",
    "decoder_graph",
    "encoder_graph",
    "entropy_graphs",
    "export_graph",
    "halved",
    "rounded",
]

OPSET = 17
EXACT = 1 << 24  # float32 holds every integer up to here
MEAN_LIMIT = 32 * MEAN_UNIT
HALF_LIMIT = 65504  # the largest 16-bit float
SHORT, UNIT = "/short", "/unit"  # ends of names of constants in fewer bits, and of their units
ZERO = 128  # zero point of what enters nets for 8-bit kernels

INT8_LIMIT = 128

Doubles = npt.NDArray[np.float64]
Shifted = npt.NDArray[np.bool_] | None  # channels that stand for ZERO less than they are


class Part(NamedTuple):
    """Values of a graph, of 8 bits or as float32: their name, whether they have a sign, and their channels."""

    value: str
    signed: bool
    channels: int


class _Encoder(nn.Module):
    def __init__(self, model: PhotoModel) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.flow(picture))


class _Decoder(nn.Module):
    def __init__(self, model: PhotoModel) -> None:
        super().__init__()
        self.flow, self.refine = model.flow, model.refine

    def forward(self, *inputs: Tensor) -> Tensor:
        if isinstance(self.refine, Refinement):
            return self.refine(self.flow.inverse(list(inputs[:-1])), inputs[-1])
        latents = list(inputs[:-2])
        plain = self.flow.grey(latents) if len(self.flow.colour) == 1 else self.flow.inverse(latents)
        # Step and tuning at each place of a grid of half the resolution, or of a single place that stands for all.
        step, tune = (v.expand(-1, -1, *latents[-1].shape[2:]) for v in inputs[-2:])
        return self.refine(plain, latents, step, tune)


def export_graph(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], any_size: bool = True
) -> bytes:
    """Serialised graph of a module.

    Arguments:
        module: to trace.
        inputs: example tensors.
        names, outputs: names of inputs and outputs.
        any_size: heights and widths are dynamic as well as the batch; if not, only the batch of `picture`, `latents`
            and `step` is.
    """
    axes = {n: {0: "batch", 2: f"{n}_height", 3: f"{n}_width"} for n in names + outputs}
    for name, value in zip(names, inputs, strict=True):
        if name == "step" and value.dim() == 1:
            axes[name] = {0: "batch"}
    if not any_size:
        axes = {n: {0: "batch"} for n in ("picture", "latents", "step")}
    out = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            out,  # type: ignore[arg-type]  # a file, as the exporter without dynamo takes one
            input_names=names,
            output_names=outputs,
            dynamic_axes={k: v for k, v in axes.items() if k in names + outputs},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(out.getvalue())
    _gather_constants(model.graph)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _gather_constants(graph: GraphProto) -> None:
    """Make initializers of nodes that only give a constant, equal ones once.

    The exporter writes one for every axis and bound of a slice: half of all nodes, and a fifth of the time that a
    session takes to open.
    """
    names: dict[bytes, str] = {}  # of the initializers, by content
    others: dict[str, str] = {}  # outputs that have another name now
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = ""
            name = names.setdefault(tensor.SerializeToString(), node.output[0])
            if name == node.output[0]:
                tensor.name = name
                graph.initializer.append(tensor)
            others[node.output[0]] = name
        else:
            node.input[:] = [others.get(i, i) for i in node.input]
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def halved(content: bytes, smallest: int = 256, scaled: bool = False) -> bytes:
    """The graph with its larger float32 constants stored in fewer bits, to be cast on loading; none changes its value.

    Integers from -128 to 127 take 8 bits, numbers that are 16-bit floats take 16; others stay as they are.

    Arguments:
        content: of the graph.
        smallest: count of numbers from which on a constant is large.
        scaled: take 8 bits for such integers times a power of two for every channel too (:func:`rounded`), which packs
            better than 16, but not as the difference from a graph that has 16.
    """
    model = onnx.load_from_string(content)
    casts = []
    for tensor in list(model.graph.initializer):
        value = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or value.size < smallest or np.abs(value).max() > HALF_LIMIT:
            continue
        name = tensor.name
        shorter = next((v for t in (np.int8, np.float16) if np.array_equal(v := value.astype(t), value)), None)
        units = _units(value) if scaled and shorter is not None and shorter.dtype != np.int8 else None
        if units is not None:
            tensor.CopyFrom(numpy_helper.from_array((value / units).astype(np.int8), name + SHORT))
            model.graph.initializer.append(numpy_helper.from_array(units, name + UNIT))
            casts.append(helper.make_node("Cast", [name + SHORT], [f"{name}/integers"], to=TensorProto.FLOAT))
            casts.append(helper.make_node("Mul", [f"{name}/integers", name + UNIT], [name]))
        elif shorter is not None:
            tensor.CopyFrom(numpy_helper.from_array(shorter, name + SHORT))
            casts.append(helper.make_node("Cast", [name + SHORT], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _units(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Powers of two for the first axis of which all values are multiples by -127 to 127; None if there are none."""
    if value.ndim < 2:
        return None
    largest = np.abs(value).reshape(len(value), -1).max(1)
    units = np.exp2(np.ceil(np.log2(np.maximum(largest, 2.0**-20) / 127))).astype(np.float32)
    units = units.reshape(-1, *[1] * (value.ndim - 1))
    integers = value / units
    return units if np.array_equal(integers, np.rint(integers)) else None


def rounded(p: Tensor) -> Tensor:
    """Weights rounded to 8 bits and a power of two for every output channel, all else to 16-bit floats."""
    if p.dim() < 2 or p.shape[0] == 1:
        return p.half().float()
    largest = p.abs().flatten(1).amax(1).clamp(min=2.0**-8)
    unit = torch.exp2(torch.ceil(torch.log2(largest / 127))).reshape(-1, *[1] * (p.dim() - 1))
    return torch.round(p / unit) * unit


def encoder_graph(model: PhotoModel) -> bytes:
    """`picture (B, 3, H, W)` in 0 to 1 → `low`, `detailL`, …, `detail1`; `(B, 1, H, W)` with one colour axis."""
    size = 2 ** (model.config.levels + 1)
    picture = torch.rand(1, model.config.axes, size * 2, size * 3)
    return export_graph(_Encoder(model), (picture,), ["picture"], band_names(model.config.levels))


def decoder_graph(model: PhotoModel) -> bytes:
    """`low`, `detailL`, …, `detail1`, `step (B,)` → `picture (B, 3, H, W)`; `(B, 1, H, W)` with one colour axis.

    Decoders of models that can be tuned take `step` and `tune (B, 1, h, w)`, on a grid of half the resolution or 1x1.
    """
    levels = model.config.levels
    size = 2 ** (levels + 1)
    bands = model.flow(torch.rand(1, 3, size * 2, size * 3))
    names = band_names(levels)
    if isinstance(model.refine, DeepRefinement):
        place = torch.full((1, 1, 1, 1), 0.1)
        return export_graph(_Decoder(model), (*bands, place, place), [*names, "step", "tune"], ["picture"])
    return export_graph(_Decoder(model), (*bands, torch.tensor([0.1])), [*names, "step"], ["picture"])


class GraphBuilder:
    """Assembles one integer net as an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.count = 0

    def name(self) -> str:
        """A fresh name for a value."""
        self.count += 1
        return f"v{self.count}"

    def constant(self, value: npt.NDArray[np.generic] | np.generic) -> str:
        """Add an initialiser; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        out = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def input(self, name: str, kind: int, channels: int, scale: str = "") -> str:
        """Add an input `(batch, channels, height, width)` of an integer type; returns it as it is."""
        shape: list[str | int | None] = ["batch", channels, f"height{scale}", f"width{scale}"]
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def floats(self, x: str) -> str:
        """Integers as float32."""
        return self.node("Cast", x, to=TensorProto.FLOAT)

    def part(self, name: str, kind: int, channels: int, eight_bit: bool, scale: str = "") -> "Part":
        """Add an input to be joined to others; see :meth:`input`."""
        value = self.input(name, kind, channels, scale)
        return Part(value if eight_bit else self.floats(value), kind == TensorProto.INT8, channels)

    def joined(self, parts: list["Part"], eight_bit: bool) -> tuple[str, npt.NDArray[np.int64], Shifted]:
        """Inputs of a net's first layer, one behind the other, what bounds them, and which :meth:`padded` shifted."""
        values = [self.padded(p) if eight_bit else p.value for p in parts]
        signed = np.concatenate([np.full(p.channels, p.signed) for p in parts])
        largest = np.where(signed, INT8_LIMIT, 255)
        return self.node("Concat", *values, axis=1), largest, ~signed if eight_bit else None

    def padded(self, part: "Part") -> str:
        """Values of 8 bits as uint8 with a zero point of 128, with zeros around them, a pixel wide.

        int8 values are shifted. uint8 ones cannot be, and stand for 128 less than they are, their zeros too, which the
        biases make up for: hence the zeros here, as those that a convolution adds would stand for 0.
        """
        x = part.value
        if part.signed:
            one, zero_point = self.constant(np.float32(1)), self.constant(np.uint8(ZERO))
            x = self.node("QuantizeLinear", self.floats(x), one, zero_point)
        outside = self.constant(np.uint8(ZERO if part.signed else 0))
        return self.node("Pad", x, self.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), outside)

    def conv(self, conv: IntegerConv, x: str, largest: npt.NDArray[np.int64], shift: int) -> tuple[str, int]:
        """Conv and its rounding by 2**-(exponent + shift); returns the value and its largest magnitude bound."""
        weight, bias, exponent = _integers(conv)
        divisor = np.exp2(exponent + shift)
        bias += np.floor(divisor / 2)  # rounding: floor(v / divisor + 1/2)
        bound = _bound(weight, bias, largest)
        y = self.node(
            "Conv",
            x,
            self.constant(weight.astype(np.float32)),
            self.constant(bias.astype(np.float32)),
            kernel_shape=list(conv.kernel_size),
            pads=[_padding(conv)] * 4,
        )
        scale = (1 / divisor).astype(np.float32)[None, :, None, None]
        return self.node("Floor", self.node("Mul", y, self.constant(scale))), bound

    def eight_bit_conv(self, conv: IntegerConv, x: str, shifted: Shifted) -> str:
        """A layer from uint8 to uint8 that kernels for 8-bit integers run: rounded half to even, and limited.

        Arguments:
            conv: the layer.
            x: its input.
            shifted: if it comes from :meth:`padded`, which channels stand for 128 less than they are.
        """
        weight, bias, exponent = _integers(conv)
        _bound(weight, bias, np.full(conv.in_channels, 255), EIGHT_BIT_WEIGHT)
        if shifted is not None:
            bias += ZERO * weight[:, shifted].sum((1, 2, 3))
        one, channels = self.constant(np.float32(1)), conv.out_channels
        return self.node(
            "QLinearConv",
            x,
            one,
            self.constant(np.uint8(0 if shifted is None else ZERO)),
            self.constant(weight.astype(np.int8)),
            self.constant(np.exp2(-exponent).astype(np.float32)),
            self.constant(np.zeros(channels, np.int8)),
            one,
            self.constant(np.uint8(0)),
            self.constant(bias.astype(np.int32)),
            kernel_shape=list(conv.kernel_size),
            pads=[0 if shifted is not None else _padding(conv)] * 4,
        )

    def clip(self, x: str, low: int, high: int) -> str:
        """x limited to low … high."""
        return self.node("Clip", x, self.constant(np.float32(low)), self.constant(np.float32(high)))

    def hidden(
        self, net: IntegerNet, x: str, largest: npt.NDArray[np.int64], layers: int, shifted: Shifted = None
    ) -> str:
        """The first `layers` layers of a net, rounded and limited to 0 … 255.

        Arguments:
            net: whose they are; with `eight_bit`, from uint8 to uint8, else from float32 to float32.
            x: their input.
            largest: bounds it.
            layers: how many.
            shifted: of :meth:`joined`, if x comes from there.
        """
        for conv in net.convs[:layers]:
            if conv.eight_bit:
                x, shifted = self.eight_bit_conv(conv, x, shifted), None
            else:
                x = self.clip(self.conv(conv, x, largest, 0)[0], 0, 255)
            largest = np.full(conv.out_channels, 255)
        return x

    def halves(
        self, last: IntegerConv, x: str, kinds: tuple[tuple[str, int, int, int, int], ...]
    ) -> list[tuple[str, str, int, int]]:
        """Outputs of a net's last layer, a part of its channels each: name, unit, lowest and highest value, type."""
        assert last.bias is not None
        size = last.out_channels // len(kinds)
        outputs = []
        for k, (name, unit, low, high, kind) in enumerate(kinds):
            rows = slice(k * size, (k + 1) * size)
            part = IntegerConv(last.in_channels, size, 1)
            part.weight, part.bias = nn.Parameter(last.weight[rows]), nn.Parameter(last.bias[rows])
            shift = (ACTIVATION_UNIT // unit).bit_length() - 1
            value, _ = self.conv(part, x, np.full(last.in_channels, 255), shift)
            outputs.append((self.clip(value, low, high), name, kind, size))
        return outputs

    def finish(self, outputs: list[tuple[str, str, int, int]]) -> bytes:
        """The serialised graph; outputs are (value, name, type, channels)."""
        infos = []
        for value, name, kind, channels in outputs:
            self.nodes.append(helper.make_node("Cast", [value], [name], to=kind))
            infos.append(helper.make_tensor_value_info(name, kind, ["batch", channels, "height", "width"]))
        graph = helper.make_graph(self.nodes, "entropy", self.inputs, infos, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="eocodec")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _integers(conv: IntegerConv) -> tuple[Doubles, Doubles, Doubles]:
    """Integer weights, integer biases and the exponents of the channels of a layer."""
    assert conv.bias is not None
    exponent = conv.exponent().double()
    weight = torch.floor(conv.weight.detach().double() * torch.exp2(exponent)[:, None, None, None] + 0.5)
    bias = torch.floor(conv.bias.detach().double() * torch.exp2(exponent) * ACTIVATION_UNIT + 0.5)
    return weight.numpy(), bias.numpy(), exponent.numpy()


def _bound(weight: Doubles, bias: Doubles, largest: npt.NDArray[np.int64], limit: int = 128) -> int:
    """Largest magnitude of a layer's sums; `largest` bounds the inputs, `limit` the weights.

    Raises:
        ModelError: it could leave the exact range.
    """
    bound = (np.abs(weight).sum((2, 3)) * largest[None, :]).sum(1) + np.abs(bias)
    if np.abs(weight).max() > limit or bound.max() >= EXACT:
        raise ModelError(f"an integer layer could reach {bound.max():.0f}, beyond the exact range of 2**24")
    return int(bound.max())


def _padding(conv: IntegerConv) -> int:
    return int(conv.padding[0]) if not isinstance(conv.padding, str) else 0


def _feature_graph(context: ContextModel, level: int) -> bytes:
    g = GraphBuilder()
    known = known_channels(level) if isinstance(context, EmbeddedContext) else 0
    net = context.feature[str(level)]
    top = str(level) not in context.expand
    own = 8 * context.axes if top else 3 * context.axes
    eight_bit = context.eight_bit
    parts = [g.part("coarser", TensorProto.INT8, own, eight_bit)]
    if not top:
        expand = context.expand[str(level)]
        features, channels = expand.convs[0].in_channels, expand.convs[0].out_channels
        previous = g.part("previous", TensorProto.UINT8, features, eight_bit, "_half").value
        up = g.hidden(expand, previous, np.full(features, 255), 1)
        parts.append(Part(g.node("DepthToSpace", up, blocksize=2, mode="CRD"), False, channels // 4))
    parts.append(g.part("condition", TensorProto.INT8, context.planes, eight_bit))
    if known:
        parts.append(g.part("known", TensorProto.INT8, known, eight_bit))
    x, largest, shifted = g.joined(parts, eight_bit)
    out = g.hidden(net, x, largest, len(net.convs), shifted)
    return g.finish([(out, "feature", TensorProto.UINT8, net.convs[-1].out_channels)])


def _pass_graph(net: IntegerNet, features: int, seen: int, planes: int) -> bytes:
    g = GraphBuilder()
    eight_bit = net.convs[0].eight_bit
    parts = [g.part("feature", TensorProto.UINT8, features, eight_bit)]
    if seen:
        parts.append(g.part("seen", TensorProto.INT8, seen, eight_bit))
    parts.append(g.part("condition", TensorProto.INT8, planes, eight_bit))
    x, largest, shifted = g.joined(parts, eight_bit)
    x = g.hidden(net, x, largest, len(net.convs) - 1, shifted)
    if eight_bit:
        x = g.floats(x)
    kinds = (
        ("mean", MEAN_UNIT, -MEAN_LIMIT, MEAN_LIMIT, TensorProto.INT16),
        ("index", INDEX_UNIT, 0, SCALES - 1, TensorProto.UINT8),
    )
    return g.finish(g.halves(net.convs[-1], x, kinds))


def entropy_graphs(context: ContextModel, folder: str = "entropy") -> dict[str, bytes]:
    """All integer nets by name: `entropy/feature{l}`, `entropy/luma{l}_{k}`, `entropy/chroma{l}_{k}`.

    Those of an `EmbeddedContext` have one more input, `known`, and another `folder`.

    Raises:
        ModelError: a layer's partial sums could leave the exactly representable range.
    """
    graphs: dict[str, bytes] = {}
    for level in range(context.n, 0, -1):
        graphs[f"{folder}/feature{level}"] = halved(_feature_graph(context, level))
        features = context.feature[str(level)].convs[-1].out_channels
        for kind, nets, base, more in (
            ("luma", context.luma[str(level)], 0, 3),
            ("chroma", context.chroma[str(level)], 12, 12),
        ):
            for k, net in enumerate(nets):
                graphs[f"{folder}/{kind}{level}_{k}"] = halved(
                    _pass_graph(net, features, base + more * k, context.planes)
                )
    return graphs
