"""What a file holds, without its picture: size, C, step, model, segments and whether it is whole.

In: `.eoc` or tiny bytes. Out: a dictionary of plain values, ready for JSON.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eocodec import format
from eocodec.coding.forms import FORMS, SegmentedForm, form_of
from eocodec.format import File, Tiny
from eocodec.model.shelf import plate_of

if TYPE_CHECKING:
    from eocodec.model.bundle import Model
    from eocodec.model.library import Models

__all__ = ["describe"]


def describe(data: bytes, models: "Models | Mapping[bytes, Model]" = None) -> dict[str, Any]:
    """What a file holds.

    Arguments:
        data: an `.eoc` file, a prefix of one, a damaged one, or a tiny file.
        models: a model or a library of models to look for the file's model in, or models by four bytes of their id;
            default: the shipped ones, loaded only where something must be decoded. Tiny files may always have a shipped
            one.

    Returns:
        `width`, `height`, `grey`, `alpha`, `lossless`, `model`, `model_id`, `rate` (C), `bytes`, `bpp`, `overhead`
        (bytes), `segments`, `complete`, `damaged`, `trailing` (bytes behind its end, see
        :class:`eocodec.format.File`), `blank` (how many pictures are one colour for lack of latents, a
        page having several); `step` (8-bit levels) where there is one; `progressive` or `tiny`.

    Raises:
        FormatError: not an `.eoc` file, or nothing of it can be read.
    """
    file = format.from_bytes(data, salvage=True)
    if models is None and isinstance(file, File):
        plate = plate_of(file.header.model)
        form = FORMS[form_of(file, plate)]
        if plate is not None and isinstance(form, SegmentedForm):
            return form.describe(file, len(data), plate)
    return _with_models(file, len(data), models)


def _with_models(file: format.AnyFile, size: int, models: "Models | Mapping[bytes, Model]") -> dict[str, Any]:
    """The same, with the file's model loaded."""
    from eocodec.coding.registry import coding_of
    from eocodec.model.library import Library, library_of

    library = Library(models.values(), shipped=False) if isinstance(models, Mapping) else library_of(models)
    if isinstance(file, Tiny):  # without its model, not even its size is known
        model: Model | None = Library(library.models, library.threads, library.device).of(file)
    else:
        model = library.find(file.header.model)
    return coding_of(file, None if model is None else model.any_manifest).describe(file, size, model)
