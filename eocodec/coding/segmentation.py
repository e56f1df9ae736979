"""Where a page has photographs: rectangles of it that a lossy coder serves better than an exact one.

In: a picture `(H, W, 3)`, uint8. Out: a few rectangles that do not overlap. Integer arithmetic, some 0.1 s a megapixel.

    pixels ── new or a copy of a neighbour ──► blocks ── photographic, drawn or flat ──► value of each block
                                                                                            │
    rectangles, to the pixel ◄── edges follow the pixels ◄── rectangles, to the block ◄── largest sums
         └── labels cut out ──► more rectangles

Text, charts and widgets repeat their neighbours exactly and have one colour more often than others; photographs have
noise. A rectangle's worth is the sum of its blocks' values; the one that is worth most comes first. A label with text
that lies in a corner of a photograph, or across it, is left out, so that two parts remain; four parts around a label in
the middle would take more bytes than they save. Text without paper of its own stays: exactly it would take its
background, too, and more than twice the bytes of the page.

References:
    Bentley: *Programming pearls: algorithm design techniques*, CACM 27 (9), 1984: the largest sum of a part of a line.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eocodec.image import Bytes
from eocodec.regions import Region

__all__ = ["photographs"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Colours = npt.NDArray[np.uint32]

BLOCK = 16  # pixels
AREA = BLOCK * BLOCK
MOST = 16  # rectangles
SMALLEST = 24  # pixels of a side
# Of a block of 256 pixels; what text of many sizes and fonts, and the photographs in samples/, have.
FLAT = 5  # new pixels up to which it is flat
COMMON, CONTRAST = 51, 64  # pixels of one colour, and levels of red between the first and last colour, of text
NEW = 128  # new pixels from which on it is photographic, …
COLOURS, GREYS = 32, 12  # … with so many colours
# Values of a block in a rectangle: what is saved, in tenths of what a photographic one saves, less what is lost.
VALUES = {"photographic": 10, "noisy": 3, "smooth": 1, "flat": -1, "text": -5}
TAKEN = -(1 << 30)  # the value of a block that another rectangle has
FEWEST, SCARCE = 4, 100  # blocks of text beside photographs: so many, and one in so many
PRICE = 5  # of a rectangle
LABEL = {"photographic": -20, "noisy": -6, "smooth": -2, "flat": -1, "text": 4}  # of a block in a label on one
LABEL_CONTRAST = 192  # levels, of text that a lossy coder spends more on than an exact one
LABEL_WORTH = 50  # that a label must be, some three lines of ten letters; less saves no bytes
THIN = 8  # pixels of a side of what is left beside a label, at least
WORTH = 15  # that a rectangle must be
SHARE = 8  # one pixel in so many of a row or column at its edge is new


class _Rectangle(NamedTuple):
    """A rectangle of blocks."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def photographs(rgb: Bytes) -> list[Region]:
    """Up to :data:`MOST` rectangles, which do not overlap, from top to bottom.

    None if the page has no photographs, or hardly any text or drawings beside them, which are what a page is for.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < 2 * BLOCK:
        return []
    colours = rgb[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= rgb[..., channel]
    new = _new(colours)
    values, label = _values(colours, new)
    regions: list[Region] = []
    for r in _chosen(values):  # slivers that come last are often edges of what came before
        rough = _in_pixels(r, height, width)
        free = [x for x in (_fitted(new, rough), rough) if not any(x.overlaps(other) for other in regions)]
        if free and min(free[0].height, free[0].width) >= SMALLEST:
            regions.append(free[0])
    for region in regions.copy():
        parts = _without_labels(region, label, new, MOST - len(regions) + 1)
        regions.remove(region)
        regions += parts
    for region in regions:
        touched = (slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in region.place)
        values[tuple(touched)] = TAKEN
    enough = (values == VALUES["text"]).sum() >= max(FEWEST, values.size // SCARCE)
    return sorted(regions) if enough else []


def _new(colours: Colours) -> Bools:
    """Which pixels differ both from the one on their left and from the one above; none in the first row and column."""
    new = np.zeros(colours.shape, np.bool_)
    inner = colours[1:, 1:]
    new[1:, 1:] = (inner != colours[1:, :-1]) & (inner != colours[:-1, 1:])
    new[0], new[:, 0] = new[1], new[:, 1]
    return new


def _blocks(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The whole blocks of a plane, `(rows, columns, 16, 16)`; pixels beyond the last whole one are left out."""
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    whole = plane[: rows * BLOCK, : columns * BLOCK]
    return whole.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)


