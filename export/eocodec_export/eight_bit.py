"""The refinement in a decoder graph for kernels that multiply 8-bit integers.

In: a photo model, its decoder graph with float32 constants, and pictures. Out: the graph with most of the refinement's
convolutions between `QuantizeLinear` and `DequantizeLinear`, which ONNX Runtime makes `QLinearConv` of. Weights have 7
bits, since kernels of processors without VNNI add two products in 16 bits (`eocodec.flow.context`); the ranges of the
activations are those of files of the pictures. The inverse of the flow stays as it is.

References:
    ONNX Runtime, *Quantize ONNX models*, static quantisation in the QDQ format.
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from eocodec.adapt.measure import centre
from eocodec.flow.context import Steps
from eocodec.flow.model import PhotoModel
from eocodec.model import transform

__all__ = ["CALIBRATED", "LEVELS", "decoder_inputs", "eight_bit_refinement"]

Inputs = dict[str, npt.NDArray[np.float32]]

CALIBRATED = 6  # pictures that are enough
EDGE = 512  # pixels of their middles at most
LEVELS = (20.0, 40.0, 80.0, 116.0, 180.0)  # steps of the files, in 8-bit levels
TUNES = (0.0, 1.0)
NODES = re.compile(r"/refine/(blocks|tail).*/(Conv|Relu)$")  # all but the layers that see picture and latents


class _Runs(CalibrationDataReader):  # type: ignore[misc]  # untyped
    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self.inputs = iter(inputs)

    def get_next(self) -> Any:
        return next(self.inputs, None)


@torch.no_grad()
def decoder_inputs(model: PhotoModel, pictures: Sequence[npt.NDArray[np.uint8]], dead_zone: float) -> list[Inputs]:
    """What the decoder graph takes for files of pictures at several steps, tuned for the eye and not.

    Arguments:
        model: that can be tuned.
        pictures: `(H, W, 3)`.
        dead_zone: weight of the rate in rounding.
    """
    names = transform.band_names(model.config.levels)
    inputs: list[Inputs] = []
    for picture in pictures:
        middle = centre(picture, 2 ** (model.config.levels + 1), EDGE)
        x = torch.from_numpy(middle).permute(2, 0, 1)[None].float() / 255
        h = model.flow(x)
        for level in LEVELS:
            for tune in TUNES:
                steps = Steps(torch.tensor([level / 255]), torch.tensor([tune]))
                decoded = model.latents(h, steps, dead_zone, True).decoded
                places = {"step": level / 255, "tune": tune}
                inputs.append(
                    {n: d.numpy() for n, d in zip(names, decoded, strict=True)}
                    | {n: np.full((1, 1, 1, 1), v, np.float32) for n, v in places.items()}
                )
    return inputs


def eight_bit_refinement(decoder: bytes, inputs: Sequence[Mapping[str, Any]]) -> bytes:
    """A decoder graph whose refinement kernels for 8-bit integers run; `inputs` show what its activations are."""
    graph = onnx.load_from_string(decoder).graph
    logger = logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(decoder)
        try:
            logger.setLevel(logging.ERROR)  # it recommends a pass that changes names
            quantize_static(
                before,
                after,
                _Runs([dict(i) for i in inputs]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "Relu"],  # ranges of all activations would take thrice as long
                nodes_to_quantize=[n.name for n in graph.node if NODES.match(n.name)],
            )
        finally:
            logger.setLevel(level)
        return after.read_bytes()
