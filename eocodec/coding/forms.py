"""How the forms of file are told apart, described and cut: all that needs neither a model nor a picture.

In: parsed files. Out: which form they are of; what they hold; shorter files. Nothing here imports NumPy, so that what
only looks at files starts at once; `eocodec.coding.base.Coding` is a form that can also encode and decode.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from eocodec import format, pieces, regions
from eocodec.coding.units import cumulative_latents
from eocodec.errors import EocodecError, FormatError, counted
from eocodec.format import AnyFile, File, Tiny
from eocodec.regions import Region

if TYPE_CHECKING:
    from eocodec.model.bundle import Model
    from eocodec.model.library import Library

__all__ = [
    "FORMS",
    "EmbeddedForm",
    "FlatForm",
    "Form",
    "Kind",
    "LosslessForm",
    "Named",
    "OrdinaryForm",
    "PageForm",
    "SegmentedForm",
    "TinyForm",
    "after_segments",
    "blank_pictures",
    "cumulative_samples",
    "described",
    "form_of",
    "photograph_of",
    "tuning_of",
    "unverified",
    "whole_file",
]

USUAL_LEVELS = 4  # of models, where a file is to be cut whose model is not at hand


class Kind(Protocol):
    """What of a model tells forms apart."""

    @property
    def edge(self) -> int | None:
        """Edge in pixels of the pictures that the model is for, None for any size."""


class Named(Protocol):
    """What of a model stands in descriptions."""

    @property
    def name(self) -> str:
        """The model's name."""


class Form(ABC):
    """A form of file."""

    @abstractmethod
    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """Whether a file is of this form, as its flags and its model (None: unknown) say."""


class SegmentedForm(Form):
    """Forms whose files are segments of coding units, from core to detail, and can be cut between them.

    Attributes:
        rateless: what such a file is and why what another C gives is not in it, for messages.
    """

    rateless: ClassVar[str] = "an ordinary file, whose step is finer"

    @abstractmethod
    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """Latents of a block that are present after each number of segments, 0 for none."""

    def describe(self, file: AnyFile, size: int, model: Named | None) -> dict[str, Any]:
        """See :meth:`eocodec.coding.base.Coding.describe`."""
        file = whole_file(file)
        kept = self.latents_after_segments(file)
        ends = format.segment_ends(file)
        framing = sum(b - a - len(s.payload) for a, b, s in zip(ends, ends[1:], file.segments, strict=False))
        return {
            **described(file, size, model),
            "rate": file.header.kept,
            "step": round(file.header.delta * 255, 4),
            "overhead": ends[0] + framing,
            "segments": [
                {"units": s.units, "end": end, "latents": latents}
                for s, end, latents in zip(file.segments, ends[1:], kept[1:], strict=True)
            ],
        }

    def cut(
        self,
        file: AnyFile,
        library: "Library",
        *,
        rate: float | None = None,
        latents: float | None = None,
        max_bytes: int | None = None,
    ) -> File:
        """As many whole segments as fit, or lie within the first latents; no model is needed."""
        file = whole_file(file)
        if rate is not None:
            raise EocodecError(
                f"what compress gives at rate {rate:g} cannot be cut from {self.rateless}; "
                "compress the picture again, cut a progressive file, or choose latents or bytes"
            )
        if max_bytes is not None:
            ends = format.segment_ends(file)
            keep = max((k for k, end in enumerate(ends) if end <= max_bytes), default=-1)
            if keep < 0:
                most = counted(max_bytes, "byte")
                raise EocodecError(f"the file cannot be cut to {most}; its smallest form has {ends[0]}")
        else:
            assert latents is not None
            if not latents >= 1:
                raise EocodecError(f"the latents must be at least 1, not {latents:g}")
            kept = self.latents_after_segments(file)
            keep = max((k for k, present in enumerate(kept) if present <= latents), default=0)
            if not keep and file.segments:
                raise EocodecError(f"no segment of the file ends within {latents:g} latents; info shows where they end")
        return replace(file, segments=file.segments[:keep])


class OrdinaryForm(SegmentedForm):
    """Files of models for pictures of any size, unless a flag says otherwise."""

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files with a header that no other form holds."""
        return isinstance(file, File)

    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """See :meth:`SegmentedForm.latents_after_segments`."""
        return after_segments(file, cumulative_latents(USUAL_LEVELS, file.header.axes))


class LosslessForm(SegmentedForm):
    """Files that give back every value, of 8 bits or 16, of models with nets for it."""

    rateless = "a lossless file, which has no step"

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files with the lossless element."""
        return isinstance(file, File) and file.lossless is not None

    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """Samples, see :func:`cumulative_samples`."""
        return after_segments(file, cumulative_samples(1 if file.header.grey else 3))


