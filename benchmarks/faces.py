"""Rate-distortion of 64×64 faces at 16 to 400 bytes: tiny-picture hashes, file formats, PCA, eocodec.

    python benchmarks/faces.py EVAL --train TRAIN [--model face64] --json benchmarks/faces.json --plot docs/faces.png
    python benchmarks/faces.py EVAL --only face64 --json benchmarks/faces.json --plot docs/faces.png

EVAL and TRAIN are tars or folders of 64×64 lossless pictures. Sizes are those of whole encoded files, PSNR is that of
the decoded 8-bit RGB picture; both are means over faces at equal settings. Nothing is fitted to EVAL. Curves that are
not asked for with `--only` stay as the JSON has them.

Needs the extra `bench`, `torch` (the PCA's fit) and `blurhash-python`.
"""

import argparse
import importlib.metadata
import io
import json
import math
import platform
import sys
import tarfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt
from PIL import Image

import eocodec
from eocodec.coding.range_coder import shortest
from eocodec.errors import EocodecError
from eocodec.metrics import bd_rate

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

SIDE = 64
TARGET_BYTES = (10, 16, 24, 32, 48, 64, 96, 128, 160, 200, 256, 320, 400)
TARGET_PSNR = (24, 25, 26, 27, 28, 29, 30, 31)
WEBP_PSNR = (25.3, 30.8)

PCA_COMPONENTS = 1280
PCA_STEPS = tuple(round(16 * 1400 * 2 ** (-k / 3)) / 16 for k in range(20))  # 8-bit levels
PCA_HEADER = 3  # bytes: step, number of the model
RATE_WEIGHT = 0.17  # squared steps a bit is worth, the codec's own (docs/METHOD.md)
TABLE_BITS = 24  # of constriction's frequencies
SETTINGS = {
    "bytes": "mean size of the whole encoded files",
    "psnr": "mean over faces of the PSNR of the decoded 8-bit RGB picture, dB",
    "interpolation": "linear between points, dB over log bytes; BD-rate: eocodec.metrics.bd_rate",
    "pca_components": PCA_COMPONENTS,
    "pca_header_bytes": PCA_HEADER,
    "pca_rate_weight": RATE_WEIGHT,
}
FACE64_RATES = tuple(round(4 * 320 ** (k / 15), 2) for k in range(16))  # C, to the end of the core


def read_faces(path: Path) -> Bytes:
    """`(N, 64, 64, 3)` from a tar or a folder, in order of name."""
    if path.is_dir():
        files = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    else:
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    faces = [np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for name in sorted(files)]
    return np.stack(faces)


def face_psnr(faces: Bytes, decoded: Bytes) -> Floats:
    """PSNR of every face, dB."""
    errors = (faces.astype(np.float32) - decoded.astype(np.float32)).reshape(len(faces), -1)
    return 10 * np.log10(255.0**2 / np.maximum(np.square(errors, dtype=np.float64).mean(1), 1e-3))


# A codec takes a face and a setting; out come the size in bytes and the decoded face.
Codec = Callable[[Bytes, Any], tuple[int, Bytes]]


def pillow(kind: str, **options: Any) -> Codec:
    """A file format at qualities."""

    def run(face: Bytes, quality: float) -> tuple[int, Bytes]:
        out = io.BytesIO()
        Image.fromarray(face).save(out, kind, quality=quality, **options)
        return len(out.getvalue()), np.asarray(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))

    return run


def blurhash(face: Bytes, components: tuple[int, int]) -> tuple[int, Bytes]:
    """The base83 string, decoded at full size."""
    import blurhash as package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reads pixels by a deprecated call
        text = package.encode(Image.fromarray(face), *components)
    return len(text), np.asarray(package.decode(text, SIDE, SIDE))


def blurhash_packed_bytes(components: tuple[int, int]) -> int:
    """Bytes of what a BlurHash says if it were packed as one integer: 81 sizes, 83 scales, RGB, 19³ values each."""
    n = components[0] * components[1]
    return math.ceil((math.log2(81 * 83) + 24 + (n - 1) * math.log2(19**3)) / 8)


