"""All forms of file, and which of them a file is of or a picture is to get.

In: a parsed file, or what was asked for, and a model. Out: a `eocodec.coding.base.Coding`. Each is imported when it is
first needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from eocodec.coding.forms import FORMS, form_of
from eocodec.errors import EocodecError
from eocodec.format import AnyFile

if TYPE_CHECKING:
    from eocodec.coding.base import Coding
    from eocodec.coding.page import Page
    from eocodec.model.manifest import Manifest

    TINY: Coding
    FLAT: Coding
    PAGE: Page
    LOSSLESS: Coding
    EMBEDDED: Coding
    ORDINARY: Coding
    CODINGS: tuple[Coding, ...]

__all__ = ["CODINGS", "EMBEDDED", "FLAT", "LOSSLESS", "ORDINARY", "PAGE", "TINY", "coding_for", "coding_of"]

# Where the class of each form in `eocodec.coding.forms.FORMS` is.
HOMES = {
    "TINY": "flat:TinyFlat",
    "FLAT": "flat:Flat",
    "PAGE": "page:Page",
    "LOSSLESS": "lossless:Lossless",
    "EMBEDDED": "embedded:Embedded",
    "ORDINARY": "ordinary:Ordinary",
}


_made: "dict[str, Coding]" = {}


def _coding(name: str) -> "Coding":
    if name not in _made:
        module, _, kind = HOMES[name].partition(":")
        _made.setdefault(name, getattr(importlib.import_module(f"eocodec.coding.{module}"), kind)())
    return _made[name]


def __getattr__(name: str) -> Any:
    """The codings by name, and all of them; the first that holds a file counts."""
    if name in HOMES:
        return _coding(name)
    if name == "CODINGS":
        return tuple(_coding(n) for n in FORMS)
    raise AttributeError(f"module 'eocodec.coding.registry' has no attribute {name!r}")


def coding_of(file: AnyFile, manifest: "Manifest | None" = None) -> "Coding":
    """The form of a file, see :func:`eocodec.coding.forms.form_of`."""
    return _coding(form_of(file, manifest))


def coding_for(manifest: "Manifest", *, tiny: bool = False, embedded: bool = False, lossless: bool = False) -> "Coding":
    """The form that was asked for, or else the usual one of the model.

    Raises:
        EocodecError: forms that exclude one another.
    """
    if embedded and tiny:
        raise EocodecError("a tiny file cannot be progressive")
    for asked, name in ((lossless, "LOSSLESS"), (embedded, "EMBEDDED"), (tiny, "TINY")):
        if asked:
            return _coding(name)
    return _coding("ORDINARY" if manifest.edge is None else "FLAT")
