"""Bundles for tests of decoders: with a list of parts, without some parts, and with what no bundle may hold."""

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
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


def spoilt_grey() -> dict[str, dict[str, bytes]]:
    """`small-grey.eocm` with a part for grey pictures that is none, by what is wrong with it."""
    files = {n: c for n, c in read_bundle(VECTORS / "small-grey.eocm").items() if n != "parts.json"}
    own = json.loads(files["grey/manifest.json"])
    flat = {"kind": "flat", "size": 16, "levels": 2, "blocks": [4], "coarse": 4, "gain": [0.0] * 4}
    contents = {
        "no JSON": b"{",
        "deep JSON": b"[" * 200_000,
        "of one size": json.dumps({**own, **flat}).encode(),
        **{
            f"{name}: {value}": json.dumps({**own, name: value}).encode()
            for name, value in (("gain", None), ("shift", None), ("low_index", 3), ("low_index", [[[0]]]))
        },
    }
    return {name: with_list({**files, "grey/manifest.json": content}) for name, content in contents.items()}


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
    "no list": ({**SMALL, "parts.json": b'{"decoding": {}}'}, "list of parts cannot be read"),
}
"""Files of bundles that a decoder must refuse, and part of what it must say."""
