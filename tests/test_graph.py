"""Training steps as CUDA graphs, where there is a GPU: they give what the same kernels give one by one."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from eocodec.flow.configuration import TrainingConfig  # noqa: E402
from eocodec.flow.model import PhotoConfig  # noqa: E402
from eocodec.flow.trainable import Stage  # noqa: E402
from eocodec.flow.training import Run  # noqa: E402

SIZES = PhotoConfig(
    levels=2, width=4, steps=1, features=6, context_width=8, context_depth=2, rotated=True, tuned=True, refine_width=4,
    refine_blocks=1, refine_coarse=4, embedded=True, gain_widths=(8, 12), gain_blocks=1, noise_width=4,
)  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("objective", ["rate-distortion", "entropy", "refinement", "embedded", "denoising"])
def test_recorded_steps_are_those_one_by_one(objective: str, tmp_path: Path, chelsea: np.ndarray) -> None:
    losses = []
    for graphs in (True, False):
        stage = Stage(
            objective, 12, tuned=0.5, varied=0.5, eye=0.2 if objective == "rate-distortion" else 0.0, noise=9.0
        )
        config = TrainingConfig(
            Path(), tmp_path / "run", (stage,), SIZES, crop=32, batch=4, optimiser="soap", graphs=graphs, autocast="off"
        )
        run = Run(config, torch.device("cuda"), pictures=([("chelsea", chelsea)], []))
        assert run.graphs == graphs
        losses.append([run.advance()["loss"] for _ in range(12)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
