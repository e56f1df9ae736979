"""Files and Pillow images to arrays and back.

In: any picture Pillow reads (PNG, JPEG, WebP, AVIF, TIFF, BMP, PPM, …), a NumPy array or a Pillow image.
Out: :class:`Picture`: `rgb (H, W, 3)` uint8 in sRGB, `alpha (H, W)` uint8 or None, and whether it is grey; where there
are more than 8 bits a sample, the same at 16 bits.

Orientation is applied; palettes and CMYK become RGB; an embedded colour profile is converted to sRGB, at 8 bits.
Other metadata is not carried over, nor are other frames than one. docs/FIDELITY.md has every promise.
"""

import io
import os
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from eocodec import files, tiff, wide
from eocodec.arguments import computable
from eocodec.damage import leniently_said, mended
from eocodec.errors import CutOffError, EocodecWarning, ImageError, LimitError, OutOfMemoryError, UnknownTypeError
from eocodec.format import MAX_PIXELS, MAX_SIDE
from eocodec.levels import FEW_BITS, FLOAT_TOLERANCE, TOP, eight_bit, eight_bit_enough, few_levels, scaled, white_level
from eocodec.profiles import to_srgb
from eocodec.settings import pillow_settings

__all__ = [
    "Bytes",
    "ImageLike",
    "Picture",
    "as_picture",
    "atomic_write",
    "is_grey",
    "read_picture",
    "rounded",
    "to_pillow",
]

Bytes = npt.NDArray[Any]  # uint8, or uint16 in pictures of 16 bits
Words = npt.NDArray[np.uint16]
ImageLike = Image.Image | npt.NDArray[np.generic]

ROUNDED_ALPHA = "its transparency has more than 8 bits a sample, of which 8 are kept"
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}


@dataclass(frozen=True)
class Picture:
    """An sRGB picture: `rgb (H, W, 3)`, `alpha (H, W)` uint8 or None, `grey` if all three channels are equal.

    `rgb` has 8 bits a sample, or 16 after :meth:`at_depth`. `deep` says that the source held more, which were rounded;
    `frames` is how many pictures its file has; `notes` are sentences, without a subject, on what is unusual about it.

    `wide` are its values at 16 bits, if it has more than 8; `exact` if they are those of the source; `rounding` are
    those of the notes that are on 8 bits only. `narrowed` says that all 16 bits were known, and 8 were asked for.
    `coarse_alpha` says that transparency had more than 8 bits, which were rounded.
    `span` are the 16-bit values that black and white are coded as; None: all there are, or those of 8 bits.
    """

    rgb: Bytes
    alpha: Bytes | None = None
    grey: bool = False
    deep: bool = False
    frames: int = 1
    notes: tuple[str, ...] = ()
    wide: Words | None = None
    exact: bool = False
    rounding: tuple[str, ...] = ()
    narrowed: bool = False
    coarse_alpha: bool = False
    span: tuple[int, int] | None = None

    @property
    def depth(self) -> int:
        """Bits of a sample of `rgb`: 8 or 16."""
        return 8 * self.rgb.dtype.itemsize

    @property
    def keeps(self) -> int:
        """The depth that loses nothing: 16 bits if the source has more than 8 and they are known, else 8."""
        return 16 if self.depth > 8 or (self.wide is not None and self.exact) else 8

    def at_depth(self, depth: int) -> "Picture":
        """The picture at 8 or 16 bits a sample.

        Raises:
            ImageError: another depth, or 16 bits of a picture of which only 8 are known.
        """
        if depth not in (8, 16):
            raise ImageError(f"a picture has 8 or 16 bits a sample, not {depth}")
        narrowed = self.narrowed or (depth == 8 and self.keeps == 16)
        if depth == self.depth:
            return replace(self, wide=None, narrowed=narrowed)
        if depth == 8:
            return replace(self, rgb=rounded(self.rgb), deep=True, narrowed=narrowed, span=None)
        if self.deep and self.wide is None:
            raise ImageError("only 8 of its bits a sample could be read; make it a PNG or TIFF file in sRGB first")
        rgb = self.rgb.astype(np.uint16) * np.uint16(257) if self.wide is None else self.wide
        notes = tuple(n for n in self.notes if n not in self.rounding)
        return replace(self, rgb=rgb, wide=None, deep=self.deep and not self.exact, notes=notes)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.rgb.shape[0] * self.rgb.shape[1]