def _values(colours: Colours, new: Bools) -> tuple[Ints, Ints]:
    """The value of every block in a photograph, and that in a label on one."""
    count = _blocks(new).sum((2, 3), dtype=np.int64)
    drawn = count > FLAT
    ordered = np.sort(_blocks(colours)[drawn].reshape(-1, AREA), axis=1)
    distinct = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    # A colour is common if it fills COMMON places of the ordered ones in a row.
    common = (ordered[:, COMMON - 1 :] == ordered[:, : AREA - COMMON + 1]).any(1)
    first, last = ordered[:, 0] >> 16, ordered[:, -1] >> 16
    grey = (ordered >> 16 == ordered & 255).all(1)
    text = common & (last - first >= CONTRAST)
    many = distinct >= np.where(grey, GREYS, COLOURS)
    kinds = {"text": text, "photographic": many & (count[drawn] >= NEW), "noisy": many & ~common}
    clear = np.zeros(count.shape, np.bool_)
    clear[drawn] = last - first >= LABEL_CONTRAST
    values = np.full(count.shape, VALUES["flat"], np.int64)
    values[drawn] = np.select(list(kinds.values()), [VALUES[kind] for kind in kinds], VALUES["smooth"])
    labels = np.select([values == VALUES[kind] for kind in LABEL], list(LABEL.values()))
    labels[(values == VALUES["text"]) & ~clear] = LABEL["noisy"]
    labels[(values == VALUES["text"]) & (count >= NEW)] = LABEL["photographic"]  # it has no paper of its own
    return values, labels


def _chosen(values: Ints) -> list[_Rectangle]:
    """Rectangles of blocks: the one that is worth most, again and again, each in parts where that pays."""
    left, found = values.copy(), list[_Rectangle]()
    while len(found) < MOST:
        r = _best(left)
        if left[r.place].sum() < WORTH:
            break
        parts = _parts(left, r, MOST - len(found))
        found += [part for part in parts if (values[part.place] == VALUES["photographic"]).any()]
        left[r.place] = TAKEN
    return found


def _best(values: Ints) -> _Rectangle:
    """The rectangle of the largest sum: for all pairs of rows at once, the best run of columns."""
    rows, columns = values.shape
    if rows > columns:  # pairs of the fewer
        top, bottom, left, right = _best(values.T)
        return _Rectangle(left, right, top, bottom)
    sums = np.zeros((rows + 1, columns), np.int64)
    np.cumsum(values, 0, out=sums[1:])
    tops, bottoms = np.triu_indices(rows + 1, 1)
    between = (sums[bottoms] - sums[tops]).T
    best = current = between[0]
    for column in between[1:]:
        current = np.maximum(current, 0) + column
        best = np.maximum(best, current)
    k = int(np.argmax(best))
    return _Rectangle(int(tops[k]), int(bottoms[k]), *_best_run(between[:, k]))


def _best_run(line: Ints) -> tuple[int, int]:
    """Where the part of a line with the largest sum begins and ends; it has one entry at least."""
    sums = np.concatenate([[0], np.cumsum(line)])
    lowest = np.minimum.accumulate(sums[:-1])
    end = 1 + int(np.argmax(sums[1:] - lowest))
    return int(np.argmin(sums[:end])), end


def _parts(values: Ints, r: _Rectangle, most: int) -> list[_Rectangle]:
    """A rectangle, or up to `most` parts of it, without the gaps that are worth less than what a rectangle costs."""
    inside = values[r.place]
    (above, below), across = _gap(inside), False
    (before, behind) = _gap(inside.T)
    if inside[:, before:behind].sum() < inside[above:below].sum():
        above, below, across = before, behind, True
    gap = inside[:, above:below] if across else inside[above:below]
    if most < 2 or not gap.size or -gap.sum() < PRICE:
        return [r]
    if across:
        halves = r._replace(right=r.left + above), r._replace(left=r.left + below)
    else:
        halves = r._replace(bottom=r.top + above), r._replace(top=r.top + below)
    found: list[_Rectangle] = []
    for half in halves:
        best = _best(values[half.place])
        rows, columns = (half.top + best.top, half.top + best.bottom), (half.left + best.left, half.left + best.right)
        moved = _Rectangle(*rows, *columns)
        if values[moved.place].sum() >= WORTH:
            found += _parts(values, moved, most - len(found))
    return found[:most] or [r]


def _gap(values: Ints) -> tuple[int, int]:
    """Where the rows of the smallest sum begin and end, neither the first nor the last row being among them."""
    if len(values) < 3:
        return 0, 0
    begin, end = _best_run(-values[1:-1].sum(1))
    return begin + 1, end + 1


def _in_pixels(r: _Rectangle, height: int, width: int) -> Region:
    """A rectangle of blocks, with what is beyond the last whole block if it touches that."""
    bottom = height if r.bottom == height // BLOCK else r.bottom * BLOCK
    right = width if r.right == width // BLOCK else r.right * BLOCK
    return Region(r.top * BLOCK, r.left * BLOCK, bottom - r.top * BLOCK, right - r.left * BLOCK)


