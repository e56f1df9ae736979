"""Paths of known operations in the frozen core of face64: flows of potentials beside one direction for each.

    python benchmarks/lab/face_paths.py EVAL --train TRAIN --json benchmarks/lab/face-paths.json --plot face-paths.png \
        --export eocodec/models/face64.eocp

EVAL and TRAIN are tars or folders of 64×64 faces. The first 32 latents are moved, the others stay at their means in
what is measured. Light, tint, side light, turn and shift by one to T steps.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eocodec_export.graphs import export_graph
from PIL import Image
from torch import Tensor, nn

from eocodec.lab.data.pictures import read_pictures
from eocodec.lab.paths.editing import PathManifest, write_paths
from eocodec.lab.paths.frozen import OPERATIONS, carried, frozen_errors, learn_frozen
from eocodec.lab.paths.movers import FlowMover, LinearMover, Mover
from eocodec.lab.paths.potential import NetPotential
from eocodec.lab.subjects.face import FaceSubject, bundled_flow
from eocodec.lab.subjects.subject import Core, Float32
from eocodec.model.library import load_model

STEPS = 3
EXPORTED = ("light", "tint", "side light")  # turn and shift need more than these latents, and change who it is


def flow(dim: int, count: int) -> Mover:
    """Potentials without the density term: latents are carried, not drawn."""
    return FlowMover(dim, count, 64, hamilton_jacobi=0.1, density=0.0, at_rest=0.0)


MOVERS = {"flow": flow, "linear": LinearMover}


class Displacement(nn.Module):
    """One step along a potential's gradient, the embedding of time as a table: arithmetic that a graph may hold."""

    table: Tensor

    def __init__(self, potential: NetPotential) -> None:
        super().__init__()
        self.potential = potential
        self.register_buffer("table", potential.time(torch.arange(1.0, STEPS + 1)).detach())

    def forward(self, latents: Tensor, moment: Tensor) -> Tensor:
        u = self.potential
        low = torch.tanh(latents @ u.inner.weight.T)
        high = torch.tanh((low + moment @ self.table) @ u.outer.weight.T + u.outer.bias)
        back = ((1 - high * high) * u.readout.weight[0]) @ u.outer.weight
        return (back * (1 - low * low)) @ u.inner.weight


def export_paths(target: Path, core: Core, mover: FlowMover, names: tuple[str, ...]) -> None:
    """Write those paths of a mover that look right as a file for `eocodec edit`."""
    graphs = {}
    for name, potential in zip(names, mover.potentials, strict=True):
        if name not in EXPORTED:
            continue
        example = (torch.zeros(2, core.latents), torch.eye(STEPS)[:2])
        assert isinstance(potential, NetPotential)
        graphs[name] = export_graph(Displacement(potential), example, ["latents", "step"], ["displacement"], False)
    k = core.order
    manifest = PathManifest(
        load_model("face64").id.hex(),
        list(EXPORTED),
        k.tolist(),
        core.mean[k].round(7).tolist(),
        core.scale[k].round(7).tolist(),
        STEPS,
    )
    write_paths(target, manifest, graphs)


def strip(core: Core, mover: Mover, x: Float32, names: tuple[str, ...]) -> Image.Image:
    """Rows of an operation: the picture as the core has it, and its path, of two faces side by side."""
    start = core.encode(x).mean
    rows = []
    for k, _ in enumerate(names):
        path = [start, *(z.double().numpy() for z in mover.path(k, torch.from_numpy(start.astype("f4")), STEPS))]
        cells = [np.concatenate(list(core.decode(z)[:2]), 2) for z in path]
        rows.append(np.concatenate(cells, 2))
    sheet = np.clip(np.concatenate(rows, 1), 0, 1).transpose(1, 2, 0)
    return Image.fromarray(np.rint(255 * sheet).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("eval", type=Path, help="tar or folder of 64×64 faces")
    parser.add_argument("--train", type=Path, required=True, help="tar or folder of 64×64 faces")
    parser.add_argument("--faces", type=int, default=160, help="faces to learn from (default: 160)")
    parser.add_argument("--held-out", type=int, default=24, help="faces to measure on (default: 24)")
    parser.add_argument("--latents", type=int, default=32, help="of the core that are moved (default: 32)")
    parser.add_argument("--json", type=Path, required=True, help="results")
    parser.add_argument("--plot", type=Path, help="paths of two held-out faces")
    parser.add_argument("--export", type=Path, help="paths file of the flow")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the products are too small to share
    names = tuple(OPERATIONS)
    train, held_out = read_pictures(options.train, options.faces), read_pictures(options.eval, options.held_out)
    core = Core.top(FaceSubject(*bundled_flow()), train, options.latents)
    start, targets = carried(core, train, names, STEPS)
    runs: list[dict[str, Any]] = []
    for name, mover in MOVERS.items():
        began = time.process_time()
        model = learn_frozen(start, targets, core.scale[core.order], mover)
        seconds = round(time.process_time() - began, 1)
        found = [
            {**dataclasses.asdict(e), "relative": round(e.relative, 4)}
            for e in frozen_errors(core, model, held_out, names, STEPS)
        ]
        runs.append({"mover": name, "cpu_s": seconds, "operations": found})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
        settings = {"faces": len(train), "held_out": len(held_out), "latents": options.latents, "steps": STEPS}
        options.json.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")
        if options.plot and name == "flow":
            strip(core, model, held_out[:2], names).save(options.plot)
        if options.export and isinstance(model, FlowMover):
            export_paths(options.export, core, model, names)


if __name__ == "__main__":
    main()
