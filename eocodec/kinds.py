"""Pillow's names of file types, by the ends of file names, without loading all of its plug-ins for the usual ones.

In: an extension such as ".png". Out: a name such as "PNG". All plug-ins together take longer to import than NumPy.
"""

from PIL import Image

__all__ = ["kind_of"]


def kind_of(suffix: str) -> str | None:
    """Pillow's name of the type that an extension stands for, None if it knows none.

    Example:
        >>> kind_of(".PNG"), kind_of(".txt")
        ('PNG', None)
    """
    Image.preinit()  # BMP, GIF, JPEG, PPM and PNG
    suffix = suffix.lower()
    return Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
