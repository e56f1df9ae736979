"""What is to be said of a result: what it does not keep, or keeps in another way than one may think.

In: a picture or a file, and what compressing, denoising, decoding or cutting it gave. Out: sentences without a subject,
for people. The commands, `batch`, the library and the service all say these.
"""

from dataclasses import dataclass

from PIL import Image

from eocodec import wide
from eocodec.format import AnyFile, File, is_tiny, parse
from eocodec.image import Picture
from eocodec.results import Compressed
from eocodec.writing import keeps_alpha, keeps_colours

__all__ = [
    "CLEANED",
    "ROUNDED",
    "Contents",
    "cut_remarks",
    "denoise_remarks",
    "file_remarks",
    "remarks",
    "type_remarks",
]

NOTABLE = 0.25  # share of the file from which on transparency is worth a word
ROUNDED = "its 16 bits a sample are rounded to 8, as this form of file or these options need"
CLEANED = "its 16 bits a sample are rounded to 8, with which noise is removed"


@dataclass(frozen=True)
class Contents:
    """What a file's bytes go into.

    Arguments:
        alpha: bytes of transparency.
        exact: whether the colours are kept exactly.
        photographs: how many there are on a page; 0: the file is no page.
        progressive: whether it is an embedded stream.
    """

    alpha: int = 0
    exact: bool = False
    photographs: int = 0
    progressive: bool = False

    @classmethod
    def of(cls, data: bytes) -> "Contents":
        """Of an intact file."""
        if is_tiny(data):
            return cls()
        file = parse(data)
        photographs = len(file.segments) if file.header.page else 0
        return cls(len(file.alpha or b""), file.lossless is not None, photographs, file.header.embedded)


def remarks(
    picture: Picture, done: Compressed, source: int = 0, *, depth: int | None = None, exact: bool, limited: bool
) -> list[str]:
    """Sentences on a picture and its file.

    Arguments:
        picture: as it was read.
        removed: whether any was, see `eocodec.denoising.Denoised`.
        source: bytes of the file it was read from; 0: not known.
        depth: bits a sample that were asked for; None: none were.
        exact: whether a lossless file was asked for.
        limited: whether a size was.
    """
    contents, size = Contents.of(done.data), len(done.data)
    found = [*picture.at_depth(done.depth).notes, *_on_depth(picture, done.depth, depth), *done.notes]
    if contents.exact and not exact:
        kept = "it is" if not done.sigma else "what it is without the noise is"
        kept = "its colours are" if picture.coarse_alpha else kept
        why = "as the limit allows" if limited else "which takes no more bytes than a lossy file"
        found.append(f"{kept} kept exactly, {why}")
    if contents.photographs:
        count = "one photograph" if contents.photographs == 1 else f"{contents.photographs} photographs"
        found.append(f"it is kept as a page: all but {count} exactly, which takes fewer bytes than a lossy file")
    if source and size > source:
        found.append(f"the file is larger than the input, which has {source} bytes")
    if contents.alpha > NOTABLE * size and picture.alpha is not None:
        first = " and comes first: no shorter prefix shows anything" if contents.progressive else ""
        found.append(f"transparency takes {contents.alpha} of the {size} bytes{first}")
    return found


def _on_depth(picture: Picture, depth: int, asked: int | None) -> list[str]:
    """What is to be said of the depth that was chosen for a picture."""
    if asked is not None or picture.depth > 8:
        return []
    if depth == 16:
        return ["it is kept at 16 bits a sample; a depth of 8 makes a file of it that more readers know"]
    if picture.keeps == 16:
        return [ROUNDED]
    return []


def denoise_remarks(
    picture: Picture, removed: bool, suffix: str, depth: int, *, estimated: bool, image: Image.Image | None = None
) -> list[str]:
    """Sentences on a picture that noise was removed from.

    Arguments:
        picture: as it was read.
        removed: whether any was, see `eocodec.denoising.Denoised`.
        suffix: extension of the type that the result is written as, such as ".png".
        depth: bits a sample of the result.
        estimated: whether the noise level was to be estimated, and noise to be removed.
        image: the result, see :func:`type_remarks`.
    """
    found, rounded = list(picture.at_depth(depth).notes), picture.keeps > depth
    if estimated and not removed:
        changed = "none was removed" if picture.deep and depth == 8 else "nothing was changed"
        found.append(f"no noise was found that cannot be texture, and {changed}; a sigma that is given removes it")
    unfit = rounded and not removed and not wide.holds(suffix)  # the type, not the method, is the cause
    if rounded and not unfit:
        found.append(CLEANED)
    return found + type_remarks(suffix, alpha=picture.alpha is not None, deep=unfit, image=image)


def type_remarks(suffix: str, *, alpha: bool, deep: bool = False, image: Image.Image | None = None) -> list[str]:
    """Sentences on what a type of picture cannot hold.

    Arguments:
        suffix: its extension, such as ".jpg".
        alpha: whether the picture has transparency.
        deep: whether it has 16 bits a sample.
        image: the picture, where the type may not hold its colours.
    """
    found = []
    if deep and not wide.holds(suffix):
        found.append(f"its 16 bits a sample are rounded to 8, which is what {suffix} holds; .png and .tif hold 16")
    if alpha and not keeps_alpha(suffix):
        found.append(f"its transparency is lost, which {suffix} cannot hold")
    if image is not None and not keeps_colours(image, suffix):
        found.append(f"its colours are reduced to 256, more than which {suffix} cannot hold")
    return found


def file_remarks(file: AnyFile) -> list[str]:
    """Sentences on a file that is to be decoded."""
    behind = file.trailing if isinstance(file, File) else 0
    return [f"what follows its end is left out (bytes: {behind})"] if behind else []


def cut_remarks(blank: int, page: bool, unverified: bool) -> list[str]:
    """Sentences on a file that was cut.

    Arguments:
        blank: of how many pictures no latents are left, see `eocodec.coding.forms.blank_pictures`.
        page: whether these are photographs of a page.
        unverified: whether it has bytes that had no checksum before, see `eocodec.coding.forms.unverified`.
    """
    found = []
    if unverified:
        found.append("it was cut off before, and no checksum told whether its last bytes are as they were")
    if blank and page:
        found.append(f"no segment fits of {blank} of its photographs, of which nothing but one colour is left")
    elif blank:
        found.append("no segment fits: nothing but one colour is left of it")
    return found