class ThumbHash:
    """ThumbHash of square opaque pictures, after the reference JavaScript (MIT).

    Nothing usable is in the registry: `thumbhash` 0.1.2 decodes every pixel with the first one's cosines and prints as
    it goes, `thumbhash-python` 1.0.1 asks for Pillow below 11. The hashes are those of the latter, byte for byte.

    Arguments:
        side: the decoder evaluates its cosines on side × side pixels (the reference: 32); enlarged bicubically.
        saturation: what the decoder multiplies chroma with (the reference: 1.25).

    References:
        Evan Wallace, ThumbHash. https://evanw.github.io/thumbhash/
    """

    def __init__(self, side: int = 32, saturation: float = 1.25) -> None:
        self.side, self.saturation = side, saturation

    @staticmethod
    def _cosines(n: int) -> Floats:
        return np.cos(np.pi / n * np.outer(np.arange(7), np.arange(n) + 0.5))

    @staticmethod
    def _order(n: int) -> list[tuple[int, int]]:
        """(cy, cx) of the coefficients of a channel, DC first."""
        return [(cy, cx) for cy in range(n) for cx in range(n - cy)]

    def encode(self, face: Bytes) -> bytes:
        """The hash."""
        r, g, b = np.moveaxis(face.astype(np.float64) / 255, 2, 0)
        cosines = self._cosines(len(face))
        dc, ac, scale = [], [], []
        for channel, n in (((r + g + b) / 3, 7), ((r + g) / 2 - b, 3), (r - g, 3)):
            f = cosines[:n] @ channel @ cosines[:n].T / channel.size
            values = np.array([f[k] for k in self._order(n)])
            dc.append(values[0])
            scale.append(np.abs(values[1:]).max())
            ac.append(0.5 + 0.5 * values[1:] / scale[-1] if scale[-1] else np.zeros(len(values) - 1))
        r = [math.floor(v + 0.5) for v in (63 * dc[0], 31.5 + 31.5 * dc[1], 31.5 + 31.5 * dc[2], 31 * scale[0])]
        header24 = r[0] | r[1] << 6 | r[2] << 12 | r[3] << 18
        header16 = 7 | math.floor(63 * scale[1] + 0.5) << 3 | math.floor(63 * scale[2] + 0.5) << 9
        nibbles = np.floor(15 * np.concatenate(ac) + 0.5).astype(np.uint8)
        nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
        body = (nibbles[::2] | nibbles[1::2] << 4).tobytes()
        return header24.to_bytes(3, "little") + header16.to_bytes(2, "little") + body

    def decode(self, data: bytes) -> Bytes:
        """`(64, 64, 3)`."""
        header24, header16 = int.from_bytes(data[:3], "little"), int.from_bytes(data[3:5], "little")
        body = np.frombuffer(data[5:], np.uint8)
        nibbles = np.stack([body & 15, body >> 4], 1).ravel() / 7.5 - 1
        dc = (header24 & 63) / 63, (header24 >> 6 & 63) / 31.5 - 1, (header24 >> 12 & 63) / 31.5 - 1
        chroma = self.saturation / 63
        scale = (header24 >> 18 & 31) / 31, (header16 >> 3 & 63) * chroma, (header16 >> 9 & 63) * chroma
        cosines = self._cosines(self.side)
        channels, at = [], 0
        for n, mean, peak in zip((7, 3, 3), dc, scale, strict=True):
            order = self._order(n)[1:]
            f = np.zeros((n, n))
            f[0, 0] = mean
            for k, value in zip(order, nibbles[at : at + len(order)], strict=True):
                f[k] = 2 * peak * value
            at += len(order)
            channels.append(cosines[:n].T @ f @ cosines[:n])
        luma, p, q = channels
        b = luma - 2 / 3 * p
        r = (3 * luma - b + q) / 2
        picture = np.floor(255 * np.clip(np.stack([r, r - q, b], 2), 0, 1) + 0.5).astype(np.uint8)
        return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    def __call__(self, face: Bytes, setting: Any) -> tuple[int, Bytes]:
        """As a :data:`Codec` without settings."""
        data = self.encode(face)
        return len(data), self.decode(data)


@dataclass(frozen=True)
class Curve:
    """A codec and the settings it is measured at."""

    family: str  # what `--only` names
    codec: Codec
    settings: Sequence[Any]
    note: str


