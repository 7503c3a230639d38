"""Which devices this machine's workers use, by --devices and what the launcher says."""

from __future__ import annotations

import re

from slg_wds.concurrency.rank import one_gpu_each
from slg_wds.config.checks import MOST_AT_ONCE
from slg_wds.console import counted
from slg_wds.engines.workers.pool import WorkerPool
from slg_wds.errors import UsageError

_CPUS = re.compile(r"cpu(?::(\d+))?")
_GPU = re.compile(r"(?:cuda:)?(\d+)")


def local_pool(devices: str | None, gpu: int | None, gpus: int, cores: int) -> WorkerPool:
    """Return one worker for each device that `generate` uses on this machine.

    Args:
        devices: the value of --devices: `0,1`, `cuda:0,cuda:2`, `cpu` or `cpu:N`. A GPU may be named twice. None for
            all GPUs; for one GPU if a launcher started a process for each; for one CPU process if there is no GPU.
        gpu: the value of --gpu, an older way to name one GPU.
        gpus: number of GPUs that this process sees.
        cores: number of CPU cores that it may use. They are divided evenly.

    Raises:
        UsageError: --devices cannot be read, or names a device that this machine does not have.
    """
    if devices is not None and gpu is not None:
        raise UsageError(f"--gpu {gpu} and --devices {devices} both name devices", hint="give one of them")
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
        if not 1 <= count <= MOST_AT_ONCE:
            raise UsageError(f"--devices {devices} is not a number of processes, 1 to {MOST_AT_ONCE:,}")
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