def read_picture(
    source: str | Path | BinaryIO,
    name: str | None = None,
    *,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
    frame: int = 0,
    lenient: bool = False,
) -> Picture:
    """Read a picture file.

    Arguments:
        source: a path, or a file opened for reading.
        name: what messages call it.
        max_pixels: refuse larger pictures before they are decoded.
        formats: Pillow's names of the file types that may be read; default: all.
        frame: which of several frames or pages, from 0.
        lenient: read what is there of files that are cut off or damaged, and note it; a few missing rows of a JPEG are
            read in any case.

    Raises:
        ImageError: missing, unreadable, or damaged; an :class:`UnknownTypeError` if it is not a picture, a
            :class:`LimitError` if it is too large, an :class:`OutOfMemoryError` if memory does not suffice, a
            :class:`CutOffError` if it can be read leniently.
    """
    name = name or str(source)
    try:
        with _opened(source) as file:
            return _read(file, max_pixels, formats, frame, lenient)
    except UnidentifiedImageError:
        raise UnknownTypeError(f"{name}: not a picture in a format that can be read") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it") from None
    except ImageError as e:
        raise type(e)(f"{name}: {e}") from None
    except MemoryError:
        raise OutOfMemoryError(f"{name}: not enough memory for this picture") from None
    except Image.DecompressionBombError as e:
        raise LimitError(f"{name}: the picture is larger than can be decoded ({e})") from None
    except Exception as e:  # Pillow's readers raise many kinds of exception for damaged files
        if isinstance(e, OSError) and e.strerror:  # of the system, not of a reader
            raise ImageError(f"{name}: cannot be read ({e.strerror})") from None
        kind = CutOffError if "truncated" in str(e) and not lenient else ImageError
        raise kind(f"{name}: the picture is damaged or cannot be decoded ({e})") from None


_FINAL = (ImageError, MemoryError, Image.DecompressionBombError, FileNotFoundError)  # nothing can be mended there


def _read(
    file: BinaryIO, max_pixels: int | None, formats: tuple[str, ...] | None, frame: int, lenient: bool
) -> Picture:
    """The picture of a file, mended where that is possible; what only a lenient reader reads is read so at the end."""
    try:
        with pillow_settings(False):
            return _strictly(file, max_pixels, formats, frame, lenient)
    except _FINAL:
        raise
    except Exception as e:  # Pillow's readers raise many kinds of exception for damaged files
        if not lenient:
            raise
        refused = e
    file.seek(0)
    data = file.read()
    with pillow_settings(True):
        with suppress(Exception):
            better = mended(data, lenient)
            if better is not None:
                picture = _decoded(io.BytesIO(better.data), max_pixels, formats, frame)
                return _noted(picture, better.note, leniently_said(refused))
        return _noted(_decoded(io.BytesIO(data), max_pixels, formats, frame), leniently_said(refused))


def _strictly(
    file: BinaryIO, max_pixels: int | None, formats: tuple[str, ...] | None, frame: int, lenient: bool
) -> Picture:
    """The picture of a file that Pillow reads, or that can be mended."""
    try:
        return _decoded(file, max_pixels, formats, frame)
    except _FINAL:
        raise
    except Exception as e:  # Pillow's readers raise many kinds of exception for damaged files
        file.seek(0)
        better = mended(file.read(), lenient)
        if better is None:
            unknown = isinstance(e, UnidentifiedImageError)
            colours = _floating(file, max_pixels, formats, frame) if unknown else None
            if colours is not None:
                return colours
            told = tiff.unread(file) if unknown else None
            if told is None:
                raise
            raise UnknownTypeError(told) from None
        return _noted(_decoded(io.BytesIO(better.data), max_pixels, formats, frame), better.note)


def _noted(picture: Picture, *notes: str | None) -> Picture:
    return replace(picture, notes=(*picture.notes, *(n for n in notes if n)))


def _decoded(file: BinaryIO, max_pixels: int | None, formats: tuple[str, ...] | None, frame: int) -> Picture:
    with Image.open(file, formats=formats) as image:
        _check_size(image.width, image.height, max_pixels)
        frames = _frames(image)
        _check_frame(frame, frames)
        if frame:
            image.seek(frame)
        picture = from_pillow(image)
        if picture.deep and picture.wide is None:
            file.seek(0)
            picture = _with_colours(picture, file.read(), str(image.format), frame, "icc_profile" in image.info)
        return _of_frames(picture, frame, frames)


