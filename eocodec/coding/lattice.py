"""Pictures as integer lattices: reversible colour, polyphase split, and what is known around a sample.

In: `rgb (H, W, 3)` uint8. Out: planes Y, Co, Cg and, while their lattices are refined, the context of every sample. No
nets, no coding.

The split is a lazy wavelet: on a lattice of stride 2h the samples at stride h follow in three phases,

    p0 2 p0 2 p0      p0: known (the coarser lattice)
    3  1 3  1 3       1: from its four diagonal neighbours and beyond
    p0 2 p0 2 p0      2, 3: from the neighbours along and across

first all three of the luma axis Y, then of Co, then of Cg; the chroma axes see the finished lattice of the axes before.

References:
    Malvar & Sullivan, *YCoCg-R: a color space with RGB reversibility and low dynamic range*, JVT-I014r3, 2003.
    Sweldens, *The lifting scheme: a custom-design construction of biorthogonal wavelets*, 1996.
    https://doi.org/10.1006/acha.1996.0015
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from eocodec.coding.units import PHASES

__all__ = [
    "AXES",
    "HIGHEST",
    "LOWEST",
    "OFFSETS",
    "Lattice",
    "context_channels",
    "from_planes",
    "surroundings_channels",
    "to_planes",
    "visits",
]

Bytes = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
UInt8 = npt.NDArray[np.uint8]

AXES = 3  # Y, Co, Cg; a grey picture has the first
LOWEST, HIGHEST = (0, -255, -255), (255, 255, 255)  # range of Y, Co, Cg
REACH = 2  # samples of a phase that are looked at beyond a neighbour; the width of the padding


def _offsets(phase: int) -> tuple[tuple[int, int], ...]:
    """Offsets (rows, columns) in units of h from a sample of `phase` to the neighbours that are known before it.

    The nearest four come first; they also give the reference value.
    """
    known = {1: {0}, 2: {0, 1}, 3: {0, 1, 2}}[phase]
    limit = {1: 6, 2: 5, 3: 4}[phase]
    row, column = PHASES[phase]
    places = [
        (a, b)
        for a in range(-3, 4)
        for b in range(-3, 4)
        if PHASES.index(((row + a) % 2, (column + b) % 2)) in known and abs(a) + abs(b) <= limit
    ]
    nearest = {1: 2, 2: 1, 3: 1}[phase]
    return tuple(sorted(places, key=lambda p: (abs(p[0]) + abs(p[1]) != nearest, p)))


OFFSETS = {phase: _offsets(phase) for phase in (1, 2, 3)}
AROUND = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def context_channels(phase: int, axis: int) -> int:
    """Inputs of a net: neighbours, the residuals of the nearest four, and ten for each axis before."""
    return len(OFFSETS[phase]) + 4 + (len(AROUND) + 1) * axis


def surroundings_channels(axis: int) -> int:
    """Inputs of the net that looks around: three for each axis, and six more for each axis before."""
    return 3 * AXES + 2 * (len(PHASES) - 1) * axis


def to_planes(rgb: Bytes) -> Int16:
    """Y, Co, Cg `(3, H, W)` of a picture: YCoCg-R."""
    r, g, b = (rgb[..., k].astype(np.int16) for k in range(3))
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    return np.stack([t + (cg >> 1), co, cg])


def from_planes(planes: Int16) -> Bytes:
    """Inverse of :func:`to_planes`; values that no picture has are clipped."""
    y, co, cg = planes
    t = y - (cg >> 1)
    b = t - (co >> 1)
    return np.clip(np.stack([b + co, cg + t, b], -1), 0, 255).astype(np.uint8)


def visits(height: int, width: int) -> Iterator[int]:
    """The halved strides h = 2**(K−1), …, 1, from the lattice that holds only the corner."""
    half = 1 << (max(height, width) - 1).bit_length() >> 1
    while half:
        yield half
        half >>= 1


def joined(phases: list[Int16], shape: tuple[int, int]) -> Int16:
    """The lattice `(…, *shape)` of its four phases."""
    result = np.empty((*phases[0].shape[:-2], *shape), phases[0].dtype)
    for (i, j), p in zip(PHASES, phases, strict=True):
        result[..., i::2, j::2] = p
    return result


def _size(length: int, start: int) -> int:
    return max(0, (length - start + 1) // 2)


def _edges(a: Int16, by: int) -> Int16:
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + [(by, by)] * 2, "edge") if a.size else a


class Lattice:
    """What is known of one axis while its lattice goes from stride 2h to stride h: values and residuals of its phases.

    Several pictures of the same size may be stacked: then all planes have as many axes before rows and columns.

    Arguments:
        shape: rows and columns of the lattice of stride h.
        values, residuals: of all axes of the picture on their lattice of stride 2h, which is phase 0.
        before: finished lattices of stride h of the axes before.
    """

    def __init__(
        self, shape: tuple[int, int], values: list[Int16], residuals: list[Int16], before: "list[Lattice]"
    ) -> None:
        self.shape = shape
        self.before = before
        self.features: UInt8 | None = None
        """What a net made of :meth:`surroundings`, `(channels, rows, columns)` of phase 0, once it is known."""
        self._coarse = list(zip(values, residuals, strict=True))
        own, own_residuals = self._coarse[len(before)]
        self.values: list[Int16] = []
        self.residuals: list[Int16] = []
        self._padded: list[Int16] = []
        self._padded_residuals: list[Int16] = []
        self.full: Int16 = own
        self.full_residuals: Int16 = own_residuals
        self.add(own, own_residuals)

    def phase_shape(self, phase: int) -> tuple[int, int]:
        """Rows and columns of a phase."""
        i, j = PHASES[phase]
        return _size(self.shape[0], i), _size(self.shape[1], j)

    def add(self, values: Int16, residuals: Int16) -> None:
        """Append the next phase."""
        self.values.append(values)
        self.residuals.append(residuals)
        self._padded.append(_edges(values, REACH))
        self._padded_residuals.append(_edges(residuals, REACH))

    def finish(self) -> None:
        """Join the four phases to the lattice of stride h."""
        self.full = joined(self.values, self.shape)
        self.full_residuals = joined(self.residuals, self.shape)
        self.around = _edges(self.full, 1)

    def _neighbour(self, planes: list[Int16], phase: int, offset: tuple[int, int], rows: slice) -> Int16 | None:
        """Values at an offset from the samples of `phase`, or None where the picture has none of that phase."""
        i, j = PHASES[phase]
        (down, a), (right, b) = divmod(i + offset[0], 2), divmod(j + offset[1], 2)
        plane = planes[PHASES.index((a, b))]
        if not plane.size:
            return None
        top, left = rows.start + down + REACH, right + REACH
        return plane[..., top : top + rows.stop - rows.start, left : left + self.phase_shape(phase)[1]]

    def surroundings(self, rows: slice) -> Int16:
        """What is known around rows of phase 0 before phase 1, `(channels, …, rows, columns)`.

        Of every axis on the lattice of stride 2h the differences to the next sample of the row and of the column, and
        the residual; then of every axis before the three other phases less phase 0, each with its residual.
        """
        shape = (*self.full.shape[:-2], rows.stop - rows.start, self.phase_shape(0)[1])
        result = np.zeros((surroundings_channels(len(self.before)), *shape), self.full.dtype)
        for k, (values, residuals) in enumerate(self._coarse):
            part = values[..., rows, :]
            np.subtract(part[..., 1:], part[..., :-1], out=result[3 * k, ..., :-1])
            below = values[..., rows.start + 1 : rows.stop + 1, :]
            np.subtract(below, part[..., : below.shape[-2], :], out=result[3 * k + 1, ..., : below.shape[-2], :])
            result[3 * k + 2] = residuals[..., rows, :]
        at = 3 * AXES
        for other in self.before:
            for phase in (1, 2, 3):
                value = other.values[phase][..., rows, :]
                where = (..., slice(value.shape[-2]), slice(value.shape[-1]))
                np.subtract(value, other.values[0][..., rows, :][where], out=result[at][where])
                result[at + 1][where] = other.residuals[phase][..., rows, :]
                at += 2
        return result

    def context(self, phase: int, rows: slice) -> tuple[Int16, Int16]:
        """Reference values `(…, rows, columns)` and the nets' inputs `(channels, …, rows, columns)` of some rows."""
        shape = (rows.stop - rows.start, self.phase_shape(phase)[1])
        axis = len(self.before)
        result = np.zeros((context_channels(phase, axis), *self.full.shape[:-2], *shape), self.full.dtype)
        places = OFFSETS[phase]
        nearest = [v for p in places[:4] if (v := self._neighbour(self._padded, phase, p, rows)) is not None]
        if len(nearest) == 2:  # a single row or column of samples
            nearest *= 2
        reference = (nearest[0] + nearest[1] + nearest[2] + nearest[3] + 2) >> 2
        for k, p in enumerate(places):
            value = self._neighbour(self._padded, phase, p, rows)
            if value is not None:
                np.subtract(value, reference, out=result[k])
        at = len(places)
        for k, p in enumerate(places[:4]):
            value = self._neighbour(self._padded_residuals, phase, p, rows)
            if value is not None:
                result[at + k] = value
        at += 4
        i, j = PHASES[phase]
        for other in self.before:
            near = [
                other.around[..., 2 * rows.start + i + 1 + a : 2 * rows.stop + i + 1 + a : 2, j + 1 + b :: 2][
                    ..., : shape[0], : shape[1]
                ]
                for a, b in places[:4]
            ]
            centre = (near[0] + near[1] + near[2] + near[3] + 2) >> 2
            for k, (a, b) in enumerate(AROUND):
                top, left = 2 * rows.start + i + 1 + a, j + 1 + b
                value = other.around[..., top : top + 2 * shape[0] : 2, left::2][..., : shape[0], : shape[1]]
                np.subtract(value, centre, out=result[at + k])
            result[at + len(AROUND)] = other.residuals[phase][..., rows, :]
            at += len(AROUND) + 1
        return reference, result
