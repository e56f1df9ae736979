"""Sets of pictures: handwritten digits that ship with scikit-learn, and aligned faces from a tar or a folder."""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from eocodec.errors import EocodecError
from eocodec.flow.pictures import decoded
from eocodec.lab.data.dataset import Dataset, Float32, Floats, pooled
from eocodec.lab.measures.supervised.factors import Factors

__all__ = ["FACE_STATISTICS", "digits", "face_statistics", "faces", "read_pictures"]

FACE_STATISTICS = (
    "luma", "contrast", "light from left", "light from top", "red-blue", "green", "saturation", "eyes", "mouth",
    "cheeks", "forehead", "chin", "left border", "right border", "top border", "bottom border",
)  # fmt: skip


def digits(size: int = 16, seed: int = 0) -> Dataset:
    """The 1,797 digits of 8×8 pixels that scikit-learn ships, enlarged; a quarter is held out. Factor: the class.

    Example:
        >>> digits().shape
        (1, 16, 16)
    """
    from sklearn.datasets import load_digits

    held = load_digits()
    pictures = np.stack(
        [np.asarray(Image.fromarray((p * 15.9375).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC))
         for p in held.images]
    )  # fmt: skip
    x = (pictures.astype(np.float32) / np.float32(255))[:, None]
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) * 3 // 4
    classes = Factors(held.target[order[cut:], None].astype(np.float64), (True,), ("digit",))
    names = tuple(f"{r + 1},{c + 1}" for r in range(8) for c in range(8))
    return Dataset("digits", x[order[:cut]], x[order[cut:]], classes, names, pooled, 0.1, pictures=True)


def read_pictures(path: Path, limit: int | None = None) -> Float32:
    """Pictures `(n, 3, H, W)` in 0 to 1 from a tar or a folder, in order of name.

    Raises:
        EocodecError: nothing can be read, a picture cannot, or they differ in size; the file is named.
    """
    try:
        if path.is_dir():
            content = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
        else:
            with tarfile.open(path) as tar:
                content = {m.name: f.read() for m in tar if m.isfile() and (f := tar.extractfile(m))}
    except (OSError, tarfile.TarError) as e:
        raise EocodecError(f"{path} is not a tar or folder of pictures: {e}") from None
    names = sorted(content)[:limit]
    pictures = [decoded((n, f"{n} in {path}", content[n])) for n in names]
    if not pictures:
        raise EocodecError(f"{path} holds no pictures")
    for name, picture in zip(names, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            height, width = picture.shape[:2]
            raise EocodecError(
                f"{path} must hold pictures of one size: {name} has {width}x{height} pixels, "
                f"{names[0]} {pictures[0].shape[1]}x{pictures[0].shape[0]}"
            )
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def faces(train: Path, held_out: Path, limit: int | None = None) -> Dataset:
    """Aligned faces of 64×64 pixels, tars or folders; features are the sixteen `FACE_STATISTICS`.

    Raises:
        EocodecError: the pictures cannot be read or have another size.
    """
    x, y = read_pictures(train, limit), read_pictures(held_out)
    for part in (x, y):
        if part.shape[1:] != (3, 64, 64):
            raise EocodecError(f"faces must have 64x64 pixels, not {part.shape[3]}x{part.shape[2]}")
    return Dataset("faces", x, y, None, FACE_STATISTICS, face_statistics, 10 / 255, pictures=True)


def face_statistics(x: Float32) -> Floats:
    """Named statistics `(n, 16)` of faces `(n, 3, 64, 64)`, see `FACE_STATISTICS`.

    "eyes", "mouth" and so on are the mean luma there less the mean luma of the picture.
    """
    r, g, b = (x[:, c].astype(np.float64) for c in range(3))
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    mean = luma.mean((1, 2))

    def region(top: int, bottom: int, left: int, right: int) -> Floats:
        return np.asarray(luma[:, top:bottom, left:right].mean((1, 2)) - mean)

    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    columns = [
        mean,
        luma.std((1, 2)),
        luma[:, :, :32].mean((1, 2)) - luma[:, :, 32:].mean((1, 2)),
        luma[:, :32].mean((1, 2)) - luma[:, 32:].mean((1, 2)),
        (r - b).mean((1, 2)),
        (g - (r + b) / 2).mean((1, 2)),
        (high - low).mean((1, 2)),
        region(18, 28, 10, 54),
        region(42, 54, 18, 46),
        region(30, 40, 8, 56),
        region(4, 14, 16, 48),
        region(54, 62, 20, 44),
        region(8, 56, 0, 6),
        region(8, 56, 58, 64),
        region(0, 5, 8, 56),
        region(59, 64, 8, 56),
    ]
    return np.stack(columns, 1)
