"""Models whose latents are one ordered vector, such as `face64`: transform, C ↔ step, entropy coding.

In: pictures of the model's size. Out: latents `(D,)`, coded bytes, and back. Nothing here knows the file formats.

Coding order: the blocks of the core, whose means and table indices come from integer nets that see all blocks before
(`entropy/block0`, …; exact as in `eocodec.entropy`), then the rest, whose tables depend on Δ alone:

    block 0 → block 1 → … → block n − 1 → for fine Δ: latents of the rest that are not surely quantised to zero
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.bundle import FlatManifest, Model
from eocodec.entropy import MEAN_UNIT, Int32, Reader, UInt8, Writer, compand, tables_of
from eocodec.errors import EocodecError
from eocodec.format import STEP_UNIT

__all__ = [
    "FLOW_ONLY",
    "Rounding",
    "core_step",
    "decode",
    "delta_of_rate",
    "encode",
    "encode_picture",
    "integers",
    "keep_top",
    "latent_steps",
    "noise_level",
    "order",
    "rate_of_delta",
    "rate_of_noise",
    "refinement_step",
    "round_latents",
    "spectrum",
    "step_delta",
    "synthesise",
    "to_bytes",
]

CONDITION_UNIT = 16  # the nets see log2 Δ − 5 in 1/16
CONDITION_RANGE = (-80, 96)
INDEX_PER_OCTAVE = 5
FLOW_ONLY = 1e-4  # a step at which the decoder's refinement does nothing
LEAST_REFINEMENT = 20 / 255  # the refinement is trained for steps from 16 levels on
FINEST = 1 / 255  # Δ at C = D
REST_INDEX = 6  # rest latents with a smaller table index are not coded: a nonzero one in two hundred or rarer

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def encode_picture(model: Model, rgb: Bytes | Float32) -> Float32:
    """Latents `(D,)` of a picture `(S, S, 3)`: uint8, or float32 with 0 to 1 as nominal range.

    Raises:
        EocodecError: the picture has another size than the model.
    """
    size = model.flat.size
    if rgb.shape[:2] != (size, size):
        raise EocodecError(
            f"the model {model.name} takes pictures of {size}x{size} pixels, not {rgb.shape[1]}x{rgb.shape[0]}; "
            "crop and scale the picture first (compress and inspect do so with --resize)"
        )
    x: npt.NDArray[Any] = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)
    if rgb.dtype == np.uint8:
        x /= np.float32(255)
    (latents,) = model.run("encoder", {"picture": x})
    return np.asarray(latents[0], np.float32)


def synthesise(model: Model, latents: Float32, delta: "float | Float32") -> Float32:
    """Pictures `(B, S, S, 3)`, clipped to 0 to 1, of dequantised latents `(B, D)` at step Δ (0 to 1), one or `(B,)`.

    A step near zero gives the inverse of the flow alone, without refinement.
    """
    step = np.broadcast_to(np.asarray(delta, np.float32), len(latents)).copy()
    (picture,) = model.run("decoder", {"latents": latents.astype(np.float32), "step": step})
    return np.clip(picture, 0, 1).transpose(0, 2, 3, 1)


def to_bytes(picture: Float32) -> Bytes:
    """8-bit levels of values in 0 to 1."""
    return np.floor(picture * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def order(manifest: FlatManifest) -> npt.NDArray[np.intp]:
    """Places of the latents from core to detail: the core by falling explained entropy, then the rest likewise."""
    entropy, core = np.array(manifest.entropy), manifest.blocks[-1]
    parts = [np.argsort(-part, kind="stable") for part in (entropy[:core], entropy[core:])]
    return np.concatenate([parts[0], core + parts[1]])


def spectrum(manifest: FlatManifest) -> npt.NDArray[np.float64]:
    """Explained entropies H in the order of :func:`order`, nats."""
    return np.array(manifest.entropy)[order(manifest)]


def _log_steps(manifest: FlatManifest) -> npt.NDArray[np.float64]:
    """log Δ that goes with C = 1, 2, …, D, strictly falling.

    In the core Δ = water · sqrt(12) σ, σ² = exp(2 H) / (2πe). The rest begins at `rest_step` and ends at FINEST.
    """
    core, dims = manifest.blocks[-1], len(manifest.entropy)
    values = spectrum(manifest)[:core] - 0.5 * math.log(2 * math.pi * math.e)
    values += math.log(manifest.water * math.sqrt(12.0))
    first = min(math.log(step_delta(manifest.rest_step)), float(values[-1]))
    rest = np.linspace(first, min(first, math.log(FINEST)) - 1e-3, dims - core)
    return np.concatenate([values, rest]) - 1e-9 * np.arange(dims)


def step_delta(code: int) -> float:
    """Δ (range 0 to 1) of a header's step code."""
    return float(2.0 ** ((code - 32768) / STEP_UNIT)) / 255.0


