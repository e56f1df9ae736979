"""Bundles for tests of decoders: with a list of parts, without some parts, and with what no bundle may hold."""

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES, VECTORS
from PIL import Image

import eocodec
from eocodec import format
from eocodec.model.bundle import read_bundle

SMALL = read_bundle(VECTORS / "small.eocm")


def zipped(files: Mapping[str, bytes]) -> bytes:
    """The bytes of a bundle that says nothing of its id."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def without_grey() -> dict[str, bytes]:
    """`small-grey.eocm` without its part for grey pictures; the id is the same."""
    return {n: c for n, c in read_bundle(VECTORS / "small-grey.eocm").items() if not n.startswith("grey/")}


@functools.cache
def exact_files() -> dict[str, tuple[np.ndarray, bytes]]:
    """Pictures and their lossless files by the shipped model, whose nets look around; no vector's bundle has such."""
    chelsea = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))
    colour = chelsea[90:131, 200:234]
    large = Image.fromarray(chelsea[..., 1]).resize((620, 430), Image.Resampling.BICUBIC)
    gaps = chelsea[60:220, 100:300].astype(np.uint16) * 5 // 6 * 6 // 5  # a tone curve, which no sixth level survives
    pictures = {
        "colour": colour,
        "grey": np.repeat(colour[..., 1:2], 3, 2),
        "weights": gaps.astype(np.uint8),
        "deep": colour.astype(np.uint16) * 181 + (colour[..., ::-1] & 31),
        "narrow": colour[:, :1],
        "strips": np.repeat(np.asarray(large)[..., None], 3, 2),  # more places than a strip has
    }
    return {name: (picture, eocodec.compress(picture, lossless=True)) for name, picture in pictures.items()}


