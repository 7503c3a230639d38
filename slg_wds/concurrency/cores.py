"""How many CPU cores this process may use: by its affinity, the quota of its control group, and its fellow ranks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from slg_wds.concurrency.process_group import processes_here
from slg_wds.concurrency.rank import allotted_cpus

_ROOT = Path("/")


def cores() -> int:
    """Return the number of cores that this process may use, beside its fellow processes on this machine.

    If the launcher bound each process to its own cores, this process may use all of its own. If the cores of all
    processes add up to more than there are, the processes share the same cores, and each gets an even part. If the
    launcher bound this process to one NUMA node (`torchrun --numa-binding node`), it shares that node's cores only with
    its fellows there.
    """
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    nodes = numa_nodes()
    parts = len(nodes) if mine in nodes else 1

    def part(count: int | None) -> int | None:
        return None if count is None else max(1, count // parts)

    bound = None if mine is None else len(mine)
    machine = part(os.cpu_count()) or 1
    return share(bound, machine, part(quota()), part(allotted_cpus()), -(-processes_here() // parts))


def numa_nodes(root: Path | None = None) -> list[set[int]]:
    """Return the numbers of the cores of each NUMA node of this machine that has any.

    Args:
        root: where /sys is; other than / only in tests.
    """
    lists = sorted(((_ROOT if root is None else root) / "sys/devices/system/node").glob("node[0-9]*/cpulist"))
    return [cpus for path in lists if (cpus := _cpu_list(_read(path)))]


def _cpu_list(text: str) -> set[int]:
    """Parse the kernel's form of a set of cores, such as 0-15,64-79."""
    spans = [part.partition("-") for part in text.strip().split(",") if part]
    return {cpu for first, _, last in spans for cpu in range(int(first), int(last or first) + 1)}


def share(bound: int | None, machine: int, limit: int | None, allotted: int | None, processes: int) -> int:
    """Return the number of cores of one process, at least 1.

    Args:
        bound: number of cores that this process is bound to; None if unknown.
        machine: number of cores of the machine.
        limit: number of cores that the control group grants; None for no limit.
        allotted: number of cores of this machine that the whole Slurm job was given; None outside of Slurm.
        processes: number of processes of the run on this machine, see `processes_here`.
    """
    of_all = min(machine, limit or machine, allotted or machine)
    of_this = min(bound or machine, limit or machine)
    return of_this if of_this * processes <= of_all else max(1, of_this // processes)


def quota(root: Path | None = None) -> int | None:
    """Return the CPU time that this process's control groups grant, in cores and rounded up; None for no limit.

    Containers, Kubernetes and systemd limit CPU time in this way. Versions 1 and 2 of control groups are read, and
    every group from the process's own up to the root, since any of them may have the limit. (loky, a library that does
    this, reads the topmost group alone.)

    Args:
        root: where /proc and /sys are; other than / only in tests.
    """
    found = list(_quotas(_ROOT if root is None else root))
    return max(1, math.ceil(min(found))) if found else None


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limit of every control group that contains this process, in cores."""
    lines = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("", "unified") if not controllers else ("cpu", controllers)
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            folder = top / group.lstrip("/")
            while True:
                yield from _limit(folder, version_1=bool(controllers))
                if folder == top or top not in folder.parents:
                    break
                folder = folder.parent


def _limit(folder: Path, version_1: bool) -> Iterator[float]:
    if version_1:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    else:
        words = _read(folder / "cpu.max").split()
    try:
        time, period = (float(word) for word in words)
    except ValueError:  # "max", or no such file
        return
    if time > 0 and period > 0:  # -1 means no limit
        yield time / period


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
