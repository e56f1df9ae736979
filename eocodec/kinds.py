"""Types of picture files, by the ends of file names: which files of a folder are pictures, and Pillow's names of them.

In: an extension such as ".png". Out: whether it is a picture's, or a name such as "PNG". All of Pillow's plug-ins
together take longer to import than NumPy; the usual ones do without them.
"""

from PIL import Image

__all__ = ["SUFFIXES", "kind_of"]

# What is a picture in a folder; the same wherever the program runs, whichever readers Pillow has there.
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("apng", "avif", "bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm"),
        *("ppm", "qoi", "tga", "tif", "tiff", "webp"),
    )
)


def kind_of(suffix: str) -> str | None:
    """Pillow's name of the type that an extension stands for, None if it knows none.

    Example:
        >>> kind_of(".PNG"), kind_of(".txt")
        ('PNG', None)
    """
    Image.preinit()  # BMP, GIF, JPEG, PPM and PNG
    suffix = suffix.lower()
    return Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
