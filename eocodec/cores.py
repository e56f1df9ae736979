"""How many cores this process may use.

In: what the system says of the process. Out: a number of cores, at least 1.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "throttled"]


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control groups' quota of time.

    References:
        Linux kernel, *Control Group v2*, cpu.max. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(found, _quota())))


ROOT, MEMBER = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def throttled(root: Path = ROOT, member: Path = MEMBER) -> float | None:
    """Share of the scheduler's periods in which the quota of a control group of this process ran out; None: no quota.

    The largest over the groups, since each was made.
    """
    shares = []
    for group in _groups(root, member):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pairs = dict(line.split()[:2] for line in (group / "cpu.stat").read_text().splitlines())
            if int(pairs["nr_periods"]):
                shares.append(int(pairs["nr_throttled"]) / int(pairs["nr_periods"]))
    return max(shares, default=None)


def _quota(root: Path = ROOT, member: Path = MEMBER) -> float:
    """Cores that the control groups of this process grant, infinite without a limit."""
    return min((_limit(group) for group in _groups(root, member)), default=math.inf)


def _groups(root: Path, member: Path) -> Iterator[Path]:
    """Folders of the control groups that bound the processor time of this process, the innermost first."""
    try:
        lines = [line.split(":", 2) for line in member.read_text().splitlines()]
    except (OSError, ValueError):
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            yield folder
            if folder == base:
                break


def _limit(group: Path) -> float:
    """Quota over period of one control group, in version 2 or 1."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
