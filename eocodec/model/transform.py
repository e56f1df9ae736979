"""Pictures to latents and back through the encoder and decoder graphs; large pictures in tiles.

In: `rgb (H, W, 3)`. Out: latents, and back. Models for pictures of any size have latents `[LL (3, h, w), details L
(9, h, w), …, details 1 (9, 2**(L-1) h, …)]`, float32, of the picture padded (last row and column repeated) to the
model's multiple; flat models have one vector. Tiles overlap by a halo wide enough that what is cut off no longer shows,
so there are no seams (docs/METHOD.md has the measurement).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError
from eocodec.model import unrefined
from eocodec.model.bundle import Model
from eocodec.model.tiles import Tile, padded, scaled, shifted, tiles

__all__ = [
    "HALO",
    "TILE",
    "Latents",
    "Places",
    "Span",
    "analyse",
    "analyse_vector",
    "band_names",
    "interleaved",
    "scales",
    "step_inputs",
    "synthesise",
    "synthesise_tiles",
    "synthesise_vectors",
    "to_levels",
]

TILE = 1024  # pixels; the inner edge of a tile
HALO = 128  # pixels on each side; measured: 64 differs by 1e-3, 96 by 2e-6, 128 by nothing (docs/METHOD.md)
NO_REFINEMENT = 1e-6  # a step at which even 16 bits do not show the decoder's refinement
WHOLE = 1 << 21  # pixels up to which a picture is one tile
CHUNK = 1 << 14  # pixels whose values are made levels at once

Bytes = npt.NDArray[Any]  # levels: uint8, or uint16 of pictures of 16 bits
Float32 = npt.NDArray[np.float32]
Latents = list[Float32]
Span = tuple[int, int]
"""The levels that 0 and 1 stand for."""


def scales(levels: int) -> list[int]:
    """Pixels per latent of every band: `[2**L, 2**L, …, 2]`."""
    return [2**levels] + [2**level for level in range(levels, 0, -1)]


def band_names(levels: int) -> list[str]:
    """Names of the decoder's latent inputs (and of the encoder's outputs)."""
    return ["low"] + [f"detail{level}" for level in range(levels, 0, -1)]


def _values(rgb: npt.NDArray[Any], axes: int = 3, span: Span | None = None) -> Float32:
    """What the encoder graph takes: `(1, 3, H, W)` in 0 to 1, or `(1, 1, H, W)` of grey pictures with one axis."""
    if axes == 1:
        rgb = rgb[..., :1] if rgb.dtype != np.float32 else rgb.mean(2, keepdims=True)
    x = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)
    if rgb.dtype != np.float32:
        low, high = (0, np.iinfo(rgb.dtype).max) if span is None else span
        x -= np.float32(low)
        x /= np.float32(high - low)
    return x


def to_levels(values: Float32, depth: int = 8, span: Span | None = None) -> Bytes:
    """Levels of values, nominally in 0 to 1: uint8, or uint16 at a depth of 16 bits; `span`: those of 0 and 1."""
    low, high = (0, (1 << depth) - 1) if span is None else span
    scaled = np.clip(values, 0, 1)
    scaled *= np.float32(high - low)
    scaled += np.float32(0.5)
    levels: Bytes = scaled.astype(np.uint8 if depth == 8 else np.uint16)
    return np.add(levels, low, dtype=levels.dtype) if low else levels


def interleaved(values: Float32, depth: int = 8, span: Span | None = None) -> Bytes:
    """Levels `(H, W, 3)` of values `(3, H, W)`, or `(1, H, W)` of grey pictures, as :func:`to_levels`.

    Some rows at a time, which stay in the cache.
    """
    _, height, width = values.shape
    result = np.empty((height, width, 3), np.uint8 if depth == 8 else np.uint16)
    step = max(1, CHUNK // width)
    for top in range(0, height, step):
        planes = to_levels(values[:, top : top + step], depth, span)
        for channel in range(3):
            result[top : top + step, :, channel] = planes[channel % len(planes)]
    return result


def analyse(model: Model, rgb: Bytes | Float32, span: Span | None = None) -> Latents:
    """Latents of a picture `(H, W, 3)`: uint8, uint16, or float32 with 0 to 1 as nominal range.

    `span`: the levels that 0 and 1 stand for, if not the least and the greatest that there are.
    """
    levels, axes = model.manifest.levels, model.manifest.axes
    height, width = rgb.shape[:2]
    full_width, full_height = padded(width, model.multiple), padded(height, model.multiple)
    factors = scales(levels)
    latents = [
        np.empty((axes if k == 0 else 3 * axes, full_height // f, full_width // f), np.float32)
        for k, f in enumerate(factors)
    ]
    with model.runtime.series("encoder", full_width * full_height > WHOLE):
        for t in tiles(full_width, full_height, TILE, HALO, WHOLE, strips=True):
            rows, columns = t.outer_rows, t.outer_columns
            piece: npt.NDArray[Any] = rgb[rows.start : rows.stop, columns.start : columns.stop]
            missing = (rows.stop - rows.start - piece.shape[0], columns.stop - columns.start - piece.shape[1])
            if any(missing):
                piece = np.pad(piece, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
            bands = model.run("encoder", {"picture": _values(piece, axes, span)})
            for k, (band, f) in enumerate(zip(bands, factors, strict=True)):
                r, c = scaled(t.rows, f), scaled(t.columns, f)
                latents[k][:, r, c] = band[0][:, shifted(r, rows.start // f), shifted(c, columns.start // f)]
    return latents


@dataclass(frozen=True)
class Places:
    """What models that can be tuned take besides Δ.

    Arguments:
        tune: how much the steps follow the eye, 0 to 1.
        steps: the step of every block of :attr:`Model.multiple` pixels, range 0 to 1, `(rows, columns)`; None: Δ.
    """

    tune: float = 0.0
    steps: Float32 | None = None

    def inputs(self, delta: float, t: Tile, block: int) -> dict[str, Float32]:
        """Inputs of the decoder graph for a tile: on a grid of half the resolution, or 1x1 where all places agree."""
        step = np.full((1, 1, 1, 1), delta, np.float32)
        if self.steps is not None:
            blocks = self.steps[scaled(t.outer_rows, block), scaled(t.outer_columns, block)]
            step = blocks.repeat(block // 2, 0).repeat(block // 2, 1)[None, None]
        return {"step": step, "tune": np.full((1, 1, 1, 1), self.tune, np.float32)}


ANYWHERE = Places()


def step_inputs(model: Model, delta: float, batch: int = 1) -> dict[str, Float32]:
    """What the decoder graph takes besides latents where Δ (range 0 to 1) is the same everywhere, for a batch."""
    if model.manifest.tuned:
        shape = (batch, 1, 1, 1)
        return {"step": np.full(shape, delta, np.float32), "tune": np.zeros(shape, np.float32)}
    return {"step": np.full(batch, delta, np.float32)}


def synthesise_tiles(
    model: Model,
    latents: Latents,
    delta: float,
    width: int,
    height: int,
    places: Places = ANYWHERE,
    refined: bool = True,
) -> Iterator[tuple[slice, slice, Float32]]:
    """Pieces of the picture of latents, decoded at step Δ (range 0 to 1): rows, columns, values `(3, rows, columns)`.

    The step is what the decoder graph takes, see `eocodec.model.manifest.Manifest.decoder_step`. Without refinement
    (`refined`) it is the inverse of the flow alone, whatever Δ is.
    """
    levels = model.manifest.levels
    factors = scales(levels)
    full_height, full_width = (n * factors[0] for n in latents[0].shape[1:])
    graph, delta = ("decoder", delta) if refined else (unrefined.GRAPH, NO_REFINEMENT)
    step = step_inputs(model, delta)
    with model.runtime.series(graph, full_width * full_height > WHOLE):
        for t in tiles(full_width, full_height, TILE, HALO, WHOLE, strips=True):
            if t.rows.start >= height or t.columns.start >= width:
                continue
            inputs = {
                name: np.ascontiguousarray(band[None, :, scaled(t.outer_rows, f), scaled(t.outer_columns, f)])
                for name, band, f in zip(band_names(levels), latents, factors, strict=True)
            }
            if model.manifest.tuned:
                step = places.inputs(delta, t, model.multiple)
            (picture,) = model.run(graph, {**inputs, **step})
            inner = picture[0][:, shifted(t.rows, t.outer_rows.start), shifted(t.columns, t.outer_columns.start)]
            yield t.rows, t.columns, inner[:, : height - t.rows.start, : width - t.columns.start]


def synthesise(
    model: Model,
    latents: Latents,
    delta: float,
    width: int,
    height: int,
    places: Places = ANYWHERE,
    depth: int = 8,
    refined: bool = True,
) -> Bytes:
    """Picture `(H, W, 3)` of dequantised latents, uint8 or, at 16 bits, uint16, see :func:`synthesise_tiles`."""
    rgb = np.empty((height, width, 3), np.uint8 if depth == 8 else np.uint16)
    for rows, columns, values in synthesise_tiles(model, latents, delta, width, height, places, refined):
        rgb[rows, columns] = interleaved(values, depth)
    return rgb


def analyse_vector(model: Model, rgb: Bytes | Float32) -> Float32:
    """Latents `(D,)` of a picture `(S, S, 3)` by a flat model: uint8, or float32 with 0 to 1 as nominal range.

    Raises:
        EocodecError: the picture has another size than the model.
    """
    size = model.flat.size
    if rgb.shape[:2] != (size, size):
        raise EocodecError(
            f"the model {model.name} takes pictures of {size}x{size} pixels, not {rgb.shape[1]}x{rgb.shape[0]}; "
            "crop and scale the picture first"
        )
    (latents,) = model.run("encoder", {"picture": _values(rgb)})
    return np.asarray(latents[0], np.float32)


def synthesise_vectors(model: Model, latents: Float32, delta: "float | Float32") -> Float32:
    """Pictures `(B, S, S, 3)`, clipped to 0 to 1, of dequantised latents `(B, D)` at step Δ (0 to 1), one or `(B,)`.

    A step near zero gives the inverse of the flow alone, without refinement.
    """
    step = np.broadcast_to(np.asarray(delta, np.float32), len(latents)).copy()
    (picture,) = model.run("decoder", {"latents": latents.astype(np.float32), "step": step})
    return np.clip(picture, 0, 1).transpose(0, 2, 3, 1)
