"""Decode `.eoc` pictures with ONNX Runtime and NumPy alone: one file to copy into another program.

In: a model bundle (`.eocm`) and the bytes of an `.eoc` file. Out: `(H, W, 3)`, `(H, W, 4)` with transparency; uint8, or
uint16 of files of 16 bits a sample.
docs/FORMAT.md gives every byte and integer that is read here; names and letters are those of that page. Transparency
and lossless files also need zstd (`pip install zstandard`, or Python from 3.14 on), and those that have a WebP stream
in its place, and pages, need Pillow.

    python embed.py photo.eocm picture.eoc picture.png

    bundle = Bundle("photo.eocm")                      # load once: it keeps the sessions
    picture = decode(path.read_bytes(), bundle)        # raises Rejected with a sentence for people

    decode ─┬─ parse ─┬─ Ordinary ─┬─ Walk: nets in coding order ── SymbolReader ── RangeDecoder
            │         ├─ Embedded ─┘  then synthesise: latents to pixels
            │         ├─ Lossless
            │         └─ _decode_page: a WebP stream, and an Ordinary for each photograph
            └─ _tiny ──── _decode_flat
"""

import argparse
import base64
import copy
import functools
import hashlib
import io
import json
import math
import os
import secrets
import struct
import sys
import zipfile
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations, pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime from 1.29 on reads it when it is imported
import onnxruntime

__all__ = ["Bundle", "Rejected", "decode", "decode_with_symbols"]

Array = npt.NDArray[Any]

STEP_UNIT = 2048  # log2 of the step Δ (8-bit levels) is stored in 1/2048 …
STEP_ORIGIN = 32768  # … around this
LOSSLESS_UNITS = 37
MAX_ELEMENT = 4096  # bytes of lossless parameters or of a choice of tables
MAX_PIXELS = 1 << 28
MAX_TUNING = 32
MAX_PHOTOGRAPHS = 64
LARGEST_OFFSET = 32  # of a map's entry, in 1/16 octave
STRIP = 65536  # positions of a strip; nets and coder work strip by strip
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # (row, column) in the 2×2 quads
NO_REFINEMENT = 1e-4  # the decoder's `step` where Δ is too fine for its refinement
FLOW_ALONE = 1e-6  # … in files whose picture then is that of the flow: it refines nothing
PIECE = 1024  # bytes that zstd unpacks at a time: it may make 30,000 of each
COARSEST_STEP = 256.0  # levels; that of embedded streams whose Δ is larger
MIDDLE = 128  # 8-bit level of a picture of which nothing is known
LOOK_AHEAD = 16  # bytes that stand for those that are missing behind a low-pass that is cut off
DEEP_FLAG, LUMA_FLAG, WEBP_FLAG = 32, 64, 128
KIND_FLAGS = {1: 0, 2: 16, 3: DEEP_FLAG | LUMA_FLAG, 4: DEEP_FLAG}  # besides those that any kind may have
WEBP = 3  # first byte of packed samples: a WebP stream comes
WEBP_SIGNATURE = 0x2F  # first byte of such a stream


class Rejected(ValueError):
    """A file or bundle that cannot be decoded; its text is one sentence for people."""


class CutOff(Exception):
    """The bytes end inside an element."""


