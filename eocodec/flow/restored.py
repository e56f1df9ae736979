"""The weights of a photo model back from its bundle, so that training can start where a bundle stands.

In: the files of a bundle. Out: the model's sizes and its parameters by name. Float parameters come back as the graphs
hold them; those of the integer nets are the rounded ones, times their unit, so that rounding them again gives the same
integers. Training's own price of the low-pass follows from the tables that files have for it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from eocodec.coding.scales import log2_scales
from eocodec.coding.walk import activity_class
from eocodec.errors import ModelError
from eocodec.flow.context import ACTIVATION_UNIT, INDEX_UNIT, MEAN_UNIT
from eocodec.flow.model import PhotoConfig
from eocodec.model.manifest import DENOISING_GRAPHS

__all__ = ["constants", "eight_bit_layer", "float_layer", "float_nets", "integer_nets", "low_scale", "photo_weights"]

Arrays = dict[str, npt.NDArray[Any]]
Layer = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # weights and bias of a convolution
UNITS = {"mean": MEAN_UNIT, "index": INDEX_UNIT}
ZERO = 128  # zero point of what enters nets for 8-bit kernels
LARGEST_ACTIVITY = 32  # of low-pass values, in steps, up to which the price is fitted; 0 is rare


def photo_weights(files: Mapping[str, bytes]) -> tuple[PhotoConfig, dict[str, Tensor]]:
    """Sizes and parameters of the photo model that a bundle holds.

    Arguments:
        files: of the bundle, by name.

    Raises:
        ModelError: not a bundle of a photo model that this program exported.
    """
    try:
        manifest = json.loads(files["manifest.json"])
        weights = {**float_nets(files["encoder.onnx"]), **float_nets(files["decoder.onnx"])}
        denoising = _denoising(files)
        weights.update(denoising)
        folders = {"entropy": "latents.context"}
        if "embedded/feature1.onnx" in files:
            folders["embedded"] = "embedded"
        for folder, prefix in folders.items():
            for level in range(manifest["levels"], 0, -1):
                nets = integer_nets(files, folder, level)
                weights.update({f"{prefix}.{k}": v for k, v in nets.items()})
        for k, gain in enumerate(manifest["gain"]):
            weights[f"latents.gain{k}"] = np.array(gain, np.float32)
        weights["latents.low_scale"] = low_scale(manifest["low_index"])
        config = replace(
            _sizes(manifest, weights),
            eight_bit=_eight_bit(files["entropy/feature1.onnx"]),
            **_denoising_sizes(denoising),
        )
    except (KeyError, ValueError, TypeError, IndexError) as e:
        raise ModelError(f"the bundle does not hold a photo model that training can start from ({e})") from e
    return config, {name: torch.from_numpy(np.array(v, np.float32)) for name, v in weights.items()}


def low_scale(tables: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.float32]:
    """Parameters `(2, axes)` of training's price of the low-pass, as near as they come to a bundle's tables.

    Arguments:
        tables: `low_index` of the manifest, indices of scales by axis, kind of place and class of activity.
    """
    activity = np.arange(1, LARGEST_ACTIVITY)
    classes = activity_class(activity.astype(np.int32))
    a, b = np.meshgrid(*(np.arange(low, high, 0.04) for low, high in ((-3.0, 3.0), (-4.0, 1.0))), indexing="ij")
    modelled = np.log2(np.exp(a)[..., None] + np.exp(b)[..., None] * activity)
    found = []
    for axis in tables:
        between_diagonal_neighbours = np.array(axis[0])
        index = between_diagonal_neighbours[np.minimum(classes, len(axis[0]) - 1)]
        best = np.square(modelled - log2_scales()[index]).mean(2).argmin()
        found.append((a.flat[best], b.flat[best]))
    return np.array(found, np.float32).T


def constants(content: bytes) -> tuple[onnx.ModelProto, Arrays]:
    """A graph and its constants; those stored in fewer bits under their names too."""
    graph = onnx.load_from_string(content)
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
        elif node.op_type == "Mul" and all(i in arrays for i in node.input):
            arrays[node.output[0]] = arrays[node.input[0]] * arrays[node.input[1]]
        elif node.op_type == "DequantizeLinear" and all(i in arrays for i in node.input):
            integers, unit = arrays[node.input[0]].astype(np.float32), arrays[node.input[1]]
            name = node.output[0].removesuffix("_DequantizeLinear_Output")  # as ONNX Runtime's quantisation has it
            arrays[name] = integers * unit.reshape(-1, *[1] * (integers.ndim - 1))
    return graph, arrays


def float_nets(content: bytes) -> Arrays:
    """Parameters of flow and refinement that a graph holds, by the module's own names."""
    _, arrays = constants(content)
    return {k: v for k, v in arrays.items() if re.match(r"(flow|refine)\..*\.(weight|bias)$", k)}