QUALITIES = (0, 1, 2, 4, 7, 10, 14, 19, 25, 32, 40, 50, 60, 70, 80, 88)
JXL_QUALITIES = (0, 4, 10, 19, 30, 45, 60, 75)  # as libjxl maps them to distances of 25 to 2.4
PEERS = {
    "thumbhash": Curve("thumbhash", ThumbHash(), (None,), "reference decoder at 32×32, enlarged bicubically"),
    "thumbhash, full size": Curve("thumbhash", ThumbHash(64), (None,), "cosines evaluated at 64×64"),
    "thumbhash, plain chroma": Curve(
        "thumbhash",
        ThumbHash(64, 1.0),
        (None,),
        "cosines evaluated at 64×64, chroma not multiplied by 1.25 in the decoder",
    ),
    "blurhash": Curve(
        "blurhash",
        blurhash,
        (*((n, n) for n in range(2, 10)), (3, 4), (4, 3)),
        "bytes are those of the base83 string; cosines evaluated at 64×64",
    ),
    "jpeg": Curve("jpeg", pillow("JPEG", optimize=True, subsampling="4:2:0"), QUALITIES[1:], "optimised tables, 4:2:0"),
    "jpeg, progressive": Curve(
        "jpeg", pillow("JPEG", progressive=True, subsampling="4:2:0"), QUALITIES[1:], "progressive, 4:2:0"
    ),
    "webp": Curve("webp", pillow("WEBP", method=6), QUALITIES, "method 6"),
    "avif": Curve("avif", pillow("AVIF", speed=4, subsampling="4:2:0", max_threads=1), QUALITIES, "speed 4, 4:2:0"),
    "jxl": Curve("jxl", pillow("JXL", effort=7, num_threads=1), JXL_QUALITIES, "effort 7, bare codestream"),
    "jxl, effort 9": Curve("jxl", pillow("JXL", effort=9, num_threads=1), JXL_QUALITIES, "effort 9, bare codestream"),
}
FAMILIES = ("thumbhash", "blurhash", "jpeg", "webp", "avif", "jxl", "pca", "face64")


def measure(codec: Codec, faces: Bytes, setting: Any) -> dict[str, Any]:
    """A curve's point."""
    results = [codec(face, setting) for face in faces]
    sizes = np.array([size for size, _ in results])
    return point(setting, sizes, face_psnr(faces, np.stack([decoded for _, decoded in results])))


def point(setting: Any, sizes: npt.NDArray[Any], decibels: Floats) -> dict[str, Any]:
    """Means over faces."""
    return {"setting": setting, "bytes": round(float(sizes.mean()), 3), "psnr": round(float(decibels.mean()), 4)}


@dataclass(frozen=True)
class Basis:
    """Principal components of faces: mean `(12288,)`, orthonormal rows `(K, 12288)`, deviations `(K,)`."""

    mean: Float32
    rows: Float32
    stds: Float32

    @staticmethod
    def fit(faces: Bytes, mirrored: bool, components: int) -> "Basis":
        """Randomised subspace iteration, four power iterations, on the faces and, if `mirrored`, their mirror images.

        References:
            Halko, Martinsson & Tropp, *Finding structure with randomness*, 2011. https://arxiv.org/abs/0909.4061
        """
        import torch

        x = torch.from_numpy(faces)
        if mirrored:
            x = torch.cat([x, x.flip(2)])
        a = x.reshape(len(x), -1).float()
        mean = a.mean(0)
        a -= mean
        components = min(components, len(a))
        generator = torch.Generator().manual_seed(0)
        q = torch.randn(a.shape[1], components + 96, generator=generator)
        for _ in range(5):  # the first range, then four power iterations
            q = torch.linalg.qr(a.T @ (a @ q))[0]
        b = (a @ q).double()
        values, vectors = torch.linalg.eigh(b.T @ b)
        order = torch.arange(len(values) - 1, len(values) - 1 - components, -1)
        rows = (q.double() @ vectors[:, order]).T.float().contiguous()
        return Basis(mean.numpy(), rows.numpy(), (values[order] / len(a)).sqrt().float().numpy())

    def coefficients(self, faces: Bytes) -> Float32:
        """`(K, N)`, 8-bit levels."""
        parts = [
            self.rows @ (faces[k : k + 1024].reshape(-1, self.mean.size) - self.mean).T
            for k in range(0, len(faces), 1024)
        ]
        return np.concatenate(parts, 1)

    def faces(self, coefficients: npt.NDArray[Any]) -> Bytes:
        """Pictures of coefficients `(k, N)` of the first k components."""
        x = coefficients.T.astype(np.float32) @ self.rows[: len(coefficients)] + self.mean
        return np.clip(np.rint(x), 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 3)