def _of_frames(picture: Picture, frame: int, frames: int) -> Picture:
    others = (f"only frame {frame} of its {frames} is read",) if frames > 1 else ()
    return replace(picture, frames=frames, notes=(*picture.notes, *others))


def _check_frame(frame: int, frames: int) -> None:
    if not 0 <= frame < frames:
        raise ImageError(f"there is no frame {frame}; the file has {frames}, counted from 0")


def _floating(file: BinaryIO, max_pixels: int | None, formats: tuple[str, ...] | None, frame: int) -> Picture | None:
    """The picture of a TIFF file of floating-point colours, which Pillow does not know; None for other files.

    Raises:
        ImageError: its colours cannot be read.
    """
    found = tiff.float_colours(file) if formats is None or "TIFF" in formats else None
    if found is None:
        return None
    _check_size(found.width, found.height, max_pixels)
    _check_frame(frame, found.frames)
    if not wide.available():
        raise ImageError(f"floating-point colours are read by OpenCV, which is not installed: {wide.EXTRA}")
    if frame:
        raise ImageError("of floating-point colours only frame 0 can be read")
    values = wide.floats(file, found)
    if values is None:
        raise ImageError("its floating-point colours are damaged, or packed in a way that is not known")
    alpha, values = _split(values, found.fourth)
    colours, deep, notes, words = scaled(values)
    image = Image.fromarray(colours)
    image.info["icc_profile"] = found.profile
    rgb = np.asarray(to_srgb(image))
    known = None if not deep or bool((rgb != colours).any()) else words  # the profile's curve is one of 8 bits
    picture = Picture(rgb, alpha, is_grey(rgb), deep, notes=notes, wide=known, rounding=notes)
    return _of_frames(picture, frame, found.frames)


def _split(values: npt.NDArray[Any], fourth: int) -> tuple[Bytes | None, npt.NDArray[Any]]:
    """Transparency and colours of floating-point samples, the colours as they are without it."""
    colours = np.ascontiguousarray(values[:, :, :3])
    if fourth not in (tiff.ASSOCIATED, tiff.UNASSOCIATED):
        return None, colours
    alpha = np.ascontiguousarray(values[:, :, 3])
    if fourth == tiff.ASSOCIATED:  # rounding is to leave no white above 1
        share = np.where(alpha > 0, alpha / white_level(alpha, float(alpha.max()))[0], 1)[..., None]
        colours = np.where(colours <= share, np.minimum(colours / share, 1), colours / share).astype(values.dtype)
    return scaled(alpha)[0], colours


def _with_colours(picture: Picture, data: bytes, kind: str, frame: int, profile: bool) -> Picture:
    """The picture of a file of such a kind with its 16-bit colours, or with a note that says why it has none."""
    read = wide.colours(data, picture.rgb, kind, frame)
    if read is not None:
        found, kept = read
        picture = picture if kept or picture.alpha is None else _without_fine_alpha(picture)
        if bool((found == picture.rgb.astype(np.uint16) * 257).all()):
            return replace(picture, deep=False)  # 8-bit values in 16 bits
        return replace(picture, wide=found, exact=True)
    note = wide.unread(kind, profile)
    return replace(picture, notes=(*picture.notes, note), rounding=(*picture.rounding, note))


def _without_fine_alpha(picture: Picture) -> Picture:
    """The picture, of whose transparency 8 bits are left, with a note that says so."""
    return _noted(replace(picture, coarse_alpha=True), ROUNDED_ALPHA)


def _frames(image: Image.Image) -> int:
    """Pictures in a file; layers, which are parts of one, do not count."""
    if image.format == "PSD":
        return 1
    with suppress(Exception):  # a damaged second frame must not lose the first
        return max(1, int(getattr(image, "n_frames", 1)))
    return 1


