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

from eocodec import format
from eocodec.codec import Opened, open_picture
from eocodec.coding import matte
from eocodec.coding.base import Coded
from eocodec.coding.drawn import EitherJob
from eocodec.coding.fineness import Focus, tuning_for
from eocodec.coding.rate_control import Target
from eocodec.coding.registry import ORDINARY
from eocodec.errors import EocodecError
from eocodec.image import Picture, to_pillow
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.manifest import PhotoManifest
from eocodec.service.preview import Preview
from eocodec.service.rivals import Rival, rival

__all__ = ["KEPT_PIXELS", "Desk", "Made"]

KEPT_PIXELS = 1 << 23  # of all pictures that a process keeps; some 60 bytes each

T = TypeVar("T")


@dataclass
class Made:
    """A file of an open picture, and the picture that it decodes to once that was asked for."""

    opened: Opened
    coded: Coded
    data: bytes
    rgb: Any = None

    @property
    def bits_per_pixel(self) -> float:
        """Of the file."""
        return 8 * len(self.data) / self.opened.job.picture.pixels

    def picture(self) -> tuple[Image.Image, float]:
        """The picture that the file decodes to, and its PSNR, dB."""
        job = self.opened.job
        if self.rgb is None:
            self.rgb = job.expected(self.coded.file)
        return to_pillow(self.rgb, job.picture.alpha, job.picture.grey), psnr(job.picture.rgb, self.rgb)


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

    def _open(self, path: str, identity: str, model: Model, options: dict[str, Any]) -> Opened:
        form: dict[str, Any] = {name: options.get(name) for name in ("denoise", "progressive", "tune", "focus")}
        form["squared"] = options["psnr"] is not None  # files for a PSNR are tuned for it

        def make() -> Opened:
            opened = open_picture(self._read_file(path), model, **form)
            if isinstance(opened.job, EitherJob):
                opened.job.remember()
            self.transforms += 1
            return opened

        key = identity, model.name, repr(form)
        return self._keep(key, make, lambda o: o.job.picture.pixels)

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
            opened = open_picture(self._read_file(path), model, lossless=True)
        else:
            opened = self._open(path, identity, model, options)
        coded = opened.coded(target)
        made = Made(opened, coded, format.to_bytes(coded.file))
        self._last = key, made
        return made

    def rival(self, path: str, identity: str, codec: str, size: int) -> tuple[Rival, Picture]:
        """Another codec's file of at most `size` bytes, and the picture.

        Raises:
            EocodecError: there is no such codec or file.
        """
        picture = self._read_file(path)
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