class Component:
    """Static code of a component: integers from `low` on, their frequencies, code lengths and reconstructions.

    Frequencies are counted on the training faces and joined by pseudo-counts, one a symbol on average, of a generalised
    Gaussian of the same moments. With a rate weight, rounding minimises (x − x̂)² + weight · bits over the neighbours
    and zero; frequencies and rounding are found in turn. Values beyond the table take its last symbol.
    """

    SHAPES = np.linspace(0.4, 3, 53)

    def __init__(self, x: Float32, weight: float, centroid: bool) -> None:
        low, high = math.floor(float(x.min())) - 1, math.ceil(float(x.max())) + 1
        self.low, self.weight = low, weight
        levels = np.arange(low, high + 1)
        prior = len(levels) * self._generalised_gaussian(x, levels) + 0.2
        self.values = levels.astype(np.float32)
        integers = np.rint(x).astype(np.int32)
        for _ in range(4 if weight else 1):
            counts = np.bincount(integers - low, minlength=len(levels))
            p = counts + prior
            self.probabilities = p / p.sum()
            self.bits = -np.log2(np.maximum(self.probabilities, 2.0**-TABLE_BITS)).astype(np.float32)
            if centroid:
                sums = np.bincount(integers - low, x, len(levels))
                self.values = ((sums + 4 * levels) / (counts + 4)).astype(np.float32)
            if weight:
                integers = self.round(x)
        self.coded = bool(integers.any())
        self.model = constriction.stream.model.Categorical(self.probabilities, perfect=False, lazy=False)

    @classmethod
    def _generalised_gaussian(cls, x: Float32, levels: npt.NDArray[np.int64]) -> Floats:
        """Masses of the unit bins around `levels`; the shape is that of E|x|² / E x²."""
        from scipy.special import gamma, gammainc

        ratios = gamma(2 / cls.SHAPES) ** 2 / (gamma(1 / cls.SHAPES) * gamma(3 / cls.SHAPES))
        square = max(float(np.square(x, dtype=np.float64).mean()), 1e-9)
        shape = float(np.interp(float(np.abs(x).mean()) ** 2 / square, ratios, cls.SHAPES))
        scale = math.sqrt(square * gamma(1 / shape) / gamma(3 / shape))
        edges = np.append(levels, levels[-1] + 1) - 0.5
        return np.diff(0.5 + 0.5 * np.sign(edges) * gammainc(1 / shape, (np.abs(edges) / scale) ** shape))

    def round(self, x: Float32) -> Int32:
        """Integers of coefficients in steps."""
        last = len(self.values) - 1
        nearest = np.clip(np.rint(x).astype(np.int32) - self.low, 0, last)
        if not self.weight:
            return nearest + self.low
        best, cost = nearest, self._cost(x, nearest)
        for other in (np.maximum(nearest - 1, 0), np.minimum(nearest + 1, last), np.full_like(nearest, -self.low)):
            c = self._cost(x, other)
            better = c < cost
            best, cost = np.where(better, other, best), np.where(better, c, cost)
        return best + self.low

    def _cost(self, x: Float32, symbols: Int32) -> Float32:
        return np.square(x - self.values[symbols]) + np.float32(self.weight) * self.bits[symbols]

    def reconstruct(self, integers: Int32) -> Float32:
        """Coefficients in steps."""
        return self.values[integers - self.low]


class LinearCodec:
    """PCA coefficients, one step for all, static tables, constriction's range coder.

    A file is the step (1/16 levels, 2 bytes), a byte for the model's number and the shortest string of bytes in the
    coder's final interval, zeros beyond its end understood.

    Arguments:
        basis: the components.
        training: coefficients `(K, N)` of the training faces; tables and centroids come from them.
        step: 8-bit levels, a multiple of 1/16.
        weight: of the rate in rounding, squared steps per bit; 0 rounds to the nearest.
        centroid: reconstruct at the training coefficients' mean in a bin, not at its integer.
    """

    def __init__(self, basis: Basis, training: Float32, step: float, weight: float, centroid: bool) -> None:
        self.basis, self.step = basis, step
        components = [Component(c / np.float32(step), weight, centroid) for c in training]
        count = max((k + 1 for k, c in enumerate(components) if c.coded), default=0)
        self.components = components[:count]

    def quantise(self, coefficients: Float32) -> Int32:
        """Integers `(k, N)` of coefficients `(K, N)`; components without a table are dropped."""
        pairs = zip(self.components, coefficients, strict=False)
        return np.stack([component.round(c / np.float32(self.step)) for component, c in pairs])

    def encode(self, integers: Int32) -> bytes:
        """The file of a face's integers `(k,)`."""
        coder = constriction.stream.queue.RangeEncoder()
        for component, integer in zip(self.components, integers.tolist(), strict=True):
            coder.encode(integer - component.low, component.model)
        return round(self.step * 16).to_bytes(2, "big") + b"\x01" + shortest(coder)

    def decode(self, data: bytes) -> Int32:
        """Integers of a file."""
        payload = data[PCA_HEADER:]
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), ">u4").astype(np.uint32)
        coder = constriction.stream.queue.RangeDecoder(words)
        return np.array([coder.decode(c.model) + c.low for c in self.components], np.int32)

    def faces(self, integers: Int32) -> Bytes:
        """Pictures of integers `(k, N)`."""
        values = [c.reconstruct(q) for c, q in zip(self.components, integers, strict=True)]
        return self.basis.faces(np.float32(self.step) * np.stack(values))

    def measure(self, faces: Bytes, coefficients: Float32) -> dict[str, Any]:
        """A curve's point; every 32nd file is decoded as a check."""
        integers = self.quantise(coefficients)
        files = [self.encode(q) for q in integers.T]
        for k in range(0, len(files), 32):
            assert np.array_equal(self.decode(files[k]), integers[:, k]), "a file does not decode to its integers"
        result = point(self.step, np.array([len(f) for f in files]), face_psnr(faces, self.faces(integers)))
        ideal = [_entropy(q) for q in integers]
        static = sum(float(c.bits[q - c.low].mean()) for c, q in zip(self.components, integers, strict=True))
        return result | {
            "components": len(self.components),
            "code_length_bytes": round(static / 8, 3),
            "ideal_static_bytes": round(sum(ideal) / 8, 3),
        }


