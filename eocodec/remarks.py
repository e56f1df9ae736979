"""What is to be said of a compressed picture: what its file does not keep, or keeps in another way than one may think.

In: a picture and what compressing it gave. Out: sentences without a subject, for people.
"""

from dataclasses import dataclass

from eocodec.format import is_tiny, parse
from eocodec.image import Picture
from eocodec.results import Compressed

__all__ = ["Contents", "remarks"]

NOTABLE = 0.25  # share of the file from which on transparency is worth a word


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
        done: what came of it.
        source: bytes of the file it was read from; 0: not known.
        depth: bits a sample that were asked for; None: none were.
        exact: whether a lossless file was asked for.
        limited: whether a size was.
    """
    contents, size = Contents.of(done.data), len(done.data)
    found = [*picture.at_depth(done.depth).notes, *_on_depth(picture, done.depth, depth), *done.notes]
    if contents.exact and not exact:
        kept = "it is" if not done.sigma else "what it is without the noise is"
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
        return ["its 16 bits a sample are rounded to 8, as this form of file or these options need"]
    return []
