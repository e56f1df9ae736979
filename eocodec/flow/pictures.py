"""Training pictures: a folder of photos held in memory, and an endless, seeded stream of random crops.

In: a folder (searched recursively). Out: uint8 crops `(B, 3, S, S)`. The stream's whole state is one NumPy bit
generator, so a resumed run continues with the crops it would have seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["CropStream", "read_folder", "split"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif"}

Picture = npt.NDArray[np.uint8]


def read_folder(folder: Path) -> list[tuple[str, Picture]]:
    """All pictures below `folder` in name order, as (file name, `(H, W, 3)` uint8).

    Raises:
        FileNotFoundError: the folder does not exist or holds no picture.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no pictures found under {folder}")
    return [(p.name, np.asarray(Image.open(p).convert("RGB"))) for p in paths]


def split(
    pictures: Sequence[tuple[str, Picture]], every: int
) -> tuple[list[tuple[str, Picture]], list[tuple[str, Picture]]]:
    """Training and validation pictures: each `every`-th one (by name order) is held out."""
    train = [p for k, p in enumerate(pictures) if k % every]
    return train, [p for k, p in enumerate(pictures) if k % every == 0]


class CropStream:
    """Random crops with random flips, transposition and (for some) rescaling.

    Arguments:
        pictures: arrays `(H, W, 3)`.
        size: crop edge S in pixels; smaller pictures are skipped.
        seed: of the stream.
        rescale: probability that a crop is taken from a region 0.65 to 1.5 times S wide and resampled (Lanczos).
    """

    def __init__(self, pictures: Sequence[Picture], size: int, seed: int, rescale: float = 0.5) -> None:
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= size * 3 // 2]
        if not self.pictures:
            raise ValueError(f"no training picture is at least {size * 3 // 2} pixels wide and high")
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], dtype=np.float64)
        self.weights = np.cumsum(areas / areas.sum())
        self.size, self.rescale = size, rescale
        self.random = np.random.Generator(np.random.PCG64(seed))

    def state(self) -> dict[str, Any]:
        """State of the stream, to be kept in a checkpoint."""
        return dict(self.random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.random.bit_generator.state = state

    def batch(self, n: int) -> Picture:
        """The next n crops, `(n, S, S, 3)`."""
        return np.stack([self._crop() for _ in range(n)])

    def _crop(self) -> Picture:
        r = self.random
        picture = self.pictures[int(np.searchsorted(self.weights, r.random()).clip(0, len(self.pictures) - 1))]
        scaled = r.random() < self.rescale
        edge = round(self.size * float(np.exp(r.uniform(np.log(0.65), np.log(1.5))))) if scaled else self.size
        top = int(r.integers(picture.shape[0] - edge + 1))
        left = int(r.integers(picture.shape[1] - edge + 1))
        crop = picture[top : top + edge, left : left + edge]
        if edge != self.size:
            image = Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.LANCZOS)
            crop = np.asarray(image)
        turn = int(r.integers(8))
        if turn & 1:
            crop = crop[::-1]
        if turn & 2:
            crop = crop[:, ::-1]
        return crop.swapaxes(0, 1) if turn & 4 else crop