def delta_of_rate(manifest: FlatManifest, rate: float) -> float:
    """Step Δ (range 0 to 1) that goes with keeping the first C = `rate` latents: Δ = water · sqrt(12 θ), θ = σ²_(C).

    Raises:
        EocodecError: C is outside 1 to D.
    """
    values = _log_steps(manifest)
    if not 1 <= rate <= len(values):
        raise EocodecError(f"the rate must be from 1 to {len(values)} latents, not {rate:g}")
    return math.exp(float(np.interp(rate, np.arange(1, len(values) + 1), values)))


def rate_of_delta(manifest: FlatManifest, delta: float) -> float:
    """Inverse of :func:`delta_of_rate`, clamped to 1 … D."""
    values = _log_steps(manifest)
    return float(np.interp(-math.log(delta), -values, np.arange(1, len(values) + 1)))


def refinement_step(manifest: FlatManifest, delta: float) -> float:
    """The Δ that the decoder is told: none where the rest is coded, since nothing is missing then."""
    return FLOW_ONLY if delta <= step_delta(manifest.rest_step) * 1.0001 else max(delta, LEAST_REFINEMENT)


def core_step(manifest: FlatManifest, rate: float) -> float:
    """The Δ to decode the first C = `rate` unquantised latents with."""
    if rate >= len(manifest.entropy):
        return FLOW_ONLY
    return max(delta_of_rate(manifest, max(1.0, min(rate, manifest.blocks[-1]))), LEAST_REFINEMENT)


def latent_steps(manifest: FlatManifest, delta: float) -> Float32:
    """Step of every latent `(D,)`, range 0 to 1."""
    return np.asarray(delta * np.exp(np.array(manifest.gain)), np.float32)


