"""Steps Δ and their codes in files: log2 of Δ in 8-bit levels, in 1/2048 of an octave.

In: steps in the range 0 to 1, or codes. Out: codes, steps, and what else is counted in octaves of the step. Whatever
decides about a symbol's distribution takes the code, an integer, never Δ itself.
"""

import math

__all__ = [
    "CONDITION_UNIT",
    "STEP_ORIGIN",
    "STEP_UNIT",
    "TOP_CODE",
    "condition",
    "exact_code",
    "scale_shift",
    "step_code",
    "step_of_code",
]

STEP_UNIT = 2048  # codes of an octave
STEP_ORIGIN = 32768  # code of Δ = 1 level
TOP_CODE = 65535
CONDITION_UNIT = 16  # nets see c = log2 Δ − 5 in 1/16
CONDITION_CENTRE = 5  # log2 of 32 levels


def exact_code(delta: float) -> float:
    """The code of a step (range 0 to 1) before it is rounded and clamped."""
    return math.log2(delta * 255.0) * STEP_UNIT + STEP_ORIGIN


def step_code(delta: float) -> int:
    """The code of a step (range 0 to 1), clamped to what two bytes hold.

    Example:
        >>> step_code(1 / 255), step_code(2 / 255)
        (32768, 34816)
    """
    return min(max(round(math.log2(delta * 255.0) * STEP_UNIT) + STEP_ORIGIN, 0), TOP_CODE)


def step_of_code(code: int) -> float:
    """The step Δ (range 0 to 1) that a code stands for."""
    return float(2.0 ** ((code - STEP_ORIGIN) / STEP_UNIT)) / 255.0


def condition(code: int, lowest: int, highest: int) -> int:
    """What the entropy nets see of the step, an integer: 16 · (log2 Δ − 5), within the range they are trained for."""
    octave = STEP_UNIT // CONDITION_UNIT
    return min(max((code - STEP_ORIGIN - CONDITION_CENTRE * STEP_UNIT + octave // 2) // octave, lowest), highest)


def scale_shift(code: int, per_octave: int) -> int:
    """How far a step moves scale indices, in 1/2048: `per_octave` of them for every octave of Δ beyond 1 level."""
    return per_octave * (code - STEP_ORIGIN)
