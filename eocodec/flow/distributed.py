"""The processes of one training run, as `torchrun` starts them: who this one is, and what it exchanges with the others.

In: the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK). Out: :class:`Ranks`, which without torchrun is a
group of one in which every exchange is free.

References:
    *torchrun (Elastic Launch)*. https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from eocodec.errors import EocodecError

__all__ = ["Ranks", "bfloat16_pays", "join", "pick_device"]

PATIENCE = timedelta(hours=2)  # the others wait while the first process validates


@dataclass(frozen=True)
class Ranks:
    """This process (`rank`, the `local`-th of its machine) among `world` processes."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files and speaks."""
        return self.rank == 0

    def gather(self, x: Tensor) -> Tensor:
        """The same-shaped `x (n, ...)` of all processes, joined in the order of their ranks."""
        if self.world == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def mean(self, x: Tensor) -> Tensor:
        """Mean of `x` over all processes, the same bits in each."""
        return self.gather(x[None]).mean(0)


@contextmanager
def join(device: str = "auto") -> Iterator[tuple[Ranks, torch.device]]:
    """Join the run that torchrun started, or be alone.

    Arguments:
        device: "auto", "cpu" or "cuda"; each process of a machine gets a GPU of its own.

    Raises:
        EocodecError: no GPU for this process.
    """
    try:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        ranks = Ranks(*(int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)))
    except ValueError as e:
        raise EocodecError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({e})") from e
    place = pick_device(device, ranks)
    if ranks.world == 1:
        yield ranks, place
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=place)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    yield ranks, place
    dist.barrier()  # the first process may still be validating
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


def pick_device(name: str, ranks: Ranks = Ranks()) -> torch.device:
    """`auto` is the GPU if there is one; the k-th process of a machine gets the k-th.

    Raises:
        EocodecError: `cuda` was asked for and there is none, or fewer than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EocodecError("no CUDA device is available here; use --device cpu")
    if ranks.world == 1:
        return torch.device("cuda")
    if ranks.local >= torch.cuda.device_count():
        raise EocodecError(
            f"process {ranks.local + 1} of this machine needs a GPU of its own, and there are "
            f"{torch.cuda.device_count()}; lower --nproc-per-node"
        )
    return torch.device("cuda", ranks.local)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether autocast to bfloat16 saves time: on GPUs, and on CPUs that have it."""
    if device.type == "cuda":
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
