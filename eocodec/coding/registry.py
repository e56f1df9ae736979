"""All forms of file, and which of them a file is of or a picture is to get.

In: a parsed file, or what was asked for, and a model. Out: a `eocodec.coding.base.Coding`.
"""

from eocodec.coding.base import Coding
from eocodec.coding.embedded import Embedded
from eocodec.coding.flat import Flat, TinyFlat
from eocodec.coding.lossless import Lossless
from eocodec.coding.ordinary import Ordinary
from eocodec.format import AnyFile
from eocodec.model.manifest import FlatManifest, Manifest

__all__ = ["CODINGS", "coding_of", "usual_coding"]

TINY, FLAT, LOSSLESS, EMBEDDED, ORDINARY = TinyFlat(), Flat(), Lossless(), Embedded(), Ordinary()
CODINGS: tuple[Coding, ...] = (TINY, FLAT, LOSSLESS, EMBEDDED, ORDINARY)  # the first that holds a file counts


def coding_of(file: AnyFile, manifest: Manifest | None = None) -> Coding:
    """The form of a file, as its flags and its model say.

    Arguments:
        file: as parsed.
        manifest: of its model; None where the model is not known or does not matter.
    """
    return next(c for c in CODINGS if c.holds(file, manifest))


def usual_coding(manifest: Manifest) -> Coding:
    """The form that a model's files have if no other was asked for."""
    return FLAT if isinstance(manifest, FlatManifest) else ORDINARY
