"""Crops of pictures as every codec gives them back at equal bytes, for a person to look at.

In: a folder, codecs, bits per pixel. Out: a picture: a row for every picture and rate, the original first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eocodec.bench import codecs as registry
from eocodec.bench.codecs import Codec
from eocodec.bench.measures import MEASURES, Measure
from eocodec.bench.pictures import Bytes, read_folder
from eocodec.bench.scores import Scorer
from eocodec.errors import EocodecError
from eocodec.inspection.sheets import sheet
from eocodec.model.bundle import Model

__all__ = ["look", "telling_crop"]

CROP = 160  # pixels a side
ENLARGED = 2
STRIDE = 16  # pixels between the places that are tried


def look(
    folder: Path,
    codecs: Sequence[str],
    model: Model,
    rates: Sequence[float],
    limit: int | None = None,
    scorer: Scorer | None = None,
    say: Callable[[str], None] = lambda _: None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Image.Image:
    """A sheet of crops at 2×, original and every codec at equal bytes side by side, labelled.

    A codec's file is the largest that it makes within the bytes; below are its bits per pixel and its scores for the
    whole picture. All crops of a picture are of one place, see :func:`telling_crop`.

    Arguments:
        folder: of pictures.
        codecs: names in :data:`eocodec.bench.codecs.CODECS`.
        model: of eocodec.
        rates: bits per pixel.
        limit: only the first pictures.
        scorer: measures the pictures for the captions; default: PSNR.
        say: gets lines on the way.
        tick: gets how many rows are done, and how many there are.

    Raises:
        EocodecError: no readable picture, an unknown codec, or a rate that is not positive.
    """
    if not all(rate > 0 for rate in rates):
        raise EocodecError("a sheet needs bits per pixel above zero")
    chosen, left_out = registry.choose(codecs)
    for name, reason in left_out.items():
        say(f"{name} is left out: {reason}")
    scorer = scorer or Scorer([MEASURES["psnr"]])
    pictures = read_folder(folder, limit, lambda name, reason: say(f"{name} is left out: {reason}"))
    cells: list[list[np.ndarray | None]] = []
    labels, captions = [], []
    for name, picture in pictures:
        place: tuple[slice, slice] | None = None
        for rate in rates:
            coded = [_fitted(c, picture, rate, model) for c in chosen]
            decoded = [shown for shown, _ in coded]
            place = place or telling_crop(picture, decoded)
            scores = scorer([(picture, shown) for shown in decoded])
            cells.append([_crop(shown, place) for shown in (picture, *decoded)])
            labels.append(f"{Path(name).stem}\n{rate:g} bpp")
            captions.append(
                ["", *(_caption(bpp, row, scorer.measures) for (_, bpp), row in zip(coded, scores, strict=True))]
            )
            tick(len(cells), len(pictures) * len(rates))
    title = f"{Path(folder).name}: crops enlarged {ENLARGED} times, files of at most the same bytes"
    columns = ["original", *(c.label.split(";")[0].split(", tune")[0] for c in chosen)]
    return sheet(cells, labels, columns, title=title, captions=captions, edge=CROP * ENLARGED)


def _fitted(c: Codec, picture: Bytes, rate: float, model: Model) -> tuple[Bytes, float]:
    """The decoded picture of a file within a rate, and the file's own bits per pixel."""
    pixels = picture.shape[0] * picture.shape[1]
    data = registry.fitted(c, picture, int(rate * pixels / 8), model)
    return c.decode(data, model), 8 * len(data) / pixels


def telling_crop(picture: Bytes, decoded: Sequence[Bytes]) -> tuple[slice, slice]:
    """Rows and columns of the square of 160 pixels with the largest squared error, summed over all codecs."""
    height, width = picture.shape[:2]
    error = np.zeros((height, width))
    for shown in decoded:
        error += ((picture.astype(np.float64) - shown) ** 2).sum(2)
    rows, columns = min(CROP, height), min(CROP, width)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = _places(height, rows), _places(width, columns)
    t, s = tops[:, None], lefts[None]
    total = sums[t + rows, s + columns] - sums[t, s + columns] - sums[t + rows, s] + sums[t, s]
    i, j = np.unravel_index(total.argmax(), total.shape)
    top, left = int(tops[i]), int(lefts[j])
    return slice(top, top + rows), slice(left, left + columns)


def _places(size: int, side: int) -> np.ndarray:
    """First pixels of the squares that are tried along an axis."""
    return np.unique([*range(0, size - side + 1, STRIDE), size - side])


def _crop(picture: Bytes, place: tuple[slice, slice]) -> np.ndarray:
    return picture[place].astype(np.float32) / np.float32(255)


def _caption(bpp: float, scores: dict[str, float | None], measures: Sequence[Measure]) -> str:
    shown = [f"{m.label} {scores[m.name]:.{min(m.decimals, 2)}f}" for m in measures if scores[m.name] is not None]
    return "  ".join([f"{bpp:.3f} bpp", *shown])
