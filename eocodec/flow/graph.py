"""A training step's kernels as a CUDA graph: recorded once, then replayed, which costs the CPU one call instead of
thousands.

The nets of a codec are small; launched one by one, their kernels leave most of a GPU idle. A graph holds addresses, so
pictures and steps are copied to where the recorded ones were, and gradients always appear in the same tensors.
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from eocodec.flow.loss import Drawn

__all__ = ["StepGraph"]

WARM_UP = 3  # runs before recording, in which libraries choose kernels and allocate what they keep

Evaluate = Callable[[Drawn, Tensor], tuple[Tensor, dict[str, Tensor], Tensor]]


class StepGraph:
    """Loss and gradients of batches of one size on one GPU.

    Arguments:
        evaluate: loss, figures and pairs of what was drawn and the expected losses, as `BatchLoss.evaluate`.
        drawn, expected: the first batch; others must have its shapes.
        parameters: whose gradients are wanted. They must not be set to None between replays, which overwrite them.
    """

    def __init__(self, evaluate: Evaluate, drawn: Drawn, expected: Tensor, parameters: list[Tensor]) -> None:
        self._drawn = Drawn(*(None if v is None else v.clone() for v in _tensors(drawn)))  # type: ignore[arg-type]
        self._expected = expected.clone()

        def run() -> tuple[Tensor, list[str], Tensor]:
            for p in parameters:
                p.grad = None
            loss, figures, pairs = evaluate(self._drawn, self._expected)
            loss.backward()  # type: ignore[no-untyped-call]
            return torch.stack([loss.detach(), *(v.to(loss) for v in figures.values())]), [*figures], pairs

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._values, self.names, self._pairs = run()

    def __call__(self, drawn: Drawn, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and figures as one tensor, in the order of "loss" and `names`, and the pairs; gradients are set."""
        for to, value in zip(_tensors(self._drawn), _tensors(drawn), strict=True):
            if to is not None and value is not None:
                to.copy_(value)
        self._expected.copy_(expected)
        self._graph.replay()
        return self._values, self._pairs


def _tensors(drawn: Drawn) -> list[Tensor | None]:
    return [getattr(drawn, f.name) for f in fields(drawn)]
