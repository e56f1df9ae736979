"""Pages: text, charts and widgets beside photographs, in one file.

In: a picture and where its photographs are, or a file. Out: a file, or the picture. A page is an exact layer, one WebP
stream of the whole picture in which photographs are filled with what surrounds them, and an ordinary file for each
photograph, which takes the place of what was filled.

    picture ──photographs──► regions ──┬── crop ──► ordinary job ──► file ──┐
                                       └── rest ──► WebP stream ────────────┴──► page
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from eocodec import format, matte, regions
from eocodec.cached import cached_property
from eocodec.coding import registry, segmentation, webp
from eocodec.coding.base import Coded, SegmentedCoding, whole_file
from eocodec.coding.fineness import UNTUNED, Focus, StepTuning, tuning_for, within
from eocodec.coding.forms import PageForm, photograph_of
from eocodec.coding.ordinary import OrdinaryJob
from eocodec.coding.rate_control import SteppedJob
from eocodec.errors import EocodecError, FormatError
from eocodec.format import AnyFile, File, Header, Segment, rate_code
from eocodec.image import Bytes, Picture, is_grey
from eocodec.metrics import decibels, squared_error, visible_samples
from eocodec.model.bundle import Model
from eocodec.regions import Region
from eocodec.steps import step_code

__all__ = ["Page", "PageJob", "photographs_on"]

FRAME = 8  # bytes that a segment has besides its payload, nearly

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class PageJob(SteppedJob):
    """A page on its way into its file: the layer is packed once, the photographs follow the step.

    Arguments:
        coding, model, picture: see :class:`Job`.
        places: of the photographs, at least one.
        values: colours of the page before they were rounded, if they are known.
        tuning: of the photographs; a map of steps is made anew for each.
        focus: regions of interest, of which photographs take their parts.
    """

    def __init__(
        self,
        coding: "Page",
        model: Model,
        picture: Picture,
        places: list[Region],
        values: Float32 | None = None,
        tuning: StepTuning = UNTUNED,
        focus: Focus | None = None,
    ) -> None:
        super().__init__(coding, model, picture)
        self.places, self._values, self._tuning, self._focus = places, values, tuning, focus
        self.exact_layer = _filled(matte.repeated(picture).rgb, places)

    def remember(self) -> None:
        """Keep what is found out about a step, see :class:`eocodec.coding.ordinary.OrdinaryJob`."""
        for job in self._jobs:
            job.remembers = True

    @cached_property
    def _jobs(self) -> list[OrdinaryJob]:
        """One for each photograph."""
        found = []
        for region in self.places:
            rgb = np.ascontiguousarray(self.picture.rgb[region.place])
            grey = self.picture.grey or is_grey(rgb)
            tune, focus = "eye" if self._tuning.degree else "psnr", within(self._focus, region.place)
            tuning = tuning_for(self.model, True, tune, focus, rgb, False).improved_by(self._tuning.improver)
            values = None if self._values is None else np.ascontiguousarray(self._values[region.place])
            found.append(OrdinaryJob(registry.ORDINARY, self.model, Picture(rgb, grey=grey), values, tuning))
        return found

    @cached_property
    def _element(self) -> bytes:
        layer = webp.pack(self.exact_layer, thorough=False)  # the slow search saves 1 % of text and takes seconds
        return regions.pack(self.places, layer)

    @cached_property
    def quick_size(self) -> int:
        """Bytes of the exact layer, nearly, found in a fast way."""
        return webp.quick_size(self.exact_layer)

    def _file(self, delta: float, photographs: list[AnyFile]) -> File:
        """The page at a step, given the files of its photographs."""
        code, rate = step_code(delta), rate_code(self.model.any_manifest.rate_of(delta))
        header = Header(
            self.model.id, self.width, self.height, rate, code, grey=self.picture.grey, webp=True, page=True
        )
        segments = tuple(Segment(1, format.to_bytes(file)) for file in photographs)
        return File(header, self.alpha, segments, page=self._element)

    def at(self, delta: float) -> Coded:
        """See :meth:`Job.at`; smooth photographs may have finer steps, see :meth:`OrdinaryJob.at`."""
        coded = [job.at(delta) for job in self._jobs]
        file = self._file(delta, [c.file for c in coded])
        return Coded(file, self.rate(file), max(c.tries for c in coded))

    def file(self, delta: float) -> File:
        """See :meth:`SteppedJob.file`."""
        return self._file(delta, [job.file(delta) for job in self._jobs])

    def draft(self, delta: float) -> tuple[Bytes, Callable[[], AnyFile]]:
        """See :meth:`SteppedJob.draft`."""
        drafts = [job.draft(delta) for job in self._jobs]
        rgb = self._with_photographs([photograph for photograph, _ in drafts])
        return rgb, lambda: self._file(delta, [file() for _, file in drafts])

    def expected(self, file: AnyFile) -> Bytes:
        """See :meth:`Job.expected`."""
        parts = [format.from_bytes(s.payload) for s in whole_file(file).segments]
        return self._with_photographs([job.expected(part) for job, part in zip(self._jobs, parts, strict=True)])

    def notes(self, file: AnyFile) -> tuple[str, ...]:
        """See :meth:`Job.notes`: what is said of any photograph."""
        parts = [format.from_bytes(s.payload) for s in whole_file(file).segments]
        return tuple(sorted({n for job, part in zip(self._jobs, parts, strict=True) for n in job.notes(part)}))

    def _with_photographs(self, photographs: list[Bytes]) -> Bytes:
        rgb = self.exact_layer.copy()
        for region, photograph in zip(self.places, photographs, strict=True):
            rgb[region.place] = photograph
        return rgb

    def rate(self, file: AnyFile) -> float:
        """C of the header."""
        return whole_file(file).header.kept

    def overhead(self) -> int:
        """See :meth:`SteppedJob.overhead`."""
        return len(format.serialise(self._file(1.0, []))) + sum(job.overhead() + FRAME for job in self._jobs)

    def first_for_size(self, limit: int) -> float:
        """See :meth:`SteppedJob.first_for_size`; what the layer leaves is for the photographs."""
        share = sum(place.pixels for place in self.places) / self.picture.pixels
        return super().first_for_size(int((limit - self.overhead()) / share))

    def reached(self, rgb: Bytes) -> float:
        """See :meth:`SteppedJob.reached`; that of the photographs, which what is exact around them must not spoil."""
        error, samples = 0.0, 0
        for r in self.places:
            part, alpha = self.picture.rgb[r.place], None if self.picture.alpha is None else self.picture.alpha[r.place]
            error += squared_error(part, rgb[r.place], alpha)
            samples += visible_samples(part, alpha)
        return decibels(error, samples)


class Page(PageForm, SegmentedCoding):
    """An exact layer with photographs on it, of models whose ordinary files have any size."""

    tunable = True

    def open(
        self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED
    ) -> PageJob:
        """See :meth:`Coding.open`.

        Raises:
            EocodecError: there is no photograph on it, or nothing else, or it is larger than a layer can be.
        """
        job = self.attempted(model, picture, values, tuning)
        if job is None:
            raise EocodecError("the picture is not a page: nothing in it, or all of it, is a photograph")
        return job

    def attempted(
        self,
        model: Model,
        picture: Picture,
        values: Float32 | None = None,
        tuning: StepTuning = UNTUNED,
        focus: Focus | None = None,
    ) -> PageJob | None:
        """A job as :meth:`open` gives it, None for what is no page."""
        places = photographs_on(picture)
        return PageJob(self, model, picture, places, values, tuning, focus) if places else None

    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """See :meth:`Coding.decode`; photographs that are not there are left as the layer has them."""
        file = whole_file(file)
        header = file.header
        places, layer = regions.unpack(file.page or b"", header.width, header.height)
        parts = [photograph_of(file, place, k) for k, place in enumerate(places[: len(file.segments)])]
        if not header.webp:
            raise FormatError("the file is damaged: its exact layer is of a kind that its flags do not name")
        rgb = webp.unpack(layer, header.height, header.width)
        rgb = np.repeat(rgb[..., 1:2], 3, axis=2) if header.grey else rgb.copy()
        for place, part in zip(places, parts, strict=False):
            rgb[place.place] = registry.ORDINARY.decode(model, part, texture)
        return rgb

    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """R, G, B of every pixel of the layer, then the symbols of every photograph."""
        file = whole_file(file)
        bare = replace(file, segments=())
        found = [self.decode(model, bare).astype(np.int32).ravel()]
        places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
        for k, place in enumerate(places[: len(file.segments)]):
            found.append(registry.ORDINARY.symbols(model, photograph_of(file, place, k)))
        return np.concatenate(found)


def photographs_on(picture: Picture) -> list[Region]:
    """Where a picture that can be a page has photographs; nothing for other pictures."""
    if picture.depth > 8 or not webp.fits(*picture.rgb.shape[:2]):
        return []
    places = segmentation.photographs(matte.repeated(picture).rgb)
    return [] if sum(p.pixels for p in places) == picture.pixels else places


def _filled(rgb: Bytes, places: list[Region]) -> Bytes:
    """The page with its photographs filled with the colour that is commonest along their edges, which costs least."""
    layer = rgb.copy()
    for r in places:
        top, bottom, left, right = r.y - 1, r.y + r.height, r.x - 1, r.x + r.width
        columns, rows = slice(max(left, 0), right + 1), slice(r.y, bottom)
        around = [
            rgb[row, columns] for row in (top, bottom) if 0 <= row < len(rgb)
        ] + [rgb[rows, column] for column in (left, right) if 0 <= column < rgb.shape[1]]  # fmt: skip
        edge = np.concatenate(around).astype(np.uint32)
        colours = np.sort(edge[:, 0] << 16 | edge[:, 1] << 8 | edge[:, 2])
        starts = np.flatnonzero(np.concatenate([[True], colours[1:] != colours[:-1]]))
        commonest = colours[starts[np.argmax(np.diff(np.append(starts, len(colours))))]]
        layer[r.place] = [commonest >> 16, commonest >> 8 & 255, commonest & 255]
    return layer
