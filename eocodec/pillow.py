"""Pillow reads and writes `.eoc` files once `import eocodec.pillow` has run.

In: files, through `Image.open`. Out: files, through `Image.save`. Opening reads the header alone; the model is loaded
and the picture decoded when its pixels are first needed. Modes are L, RGB and RGBA.

A file that was cut short is a picture at a lower rate, so it opens without an error, and `info["complete"]` tells after
loading. Where a cut leaves no picture (no latents at all), or breaks a promise (a lossless file), and where checksums
show damage, loading raises OSError; with `ImageFile.LOAD_TRUNCATED_IMAGES` it gives what is there. Placeholders
(`compress --tiny`) have no magic number; they are not for Pillow.
"""

from typing import IO, Any

from PIL import Image, ImageFile

from eocodec import codec, format
from eocodec.errors import EocodecError, FormatError, ImageError, ModelError
from eocodec.image import to_pillow
from eocodec.model.library import load_model

__all__ = ["EocImageFile", "add_model", "rate_of_quality"]

FORMAT = "EOC"
MAGIC, KIND_MAGIC = (format.MAGIC + bytes([version]) for version in (format.VERSION, format.KIND_VERSION))
KIND = 9  # where the second version says what kind of file it is
LONGEST_HEADER = 4096  # bytes that hold the header and, with few exceptions, a map of steps
TARGETS = ("rate", "bpp", "max_bytes", "psnr")
OPTIONS = (*TARGETS, "lossless", "progressive", "denoise", "tune", "focus", "effort")

_bundles: dict[bytes, str] = {}


def add_model(bundle: str) -> None:
    """Let `Image.open` read files that were made with a model of your own.

    Arguments:
        bundle: path of the `.eocm` file.

    Raises:
        ModelError: not a bundle.
    """
    _bundles[load_model(bundle).id] = bundle


def rate_of_quality(quality: float, block: int = 768) -> float:
    """C for a quality from 1 to 100, the scale that other formats have in Pillow: block ** ((quality - 1) / 99).

    Every point multiplies the latents kept by the same factor; 1 keeps 1 of them, 69 about 96 (the default, 1 bit per
    pixel), 75 about 144, 100 all, which still is not lossless.

    Raises:
        ValueError: out of range.

    Example:
        >>> [round(rate_of_quality(q), 1) for q in (1, 50, 75, 100)]
        [1.0, 26.8, 143.5, 768.0]
    """
    if not isinstance(quality, (int, float)) or not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, not {quality}")
    return float(block ** ((quality - 1) / 99))


class EocImageFile(ImageFile.ImageFile):
    """An `.eoc` file as a Pillow image; `info` has the model's id and what kind of file it is."""

    format = FORMAT
    format_description = "eocodec image"

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(LONGEST_HEADER)
        if not _accept(head):
            raise SyntaxError("not an .eoc file")
        try:
            file = format.parse(head, salvage=True)
        except FormatError:  # transparency comes first, of any length
            file = _parsed(head + self.fp.read(), salvage=True)
        header = file.header
        self._size = header.width, header.height
        self._mode = "RGBA" if file.alpha is not None else "L" if header.grey else "RGB"
        self.info["model"] = header.model.hex()
        self.info["lossless"] = file.lossless is not None
        self.info["progressive"] = header.embedded
        self._undecoded = True  # and no tile, which would need a decoder of Pillow's own kind

    def load(self) -> Any:
        """Decode, if that has not been done yet; gives access to the pixels.

        Raises:
            OSError: damaged, cut where that leaves no picture, or its model is not at hand.
        """
        if self._undecoded:
            assert self.fp is not None
            self.fp.seek(0)
            image = self._decoded(self.fp.read())
            if self._exclusive_fp:
                self.fp.close()
            self.fp = None
            self.im = image.im
            self._undecoded, self.readonly = False, 0
        return Image.Image.load(self)

    def _decoded(self, data: bytes) -> Image.Image:
        lenient = ImageFile.LOAD_TRUNCATED_IMAGES
        file = _parsed(data, salvage=lenient)
        whole = file.lossless is not None or file.header.page  # what is nothing else if it is cut
        if not lenient and not file.complete and (whole or not file.segments):
            raise OSError("image file is truncated")
        try:
            decoded = codec.decode_file(data, _bundles.get(file.header.model), salvage=lenient, depth=8)
        except EocodecError as e:
            raise OSError(str(e)) from e
        self.info["complete"] = decoded.complete
        image = to_pillow(decoded.rgb, decoded.alpha, decoded.grey)
        return image if image.mode == self.mode else image.convert(self.mode)

    def verify(self) -> None:
        """Check the checksums, without decoding.

        Raises:
            OSError: damaged.
        """
        assert self.fp is not None
        self.fp.seek(0)
        _parsed(self.fp.read(), salvage=False)
        super().verify()


def _parsed(data: bytes, salvage: bool) -> format.File:
    try:
        return format.parse(data, salvage)
    except FormatError as e:
        raise OSError(str(e)) from e


def _accept(prefix: bytes) -> bool:
    of_a_kind = prefix.startswith(KIND_MAGIC) and len(prefix) > KIND and prefix[KIND] in format.KIND_FLAGS
    return of_a_kind or prefix.startswith(MAGIC)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Write a picture; options are those of `eocodec.compress`, and `quality`, see :func:`rate_of_quality`.

    With `lossless`, `quality` says nothing, as with Pillow's other formats.

    Raises:
        ValueError: options that exclude one another, or out of range.
        OSError: the picture is of a kind that cannot be written, or there is no such model.
    """
    options = image.encoderinfo
    try:
        model = load_model(options.get("model") or "photo")
        chosen = {name: options[name] for name in OPTIONS if options.get(name) is not None}
        if options.get("quality") is not None:
            rate = rate_of_quality(options["quality"], model.block)
            if any(name in chosen for name in TARGETS):
                raise ValueError("give only one of quality, rate, bpp, max_bytes and psnr")
            if not chosen.get("lossless"):
                chosen["rate"] = rate
        data = codec.compress(image, model=model, depth=8, **chosen)
    except (FormatError, ImageError, ModelError) as e:
        raise OSError(str(e)) from e
    except EocodecError as e:
        raise ValueError(str(e)) from e
    fp.write(data)


def _save_all(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Write a picture that is all there is, as :func:`_save` does.

    Raises:
        ValueError, OSError: as with :func:`_save`; ValueError also if there are several frames.
    """
    appended = list(image.encoderinfo.get("append_images") or ())
    frames = sum(getattr(i, "n_frames", 1) for i in (image, *appended))
    if frames > 1:
        raise ValueError(f"an .eoc file holds one picture, not {frames} frames; save each to a file of its own")
    _save(image, fp, filename)


Image.register_open(FORMAT, EocImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_save_all(FORMAT, _save_all)
Image.register_extension(FORMAT, ".eoc")
Image.register_mime(FORMAT, "image/x-eoc")