def _denoising(files: Mapping[str, bytes]) -> Arrays:
    """Parameters of the nets for denoising and for the noise level; none if the bundle does not have both."""
    if not all(name in files for name in DENOISING_GRAPHS):
        return {}
    arrays = {k.removeprefix("model."): v for name in DENOISING_GRAPHS for k, v in constants(files[name])[1].items()}
    return {k: v for k, v in arrays.items() if re.match(r"(gains|noise)\..*\.(weight|bias)$", k)}


def _denoising_sizes(weights: Arrays) -> dict[str, Any]:
    if not weights:
        return {"gain_widths": ()}
    scales = len({k.split(".")[2] for k in weights if k.startswith("gains.down.")})
    return {
        "gain_widths": tuple(weights[f"gains.down.{k}.0.first.weight"].shape[0] for k in range(scales)),
        "gain_blocks": len({k.split(".")[3] for k in weights if k.startswith("gains.down.0.")}),
        "noise_width": weights["noise.net.0.weight"].shape[0],
    }


def integer_nets(files: Mapping[str, bytes], folder: str, level: int) -> Arrays:
    """Parameters of a level's integer nets, by the names that they have in `eocodec.flow.context.ContextModel`.

    Arguments:
        files: of a bundle, by name.
        folder: where the nets are.
        level: whose they are.
    """
    result: Arrays = {}
    content = files[f"{folder}/feature{level}.onnx"]
    layers = _layers(content)
    if any(i.name == "previous" for i in onnx.load_from_string(content).graph.input):
        result.update(_net(f"expand.{level}", layers[:1]))
        layers = layers[1:]
    result.update(_net(f"feature.{level}", layers))
    for kind in ("luma", "chroma"):
        for k in range(len([n for n in files if n.startswith(f"{folder}/{kind}{level}_")])):
            result.update(_net(f"{kind}.{level}.{k}", _layers(files[f"{folder}/{kind}{level}_{k}.onnx"])))
    return result


def _eight_bit(content: bytes) -> bool:
    """Whether an integer net is made for kernels for 8-bit integers."""
    return any(node.op_type == "QLinearConv" for node in onnx.load_from_string(content).graph.node)


def _net(name: str, layers: list[Layer]) -> Arrays:
    return {
        f"{name}.convs.{k}.{part}": value
        for k, layer in enumerate(layers)
        for part, value in zip(("weight", "bias"), layer, strict=True)
    }


def _layers(content: bytes) -> list[Layer]:
    """Weights and biases of an integer net's convolutions; those of its outputs joined to one layer."""
    graph, arrays = constants(content)
    users: dict[str, onnx.NodeProto] = {i: node for node in graph.graph.node for i in node.input}
    layers: list[Layer] = []
    outputs: list[Layer] = []
    for node in graph.graph.node:
        if node.op_type == "QLinearConv":
            layers.append(eight_bit_layer(arrays, node, _shifted(graph.graph, node)))
        if node.op_type != "Conv":
            continue
        name = _output(node, users)
        layer = float_layer(arrays, node, users[node.output[0]], UNITS[name] if name else ACTIVATION_UNIT)
        (outputs if name else layers).append(layer)
    if outputs:
        layers.append((np.concatenate([w for w, _ in outputs]), np.concatenate([b for _, b in outputs])))
    return layers


