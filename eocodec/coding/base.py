"""What every form of file is: one class that opens pictures, decodes, tells symbols, describes and cuts.

    picture ──open──► job ──at, fitting, reaching──► Coded ──to_bytes──► bytes ──from_bytes──► file ──decode──► rgb

In: pictures and models (encoding) or parsed files (all else). Out: files, pictures, integers, descriptions. A new form
is a subclass of :class:`Coding` in a module of its own, a :class:`eocodec.coding.forms.Form` and a line in
`eocodec.coding.registry`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from eocodec.cached import cached_property
from eocodec.coding import alpha
from eocodec.coding.fineness import UNTUNED, StepTuning
from eocodec.coding.forms import Form, SegmentedForm, described, whole_file
from eocodec.format import AnyFile
from eocodec.image import Bytes, Picture
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import Library

__all__ = [
    "SEGMENT_MINIMUM",
    "SEGMENT_TARGET",
    "SINGLE_SEGMENT_PIXELS",
    "Coded",
    "Coding",
    "Job",
    "SegmentedCoding",
    "described",
    "greyed",
    "whole_file",
]

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

SEGMENT_TARGET = 12  # a file aims at this many segments …
SEGMENT_MINIMUM = 1024  # … of at least this many bytes
SINGLE_SEGMENT_PIXELS = 64 * 64  # icons are not worth cutting: one segment keeps their overhead at 24 bytes


@dataclass(frozen=True)
class Coded:
    """A picture's file, the C that it has or that is as good, and the steps that were tried to find it."""

    file: AnyFile
    rate: float
    tries: int = 1


class Job(ABC):
    """One picture on its way into files of one form: the transform runs once, any number of steps follow.

    Arguments:
        coding: the form.
        model: the bundle.
        picture: what the file is measured against.

    Attributes:
        measuring: the quality of the file will be asked for; what the encoder knows of its picture is then worth
            keeping.
    """

    measuring = False

    def __init__(self, coding: "Coding", model: Model, picture: Picture) -> None:
        self.coding, self.model, self.picture = coding, model, picture
        self.height, self.width = picture.rgb.shape[:2]
        self._measured: tuple[AnyFile, float] | None = None

    @cached_property
    def alpha(self) -> bytes | None:
        """The side segment of the file, packed when it is first needed."""
        return None if self.picture.alpha is None else alpha.pack(self.picture.alpha)

    @abstractmethod
    def at(self, delta: float) -> Coded:
        """The file at step Δ (range 0 to 1)."""

    @abstractmethod
    def fitting(self, limit: int) -> Coded:
        """The best file of at most `limit` bytes.

        Raises:
            EocodecError: there is none.
        """

    @abstractmethod
    def reaching(self, target: float) -> Coded:
        """The smallest file, nearly, whose picture has at least `target` dB.

        Raises:
            EocodecError: there is none.
        """

    @abstractmethod
    def expected(self, file: AnyFile) -> Bytes:
        """The picture `(H, W, 3)` that a decoder has to give for a file of this job."""

    def notes(self, file: AnyFile) -> tuple[str, ...]:
        """Sentences, without a subject, on what a file of this job leaves out."""
        return ()

    def quality(self, file: AnyFile) -> float:
        """PSNR of a file's picture to the input, dB: of the picture that a decoder has to give for it.

        What is fully transparent does not count.
        """
        if self._measured is None or self._measured[0] is not file:  # a search has often just measured its last one
            self._measured = file, psnr(self.picture.rgb, self.expected(file), self.picture.alpha)
        return self._measured[1]


class Coding(Form):
    """A form of file."""

    deep: ClassVar[bool] = False  # whether its files can hold samples of 16 bits
    tunable: ClassVar[bool] = False  # whether the steps of its files can differ, see `eocodec.coding.fineness`

    @abstractmethod
    def open(self, model: Model, picture: Picture, values: Float32 | None = None, tuning: StepTuning = UNTUNED) -> Job:
        """A job for a picture.

        Arguments:
            model: the bundle.
            picture: what is compressed.
            values: its colours before they were rounded, `(H, W, 3)` in 0 to 1, if they are known.
            tuning: what steps should follow; forms that are not :attr:`tunable` take no notice.

        Raises:
            EocodecError: the model does not have this form, or the form cannot hold the picture.
        """

    @abstractmethod
    def decode(self, model: Model, file: AnyFile, texture: float = 0.0) -> Bytes:
        """The picture `(H, W, 3)` of a file or of what there is of it.

        Arguments:
            model: that the file was made with.
            file: as parsed.
            texture: how much texture is drawn where none was coded, 0 to 1, see `eocodec.coding.texture`; forms other
                than the ordinary one have none.

        Raises:
            FormatError: the file is damaged.
        """

    @abstractmethod
    def symbols(self, model: Model, file: AnyFile) -> Int32:
        """All integers of a file `(n,)`, see `eocodec.coding.symbols`.

        Raises:
            FormatError: the file is damaged.
        """

    @abstractmethod
    def describe(self, file: AnyFile, size: int, model: Any) -> dict[str, Any]:
        """What a file of `size` bytes holds, see `eocodec.coding.describe`."""

    @abstractmethod
    def cut(
        self,
        file: AnyFile,
        library: Library,
        *,
        rate: float | None = None,
        latents: float | None = None,
        max_bytes: int | None = None,
    ) -> AnyFile:
        """The file at a lower rate; exactly one target is given.

        Arguments:
            file: as parsed.
            library: where the model of an embedded stream is found, for a rate.
            rate: C; the file is that which is made at this C. Embedded streams only.
            latents: of every block, which are kept at the step that they have. Files of segments only.
            max_bytes: not to exceed.

        Raises:
            EocodecError: the form cannot be cut, not so short, or the rate is out of range.
            FormatError: the file needs a model for that, which the library does not have.
        """


class SegmentedCoding(SegmentedForm, Coding):
    """Forms whose files are segments of coding units, from core to detail, and can be cut between them."""


def greyed(rgb: Bytes, grey: bool) -> Bytes:
    """Pictures `(…, 3)` as they are, or, changed in place, with the mean of their channels in all of them."""
    if grey:
        rgb[...] = np.floor(rgb.mean(-1, keepdims=True) + 0.5).astype(rgb.dtype)
    return rgb