def _entropy(integers: Int32) -> float:
    p = np.unique(integers, return_counts=True)[1] / len(integers)
    return float(-(p * np.log2(p)).sum())


class Pca:
    """The linear baseline in all its variants, fitted when first asked for; `cache` keeps the components."""

    VARIANTS = (  # mirrored training faces, rate weight, centroids
        (True, RATE_WEIGHT, True),
        (True, RATE_WEIGHT, False),
        (True, 0.0, True),
        (True, 0.0, False),
        (False, RATE_WEIGHT, True),
    )

    def __init__(self, train: Path | None, cache: Path | None) -> None:
        self.train, self.cache = train, cache
        self._bases: dict[bool, tuple[Basis, Float32]] = {}

    @cached_property
    def training_faces(self) -> Bytes:
        if self.train is None:
            raise EocodecError("PCA needs --train")
        return read_faces(self.train)

    def basis(self, mirrored: bool) -> tuple[Basis, Float32]:
        """Components and the (unmirrored) training faces' coefficients."""
        if mirrored not in self._bases:
            path = self.cache and self.cache / f"pca_{'mirrored' if mirrored else 'plain'}.npz"
            if path and path.exists():
                with np.load(path) as stored:
                    basis = Basis(stored["mean"], stored["rows"], stored["stds"])
            else:
                basis = Basis.fit(self.training_faces, mirrored, PCA_COMPONENTS)
                if path:
                    np.savez(path, mean=basis.mean, rows=basis.rows, stds=basis.stds)
            self._bases = {mirrored: (basis, basis.coefficients(self.training_faces))}  # one at a time: memory
        return self._bases[mirrored]

    @staticmethod
    def name(mirrored: bool, weight: float, centroid: bool) -> str:
        return "pca" + "".join(
            [
                ", mirrored faces" if mirrored else ", faces as they are",
                ", RD rounding" if weight else ", nearest",
                ", centroids" if centroid else ", integers",
            ]
        )

    def codec(self, step: float, mirrored: bool, weight: float, centroid: bool) -> LinearCodec:
        basis, training = self.basis(mirrored)
        return LinearCodec(basis, training, step, weight, centroid)


def tiny_eocodec(model: str) -> Codec:
    """eocodec's files without a container, at rates C; `model` is a shipped model's name or a bundle."""
    bundle = model if Path(model).exists() else None

    def run(face: Bytes, rate: float) -> tuple[int, Bytes]:
        data = eocodec.compress(face, rate=rate, model=model, tiny=True)
        return len(data), eocodec.decompress(data, bundle)

    return run


def available(codec: Codec, face: Bytes, setting: Any) -> str | None:
    """Why a codec cannot run, or None."""
    try:
        codec(face, setting)
    except (EocodecError, TypeError, ImportError, OSError) as e:
        return str(e)
    return None


def monotone(points: Sequence[dict[str, Any]]) -> tuple[Floats, Floats]:
    """Log bytes and dB of a curve's points in order, those left out that more bytes do not better."""
    ordered = sorted((p["bytes"], p["psnr"]) for p in points)
    rate, quality = np.log([p[0] for p in ordered]), np.array([p[1] for p in ordered])
    keep = np.concatenate([[True], quality[1:] > np.maximum.accumulate(quality)[:-1]])
    return rate[keep], quality[keep]


