"""All forms of file, and which of them a file is of or a picture is to get.

In: a parsed file, or what was asked for, and a model. Out: a `eocodec.coding.base.Coding`.
"""

from eocodec.coding.base import Coding
from eocodec.coding.embedded import Embedded
from eocodec.coding.flat import Flat, TinyFlat
from eocodec.coding.lossless import Lossless
from eocodec.coding.ordinary import Ordinary
from eocodec.errors import EocodecError
from eocodec.format import AnyFile
from eocodec.model.manifest import FlatManifest, Manifest

__all__ = ["CODINGS", "EMBEDDED", "FLAT", "LOSSLESS", "ORDINARY", "TINY", "coding_for", "coding_of"]

TINY, FLAT, LOSSLESS, EMBEDDED, ORDINARY = TinyFlat(), Flat(), Lossless(), Embedded(), Ordinary()
CODINGS: tuple[Coding, ...] = (TINY, FLAT, LOSSLESS, EMBEDDED, ORDINARY)  # the first that holds a file counts


def coding_of(file: AnyFile, manifest: Manifest | None = None) -> Coding:
    """The form of a file, as its flags and its model say.

    Arguments:
        file: as parsed.
        manifest: of its model; None where the model is not known or does not matter.
    """
    return next(c for c in CODINGS if c.holds(file, manifest))


def coding_for(manifest: Manifest, *, tiny: bool = False, embedded: bool = False, lossless: bool = False) -> Coding:
    """The form that was asked for, or else the usual one of the model.

    Raises:
        EocodecError: forms that exclude one another.
    """
    if embedded and tiny:
        raise EocodecError("a tiny file cannot be progressive")
    for asked, coding in ((lossless, LOSSLESS), (embedded, EMBEDDED), (tiny, TINY)):
        if asked:
            return coding
    return FLAT if isinstance(manifest, FlatManifest) else ORDINARY