def with_list(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with a list of them as parts, as docs/FORMAT.md has it."""
    entries = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in files.items()}
    beside = {n: e for n, e in entries.items() if n.startswith(("encoder.", "denoise/"))}
    decoding = {n: e for n, e in entries.items() if n not in beside}
    return {**files, "parts.json": json.dumps({"decoding": decoding, "beside": beside}).encode()}


def id_of(files: Mapping[str, bytes]) -> bytes:
    """The full id of a bundle with a list, or of one without."""
    digest = hashlib.sha256()
    if "parts.json" in files:
        for name, (size, of_content) in sorted(json.loads(files["parts.json"])["decoding"].items()):
            digest.update(f"{name} {size} {of_content}\n".encode())
    else:
        for name, content in sorted(files.items()):
            digest.update(len(name).to_bytes(4, "little") + name.encode())
            digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def named(vector: str, files: Mapping[str, bytes]) -> bytes:
    """A vector as if the model of these files had made it."""
    file = format.parse((VECTORS / f"{vector}.eoc").read_bytes())
    return format.serialise(replace(file, header=replace(file.header, model=id_of(files)[:4])))


LISTED = with_list(SMALL)
MOST = {**SMALL, **{f"extra{k}": b"" for k in range(256 - len(SMALL))}}
"""As many files as a bundle may have."""
STRIPPED = {n: c for n, c in LISTED.items() if n not in ("encoder.onnx", "progressive.bin")}
STRIPPED = {n: c for n, c in STRIPPED.items() if not n.startswith("embedded/")}


def _with_graph(content: bytes) -> dict[str, bytes]:
    return {**SMALL, "decoder.onnx": content}


DECODER = SMALL["decoder.onnx"]
HOSTILE = {
    "operator": (
        _with_graph(DECODER.replace(b"\x22\x04Conv", b"\x22\x04Loop")),
        "a bundle must not: the operator Loop",
    ),
    "domain": (_with_graph(DECODER.replace(b"\x22\x04Conv", b"\x3a\x04Conv")), "a bundle must not: "),
    "function": (_with_graph(DECODER + b"\xca\x01\x00"), "functions or training"),
    "second graph": (_with_graph(DECODER + b"\x3a\x00"), "graph is damaged"),
    "hidden graph": (_with_graph(DECODER + b"\xba\x80\x80\x80\x10\x00"), "graph is damaged"),  # 33 bits of number 7
    "cut": (_with_graph(DECODER[:-1]), "graph is damaged"),
    "unlisted": ({**LISTED, "more": b""}, "more is not what its list of parts says"),
    "changed": ({**LISTED, "tables.bin": SMALL["tables.bin"] + b"\0"}, "tables.bin is not what its list of parts says"),
    "many": ({**SMALL, **{f"extra{k}": b"" for k in range(257 - len(SMALL))}}, "larger than allowed"),
    "no list": ({**SMALL, "parts.json": b'{"decoding": {}}'}, "list of parts cannot be read"),
}
"""Files of bundles that a decoder must refuse, and part of what it must say."""

GREY = {n: c for n, c in read_bundle(VECTORS / "small-grey.eocm").items() if n != "parts.json"}
FLAT = {"kind": "flat", "size": 8, "gain": [0.0] * 192, "scale": [0] * 192, "blocks": [10], "rest_step": 100, "tiny": 0,
        "entropy": [0.0] * 192, "noise": [0.0] * 192, "drop": [[1.0, 2]]}  # fmt: skip
UNREADABLE = {
    "no JSON": b"{",
    "a list": b"[1]",
    "a number": b"1",
    "no text": b"\xff\xfe{",
    "nested deeply": b"[" * 100_000,
}
WRONG: dict[str, dict[str, Any]] = {
    "no gain": {"gain": None},
    "gain of no bands": {"gain": []},
    "gain of other channels": {"gain": [[0.0]]},
    "gain without bound": {"gain": [[1e300]] * 4},
    "no shift": {"shift": None},
    "shift of other tables": {"shift": [[0, 0, 0]]},
    "levels": {"levels": 2},
    "no levels": {"levels": "3"},
    "no low_index": {"low_index": 3},
    "low_index of one kind": {"low_index": [[[0]]]},
    "low_index with an empty kind": {"low_index": [[[0]] * 5 + [[]]] * 3},
    "low_index beyond the tables": {"low_index": [[[64]] * 6] * 3},
    "no number in low_index": {"low_index": [[["0"]] * 6] * 3},
    "eye": {"eye": [1]},
    "no truth": {"rotated": 3},
}


def _spoiled(vector: str, bundle: dict[str, bytes], name: str) -> dict[str, tuple[str, dict[str, bytes]]]:
    """A vector's name and a bundle for it, one manifest of which cannot be read or holds what it must not."""
    manifest, axes = json.loads(bundle[name]), 1 if name.startswith("grey/") else 3
    wrong = {what: {k: v[:axes] if k == "low_index" and isinstance(v, list) else v for k, v in change.items()}
             for what, change in WRONG.items()}  # fmt: skip
    contents = UNREADABLE | {what: json.dumps({**manifest, **change}).encode() for what, change in wrong.items()}
    return {f"{name}: {what}": (vector, {**bundle, name: content}) for what, content in contents.items()}


def _looks(channels: int, rank: int = 4) -> bytes:
    """A graph that takes what nets see of phase 0 and gives so many features; with 0 as many as there are rows."""
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra train, is not installed")
    from onnx import TensorProto as T

    def node(operator: str, *names: str, **attributes: Any) -> Any:
        return onnx.helper.make_node(operator, names[:-1], names[-1:], **attributes)

    def constant(name: str, value: int) -> Any:
        return onnx.numpy_helper.from_array(np.array([value], np.int64), name)

    nodes = [node("Cast", "context", "bytes", to=T.UINT8), node("Shape", "context", "shape", start=2, end=3)]
    nodes.append(node("Concat", *["bytes"] * 30, "many", axis=1))
    nodes.append(node("Slice", "many", "zero", "count" if channels else "shape", "one", "cut"))
    nodes.append(node("Identity", "cut", "features") if rank == 4 else node("Reshape", "cut", "flat", "features"))
    inputs = [onnx.helper.make_tensor_value_info("context", T.INT16, [1, 9, "rows", "columns"])]
    outputs = [onnx.helper.make_tensor_value_info("features", T.UINT8, [None] * rank)]
    numbers = [constant("zero", 0), constant("one", 1), constant("count", channels), constant("flat", -1)]
    graph = onnx.helper.make_graph(nodes, "looks around", inputs, outputs, numbers)
    opset = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def looking_wrongly() -> dict[str, tuple[dict[str, bytes], bytes]]:
    """Bundles with a net that looks around and gives what it must not, and a grey file of each with two strips."""
    files = read_bundle(VECTORS / "small-lossless.eocm")
    result = {}
    for what, graph in {"as many as rows": _looks(0), "256": _looks(256), "none": _looks(4, rank=1)}.items():
        bundle = {**files, "lossless/1_0_features.onnx": graph}
        bundle.pop("parts.json")
        header = format.Header(id_of(bundle)[:4], 1024, 264, 0, format.LOSSLESS_STEP, grey=True)
        result[what] = bundle, format.serialise(format.File(header, None, (), lossless=bytes(13)))
    return result


UNFIT = "the model bundle's graphs do not give what they should"
"""What is said of them."""

MANIFESTS = {
    **_spoiled("small-tuned-coarse", SMALL, "manifest.json"),
    **_spoiled("axis", GREY, "grey/manifest.json"),
    "grey/manifest.json: another kind": (
        "axis",
        {**GREY, "grey/manifest.json": json.dumps({**json.loads(GREY["grey/manifest.json"]), **FLAT}).encode()},
    ),
}
"""Names of vectors, and files of bundles whose manifest or that of whose part for grey pictures must be refused."""
SPOILED = r"the model bundle('s (manifest|tables))? (lacks or spoils|is damaged|(is|are) inconsistent|holds numbers)"
"""What is said of them."""
