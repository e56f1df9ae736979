"""Large pictures in tiles that overlap, so that what a net lacks beyond a tile's border no longer shows inside.

In: the size of a picture, of a tile, of its halo. Out: which rows and columns to compute, and which of them to keep.
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Tile", "padded", "scaled", "shifted", "tiles"]


@dataclass(frozen=True)
class Tile:
    """A tile, in pixels of the picture: `rows` and `columns` are kept of what `outer_rows`, `outer_columns` give."""

    outer_rows: slice
    outer_columns: slice
    rows: slice
    columns: slice


def padded(size: int, multiple: int) -> int:
    """Pixels rounded up to a multiple."""
    return -(-size // multiple) * multiple


def tiles(width: int, height: int, edge: int, halo: int, whole: int, strips: bool = False) -> Iterator[Tile]:
    """The tiles of a picture, row by row.

    Arguments:
        width, height: of the picture.
        edge: of the part of a tile that is kept.
        halo: what is computed beyond it on each side, where the picture goes on.
        whole: pixels up to which the picture is one tile.
        strips: cut the longer side only, into tiles of at most `whole` pixels, where that takes less work: they have
            halos on two sides only.
    """
    tall, wide = (height, width) if width * height <= whole else (edge, edge)
    if strips and width * height > whole:
        tall, wide = _cheaper(width, height, edge, halo, whole)
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            bottom, right = min(top + tall, height), min(left + wide, width)
            yield Tile(
                slice(max(0, top - halo), min(height, bottom + halo)),
                slice(max(0, left - halo), min(width, right + halo)),
                slice(top, bottom),
                slice(left, right),
            )


def _cheaper(width: int, height: int, edge: int, halo: int, whole: int) -> tuple[int, int]:
    """Rows and columns that are kept of a tile: of a square one, or of a strip."""
    long, short, halo, whole = max(width, height), min(width, height), max(1, halo), max(1, whole)
    parts = -(-long * short // whole)
    kept = padded(-(-long // parts), halo)
    if (kept + 2 * halo) * short > whole and kept < long:
        kept = (whole // short - 2 * halo) // halo * halo  # halos have made them too large
    if kept < halo or _outer(long, kept, halo) * short >= _outer(long, edge, halo) * _outer(short, edge, halo):
        return edge, edge
    return (height, kept) if width >= height else (kept, width)


def _outer(size: int, kept: int, halo: int) -> int:
    """Pixels along a side that is cut, halos included."""
    return sum(min(size, at + kept + halo) - max(0, at - halo) for at in range(0, size, kept))


def scaled(s: slice, n: int) -> slice:
    """The same part of something with n pixels per sample."""
    return slice(s.start // n, s.stop // n)


def shifted(s: slice, origin: int) -> slice:
    """The same part, counted from `origin`."""
    return slice(s.start - origin, s.stop - origin)
