"""What a decoder must know besides the graphs: one class a kind of model, which answers for its C, steps and spectrum.

In: the files of a bundle. Out: a :class:`Manifest`. `manifest.json` selects its kind from :data:`KINDS`.

References:
    Cover & Thomas, *Elements of Information Theory*, section 10.3.3 (reverse water-filling).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError, ModelError
from eocodec.model import objects, rotation
from eocodec.model.spectrum import GAUSSIAN, Spectrum
from eocodec.steps import step_of_code

__all__ = ["COLOURS", "FLOW_ONLY", "FORMAT", "KINDS", "ORIENTATIONS", "FlatManifest", "Manifest", "PhotoManifest",
           "read_manifest"]  # fmt: skip

FORMAT = 1
FLOW_ONLY = 1e-4  # a step at which the decoder's refinement does nothing
COARSEST = 600.0  # 8-bit levels, Δ at C = 1 of models for pictures of any size
MAX_LEVELS = 8
MAX_EYE = 64  # 1/16 octave
LOW_KINDS = 6  # of places of the low-pass, for each of which there are classes of activity
MAX_EDGE = 128  # pixels, of the pictures of a flat model
LEAST_REFINEMENT = 20 / 255  # the refinement of a flat model is trained for steps from 20 levels on
FINEST = 1 / 255  # Δ at C = D of a flat model
COLOURS = ("luma", "red-blue", "green-magenta")
ORIENTATIONS = ("HL", "LH", "HH")
DENOISING_GRAPHS = ("denoise/clean.onnx", "denoise/sigma.onnx")
INCONSISTENT = "the model bundle's manifest is inconsistent"

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manifest(ABC):
    """What every kind of model answers.

    Arguments:
        name, licence, card: for people.
        gain: per latent, or group of latents; the step is Δ · exp(gain).
        entropy: explained entropy H in nats (pictures in 0 to 1), likewise.
        water: Δ = water · sqrt(12 θ(C)).
        dead_zone: weight of the rate in rounding, squared steps per bit.
        shift: centroids, steps towards zero, by table index and magnitude 1, 2, ≥ 3, in 1/256.
    """

    kind: ClassVar[str]

    name: str
    licence: str
    card: str
    gain: Sequence[Any]
    entropy: Sequence[Any]
    water: float
    dead_zone: float
    shift: list[list[int]]

    @classmethod
    @abstractmethod
    def of(cls, raw: dict[str, Any], files: Mapping[str, bytes]) -> "Manifest":
        """The manifest of `manifest.json`, without format and kind.

        Raises:
            ModelError, KeyError, ValueError, TypeError: it is not one, or does not fit the bundle's other files.
        """

    @abstractmethod
    def check(self, tables: int) -> None:
        """Refuse numbers that do not fit together or are out of range, given the number of frequency tables.

        Raises:
            ModelError: there are such.
        """

    @property
    @abstractmethod
    def edge(self) -> int | None:
        """Edge in pixels of the pictures that the model is for, None for any size."""

    @property
    @abstractmethod
    def block(self) -> int:
        """The largest C: latents of a block, or of the whole picture for models of one size."""

    @property
    def tiny_number(self) -> int:
        """The number that stands for the model in tiny files, 0 if it has none."""
        return 0

    @property
    @abstractmethod
    def spectrum(self) -> Spectrum:
        """Explained entropies from core to detail."""

    @abstractmethod
    def step_of(self, rate: float) -> float:
        """Step Δ (range 0 to 1) that goes with keeping C = `rate` latents: Δ = water · sqrt(12 θ), θ = σ²_(C).

        Raises:
            EocodecError: C is outside 1 to :attr:`block`.
        """

    @abstractmethod
    def rate_of(self, delta: float) -> float:
        """Inverse of :meth:`step_of`, clamped to 1 … :attr:`block`."""

    @abstractmethod
    def decoder_step(self, delta: float) -> float:
        """The step (range 0 to 1) that the decoder graph takes for pictures coded at step Δ."""

    @abstractmethod
    def denoising_methods(self, files: Collection[str]) -> tuple[str, ...]:
        """How a bundle with these files can denoise, best first."""

    def constants(self, files: Mapping[str, bytes]) -> dict[str, Float32]:
        """What the encoder and the decoder graph take besides their input."""
        return {}


@dataclass(frozen=True)
class PhotoManifest(Manifest):
    """A model for pictures of any size. Bands are `[LL, details L, …, details 1]`, channels as in the flow.

    Arguments:
        levels: wavelet levels L.
        gain: per band and channel; the step is Δ · exp(gain), which is Δ in the picture.
        entropy: explained entropy H of every band and channel in nats (pictures in 0 to 1).
        order: `(band, channel)` by falling H.
        low_index: table index of low-pass residuals by colour, pass and activity class.
        denoise: `gain`, standard deviation that unit white noise has in every band and channel, and, in newer bundles,
            `gains`, pairs of a level in 8-bit levels, rising, and the same at it; `step` and `noise`, Δ and assumed
            noise of the shrinkage in units of σ; `estimate`, what the raw level estimate is divided by.
        refine_from: step in 8-bit levels from which on the decoder's refinement helps; below, it takes none.
        rotated: the order of the latents, see `eocodec.coding.units`.
        tuned: the integer nets and the decoder also take how much the steps follow the eye, and steps that differ from
            place to place.
        eye_dead_zone: weight of the rate in rounding for the eye: of chroma, then of luma at level L, …, 1; or nothing,
            which is `dead_zone` for all.
        eye: what the steps of the bands differ by when they follow the eye entirely, in 1/16 octave.
        sizes: of the nets, for training to go on from the bundle; decoding does not depend on them.
    """

    kind = "photo"

    levels: int
    gain: list[list[float]]
    entropy: list[list[float]]
    order: list[tuple[int, int]]
    low_index: list[list[list[int]]]
    denoise: dict[str, Any]
    refine_from: float
    rotated: bool = False
    tuned: bool = False
    eye: list[int] = field(default_factory=list)
    eye_dead_zone: list[float] = field(default_factory=list)
    sizes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: dict[str, Any], files: Mapping[str, bytes]) -> "PhotoManifest":
        """See :meth:`Manifest.of`."""
        return cls(**{**raw, "order": [(int(b), int(c)) for b, c in raw["order"]]})

    def check(self, tables: int) -> None:
        """See :meth:`Manifest.check`."""
        try:
            bands = 1 + self.levels
            if not 1 <= self.levels <= MAX_LEVELS or [len(self.gain), len(self.entropy)] != [bands] * 2:
                raise ModelError(INCONSISTENT)
            indices = [v for colour in self.low_index for kind in colour for v in kind]
            shifts = [v for row in self.shift for v in row]
            numbers = [
                self.water,
                self.dead_zone,
                self.refine_from,
                *self.eye_dead_zone,
                *(v for part in (self.gain, self.entropy) for b in part for v in b),
            ]
            integers = all(type(v) is int for v in indices + shifts)
            integers &= isinstance(self.rotated, bool) and isinstance(self.tuned, bool)
            integers &= len(self.eye) == (bands if self.tuned else 0)
            integers &= all(type(v) is int and abs(v) <= MAX_EYE for v in self.eye)
            integers &= len(self.eye_dead_zone) in (0, bands)
            integers &= self.axes in (1, 3) and len(self.low_index) == self.axes
            integers &= all(len(colour) == LOW_KINDS and all(colour) for colour in self.low_index)
            integers &= all(len(b) == 3 * self.axes for b in self.gain[1:])
            fits = integers and 0 <= min(indices) <= max(indices) < tables and max(map(abs, shifts)) <= 4096
            fits = fits and all(math.isfinite(v) and abs(v) < 1e4 for v in numbers)
        except (TypeError, ValueError) as e:
            raise ModelError(f"{INCONSISTENT} ({e})") from None
        if not fits:
            raise ModelError("the model bundle's manifest holds numbers that are out of range")

    @property
    def axes(self) -> int:
        """Colour axes of the transform: 3, or 1 of one for grey pictures alone, whose bands have luma only."""
        return len(self.gain[0])

    @property
    def edge(self) -> int | None:
        """None: any size."""
        return None

    @property
    def block(self) -> int:
        """Latents of a block: 3 · 4**levels."""
        return int(3 * 4**self.levels)

    @property
    def spectrum(self) -> Spectrum:
        """Explained entropies of bands and channels by falling H."""
        return Spectrum(
            np.array([self.entropy[b][c] for b, c in self.order]),
            np.array([self.count(b) for b, _ in self.order], np.int64),
            tuple(self.channel_name(b, c) for b, c in self.order),
            "block",
            4**self.levels,
        )

    @staticmethod
    def count(band: int) -> int:
        """Latents that a channel of a band has in a block."""
        return 1 if band == 0 else int(4 ** (band - 1))

    def channel_name(self, band: int, channel: int) -> str:
        """What a channel of a band shows."""
        if band == 0:
            return f"low {COLOURS[channel]}"
        return f"detail {self.levels + 1 - band} {COLOURS[channel // 3]} {ORIENTATIONS[channel % 3]}"

    def step_of(self, rate: float) -> float:
        """See :meth:`Manifest.step_of`; the spectrum is interpolated between bands so that C acts continuously."""
        if not 1 <= rate <= self.block:
            raise EocodecError(f"the rate must be from 1 to {self.block} latents a block, not {rate:g}")
        ranks, values = self._knots()
        return self.water * math.sqrt(12.0) * math.exp(float(np.interp(rate, ranks, values)))

    def rate_of(self, delta: float) -> float:
        """See :meth:`Manifest.rate_of`."""
        ranks, values = self._knots()
        log_sigma = math.log(delta / (self.water * math.sqrt(12.0)))
        return float(np.interp(-log_sigma, [-v for v in values], ranks))

    def _knots(self) -> tuple[list[float], list[float]]:
        """Strictly falling log σ over rank (the middle of every band), from C = 1 to the whole block.

        The low-pass alone has a variance far above what a picture can be coded at, so the head is capped: C = 1 is Δ =
        :data:`COARSEST` levels. The tail goes on with the slope of the last pair.
        """
        middles, entropies = self.spectrum.curve()
        head = math.log(COARSEST / 255.0 / (self.water * math.sqrt(12.0)))
        kept = [(r, h - GAUSSIAN) for r, h in zip(middles, entropies, strict=True)]
        kept = [(r, v) for r, v in kept if v < head - 0.05 and r > 1]
        ranks, values = [1.0, *(r for r, _ in kept)], [head, *(v for _, v in kept)]
        for k in range(1, len(values)):
            values[k] = min(values[k], values[k - 1] - 1e-6)
        block = float(self.block)
        if ranks[-1] < block:
            slope = (values[-1] - values[-2]) / (ranks[-1] - ranks[-2])
            ranks, values = [*ranks, block], [*values, values[-1] + slope * (block - ranks[-1])]
        return ranks, values

    def decoder_step(self, delta: float) -> float:
        """Δ where the refinement helps, else a step at which it does nothing."""
        return delta if delta * 255 >= self.refine_from else FLOW_ONLY

    def steps(self, delta: float) -> list[Float32]:
        """Step of every latent of every band, range 0 to 1, arrays that broadcast to `(C, h, w)`."""
        return [(delta * np.exp(np.array(g))).astype(np.float32)[:, None, None] for g in self.gain]

    def kept(self, rate: float) -> list[Float32]:
        """How much of every latent stays when a block keeps C = `rate`, arrays that broadcast to `(C, h, w)`.

        Channels are kept in the order of explained entropy; the one at the cut is scaled.
        """
        result = [np.zeros((len(g), 1, 1), np.float32) for g in self.gain]
        left = rate
        for band, channel in self.order:
            result[band][channel] = min(1.0, max(0.0, left / self.count(band)))
            left -= self.count(band)
        return result

    def denoising_methods(self, files: Collection[str]) -> tuple[str, ...]:
        """The net if the bundle has one; shrinkage and dropping always."""
        return (*(("net",) if all(name in files for name in DENOISING_GRAPHS) else ()), "shrink", "drop")


@dataclass(frozen=True)
class FlatManifest(Manifest):
    """A model whose latents are one vector, such as `face64`. Lists have an entry for every latent.

    Arguments:
        size: edge S of its pictures in pixels; there are D = 3 S² latents.
        blocks: ends of the coding blocks; the last one is the size of the core.
        gain: the step is Δ · exp(gain).
        entropy: explained entropy H in nats (pictures in 0 to 1).
        scale: table index at Δ = 1 level without context, in 1/2048.
        rest_step: code of the largest step (as in a header) at which the latents beyond the core are coded. Where they
            are not, the decoder's refinement stands in for them.
        tiny: number that stands for the model in tiny files, 1 to 3; 0: it has none.
        noise: standard deviation that unit white noise has in a latent.
        drop: pairs of a noise level in 8-bit levels, rising, and the C that is best to denoise with, as measured.
    """

    kind = "flat"

    size: int
    blocks: list[int]
    gain: list[float]
    entropy: list[float]
    scale: list[int]
    rest_step: int
    tiny: int
    noise: list[float]
    drop: list[tuple[float, float]]

    @classmethod
    def of(cls, raw: dict[str, Any], files: Mapping[str, bytes]) -> "FlatManifest":
        """See :meth:`Manifest.of`."""
        result = cls(**raw)
        if rotation.dimensions(files["basis.bin"])[0] != 3 * result.size**2:
            raise ModelError(INCONSISTENT)
        return result

    def check(self, tables: int) -> None:
        """See :meth:`Manifest.check`."""
        dims = 3 * self.size**2
        lengths = [len(self.gain), len(self.entropy), len(self.scale), len(self.noise)]
        rising = self.blocks == sorted(set(self.blocks)) and self.blocks and self.blocks[0] > 0
        consistent = lengths == [dims] * 4 and rising and self.blocks[-1] <= dims
        levels = [float(level) for level, _ in self.drop]
        known = bool(levels) and levels[0] > 0 and levels == sorted(levels)
        known = known and all(1 <= c <= dims for _, c in self.drop)
        if not (8 <= self.size <= MAX_EDGE and consistent and known and self.water > 0 and 0 <= self.tiny <= 3):
            raise ModelError(INCONSISTENT)

    @property
    def edge(self) -> int | None:
        """S."""
        return self.size

    @property
    def block(self) -> int:
        """All latents of a picture, D."""
        return len(self.gain)

    @property
    def tiny_number(self) -> int:
        """See :attr:`tiny`."""
        return self.tiny

    @property
    def core(self) -> int:
        """Latents of the core."""
        return self.blocks[-1]

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Places of the latents from core to detail: the core by falling explained entropy, then the rest likewise."""
        entropy = np.array(self.entropy)
        parts = [np.argsort(-part, kind="stable") for part in (entropy[: self.core], entropy[self.core :])]
        return np.concatenate([parts[0], self.core + parts[1]])

    @property
    def spectrum(self) -> Spectrum:
        """Explained entropies of the latents in their :attr:`order`."""
        order = self.order
        entropy = np.array(self.entropy)[order]
        names = tuple(f"h[{i}]" for i in order)
        return Spectrum(entropy, np.ones(len(order), np.int64), names, "picture", self.size**2)

    def _log_steps(self) -> Floats:
        """log Δ that goes with C = 1, 2, …, D, strictly falling.

        In the core Δ = water · sqrt(12) σ, σ² = exp(2 H) / (2πe). The rest begins at `rest_step` and ends at FINEST.
        """
        dims = len(self.entropy)
        values = np.array(self.entropy)[self.order][: self.core] - GAUSSIAN
        values += math.log(self.water * math.sqrt(12.0))
        first = min(math.log(step_of_code(self.rest_step)), float(values[-1]))
        rest = np.linspace(first, min(first, math.log(FINEST)) - 1e-3, dims - self.core)
        return np.concatenate([values, rest]) - 1e-9 * np.arange(dims)

    def step_of(self, rate: float) -> float:
        """See :meth:`Manifest.step_of`."""
        values = self._log_steps()
        if not 1 <= rate <= len(values):
            raise EocodecError(f"the rate must be from 1 to {len(values)} latents, not {rate:g}")
        return math.exp(float(np.interp(rate, np.arange(1, len(values) + 1), values)))

    def rate_of(self, delta: float) -> float:
        """See :meth:`Manifest.rate_of`."""
        values = self._log_steps()
        return float(np.interp(-math.log(delta), -values, np.arange(1, len(values) + 1)))

    def decoder_step(self, delta: float) -> float:
        """No refinement where the rest is coded, since nothing is missing then."""
        return FLOW_ONLY if delta <= step_of_code(self.rest_step) * 1.0001 else max(delta, LEAST_REFINEMENT)

    def core_step(self, rate: float) -> float:
        """The Δ to decode the first C = `rate` unquantised latents with."""
        if rate >= len(self.entropy):
            return FLOW_ONLY
        return max(self.step_of(max(1.0, min(rate, self.core))), LEAST_REFINEMENT)

    def steps(self, delta: float) -> Float32:
        """Step of every latent `(D,)`, range 0 to 1."""
        return np.asarray(delta * np.exp(np.array(self.gain)), np.float32)

    def kept(self, rate: float) -> Float32:
        """How much of every latent `(D,)` stays when C = `rate` are kept, in the order of explained entropy.

        A fraction of C keeps that fraction of the next latent.
        """
        weight = np.zeros(len(self.entropy), np.float32)
        weight[self.order] = np.clip(rate - np.arange(len(weight)), 0, 1)
        return weight

    def denoising_methods(self, files: Collection[str]) -> tuple[str, ...]:
        """Dropping only."""
        return ("drop",)

    def constants(self, files: Mapping[str, bytes]) -> dict[str, Float32]:
        """The rotation, see `eocodec.model.rotation.unpack_basis`."""
        return rotation.unpack_basis(files["basis.bin"])


KINDS: dict[str, type[Manifest]] = {m.kind: m for m in (PhotoManifest, FlatManifest)}


def read_manifest(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of a bundle, not checked yet.

    Raises:
        ModelError: it is of another version or kind than this program knows, or there is none that can be read.
    """
    try:
        raw = objects.read_object(files["manifest.json"])
        if raw.pop("format") != FORMAT:
            raise ModelError("the model bundle has another format version than this program reads")
        kind = str(raw.pop("kind", PhotoManifest.kind))
        if kind not in KINDS:
            raise ModelError(f"the model bundle is of a kind that this program does not know: {kind[:40]}")
        return KINDS[kind].of(raw, files)
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise ModelError(f"the model bundle lacks or spoils its manifest ({e})") from None
