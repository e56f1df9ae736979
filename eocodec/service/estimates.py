"""About how many bytes a file of an open picture takes and what PSNR it reaches, in a small part of the file's time.

In: the job of an ordinary file, what is known of files that were made of it, and a step. Out: bytes and PSNR.

A few blocks of the picture's latents, chosen by how much goes on in them, are laid side by side and coded as a picture
of their own: the nets and the range coder say how bytes and squared error change with the step. How far they are off
for the picture as a whole is known where files have been made; in between it is interpolated.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from eocodec.coding.fineness import Fineness
from eocodec.coding.ordinary import NEARLY_EMPTY, OrdinaryJob, finish, foresee
from eocodec.model.transform import scales

__all__ = ["BLOCK", "BLOCKS", "Estimate", "Estimator"]

BLOCK = 64  # pixels, each way; a multiple of what the flow pads pictures to
BLOCKS = 3, 4  # rows and columns of them
PER_OCTAVE = (
    0.55  # dB an octave of Δ by which PSNR falls faster than the latents' error says: 0.4 to 0.7 on photographs
)
ERROR_FLOOR = 1e-12  # of a sample that is met exactly

Float32 = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Estimate:
    """Of a file: its bytes, and its PSNR in dB if anything is known of that; `exact` if both were measured."""

    bytes: int
    psnr: float | None
    exact: bool = False


@dataclass
class _Known:
    """A file that was made: log2 of its step, its bytes, and its PSNR once that was measured."""

    place: float
    bytes: int
    psnr: float | None = None


class Estimator:
    """Estimates for the files of one picture.

    Arguments:
        job: that makes them.
    """

    def __init__(self, job: OrdinaryJob) -> None:
        self.job = job
        self._known: dict[int, _Known] = {}
        self._sampled: dict[int, tuple[float, float]] = {}
        self._places: list[tuple[int, int]] | None = None
        self._sample: list[Float32] = []

    def note(self, delta: float, size: int, psnr: float | None = None) -> None:
        """Take note of a file at a step Δ (range 0 to 1), and of its PSNR (dB) if that was measured."""
        header = self.job.header(delta)
        known = self._known.setdefault(header.step, _Known(math.log2(header.delta), size))
        known.bytes = size
        if psnr is not None and math.isfinite(psnr):
            known.psnr = psnr

    def at(self, delta: float) -> Estimate | None:
        """Of the file at a step Δ (range 0 to 1); None where nothing is known, or little can be said.

        That is so before the first file, of pictures with too few blocks, whose files take no time, and of nearly empty
        files, for which finer steps are tried.
        """
        header = self.job.header(delta)
        known = self._known.get(header.step)
        if known is not None and known.psnr is not None:
            return Estimate(known.bytes, known.psnr, exact=True)
        if not self._known or not self._blocks():
            return None
        place, fixed = math.log2(header.delta), self.job.overhead()
        places = sorted(self._known.values(), key=lambda k: k.place)
        sizes = [(k.place, math.log2(max(1, k.bytes - fixed)) - self._size(k)) for k in places]
        size = fixed + round(2 ** (self._size(_Known(place, 0)) + _between(sizes, place)))
        if 8 * size < NEARLY_EMPTY * self.job.picture.pixels:
            return None
        qualities = [(k.place, k.psnr - self._quality(k)) for k in places if k.psnr is not None]
        psnr = self._quality(_Known(place, 0)) + _between(qualities, place) if qualities else None
        return Estimate(size if known is None else known.bytes, psnr)

    def _size(self, at: _Known) -> float:
        """Octaves of the sample's bytes."""
        return math.log2(max(1.0, self._coded(2**at.place)[0]))

    def _quality(self, at: _Known) -> float:
        """PSNR that the sample's error stands for, up to what all steps have in common."""
        return -10 * math.log10(self._coded(2**at.place)[1]) - PER_OCTAVE * at.place

    def _coded(self, delta: float) -> tuple[float, float]:
        """Bytes of the sample at a step, and its mean squared error."""
        header = self.job.header(delta)
        if header.step not in self._sampled:
            rows, columns = BLOCKS
            small = replace(header, width=columns * BLOCK, height=rows * BLOCK)
            offsets = self.job.tuning.offsets
            if offsets is not None:
                offsets = self._mosaic(offsets[None], self.job.model.multiple)[0]
            coder, latents = foresee(self.job.model, small, self._sample, Fineness(self.job.model, small, offsets))
            error = sum(float(np.square(a - b).sum()) for a, b in zip(self._sample, latents, strict=True))
            size = sum(len(segment.payload) for segment in finish(small, coder, coder.shifts))
            samples = sum(band.size for band in latents) * 3 // self.job.model.manifest.axes  # of the picture
            self._sampled[header.step] = float(size), max(error / samples, ERROR_FLOOR)
        return self._sampled[header.step]

    def _blocks(self) -> bool:
        """Choose blocks, if that has not been done; whether there are enough.

        In order of the energy of their finest details, every so-manieth of them, so that flat and busy ones have their
        shares.
        """
        if self._places is None:
            latents = self.job.latents if self.job.calm is None else self.job.calm_latents
            factors = scales(self.job.model.manifest.levels)
            rows, columns = self.job.height // BLOCK, self.job.width // BLOCK
            wanted = BLOCKS[0] * BLOCKS[1]
            self._places = []
            if rows * columns >= wanted:
                energy = sum(_energy(latents[k][:3], BLOCK // factors[k], rows, columns) for k in (-2, -1))
                order = np.argsort(energy, axis=None, kind="stable")
                chosen = order[[int((k + 0.5) / wanted * len(order)) for k in range(wanted)]]
                self._places = [(int(k) // columns, int(k) % columns) for k in chosen]
                self._sample = [self._mosaic(band, f) for band, f in zip(latents, factors, strict=True)]
        return bool(self._places)

    def _mosaic(self, band: npt.NDArray[Scalar], factor: int) -> npt.NDArray[Scalar]:
        """The chosen blocks of a band `(C, h, w)` side by side; `factor` pixels are one latent."""
        assert self._places is not None
        size = BLOCK // factor
        parts = [band[:, y * size : (y + 1) * size, x * size : (x + 1) * size] for y, x in self._places]
        columns = BLOCKS[1]
        rows = [np.concatenate(parts[k : k + columns], 2) for k in range(0, len(parts), columns)]
        return np.ascontiguousarray(np.concatenate(rows, 1))


def _energy(band: Float32, size: int, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Sum of squares of a band `(C, h, w)` in blocks of `size` latents each way, `(rows, columns)`."""
    blocks = band[:, : rows * size, : columns * size].reshape(len(band), rows, size, columns, size)
    return np.asarray(np.square(blocks).sum((0, 2, 4)))


def _between(points: list[tuple[float, float]], place: float) -> float:
    """Value at a place between points in order, that of the nearest beyond them."""
    return float(np.interp(place, [x for x, _ in points], [y for _, y in points]))
