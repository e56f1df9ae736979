"""The order of latents: coding units, C ↔ step by reverse water-filling, dequantisation.

In: a manifest, sizes, C. Out: steps, unit shapes, dequantised latents. No entropy coding, no files.

Coding units of a model with L levels, in file order (`Y` luma, `C` the two chroma axes, `p` phases):

    0: LL │ 1–4: Y_L p0 p1 p2 p3 │ 5–6: C_L p01 p23 │ 7–10: Y_{L-1} … │ … │ C_1 p23

References:
    Cover & Thomas, *Elements of Information Theory*, section 10.3.3 (reverse water-filling).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eocodec.bundle import Manifest
from eocodec.errors import EocodecError
from eocodec.format import RATE_UNIT, STEP_UNIT

__all__ = [
    "PHASES",
    "Unit",
    "band_steps",
    "condition_code",
    "cumulative_latents",
    "delta_of_rate",
    "rate_of_delta",
    "refinement_step",
    "step_code",
    "units",
]

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
NO_REFINEMENT = 1e-4  # a step at which the decoder's refinement does nothing
COARSEST = 600.0  # 8-bit levels, Δ at C = 1
CONDITION_UNIT = 16  # the nets see c = log2 Δ − 5 in 1/16


@dataclass(frozen=True)
class Unit:
    """A coding unit.

    Arguments:
        level: wavelet level; 0 stands for the low-pass.
        kind: "low", "luma" or "chroma".
        index: pass number within level and kind.
        phases: quad phases it codes.
        channels: slice of the level's nine channels (colour-major, orientation-minor).
    """

    level: int
    kind: str
    index: int
    phases: tuple[int, ...]
    channels: slice


def units(levels: int) -> list[Unit]:
    """All coding units in file order."""
    result = [Unit(0, "low", 0, (), slice(0, 3))]
    for level in range(levels, 0, -1):
        result += [Unit(level, "luma", k, (k,), slice(0, 3)) for k in range(4)]
        result += [Unit(level, "chroma", k, (2 * k, 2 * k + 1), slice(3, 9)) for k in range(2)]
    return result


def cumulative_latents(levels: int) -> list[float]:
    """Latents of a block that are coded after each unit; the last entry is 3 · 4**levels."""
    total, result = 0.0, []
    for u in units(levels):
        if u.kind == "low":
            total += 3
        else:
            total += len(u.phases) / 4 * 4 ** (levels - u.level) * (u.channels.stop - u.channels.start)
        result.append(total)
    return result


def _spectrum(manifest: Manifest) -> tuple[list[float], list[float]]:
    """Ranks (middle of every band) and log standard deviations ½ log σ² in falling order."""
    ranks, values, start = [], [], 0.0
    for band, channel in manifest.order:
        count = 1 if band == 0 else 4 ** (band - 1)
        ranks.append(start + (count + 1) / 2)
        values.append(manifest.entropy[band][channel] - 0.5 * math.log(2 * math.pi * math.e))
        start += count
    return ranks, values


def delta_of_rate(manifest: Manifest, rate: float) -> float:
    """Step Δ (range 0 to 1) that goes with keeping C = `rate` latents a block: Δ = water · sqrt(12 θ), θ = σ²_(C).

    The spectrum is interpolated between bands so that C acts continuously.

    Raises:
        EocodecError: C is outside 1 to 3 · 4**levels.
    """
    block = 3 * 4**manifest.levels
    if not 1 <= rate <= block:
        raise EocodecError(f"the rate must be from 1 to {block} latents a block, not {rate:g}")
    ranks, values = _knots(manifest)
    return manifest.water * math.sqrt(12.0) * math.exp(float(np.interp(rate, ranks, values)))


def rate_of_delta(manifest: Manifest, delta: float) -> float:
    """Inverse of :func:`delta_of_rate`, clamped to 1 … 3 · 4**levels."""
    ranks, values = _knots(manifest)
    log_sigma = math.log(delta / (manifest.water * math.sqrt(12.0)))
    return float(np.interp(-log_sigma, [-v for v in values], ranks))


def _knots(manifest: Manifest) -> tuple[list[float], list[float]]:
    """Strictly falling log σ over rank, from C = 1 to the whole block.

    The low-pass alone has a variance far above what a picture can be coded at, so the head is capped: C = 1 is Δ =
    :data:`COARSEST` levels. The tail goes on with the slope of the last pair.
    """
    ranks, values = _spectrum(manifest)
    block = 3.0 * 4**manifest.levels
    head = math.log(COARSEST / 255.0 / (manifest.water * math.sqrt(12.0)))
    kept = [(r, v) for r, v in zip(ranks, values, strict=True) if v < head - 0.05 and r > 1]
    ranks, values = [1.0, *(r for r, _ in kept)], [head, *(v for _, v in kept)]
    for k in range(1, len(values)):
        values[k] = min(values[k], values[k - 1] - 1e-6)
    if ranks[-1] < block:
        slope = (values[-1] - values[-2]) / (ranks[-1] - ranks[-2])
        ranks, values = [*ranks, block], [*values, values[-1] + slope * (block - ranks[-1])]
    return ranks, values


def step_code(delta: float) -> int:
    """The header's code of a step (range 0 to 1)."""
    return int(np.clip(round(math.log2(delta * 255.0) * STEP_UNIT) + 32768, 0, 65535))


def rate_code(rate: float) -> int:
    """The header's code of C."""
    return int(np.clip(round(rate * RATE_UNIT), 0, 65535))


def condition_code(code: int) -> int:
    """What the entropy nets see of the step, an integer in −80 … 48: 16 · (log2 Δ − 5), from the header's code."""
    octave = STEP_UNIT // CONDITION_UNIT
    return min(max((code - 32768 - 5 * STEP_UNIT + octave // 2) // octave, -80), 48)


def refinement_step(manifest: Manifest, delta: float) -> float:
    """The step (range 0 to 1) that the decoder graph is told for pictures coded at step Δ."""
    return delta if delta * 255 >= manifest.refine_from else NO_REFINEMENT


def band_steps(manifest: Manifest, delta: float) -> list[npt.NDArray[np.float32]]:
    """Step of every band and channel, arrays `(C, 1, 1)`, range 0 to 1."""
    return [(delta * np.exp(np.array(g))).astype(np.float32)[:, None, None] for g in manifest.gain]
