"""Pictures that are drawn rather than photographed: text, charts, pixel art, scans of one bit, screens.

In: a picture, and how it is kept exactly. Out: the exact file, where it takes no more bytes than a lossy one would.

A transform made for photographs spends many bits on hard edges. Such pictures are recognised by repetition, and the
size of their exact file is first told from WebP's lossless coder, which is fast.
"""

import io
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from eocodec.image import Bytes, Picture

__all__ = ["Exact", "is_drawn"]

REPEATED = 0.25  # share of pixels that equal their left neighbours, from which on a picture may be drawn
COLOURS = 256  # or it has at most so many
SAMPLE = 64  # rows that are looked at
HOPE = 1.5  # an exact file may be so much smaller than WebP's
SMALL = 400  # bytes up to which there is nothing to win
LARGE = 1 << 24  # pixels from which on the exact coder, some 20 s a megapixel, would take too long
WEBP_EDGE = 16383  # pixels, of WebP's largest picture


class _Compressed(Protocol):
    @property
    def data(self) -> bytes: ...


C = TypeVar("C", bound=_Compressed)


class Exact(Generic[C]):
    """The exact file of a picture, made when it is first worth it.

    Arguments:
        picture: what is to be kept.
        make: gives the exact file.
    """

    def __init__(self, picture: Picture, make: Callable[[], C]) -> None:
        self.picture, self._make = picture, make
        self._estimate: float | None = None
        self._made: C | None = None

    def within(self, size: int) -> C | None:
        """The exact file, if it has at most `size` bytes and that could be told without much work."""
        if size < SMALL or self.picture.pixels > LARGE:
            return None
        if self._estimate is None:
            self._estimate = _estimate(self.picture.rgb) if is_drawn(self.picture.rgb) else float("inf")
        if self._estimate > HOPE * size:
            return None
        if self._made is None:
            self._made = self._make()
        return self._made if len(self._made.data) <= size else None


def is_drawn(rgb: Bytes) -> bool:
    """Whether a picture `(H, W, 3)` repeats its neighbours or has few colours, as photographs do not."""
    rows = rgb[:: max(1, len(rgb) // SAMPLE)].astype(np.uint32)
    colours = rows[..., 0] << 16 | rows[..., 1] << 8 | rows[..., 2]
    repeated = float((colours[:, 1:] == colours[:, :-1]).mean()) if colours.shape[1] > 1 else 1.0
    return repeated >= REPEATED or len(np.unique(colours)) <= COLOURS


def _estimate(rgb: Bytes) -> float:
    """Bytes of a picture in WebP's lossless form, in a fast way."""
    if max(rgb.shape) > WEBP_EDGE:
        return float("inf")
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "WEBP", lossless=True, quality=50, method=2)
    return len(out.getvalue())