def psnr_at(points: Sequence[dict[str, Any]], size: float) -> float | None:
    """dB at `size` bytes, linear over log bytes; None beyond the curve."""
    rate, quality = monotone(points)
    x = math.log(size)
    return round(float(np.interp(x, rate, quality)), 3) if rate[0] <= x <= rate[-1] else None


def bytes_at(points: Sequence[dict[str, Any]], decibels: float) -> float | None:
    """Bytes at a PSNR, log bytes linear over it; None beyond the curve, but for the tenth of a dB below its start."""
    rate, quality = monotone(points)
    if quality[0] - 0.1 <= decibels < quality[0] and len(rate) > 1:
        slope = (rate[1] - rate[0]) / (quality[1] - quality[0])
        return round(math.exp(rate[0] + slope * (decibels - quality[0])), 2)
    inside = quality[0] <= decibels <= quality[-1]
    return round(math.exp(float(np.interp(decibels, quality, rate))), 2) if inside else None


def derive(curves: dict[str, Any]) -> dict[str, Any]:
    """What the points say at equal bytes and at equal PSNR; ratios are to the best PCA and to WebP."""
    result: dict[str, Any] = {"psnr_at_bytes": {}, "bytes_at_psnr": {}, "percent_of_pca": {}, "percent_of_webp": {}}
    linear = {name: c["points"] for name, c in curves.items() if name.startswith("pca")}
    middle = [name for name in linear if bytes_at(linear[name], 24) and bytes_at(linear[name], 31)]
    best = min(
        middle, key=lambda n: sum(math.log(bytes_at(linear[n], q) or math.inf) for q in TARGET_PSNR), default=None
    )
    result["pca"] = best
    result["bd_rate_to_pca"] = {}
    for name, curve in curves.items():
        points = curve["points"]
        result["psnr_at_bytes"][name] = {str(b): psnr_at(points, b) for b in TARGET_BYTES}
        sizes = {q: bytes_at(points, q) for q in (*TARGET_PSNR, *WEBP_PSNR)}
        result["bytes_at_psnr"][name] = {str(q): s for q, s in sizes.items()}
        for key, reference, decibels in (
            ("percent_of_pca", best, TARGET_PSNR),
            ("percent_of_webp", "webp" if "webp" in curves else None, WEBP_PSNR),
        ):
            if reference:
                anchors = [bytes_at(curves[reference]["points"], q) for q in decibels]
                result[key][name] = {
                    str(q): round(100 * s / a, 1) if (s := sizes[q]) and a else None
                    for q, a in zip(decibels, anchors, strict=True)
                }
        if best and name != best:
            result["bd_rate_to_pca"][name] = _bd_rate(linear[best], points)
    return result


