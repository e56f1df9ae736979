"""`face64` as a subject: its flow in torch, with the weights that its bundle holds.

This is the only place of the lab that reads bundles.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from eocodec.flow.face import FaceConfig, FaceFlow
from eocodec.lab.subjects.subject import Float32, Floats, TorchSubject
from eocodec.model.library import load_model

__all__ = ["FaceSubject", "bundled_flow"]

NOISE = 10 / 255
SHORT = "/short"  # ends the names of initialisers that are stored in 16 bits


def bundled_flow(model: str = "face64") -> tuple[FaceFlow, Floats]:
    """The flow of a bundle of this kind and the explained entropies of its latents `(D,)`.

    Arguments:
        model: name or path of a bundle.

    Raises:
        ModelError: there is no such bundle, or it is of another kind.
    """
    import onnx
    from onnx import numpy_helper

    bundle = load_model(model)
    manifest = bundle.flat
    graph = onnx.load_from_string(bundle.files["encoder.onnx"]).graph
    weights = {
        i.name.removesuffix(SHORT).removeprefix("flow."): numpy_helper.to_array(i).astype(np.float32)
        for i in graph.initializer
        if i.name.startswith("flow.")
    }
    levels = sum(name.startswith("predict.") and name.endswith(".place") for name in weights)
    config = replace(
        FaceConfig(),
        size=manifest.size,
        levels=levels,
        width=weights["predict.0.place"].shape[1],
        core=manifest.blocks[-1],
        head=weights["couplings.0.net.0.weight"].shape[1],
        dense_width=weights["couplings.0.net.0.weight"].shape[0],
        blocks=tuple(manifest.blocks),
    )
    constants = bundle.constants
    reflections = constants["reflections"].reshape(-1, len(constants["signs"]))[: config.core]
    weights |= {"rotation.vectors": np.ascontiguousarray(reflections.T), "rotation.signs": constants["signs"]}
    flow = FaceFlow(config)
    flow.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
    return flow.eval().requires_grad_(False), np.array(manifest.entropy)


class FaceSubject(TorchSubject):
    """A flow of aligned faces: all latents, or with `eocodec.lab.subjects.subject.Core` the first ones.

    Arguments:
        flow, entropies: see `bundled_flow`; the latents are ordered by their explained entropies.
        name: in reports.

    Raises:
        ValueError: the entropies are not those of the flow's latents.
    """

    standard = False

    def __init__(self, flow: FaceFlow, entropies: Floats, name: str = "face64") -> None:
        dims = sum(flow.sizes)
        if len(entropies) != dims:
            raise ValueError(f"{dims} latents, but {len(entropies)} entropies.")
        super().__init__(name, dims, NOISE)
        self.flow, self.entropies = flow, entropies

    def push(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.flow(x), None

    def pull(self, z: Tensor) -> Tensor:
        return self.flow.inverse(z)

    def importance(self, x: Float32) -> Floats:
        core = self.flow.config.core
        # what lies beyond the core comes after it, as in the codec
        return np.where(np.arange(self.latents) < core, self.entropies, self.entropies - 1e6)
