"""How many cores this process may use.

In: what the system says of the process. Out: a number of cores, at least 1.
"""

import contextlib
import math
import os
from pathlib import Path

__all__ = ["cores"]


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control groups' quota of time.

    References:
        Linux kernel, *Control Group v2*, cpu.max. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(found, _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup"), member: Path = Path("/proc/self/cgroup")) -> float:
    """Cores that the control groups of this process grant, infinite without a limit."""
    try:
        lines = [line.split(":", 2) for line in member.read_text().splitlines()]
    except (OSError, ValueError):
        return math.inf
    limits = [math.inf]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            limits.append(_limit(folder))
            if folder == base:
                break
    return min(limits)


def _limit(group: Path) -> float:
    """Quota over period of one control group, in version 2 or 1."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
