"""Photographs on a page: where they are, and the exact layer around them, as one element of a file.

In: rectangles and a WebP stream. Out: the element's bytes, and back. docs/FORMAT.md, "Pages", has the bytes. What comes
from outside is checked here, before memory is allocated for a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from eocodec import varint
from eocodec.errors import FormatError

__all__ = ["MOST", "Region", "pack", "unpack"]

MOST = 64  # regions of a page


@dataclass(frozen=True, order=True)
class Region:
    """A rectangle of a picture, in pixels.

    Arguments:
        y, x: of its upper left corner.
        height, width: at least 1.
    """

    y: int
    x: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.height * self.width

    def overlaps(self, other: "Region") -> bool:
        """Whether the two have a pixel in common."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height


def pack(regions: Sequence[Region], layer: bytes) -> bytes:
    """The element: how many regions, x, y, width and height of each, then the layer."""
    assert 1 <= len(regions) <= MOST, f"a page has 1 to {MOST} photographs, not {len(regions)}"
    numbers = [n for r in regions for n in (r.x, r.y, r.width, r.height)]
    return b"".join([bytes([len(regions)]), *map(varint.write, numbers), layer])


def unpack(element: bytes, width: int, height: int) -> tuple[list[Region], bytes]:
    """Inverse of :func:`pack` for a picture of `width` times `height` pixels.

    Raises:
        FormatError: no region or too many; one is empty, reaches out of the picture, or overlaps another.
    """
    damaged = FormatError("the file is damaged: the places of its photographs cannot be read")
    if not element or not 1 <= element[0] <= MOST:
        raise damaged
    numbers, at = [], 1
    try:
        for _ in range(4 * element[0]):
            number, at = varint.read(element, at)
            numbers.append(number)
    except (varint.Truncated, varint.Padded, varint.Overlong):
        raise damaged from None
    regions = [Region(y, x, h, w) for x, y, w, h in zip(*[iter(numbers)] * 4, strict=True)]
    for r in regions:
        if not (r.width and r.height and r.x + r.width <= width and r.y + r.height <= height):
            raise FormatError("the file is damaged: a photograph is empty or lies outside the page")
    if any(a.overlaps(b) for a, b in combinations(regions, 2)):
        raise FormatError("the file is damaged: two photographs overlap")
    return regions, element[at:]