def eight_bit_layer(arrays: Arrays, node: onnx.NodeProto, shifted: slice = slice(0)) -> Layer:
    """Weights and biases of a convolution for 8-bit kernels.

    Arguments:
        arrays: constants of the graph.
        node: a `QLinearConv`.
        shifted: channels of what it takes that stand for 128 less than they are.
    """
    power = 1 / arrays[node.input[4]].astype(np.float64)
    integers, bias = arrays[node.input[3]].astype(np.float64), arrays[node.input[8]].astype(np.float64)
    bias -= ZERO * integers[:, shifted].sum((1, 2, 3))
    return integers / power[:, None, None, None], bias / (power * ACTIVATION_UNIT)


def float_layer(arrays: Arrays, node: onnx.NodeProto, scaled: onnx.NodeProto, unit: int) -> Layer:
    """Weights and biases of a convolution whose sums are rounded.

    Arguments:
        arrays: constants of the graph.
        node: a `Conv` of integers.
        scaled: the `Mul` behind it.
        unit: what one of its outputs is divided into.
    """
    scale = arrays[next(i for i in scaled.input if i in arrays)].reshape(-1).astype(np.float64)
    power = 1 / scale / (ACTIVATION_UNIT // unit)  # 2 ** exponent
    weight = arrays[node.input[1]].astype(np.float64) / power[:, None, None, None]
    return weight, (arrays[node.input[2]] - np.floor(1 / scale / 2)) / (power * ACTIVATION_UNIT)


def _shifted(graph: onnx.GraphProto, conv: onnx.NodeProto) -> slice:
    """Channels of what a layer for 8-bit kernels takes that stand for 128 less than they are; see `eocodec_export`."""
    makers = {node.output[0]: node for node in graph.node}
    joined = makers.get(conv.input[0])
    if joined is None or joined.op_type != "Concat":
        return slice(0)
    channels = {i.name: i.type.tensor_type.shape.dim[1].dim_value for i in graph.input}
    sizes: list[int] = []  # of the parts with a sign, which are inputs; the one part without has all other channels
    for name in joined.input:
        node = makers.get(makers[name].input[0])
        signed = node is not None and node.op_type == "QuantizeLinear"
        sizes.append(channels[makers[node.input[0]].input[0]] if node is not None and signed else 0)
    if all(sizes):
        return slice(0)
    total = next(t.dims[1] for t in graph.initializer if t.name == conv.input[3])
    start = sum(sizes[: sizes.index(0)])
    return slice(start, start + total - sum(sizes))


def _output(node: onnx.NodeProto, users: dict[str, onnx.NodeProto]) -> str:
    """Name of the output that a convolution ends in after its rounding, or empty."""
    for _ in range(4):  # Mul, Floor, Clip, Cast
        if node.output[0] not in users:
            return ""
        node = users[node.output[0]]
    return node.output[0] if node.op_type == "Cast" and node.output[0] in UNITS else ""


def _sizes(manifest: dict[str, Any], weights: Arrays) -> PhotoConfig:
    """The sizes that a bundle says it has, or those of its parameters if it is from before bundles said it."""
    if "sizes" in manifest:
        known = {f.name for f in fields(PhotoConfig)}
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in manifest["sizes"].items() if k in known
        }
        return PhotoConfig(**{**sizes, "gain_widths": (), "embedded": "embedded.feature.1.convs.0.weight" in weights})
    return PhotoConfig(
        levels=manifest["levels"],
        width=weights["flow.levels.0.predict.0.net.0.weight"].shape[0],
        steps=len([k for k in weights if re.match(r"flow\.levels\.0\.predict\.\d+\.net\.0\.weight", k)]),
        features=weights["latents.context.feature.1.convs.0.weight"].shape[0],
        context_width=weights["latents.context.luma.1.0.convs.0.weight"].shape[0],
        refine_width=weights["refine.net.net.0.weight"].shape[0],
        refine_depth=len([k for k in weights if re.match(r"refine\.net\.net\.\d+\.weight", k)]),
        embedded="embedded.feature.1.convs.0.weight" in weights,
    )
