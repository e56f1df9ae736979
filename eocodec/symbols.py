"""The integers that a file holds, before any floating-point arithmetic: what other decoders are compared by.

In: `.eoc` bytes or a prefix of them. Out: one flat int32 array in the order that docs/FORMAT.md, "Test vectors", gives.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from eocodec import flat, format, lossless, progressive
from eocodec.bundle import Model
from eocodec.codec import find_model, find_tiny_model, flat_payload
from eocodec.entropy import Decoder, Walk
from eocodec.latents import PHASES, Unit, band_steps

__all__ = ["symbols"]

Int32 = npt.NDArray[np.int32]


def symbols(data: bytes, model: str | Path | Model | None = None) -> Int32:
    """All integers of a file, one after another.

    Arguments:
        data: the file.
        model: bundle to use; default: the shipped one that the file names.

    Returns:
        int32 `(n,)`, bands one after another, each in C order: of an ordinary file the low-pass integers and every
        detail latent in 1/16 steps; of an embedded stream the low-pass in 1/16 levels and, of every detail latent,
        its sign times (2 lower + width); of models with one latent vector the latents in 1/16 steps; of a lossless
        file R, G, B of every pixel.

    Raises:
        FormatError: not an `.eoc` file, damaged, or its model is not at hand.
    """
    if format.is_tiny(data):
        small = format.parse_tiny(data)
        return flat.integers(find_tiny_model(small.number, model), small.step_code, small.payload)
    file = format.parse(data)
    header = file.header
    loaded = find_model(header.model, model)
    payload = b"".join(s.payload for s in file.segments)
    if loaded.kind == "flat":
        return flat.integers(loaded, header.step, flat_payload(loaded, file))
    if file.lossless is not None:
        rgb, _ = lossless.decode(loaded, header.width, header.height, file.lossless, file.segments)
        return rgb.astype(np.int32).ravel()
    if header.embedded:
        return np.concatenate([b.ravel() for b in progressive.cells(loaded, header.width, header.height, payload)])
    walk = Walk(loaded, header)
    coder = _Collector(loaded, file.segments, band_steps(loaded.manifest, header.delta), walk)
    low = walk.run(coder)
    return np.concatenate([low.ravel(), *(b.ravel() for b in coder.values)])


class _Collector(Decoder):
    """The decoder, keeping the values of the latents in 1/16 steps; zero where nothing is coded."""

    def __init__(self, model: Model, segments: tuple[format.Segment, ...], steps: list[npt.NDArray[np.float32]],
                 walk: Walk) -> None:  # fmt: skip
        super().__init__(model, segments, steps, walk)
        sizes = [walk.grid_size(level) for level in range(self.levels, 0, -1)]
        self.values = [np.zeros((9, 2 * rows, 2 * columns), np.int32) for rows, columns in sizes]

    def strip(
        self, unit: Unit, rows: slice, valid: list[tuple[int, int]], mean: Int32, index: npt.NDArray[np.uint8]
    ) -> Int32:
        result = super().strip(unit, rows, valid, mean, index)
        band = self.values[self.levels - unit.level][unit.channels]
        for value, phase, (bottom, right) in zip(result, unit.phases, valid, strict=True):
            i, j = PHASES[phase]
            stop = max(rows.start, min(rows.stop, bottom))
            band[:, i::2, j::2][:, rows.start : stop, :right] = value[:, : stop - rows.start, :right]
        return result
