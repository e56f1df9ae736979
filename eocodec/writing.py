"""Pictures to files of a type that Pillow writes, lossless where the type can be.

In: a Pillow image and an extension such as ".png". Out: the bytes of a file.
"""

import functools
import io

from PIL import Image

from eocodec.errors import ImageError
from eocodec.kinds import holds_alpha, kind_of

__all__ = ["check_suffix", "encode_picture", "keeps_alpha", "keeps_colours"]

PNG_RUNS = 3  # zlib's Z_RLE: runs of one value, nothing else
PNG_ROWS = 24  # that decide how a PNG file is deflated
PNG_COST = 1.04  # of the usual size, up to which the quick way is taken
PNG_DRAWN = 4  # times smaller than its samples is a picture that was drawn


def check_suffix(suffix: str) -> str:
    """Pillow's name of the file type for an extension such as ".png".

    Raises:
        ImageError: pictures cannot be written as this type.
    """
    kind = kind_of(suffix)
    if kind in ("ICO", "ICNS"):
        raise ImageError(f"pictures cannot be written as {suffix}, which has sizes of its own; use .png")
    if kind is None or kind not in Image.SAVE:
        raise ImageError(f"pictures cannot be written as {suffix or 'a file without an extension'}; use .png")
    return kind


def keeps_alpha(suffix: str) -> bool:
    """Whether files of the type that `suffix` names are written with transparency, in all its levels."""
    return holds_alpha(check_suffix(suffix))


def keeps_colours(image: Image.Image, suffix: str) -> bool:
    """Whether a picture has no more colours than files of the type that `suffix` names hold: 256 in GIF."""
    return check_suffix(suffix) != "GIF" or image.convert("RGB").getcolors(256) is not None


def encode_picture(image: Image.Image, suffix: str) -> bytes:
    """Bytes of a picture file of the type that `suffix` (".png", ".webp", …) names; lossless where the type can be.

    Raises:
        ImageError: unknown type, or one that cannot hold this picture.
    """
    saver = check_suffix(suffix)
    options: dict[str, object] = {}
    if saver == "WEBP":
        options = {"lossless": True, "exact": True}
    elif saver in ("JPEG", "AVIF"):
        options = {"quality": 95, "subsampling": "4:4:4"} if saver == "AVIF" else {"quality": 95, "subsampling": 0}
    if "A" in image.mode and not keeps_alpha(suffix):
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if image.mode in ("L", "LA") and not _takes(saver, image.mode):
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    try:
        return _png(image) if saver == "PNG" else _saved(image, saver, **options)
    except (OSError, ValueError, KeyError) as e:
        raise ImageError(f"the picture cannot be written as {suffix}: {e}") from e


@functools.cache
def _takes(kind: str, mode: str) -> bool:
    """Whether Pillow writes files of a type from images of such a mode."""
    try:
        _saved(Image.new(mode, (16, 16)), kind)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _png(image: Image.Image) -> bytes:
    """A PNG file. In photographs repetitions save next to nothing, and looking for them takes four fifths of the time.

    A few rows are deflated both ways first. What comes out small was drawn, whatever these rows say.
    """
    sample = Image.new(image.mode, (image.width, PNG_ROWS))
    third = PNG_ROWS // 3
    for k in range(3):
        top = max(0, image.height - third) * k // 2
        sample.paste(image.crop((0, top, image.width, top + third)), (0, third * k))
    if len(_saved(sample, "PNG", compress_type=PNG_RUNS)) <= PNG_COST * len(_saved(sample, "PNG")):
        content = _saved(image, "PNG", compress_type=PNG_RUNS)
        if PNG_DRAWN * len(content) > image.width * image.height * len(image.getbands()):
            return content
    return _saved(image, "PNG")


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
