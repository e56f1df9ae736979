"""Make `face64-tiny.eocm`: of the model `face64` only what decodes placeholders of a few dozen bytes, in two megabytes.

In: the bundle `face64.eocm`. Out: a bundle for the decoders under `samples/`, not for the library. It has the first 128
latents, whose integer nets, tables and therefore symbols are exactly those of `face64`; all others are zero. Of the
rotation it has the reflections that these latents need. Reflections and the decoder's weights are rounded more, so that
pictures differ a little: by 40 dB. Files with finer steps than :data:`FROM` say more than that, and are refused.

    python samples/web/make_face64_tiny.py eocodec/models/face64.eocm samples/web/face64-tiny.eocm
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from eocodec.model.bundle import read_bundle, write_bundle
from eocodec.model.rotation import dimensions

CORE = 128  # latents that are kept: one block of reflections
FROM = 32768 + 3072 + 64 * 220  # step code of Δ = 332 levels; 32 bytes give larger steps
COARSE = 0.12  # of the first reflections, in root mean squares: they have 16 bits, and need not in so small a bundle
WEIGHTS = 0.095  # how coarse the decoder's weights are, in root mean squares of an output channel's
LEAST = 2000  # numbers from which on an array is worth rounding


def basis(content: bytes) -> bytes:
    """The first reflections, rounded."""
    dims, _, ends = dimensions(content)
    scales, large = (np.frombuffer(content[a:b], "<f4").copy() for a, b in pairwise(ends[:3]))
    fine = np.frombuffer(content[ends[3] : ends[4]], "<i2").reshape(-1, dims).astype(np.float64)
    coarse = np.frombuffer(content[ends[4] : ends[5]], "<i1").reshape(-1, dims)
    place = np.arange(len(fine))
    fine[place, place] = 0
    step = np.maximum(1, np.round(COARSE * np.sqrt((fine**2).mean(1))))
    scales[: len(fine)] *= step
    return b"".join(
        [
            np.array([dims, CORE], "<u4").tobytes(),
            scales[:CORE].tobytes(),
            large[:CORE].tobytes(),
            content[ends[2] : ends[3]],
            np.rint(fine / step[:, None]).astype("<i2").tobytes(),
            coarse[: CORE - len(fine)].tobytes(),
        ]
    )


def _rounded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and their steps, one for each entry of the first axis."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    step = WEIGHTS * np.sqrt((rows**2).mean(1, keepdims=True))
    step = np.maximum(step, np.maximum(np.abs(rows).max(1, keepdims=True) / 127, 1e-30))
    integers = np.rint(rows / step).astype(np.int8).reshape(values.shape)
    return integers, step.astype(np.float32).reshape(len(values), *[1] * (values.ndim - 1))


def decoder(content: bytes) -> bytes:
    """The decoder with one block of reflections and weights of 8 bits, which it expands when it is opened."""
    model = onnx.load_from_string(content)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    numbers = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    numbers |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    turned = next(n.output[0] for n in graph.node if n.op_type == "Mul" and "signs" in n.input)
    for node in graph.node:  # the block that comes last here is the first; no other comes before it
        if node.op_type == "Gather" and node.input[0] == "reflections" and numbers[node.input[1]] == 0:
            (product,) = (n for n in graph.node if n.op_type == "Gemm" and n.input[1] == node.output[0])
            before = product.input[0]
            product.input[0] = turned
            (rest,) = (n for n in graph.node if n.op_type == "Sub" and n.input[0] == before and n.output[0] in
                       _after(graph, product.output[0]))  # fmt: skip
            rest.input[0] = turned
    for tensor in graph.input:
        if tensor.name in ("reflections", "middles"):
            tensor.type.tensor_type.shape.dim[0].dim_value = 1
    head = numbers["flow.couplings.1.net.4.weight/short"].shape[0]
    wanted = _needed(graph, makers)
    nodes, kept = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name.startswith("flow.couplings.0.net.4"):
            values = np.where(np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) < CORE - head, values, 0)
        if tensor.name.startswith("flow.couplings.1.net.0.weight"):
            values = np.where(np.arange(values.shape[1]) < CORE - head, values, 0)
        if not tensor.name.endswith("/short") or values.dtype != np.float16 or values.size < LEAST:
            kept.append(numpy_helper.from_array(np.ascontiguousarray(values, values.dtype), tensor.name))
            continue
        shape = values.shape
        if values.ndim == 4 and shape[0] == 1:  # what is added at every place: a step for each channel
            values = values[0]
        elif values.ndim == 1:
            values = values[None]
        integers, steps = _rounded(values)
        if len(shape) == 4 and shape[0] == 1:
            integers, steps = integers[None], steps[None]
        elif len(shape) == 1:
            integers, steps = integers[0], steps[0]
        name = tensor.name.removesuffix("/short")
        kept += [numpy_helper.from_array(integers, f"{name}/few"), numpy_helper.from_array(steps, f"{name}/step")]
        nodes.append(helper.make_node("Cast", [f"{name}/few"], [f"{name}/whole"], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}/whole", f"{name}/step"], [name]))
    made = {n.output[0] for n in nodes}
    nodes += [n for n in graph.node if any(o in wanted for o in n.output) and n.output[0] not in made]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _after(graph: onnx.GraphProto, name: str) -> set[str]:
    """What is computed from a tensor."""
    found = {name}
    for node in graph.node:  # in the order of computation
        if found & set(node.input):
            found |= set(node.output)
    return found


def _needed(graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto]) -> set[str]:
    """What the outputs are computed from."""
    found: set[str] = set()
    open_ = [o.name for o in graph.output]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += makers[name].input if name in makers else []
    return found


def derive(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of the small bundle."""
    manifest = json.loads(files["manifest.json"])
    blocks = [end for end in manifest["blocks"] if end <= CORE]
    rest = len(manifest["gain"]) - CORE
    short = {key: [*manifest[key][:CORE], *[0] * rest] for key in ("gain", "scale")}
    keys = ("format", "kind", "licence", "rest_step", "shift", "size", "tiny")
    small = {"name": "face64-tiny", "from_step": FROM, "blocks": blocks, **{k: manifest[k] for k in keys}, **short}
    return {
        "manifest.json": json.dumps(small, separators=(",", ":")).encode(),
        "basis.bin": basis(files["basis.bin"]),
        "decoder.onnx": decoder(files["decoder.onnx"]),
        **{name: files[name] for name in ("compand.bin", "tables.bin")},
        **{name: files[name] for name in (f"entropy/block{k}.onnx" for k in range(len(blocks)))},
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    if target.exists() and target.samefile(source):
        sys.exit(f"{target} is the model itself; choose another output")
    write_bundle(target, derive(read_bundle(source)))
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
