"""How many cores this process may use: by its affinity, by the quota of its control group, and beside other ranks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from slg_wds.concurrency.rank import allotted_cpus, local_size

_ROOT = Path("/")


def cores() -> int:
    """Return the number of cores that this process may use, beside others of the same launcher on this machine.

    Where the launcher bound each of them to cores of its own, it is all of these. Where they may all use the same ones,
    which shows by their sum being more than there are, it is an even part.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return share(bound, os.cpu_count() or 1, quota(), allotted_cpus(), local_size())


def share(bound: int | None, machine: int, limit: int | None, allotted: int | None, processes: int) -> int:
    """Return the cores of one process.

    Args:
        bound: cores that this process is bound to; None: not known. machine: cores of the machine.
        limit: of the control group. allotted: cores of this machine that the whole job was given.
        processes: that were started together on this machine.
    """
    together = min(machine, limit or machine, allotted or machine)
    mine = min(bound or machine, limit or machine)
    return mine if mine * processes <= together else max(1, mine // processes)


def quota(root: Path | None = None) -> int | None:
    """Return the CPU time that this process's control groups grant, in whole cores and rounded up; None: no limit.

    Versions 1 and 2, each group and those above it: containers, Kubernetes and systemd's slices limit so.
    A library would do, but those that look (loky) read the topmost group alone, which is not always the one with the
    limit.
    """
    found = list(_quotas(_ROOT if root is None else root))
    return max(1, math.ceil(min(found))) if found else None


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limit of every group around this process, in cores."""
    lines = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        places = ("", "unified") if not controllers else ("cpu", controllers)
        for place in places:
            top = root / "sys/fs/cgroup" / place
            folder = top / group.lstrip("/")
            while True:
                yield from _limit(folder, old=bool(controllers))
                if folder == top or top not in folder.parents:
                    break
                folder = folder.parent


def _limit(folder: Path, old: bool) -> Iterator[float]:
    if old:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    else:
        words = _read(folder / "cpu.max").split()
    try:
        time, period = (float(word) for word in words)
    except ValueError:  # "max", or no such file
        return
    if time > 0 and period > 0:  # -1 stands for no limit
        yield time / period


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