class PageForm(SegmentedForm):
    """Files of an exact layer and photographs on it, each of which is an ordinary file in a segment of its own."""

    rateless = "a page, whose photographs have finer steps"

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files whose header says so."""
        return isinstance(file, File) and file.header.page

    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """Those that every photograph so far has."""
        return [0.0, *accumulate(map(self._latents, self._parts(file)), min)]

    def describe(self, file: AnyFile, size: int, model: Named | None) -> dict[str, Any]:
        """See :meth:`eocodec.coding.base.Coding.describe`; `regions` says where photographs are and what they take."""
        file = whole_file(file)
        places, layer = regions.unpack(file.page or b"", file.header.width, file.header.height)
        found = []
        for k, r in enumerate(places):
            part = photograph_of(file, r, k) if k < len(file.segments) else None
            found.append(
                {
                    **{"x": r.x, "y": r.y, "width": r.width, "height": r.height},
                    "bytes": 0 if part is None else len(file.segments[k].payload),
                    "step": None if part is None else round(part.header.delta * 255, 4),
                    "latents": 0.0 if part is None else self._latents(part),
                }
            )
        tuning = round(tuning_of(file) / format.MAX_TUNING, 3)
        mapped = any(part.offsets is not None for part in self._parts(file))
        told = {**super().describe(file, size, model), "tuning": tuning, "focus": mapped}
        return {**told, "page": True, "layer": len(layer), "regions": found}

    def cut(
        self,
        file: AnyFile,
        library: "Library",
        *,
        rate: float | None = None,
        latents: float | None = None,
        max_bytes: int | None = None,
    ) -> File:
        """Every photograph cut to the same number of latents: those given, or the most that fit; the layer stays.

        Where even photographs without any latents do not fit, the last ones are left out. See :func:`blank_pictures`.
        """
        file = whole_file(file)
        if rate is not None or (latents is not None and not latents >= 1):
            return super().cut(file, library, rate=rate, latents=latents)
        if max_bytes is None:
            assert latents is not None
            kept = self._kept(file, latents)
            if not any(map(self._latents, self._parts(kept))) and any(map(self._latents, self._parts(file))):
                raise EocodecError(f"no segment of a photograph on the page ends within {latents:g} latents")
            return kept
        ends = {n for part in self._parts(file) for n in ORDINARY.latents_after_segments(part)}
        for most in sorted(ends, reverse=True):
            cut = self._kept(file, most)
            if len(format.to_bytes(cut)) <= max_bytes:
                return cut
        return super().cut(self._kept(file, 0), library, max_bytes=max_bytes)

    def _parts(self, file: File) -> list[File]:
        """The photographs that are there."""
        places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
        return [photograph_of(file, place, k) for k, place in enumerate(places[: len(file.segments)])]

    def _latents(self, part: File) -> float:
        return ORDINARY.latents_after_segments(part)[-1]

    def _kept(self, file: File, latents: float) -> File:
        """The page with segments of photographs that lie within the first latents."""
        segments = []
        for part, segment in zip(self._parts(file), file.segments, strict=False):
            after = ORDINARY.latents_after_segments(part)
            keep = max(n for n, present in enumerate(after) if present <= latents)
            segments.append(replace(segment, payload=format.to_bytes(format.keep_segments(part, keep))))
        return replace(file, segments=tuple(segments))


class FlatForm(SegmentedForm):
    """Files with a header, of models for pictures of one size: a single segment holds all latents."""

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files with a header of such models."""
        return isinstance(file, File) and manifest is not None and manifest.edge is not None

    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """All of C after the only segment."""
        return [0.0] + [file.header.kept] * len(file.segments)


class EmbeddedForm(Form):
    """Files of one stream that may end anywhere, of models for pictures of any size."""

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files whose header says so."""
        return isinstance(file, File) and file.header.embedded


class TinyForm(Form):
    """Files without a header, of models for pictures of one size that have a number."""

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files without a header."""
        return isinstance(file, Tiny)


ORDINARY = OrdinaryForm()

# The first that holds a file counts. Names are those of `eocodec.coding.registry`.
FORMS: dict[str, Form] = {
    "TINY": TinyForm(),
    "FLAT": FlatForm(),
    "PAGE": PageForm(),
    "LOSSLESS": LosslessForm(),
    "EMBEDDED": EmbeddedForm(),
    "ORDINARY": ORDINARY,
}


