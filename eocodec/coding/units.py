"""The order of latents: coding units and the phases of quads.

In: the number of wavelet levels L. Out: the units, in file order (`Y` luma, `C` the two chroma axes, `p` phases):

    0: LL │ 1–4: Y_L p0 p1 p2 p3 │ 5–6: C_L p01 p23 │ 7–10: Y_{L-1} … │ … │ C_1 p23
"""

from dataclasses import dataclass

__all__ = ["LEVEL_UNITS", "PHASES", "Unit", "cumulative_latents", "units"]

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column in a quad, in coding order
LEVEL_UNITS = 6  # coding units of a wavelet level


@dataclass(frozen=True)
class Unit:
    """A coding unit.

    Arguments:
        level: wavelet level; 0 stands for the low-pass.
        axis: "low", "luma" or "chroma".
        index: pass number within level and axis.
        phases: quad phases it codes.
        channels: slice of the level's nine channels (colour-major, orientation-minor).
    """

    level: int
    axis: str
    index: int
    phases: tuple[int, ...]
    channels: slice

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """Row and column in a quad of every phase."""
        return tuple(PHASES[p] for p in self.phases)

    @property
    def latents(self) -> float:
        """How many latents it codes in a quad of its level; the low-pass: in a block."""
        channels = self.channels.stop - self.channels.start
        return float(channels * len(self.phases)) if self.level else float(channels)


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
        total += u.latents * (4 ** (levels - u.level) / 4 if u.level else 1)
        result.append(total)
    return result
