"""How finely each latent of an ordinary file is coded: by level and, with a map, by place.

In: a header with Δ and the tuning, the model, and the map of a file or what a map is made of. Out: the step of every
latent, and what the integer nets and the decoder graph see of it.

    log2 step = log2 Δ + gain of the band + tuning/32 · eye[band]/16 + map[place]/16
                                            └── follows the eye ──┘    └─ details only

The nets see all of it but the gains, as an integer plane in 1/16 octave, so it is part of what is exact. A map has an
entry for every block of the coarsest level's quads, which is 32 pixels wide with four levels. The low-pass, which is
interpolated across the picture, has one step everywhere. docs/FORMAT.md, "StepTuning and map of steps", has the bytes.

References:
    Sneyers, *SSIMULACRA 2*, 2023, the measure that the tuning was chosen by. https://github.com/cloudinary/ssimulacra2
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.coding import rows
from eocodec.coding.improving import Improver
from eocodec.errors import EocodecError, FormatError
from eocodec.format import MAX_TUNING, Header
from eocodec.image import Bytes, is_grey
from eocodec.model.bundle import Model
from eocodec.model.manifest import PhotoManifest
from eocodec.model.threads import WORTH, side_by_side
from eocodec.model.transform import Places
from eocodec.steps import CONDITION_UNIT, STEP_UNIT, condition

__all__ = [
    "LARGEST_OFFSET",
    "UNTUNED",
    "Fineness",
    "Focus",
    "StepTuning",
    "focused",
    "masking",
    "offsets_of",
    "pack_offsets",
    "tuning_for",
    "within",
]

Focus = Sequence[float] | Sequence[Sequence[float]] | npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]

LARGEST_OFFSET = 2 * CONDITION_UNIT  # of a map's entry, 1/16 octave
LUMA = (0.299, 0.587, 0.114)
CELL = 8  # pixels, over which the contrast of a place is measured
COARSE_ENTRY = 4  # entries of a masking map are multiples, so that it takes few bytes
CONDITION_RANGE = (-80, 48)
UNIT = STEP_UNIT // CONDITION_UNIT  # step codes of 1/16 octave
_ENTRIES = range(-LARGEST_OFFSET, LARGEST_OFFSET + 1)
MOST_OCTAVES = LARGEST_OFFSET / CONDITION_UNIT
FOCUS = 1.0  # octaves by which the region of interest is finer, unless told otherwise


@dataclass(frozen=True)
class StepTuning:
    """What an encoder is to do about steps, and with latents at them.

    Arguments:
        degree: how much the steps of the levels follow the eye, in 1/32; 0 is for the smallest squared error.
        offsets: map of steps, see :func:`focused`; None: none.
        instead: what a file may be tuned for if it would else be too large; None: for nothing else.
        improver: what finds better latents for a step than the transform; None: nothing.
    """

    degree: int = 0
    offsets: Int8 | None = None
    instead: "StepTuning | None" = None
    improver: Improver | None = None

    def improved_by(self, improver: Improver | None) -> "StepTuning":
        """The same with another improver, whatever a file is tuned for."""
        instead = None if self.instead is None else self.instead.improved_by(improver)
        return replace(self, instead=instead, improver=improver)


UNTUNED = StepTuning()


def tuning_for(
    model: Model, tunable: bool, tune: str | None, focus: Focus | None, rgb: Bytes, squared: bool
) -> StepTuning:
    """What a caller's wishes mean for an encoder.

    Arguments:
        model: that encodes.
        tunable: whether the form of file has steps that can differ.
        tune: "eye" or "psnr"; None: "eye" where that is possible and no PSNR is to be reached, and a smaller squared
            error instead where a file tuned for the eye, whose steps are finer in smooth places, would be too large.
        focus: regions of interest or a mask, see :func:`focused`; None: none.
        rgb: the picture `(H, W, 3)`.
        squared: whether a PSNR is to be reached.

    Raises:
        EocodecError: no such tuning, or model or form cannot do what was asked for.
    """
    if tune not in (None, "eye", "psnr"):
        raise EocodecError(f"a file is tuned for eye or psnr, not for {tune}")
    manifest = model.any_manifest
    able = tunable and isinstance(manifest, PhotoManifest) and manifest.tuned
    wish = "be tuned for the eye" if tune == "eye" else "have regions of interest" if focus is not None else None
    if wish is not None and not able:
        what = f"files of the model {manifest.name}" if tunable else "files of this form"
        raise EocodecError(f"{what} cannot {wish}")
    eye = able and (tune == "eye" or (tune is None and not squared))
    nearer: Int8 | None = None
    if able and focus is not None:
        nearer = focused(focus, rgb.shape[:2], model.multiple)
    squared_error = StepTuning(0, _if_any(nearer))
    if not eye:
        return squared_error
    encoding = model.for_picture(rgb.itemsize == 1 and is_grey(rgb)).encoding
    offsets = masking(rgb, model.multiple, encoding.masking, model.share if rgb.size >= WORTH else 1)
    if nearer is not None:
        offsets = np.clip(nearer + offsets, -LARGEST_OFFSET, LARGEST_OFFSET)
    return StepTuning(encoding.tuning, _if_any(offsets), None if tune else squared_error)


def _if_any(offsets: Int8 | None) -> Int8 | None:
    return offsets if offsets is not None and offsets.any() else None


@dataclass(frozen=True)
class BandSteps:
    """The steps of a band, range 0 to 1, in a ninth of the memory that one for each quad and channel would take.

    Arguments:
        channels: `(C, 1, 1)`.
        factor: by which they differ from quad to quad, `(h/2, w/2)`; None: they do not.
    """

    channels: Float32
    factor: Float32 | None = None

    def at(self, channels: slice, rows: slice) -> Float32:
        """Steps of some channels and rows of quads, which broadcast to `(channels, rows, columns)`."""
        return self.channels[channels] if self.factor is None else self.channels[channels] * self.factor[rows]


class Fineness:
    """The steps of one picture.

    Arguments:
        model: the bundle.
        header: of the file; width, height, step and tuning matter.
        offsets: the map in 1/16 octave, `(rows, columns)` of blocks, or None.

    Raises:
        FormatError: the file is tuned or has a map, and the model cannot.
    """

    def __init__(self, model: Model, header: Header, offsets: Int8 | None = None) -> None:
        manifest = model.manifest
        if (header.tuning or offsets is not None) and not manifest.tuned:
            raise FormatError(f"the file is damaged: its steps differ, which the model {model.name} does not know")
        self.manifest, self.header, self.offsets = manifest, header, offsets

    def code(self, band: int) -> int:
        """Code of the step of a band (0: low-pass, 1: level L, …, L: level 1) where the map has nothing to say.

        It may lie beyond what a header can hold.
        """
        if not self.header.tuning:
            return self.header.step
        return self.header.step + self.header.tuning * self.manifest.eye[band] * UNIT // MAX_TUNING

    def condition(self, level: int, at: slice, columns: int) -> Int8:
        """Planes that the nets of a level see `(1, planes, rows, columns)`, for rows of the level's quad grid."""
        band = 1 + self.manifest.levels - level
        finer = self.header.fine * STEP_UNIT
        planes = np.zeros((1, 2 if self.manifest.tuned else 1, at.stop - at.start, columns), np.int8)
        if self.offsets is None:
            planes[:, 0] = condition(self.code(band) + finer, *CONDITION_RANGE)
        else:
            base = condition(self.code(band), -1 << 12, 1 << 12)
            planes[0, 0] = np.clip(base + self._map(2 ** (band - 1), at).astype(np.int16), *CONDITION_RANGE)
        if self.manifest.tuned:
            planes[:, 1] = self.header.tuning
        return planes

    def steps(self) -> list[Float32]:
        """Step of every latent of every band, range 0 to 1, arrays that broadcast to `(C, h, w)`."""
        return [
            band.channels if band.factor is None else band.channels * band.factor.repeat(2, 0).repeat(2, 1)
            for band in self.quads()
        ]

    def quads(self) -> "list[BandSteps]":
        """Steps of the low-pass, and of the quads of every detail band, all four latents of which have the same."""
        result = []
        for band, step in enumerate(self.manifest.steps(self.header.delta)):
            octaves = (self.code(band) - self.header.step) / STEP_UNIT
            if octaves:
                step *= np.float32(2.0**octaves)
            factor = None
            if self.offsets is not None and band:
                factor = np.exp2(self._map(2 ** (band - 1)) / np.float32(CONDITION_UNIT), dtype=np.float32)
            result.append(BandSteps(step, factor))
        return result

    def places(self) -> Places:
        """What the decoder graph takes besides latents and Δ."""
        steps = None
        if self.offsets is not None:
            delta = self.header.delta
            table = [self.manifest.decoder_step(delta * 2 ** (a / CONDITION_UNIT)) for a in _ENTRIES]
            steps = np.array(table, np.float32)[self.offsets + LARGEST_OFFSET]
        return Places(self.header.tuning / MAX_TUNING, steps)

    def _map(self, times: int, at: slice | None = None) -> Int8:
        """Rows of the map on a grid that is so many times finer."""
        assert self.offsets is not None
        if at is None:
            return self.offsets.repeat(times, 0).repeat(times, 1)
        wanted = self.offsets[at.start // times : -(-at.stop // times)].repeat(times, 0).repeat(times, 1)
        first = at.start - at.start // times * times
        return wanted[first : first + at.stop - at.start]


def blocks_of(header: Header, model: Model) -> tuple[int, int]:
    """Rows and columns of a picture's map."""
    return -(-header.height // model.multiple), -(-header.width // model.multiple)


def pack_offsets(offsets: Int8 | None) -> bytes | None:
    """The side segment of a map."""
    return None if offsets is None else rows.pack(offsets.view(np.uint8))


def offsets_of(data: bytes | None, header: Header, model: Model) -> Int8 | None:
    """The map in a side segment, None for none.

    Raises:
        FormatError: it has the wrong size, or entries that are out of range.
    """
    if data is None:
        return None
    height, width = blocks_of(header, model)
    offsets = rows.unpack(data, width, height, "map of steps").view(np.int8)
    if int(np.abs(offsets.astype(np.int16)).max()) > LARGEST_OFFSET:
        raise FormatError("the file is damaged: its map of steps is out of range")
    return offsets


def masking(rgb: Bytes, block: int, strength: float, threads: int = 1) -> Int8:
    """The map by which busy blocks, which hide errors, are coarser than smooth ones: nothing on the whole.

    Arguments:
        rgb: the picture `(H, W, 3)`.
        block: edge of a map's block in pixels, a multiple of 8.
        strength: octaves of the step for an octave of contrast.
        threads: that may take part.
    """
    rows = [rgb[top : top + block] for top in range(0, rgb.shape[0], block)]
    busy = np.stack(side_by_side(lambda part: _contrast(part, block), rows, threads))
    entry = np.rint(strength * CONDITION_UNIT / COARSE_ENTRY * (busy - busy.mean())) * COARSE_ENTRY
    return np.clip(entry, -LARGEST_OFFSET, LARGEST_OFFSET).astype(np.int8)


def _contrast(rgb: Bytes, block: int) -> npt.NDArray[Any]:
    """log2 of the deviation of luma in cells, mean over each block of a row of blocks."""
    height, width = rgb.shape[:2]
    luma = np.pad(rgb @ np.array(LUMA, np.float32), [(0, block - height), (0, -width % block)], "edge")
    variance = luma.reshape(block // CELL, CELL, -1, block // CELL, CELL).var((1, 4))
    return 0.5 * np.log2(variance + 1).mean((0, 2))


def focused(focus: Focus, shape: tuple[int, int], block: int) -> Int8:
    """The map that makes regions of interest finer.

    Arguments:
        focus: rectangles `(x, y, width, height)` or `(x, y, width, height, octaves)` in pixels, one or a sequence; or
            a mask `(H, W)` of the picture's size, uint8 or bool: 0 leaves a place as it is, the largest value makes its
            step an octave finer. A negative number of octaves makes a region coarser.
        shape: height and width of the picture.
        block: edge of a map's block in pixels.

    Raises:
        EocodecError: a region that lies outside, or a mask of another size.
    """
    height, width = shape
    octaves = np.zeros((-(-height // block), -(-width // block)), np.float64)
    if isinstance(focus, np.ndarray):
        if focus.shape != shape or focus.dtype not in (np.uint8, np.bool_):
            raise EocodecError(f"a mask must be 8 bits or boolean and of the picture's size, {width}x{height} pixels")
        full = focus.astype(np.float64) * (FOCUS if focus.dtype == np.bool_ else FOCUS / 255)
        padded = np.pad(full, [(0, -n % block) for n in shape], "edge")
        blocks = padded.reshape(octaves.shape[0], block, octaves.shape[1], block)
        octaves = blocks.max((1, 3))  # a block that is touched is seen
    else:
        for x, y, w, h, more in _rectangles(focus):
            if not (x < width and y < height and x + w > 0 and y + h > 0):
                raise EocodecError(f"the region {x:g},{y:g},{w:g},{h:g} lies outside the picture of {width}x{height}")
            left, top = max(0, int(x)) // block, max(0, int(y)) // block
            place = octaves[top : -(-int(y + h) // block), left : -(-int(x + w) // block)]
            np.copyto(place, more, where=np.abs(place) < abs(more))
    return -np.clip(np.rint(octaves * CONDITION_UNIT), -LARGEST_OFFSET, LARGEST_OFFSET).astype(np.int8)


def within(focus: Focus | None, place: tuple[slice, slice]) -> Focus | None:
    """What regions of interest, as :func:`focused` takes them, are inside a rectangle of the picture; None: nothing.

    Arguments:
        focus: of the whole picture.
        place: rows and columns of the rectangle.
    """
    if focus is None or isinstance(focus, np.ndarray):
        return None if focus is None else focus[place]
    top, left, height, width = place[0].start, place[1].start, *(s.stop - s.start for s in place)
    moved = [(x - left, y - top, w, h, more) for x, y, w, h, more in _rectangles(focus)]
    return [r for r in moved if r[0] < width and r[1] < height and r[0] + r[2] > 0 and r[1] + r[3] > 0] or None


def _rectangles(focus: Any) -> list[tuple[float, float, float, float, float]]:
    """Left, top, width, height and octaves of every region.

    Raises:
        EocodecError: one is not so.
    """
    result = []
    try:
        regions = [focus] if len(focus) and not isinstance(focus[0], (Sequence, np.ndarray)) else list(focus)
        for region in regions:
            x, y, w, h, more = (*map(float, region), FOCUS)[:5]
            if not (len(region) in (4, 5) and np.isfinite([x, y, w, h]).all() and abs(more) <= MOST_OCTAVES):
                raise ValueError
            result.append((x, y, w, h, more))
    except (TypeError, ValueError, KeyError):
        raise EocodecError("a region is x, y, width and height in pixels, and octaves from -2 to 2 if wanted") from None
    if not result:
        raise EocodecError("no region of interest was given")
    for x, y, w, h, _ in result:
        if not (w > 0 and h > 0):
            raise EocodecError(f"the region {x:g},{y:g},{w:g},{h:g} has no {'height' if w > 0 else 'width'}")
    return result