def _bd_rate(anchor: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """BD-rate between the lowest and highest of :data:`TARGET_PSNR`, or the part of it that the curve reaches."""
    qualities = [p["psnr"] for p in points]
    low, high = max(TARGET_PSNR[0], min(qualities)), min(TARGET_PSNR[-1], max(qualities))
    if high - low < 1:
        return None
    bottom, top = bytes_at(anchor, low), bytes_at(anchor, high)
    assert bottom and top
    pairs = [[(p["bytes"], p["psnr"]) for p in curve] for curve in (anchor, points)]
    percent = bd_rate(pairs[0], pairs[1], bottom, top)
    return {"percent": round(percent, 2), "from_db": round(low, 2), "to_db": round(high, 2)}


def table(result: dict[str, Any]) -> str:
    """Text of the derived figures."""

    def row(name: str, values: Sequence[float | None], form: str) -> str:
        return f"{name:48}" + "".join(f"{'' if v is None else format(v, form):>8}" for v in values)

    derived = result["derived"]
    lines = ["PSNR (dB) at bytes", row("", TARGET_BYTES, "g")]
    lines += [row(n, list(v.values()), ".2f") for n, v in derived["psnr_at_bytes"].items()]
    lines += ["", "bytes at PSNR", row("", (*TARGET_PSNR, *WEBP_PSNR), "g")]
    lines += [row(n, list(v.values()), ".1f") for n, v in derived["bytes_at_psnr"].items()]
    lines += ["", f"bytes in % of those of “{derived['pca']}” at equal PSNR", row("", TARGET_PSNR, "g")]
    lines += [row(n, list(v.values()), ".1f") for n, v in derived["percent_of_pca"].items()]
    lines += ["", "bytes in % of WebP's at equal PSNR", row("", WEBP_PSNR, "g")]
    lines += [row(n, list(v.values()), ".1f") for n, v in derived["percent_of_webp"].items()]
    lines += ["", "BD-rate against that PCA"]
    for name, v in derived["bd_rate_to_pca"].items():
        lines.append(f"{name:48}" + (f"{v['percent']:+8.1f} % ({v['from_db']:g} to {v['to_db']:g} dB)" if v else ""))
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Bytes against PSNR as a picture file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    shown = {
        "face64": ("eocodec face64", "black", "o"),
        result["derived"]["pca"]: ("PCA, same range coder", "tab:blue", "o"),
        "webp": ("WebP", "tab:green", "o"),
        "avif": ("AVIF", "tab:purple", "o"),
        "jxl, effort 9": ("JPEG XL", "tab:orange", "o"),
        "jpeg": ("JPEG", "tab:red", "o"),
        "blurhash": ("BlurHash (base83)", "tab:pink", "s"),
        "thumbhash": ("ThumbHash", "tab:brown", "D"),
    }
    figure, axis = plt.subplots(figsize=(8.5, 5.5), constrained_layout=True)
    for name, (label, colour, marker) in shown.items():
        if name not in result["curves"]:
            continue
        points = sorted(result["curves"][name]["points"], key=lambda p: p["bytes"])
        width = 2.4 if name == "face64" else 1.5
        x, y = [p["bytes"] for p in points], [p["psnr"] for p in points]
        axis.plot(x, y, color=colour, marker=marker, markersize=6 if len(x) == 1 else 3.5, linewidth=width, label=label)
    axis.set_xscale("log")
    axis.set(xlim=(8, 1000), ylim=(16, 38), xlabel="bytes a face (whole file)", ylabel="PSNR (dB, RGB)")
    axis.set_xticks([10, 16, 24, 32, 48, 64, 100, 150, 250, 400, 600, 1000])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    axis.set_title(f"{result['faces']} faces, 64×64")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet(result: dict[str, Any], faces: Bytes, pca: Pca, model: str, path: Path, scale: int = 3) -> None:
    """Six faces as the codecs leave them, enlarged without smoothing."""
    from PIL import ImageDraw

    chosen = faces[np.linspace(0, len(faces) - 1, 8).astype(int)[1:-1]]
    columns: list[tuple[str, list[tuple[int, Bytes]]]] = [("original", [(f.size, f) for f in chosen])]
    columns.append(("ThumbHash", [ThumbHash()(f, None) for f in chosen]))
    columns.append(("WebP", [PEERS["webp"].codec(f, 0) for f in chosen]))
    variant = next((v for v in Pca.VARIANTS if Pca.name(*v) == result["derived"]["pca"]), None)
    eocodec_runs = tiny_eocodec(model)
    runs = []
    if available(eocodec_runs, chosen[0], FACE64_RATES[0]) is None:
        rates = np.geomspace(FACE64_RATES[0], FACE64_RATES[-1], 80).tolist()
        runs = [[eocodec_runs(f, rate) for rate in rates] for f in chosen]
    for limit in (24, 100):
        if variant and pca.train:
            columns.append(("PCA", _pca_within(result, chosen, pca, variant, limit)))
        if runs:
            columns.append(("eocodec", [max(_within(r, limit), key=lambda s: s[0]) for r in runs]))
    side, caption = SIDE * scale, 16
    image = Image.new("RGB", ((side + 6) * len(columns) - 6, (side + caption) * len(chosen)), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, results) in enumerate(columns):
        for j, (size, decoded) in enumerate(results):
            at = (i * (side + 6), j * (side + caption))
            tile = Image.fromarray(decoded).resize((side, side), Image.Resampling.NEAREST)
            image.paste(tile, (at[0], at[1] + caption))
            quality = f", {float(face_psnr(chosen[j : j + 1], decoded[None])[0]):.1f} dB" if i else ""
            draw.text((at[0] + 2, at[1] + 2), f"{name}, {size} B{quality}", "black")
    image.save(path)


def _within(results: Sequence[tuple[int, Bytes]], limit: int) -> list[tuple[int, Bytes]]:
    """The results that are small enough, or the smallest."""
    return [r for r in results if r[0] <= limit] or [min(results, key=lambda r: r[0])]


def _pca_within(result: dict[str, Any], faces: Bytes, pca: Pca, variant: Any, limit: int) -> list[tuple[int, Bytes]]:
    """Every face at the finest of a few steps around the mean curve's at which its file is small enough."""
    points = sorted(result["curves"][Pca.name(*variant)]["points"], key=lambda p: p["bytes"])
    mean = float(np.interp(limit, [p["bytes"] for p in points], [p["setting"] for p in points]))
    coefficients = pca.basis(variant[0])[0].coefficients(faces)
    runs: list[list[tuple[int, Bytes]]] = [[] for _ in faces]
    for octaves in np.linspace(-0.45, 0.45, 7):
        codec = pca.codec(round(16 * mean * 2**octaves) / 16, *variant)
        integers = codec.quantise(coefficients)
        for run, q, decoded in zip(runs, integers.T, codec.faces(integers), strict=True):
            run.append((len(codec.encode(q)), decoded))
    return [max(_within(run, limit), key=lambda r: r[0]) for run in runs]


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version()}
    for package in (
        "eocodec",
        "numpy",
        "scipy",
        "torch",
        "constriction",
        "pillow",
        "pillow-jxl-plugin",
        "blurhash-python",
    ):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    from PIL import features

    for feature in ("libjpeg_turbo", "webp", "avif"):
        if version := features.version(feature):
            found[feature] = version
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("eval", type=Path, help="tar or folder of 64×64 pictures")
    parser.add_argument("--train", type=Path, help="tar or folder the PCA is fitted to")
    parser.add_argument("--model", default="face64", help="eocodec's model, a name or a bundle (default: face64)")
    parser.add_argument("--pictures", type=int, help="measure so many faces, evenly spread (default: all)")
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(FAMILIES)}; none: draw what the JSON has")
    parser.add_argument("--json", type=Path, help="results; curves not measured now are kept")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    parser.add_argument("--sheet", type=Path, help="picture of six faces")
    parser.add_argument("--cache", type=Path, help="folder that keeps the principal components between runs")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    wanted = options.only.split(",") if options.only else list(FAMILIES)
    if unknown := set(wanted) - {*FAMILIES, "none"}:
        sys.exit(f"not known: {', '.join(sorted(unknown))}; known are {', '.join(FAMILIES)}")
    faces = read_faces(options.eval)
    if options.pictures:
        faces = faces[np.linspace(0, len(faces) - 1, min(options.pictures, len(faces))).astype(int)]
    result: dict[str, Any] = {"eval": options.eval.name, "faces": len(faces), "curves": {}}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text())
        if (kept["eval"], kept["faces"]) == (result["eval"], result["faces"]):
            result = kept
        else:
            print("the JSON is of other faces: all of it is replaced", file=sys.stderr)
    now = versions()
    result["settings"] = SETTINGS
    result["machine"] = {"platform": platform.platform(), "machine": platform.machine()}

    def record(name: str, points: list[dict[str, Any]], note: str) -> None:
        result["curves"][name] = {"note": note, "points": points, "versions": now}
        result["derived"] = derive(result["curves"])
        if options.json:
            options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")

    def say(name: str, p: dict[str, Any]) -> None:
        print(f"{name:48} {p['setting']!s:>8} {p['bytes']:8.1f} bytes {p['psnr']:7.3f} dB", flush=True)

    peers = dict(PEERS)
    peers["face64"] = Curve("face64", tiny_eocodec(options.model), FACE64_RATES, "eocodec, tiny files, rates C")
    if "jxl" in wanted:
        import pillow_jxl  # noqa: F401
    for name, curve in peers.items():
        if curve.family not in wanted:
            continue
        if reason := available(curve.codec, faces[0], curve.settings[0]):
            print(f"{name} is left out: {reason}", file=sys.stderr)
            continue
        points = []
        for setting in curve.settings:
            points.append(measure(curve.codec, faces, setting))
            if name == "blurhash":
                points[-1]["packed_bytes"] = blurhash_packed_bytes(setting)
            say(name, points[-1])
        if name == "face64":
            result["model"] = eocodec.load_model(options.model).full_id.hex()
        record(name, points, curve.note)

    pca = Pca(options.train, options.cache)
    if "pca" in wanted and options.train is None:
        print("pca is left out: it needs --train", file=sys.stderr)
    elif "pca" in wanted:
        for variant in Pca.VARIANTS:
            points = []
            coefficients = pca.basis(variant[0])[0].coefficients(faces)
            for step in PCA_STEPS if variant[0] else PCA_STEPS[5:17]:  # the range that counts
                points.append(pca.codec(step, *variant).measure(faces, coefficients))
                say(Pca.name(*variant), points[-1])
            note = (
                f"{PCA_COMPONENTS} components of {options.train.name}, rate weight {variant[1]}, step in 8-bit levels"
            )
            record(Pca.name(*variant), points, note)

    if "derived" not in result:
        sys.exit("nothing was measured")
    result["derived"] = derive(result["curves"])
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if options.plot:
        plot(result, options.plot)
    if options.sheet:
        sheet(result, faces, pca, options.model, options.sheet)


if __name__ == "__main__":
    main()
