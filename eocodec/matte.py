"""Colours under transparency: what is hidden takes the smoothest values, so that it costs nothing and shows nowhere.

In: a picture with transparency. Out: the picture with hidden pixels coloured from the visible ones around them, which
keeps the dark or bright colours that lie under a soft edge from showing through it when it is coded lossily. Smooth
values are right for lossy coders; for exact ones, which copy, hidden pixels repeat a visible one of their row.

References:
    Gortler et al., *The Lumigraph*, 1996, section 3.2 (pull and push). https://doi.org/10.1145/237170.237200
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec.image import Bytes, Picture

__all__ = ["filled", "repeated", "spread"]

Float32 = npt.NDArray[np.float32]


def filled(picture: Picture) -> Picture:
    """The picture with other colours where it is fully transparent; itself where it has no such place."""
    if picture.alpha is None or bool(picture.alpha.all()):
        return picture
    return replace(picture, rgb=spread(picture.rgb, picture.alpha))


def repeated(picture: Picture) -> Picture:
    """The picture with hidden pixels equal to the visible one before them; itself where it has none.

    Before the first one of a row it is that which is repeated, and rows that are hidden altogether are as the visible
    one above them, or else the first one.
    """
    if picture.alpha is None or bool(picture.alpha.all()):
        return picture
    visible = picture.alpha > 0
    if not visible.any():
        return replace(picture, rgb=np.zeros_like(picture.rgb))
    columns = _last(visible)
    rows = _last(np.any(visible, 1, keepdims=True).T)[0]
    return replace(picture, rgb=picture.rgb[rows[:, None], columns[rows]])


def _last(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Where the last flag that is set up to each place of a row is; the first one where there is none before."""
    places = np.where(flags, np.arange(flags.shape[1]), -1)
    last = np.maximum.accumulate(places, 1)
    return np.where(last < 0, np.argmax(flags, 1)[:, None], last)


def spread(rgb: Bytes, alpha: Bytes) -> Bytes:
    """Colours `(H, W, 3)` with those under `alpha` = 0 `(H, W)` made from visible ones nearby; black without any."""
    hidden = alpha == 0
    if hidden.all():
        return np.zeros_like(rgb)
    weight = alpha.astype(np.float32)
    colours = _known(rgb.astype(np.float32), weight)
    result = rgb.copy()
    result[hidden] = np.floor(colours + np.float32(0.5)).astype(rgb.dtype)[hidden]
    return result


def _known(colours: Float32, weight: Float32) -> Float32:
    """Colours `(H, W, 3)` everywhere: the given ones where they have weight `(H, W)`, elsewhere coarser means."""
    if weight.all() or weight.shape == (1, 1):
        return colours
    total = _halved(weight[:, :, None])
    mean = _halved(colours * weight[:, :, None]) / np.maximum(total, np.float32(1e-6))
    coarse = _known(mean.astype(np.float32, copy=False), np.minimum(total[:, :, 0], np.float32(255)))
    size = weight.shape[1], weight.shape[0]
    rise = [np.asarray(Image.fromarray(coarse[:, :, k]).resize(size, Image.Resampling.BILINEAR)) for k in range(3)]
    return np.where(weight[:, :, None] > 0, colours, np.stack(rise, 2)).astype(np.float32)


def _halved(values: Float32) -> Float32:
    """Sums over 2x2 values of `(H, W, N)`, over fewer at the right and the bottom."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], 2), 0)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], 2), 1)
