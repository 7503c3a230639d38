"""--devices and the launchers' local numbers -> the pool of this machine."""

from __future__ import annotations

import re

from slg_wds.concurrency.rank import one_gpu_each
from slg_wds.console import counted
from slg_wds.engines.workers import WorkerPool
from slg_wds.errors import UsageError

_CPUS = re.compile(r"cpu(?::(\d+))?")
_GPU = re.compile(r"(?:cuda:)?(\d+)")


def local_pool(devices: str | None, gpu: int | None, gpus: int, cores: int) -> WorkerPool:
    """The devices that `generate` uses on this machine, and an even share of its cores for each.

    devices: `0,1`, `cuda:0,cuda:2`, `cpu`, `cpu:N`; None: all GPUs, one CPU process where there is none, and one GPU
    for each process that a launcher started. A GPU may be named twice. gpu: the older way to name one.
    gpus: those that this process sees. cores: those that it may use beside others of its launcher.

    Raises UsageError for more than there are.
    """
    if devices is not None and gpu is not None:
        raise UsageError(f"--gpu {gpu} and --devices {devices} say the same thing twice", hint="give one")
    if gpu is not None:
        names = [_gpu(f"cuda:{gpu}", str(gpu), gpus)]
    elif devices is not None:
        names = _named(devices, gpus)
    else:
        names = _own(gpus)
    return WorkerPool(tuple(names), max(1, cores // len(names)))


def _named(devices: str, gpus: int) -> list[str]:
    if match := _CPUS.fullmatch(devices):
        count = int(match[1] or 1)
        if count < 1:
            raise UsageError(f"--devices {devices}: at least one process is needed")
        return ["cpu"] * count
    names = []
    for part in devices.split(","):
        match = _GPU.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"--devices {devices!r} is not understood", hint="write 0,1 or cuda:0,cuda:2 or cpu:4"
            )
        names.append(_gpu(part.strip(), match[1], gpus))
    return names


def _gpu(asked: str, number: str, gpus: int) -> str:
    if int(number) >= gpus:
        there = f"has {counted(gpus, 'GPU')}, 0..{gpus - 1}" if gpus else "has no GPU"
        raise UsageError(
            f"no device {asked}: this machine {there}", hint="--devices cpu:N runs on N CPU processes"
        )
    return f"cuda:{int(number)}"


def _own(gpus: int) -> list[str]:
    from slg_wds.teachers.load import own_device

    if not gpus:
        return ["cpu"]
    if one_gpu_each():
        return [own_device(gpus)]
    return [f"cuda:{number}" for number in range(gpus)]