def _opened(source: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """The file, for Pillow: it maps files that it opens itself into memory, and turns such TIFF files wrongly."""
    return open(source, "rb") if isinstance(source, (str, Path)) else nullcontext(source)


def _check_size(width: int, height: int, most: int | None = None) -> None:
    if width < 1 or height < 1:
        raise ImageError("the picture has no pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise LimitError(f"{width}x{height} pixels is more than the format allows ({MAX_PIXELS} in all)")
    if most is not None and width * height > most:
        raise LimitError(f"{width}x{height} pixels is more than the limit of {most}")


def as_picture(image: "ImageLike | Picture", depth: int | None = 8, losing: str | None = None) -> Picture:
    """A :class:`Picture` from an array `(H, W)`, `(H, W, 1|3|4)` (uint8, uint16, or float in [0, 1]) or Pillow image.

    Arguments:
        image: the picture.
        depth: bits a sample, 8 or 16; None: as many as it takes to lose nothing.
        losing: what is to be said, beside the picture's notes, if it has 16 bits a sample that this depth rounds.

    Raises:
        ImageError: wrong shape, type or size, a depth that it does not have, or a Pillow image that cannot be read.
    """
    if isinstance(image, Picture):
        return image.at_depth(image.keeps if depth is None else depth)
    if isinstance(image, Image.Image):
        _check_size(*image.size)
        try:
            picture = from_pillow(image)
        except (OSError, ValueError, SyntaxError) as e:  # of files that Pillow has only opened so far, or closed since
            raise ImageError(f"the picture cannot be read ({e})") from None
    elif isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise ImageError("a picture must be an array or a Pillow image; eocodec.image.read_picture reads files")
    else:
        picture = _from_array(image)
    keeps = picture.keeps
    picture = picture.at_depth(keeps if depth is None else depth)
    for note in (*picture.notes, *([losing] if losing and keeps > picture.depth else [])):
        warnings.warn(f"the picture: {note}", EocodecWarning, stacklevel=3)
    return picture


def _from_array(image: npt.NDArray[np.generic]) -> Picture:
    try:
        array: npt.NDArray[Any] = computable(np.asarray(image))
    except (TypeError, ValueError) as e:  # ragged lists, tensors of a device
        raise ImageError(f"the picture cannot be made an array ({e})") from None
    deep, notes = False, few_levels(array) if array.dtype == np.uint16 and array.size else ()
    words, exact = None, array.dtype == np.uint16
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        words, array = array, eight_bit(array)
        deep = bool((words != array.astype(np.uint16) * 257).any())
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or (array.size and (array.min() < 0 or array.max() > 1)):
            raise ImageError("a floating-point picture must hold values from 0 to 1")
        words = np.floor(array * 65535.0 + 0.5).astype(np.uint16)
        levels = array * 255.0
        array = np.floor(levels + 0.5).astype(np.uint8)
        deep = bool((np.abs(levels - array) > FLOAT_TOLERANCE).any())
    elif array.dtype != np.uint8:
        kind = type(image).__name__ if array.dtype == np.object_ else array.dtype
        raise ImageError(f"a picture of type {kind} is not supported; use uint8, uint16 or float in 0 to 1")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ImageError(f"a picture must have the shape (H, W) or (H, W, 1 to 4), not {array.shape}")
    _check_size(array.shape[1], array.shape[0])
    alpha = np.ascontiguousarray(array[:, :, -1]) if array.shape[2] in (2, 4) else None
    coarse_alpha = False
    rgb = _three(array)
    if words is not None:
        words = words.reshape(array.shape)
        coarse_alpha = exact and alpha is not None and not eight_bit_enough(words[:, :, -1])
        words = _three(words)
    grey = array.shape[2] < 3 or is_grey(rgb if words is None else words)
    picture = Picture(rgb, alpha, grey, deep, notes=notes, wide=words, exact=exact, rounding=notes)
    return _without_fine_alpha(picture) if coarse_alpha else picture


def _three(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Three channels `(H, W, 3)` of one to four, the last of two or four being transparency."""
    if array.shape[2] < 3:
        return np.repeat(array[:, :, :1], 3, 2)
    return np.ascontiguousarray(array[:, :, :3])


def is_grey(rgb: Bytes) -> bool:
    """Whether the three channels are equal; colour pictures show within a few rows that they are not."""
    return all(
        bool((part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all())
        for part in (rgb[:: max(1, len(rgb) // 16)], rgb)
    )


def from_pillow(image: Image.Image) -> Picture:
    """A :class:`Picture` from a Pillow image: orientation, profile, palette, depth, colour key and CMYK handled.

    Raises:
        ImageError: values of a kind that is not known how to show, or that the reader gets wrong.
    """
    stored = _stored(image)
    if stored & {"R", "G", "B"} and max(_tiff_tag(image, 258, (8,))) > 8:
        raise ImageError("TIFF files of separate planes with more than 8 bits cannot be read")
    notes: tuple[str, ...] = ()
    deep, inverted = _deeper_than_decoded(image), _tiff_tag(image, 262, 1) == 0
    image = _upright(image)
    key = image.info.get("transparency")
    alpha: Bytes | None = None
    words: Words | None = None
    exact = False
    if image.mode in _SIXTEEN or image.mode in ("I", "F"):
        alpha = _keyed(image, key)
        grey, deep, notes, words = scaled(np.asarray(image), "I;12" in stored, inverted)
        exact = image.mode != "F"
        profile = image.info.get("icc_profile")
        image = Image.fromarray(grey)
        image.info["icc_profile"] = profile
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("1", "L", "RGB"):
        image = image.convert("L") if image.mode == "1" else image
        alpha = _keyed(image, _decoded_key(key, stored))
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    elif "LA;16B" in stored:  # Pillow has them as RGBA
        image = image.convert("LA")
    if image.mode in ("LA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
    elif deep and image.mode == "RGB" and _dark(image):
        notes = ("its 16-bit values fill less than a sixteenth of their range; next to no levels remain in 8 bits",)
    grey_mode, rgb = image.mode in ("L", "LA"), np.asarray(to_srgb(image))
    rounding = notes
    if words is not None and (not deep or bool((rgb[..., 0] != grey).any())):  # the profile's curve is one of 8 bits
        words = None
    wide_values = None if words is None else np.repeat(words[..., None], 3, 2)
    grey_picture = grey_mode or is_grey(rgb)
    return Picture(rgb, alpha, grey_picture, deep, 1, notes, wide_values, exact, rounding)


def _dark(image: Image.Image) -> bool:
    """Whether no 8-bit channel reaches the levels that 16-bit values of :data:`FEW_BITS` bits do not."""
    return int(np.asarray(image).max()) < 1 << FEW_BITS - 8


def _stored(image: Image.Image) -> set[str]:
    """How samples lie in a file that is not decoded yet, in Pillow's names; nothing for other images."""
    tiles = getattr(image, "tile", None) or []
    return {t[3] if isinstance(t[3], str) else str((t[3] or ("",))[0]) for t in tiles}


def _deeper_than_decoded(image: Image.Image) -> bool:
    """Whether a file that is not decoded yet has colours of 16 bits, of which Pillow keeps 8."""
    tiles = getattr(image, "tile", None) or []
    if any(";16" in name for name in _stored(image)):
        return True
    return any(t[0] == "SGI16" or (t[0] in ("ppm", "ppm_plain") and t[3][-1] in range(256, 65536)) for t in tiles)


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(tag, default)


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF says that it is to be seen."""
    image.load()  # some files have it behind the pixels
    orientation = None
    with suppress(Exception):  # broken metadata must not lose the picture
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _decoded_key(key: Any, stored: set[str]) -> Any:
    """The colour key in 8-bit values: files of other depths state it in theirs."""
    if key is None or not stored & {"L;2", "L;4", "RGB;16B"}:
        return key
    return tuple(k >> 8 for k in key) if isinstance(key, tuple) else key * (85 if "L;2" in stored else 17)


def _keyed(image: Image.Image, key: Any) -> Bytes | None:
    """Transparency of a picture of which one value or colour is transparent."""
    if key is None:
        return None
    shown = np.asarray(image) != np.asarray(key)
    return np.where(shown.any(2) if shown.ndim == 3 else shown, 255, 0).astype(np.uint8)


def rounded(values: Bytes, white: int = TOP) -> Bytes:
    """A picture's values, brought to 8 bits if they have 16, of which `white` is 255."""
    return eight_bit(values, white) if values.dtype == np.uint16 else values


def to_pillow(rgb: Bytes, alpha: Bytes | None = None, grey: bool = False) -> Image.Image:
    """A Pillow image (L, LA, RGB or RGBA) of arrays `(H, W, 3)` and `(H, W)`."""
    image = Image.fromarray(rgb[:, :, 0] if grey else rgb)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def atomic_write(path: Path, data: bytes, *, new: bool = False) -> None:
    """As :func:`eocodec.files.atomic_write`, with an error of eocodec's own.

    Raises:
        FileExistsError: there is a file, and the one to be written is to be `new`.
        ImageError: the file cannot be written (folder missing, disk full, no permission).
    """
    try:
        files.atomic_write(path, data, new=new)
    except OSError as e:
        if new and isinstance(e, FileExistsError):
            raise
        raise ImageError(f"{path}: cannot be written ({e.strerror or e})") from None
