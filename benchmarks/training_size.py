"""What training of a configuration costs: floating-point operations and memory of a pixel, for every stage.

    python benchmarks/training_size.py eocodec/models/photo-24gb.toml [...] -o benchmarks/training_size.json

Counted on the CPU with a small crop, so that no GPU is needed: operations by `torch.utils.flop_counter` in forward and
backward passes, memory as the bytes that autograd keeps for the backward pass in float32 (bfloat16 keeps less: this is
what there has to be at most). Both are per pixel of the batch; from them follow the memory of a device and, with the
rate of a device, the hours.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from eocodec.files import atomic_write
from eocodec.flow.configuration import TrainingConfig, load_config
from eocodec.flow.loss import RATE_BINS, BatchLoss
from eocodec.flow.model import build
from eocodec.flow.trainable import Stage, Trainable

CROP = 64
OPTIMISER_COPIES = {"adam": 5, "soap": 9}  # of the weights: they, gradient, average, and the optimiser's state
WORKSPACE = 1.35  # of what autograd keeps: what is at work, libraries, fragments
GIB = 1 << 30
PEAK = 165e12  # bfloat16 operations a second: GeForce RTX 4090 (data sheet); devices with 80 GB have six times that
USED = 0.12  # share of it that nets of 32 to 72 channels are expected to reach: an assumption, see docs/TRAINING.md


def step_cost(model: Trainable, stage: Stage) -> tuple[float, float]:
    """Operations and bytes for the backward pass, per pixel, of one step."""
    loss = BatchLoss(model, False, False, lambda message: None)
    x = torch.rand(1, 3, CROP, CROP).contiguous(memory_format=torch.channels_last)
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if not isinstance(t, torch.nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value, _, _ = loss(stage, x, torch.zeros(RATE_BINS), 1, 0)
        value.backward()
    return counter.get_total_flops() / CROP**2, sum(kept.values()) / CROP**2


def measured(config: TrainingConfig) -> dict[str, object]:
    """Figures of a configuration."""
    torch.manual_seed(0)
    model = build(config.model).to(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in model.parameters())
    stages = []
    known: dict[Stage, tuple[float, float]] = {}
    for stage in config.stages:
        kind = dataclasses.replace(
            stage, iterations=1, learning_rate=0, final_rate=0, warmup=0, flow_rate=0, quantised=False, step=(8.0, 8.0)
        )
        if kind not in known:
            known[kind] = step_cost(model, kind)
        flops, kept = known[kind]
        pixels = config.batch * config.crop**2
        stages.append(
            {
                "objective": stage.objective,
                "iterations": stage.iterations,
                "flops_per_pixel": flops,
                "kept_bytes_per_pixel": kept,
                "flops": flops * pixels * stage.iterations,
            }
        )
    return {
        "parameters": parameters,
        "crop": config.crop,
        "batch": config.batch,
        "accumulate": config.accumulate,
        "optimiser_bytes": 4 * parameters * OPTIMISER_COPIES[config.optimiser],
        "stages": stages,
    }


def memory(figures: dict[str, object], devices: int) -> float:
    """GiB that a device needs."""
    pixels = figures["batch"] * figures["crop"] ** 2 / devices / figures["accumulate"]  # type: ignore[operator]
    most = max(s["kept_bytes_per_pixel"] for s in figures["stages"])  # type: ignore[attr-defined]
    return float((figures["optimiser_bytes"] + WORKSPACE * most * pixels) / GIB)  # type: ignore[operator]


def hours(figures: dict[str, object], devices: int) -> float:
    """Hours for all stages."""
    return float(sum(s["flops"] for s in figures["stages"]) / (devices * USED * PEAK) / 3600)  # type: ignore[attr-defined]


def main() -> None:
    """Measure the configurations that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {}
    for path in arguments.configs:
        figures = measured(load_config(path))
        devices = 8 if "8gpu" in path.stem else 1
        figures |= {"devices": devices, "memory_gib": memory(figures, devices)}
        figures["hours"] = hours(figures, devices)
        result[path.stem] = figures
        print(f"{path.stem}: {figures['memory_gib']:.1f} GiB on each of {devices}, {figures['hours']:.1f} h")
    if arguments.output:
        atomic_write(arguments.output, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
