"""Coarse previews: about what a file decodes to, from a smaller copy of the picture.

In: a picture, the steps that its file will have, and C. Out: the picture that the copy's file decodes to. Halving a
picture halves the coefficients that its copy has in common with it, and moves them to the level that is finer by one:
so level k of a copy that was halved s times gets the step of level k + s of the file, divided by 2**s.
"""

import numpy as np
from PIL import Image

from eocodec.coding.fineness import Fineness, Int8, StepTuning
from eocodec.coding.ordinary import OrdinaryJob
from eocodec.coding.registry import ORDINARY
from eocodec.format import Header
from eocodec.image import Bytes, Picture
from eocodec.model.bundle import Model
from eocodec.steps import STEP_UNIT

__all__ = ["PREVIEW_PIXELS", "Preview"]

PREVIEW_PIXELS = 3 << 16  # of a preview, at most: a fifth of a second of one core


class Preview:
    """Previews of one picture.

    Arguments:
        model: for pictures of any size.
        picture: without transparency.
        tuning: of its file.
    """

    def __init__(self, model: Model, picture: Picture, tuning: StepTuning) -> None:
        self.halvings = 0
        while picture.pixels > 4**self.halvings * PREVIEW_PIXELS:
            self.halvings += 1
        factor = 2**self.halvings
        copy = picture.rgb if factor == 1 else np.asarray(Image.fromarray(picture.rgb).reduce(factor))
        offsets = None if tuning.offsets is None else _averaged(tuning.offsets, factor)
        self.picture = Picture(copy, None, picture.grey)
        self._job = _Job(model, self.picture, StepTuning(tuning.degree, offsets), self.halvings)

    def at(self, rate: float) -> Bytes:
        """The preview of the file of C, `(h, w, 3)`.

        Raises:
            EocodecError: C is out of range.
        """
        manifest = self._job.model.manifest
        finest = manifest.step_of(manifest.block)  # the nets know none that is finer
        rgb, _ = self._job.draft(max(manifest.step_of(rate) / 2**self.halvings, finest))
        return rgb


class _Job(OrdinaryJob):
    """A copy, coded with the steps of the picture's file."""

    def __init__(self, model: Model, copy: Picture, tuning: StepTuning, halvings: int) -> None:
        super().__init__(ORDINARY, model, copy, None, tuning)
        self.halvings = halvings

    def _plan(self, delta: float) -> tuple[Header, Fineness]:
        header, _ = super()._plan(delta)
        return header, _Moved(self.model, header, self.tuning.offsets, self.halvings)


class _Moved(Fineness):
    """Steps of the bands that lie so many levels below."""

    def __init__(self, model: Model, header: Header, offsets: Int8 | None, halvings: int) -> None:
        super().__init__(model, header, offsets)
        self.halvings = halvings
        self.gains = [float(np.log2(step).mean()) for step in self.manifest.steps(1.0)]

    def code(self, band: int) -> int:
        """See :meth:`Fineness.code`."""
        source = max(band - self.halvings, min(band, 1))
        return super().code(source) + round(STEP_UNIT * (self.gains[source] - self.gains[band]))


def _averaged(offsets: Int8, factor: int) -> Int8:
    """A map with the mean of `factor` entries, each way, in place of them."""
    height, width = offsets.shape
    full = np.pad(offsets.astype(np.float64), [(0, -height % factor), (0, -width % factor)], "edge")
    parts = full.reshape(full.shape[0] // factor, factor, -1, factor)
    return np.rint(parts.mean((1, 3))).astype(np.int8)
