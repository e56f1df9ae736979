"""Pictures that are drawn rather than photographed, all of them or in part: text, charts, pixel art, scans, screens.

In: a picture and a model. Out: a job that gives the exact file where it takes no more bytes than a lossy one would, and
a page (`eocodec.coding.page`) where text and photographs apart take fewer than either.

A transform made for photographs spends many bits on hard edges. Such pictures are recognised by repetition, or by what
is left of their differences, and the size of their exact file is first estimated with coders that are fast. Of 16 bits
a sample any picture has a rate from which on its noise is cheaper kept than quantised; there every exact file is
estimated.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import zstandard

from eocodec import format, matte
from eocodec.cached import cached_property
from eocodec.coding import registry, webp
from eocodec.coding.base import Coded, Coding, Job
from eocodec.coding.fineness import UNTUNED, Focus, StepTuning
from eocodec.coding.lossless_tables import available
from eocodec.coding.ordinary import OrdinaryJob
from eocodec.coding.page import PageJob
from eocodec.errors import EocodecError
from eocodec.format import AnyFile, File
from eocodec.image import Bytes, Picture
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.model.threads import WORTH, begun

__all__ = ["FINE", "LARGEST_PAGE", "EitherJob", "Exact", "exact_of", "is_drawn", "open_either"]

Float32 = npt.NDArray[np.float32]

REPEATED = 0.25  # share of pixels that equal their left neighbours, from which on a picture may be drawn
COLOURS = 256  # or it has at most so many …
GREYS = 64  # … or, of a grey picture, which never has more than 256, so few …
REGULAR = 0.125  # … or what zstd leaves of its differences; gradients have 0.02, photographs 0.4 and more
SAMPLE = 64  # rows that are looked at
BAND = 8  # rows of these that are next to each other where differences count, or an exact file's size is estimated …
ROUGH = 4.0  # … which may be off by such a factor
HOPE = 1.5  # an exact file may be so much smaller than one of WebP that is found fast …
# … but those of photographs hardly ever are as much: in crops of 240×200 of scikit-image's photographs, whole and at
# half the size, those in colour were by 1.06 to 1.21, and grey ones by 1.01 to 1.26.
PHOTO_HOPE, GREY_HOPE = 1.21, 1.27
SMALL = 400  # bytes below which estimates are as for so many: they miss most where there is least
FREE = 128  # bytes that an exact file may always have; flat pictures do, and are kept exactly at any rate
LARGE = 1 << 24  # pixels from which on the exact coder, some 20 s a megapixel, would take too long
LARGEST_PAGE = 1 << 25  # pixels, as many as an 8K screen has: finding photographs takes four times the picture's memory
FINE = 4.0  # levels, the step up to which a lossy file may be as large as the exact one
NARROW = 16  # pixels, the edge of a block: of pictures with a shorter side most of what is coded is padding


class Exact:
    """The exact file of a picture, made when it is first worth it.

    Arguments:
        picture: what is to be kept; colours that transparency hides are as cheap as they can be.
        make: gives the exact file.
    """

    def __init__(self, picture: Picture, make: Callable[[], Coded]) -> None:
        self.picture, self._make = picture, make
        self._rough: float | None = None
        self._estimate: float | None = None
        self._made: tuple[Coded, int] | None = None

    def within(self, size: int, photo: bool = False) -> Coded | None:
        """The exact file, if it has at most `size` bytes and that could be found without much work.

        Arguments:
            size: in bytes.
            photo: a photograph's is looked for, too, if one of WebP has hardly more.
        """
        if self.picture.pixels > LARGE or not self._hopeful(size, photo):
            return None
        if self._made is None:
            coded = self._make()
            self._made = coded, len(format.to_bytes(coded.file))
        return self._made[0] if self._made[1] <= size else None

    def _hopeful(self, size: int, photo: bool) -> bool:
        """Whether quick tries do not rule out that it has at most `size` bytes."""
        rgb = self.picture.rgb
        narrow = min(rgb.shape[:2]) < NARROW
        hoped = HOPE * max(size, SMALL)
        if self._rough is None:
            likely = narrow or self.picture.depth > 8 or is_drawn(rgb)
            self._rough = _rough_estimate(rgb) if likely else float("inf")
        drawn = self._rough <= ROUGH * hoped
        if not (drawn or photo):
            return False
        if self._estimate is None:
            self._estimate = _estimate(rgb)
        most = GREY_HOPE if self.picture.grey else PHOTO_HOPE
        return (drawn and self._estimate <= hoped) or (photo and self._estimate <= most * size)


def exact_of(model: Model, picture: Picture) -> tuple[Exact, Callable[[], Job]]:
    """The exact file of a picture, for a model that has nets for such, and the job that makes it, opened when needed.

    Neither refers to a job of another form, which else would keep its latents until cycles are looked for.
    """
    plain = matte.repeated(picture)
    job = functools.cache(lambda: registry.LOSSLESS.open(model, replace(plain, deep=False, coarse_alpha=False)))
    return Exact(plain, lambda: job().at(1 / 255)), job


def open_either(
    coding: Coding,
    model: Model,
    picture: Picture,
    values: Float32 | None = None,
    tuning: StepTuning = UNTUNED,
    focus: Focus | None = None,
) -> Job:
    """A job as :meth:`Coding.open` gives it, which takes the exact form of a picture, or a page, where that is smaller.

    Only ordinary files have such forms in their place, and only where the model has nets for exact ones. A page has 8
    bits a sample.

    Arguments:
        coding, model, picture, values, tuning: see :meth:`Coding.open`.
        focus: regions of interest, which `tuning` has in its map, for photographs on a page.
    """
    if coding is registry.ORDINARY and available(model):
        return EitherJob(coding, model, picture, values, tuning, picture.depth == 8, focus)
    return coding.open(model, picture, values, tuning)


class EitherJob(Job):
    """A picture on its way into its ordinary file, or into its exact one or a page where that takes no more bytes.

    Arguments:
        coding: the ordinary form.
        model: the bundle.
        picture: what is compressed; of one with more bits a sample than it has here, those here are what is exact.
        values: its colours before they were rounded, `(H, W, 3)` in 0 to 1, if they are known.
        tuning: of the ordinary file.
        pages: whether a page may be made.
        focus: regions of interest, for the photographs on one.
    """

    def __init__(
        self,
        coding: Coding,
        model: Model,
        picture: Picture,
        values: Float32 | None = None,
        tuning: StepTuning = UNTUNED,
        pages: bool = True,
        focus: Focus | None = None,
    ) -> None:
        super().__init__(coding, model, picture)
        self._values, self.tuning, self._pages, self._focus = values, tuning, pages, focus
        self._exact, self._exactly = exact_of(model, picture)

    def remember(self) -> None:
        """Keep what is found out about a step, see :class:`eocodec.coding.ordinary.OrdinaryJob`."""
        if self.ordinary is not None:
            self.ordinary.remembers = True
        if self.page is not None:
            self.page.remember()

    @property
    def ordinary(self) -> OrdinaryJob | None:
        """What makes the ordinary files, if their latents are coded anew for every step."""
        return self._lossily if isinstance(self._lossily, OrdinaryJob) else None

    @cached_property
    def _lossily(self) -> Job:
        job = self.coding.open(self.model, self.picture, self._values, self.tuning)
        job.measuring = self.measuring
        return job

    @property
    def _most(self) -> int:
        """Bytes that a picture takes as it is, with transparency."""
        return 4 * self.picture.pixels * self.picture.depth // 8

    @cached_property
    def page(self) -> PageJob | None:
        """Photographs on an exact layer, if it is such a picture."""
        if not self._pages or self.picture.pixels > LARGEST_PAGE:
            return None
        return registry.PAGE.attempted(self.model, self.picture, self._values, self.tuning, self._focus)

    def at(self, delta: float) -> Coded:
        """See :meth:`Job.at`."""
        lossily = self._lossily  # has run the transform, on all cores; what comes first then does not
        page = begun(lambda: self.page, self.model.share if WORTH <= self.picture.pixels <= transform.WHOLE else 1)
        coded = lossily.at(delta)
        page()
        return self._smaller(self._paged(coded, lambda page: page.at(delta)) or coded)

    def fitting(self, limit: int) -> Coded:
        """See :meth:`Job.fitting`; the exact file is as good as a file can be.

        A photograph's is looked for where its lossy file has so fine a step that both may be of one size.
        """
        coded = self._exact.within(limit) or self._fitting_page(limit)
        if coded is not None:
            return coded
        coded = self._lossily.fitting(limit)
        fine = coded.file.delta <= FINE / 255
        return (self._exact.within(limit, photo=True) if fine else None) or coded

    def _fitting_page(self, limit: int) -> Coded | None:
        """A page of so many bytes, whose photographs are no coarser than an ordinary file of so many bytes is."""
        if self.page is None or self.page.quick_size > HOPE * limit or self.page.overhead() >= limit:
            return None
        try:
            coded = self.page.fitting(limit)
        except EocodecError:
            return None
        ordinary = self._lossily.at(coded.file.delta)
        return coded if len(format.to_bytes(ordinary.file)) > limit else None

    def reaching(self, target: float) -> Coded:
        """See :meth:`Job.reaching`; what no lossy file of a drawing reaches, the exact one does."""
        try:
            coded = self._lossily.reaching(target)
        except EocodecError:
            page = self._paged(None, lambda page: page.reaching(target))
            instead = self._exact.within(self._most) if page is None else self._smaller(page)
            if instead is None:
                raise
            return instead
        return self._smaller(self._paged(coded, lambda page: page.reaching(target)) or coded)

    def _paged(self, coded: Coded | None, make: Callable[[PageJob], Coded]) -> Coded | None:
        """The page, if there is one that meets the same target in fewer bytes."""
        size = self._most if coded is None else len(format.to_bytes(coded.file))
        if self.page is None or self.page.quick_size > HOPE * size:
            return None
        try:
            page = make(self.page)
        except EocodecError:
            return None
        return page if len(format.to_bytes(page.file)) < size else None

    def expected(self, file: AnyFile) -> Bytes:
        """See :meth:`Job.expected`."""
        return self._job_of(file).expected(file)

    def notes(self, file: AnyFile) -> tuple[str, ...]:
        """See :meth:`Job.notes`."""
        return self._job_of(file).notes(file)

    def quality(self, file: AnyFile) -> float:
        """See :meth:`Job.quality`; infinite for the exact file, which is proven."""
        return self._job_of(file).quality(file)

    def _smaller(self, coded: Coded) -> Coded:
        """The exact file if it is no larger, or next to nothing; of photographs where their step is fine."""
        size = max(len(format.to_bytes(coded.file)), FREE)
        return self._exact.within(size, photo=coded.file.delta <= FINE / 255) or coded

    def _job_of(self, file: AnyFile) -> Job:
        if isinstance(file, File) and file.header.page:
            assert self.page is not None, "a page is made of a picture that is one"
            return self.page
        return self._exactly() if isinstance(file, File) and file.lossless is not None else self._lossily


def is_drawn(rgb: Bytes) -> bool:
    """Whether a picture `(H, W, 3)` repeats its neighbours, has few colours or even slopes, as photographs do not."""
    rows = rgb[:: max(1, len(rgb) // SAMPLE)].astype(np.uint32)
    colours = rows[..., 0] << 16 | rows[..., 1] << 8 | rows[..., 2]
    repeated = float((colours[:, 1:] == colours[:, :-1]).mean()) if colours.shape[1] > 1 else 1.0
    if repeated >= REPEATED:
        return True
    ordered = np.sort(colours, axis=None)  # np.unique imports numpy.ma, and with it half of the standard library
    few = GREYS if bool((rows[..., :1] == rows).all()) else COLOURS
    if bool(1 + np.count_nonzero(ordered[1:] != ordered[:-1]) <= few):
        return True
    bands = _bands(rgb)
    return sum(map(_packed_size, bands)) <= REGULAR * sum(b.size for b in bands)


def _bands(rgb: Bytes) -> list[Bytes]:
    """Rows next to each other from all of a picture, :data:`SAMPLE` rows in all; of a low one, all of it."""
    if len(rgb) <= SAMPLE:
        return [rgb]
    number = SAMPLE // BAND
    tops = ((np.arange(number) + 0.5) * len(rgb) / number).astype(int) - BAND // 2
    return [rgb[top : top + BAND] for top in tops]


def _packed_size(rgb: Bytes) -> int:
    """Bytes of a picture's second differences, packed in a fast way."""
    rows = np.diff(rgb, axis=0, prepend=np.uint8(0))
    return len(zstandard.ZstdCompressor(level=1).compress(np.diff(rows, axis=1, prepend=np.uint8(0)).tobytes()))