def form_of(file: AnyFile, manifest: Kind | None = None) -> str:
    """Which of :data:`FORMS` a file is of, as its flags and its model say.

    Arguments:
        file: as parsed.
        manifest: of its model; None where the model is not known or does not matter.
    """
    return next(name for name, form in FORMS.items() if form.holds(file, manifest))


def whole_file(file: AnyFile) -> File:
    """A file with a header, which all forms but the tiny one have."""
    if not isinstance(file, File):
        raise FormatError("not an .eoc file with a header")
    return file


def photograph_of(file: File, place: Region, number: int) -> File:
    """The ordinary file in a page's segment `number`, from 0.

    Raises:
        FormatError: it is no file, or of another form, model or size than the page can hold there.
    """
    what = f"the file is damaged: its photograph {number + 1}"
    try:
        part = format.from_bytes(file.segments[number].payload)
    except FormatError as e:
        raise FormatError(f"{what} cannot be read: {e}") from e
    if not isinstance(part, File) or form_of(part) != "ORDINARY":
        raise FormatError(f"{what} is not of the ordinary form")
    header = part.header
    if header.model != file.header.model or header.deep or part.alpha is not None:
        raise FormatError(f"{what} has another model than the page, 16 bits a sample or transparency")
    if (header.width, header.height) != (place.width, place.height):
        raise FormatError(f"{what} has {header.width}x{header.height} pixels, its place {place.width}x{place.height}")
    if file.header.grey and not header.grey:
        raise FormatError(f"{what} has colours, the page has none")
    return part


def blank_pictures(file: AnyFile) -> int:
    """How many pictures in a file are one colour for lack of latents: its only one, or photographs of a page."""
    if not isinstance(file, File):
        return 0
    if not file.header.page:
        return int(not file.segments)
    places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
    there = zip(range(len(file.segments)), places, strict=False)
    return len(places) - sum(bool(photograph_of(file, place, k).segments) for k, place in there)


def tuning_of(file: AnyFile) -> int:
    """How much the steps of a file follow the eye, in 1/32; of a page, those of its first photograph."""
    if not isinstance(file, File):
        return 0
    if not file.header.page or not file.segments:
        return file.header.tuning
    part = format.from_bytes(file.segments[0].payload)
    return part.header.tuning if isinstance(part, File) else 0


def unverified(file: AnyFile, cut: AnyFile) -> bool:
    """Whether a cut of an embedded stream has bytes that no checksum of the file it was cut from verifies."""
    if isinstance(file, Tiny) or isinstance(cut, Tiny) or not file.header.embedded or file.complete or file.damaged:
        return False
    return len(cut.payload) > (len(file.payload) - 1) // pieces.LENGTH * pieces.LENGTH


def described(file: File, size: int, model: Named | None) -> dict[str, Any]:
    """What all files with a header tell of themselves."""
    h = file.header
    return {
        "width": h.width,
        "height": h.height,
        "grey": h.grey,
        "axes": h.axes,
        "depth": h.depth,
        "range": None if h.span in (None, (0, format.MAX_VALUE)) else list(h.span),
        "alpha": file.alpha is not None,
        "lossless": file.lossless is not None,
        "tuning": round(h.tuning / format.MAX_TUNING, 3),
        "focus": file.offsets is not None,
        "model": None if model is None else model.name,
        "model_id": h.model.hex(),
        "bytes": size,
        "bpp": round(8 * (size - file.trailing) / (h.width * h.height), 5),
        "complete": file.complete,
        "damaged": file.damaged,
        "trailing": file.trailing,
        "blank": blank_pictures(file),
    }


def after_segments(file: File, cumulative: list[float]) -> list[float]:
    """What is there after each number of segments, 0 for none, given what is there after each unit."""
    known = [0.0, *cumulative]
    result, at = [0.0], 0
    for s in file.segments:
        at = min(at + s.units, len(known) - 1)
        result.append(known[at])
    return result


def cumulative_samples(axes: int = 3) -> list[float]:
    """Samples of a 16x16 block, 256 of each axis, that are known after each unit of a lossless file.

    The units of a grey picture are those of a coloured one, and those of chroma hold nothing.
    """
    result = [float(axes)]
    for h in (8, 4, 2, 1):
        for axis in range(3):
            for _phase in range(3):
                result.append(result[-1] + (8 // h) ** 2 * (axis < axes))
    return result