def _own_index(manifest: FlatManifest, code: int) -> npt.NDArray[np.int64]:
    """Table index of every latent before any context, not clipped, from the header's code of the step."""
    base = np.array(manifest.scale, np.int64) - INDEX_PER_OCTAVE * (code - 32768)
    return (base + STEP_UNIT // 2) // STEP_UNIT


def _condition(code: int) -> int:
    octave = STEP_UNIT // CONDITION_UNIT
    low, high = CONDITION_RANGE
    return min(max((code - 32768 - 5 * STEP_UNIT + octave // 2) // octave, low), high)


class _Walk:
    """The order of coding; asks a coder for the residuals of each part and keeps what the nets need."""

    def __init__(self, model: Model, code: int) -> None:
        self.model = model
        manifest = model.flat
        self.edges = (0, *manifest.blocks)
        self.own = _own_index(manifest, code)
        self.highest = len(model.tables) - 1
        self.condition = _condition(code)
        self.rest = code <= manifest.rest_step

    def run(self, coder: "Rounding | _Decoder") -> None:
        seen = np.zeros((1, self.edges[-1] + 1, 1, 1), np.int8)
        seen[0, 0] = self.condition
        for k, (a, b) in enumerate(pairwise(self.edges)):
            mean, offset = self.model.run(f"entropy/block{k}", {"seen": seen[:, : a + 1]})
            middle = mean.ravel().astype(np.int32)
            index = np.clip(self.own[a:b] + offset.ravel(), 0, self.highest).astype(np.uint8)
            m = coder.part(np.arange(a, b), middle, index)
            seen[0, a + 1 : b + 1, 0, 0] = compand(self.model, m * MEAN_UNIT + middle)
        places = self.edges[-1] + np.flatnonzero(self.own[self.edges[-1] :] >= REST_INDEX)
        if self.rest and len(places):
            index = np.minimum(self.own[places], self.highest).astype(np.uint8)
            coder.part(places, np.zeros(len(places), np.int32), index)


class Rounding:
    """Rounds latents given in steps and keeps, part by part, what is to be coded.

    Attributes:
        residuals: the integers.
        offsets: the same before rounding.
        indices: their table indices.
    """

    def __init__(self, model: Model, targets: Float32) -> None:
        self.tables, self.targets = tables_of(model), targets
        self.residuals: list[Int32] = []
        self.offsets: list[Float32] = []
        self.indices: list[UInt8] = []

    def part(self, places: npt.NDArray[np.intp], mean: Int32, index: UInt8) -> Int32:
        """Round the latents at `places` around their means (1/16 steps)."""
        residual = self.targets[places] - mean.astype(np.float32) * np.float32(1 / MEAN_UNIT)
        m = self.tables.round(residual, index)
        self.residuals.append(m)
        self.offsets.append(residual)
        self.indices.append(index)
        return m


class _Decoder:
    """Reads residuals and dequantises; latents that are not coded stay zero. Without a stream all residuals are."""

    def __init__(self, model: Model, payload: bytes | None) -> None:
        self.reader = None if payload is None else Reader(tables_of(model), payload)
        manifest = model.flat
        self.values = np.zeros(len(manifest.gain), np.float32)
        self.integers = np.zeros(len(manifest.gain), np.int32)
        self.shift = np.zeros((len(model.tables), 4), np.float32)
        self.shift[:, 1:] = np.array(manifest.shift, np.float32) / 256

    def part(self, places: npt.NDArray[np.intp], mean: Int32, index: UInt8) -> Int32:
        """Read the residuals of the latents at `places` and dequantise."""
        m = np.zeros(len(places), np.int32) if self.reader is None else self.reader.take(index)
        value = m - np.sign(m) * self.shift[index, np.minimum(np.abs(m), 3)]
        self.integers[places] = m * MEAN_UNIT + mean
        self.values[places] = value + mean.astype(np.float32) * np.float32(1 / MEAN_UNIT)
        return m


def keep_top(manifest: FlatManifest, latents: Float32, rate: float) -> Float32:
    """Latents `(…, D)` with the first C = `rate` in the order of explained entropy; the others are zero.

    A fraction of C keeps that fraction of the next latent.
    """
    weight = np.zeros(len(manifest.entropy), np.float32)
    weight[order(manifest)] = np.clip(rate - np.arange(len(weight)), 0, 1)
    return latents * weight


def rate_of_noise(manifest: FlatManifest, sigma: float) -> float:
    """C at which dropping serves best against white noise of level `sigma` (range 0 to 1).

    Between the levels of `manifest.drop` log C is linear in log σ; beyond them it is that of the nearest.
    """
    levels, rates = np.log(np.array(manifest.drop)).T
    return float(np.exp(np.interp(math.log(max(255 * sigma, 1e-9)), levels, rates)))


def noise_level(manifest: FlatManifest, latents: Float32) -> float:
    """Level of white noise (range 0 to 1) in a picture, from the quarter of its latents with the least signal.

    The median of their magnitudes over their response to noise, less what clean pictures have there.
    """
    quiet = np.argsort(np.array(manifest.entropy))[: len(manifest.entropy) // 4]
    response = np.array(manifest.noise)[quiet]
    spread = float(np.median(np.abs(latents[quiet]) / response)) / 0.6745
    signal = float(np.median(np.exp(np.array(manifest.entropy)[quiet] + np.array(manifest.gain)[quiet]) / response))
    signal /= math.sqrt(2 * math.pi * math.e)
    return math.sqrt(max(0.0, spread**2 - signal**2))


def round_latents(model: Model, code: int, latents: Float32, delta: float) -> Rounding:
    """Latents `(D,)` rounded at step code `code`, not yet coded; `delta` is that code's Δ."""
    coder = Rounding(model, latents / latent_steps(model.flat, delta))
    _Walk(model, code).run(coder)
    return coder


def encode(model: Model, code: int, latents: Float32, delta: float) -> bytes:
    """The shortest range coder stream of latents `(D,)`, see `eocodec.entropy.shortest`."""
    writer = Writer(tables_of(model))
    rounded = round_latents(model, code, latents, delta)
    for m, index in zip(rounded.residuals, rounded.indices, strict=True):
        writer.put(m, index)
    return writer.shortest()


def integers(model: Model, code: int, stream: bytes | None) -> Int32:
    """Latents `(D,)` of a stream in 1/16 steps, see :func:`decode`."""
    return _read(model, code, stream).integers


def decode(model: Model, code: int, stream: bytes | None, delta: float) -> Float32:
    """Dequantised latents `(D,)` of a stream; zeros follow its end. None stands for residuals that are all zero.

    Raises:
        FormatError: the stream cannot come from an encoder.
    """
    return _read(model, code, stream).values * latent_steps(model.flat, delta)


def _read(model: Model, code: int, stream: bytes | None) -> _Decoder:
    payload = None
    if stream is not None:
        words = stream + b"\0" * (-len(stream) % 4)
        payload = np.frombuffer(words, ">u4").astype("<u4").tobytes()
    coder = _Decoder(model, payload)
    _Walk(model, code).run(coder)
    return coder
