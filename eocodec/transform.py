"""Pictures to latents and back through the encoder and decoder graphs; large pictures in tiles.

In: `rgb (H, W, 3)` uint8. Out: latents `[LL (3, h, w), details L (9, h, w), …, details 1 (9, 2**(L-1) h, …)]`, float32,
of the picture padded (last row and column repeated) to the model's multiple. Tiles overlap by a halo wide enough
that what is cut off no longer shows, so there are no seams (docs/METHOD.md has the measurement).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.bundle import Model

__all__ = ["HALO", "TILE", "band_names", "decode_latents", "decode_tiles", "encode_picture", "padded_size"]

TILE = 1024  # pixels; the inner edge of a tile
HALO = 128  # pixels on each side; measured: 64 differs by 1e-3, 96 by 2e-6, 128 by nothing (docs/METHOD.md)
WHOLE = 1 << 21  # pixels up to which a picture is one tile

Latents = list[npt.NDArray[np.float32]]


def padded_size(width: int, height: int, multiple: int) -> tuple[int, int]:
    """Width and height rounded up to the model's multiple."""
    return -(-width // multiple) * multiple, -(-height // multiple) * multiple


def _tiles(width: int, height: int) -> Iterator[tuple[slice, slice, slice, slice]]:
    """(outer rows, outer columns, inner rows, inner columns) of every tile; all multiples of the block size."""
    if width * height <= WHOLE:
        yield slice(0, height), slice(0, width), slice(0, height), slice(0, width)
        return
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            outer_rows = slice(max(0, top - HALO), min(height, bottom + HALO))
            outer_columns = slice(max(0, left - HALO), min(width, right + HALO))
            yield outer_rows, outer_columns, slice(top, bottom), slice(left, right)


def _scaled(s: slice, n: int) -> slice:
    return slice(s.start // n, s.stop // n)


def _shifted(s: slice, origin: int) -> slice:
    return slice(s.start - origin, s.stop - origin)


def scales(levels: int) -> list[int]:
    """Pixels per latent of every band: `[2**L, 2**L, …, 2]`."""
    return [2**levels] + [2**level for level in range(levels, 0, -1)]


def band_names(levels: int) -> list[str]:
    """Names of the decoder's latent inputs (and of the encoder's outputs)."""
    return ["low"] + [f"detail{level}" for level in range(levels, 0, -1)]


def encode_picture(model: Model, rgb: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Latents:
    """Latents of a picture `(H, W, 3)`: uint8, or float32 with 0 to 1 as nominal range."""
    levels = model.manifest.levels
    height, width = rgb.shape[:2]
    full_width, full_height = padded_size(width, height, model.multiple)
    factors = scales(levels)
    latents = [
        np.empty((3 if k == 0 else 9, full_height // f, full_width // f), np.float32) for k, f in enumerate(factors)
    ]
    for rows, columns, inner_rows, inner_columns in _tiles(full_width, full_height):
        piece: npt.NDArray[Any] = rgb[rows.start : rows.stop, columns.start : columns.stop]
        missing = (rows.stop - rows.start - piece.shape[0], columns.stop - columns.start - piece.shape[1])
        if any(missing):
            piece = np.pad(piece, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
        x = np.ascontiguousarray(piece.transpose(2, 0, 1)[None], dtype=np.float32)
        if piece.dtype == np.uint8:
            x /= np.float32(255)
        for k, (band, f) in enumerate(zip(model.run("encoder", {"picture": x}), factors, strict=True)):
            r, c = _scaled(inner_rows, f), _scaled(inner_columns, f)
            latents[k][:, r, c] = band[0][:, _shifted(r, rows.start // f), _shifted(c, columns.start // f)]
    return latents


def decode_tiles(
    model: Model, latents: Latents, delta: float, width: int, height: int
) -> Iterator[tuple[slice, slice, npt.NDArray[np.float32]]]:
    """Pieces of the picture of dequantised latents at step Δ: rows, columns and values `(3, rows, columns)`."""
    levels = model.manifest.levels
    factors = scales(levels)
    full_height, full_width = (n * factors[0] for n in latents[0].shape[1:])
    step = np.array([delta], np.float32)
    for rows, columns, inner_rows, inner_columns in _tiles(full_width, full_height):
        if inner_rows.start >= height or inner_columns.start >= width:
            continue
        inputs = {
            name: np.ascontiguousarray(band[None, :, _scaled(rows, f), _scaled(columns, f)])
            for name, band, f in zip(band_names(levels), latents, factors, strict=True)
        }
        (picture,) = model.run("decoder", {**inputs, "step": step})
        inner = picture[0][:, _shifted(inner_rows, rows.start), _shifted(inner_columns, columns.start)]
        rows_left, columns_left = height - inner_rows.start, width - inner_columns.start
        yield inner_rows, inner_columns, inner[:, :rows_left, :columns_left]


def decode_latents(model: Model, latents: Latents, delta: float, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Picture `(H, W, 3)` uint8 of dequantised latents at step Δ (range 0 to 1)."""
    rgb = np.empty((height, width, 3), np.uint8)
    for rows, columns, values in decode_tiles(model, latents, delta, width, height):
        levels = np.floor(np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5))
        rgb[rows, columns] = levels.astype(np.uint8).transpose(1, 2, 0)
    return rgb
