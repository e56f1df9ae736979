"""The order of latents: coding units and the phases of quads.

In: the number of wavelet levels L, and whether the phases are rotated. Out: the units, in file order (`Y` luma, `C` the
two chroma axes, `p` passes):

    0: LL │ 1–4: Y_L p0 p1 p2 p3 │ 5–6: C_L p0 p1 │ 7–10: Y_{L-1} … │ … │ C_1 p1

A level's positions fall into quads of four phases. Plainly, luma pass k codes phase k of all three orientations, chroma
pass k the phases 2k and 2k + 1. Rotated, a luma pass takes each orientation at a phase of its own, and a chroma pass
half of the channels at the other two phases, so that what is known at a place includes its other orientations:

    pass that codes an orientation     plain        rotated
    at a phase of luma               HL LH HH      HL LH HH
      0                               0  0  0       0  1  2
      1                               1  1  1       1  0  3
      2                               2  2  2       2  3  0
      3                               3  3  3       3  2  1
"""

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "CHROMA_PASSES",
    "LEVEL_UNITS",
    "LUMA_PASSES",
    "PHASES",
    "Part",
    "Unit",
    "cumulative_latents",
    "passes",
    "units",
]

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column in a quad, in coding order
LUMA_PASSES, CHROMA_PASSES = 4, 2
LEVEL_UNITS = LUMA_PASSES + CHROMA_PASSES  # coding units of a wavelet level

Places = tuple[tuple[int, int], ...]
"""Places of a quad, (phase, channel) each, in the order in which a pass codes them."""


def passes(rotated: bool, axes: int = 3) -> tuple[Places, ...]:
    """What each of a level's six passes codes: four of luma (channels 0 to 2), two of chroma (3 to 8).

    With one colour axis there are those of luma only.

    A channel is 3 · colour axis + orientation; see the module's drawing. Either way an orientation's second pass
    completes the places of one colour of a chessboard.

    Example:
        >>> passes(rotated=True)[0]
        ((0, 0), (1, 1), (2, 2))
        >>> [[channel for _, channel in one[:6]] for one in passes(rotated=True)[4:]]
        [[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8]]
    """
    turn = int(rotated)
    luma = [tuple((k ^ turn * o, o) for o in range(3)) for k in range(LUMA_PASSES)]
    chroma = [
        tuple(
            ((2 * k + phase + 2 * turn * ((axis + o) % 2)) % 4, 3 * axis + o)
            for phase in (0, 1)
            for axis in (1, 2)
            for o in range(3)
        )
        for k in range(CHROMA_PASSES)
    ]
    return (*luma, *chroma) if axes > 1 else tuple(luma)


@dataclass(frozen=True)
class Part:
    """What a unit codes at one phase of the quads: neighbouring channels.

    Arguments:
        row, column: of the phase in a quad.
        channels: slice of the level's nine channels (colour-major, orientation-minor).
        at: slice of the unit's places.
    """

    row: int
    column: int
    channels: slice
    at: slice


@dataclass(frozen=True)
class Unit:
    """A coding unit.

    Arguments:
        level: wavelet level; 0 stands for the low-pass.
        axis: "low", "luma" or "chroma".
        index: pass number within level and axis.
        parts: what it codes, in coding order; nothing for the low-pass, which has an order of its own.
    """

    level: int
    axis: str
    index: int
    parts: tuple[Part, ...]

    @property
    def places(self) -> int:
        """How many latents it codes in a quad of its level; the low-pass: in a block."""
        return self.parts[-1].at.stop if self.parts else 3

    def gather(self, band: "npt.NDArray[Any]", rows: slice) -> "npt.NDArray[Any]":
        """Its latents in some rows of the quad grid, `(places, rows, columns)`, of a level's `(9, 2 gh, 2 gw)`."""
        import numpy as np  # takes its time, and most of this module does without

        return np.concatenate([band[p.channels, p.row :: 2, p.column :: 2][:, rows] for p in self.parts])

    def scatter(self, values: "npt.NDArray[Any]", band: "npt.NDArray[Any]", rows: slice) -> None:
        """Put what :meth:`gather` takes back to its places."""
        for p in self.parts:
            band[p.channels, p.row :: 2, p.column :: 2][:, rows] = values[p.at]


def _parts(places: Places) -> tuple[Part, ...]:
    """Runs of places at one phase with channels in a row."""
    starts = [n for n, (phase, channel) in enumerate(places) if n == 0 or places[n - 1] != (phase, channel - 1)]
    return tuple(
        Part(*PHASES[places[a][0]], slice(places[a][1], places[a][1] + b - a), slice(a, b))
        for a, b in pairwise([*starts, len(places)])
    )


def units(levels: int, rotated: bool = False) -> list[Unit]:
    """All coding units in file order."""
    return list(_units(levels, rotated))


@functools.cache
def _units(levels: int, rotated: bool) -> tuple[Unit, ...]:
    parts = [_parts(places) for places in passes(rotated)]
    result = [Unit(0, "low", 0, ())]
    for level in range(levels, 0, -1):
        result += [Unit(level, "luma", k, p) for k, p in enumerate(parts[:LUMA_PASSES])]
        result += [Unit(level, "chroma", k, p) for k, p in enumerate(parts[LUMA_PASSES:])]
    return tuple(result)


def cumulative_latents(levels: int, axes: int = 3) -> list[float]:
    """Latents of a block that are coded after each unit; the last entry is the number of axes times 4**levels.

    With one colour axis the units are the same, and those of chroma hold nothing.
    """
    total, result = 0.0, []
    for u in units(levels):
        if not u.level:
            total += axes
        elif axes > 1 or u.axis == "luma":
            total += u.places * 4 ** (levels - u.level) / 4
        result.append(total)
    return result
