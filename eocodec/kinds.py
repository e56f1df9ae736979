"""Types of picture files, by the ends of file names: which files of a folder are pictures, and Pillow's names of them.

In: an extension such as ".png". Out: whether it is a picture's, a name such as "PNG", or what such files can hold. All
of Pillow's plug-ins together take longer to import than NumPy; the usual ones do without them.
"""

import functools
import io

from PIL import Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "holds_alpha", "kind_of"]

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


@functools.cache
def holds_alpha(kind: str) -> bool:
    """Whether Pillow reads from a file of a type the transparency that it was given to write, in all its levels.

    So it is taken to be with what Pillow writes, but does not read, such as PDF.
    """
    levels = Image.linear_gradient("L").resize((16, 16))
    file = io.BytesIO()
    try:
        Image.merge("RGBA", [levels] * 4).save(file, kind)
    except (OSError, ValueError, KeyError):
        return False
    try:
        with Image.open(file) as image:
            return len(image.convert("RGBA").getchannel("A").getcolors() or ()) > 2  # some are lossy, GIF has two
    except UnidentifiedImageError:
        return True