def _fitted(new: Bools, region: Region) -> Region:
    """The region with its edges moved to where the photograph ends, by less than two blocks."""
    top, bottom = region.y, region.y + region.height
    left, right = region.x, region.x + region.width
    top = _edge(new[:, left:right], top, -1)
    bottom = _edge(new[:, left:right], bottom, 1)
    left = _edge(new[top:bottom].T, left, -1)
    right = _edge(new[top:bottom].T, right, 1)
    return Region(top, left, max(bottom - top, 0), max(right - left, 0))


def _without_labels(region: Region, label: Ints, new: Bools, most: int) -> list[Region]:
    """A photograph, or up to `most` parts of it around labels with text that lie on it.

    Arguments:
        region: of the photograph.
        label: value of every block of the page in a label.
        new: see :func:`_new`.
        most: parts.
    """
    top, left = -(-region.y // BLOCK), -(-region.x // BLOCK)
    inside = label[top : (region.y + region.height) // BLOCK, left : (region.x + region.width) // BLOCK]
    if most < 2 or not inside.size:
        return [region]
    best = _best(inside)
    if inside[best.place].sum() < LABEL_WORTH:
        return [region]
    r = _Rectangle(best.top + top, best.bottom + top, best.left + left, best.right + left)
    parts = _around(region, _label(region, r, new))
    if len(parts) not in (1, 2) or min(min(p.height, p.width) for p in parts) < THIN:
        return [region]
    found = _without_labels(parts[0], label, new, most - len(parts) + 1)
    for part in parts[1:]:
        found += _without_labels(part, label, new, most - len(found))
    return found


def _label(region: Region, r: _Rectangle, new: Bools) -> Region:
    """A label of blocks, to the pixel: from outside, it begins where the photograph's rows and columns end."""
    end, side = region.y + region.height, region.x + region.width
    rows = new[:, BLOCK * r.left : BLOCK * r.right].sum(1, dtype=np.int64) * SHARE >= BLOCK * (r.right - r.left)
    columns = new[BLOCK * r.top : BLOCK * r.bottom].sum(0, dtype=np.int64) * SHARE >= BLOCK * (r.bottom - r.top)
    top, bottom = _narrowed(rows, r.top, r.bottom, region.y, end)
    left, right = _narrowed(columns, r.left, r.right, region.x, side)
    return Region(top, left, max(bottom - top, 0), max(right - left, 0))


def _narrowed(near: Bools, first: int, last: int, low: int, high: int) -> tuple[int, int]:
    """Where what is not photographic begins and ends, from a block before `first` and after `last`, within bounds."""
    begin, end = max(BLOCK * (first - 1), low), min(BLOCK * (last + 1), high)
    return begin + _leading(near[begin : BLOCK * (first + 1)]), end - _leading(near[BLOCK * (last - 1) : end][::-1])


def _around(region: Region, hole: Region) -> list[Region]:
    """What is left of a region, in up to four parts."""
    if hole.width * region.height < hole.height * region.width:  # the long parts lie along the hole
        turned = _around(*(Region(r.x, r.y, r.width, r.height) for r in (region, hole)))
        return [Region(r.x, r.y, r.width, r.height) for r in turned]
    below, behind = hole.y + hole.height, hole.x + hole.width
    end, side = region.y + region.height, region.x + region.width
    parts = [
        Region(region.y, region.x, hole.y - region.y, region.width),
        Region(hole.y, region.x, hole.height, hole.x - region.x),
        Region(hole.y, behind, hole.height, side - behind),
        Region(below, region.x, end - below, region.width),
    ]
    return [p for p in parts if p.height > 0 and p.width > 0]


def _edge(new: Bools, at: int, outwards: int) -> int:
    """Where the rows that belong to a photograph end.

    Arguments:
        new: of the columns that it has.
        at: its first row, or the one after its last.
        outwards: -1 for its first row, 1 for its last.
    """
    count = new[max(at - 2 * BLOCK, 0) : at + 2 * BLOCK].sum(1, dtype=np.int64)
    middle = min(at, 2 * BLOCK)
    above, below = count[:middle][::-1], count[middle:]
    outer, inner = (above, below) if outwards < 0 else (below, above)
    # Half of what is inside: a photograph goes on as it was, text beside a part of it that goes on has less.
    least = max(new.shape[1] / SHARE, float(inner[:BLOCK].mean()) / 2 if inner.size else 0.0)
    return at + outwards * (_leading(outer >= least) or -_leading(inner * SHARE < new.shape[1]))


def _leading(flags: Bools) -> int:
    """How many flags are set before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))