def _rough_estimate(rgb: Bytes) -> float:
    """As :func:`_estimate`, from bands of a large picture, 0 for others: most that repeat something are photographs.

    It counts what half of the bands add to the others, the least busy half or every other one, whichever is less: most
    bands of a sparse page are empty, and one whose rows or lines repeat has shown them.
    """
    height = len(rgb)
    if rgb.dtype == np.uint16 or height < 4 * SAMPLE or not webp.fits(*rgb.shape[:2]):
        return 0.0
    bands = sorted(_bands(rgb), key=lambda b: -np.count_nonzero(b[:, 1:] != b[:, :-1]))
    busy, every_other, whole = (_estimate(np.concatenate(b)) for b in (bands[: len(bands) // 2], bands[::2], bands))
    return max(0.0, whole - max(busy, every_other)) * height / (SAMPLE // 2)


def _estimate(rgb: Bytes) -> float:
    """Bytes of an exact picture, found in a fast way: packed, or its own form if it has 16 bits a sample."""
    if rgb.dtype == np.uint16:
        from eocodec.coding import lossless_deep  # takes its time

        return lossless_deep.quick_size(rgb)
    packed = float(_packed_size(rgb))
    return min(packed, webp.quick_size(rgb)) if webp.fits(*rgb.shape[:2]) else packed
