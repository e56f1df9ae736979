"""How the forms of file are told apart, described and cut: all that needs neither a model nor a picture.

In: parsed files. Out: which form they are of; what they hold; shorter files. Nothing here imports NumPy, so that what
only looks at files starts at once; `eocodec.coding.base.Coding` is a form that can also encode and decode.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from eocodec import format
from eocodec.coding.units import cumulative_latents
from eocodec.errors import EocodecError, FormatError
from eocodec.format import AnyFile, File, Tiny

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
    "SegmentedForm",
    "TinyForm",
    "after_segments",
    "cumulative_samples",
    "described",
    "form_of",
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
    """Forms whose files are segments of coding units, from core to detail, and can be cut between them."""

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
                f"what compress gives at rate {rate:g} cannot be cut from an ordinary file, whose step is finer; "
                "compress the picture again, cut a progressive file, or choose latents or bytes"
            )
        if max_bytes is not None:
            ends = format.segment_ends(file)
            keep = max((k for k, end in enumerate(ends) if end <= max_bytes), default=-1)
            if keep < 0:
                raise EocodecError(f"the file cannot be cut to {max_bytes} bytes; its smallest form has {ends[0]}")
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
        return after_segments(file, cumulative_latents(USUAL_LEVELS))


class LosslessForm(SegmentedForm):
    """Files that give back every value, of 8 bits or 16, of models with nets for it."""

    def holds(self, file: AnyFile, manifest: Kind | None) -> bool:
        """All files with the lossless element."""
        return isinstance(file, File) and file.lossless is not None

    def latents_after_segments(self, file: File, model: "Model | None" = None) -> list[float]:
        """Samples, see :func:`cumulative_samples`."""
        return after_segments(file, cumulative_samples())


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


# The first that holds a file counts. Names are those of `eocodec.coding.registry`.
FORMS: dict[str, Form] = {
    "TINY": TinyForm(),
    "FLAT": FlatForm(),
    "LOSSLESS": LosslessForm(),
    "EMBEDDED": EmbeddedForm(),
    "ORDINARY": OrdinaryForm(),
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


def described(file: File, size: int, model: Named | None) -> dict[str, Any]:
    """What all files with a header tell of themselves."""
    h = file.header
    return {
        "width": h.width,
        "height": h.height,
        "grey": h.grey,
        "depth": h.depth,
        "alpha": file.alpha is not None,
        "lossless": file.lossless is not None,
        "tuning": round(h.tuning / format.MAX_TUNING, 3),
        "focus": file.offsets is not None,
        "model": None if model is None else model.name,
        "model_id": h.model.hex(),
        "bytes": size,
        "bpp": round(8 * size / (h.width * h.height), 5),
        "complete": file.complete,
        "damaged": file.damaged,
    }


def after_segments(file: File, cumulative: list[float]) -> list[float]:
    """What is there after each number of segments, 0 for none, given what is there after each unit."""
    known = [0.0, *cumulative]
    result, at = [0.0], 0
    for s in file.segments:
        at = min(at + s.units, len(known) - 1)
        result.append(known[at])
    return result


def cumulative_samples() -> list[float]:
    """Samples of a 16x16 block, three axes of 256, that are known after each unit of a lossless file."""
    total, result = 3.0, [3.0]
    for h in (8, 4, 2, 1):
        for _ in range(9):
            total += (8 // h) ** 2
            result.append(total)
    return result
