"""Pictures that stay open: sent once, transformed once, then any number of files are made of them quickly.

In: a picture, by the hash of its content, and parameters. Out: its file, the picture that the file decodes to, taken
from the encoder without decoding, and a coarse preview of that from a smaller copy. This is what a process does; the
routes are in `eocodec.service.sessions`. What is kept is bounded by :data:`KEPT_PIXELS`; the oldest goes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cachetools import LRUCache
from PIL import Image

from eocodec import format, matte
from eocodec.codec import Opened, open_picture
from eocodec.coding.base import Coded, Job
from eocodec.coding.drawn import EitherJob
from eocodec.coding.fineness import Focus, tuning_for
from eocodec.coding.ordinary import OrdinaryJob
from eocodec.coding.rate_control import Target
from eocodec.coding.registry import ORDINARY
from eocodec.errors import EocodecError
from eocodec.format import File
from eocodec.image import Picture, as_picture, rounded, to_pillow
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.manifest import PhotoManifest
from eocodec.service.estimates import Estimate, Estimator
from eocodec.service.preview import Preview
from eocodec.service.rivals import Rival, rival

__all__ = ["KEPT_PIXELS", "Desk", "Made"]

KEPT_PIXELS = 1 << 23  # of all pictures that a process keeps; some 60 bytes each

T = TypeVar("T")


@dataclass
class Made:
    """A file of an open picture, `source`, and the picture that it decodes to once that was asked for.

    `estimator`, if there is one, hears of both.
    """

    source: Picture
    opened: Opened
    coded: Coded
    data: bytes
    estimator: Estimator | None = None
    rgb: Any = None

    def __post_init__(self) -> None:
        self._note()

    @property
    def bits_per_pixel(self) -> float:
        """Of the file."""
        return 8 * len(self.data) / self.opened.job.picture.pixels

    def picture(self) -> tuple[Image.Image, float]:
        """The picture that the file decodes to, and its PSNR, dB."""
        job = self.opened.job
        if self.rgb is None:
            self.rgb = job.expected(self.coded.file)
        reached = psnr(job.picture.rgb, self.rgb, job.picture.alpha)
        self._note(reached)
        return to_pillow(rounded(self.rgb), job.picture.alpha, job.picture.grey), reached

    def _note(self, psnr: float | None = None) -> None:
        file = self.coded.file
        if self.estimator is None or not isinstance(file, File) or file.lossless is not None:
            return
        if file.header.tuning == self.estimator.job.tuning.degree:  # one for a size may have been tuned otherwise
            self.estimator.note(file.header.delta, len(self.data), psnr)


@dataclass
class _Session:
    """An open picture in one form, and what estimates its files if they are ordinary ones."""

    source: Picture
    opened: Opened
    estimator: Estimator | None


class Desk:
    """What a process has open.

    Arguments:
        read: gives the picture of a body.
        pixels: that are kept at most.
    """

    def __init__(self, read: Callable[[bytes], Picture], pixels: int = KEPT_PIXELS) -> None:
        self._read = read
        self._kept: LRUCache[Any, tuple[Any, int]] = LRUCache(pixels, getsizeof=lambda value: value[1])
        self._last: tuple[Any, Made] | None = None
        self.transforms = 0  # that have run

    def _keep(self, key: Any, make: Callable[[], T], pixels: Callable[[T], int]) -> T:
        if key in self._kept:
            kept: T = self._kept[key][0]
            return kept
        made = make()
        if pixels(made) <= self._kept.maxsize:
            self._kept[key] = made, pixels(made)
        return made

    def decoded(self, identity: str, body: bytes) -> Picture:
        """The picture of a body; it stays open as well.

        Raises:
            EocodecError: it has none.
        """
        return self._keep((identity, "decoded"), lambda: self._read(body), lambda picture: picture.pixels)

    def _read_file(self, path: str) -> Picture:
        with open(path, "rb") as file:
            return self._read(file.read())

    def _open(self, path: str, identity: str, model: Model, options: dict[str, Any]) -> _Session:
        def make() -> _Session:
            source = self._read_file(path)
            opened = open_picture(source, model, **_form(options))
            job: Job | None = opened.job
            if isinstance(job, EitherJob):
                job.remember()
                job = job.ordinary if job.page is None else job  # a page's bytes say nothing of an ordinary file's
            self.transforms += 1
            return _Session(source, opened, Estimator(job) if isinstance(job, OrdinaryJob) else None)

        return self._keep(_key(identity, model, options), make, lambda session: session.opened.job.picture.pixels)

    def file(self, path: str, identity: str, model: Model, options: dict[str, Any]) -> Made:
        """The file that options of :func:`eocodec.codec.compress` ask for.

        Raises:
            EocodecError: they cannot be met.
        """
        key = identity, model.name, repr(sorted((k, v) for k, v in options.items() if k != "model"))
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        self._last = None
        target = Target(options["rate"], options["bpp"], options["max_bytes"], options["psnr"])
        target.check()
        if options["lossless"]:
            source = self._read_file(path)
            session = _Session(source, open_picture(as_picture(source, None), model, lossless=True), None)
        else:
            session = self._open(path, identity, model, options)
        coded = session.opened.coded(target)
        made = Made(session.source, session.opened, coded, format.to_bytes(coded.file), session.estimator)
        self._last = key, made
        return made

    def estimate(self, identity: str, model: Model, options: dict[str, Any]) -> Estimate | None:
        """About what the file at a rate C is like, from files that were made of the picture before; None: not known.

        Raises:
            EocodecError: C is out of range.
        """
        delta = model.any_manifest.step_of(options["rate"])
        kept = self._kept.get(_key(identity, model, options))
        estimator = None if kept is None else kept[0].estimator
        return None if estimator is None else estimator.at(delta)

    def rival(self, path: str, identity: str, codec: str, size: int) -> tuple[Rival, Picture]:
        """Another codec's file of at most `size` bytes, and the picture.

        Raises:
            EocodecError: there is no such codec or file.
        """
        picture = matte.filled(self._read_file(path))
        key = identity, "rival", codec, size
        return self._keep(key, lambda: rival(picture.rgb, codec, size), lambda _: picture.pixels), picture

    def preview(
        self,
        path: str,
        identity: str,
        model: Model,
        rate: float,
        tune: str | None = None,
        focus: Focus | None = None,
    ) -> Image.Image:
        """About what a file of C looks like, from a smaller copy of the picture.

        Noise is not removed first: the copy has lost most of it.

        Arguments:
            path, identity, model: of the picture.
            rate: C.
            tune, focus: as of :func:`eocodec.codec.compress`.

        Raises:
            EocodecError: the model has no need of previews, or C is out of range.
        """
        manifest = model.any_manifest
        if not isinstance(manifest, PhotoManifest):
            raise EocodecError(f"the model {model.name} needs no preview; its pictures are small")

        def make() -> Preview:
            picture = matte.filled(self._read_file(path))
            self.transforms += 1
            return Preview(model, picture, tuning_for(model, ORDINARY.tunable, tune, focus, picture.rgb, False))

        key = identity, model.name, "preview", tune, repr(focus)
        preview = self._keep(key, make, lambda made: made.picture.pixels)
        return to_pillow(preview.at(rate), None, preview.picture.grey)


def _form(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`eocodec.codec.open_picture`: what files have in common that one transform is enough for."""
    form: dict[str, Any] = {name: options.get(name) for name in ("denoise", "progressive", "tune", "focus")}
    form["squared"] = options["psnr"] is not None  # files for a PSNR are tuned for it
    return form


def _key(identity: str, model: Model, options: dict[str, Any]) -> tuple[str, str, str]:
    """What a session is kept by."""
    return identity, model.name, repr(_form(options))