class Bundle:
    """A model: graphs, tables and a manifest, checked by size before they are unpacked.

    Parts that a file does not need may be missing: the encoder, or what embedded streams or lossless files take.

    Arguments:
        path: of the `.eocm` file.

    Attributes:
        id: SHA-256 of the content or of its list of parts; files name their model by its first four bytes.

    Raises:
        Rejected: not a bundle, or a damaged one.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        files = _unzip(Path(path))
        self.id = _identity(files)
        self._read(files, {}, 3)

    def _read(self, files: dict[str, bytes], whole: dict[str, Any], axes: int) -> None:
        """Take in a model, which must have so many colour axes, and say it in a sentence if that cannot be done.

        Arguments:
            files: its own.
            whole: manifest of the bundle that it is a part of, for what its own does not say.
            axes: of colour.
        """
        self.files, self.axes = files, axes
        try:
            self.manifest = {**whole, **json.loads(files["manifest.json"])}
            version, kind = self.manifest["format"], self.manifest.get("kind", "photo")
            self.flat = kind == "flat"
            self.tables = _tables(self.files["tables.bin"], mirrored=True)
            magnitude = np.frombuffer(self.files["compand.bin"], np.uint8).astype(np.int8)
            if kind not in (("photo", "flat") if axes == 3 else ("photo",)):
                raise ValueError("another kind of model")
            if not _consistent(self.manifest, axes, len(self.tables)) or len(magnitude) < 2 or magnitude.min() < 0:
                raise ValueError("numbers that do not fit")
            shift = np.array(self.manifest["shift"], np.float32) / 256
            self.units = len(self.manifest["blocks"]) + 1 if self.flat else 1 + 6 * self.manifest["levels"]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
            raise Rejected(f"the model bundle lacks or spoils its manifest ({e})") from e
        if version != 1:
            raise Rejected("the model bundle has another version than this program reads")
        self.shift = np.pad(shift, ((0, 0), (1, 0)))  # by table index and min(|m|, 3)
        self._companded = np.concatenate([-magnitude[:0:-1], magnitude])
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    @functools.cached_property
    def grey(self) -> "Bundle":
        """The model for grey pictures alone in a bundle: its files, and what the bundle's own manifest has besides."""
        own = {name.removeprefix("grey/"): content for name, content in self.files.items() if name.startswith("grey/")}
        if self.flat or "manifest.json" not in own:
            raise Rejected("this bundle lacks its part for grey pictures, which the file needs")
        model = copy.copy(self)
        model._read({"compand.bin": self.file("compand.bin"), **own}, self.manifest, 1)
        return model

    def file(self, name: str) -> bytes:
        """The content of a file."""
        if name not in self.files:
            raise Rejected(f"the model bundle lacks {name}, which this file needs")
        return self.files[name]

    def compand(self, v: Array) -> Array:
        """What the nets see of values in 1/16 steps: int8, odd in v."""
        last = len(self._companded) // 2
        companded: Array = self._companded[np.clip(v, -last, last) + last]
        return companded

    def dequantise(self, m: Array, mean: Array, index: Array) -> Array:
        """Values in steps, float32, of residuals m around means (1/16 steps), coded with the tables `index`."""
        towards_zero = np.sign(m) * self.shift[index, np.minimum(np.abs(m), 3)]
        return (m - towards_zero + mean / 16).astype(np.float32)

    def run(self, graph: str, **inputs: Array) -> list[Array]:
        """Run one graph; its outputs in the graph's order.

        The integer nets are exact on ONNX Runtime's CPU provider: others may round convolutions.
        """
        try:
            if graph not in self._sessions:
                content = self.file(f"{graph}.onnx")
                _check_graph(content)
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4  # what fails is said below
                # Each session has a pool of its own: some thirty of them, one for every net, would be too many threads.
                options.intra_op_num_threads = 0 if graph == "decoder" else 1
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
                self._sessions[graph] = onnxruntime.InferenceSession(
                    content, options, providers=["CPUExecutionProvider"]
                )
            return list(self._sessions[graph].run(None, inputs))
        except Rejected:
            raise
        except Exception as e:  # onnxruntime's own exception classes are not exported
            raise Rejected(f"the model's graph {graph} failed: {str(e).splitlines()[0]}") from e

    @functools.cached_property
    def lossless_tables(self) -> list[list[int]]:
        """The tables of lossless files."""
        return _tables(self.file("lossless/tables.bin"), mirrored=False)

    @functools.cached_property
    def lossless_windows(self) -> tuple[Array, list[list[int]]]:
        """What weighted samples of lossless files take instead, see :func:`_windows`."""
        return _windows(self.lossless_tables)

    @functools.cached_property
    def rotation(self) -> dict[str, Array]:
        """What a flat model's decoder takes besides the latents: reflections in blocks of 128 in compact WY form."""
        content = io.BytesIO(self.file("basis.bin"))

        def numbers(kind: str, *shape: int) -> Array:
            size = math.prod(shape) * np.dtype(kind).itemsize
            return np.frombuffer(content.read(size), kind).reshape(shape)

        dims, rank = numbers("<u4", 2).tolist()
        scale, large, signs = numbers("<f4", rank), numbers("<f4", rank), numbers("i1", dims)
        fine = min(rank, 64)
        rows = np.zeros((-(-rank // 128) * 128, dims), np.float32)
        rows[:fine], rows[fine:rank] = numbers("<i2", fine, dims), numbers("i1", rank - fine, dims)
        rows[:rank] *= scale[:, None]
        rows[range(rank), range(rank)] = large
        v = rows.reshape(-1, 128, dims)
        gram = (v @ v.transpose(0, 2, 1)).astype(np.float64)
        diagonal = np.einsum("nii->ni", gram)
        halves = np.where(diagonal > 0, diagonal / 2, 1)[:, None] * np.eye(128)
        middles = np.linalg.inv(np.triu(gram, 1) + halves).astype(np.float32)
        return {"reflections": v, "middles": middles, "signs": signs.astype(np.float32)}


def _numbers(value: Any, lowest: float, highest: float, count: int = 0, kinds: tuple[type, ...] = (int,)) -> bool:
    """Whether a value is a list of numbers in a range, so many of them or, with 0, at least one."""
    right = isinstance(value, list) and len(value) == (count or max(1, len(value)))
    return right and all(type(v) in kinds and lowest <= v <= highest for v in value)


def _consistent(manifest: dict[str, Any], axes: int, tables: int) -> bool:
    """Whether the numbers of a manifest fit one another, so many colour axes and tables.

    Raises:
        KeyError, TypeError: what is needed is missing or no list.
    """
    shift, gain, real = manifest["shift"], manifest["gain"], (int, float)
    fits = tables <= 64 and len(shift) == tables and all(_numbers(row, -65536, 65536, 3) for row in shift)
    if manifest.get("kind") == "flat":
        size, blocks = manifest["size"], manifest["blocks"]
        fits = fits and _numbers([size], 8, 128)
        latents = 3 * size**2 if fits else 0
        fits = fits and _numbers(gain, -100, 100, latents, real) and _numbers(blocks, 1, latents)
        fits = fits and blocks == sorted(set(blocks)) and _numbers(manifest["scale"], -(1 << 30), 1 << 30, latents)
        return fits and _numbers([manifest["rest_step"]], 0, 65535) and _numbers([manifest["tiny"]], 0, 3)
    levels, low_index = manifest["levels"], manifest["low_index"]
    fits = fits and _numbers([levels], 1, 8) and len(gain) == levels + 1 and len(low_index) == axes
    fits = fits and all(_numbers(g, -100, 100, 3 * axes if k else axes, real) for k, g in enumerate(gain))
    fits = fits and all(len(kinds) == 6 and all(_numbers(k, 0, tables - 1) for k in kinds) for kinds in low_index)
    fits = fits and _numbers([manifest["refine_from"]], 0, 1e9, 1, real)
    fits = fits and all(type(manifest.get(name, False)) is bool for name in ("rotated", "tuned"))
    return fits and (not manifest.get("tuned") or _numbers(manifest["eye"], -64, 64, levels + 1))


def _unzip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            sizes = [e.file_size for e in entries]
            if len(sizes) > 256 or max(sizes, default=0) > 64 << 20 or sum(sizes) > 256 << 20:
                raise Rejected(f"{path}: the model bundle is larger than allowed")
            return {e.filename: archive.read(e) for e in entries}
    except (OSError, Rejected):
        raise
    except Exception as e:  # zipfile lets zlib's and its own errors of many kinds through
        raise Rejected(f"{path}: not a model bundle, or a damaged one ({e})") from None


# Ids of bundles that are older than lists of parts, by the SHA-256 that their list would have: photo, face64.
ANCESTORS = {
    "ba6e0980bd42ebfc17190da20b1e138fb0528c5ee51cbbba310c59a08e70178b": (
        "26cc94c0a96a772cb349dacacae13926043a63b49bbfff6929a775e6f18c6a36"
    ),
    "03e904950c432b339ba6bc8e8255cda6a035373e91167504c1a854f1a44ce709": (
        "5f2b99a22f894e653d293ae8afc0baa7711a14d9e28e54c83335e3ff52c4c90a"
    ),
}


def _identity(files: dict[str, bytes]) -> bytes:
    """The full id of a bundle's files, which must be those on its list of parts, if it has one."""
    digest = hashlib.sha256()
    if "parts.json" not in files:
        for name in sorted(n for n in files if not n.startswith("denoise/")):
            content = files[name]
            digest.update(struct.pack("<I", len(name)) + name.encode() + struct.pack("<Q", len(content)) + content)
        return digest.digest()
    try:
        groups = json.loads(files["parts.json"])
        decoding, beside = groups["decoding"], groups["beside"]
        for name, (size, of_content) in sorted(decoding.items()):
            if " " in name or "\n" in name:
                raise ValueError(name)
            digest.update(f"{name} {int(size)} {of_content}\n".encode())
        known = beside | decoding
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise Rejected(f"the model bundle's list of parts cannot be read ({e})") from None
    for name, content in files.items():
        if name != "parts.json" and known.get(name) != [len(content), hashlib.sha256(content).hexdigest()]:
            raise Rejected(f"the model bundle is damaged: {name} is not what its list of parts says")
    found = digest.hexdigest()
    return bytes.fromhex(ANCESTORS.get(found, found))


# Arithmetic on tensors: none of it runs other graphs, calls out of the runtime, or touches files.
# fmt: off
OPERATORS = frozenset((
    "Abs", "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace",
    "DequantizeLinear", "Div", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gemm", "Greater", "Identity",
    "Less", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "QLinearConv", "QuantizeLinear", "Reciprocal",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Sign", "Slice", "Softplus", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
FORBIDDEN = "the model's graph holds what a bundle must not: "


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of every field of a protocol buffer's message: an integer, or the bytes of anything else."""
    at = 0

    def number() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise IndexError

    try:
        while at < len(data):
            key = number()
            kind = key & 7
            if key >> 32 or kind not in (0, 1, 2, 5):  # a reader of 32 bits would take larger keys for others
                raise IndexError
            if kind == 0:
                yield key >> 3, number()
                continue
            length = number() if kind == 2 else 8 if kind == 1 else 4
            if at + length > len(data):
                raise IndexError
            yield key >> 3, data[at : at + length]
            at += length
    except IndexError:
        raise Rejected("the model's graph is damaged") from None


def _messages(data: bytes, *numbers: int) -> list[bytes]:
    """The contents of the fields with these numbers."""
    found = [value for number, value in _fields(data) if number in numbers]
    if any(isinstance(value, int) for value in found):
        raise Rejected("the model's graph is damaged")
    return found  # type: ignore[return-value]


def _check_graph(content: bytes) -> None:
    """Refuse graphs that hold anything but arithmetic of the standard operators on tensors of their own.

    The numbers are those of the fields in onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
    """
    if any(number in (20, 25) for number, _ in _fields(content)):
        raise Rejected(f"{FORBIDDEN}functions or training")
    graphs = _messages(content, 7)
    if len(graphs) != 1:
        raise Rejected("the model's graph is damaged")
    nodes, tensors = _messages(graphs[0], 1), _messages(graphs[0], 5)
    if len(nodes) > 20_000:
        raise Rejected(f"{FORBIDDEN}more than 20000 nodes")
    others = _messages(graphs[0], 15)
    for node in nodes:
        operators = [name.decode("ascii", "replace") for name in _messages(node, 4)]
        standard = all(domain in (b"", b"ai.onnx") for domain in _messages(node, 7))
        if not (standard and len(operators) == 1 and operators[0] in OPERATORS):
            raise Rejected(f"{FORBIDDEN}the operator {', '.join(operators)[:40]}")
        for attribute in _messages(node, 5):
            others += _messages(attribute, 6, 11, 22, 23)
            tensors += _messages(attribute, 5, 10)
    if others:
        raise Rejected(f"{FORBIDDEN}subgraphs or sparse tensors")
    for tensor in tensors:
        fields = list(_fields(tensor))
        if any(number == 13 or (number == 14 and value != 0) for number, value in fields):
            raise Rejected(f"{FORBIDDEN}tensors from other files")
        if sum(number == 1 for number, _ in fields) > 8:
            raise Rejected(f"{FORBIDDEN}tensors of more than eight dimensions")


def _tables(content: bytes, mirrored: bool) -> list[list[int]]:
    """Cumulative frequencies of the symbols 0 … 2R of every table, from 0 to 2²⁴."""
    tables, at = [], 1
    try:
        words = np.frombuffer(content, "<u4").astype(np.int64)
        for _ in range(int(words[0])):
            f = words[at + 1 : at + 1 + words[at]]
            at += 1 + len(f)
            cumulative = [0, *np.cumsum(np.concatenate([f[:0:-1], f]) if mirrored else f).tolist()]
            if cumulative[-1] != 1 << 24 or (f < 1).any():
                raise ValueError("other frequencies")
            tables.append(cumulative)
    except (IndexError, ValueError):
        raise Rejected("the model bundle's tables are damaged") from None
    return tables


@dataclass(frozen=True)
class File:
    """A file taken apart: what its header says, and the elements that are whole.

    `segments` are pairs of a number of coding units and their range coder stream; `stream` is an embedded stream,
    `lossless` the lossless element, `choice` that of tables, `alpha` and `offsets` the packed transparency and map of
    steps, None in files without. `tuning` is 0 in files that are not tuned. `deep`: samples have 16 bits. `luma`: there
    are no chroma units. `webp`: WebP streams are allowed in place of zstd frames. `page` is the element of a page, None
    in other files; the segments of a page are files of its photographs. `axes`: 1 in files of grey pictures by the
    model for them in the bundle, else 3. `span`: the levels that 0 and 1 stand for.
    """

    model: bytes
    grey: bool
    width: int
    height: int
    step: int
    tuning: int
    deep: bool
    luma: bool
    webp: bool
    alpha: bytes | None
    offsets: bytes | None
    shifts: bytes | None
    lossless: bytes | None
    choice: bytes | None
    stream: bytes | None
    segments: list[tuple[int, bytes]]
    page: bytes | None = None
    axes: int = 3
    span: tuple[int, int] = (0, 255)


def delta_of(step: int) -> float:
    """The step Δ in 8-bit levels of a header's code."""
    return float(2.0 ** ((step - STEP_ORIGIN) / STEP_UNIT))


class Cursor:
    """A place in bytes that moves as they are read."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if self.at + n > len(self.content):
            raise CutOff
        self.at += n
        return self.content[self.at - n : self.at]

    def varint(self) -> int:
        """Unsigned LEB128 in its shortest form, at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    raise Rejected("the file is damaged: a number is not in its shortest form")
                return value
        raise Rejected("the file is damaged: a number is longer than five bytes")


SIDES = {1: "the transparency", 2: "the map of steps", 3: "the shifts of tables"}


def parse(content: bytes) -> File:
    """Take a file, or a prefix of one, apart; everything is checked before anything is allocated for the picture."""
    if not content or not b"EOC".startswith(content[:3]):
        raise Rejected("not an .eoc file")
    cursor = Cursor(content)
    ordinal = 0

    def check(start: int, what: str) -> None:
        nonlocal ordinal
        element = content[start : cursor.at]
        crc = zlib.crc32(element, zlib.crc32(bytes([ordinal & 255]), zlib.crc32(head)))
        if cursor.take(4) != crc.to_bytes(4, "little"):
            raise Rejected(f"the file is damaged: the checksum of {what} does not match")
        ordinal += 1

    def element(what: str, most: int = MAX_ELEMENT) -> bytes:
        start, length = cursor.at, cursor.varint()
        if length > most:
            raise Rejected(f"the file is damaged: its {what} cannot be read")
        inside = cursor.take(length)
        check(start, f"the {what}")
        return inside

    try:
        version = cursor.take(4)[3]
        if version not in (1, 2):
            raise Rejected(f"the file has format version {version}; this program reads versions 1 and 2")
        model, flags = cursor.take(4), cursor.take(1)[0]
        kind = cursor.take(1)[0] if version == 2 else 0
        paged, one_axis, spanned = kind == 1, kind in (2, 4), kind in (3, 4)
        if version == 2 and (kind not in KIND_FLAGS or flags & ~(1 | 2 | WEBP_FLAG | KIND_FLAGS[kind])):
            raise Rejected("the file has format version 2, of a kind that this program does not know")
        if one_axis and not flags & 1:
            raise Rejected("the file is damaged: it has one colour axis, but colours")
        width, height = cursor.varint(), cursor.varint()
        if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20 and width * height <= MAX_PIXELS):
            raise Rejected(f"the file claims {width}x{height} pixels, beyond the format's limits")
        rate, step = struct.unpack("<HH", cursor.take(4))
        tuning = cursor.take(1)[0] if flags & 16 else 0
        if flags & 16 and (not 1 <= tuning <= MAX_TUNING or flags & 12):
            raise Rejected("the file is damaged: its tuning is out of range")
        span = (0, 65535 if flags & DEEP_FLAG else 255)
        if spanned:
            span = struct.unpack("<HH", cursor.take(4))
            if not flags & DEEP_FLAG or span[0] >= span[1]:
                raise Rejected("the file is damaged: its range of values cannot be read")
        if flags & DEEP_FLAG and flags & 20:
            raise Rejected("the file is damaged: it has 16 bits a sample, but a form that has none")
        if flags & LUMA_FLAG and (not flags & 1 or flags & 12):
            raise Rejected("the file is damaged: it has luma alone, but colours or another form")
        head = content[: cursor.at]
        sides: dict[int, bytes] = {}
        lossless = choice = stream = page = None
        while flags & 2 and (side := cursor.take(1)[0]):
            start = cursor.at - 1
            if side not in SIDES or side in sides:
                raise Rejected("the file is damaged: it has an unknown or repeated side element")
            length = cursor.varint()
            if length > 1 << 30:
                raise Rejected("the file is damaged: a side element is too long")
            sides[side] = cursor.take(length)
            check(start, SIDES[side])
        for side in sides.keys() & {2, 3} if paged or flags & (12 | DEEP_FLAG) else ():
            raise Rejected(f"the file is damaged: it has {SIDES[side]}, which its form has not")
        if flags & 8:
            lossless = element("lossless parameters")
            if step != STEP_ORIGIN or flags & 4:
                raise Rejected("the file is damaged: its lossless parameters cannot be read")
        elif flags & DEEP_FLAG:
            choice = element("choice of tables")
        elif paged:
            page = element("exact layer", 1 << 30)
    except CutOff:
        raise Rejected("the file is cut off before its first segment") from None
    segments = []
    if flags & 4:
        if rate or step:
            raise Rejected("the file is damaged: an embedded stream has no rate")
        pieces = []
        while cursor.at < len(content):
            rest = len(content) - cursor.at
            whole = rest >= 2052
            start = cursor.at
            try:
                piece = cursor.take(2048 if whole else max(rest - 4, 1))
                check(start, f"piece {ordinal + 1}")
            except (CutOff, Rejected):
                if whole:
                    raise
                piece = content[start : start + 2048]  # the file was cut here: the last bytes are of the stream
                cursor.at = len(content)
            pieces.append(piece)
        stream = b"".join(pieces)
    try:
        while cursor.at < len(content):
            start = cursor.at
            units, payload = cursor.varint(), cursor.take(cursor.varint())
            check(start, f"segment {ordinal + 1}")
            if not units:
                raise Rejected("the file is damaged: a segment has no coding units")
            if paged and units != 1:
                raise Rejected("the file is damaged: a photograph of a page has one coding unit")
            segments.append((units, payload))
    except CutOff:
        pass  # a prefix: what is whole counts
    alpha, offsets, shifts = (sides.get(side) for side in SIDES)
    grey, deep, luma, webp = (bool(flags & flag) for flag in (1, DEEP_FLAG, LUMA_FLAG, WEBP_FLAG))
    place, told = (width, height, step, tuning), (deep, luma or one_axis, webp)
    elements = (alpha, offsets, shifts, lossless, choice, stream, segments, page)
    return File(model, grey, *place, *told, *elements, axes=1 if one_axis else 3, span=span)


def _zstd(frame: bytes, *shape: int, unreadable: str = "its packed bytes cannot be read") -> Array:
    """What exactly one zstd frame to the end of the bytes holds: as many as an array of this shape has."""
    size, at, raw = math.prod(shape), 0, bytearray()
    try:
        try:
            import zstandard
        except ImportError:
            from compression import zstd  # type: ignore[import-not-found, unused-ignore]

            reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
        else:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        while at < len(frame) and not reader.eof and len(raw) <= size:
            raw += reader.decompress(frame[at : at + PIECE])
            at += PIECE
        whole = reader.eof and not reader.unused_data and at >= len(frame)  # also of a skippable frame, which is empty
    except ImportError:
        raise Rejected("this file needs zstd: pip install zstandard") from None
    except Exception:  # each of the packages has its own
        whole = False
    if not whole or len(raw) != size:
        raise Rejected(f"the file is damaged: {unreadable}")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _webp(file: File, stream: bytes) -> Array:
    """The colours `(H, W, 3)` of a WebP stream inside a file; its transparency is ignored."""
    damaged = Rejected("the file is damaged: its WebP stream cannot be read")
    sides = int.from_bytes(stream[1:5], "little")
    fits = max(file.width, file.height) < 1 << 14 and file.width * file.height <= 1 << 26
    if not file.webp or not fits or stream[:1] != bytes([WEBP_SIGNATURE]):
        raise damaged
    if (sides & 0x3FFF, sides >> 14 & 0x3FFF) != (file.width - 1, file.height - 1):
        raise damaged
    try:
        from PIL import Image, features
    except ImportError:
        raise Rejected("this file needs Pillow for the WebP stream inside it: pip install pillow") from None
    if not features.check("webp"):
        raise Rejected("this file needs a Pillow that reads WebP, which the installed one does not")
    chunk = b"VP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) & 1)
    try:
        content = io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)
        with Image.open(content, formats=["WEBP"]) as image:
            colours = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as e:
        raise damaged from e
    if colours.shape != (file.height, file.width, 3):
        raise damaged
    return colours


def _transparency(file: File, packed: bytes) -> Array:
    """The alpha channel `(H, W, 1)`."""
    if packed[:1] == bytes([WEBP_SIGNATURE]):
        return _webp(file, packed)[:, :, 1:2]
    return np.add.accumulate(_zstd(packed, file.height, file.width, 1), axis=0, dtype=np.uint8)


class RangeDecoder:
    """The range decoder of `constriction`: 32-bit words in an `order` of bytes, 64-bit state, 24-bit frequencies.

    `code` is the number that the words spell less the lower end of the current interval, `size` the interval's size.
    Zeros follow the last word. The loops are written out since all time that is not the nets' is spent here.
    """

    def __init__(self, payload: bytes, order: str = "<") -> None:
        words: list[int] = np.frombuffer(payload + bytes(-len(payload) % 4), f"{order}u4").tolist()
        self.following = chain(words, repeat(0)).__next__
        self.code = self.following() << 32 | self.following()
        self.size = (1 << 64) - 1

    def symbols(self, cumulative: list[int], count: int) -> list[int]:
        """Symbols whose intervals have the bounds `cumulative`, from 0 to 2²⁴."""
        code, size, following = self.code, self.size, self.following
        found = [0] * count
        for place in range(count):
            scale = size >> 24
            quantile = code // scale
            if quantile >= 0x1000000:
                raise Rejected("the file is damaged: a stream cannot be decoded")
            symbol = bisect_right(cumulative, quantile) - 1
            lower = cumulative[symbol]
            code -= scale * lower
            size = scale * (cumulative[symbol + 1] - lower)
            if size < 0x100000000:
                size <<= 32
                code = code << 32 | following()
            found[place] = symbol
        self.code, self.size = code, size
        return found

    def decisions(self, probabilities: list[int]) -> list[bool]:
        """Yes/no decisions; the probabilities of yes are in 2**-16. No comes first in the interval."""
        code, size, following = self.code, self.size, self.following
        found = [False] * len(probabilities)
        for place, p in enumerate(probabilities):
            scale = size >> 24
            yes = scale * (256 * p + (p < 32768))  # constriction splits 2²⁴ − 2 and gives each answer one of the rest
            no = (scale << 24) - yes
            if code < no:
                size = no
            else:
                code -= no
                size = yes
                if code >= yes:
                    raise Rejected("the file is damaged: a stream cannot be decoded")
                found[place] = True
            if size < 0x100000000:
                size <<= 32
                code = code << 32 | following()
        self.code, self.size = code, size
        return found


@functools.cache
def uniform(count: int) -> list[int]:
    """Bounds of `count` equally likely symbols; the last one has what does not divide."""
    return [k * ((1 << 24) // count) for k in range(count)] + [1 << 24]


class SymbolReader:
    """Reads residuals m with the tables of a bundle, groups ordered as in docs/FORMAT.md, "Symbols"."""

    def __init__(self, tables: list[list[int]], payload: bytes, order: str = "<") -> None:
        self.tables, self.decoder = tables, RangeDecoder(payload, order)

    def take(self, index: Array) -> Array:
        """The residuals `(n,)` int32 of one strip with these table indices `(n,)`."""
        order = np.argsort(index, kind="stable")
        counts = np.bincount(index)
        m = np.empty(len(index), np.int32)
        start = 0
        for k in np.flatnonzero(counts).tolist():
            cumulative = self.tables[k]
            radius = len(cumulative) // 2 - 1
            group = np.array(self.decoder.symbols(cumulative, int(counts[k])), np.int32) - radius
            escaped = np.flatnonzero(np.abs(group) == radius)
            if len(escaped):
                group[escaped] += np.sign(group[escaped]) * self._escapes(len(escaped))
            m[order[start : start + len(group)]] = group
            start += len(group)
        return m

    def tails(self, tables: list[list[int]], index: Array) -> Array:
        """Numbers from 0 on `(n,)` under these tables, whose last symbols escape."""
        found = np.zeros(len(index), np.int32)
        for k in np.flatnonzero(np.bincount(index)).tolist():
            places, last = np.flatnonzero(index == k), len(tables[k]) - 2
            found[places] = self.decoder.symbols(tables[k], len(places))
            escaped = places[found[places] == last]
            if len(escaped):
                found[escaped] += self._escapes(len(escaped))
        return found

    def _escapes(self, count: int) -> Array:
        """What escaped magnitudes have above R: Exp-Golomb numbers less one."""
        length = np.array(self.decoder.symbols(uniform(32), count))
        if length.max() > 22:
            raise Rejected("the file is damaged: a latent is out of range")
        value = 1 << length
        for n in sorted({*length.tolist()} - {0}):
            members = np.flatnonzero(length == n)
            value[members] += self.decoder.symbols(uniform(1 << min(n, 12)), len(members))
            if n > 12:
                value[members] += np.array(self.decoder.symbols(uniform(1 << (n - 12)), len(members))) << 12
        return (value - 1).astype(np.int32)


MAX_REST = 12  # low bits of a residual that are coded as they are


def table_and_rest(wanted: Array) -> tuple[Array, Array]:
    """Tables of wanted indices, and r: beyond the last table five more are a low bit that is coded as it is."""
    rest = np.clip(-((63 - wanted) // 5), 0, MAX_REST)
    return np.clip(wanted - 5 * rest, 0, 63), rest


def take_deep(reader: SymbolReader, table: Array, rest: Array) -> Array:
    """The residuals `(n,)` of a strip whose symbols are those of ⌊m / 2^r⌋; their low r bits follow."""
    m = reader.take(table) << rest
    for r in range(1, int(rest.max(initial=0)) + 1):
        chosen = np.flatnonzero(rest == r)
        m[chosen] |= np.array(reader.decoder.symbols(uniform(1 << r), len(chosen)), m.dtype)
    return m.astype(np.int32)


class PrefixReader:
    """Reads a low-pass that was cut off: what is certain, and zeros after it.

    A strip is certain if it comes out alike whether zeros or ones follow what is there: the range decoder is monotone,
    so that all other continuations give the same.

    Attributes:
        certain: how many strips are.
    """

    def __init__(self, tables: list[list[int]], payload: bytes, missing: int) -> None:
        ahead = min(missing, LOOK_AHEAD)
        self.readers = [SymbolReader(tables, payload + fill * ahead) for fill in (b"\0", b"\xff")]
        self.certain = 0

    def take(self, index: Array) -> Array:
        """See :meth:`SymbolReader.take`."""
        if self.readers:
            try:
                first, second = (reader.take(index) for reader in self.readers)
                if np.array_equal(first, second):
                    self.certain += 1
                    return first
            except Rejected:  # what no encoder writes, or a guess at the end
                pass
            self.readers = []
        return np.zeros(len(index), np.int32)


class Part(NamedTuple):
    """What a coding unit codes at one phase of the quads: neighbouring channels, some planes of the unit's strips."""

    phase: int
    channels: slice
    planes: slice


class Unit(NamedTuple):
    """A coding unit of a wavelet level: its graph's name and what it codes, in coding order."""

    number: int
    level: int
    graph: str
    parts: tuple[Part, ...]

    @property
    def planes(self) -> int:
        """Planes of its strips."""
        return self.parts[-1].planes.stop


def unit_parts(places: list[tuple[int, int]]) -> tuple[Part, ...]:
    """Runs of places (phase, channel) at one phase with channels in a row."""
    starts = [k for k, (p, c) in enumerate(places) if not k or places[k - 1] != (p, c - 1)]
    return tuple(
        Part(places[a][0], slice(places[a][1], places[a][1] + b - a), slice(a, b))
        for a, b in pairwise([*starts, len(places)])
    )


def detail_units(levels: int, rotated: bool) -> list[Unit]:
    """All units but the low-pass, which is number 0, in file order."""
    turn = int(rotated)
    passes = {f"luma{{}}_{k}": [(k ^ turn * o, o) for o in range(3)] for k in range(4)}
    for k in range(2):
        passes[f"chroma{{}}_{k}"] = [
            ((2 * k + p + 2 * turn * ((axis + o) % 2)) % 4, 3 * axis + o)
            for p in (0, 1)
            for axis in (1, 2)
            for o in range(3)
        ]
    parts = {graph: unit_parts(places) for graph, places in passes.items()}
    order = [(level, graph) for level in range(levels, 0, -1) for graph in parts]
    return [Unit(1 + k, level, graph.format(level), parts[graph]) for k, (level, graph) in enumerate(order)]


CLASS_STARTS = [1, 2, 3, *(a << n for n in range(1, 20) for a in (2, 3))]  # activities at which the next class begins


class Walk(ABC):
    """Visits the units of a picture in file order and keeps what the nets need; subclasses read what is coded.

    Arguments:
        bundle: the model.
        width, height: of the picture in pixels.
    """

    graphs = "entropy"  # folder of the nets
    luma = False  # whether there are no chroma units
    fine = 0  # k: the nets see latents in steps 2^k times those of the file

    def __init__(self, bundle: Bundle, width: int, height: int) -> None:
        self.bundle, self.width, self.height = bundle, width, height
        self.levels = int(bundle.manifest["levels"])
        self.units = detail_units(self.levels, self.graphs == "entropy" and bundle.manifest.get("rotated", False))
        self.step = STEP_ORIGIN  # what the nets are told, as a header's code
        self.gain = [np.exp(np.array(g))[:, None, None] for g in bundle.manifest["gain"]]
        self.axes = bundle.axes

    def grid(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's quads, padding included."""
        multiple = 2 << self.levels
        n = 1 << (self.levels - level)
        return -(-self.height // multiple) * n, -(-self.width // multiple) * n

    def inside(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's bands that are coded: those in the picture, and one beyond."""
        (rows, columns), n = self.grid(level), 1 << level
        if self.fine:
            return 2 * rows, 2 * columns
        return min(-(-self.height // n) + 1, 2 * rows), min(-(-self.width // n) + 1, 2 * columns)

    def coded(self, unit: Unit, rows: slice) -> Array:
        """Which positions of a strip are inside, `(planes, rows, columns)`."""
        height, width = self.inside(unit.level)
        phases = [p.phase for p in unit.parts for _ in range(p.planes.start, p.planes.stop)]
        i, j = np.array([PHASES[p] for p in phases])[:, :, None].transpose(1, 0, 2)
        below, right = np.arange(rows.start, rows.stop), np.arange(self.grid(unit.level)[1])
        coded: Array = (2 * below + i < height)[:, :, None] & (2 * right + j < width)[:, None]
        return coded

    def strips(self, level: int) -> Iterator[slice]:
        """Runs of whole rows of a level's quads."""
        height, width = self.grid(level)
        rows = max(2, STRIP // width // 2 * 2)
        return (slice(top, min(top + rows, height)) for top in range(0, height, rows))

    def low_pass(self, step: int, reader: SymbolReader | PrefixReader | None, shift: int = 0) -> Array:
        """Low-pass integers q `(axes, h, w)` with their padding, each lattice interpolated from the one before.

        `shift` is what is added to all table indices.
        """
        height, width = self.inside(self.levels)
        q = np.zeros((self.axes, height, width), np.int32)

        def residuals(index: Array) -> Array:
            if not reader:
                return np.zeros(index.shape, np.int32)
            return reader.take(_shifted(index.ravel(), shift)).reshape(index.shape)

        corner = min(max(69 - 5 * (step - STEP_ORIGIN) // STEP_UNIT, 0), 63)
        for colour in range(self.axes):
            q[colour, :1, :1] = residuals(np.full((1, 1), corner, np.uint8))
        s = (1 << (max(height, width) - 1).bit_length()) >> 1
        while s:
            for colour, plane in enumerate(q):
                for odd_row, odd_column in PHASES[1:]:
                    rows, columns = np.arange(s * odd_row, height, 2 * s), np.arange(s * odd_column, width, 2 * s)
                    if not (rows.size and columns.size):
                        continue
                    vertical, horizontal = _beside(rows, s, height), _beside(columns, s, width)
                    if odd_row and odd_column:
                        places = [(r, c) for r in vertical for c in horizontal]
                    else:  # along and across; if there is nothing across, those along stand in
                        places = [(rows, c) for c in horizontal if width > s]
                        places += [(r, columns) for r in vertical if height > s]
                    four = np.stack([plane[np.ix_(r, c)] for r, c in places * (4 // len(places))])
                    predicted = (four.sum(0, dtype=np.int32) + 2) >> 2
                    kind = 2 * min(s.bit_length() - 1, 2) + (not (odd_row and odd_column))
                    table = np.array(self.bundle.manifest["low_index"][colour][kind], np.uint8)
                    activity = np.searchsorted(CLASS_STARTS, four.max(0) - four.min(0), "right")
                    index = table[np.minimum(activity, len(table) - 1)]
                    plane[np.ix_(rows, columns)] = predicted + residuals(index)
            s >>= 1
        return self.padded(q)

    def padded(self, q: Array) -> Array:
        """The low-pass with its last row and column repeated into the padding."""
        height, width = self.grid(self.levels)
        return np.pad(q, ((0, 0), (0, 2 * height - q.shape[1]), (0, 2 * width - q.shape[2])), "edge")

    def details(self, low: Array) -> None:
        """Walk all units but the low-pass, which is given in 1/16 steps `(axes, h, w)`, and visit their strips."""
        gradients = np.zeros((2 * self.axes, *low.shape[1:]), np.int64)
        gradients[: self.axes, :, :-1] = np.diff(low, axis=2)
        gradients[self.axes :, :-1] = np.diff(low, axis=1)
        coarser = np.concatenate([self._compand(gradients)[:, i::2, j::2] for i, j in PHASES])
        feature: Array | None = None
        for first in self.units[::6]:
            if not self.enter(first):
                break
            feature = self._feature(first.level, coarser, feature)
            coarser = self._level(first.level, feature)

    def _compand(self, v: Array) -> Array:
        """What the nets see of values in 1/16 steps of the file."""
        return self.bundle.compand((v + (1 << self.fine >> 1)) >> self.fine)

    def condition(self, level: int, rows: slice) -> Array:
        """What all nets of a level see of the step in some rows of its quads, `(1, planes, rows, columns)`."""
        shape = (1, 1, rows.stop - rows.start, self.grid(level)[1])
        return np.full(shape, min(max(condition_of(self.step), -80), 48), np.int8)

    def _feature(self, level: int, coarser: Array, previous: Array | None) -> Array:
        height, _ = self.grid(level)
        parts = []
        for rows in self.strips(level):
            top, bottom = max(0, rows.start - 2), min(height, rows.stop + 2)  # what the nets reach
            inputs = {"coarser": coarser[None, :, top:bottom]}
            inputs["condition"] = self.condition(level, slice(top, bottom))
            if previous is not None:
                inputs["previous"] = previous[None, :, top // 2 : bottom // 2]
            inputs |= self.known(level, slice(top, bottom))
            (out,) = self.bundle.run(f"{self.graphs}/feature{level}", **inputs)
            parts.append(out[0, :, rows.start - top : rows.stop - top])
        return np.concatenate(parts, 1)

    def _level(self, level: int, feature: Array) -> Array:
        """Visit the strips of a level's six units; returns its companded latents `(3 axes, 2 rows, 2 columns)`."""
        height, width = self.grid(level)
        seen = np.zeros((36, height, width), np.int8)  # the units before, phase-major
        result = np.zeros((3 * self.axes, 2 * height, 2 * width), np.int8)
        at = 0
        for unit in (u for u in self.units if u.level == level):
            if self.luma and unit.graph.startswith("chroma"):
                continue  # zero, also as what nets see
            for rows in self.strips(level):
                top, bottom = max(0, rows.start - 2), min(height, rows.stop + 2)
                inputs = {"feature": feature[None, :, top:bottom]}
                inputs["condition"] = self.condition(level, slice(top, bottom))
                if at:
                    inputs["seen"] = seen[None, :at, top:bottom]
                mean, index = (
                    out[0, :, rows.start - top : rows.stop - top]
                    for out in self.bundle.run(f"{self.graphs}/{unit.graph}", **inputs)
                )
                v = self._compand(self.strip(unit, rows, mean.astype(np.int32), index))
                seen[at : at + unit.planes, rows] = v
                for part in unit.parts:
                    result[places(part, rows)] = v[part.planes]
            at += unit.planes
        return result

    def known(self, level: int, rows: slice) -> dict[str, Array]:
        """What feature nets see besides."""
        return {}

    @abstractmethod
    def enter(self, first: Unit) -> bool:
        """Whether anything is coded from a level on, whose first unit this is."""

    @abstractmethod
    def strip(self, unit: Unit, rows: slice, mean: Array, index: Array) -> Array:
        """Read a strip; returns what later nets see of it, in 1/16 steps, `(planes, rows, columns)`."""


def _beside(places: Array, s: int, length: int) -> tuple[Array, Array]:
    """The places s before and s behind; where one is outside, the other."""
    before, behind = places - s, places + s
    return np.where(before < 0, behind, before), np.where(behind >= length, before, behind)


def places(part: Part, rows: slice) -> tuple[slice, slice, slice]:
    """Where a part of a strip lies in the level's band `(9, 2 rows, 2 columns)`."""
    i, j = PHASES[part.phase]
    return part.channels, slice(2 * rows.start + i, 2 * rows.stop, 2), slice(j, None, 2)


def condition_of(step: int) -> int:
    """What the nets see of a step's code, in 1/16 octave around 32 levels."""
    return (step - STEP_ORIGIN - 5 * STEP_UNIT + 64) // 128


class Fineness:
    """The steps of an ordinary file: Δ, how much the bands follow the eye, and the map of steps.

    Attributes:
        tuned: whether the model's nets and decoder are told of it.
        tuning: how much the bands follow the eye, 0 to 32.
        offsets: the map, int16 in 1/16 octave, `(rows, columns)` of blocks, or None.
    """

    def __init__(self, bundle: Bundle, file: File) -> None:
        self.step, self.tuning = file.step, file.tuning
        self.offsets: Array | None = None
        self.tuned = bool(bundle.manifest.get("tuned", False))
        if (file.tuning or file.offsets is not None) and not self.tuned:
            raise Rejected("the file is damaged: its steps differ, which its model does not know")
        self.eye = bundle.manifest["eye"] if self.tuned else []
        if file.offsets is not None:
            block = 2 << bundle.manifest["levels"]
            packed = _zstd(file.offsets, -(-file.height // block), -(-file.width // block))
            offsets = np.add.accumulate(packed, axis=0, dtype=np.uint8).view(np.int8).astype(np.int16)
            if np.abs(offsets).max() > LARGEST_OFFSET:
                raise Rejected("the file is damaged: its map of steps is out of range")
            self.offsets = offsets

    def code(self, band: int) -> int:
        """Code of the step of a band, which may lie outside the range of a header's."""
        return int(self.step + (self.tuning * self.eye[band] * 128 // MAX_TUNING if self.tuning else 0))

    def map(self, times: int, rows: slice = slice(None)) -> Array | None:
        """Rows of the map on a grid that is so many times finer."""
        if self.offsets is None:
            return None
        fine: Array = self.offsets.repeat(times, 0)[rows].repeat(times, 1)
        return fine

    def steps(self, band: int, gain: Array) -> Array:
        """The step of every latent of a band, 0 … 1, as an array that broadcasts to it; `gain` is exp(gain)."""
        step = delta_of(self.code(band)) / 255 * gain
        offsets = self.map(1 << band) if band else None
        return np.asarray(step if offsets is None else step * np.exp2(offsets / 16), np.float32)


def _shifts(content: bytes | None, units: int) -> list[int]:
    """What is added to the table indices of every unit, low-pass first: half a byte each, the lower one first."""
    halves = [half for byte in content or b"" for half in (byte & 15, byte >> 4)]
    if not all(halves) or len(halves) > units + units % 2 or halves[units:] not in ([], [8]):
        raise Rejected("the file is damaged: its shifts of tables are out of range")
    return [half - 8 for half in halves[:units]] + [0] * (units - len(halves))


def _shifted(index: Array, shift: int) -> Array:
    """Table indices with a unit's shift; without one they are what they were."""
    return np.clip(index.astype(np.int16) + shift, 0, 63).astype(np.uint8) if shift else index


class Ordinary(Walk):
    """Reads a file's segments; what is behind the last one is m = 0."""

    def __init__(self, bundle: Bundle, file: File) -> None:
        super().__init__(bundle, file.width, file.height)
        self.luma = file.luma
        self.fine = max(0, -((file.step - STEP_ORIGIN) // STEP_UNIT)) if file.deep else 0
        self.corrections = np.zeros((2 * self.levels, 64), np.int8)
        if self.fine and file.choice:
            self.corrections = _zstd(file.choice, 2 * self.levels, 64).view(np.int8)
        self.shifts = _shifts(file.shifts, 1 + len(self.units))
        self.fineness = Fineness(bundle, file)
        self.steps = [self.fineness.steps(band, g) for band, g in enumerate(self.gain)]
        self.segments = list(file.segments)
        self.begun = 0  # the first unit behind the segment that is being read
        self.end = sum(units for units, _ in self.segments)
        self.reader: SymbolReader | None = None
        shapes = [(3 * self.axes, *(2 * n for n in self.grid(level))) for level in range(self.levels, 0, -1)]
        self.integers = [np.zeros(shape, np.int32) for shape in shapes]
        self.latents = [np.zeros(shape, np.float32) for shape in shapes]

    def decode(self) -> tuple[list[Array], list[Array]]:
        """Dequantised latents and their integers, band by band."""
        self._open(0)
        q = self.low_pass(self.fineness.code(0), self.reader, self.shifts[0])
        self.details(16 * np.clip(q, -(1 << 24), 1 << 24))
        return [(q * self.steps[0]).astype(np.float32), *self.latents], [q, *self.integers]

    def _open(self, number: int) -> None:
        """Go to the segment that holds a unit."""
        while number >= self.begun:
            self.reader = None
            if not self.segments:
                break
            units, payload = self.segments.pop(0)
            self.begun += units
            self.reader = SymbolReader(self.bundle.tables, payload)

    def condition(self, level: int, rows: slice) -> Array:
        """What the nets see of the steps, and with `tuned` models of the tuning."""
        fineness, band = self.fineness, 1 + self.levels - level
        planes = np.zeros((1, 1 + fineness.tuned, rows.stop - rows.start, self.grid(level)[1]), np.int8)
        offsets, told = fineness.map(1 << (band - 1), rows), fineness.code(band) + STEP_UNIT * self.fine
        planes[:, 0] = np.clip(condition_of(told) + (0 if offsets is None else offsets), -80, 48)
        planes[:, 1:] = fineness.tuning
        return planes

    def enter(self, first: Unit) -> bool:
        """Levels of which no unit is there stay zero."""
        return first.number < self.end

    def strip(self, unit: Unit, rows: slice, mean: Array, index: Array) -> Array:
        """Read the residuals of a strip's positions inside; outside they are zero, so that v is the mean."""
        self._open(unit.number)
        inside = self.coded(unit, rows)
        m = np.zeros(mean.shape, np.int32)
        if self.reader and self.fine:
            corrections = self.corrections[2 * (unit.level - 1) + unit.graph.startswith("chroma")]
            wanted = index[inside].astype(np.int32) + 5 * self.fine + corrections[index[inside]]
            m[inside] = take_deep(self.reader, *table_and_rest(wanted))
        elif self.reader:
            m[inside] = self.reader.take(_shifted(index[inside], self.shifts[unit.number]))
        mean = mean << self.fine
        v = 16 * m + mean
        if self.fine:
            value = m.astype(np.float32) + mean.astype(np.float32) * np.float32(1 / 16)
        else:
            value = self.bundle.dequantise(m, mean, index)
        k = self.levels - unit.level
        step = np.broadcast_to(self.steps[1 + k], self.latents[k].shape)
        for part in unit.parts:
            here, planes = places(part, rows), part.planes
            self.latents[k][here] = value[planes] * step[here]
            self.integers[k][here] = np.where(inside[planes], v[planes], 0)
        return v


class Ended(Exception):
    """A group of decisions is not in the stream any more."""


COSTS = np.ceil((16 - np.log2(np.maximum(np.arange(65537), 1))) * 4096 - 1e-6).astype(np.int64) + 1  # in 1/4096 bit


class Cells:
    """What is known of a level's latents `(9, h, w)`; cells in half levels."""

    def __init__(self, rows: int, columns: int) -> None:
        shape = (9, rows, columns)
        self.sign = np.zeros(shape, np.int8)  # 0: none yet
        self.lower, self.width = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.fresh = np.zeros(shape, bool)
        self.table = np.zeros(shape, np.uint8)  # j: ⌊table index / 4⌋ of when the latent became significant
        self.guess = np.zeros(shape, np.float32)  # levels, of latents without sign
        self.settled = np.zeros(shape, bool)  # decided in this layer

    def neighbourhood(self, finer: "Cells | None") -> Array:
        """Class of every latent by its significant neighbours in the band and below it."""
        found = np.pad(self.sign != 0, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
        rows = found[:, :-2] + found[:, 1:-1] + found[:, 2:]
        count = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] - found[:, 1:-1, 1:-1]
        result: Array = np.searchsorted([1, 2, 3, 5], count, "right")
        return result + 5 * (_largest_below(finer.sign != 0) if finer else 0)


def _largest_below(finer: Array) -> Array:
    """The largest of the four values of the finer level that lie below each position of a level."""
    across = np.maximum(finer[:, :, ::2], finer[:, :, 1::2])
    return np.maximum(across[:, ::2], across[:, 1::2])


CORNER_STRIPS = 3  # the first ones of the low-pass: a single place, in three colours


class Embedded(Walk):
    """Successive refinement: everything that is known is kept and told to the nets in every layer.

    Attributes:
        depth: how far the stream goes, in layers.
        certain: strips of the low-pass that are there, if it is cut off; infinite otherwise.
    """

    graphs = "embedded"

    def __init__(self, bundle: Bundle, file: File) -> None:
        super().__init__(bundle, file.width, file.height)
        shapes = {"significance": (2, 64, 4, 10), "sign": (12,), "upper": (4, 16, 10), "low": (3, 33),
                  "centre": (5, 16), "zero": (64,)}  # fmt: skip
        parts = np.split(
            np.frombuffer(bundle.file("progressive.bin"), "<u2").astype(np.int64),
            np.cumsum([math.prod(s) for s in shapes.values()]),
        )
        self.p = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=False)}
        self.cells = {level: Cells(*(2 * n for n in self.grid(level))) for level in range(1, self.levels + 1)}
        self.low = np.zeros((3, *(2 * n for n in self.grid(self.levels))), np.int64)  # 1/16 levels, middles of cells
        self.low_width = 2048  # of these cells: 128 levels
        self.depth, self.certain = 0.0, math.inf
        self.spent = 0  # information so far, in 1/4096 bit
        sizes = [math.prod(self.inside(u.level)) * u.planes for u in self.units]
        self.share = np.concatenate([[0, 0], np.cumsum(sizes) / sum(sizes)])  # of all latents, before a unit

    def decode(self, stream: bytes) -> tuple[list[Array], list[Array]]:
        """Dequantised latents and their cells in integers, band by band, as far as a stream goes."""
        cursor = Cursor(stream)
        try:
            size = cursor.varint()
        except CutOff:
            self.certain = 0
        else:
            rest = stream[cursor.at :]
            self._start(rest[:size], size)
            if len(rest) >= size:
                self._refine(rest[size:])
        bands = list(self.cells.values())[::-1]
        values = [self.low / 16, *(self._values(c) for c in bands)]
        latents = [(v * g / 255).astype(np.float32) for v, g in zip(values, self.gain, strict=True)]
        return latents, [self.low, *(c.sign * (2 * c.lower + c.width) for c in bands)]

    def _start(self, head: bytes, size: int) -> None:
        """Read the low-pass, of whose `size` bytes these are there."""
        if len(head) == size:
            q = self.low_pass(STEP_ORIGIN + 7 * STEP_UNIT, SymbolReader(self.bundle.tables, head))
        else:
            reader = PrefixReader(self.bundle.tables, head, size - len(head))
            q = self.low_pass(STEP_ORIGIN + 7 * STEP_UNIT, reader)
            self.certain = reader.certain
        if self.certain >= CORNER_STRIPS:
            self.low = np.clip(q, -(1 << 15), 1 << 15).astype(np.int64) * 2048

    def _refine(self, decisions: bytes) -> None:
        """Layer by layer, as far as the decisions go."""
        self.available = len(decisions)
        self.decoder = RangeDecoder(decisions)
        try:
            for layer in range(14):
                self.layer, self.half = layer, 8192 >> layer  # H
                self._significance()
                self._refinement()
        except Ended:
            pass

    def picture(self, latents: list[Array], grey: bool) -> Array:
        """The picture `(H, W, 3)` of latents; of a low-pass that hardly began it is the middle, or close to it."""
        if self.certain < CORNER_STRIPS:
            return np.full((self.height, self.width, 3), MIDDLE, np.uint8)
        delta = min(4096 * 2.0 ** (1 - self.depth), COARSEST_STEP)
        rgb = _greyed(synthesise(self.bundle, latents, delta, self.width, self.height), grey)
        if self.certain < 2 * CORNER_STRIPS:
            rgb = ((rgb.astype(np.int32) + MIDDLE) >> 1).astype(np.uint8)
        return rgb

    def _values(self, c: Cells) -> Array:
        """Values in levels."""
        place = np.where(c.fresh, 4, np.clip(c.lower // np.maximum(c.width, 1), 1, 4) - 1)
        value = c.sign * (c.lower + c.width * self.p["centre"][place, c.table] / 256) / 2
        return np.where(c.sign == 0, c.guess, value)

    def _decide(self, p: Array) -> Array:
        try:
            yes = np.array(self.decoder.decisions(p.tolist()), bool)
        except Rejected:  # beyond the end, what is decoded may be impossible
            raise Ended from None
        self.spent += int(COSTS[np.where(yes, p, 65536 - p)].sum())
        return yes

    def _place(self, stage: int, number: int, before: float = 0, share: float = 0) -> None:
        """Note where the next groups lie: in a share of a unit, behind the share `before`; refinement is stage 2."""
        start, end = self.share[number : number + 2].tolist()
        offset, extent = ((0.0, 0.3), (0.3, 0.4), (0.7, 0.3))[stage]
        self.begin = self.layer + offset + extent * (start + before * (end - start))
        self.extent = extent * share * (end - start)

    def _count(self, done: float = 0) -> None:
        """A group is complete, and so is a part `done` of the place: it counts if the bytes for it are there."""
        if self.available < -(-(self.spent + 32 * 4096) // (8 * 4096)):
            raise Ended
        self.depth = self.begin + done * self.extent

    def _significance(self) -> None:
        count = len(self.units) + 1
        try:
            (self.last,) = self.decoder.symbols(uniform(count), 1)
        except Rejected:
            raise Ended from None
        self.spent += math.ceil(4096 * math.log2(count))
        self._place(0, 1)
        self._count()
        if not self.last:
            return
        for c in self.cells.values():
            c.settled[...] = False
        self.step = STEP_ORIGIN + round(math.log2(3 * self.half / 4) * STEP_UNIT)
        self.ended = False
        for self.stage in (0, 1):
            self.middles: dict[int, Array] = {}
            self.details(4 * self.low // (3 * self.half))
            if self.ended:
                raise Ended

    def _middle(self, level: int) -> Array:
        """Middles of a level's cells in 1/16 of the nets' steps, companded, as they were when the stage began."""
        if level not in self.middles:
            c = self.cells[level]
            self.middles[level] = self.bundle.compand(c.sign * (16 * (2 * c.lower + c.width) // (3 * self.half)))
        return self.middles[level]

    def known(self, level: int, rows: slice) -> dict[str, Array]:
        """Cells of the level, and the largest below it in the finer one."""
        planes = [self._middle(level)[:, 2 * rows.start : 2 * rows.stop]]
        if level > 1:
            planes.append(_largest_below(np.abs(self._middle(level - 1)[:, 4 * rows.start : 4 * rows.stop])))
        return {"known": np.concatenate([plane[:, i::2, j::2] for plane in planes for i, j in PHASES])[None]}

    def enter(self, first: Unit) -> bool:
        """Nothing becomes significant beyond unit `last`; neighbourhoods are those at the start of a level."""
        if first.number > self.last or self.ended:
            return False
        self.classes = self.cells[first.level].neighbourhood(self.cells.get(first.level - 1))
        return True

    def strip(self, unit: Unit, rows: slice, mean: Array, index: Array) -> Array:
        """Decide which latents of a strip become significant.

        After the stream's end, and beyond unit `last`, the nets still say what is guessed of the others in the level.
        """
        c = self.cells[unit.level]
        inside = self.coded(unit, rows)
        middle = np.clip(mean, -10, 10)
        seen = np.empty_like(mean)
        height = (self.inside(unit.level)[0] + 1 - PHASES[unit.parts[0].phase][0]) // 2
        total = height * len(unit.parts)
        for n, part in enumerate(unit.parts):
            here, planes = places(part, rows), part.planes
            if unit.number <= self.last and not self.ended:
                undecided = index[planes] >= 14 if self.stage == 0 else ~c.settled[here]
                chosen = np.flatnonzero(undecided & (c.sign[here] == 0) & inside[planes])
                covered = inside[planes.start, :, 0].sum()
                self._place(self.stage, unit.number, (n * height + rows.start) / total, covered / total)
                self._appear(c, here, chosen, mean[planes], index[planes])
            zero = c.sign[here] == 0
            guess = middle[planes] * (self.p["zero"][index[planes]] / 256) * (3 * self.half / 64)
            c.guess[here] = np.where(zero, guess, c.guess[here])
            cell = 16 * (2 * c.lower[here] + c.width[here]) // (3 * self.half)
            seen[planes] = np.where(zero, middle[planes], c.sign[here] * cell)
        return seen

    def _appear(self, c: Cells, here: Any, chosen: Array, mean: Array, index: Array) -> None:
        """Decide which of the `chosen` latents of one phase of a strip become significant, the likely ones first."""
        centre = mean.ravel()[chosen]
        of_mean = np.searchsorted([2, 5, 9], np.abs(centre), "right")
        p = self.p["significance"][self.stage, index.ravel()[chosen], of_mean, self.classes[here].ravel()[chosen]]
        order = np.argsort(-p, kind="stable")
        chosen, p, centre = chosen[order], p[order], centre[order]
        sign, settled = np.zeros(mean.size, np.int8), np.zeros(mean.size, bool)
        try:
            for start in range(0, len(chosen), 1024):
                group = slice(start, start + 1024)
                new = start + np.flatnonzero(self._decide(p[group]))
                agree = self._decide(self.p["sign"][np.minimum(np.abs(centre[new]), 11)])
                self._count(min(start + 1024, len(chosen)) / len(chosen))
                sign[chosen[new]] = np.where(agree == (centre[new] >= 0), 1, -1)
                settled[chosen[group]] = True
        except Ended:
            self.ended = True
        c.settled[here] |= settled.reshape(mean.shape)
        new = sign.reshape(mean.shape) != 0
        c.sign[here] += sign.reshape(mean.shape)
        for array, value in ((c.lower, self.half), (c.width, self.half), (c.fresh, True), (c.table, index >> 2)):
            array[here] = np.where(new, value, array[here])

    def _refinement(self) -> None:
        self._halve_low()
        for unit in self.units:
            c = self.cells[unit.level]
            if unit.number % 6 == 1:
                classes = c.neighbourhood(self.cells.get(unit.level - 1))
            for n, part in enumerate(unit.parts):
                here = places(part, slice(0, self.grid(unit.level)[0]))
                self._place(2, unit.number, n / len(unit.parts), 1 / len(unit.parts))
                self._halve(c, here, classes[here])
        self._place(2, len(self.units), 1)
        self._count()

    def _halve(self, c: Cells, here: Any, classes: Array) -> None:
        """Halve the cells of one phase that are still as wide as in the layer before."""
        lower, width, fresh = (array[here].ravel() for array in (c.lower, c.width, c.fresh))
        shape = c.lower[here].shape
        chosen = np.flatnonzero(width == 2 * self.half)
        place = np.minimum(lower[chosen] // (2 * self.half), 4) - 1
        p = self.p["upper"][place, c.table[here].ravel()[chosen], classes.ravel()[chosen]]
        try:
            for start in range(0, len(chosen), 1024):
                upper = self._decide(p[start : start + 1024])
                self._count(min(start + 1024, len(chosen)) / len(chosen))
                group = chosen[start : start + 1024]
                lower[group] += self.half * upper
                width[group], fresh[group] = self.half, False
        finally:  # what was decided before the stream ended counts
            for array, value in ((c.lower, lower), (c.width, width), (c.fresh, fresh)):
                array[here] = value.reshape(shape)

    def _halve_low(self) -> None:
        if self.low_width <= 8 * self.half:  # 16 Z
            return
        rows, columns = self.inside(self.levels)
        self._place(2, 1)
        for colour in range(3):
            q = self.low[colour, :rows, :columns]
            wide = np.pad(q, 1, "edge")
            n = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] + 2) >> 2
            p = self.p["low"][colour, np.clip(8 * (n - q) // self.low_width + 16, 0, 32)].ravel()
            upper = [self._decide(p[start : start + 1024]) for start in range(0, p.size, 1024)]
            self._count()
            q += np.where(np.concatenate(upper).reshape(q.shape), 1, -1) * (self.low_width // 4)
        self.low = self.padded(self.low[:, :rows, :columns])
        self.low_width //= 2


def _tiles(length: int, whole: bool) -> list[tuple[int, int, int, int]]:
    """Outer start, outer stop, inner start, inner stop along one side."""
    if whole:
        return [(0, length, 0, length)]
    ends = [(start, min(start + 1024, length)) for start in range(0, length, 1024)]
    return [(max(0, a - 128), min(length, b + 128), a, b) for a, b in ends]


def synthesise(
    bundle: Bundle,
    latents: list[Array],
    delta: float,
    width: int,
    height: int,
    fineness: Fineness | None = None,
    too_fine: float = NO_REFINEMENT,
    deep: bool = False,
    span: tuple[int, int] = (0, 255),
) -> Array:
    """The picture `(H, W, 3)` of latents at a step of `delta` levels; large ones in tiles with a halo of 128 pixels.

    `fineness` is what `tuned` models take besides, if the file says anything of it; `too_fine` is what the decoder is
    told where the step is too fine for its refinement. The picture has 8 bits a sample, or 16 if it is `deep`; `span`
    are the levels that 0 and 1 stand for.
    """
    levels = bundle.manifest["levels"]
    names = ["low", *(f"detail{level}" for level in range(levels, 0, -1))]
    scales = [1 << levels, *(1 << level for level in range(levels, 0, -1))]  # pixels per latent
    offsets = np.zeros((1, 1)) if fineness is None or fineness.offsets is None else fineness.offsets
    deltas = delta * np.exp2(offsets / 16)
    steps = np.where(deltas >= bundle.manifest["refine_from"], deltas / 255, too_fine).astype(np.float32)
    full_height, full_width = (n * scales[0] for n in latents[0].shape[1:])
    whole = full_height * full_width <= 1 << 21
    picture = np.empty((height, width, 3), np.uint16 if deep else np.uint8)
    for top, bottom, first_row, last_row in _tiles(full_height, whole):
        for left, right, first_column, last_column in _tiles(full_width, whole):
            if first_row >= height or first_column >= width:
                continue
            inputs = {
                name: np.ascontiguousarray(band[None, :, top // n : bottom // n, left // n : right // n])
                for name, band, n in zip(names, latents, scales, strict=True)
            }
            if bundle.manifest.get("tuned", False):
                inputs["tune"] = np.full((1, 1, 1, 1), fineness.tuning / MAX_TUNING if fineness else 0, np.float32)
                inputs["step"] = steps[None, None]
                if offsets.size > 1:
                    half = scales[0]  # of a block, on the grid of half the resolution
                    blocks = steps[top // 2 // half : bottom // 2 // half, left // 2 // half : right // 2 // half]
                    inputs["step"] = blocks.repeat(half, 0).repeat(half, 1)[None, None]
            else:
                inputs["step"] = steps[0]
            (out,) = bundle.run("decoder", **inputs)
            rows, columns = slice(first_row, min(last_row, height)), slice(first_column, min(last_column, width))
            tile = out[0, :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            picture[rows, columns] = _to_levels(tile, span)
    return picture


def _to_levels(planes: Array, span: tuple[int, int] = (0, 255)) -> Array:
    """Levels `(H, W, 3)`, uint16, of `(3, H, W)`; 0 and 1 stand for those of `span`."""
    levels = np.floor(np.clip(planes, 0, 1) * np.float32(span[1] - span[0]) + np.float32(0.5))
    return levels.astype(np.uint16).transpose(1, 2, 0) + np.uint16(span[0])


def _decode_flat(bundle: Bundle, step: int, payload: bytes | None) -> tuple[Array, list[Array]]:
    """Picture `(S, S, 3)` and integers of a stream of a flat model; without one all residuals are zero."""
    manifest = bundle.manifest
    if step < manifest.get("from_step", 0):
        raise Rejected("the file says more than this small bundle can decode; it takes the whole model")
    reader = None if payload is None else SymbolReader(bundle.tables, payload, ">")
    own = (np.array(manifest["scale"]) - 5 * (step - STEP_ORIGIN) + 1024) // STEP_UNIT
    v, values = np.zeros(len(own), np.int32), np.zeros(len(own), np.float32)

    def read(there: Array, mean: Array, offset: Array) -> None:
        index = np.clip(own[there] + offset, 0, len(bundle.tables) - 1)
        m = reader.take(index) if reader else np.zeros(len(there), np.int32)
        v[there], values[there] = 16 * m + mean, bundle.dequantise(m, mean, index)

    core = manifest["blocks"][-1]
    seen = np.zeros((1, 1 + core, 1, 1), np.int8)
    seen[0, 0] = min(max((step - STEP_ORIGIN - 5 * STEP_UNIT + 64) // 128, -80), 96)
    for k, (start, end) in enumerate(pairwise([0, *manifest["blocks"]])):
        mean, offset = bundle.run(f"entropy/block{k}", seen=seen[:, : start + 1])
        read(np.arange(start, end), mean.ravel().astype(np.int32), offset.ravel())
        seen[0, 1 + start : 1 + end, 0, 0] = bundle.compand(v[start:end])
    fine = step <= manifest["rest_step"]
    rest = core + np.flatnonzero(own[core:] >= 6)
    if fine and len(rest):
        read(rest, np.zeros(len(rest), np.int32), np.zeros(len(rest), np.int64))
    delta = delta_of(step)
    latents = values * (delta / 255 * np.exp(np.array(manifest["gain"]))).astype(np.float32)
    told = np.array([NO_REFINEMENT if fine else max(delta, 20.0) / 255], np.float32)
    (picture,) = bundle.run("decoder", latents=latents[None], step=told, **bundle.rotation)
    return _to_levels(picture[0]).astype(np.uint8), [v]


def _tiny(content: bytes) -> bytes | None:
    """The tiny file that bytes are or, as base64 text, stand for; None if they are no tiny file."""
    if content[:1] in (b"+", b"/", b"-", b"_") and len(content) <= 1 << 16:
        text = content.strip().rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        try:
            content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except ValueError:
            return None
    return content if 2 <= len(content) <= 1 << 15 and 0xF8 <= content[0] <= 0xFD else None


LARGEST = 510  # difference that the nets know
AROUND = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
BEYOND = 2  # samples of a phase that are looked at beyond its edges
FARTHER = 4  # rows above and below that nets see which look around


def _offsets(phase: int) -> list[tuple[int, int]]:
    """Offsets from a sample of a phase to the neighbours that are known before it, the nearest four first."""
    (row, column), nearest = PHASES[phase], 2 if phase == 1 else 1
    square = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if abs(a) + abs(b) <= 7 - phase]
    known = [(a, b) for a, b in square if PHASES.index(((row + a) % 2, (column + b) % 2)) < phase]
    return sorted(known, key=lambda p: (abs(p[0]) + abs(p[1]) != nearest, p))


OFFSETS = {phase: _offsets(phase) for phase in (1, 2, 3)}


class Lattice:
    """What is known of an axis while its lattice goes from stride 2h to h: values and residuals of its phases.

    `coarser` are the lattices of stride 2h of all axes, `before` the finished lattices of the axes before.
    """

    def __init__(self, height: int, width: int, coarser: list[Array], before: list["Lattice"]) -> None:
        self.height, self.width, self.coarser, self.before = height, width, coarser, before
        self.full = np.zeros((2, height, width), np.int32)  # values and residuals of stride h
        self.planes: list[Array | None] = []
        self.features: Array | None = None
        self.add(coarser[len(before)])

    def shape(self, phase: int) -> tuple[int, int]:
        """Rows and columns of a phase."""
        i, j = PHASES[phase]
        return max(0, (self.height - i + 1) // 2), max(0, (self.width - j + 1) // 2)

    def add(self, found: Array) -> None:
        """Append the next phase, `(2, rows, columns)`."""
        i, j = PHASES[len(self.planes)]
        self.full[:, i::2, j::2] = found
        edges = ((0, 0), (BEYOND, BEYOND), (BEYOND, BEYOND))
        self.planes.append(np.pad(found, edges, "edge") if found.size else None)

    @functools.cached_property
    def wide(self) -> Array:
        """Values of the finished lattice, going on with their edge by one."""
        return np.pad(self.full[0], 1, "edge")

    def neighbours(self, phase: int, offset: tuple[int, int], rows: slice) -> Array | None:
        """Values and residuals at an offset from a strip of a phase, or None where there are no such samples."""
        (i, j), (a, b) = PHASES[phase], offset
        plane = self.planes[PHASES.index(((i + a) % 2, (j + b) % 2))]
        if plane is None:
            return None
        top, left = rows.start + (i + a) // 2 + BEYOND, (j + b) // 2 + BEYOND
        return plane[:, top : top + rows.stop - rows.start, left : left + self.shape(phase)[1]]

    def around(self, rows: slice) -> Array:
        """What is known around some rows of phase 0, `(channels, rows, columns)`."""
        count, columns = rows.stop - rows.start, self.shape(0)[1]
        seen = np.zeros((9 + 6 * len(self.before), count, columns), np.int32)
        for k, (values, residuals) in enumerate(self.coarser):
            seen[3 * k, :, :-1] = np.diff(values[rows], axis=1)
            below = np.diff(values[rows.start : rows.stop + 1], axis=0)
            seen[3 * k + 1, : len(below)] = below
            seen[3 * k + 2] = residuals[rows]
        for k, other in enumerate(self.before):
            for phase in (1, 2, 3):
                (i, j), (height, width) = PHASES[phase], other.shape(phase)
                value, residual = other.full[:, i::2, j::2][:, rows]
                zero = other.full[0, ::2, ::2][rows]
                at = 7 + 6 * k + 2 * phase
                there = min(count, height - rows.start)
                seen[at, :there, :width] = value - zero[:there, :width]
                seen[at + 1, :there, :width] = residual
        return seen

    def context(self, phase: int, rows: slice) -> tuple[Array, Array]:
        """Reference values `(rows, columns)` of a strip and what the nets see, `(channels, rows, columns)`."""
        i, j = PHASES[phase]
        near = [self.neighbours(phase, offset, rows) for offset in OFFSETS[phase]]
        absent = np.zeros((rows.stop - rows.start, self.shape(phase)[1]), np.int32)
        four = [x[0] for x in near[:4] if x is not None]
        reference = (sum(four * (4 // len(four)), absent) + 2) >> 2  # two stand for four at a single row or column
        seen = [absent if x is None else x[0] - reference for x in near]
        seen += [absent if x is None else x[1] for x in near[:4]]
        for other in self.before:
            tops, lefts = 2 * np.arange(rows.start, rows.stop) + i + 1, 2 * np.arange(self.shape(phase)[1]) + j + 1
            nine = {(a, b): other.wide[np.ix_(tops + a, lefts + b)] for a, b in AROUND}
            centre = (sum((nine[offset] for offset in OFFSETS[phase][:4]), absent) + 2) >> 2
            seen += [nine[offset] - centre for offset in AROUND]
            seen.append(other.full[1, i::2, j::2][rows])
        return reference, np.stack(seen)


WINDOW = 8  # residuals up to here may be weighted
UNWEIGHTED = 136  # first table whose residuals are not
WEIGHED = ((0, 255), (-255, 255), (-255, 255), (0, 255), (0, 255), (0, 255))  # values of Y, Co, Cg, R, G, B
WEIGHED_BY = ((0,), (1,), (2, 3, 4, 5))  # those that weigh values of Y, Co, Cg
LIGHTEST, HEAVIEST = -64, 24  # weights, in 1/8 octaves
FACTORS = np.floor(256 * np.exp2(np.arange(LIGHTEST, HEAVIEST + 1) / 8) + 0.5).astype(np.int64)


def _weights(cursor: Cursor, colour: bool) -> dict[int, Array]:
    """Weights of values, by their place in `WEIGHED`, from the end of a lossless element."""
    mask = cursor.take(1)[0]
    chosen = [k for k in range(6) if mask >> k & 1]
    if not chosen or mask >> (6 if colour else 1):
        raise CutOff
    sizes = [WEIGHED[k][1] - WEIGHED[k][0] + 1 for k in chosen]
    frame = cursor.take(len(cursor.content) - cursor.at)
    found = _zstd(frame, sum(sizes), unreadable="its lossless parameters cannot be read").view(np.int8)
    if found.min() < LIGHTEST or found.max() > HEAVIEST:
        raise CutOff
    return dict(zip(chosen, np.split(found, np.cumsum(sizes)[:-1]), strict=True))


def _windows(tables: list[list[int]]) -> tuple[Array, list[list[int]]]:
    """Of tables: frequencies in 2**18 parts below, in and above the window; bounds of how far beyond it one is."""
    windows, tails = [], []
    for cumulative in tables:
        f = np.diff(cumulative)
        radius = len(f) // 2
        f = np.pad(f, max(0, WINDOW + 1 - radius))
        middle = len(f) // 2
        below, above = f[: middle - WINDOW], f[middle + WINDOW + 1 :]
        windows.append(np.array([below.sum(), *f[middle - WINDOW : middle + WINDOW + 1], above.sum()]) >> 6)
        g = np.pad((above + below[::-1])[: radius - WINDOW if radius > WINDOW else 0], (0, 2))
        g = g[: max(2, radius - WINDOW)]
        g = 1 + g * ((1 << 24) - len(g)) // max(1, g.sum())
        g[0] += (1 << 24) - g.sum()
        tails.append([0, *np.cumsum(g).tolist()])
    return np.array(windows, np.int64), tails


class Lossless:
    """Reads the samples of a lossless file; those of units that are not there are what is predicted for them."""

    def __init__(self, bundle: Bundle, file: File, element: bytes) -> None:
        self.bundle, self.height, self.width, self.deep = bundle, file.height, file.width, file.deep
        self.segments = list(file.segments)
        self.end = 0
        self.reader: SymbolReader | None = None
        self.top = 65535 if file.deep else 255  # highest sample
        self.scale = 0  # s: 2^s levels count as one to the nets
        self.levels: Array | None = None  # those that ranks stand for
        self.corrections = np.zeros((9, 64), np.int8)  # of indices, by group
        self.tunings: dict[int, Array] = {}
        self.weights: dict[int, Array] = {}  # of values, by what they are of
        cursor = Cursor(element)
        try:
            flags = cursor.take(5)[4]
            self.colour = bool(flags & 1)
            if file.deep:
                self._deep_parameters(cursor, flags)
            else:
                halves = [half for byte in cursor.take(5) for half in (byte & 15, byte >> 4)]
                self.corrections += np.array([(half ^ 8) - 8 for half in halves[:9]], np.int8)[:, None]
                if flags & ~5 or halves[9]:
                    raise CutOff
                self._tunings(cursor)
                if flags & 4:
                    self.weights = _weights(cursor, self.colour)
            if cursor.at < len(element):
                raise CutOff
        except CutOff:
            raise Rejected("the file is damaged: its lossless parameters cannot be read") from None

    def _deep_parameters(self, cursor: Cursor, flags: int) -> None:
        if flags > 7 or flags & 2:
            raise CutOff
        if flags & 4:
            there = _zstd(cursor.take(int.from_bytes(cursor.take(2), "little")), 8192)
            self.levels = np.flatnonzero(np.unpackbits(there))
            if not len(self.levels):
                raise CutOff
        self.scale = cursor.take(1)[0]
        if self.scale > 8:
            raise CutOff
        self._tunings(cursor)
        rest = cursor.take(len(cursor.content) - cursor.at)
        if rest:
            self.corrections = _zstd(rest, 9, 64).view(np.int8)

    def _tunings(self, cursor: Cursor) -> None:
        tuned = int.from_bytes(cursor.take(3), "little")
        if tuned >> 18:
            raise CutOff
        for unit in (19 + k for k in range(18) if tuned >> k & 1):
            axis, phase = divmod((unit - 1) % 9, 3)
            channels = len(OFFSETS[phase + 1]) + 4 + 10 * axis
            self.tunings[unit] = np.frombuffer(cursor.take(channels), np.int8).astype(np.int32)

    def decode(self) -> Array:
        """The picture `(H, W, 3)`."""
        axes = range(3 if self.colour else 1)
        full = [self._corner(axis) for axis in axes]
        h = (1 << (max(self.height, self.width) - 1).bit_length()) >> 1
        while h:
            done: list[Lattice] = []
            for _ in axes:
                lattice = Lattice(-(-self.height // h), -(-self.width // h), full, list(done))
                for phase in (1, 2, 3):
                    lattice.add(self._phase(lattice, h, phase))
                done.append(lattice)
            full = [lattice.full for lattice in done]
            h >>= 1
        y, co, cg = [*(plane[0] for plane in full), np.int32(0), np.int32(0)][:3]
        t = y - (cg >> 1)
        b = t - (co >> 1)
        picture: Array = np.clip(np.stack([b + co, cg + t, b], -1), 0, self.top)
        if self.levels is not None:
            picture = self.levels[np.minimum(picture, len(self.levels) - 1)]
        return picture.astype(np.uint16 if self.deep else np.uint8)

    def _range(self, axis: int) -> tuple[int, int]:
        """The lowest and the highest value of an axis."""
        return -self.top if axis else 0, self.top

    def _open(self, unit: int) -> SymbolReader | None:
        """The stream that holds a unit."""
        while unit >= self.end:
            if not self.segments:
                return None
            units, payload = self.segments.pop(0)
            self.end += units
            self.reader = SymbolReader(self.bundle.lossless_tables, payload)
        return self.reader

    def _corner(self, axis: int) -> Array:
        """Value and residual of an axis's first sample, `(2, 1, 1)`."""
        reader = self._open(0)
        start = 0 if axis else (self.top + 1) // 2
        value = start + (int(reader.take(np.array([159]))[0]) if reader else 0)
        return np.array([np.clip(value, *self._range(axis)), 0], np.int32).reshape(2, 1, 1)

    def _phase(self, lattice: Lattice, h: int, phase: int) -> Array:
        """Values and residuals of one phase, `(2, rows, columns)`."""
        axis = len(lattice.before)
        rows, columns = lattice.shape(phase)
        found = np.empty((2, rows, columns), np.int32)
        step = max(1, STRIP // max(1, columns))
        unit = 0 if h >= 16 else 1 + 9 * (4 - h.bit_length()) + 3 * axis + phase - 1
        net = min(h.bit_length(), 3)
        lowest, highest = self._range(axis)
        features = self._features(lattice, net)
        for top in range(0, rows if columns else 0, step):
            strip = slice(top, min(top + step, rows))
            reference, context = lattice.context(phase, strip)
            context = self._seen(context)
            inputs = {"context": context[None]}
            if features is not None:
                inputs["features"] = np.ascontiguousarray(features[None, :, strip, :columns])
            mean, index = self.bundle.run(f"lossless/{net}_{axis}_{phase}", **inputs)
            mean = 16 * reference + (mean[0, 0].astype(np.int32) << self.scale)
            mean = tuned = np.clip(mean, 16 * lowest, 16 * highest)
            if unit in self.tunings:
                shift = np.tensordot(self.tunings[unit], context.astype(np.int32), 1)
                tuned = np.clip(mean + ((shift + 8) >> 4 << self.scale), 16 * lowest, 16 * highest)
            value = (tuned + 8) >> 4
            reader = self._open(unit)
            if reader:
                fraction = tuned - 16 * value
                c = np.minimum((np.abs(fraction) + 1) >> 1, 3)
                k, rest = self._wanted(3 * (net - 1) + axis, index[0, 0])
                table = np.where(k < 32, 4 * k + c, 96 + k)
                weighted = table < (UNWEIGHTED if unit >= 19 and self.weights.keys() & WEIGHED_BY[axis] else 0)
                i, j = PHASES[phase]
                before = [other.full[0, i::2, j::2][strip][weighted] for other in lattice.before]
                m = np.empty(value.shape, np.int32)
                m[weighted] = self._take_weighted(
                    reader, table[weighted], fraction[weighted] < 0, value[weighted], before
                )
                plain = take_deep(reader, table[~weighted], rest[~weighted])
                m[~weighted] = np.where(fraction[~weighted] < 0, -plain, plain)
                value = np.clip(value + m, lowest, highest)
            found[:, strip] = value, value - ((mean + 8) >> 4)
        return found

    def _take_weighted(
        self, reader: SymbolReader, table: Array, turned: Array, predicted: Array, before: list[Array]
    ) -> Array:
        """What values have above predicted ones; with weights that may depend on the values of the axes before."""
        if not len(table):
            return np.zeros(0, np.int32)
        near = predicted[:, None] + np.arange(-WINDOW, WINDOW + 1)
        values = [near] * 6
        if len(before) == 2:
            y, co = (axis[:, None] for axis in before)
            t = y - (near >> 1)
            b = t - (co >> 1)
            values[3:] = b + co, near + t, b
        total = np.zeros(near.shape, np.int64)
        for k in self.weights.keys() & WEIGHED_BY[len(before)]:
            first, last = WEIGHED[k]
            there = self.weights[k][np.clip(values[k], first, last) - first]
            total += np.where((values[k] >= first) & (values[k] <= last), there, LIGHTEST)
        windows, tails = self.bundle.lossless_windows
        f = np.where(turned[:, None], windows[table, ::-1], windows[table])
        f[:, 1:-1] *= FACTORS[np.clip(total, LIGHTEST, HEAVIEST) - LIGHTEST]
        f[:, [0, -1]] *= 256
        f = 1 + f * ((1 << 24) - f.shape[1]) // f.sum(1, keepdims=True)
        f[:, WINDOW + 1] += (1 << 24) - f.sum(1)
        bounds = np.pad(np.cumsum(f, axis=1), ((0, 0), (1, 0))).tolist()
        m = np.array([reader.decoder.symbols(own, 1)[0] for own in bounds], np.int32) - WINDOW - 1
        outside = np.flatnonzero(np.abs(m) > WINDOW)
        m[outside] += np.sign(m[outside]) * reader.tails(tails, table[outside])
        return m

    def _seen(self, differences: Array) -> Array:
        """What nets see of differences."""
        half = 1 << self.scale >> 1
        return np.clip((differences + half) >> self.scale, -LARGEST, LARGEST).astype(np.int16)

    def _features(self, lattice: Lattice, net: int) -> Array | None:
        """What the net that looks around, if there is one, makes of phase 0, `(channels, rows, columns)`."""
        graph = f"lossless/{net}_{len(lattice.before)}_features"
        if lattice.features is None and f"{graph}.onnx" in self.bundle.files:
            rows, columns = lattice.shape(0)
            step, parts = max(1, STRIP // columns), []
            for top in range(0, rows, step):
                first, stop = max(0, top - FARTHER), min(rows, top + step + FARTHER)
                context = self._seen(lattice.around(slice(first, stop)))
                found = self.bundle.run(graph, context=context[None])[0]
                channels = len(parts[0]) if parts else found.shape[1] if found.ndim == 4 else 0
                if not 1 <= channels <= 255 or found.shape != (1, channels, *context.shape[1:]):
                    raise Rejected("the model bundle's graphs do not give what they should")
                parts.append(found[0, :, top - first : top - first + step])
            lattice.features = np.concatenate(parts, axis=1)
        return lattice.features

    def _wanted(self, group: int, index: Array) -> tuple[Array, Array]:
        """Tables without their class, and low bits that are coded as they are."""
        wanted = index.astype(np.int32) + 5 * self.scale + self.corrections[group][index]
        return table_and_rest(wanted if self.deep else np.clip(wanted, 0, 63))


def _decode_lossless(bundle: Bundle, file: File, element: bytes) -> Array:
    packed = len(element) == 5 and element[4] in (2, 3)
    picture = _unpack(file, 3 if element[4] == 3 else 1) if packed else Lossless(bundle, file, element).decode()
    whole = sum(units for units, _ in file.segments) == LOSSLESS_UNITS
    if whole and zlib.crc32(picture.astype(picture.dtype.newbyteorder("<")).tobytes()) != int.from_bytes(
        element[:4], "little"
    ):
        raise Rejected("the file is damaged: its pixels are not those that were compressed")
    return picture


def _unpack(file: File, channels: int) -> Array:
    """The picture `(H, W, 3)` of packed samples; black if they are cut off."""
    kind, shape = np.dtype(np.uint16 if file.deep else np.uint8), (file.height, file.width, channels)
    if not file.segments:
        return np.zeros((file.height, file.width, 3), kind)
    units, payload = file.segments[0]
    if units != LOSSLESS_UNITS or not payload or payload[0] > WEBP or (file.deep and payload[0] == WEBP):
        raise Rejected("the file is damaged: its packed samples cannot be read")
    if payload[0] == WEBP:
        colours = _webp(file, payload[1:])
        return colours if channels == 3 else np.repeat(colours[:, :, 1:2], 3, axis=2)
    halves = _zstd(payload[1:], kind.itemsize, *shape)  # upper bytes come first
    samples = halves[0].astype(kind)
    if file.deep:
        samples = samples << 8 | halves[1]
    for axis in {0: (), 1: (0,), 2: (1, 0)}[payload[0]]:
        samples = np.add.accumulate(samples, axis=axis, dtype=kind)
    return np.repeat(samples, 3 // channels, axis=2)


def decode(content: bytes, bundle: Bundle, max_pixels: int = MAX_PIXELS) -> Array:
    """The picture `(H, W, 3)`, or `(H, W, 4)` with transparency, of an `.eoc` file, a prefix of one or a tiny file.

    It is uint8, or uint16 if the file has 16 bits a sample.

    Raises:
        Rejected: not such a file, a damaged one, of another model, or of more than `max_pixels`.
    """
    return decode_with_symbols(content, bundle, max_pixels)[0]


def decode_with_symbols(
    content: bytes, bundle: Bundle, max_pixels: int = MAX_PIXELS
) -> tuple[Array, npt.NDArray[np.int32]]:
    """The picture as from :func:`decode`, and the integers of the file (docs/FORMAT.md, "Test vectors")."""
    tiny = _tiny(content)
    if tiny is not None:
        number, grey = divmod(tiny[0] - 0xF8, 2)
        if not bundle.flat or bundle.manifest["tiny"] != number + 1:
            raise Rejected(f"the tiny file needs the model with number {number + 1}, which this bundle is not")
        picture, integers = _decode_flat(bundle, STEP_ORIGIN + 3072 + 64 * tiny[1], tiny[2:])
        alpha = None
    else:
        file = parse(content)
        if file.width * file.height > max_pixels:
            raise Rejected(f"the file holds {file.width}x{file.height} pixels, more than the limit of {max_pixels}")
        if file.model != bundle.id[:4]:
            raise Rejected(f"the file was made with the model {file.model.hex()}, the bundle is {bundle.id[:4].hex()}")
        grey = file.grey and file.lossless is None
        alpha = None if file.alpha is None else _transparency(file, file.alpha)
        picture, integers = _decode_pixels(bundle, file)
    picture = _greyed(picture, bool(grey))
    if alpha is not None:
        alpha = alpha * picture.dtype.type(np.iinfo(picture.dtype).max // 255)
        picture = np.concatenate([picture, alpha], 2)
    return picture, np.concatenate([band.ravel() for band in integers]).astype(np.int32)


def _greyed(picture: Array, grey: bool) -> Array:
    """The picture, with the rounded mean of its three levels everywhere if it is grey."""
    if not grey:
        return picture
    mean: Array = (picture.sum(2, dtype=np.uint32, keepdims=True) + 1) // 3
    return np.repeat(mean.astype(picture.dtype), 3, axis=2)


def _places(file: File, element: bytes) -> tuple[list[tuple[int, int, int, int]], bytes]:
    """x, y, width and height of a page's photographs, and its exact layer."""
    cursor = Cursor(element)
    try:
        count = cursor.take(1)[0]
        places = [(cursor.varint(), cursor.varint(), cursor.varint(), cursor.varint()) for _ in range(count)]
    except CutOff:
        count, places = 0, []
    if not 1 <= count <= MAX_PHOTOGRAPHS:
        raise Rejected("the file is damaged: the places of its photographs cannot be read")
    if any(not w or not h or x + w > file.width or y + h > file.height for x, y, w, h in places):
        raise Rejected("the file is damaged: a photograph is empty or lies outside the page")
    for (x, y, w, h), (left, top, width, height) in combinations(places, 2):
        if x < left + width and left < x + w and y < top + height and top < y + h:
            raise Rejected("the file is damaged: two photographs overlap")
    return places, element[cursor.at :]


def _decode_page(bundle: Bundle, file: File, element: bytes) -> tuple[Array, list[Array]]:
    """An exact layer with photographs on it, each an ordinary file; those that are not there leave the layer as it is.

    All photographs are taken apart before the layer is decoded.
    """
    places, layer = _places(file, element)
    if len(file.segments) > len(places):
        raise Rejected("the file is damaged: it has more photographs than places for them")
    parts = []
    for (_, _, width, height), (_, payload) in zip(places, file.segments, strict=False):
        part = parse(payload)
        others = (part.page, part.lossless, part.stream, part.choice, part.alpha)
        if part.model != file.model or any(other is not None for other in others) or (file.grey and not part.grey):
            raise Rejected("the file is damaged: a photograph is of another kind or model than the page can hold")
        if (part.width, part.height) != (width, height):
            raise Rejected("the file is damaged: a photograph has another size than its place")
        parts.append(part)
    picture = _greyed(_webp(file, layer), file.grey).copy()
    integers = [picture.copy()]
    for (x, y, width, height), part in zip(places, parts, strict=False):
        photograph, found = _decode_pixels(bundle, part)
        picture[y : y + height, x : x + width] = _greyed(photograph, part.grey)
        integers += found
    return picture, integers


def _decode_pixels(bundle: Bundle, file: File) -> tuple[Array, list[Array]]:
    if file.page is not None and not bundle.flat:
        return _decode_page(bundle, file, file.page)
    if sum(units for units, _ in file.segments) > (bundle.units if file.lossless is None else LOSSLESS_UNITS):
        raise Rejected("the file is damaged: it has more coding units than the model")
    if bundle.flat:
        size = bundle.manifest["size"]
        special = file.tuning or file.deep or file.luma or len(file.segments) > 1
        parts = (file.offsets, file.shifts, file.lossless, file.stream, file.page)
        special = special or any(part is not None for part in parts)
        if special or (file.width, file.height) != (size, size):
            raise Rejected("the file is damaged: its model does not make such files")
        return _decode_flat(bundle, file.step, file.segments[0][1] if file.segments else None)
    if file.lossless is not None:
        picture = _decode_lossless(bundle, file, file.lossless)
        return picture, [picture]
    if file.stream is not None:
        embedded = Embedded(bundle, file)
        latents, integers = embedded.decode(file.stream)
        return embedded.picture(latents, file.grey), integers
    if file.axes == 1:
        bundle = bundle.grey
    ordinary = Ordinary(bundle, file)
    latents, integers = ordinary.decode()
    place = delta_of(file.step), file.width, file.height, ordinary.fineness
    alone = (file.luma or file.deep) and file.offsets is None
    return synthesise(bundle, latents, *place, FLOW_ALONE if alone else NO_REFINEMENT, file.deep, file.span), integers


def png(picture: Array) -> bytes:
    """A PNG of `(H, W, 3)` or `(H, W, 4)`, of 8 or 16 bits as the picture has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = picture.shape
    rows = picture.astype(picture.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    rows = rows - np.pad(rows[:-1], ((1, 0), (0, 0)))  # filter 2: less the row above, modulo 256
    depth = 8 * picture.dtype.itemsize
    head = struct.pack(">IIBBBBB", width, height, depth, 2 if channels == 3 else 6, 0, 0, 0)
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0)), constant_values=2).tobytes())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_bytes(content)
        return
    if path.is_symlink():  # it stays one, /dev/stdout above all
        path = path.resolve()
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _same(one: Path, other: Path) -> bool:
    """Whether two names, or links, are one file; devices and pipes may well be read and written at once."""
    if one.exists() or other.exists():
        return one.is_file() and other.is_file() and one.samefile(other)
    return one.resolve() == other.resolve()


def _keep(read: dict[str, Path], written: list[Path]) -> None:
    """Refuse to write a file that is read, or one file twice."""
    taken = [(path, f"the {what} itself") for what, path in read.items()]
    for path in written:
        for other, what in taken:
            if _same(path, other):
                raise Rejected(f"{path} is {what}; choose another output")
        taken.append((path, "what the picture is written to"))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 or, after one sentence on standard error, 1; wrong arguments end it with 2."""
    parser = argparse.ArgumentParser(description="Decode an .eoc file to a PNG.")
    parser.add_argument("bundle", type=Path, help="the model, .eocm")
    parser.add_argument("file", type=Path, help="the picture, .eoc")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--symbols", type=Path, help="also write the file's integers, int32, little-endian")
    parser.add_argument("--max-pixels", type=_positive, default=MAX_PIXELS, help="refuse larger pictures")
    given = parser.parse_args(arguments)
    try:
        _keep({"bundle": given.bundle, "input": given.file}, [given.out] + [given.symbols] * bool(given.symbols))
        picture, symbols = decode_with_symbols(given.file.read_bytes(), Bundle(given.bundle), given.max_pixels)
        if given.symbols:
            write(given.symbols, symbols.astype("<i4").tobytes())
        write(given.out, png(picture))
    except Rejected as e:
        print(e, file=sys.stderr)
    except OSError as e:
        print(f"{e.filename}: {e.strerror}" if e.filename else e, file=sys.stderr)
    except MemoryError:
        print("there is not enough memory for this picture", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
