"""The processes of one run: which one this is, its device, the group in which they meet, and whether they agree."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import nn

from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.concurrency.process_group import processes_here
from slg_wds.concurrency.rank import local_rank, local_size
from slg_wds.console import counted, tell
from slg_wds.errors import UsageError
from slg_wds.replay.ranks import rank_of
from slg_wds.training.flags import Settings

PORTS = range(20000, 30000)  # below the ports that systems assign by themselves


def launch(args: Settings, arguments: Sequence[str]) -> None:
    """Replace this process by torchrun, which starts `slg-wds train` once per GPU of this machine.

    Args:
        args: the flags.
        arguments: the same, unparsed, for the processes that torchrun starts.
    """
    host = urlsplit(args.dist_url)
    torchrun = [
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={max(1, torch.cuda.device_count())}",
        f"--nnodes={max(1, args.world_size)}",
        f"--node-rank={max(0, args.rank)}",
        f"--master-addr={host.hostname or '127.0.0.1'}",
        f"--master-port={host.port or 29500}",
    ]
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "slg_wds", "train", *arguments])


def take_place(args: Settings) -> None:
    """Set rank, ranks and device of `args`, as the launcher says.

    Raises:
        UsageError: the launcher's variables contradict each other, or this machine lacks the GPU of --gpu.
    """
    args.rank, args.ranks = rank_of(None, None)
    args.device = _device(args)


def start_process_group(args: Settings) -> None:
    """Use the device, and join the group of the processes that the launcher started.

    Raises:
        UsageError: there are other processes and no place to meet them. Each would train a student of its own.
    """
    if args.device.type == "cpu":
        keep_freed_memory()
    else:
        torch.cuda.set_device(args.device)
    if args.device.type == "cpu" and args.dist_backend == "nccl":
        args.dist_backend = None  # FKD's own command line, on a machine without GPUs
    backend = args.dist_backend or ("nccl" if args.device.type == "cuda" else "gloo")
    if "RANK" in os.environ:  # torchrun's
        dist.init_process_group(backend)
    elif args.ranks > 1:
        dist.init_process_group(
            backend, init_method=_meeting_place(args.ranks), rank=args.rank, world_size=args.ranks
        )


def refuse_differences(args: Settings, given: Mapping[str, Any]) -> None:
    """Refuse a run whose processes were given different things.

    All processes call it together, and all end alike. Nothing else would find out: processes exchange gradients, and
    each applies them to weights, at a rate and from crops of its own.

    Args:
        args: the flags.
        given: by name, what has to be the same in all processes.

    Raises:
        UsageError: a process was given something else than the first one.
    """
    if not dist.is_initialized():
        return
    all_given: list[Mapping[str, Any]] = [{}] * args.ranks
    dist.all_gather_object(all_given, dict(given))
    first = all_given[0]
    for rank, other in enumerate(all_given):
        if differing := [
            f"{name} {other[name]}, not {first[name]}" for name in first if other[name] != first[name]
        ]:
            raise UsageError(
                f"process {rank} of {args.ranks} was given something else than process 0: {'; '.join(differing)}",
                hint="start all with the same flags, and let all machines see the same label sets and checkpoints",
            )


def end_together(args: Settings) -> None:
    """Wait for all processes: one that ends while another still talks to it may abort."""
    gc.collect()  # else cycles that refer to the process group outlive it
    # No barrier: with NCCL that one warns, since it has to guess the device.
    summed(torch.zeros(1, device=args.device))


def may_be_awaited() -> bool:
    """Return whether other processes would wait for this one in vain. Those of gloo learn that it is gone."""
    return dist.is_initialized() and dist.get_backend() != "gloo" and dist.get_world_size() > 1


def leave(code: int) -> None:
    """Leave the process group, if there is one.

    NCCL waits for all exchanges before it leaves a group. After an error that may take for ever: the others wait for an
    exchange in which this process no longer takes part. So the process ends at once. It does not exit as Python usually
    does, since that leaves the group too. The launcher sees that it is gone, and ends the others.

    Args:
        code: exit code of this process; 0 for success.
    """
    if code and may_be_awaited():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    with contextlib.suppress(RuntimeError):  # of a device that has failed: this process ends anyway
        if dist.is_initialized():
            dist.destroy_process_group()


def summed(counts: torch.Tensor) -> list[float]:
    """Return the counts, added up over all processes, which call this together."""
    if dist.is_initialized():
        dist.all_reduce(counts)
    found: list[float] = counts.tolist()
    return found


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of the first one; they call this together.

    Each has batch statistics of its own crops. A checkpoint has those of the first one, and is what gets validated.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            shared = buffer.contiguous()
            dist.broadcast(shared, 0)
            buffer.copy_(shared)


def threads_of(args: Settings) -> int:
    """Return the threads of this process that decode images: its part of --workers, or its cores."""
    return math.ceil(args.workers / processes_here()) if args.workers else cores()


def say(args: Settings, text: str) -> None:
    """Print a line, in the first process only."""
    if args.rank == 0:
        tell(text)


def _device(args: Settings) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if args.ranks == 1 and args.gpu is not None and not 0 <= args.gpu < gpus:
        there = f"has {counted(gpus, 'GPU')}, 0..{gpus - 1}" if gpus else "has no GPU"
        raise UsageError(
            f"no GPU {args.gpu}: this machine {there}", hint="leave out --gpu or give another one"
        )
    if not gpus:
        return torch.device("cpu")
    number = local_rank() if args.ranks > 1 else None
    if number is None:
        number = args.gpu or 0
    return torch.device("cuda", number % gpus)  # a process may see only its own GPU


def _meeting_place(ranks: int) -> str:
    """Return where processes of srun or mpirun meet: one machine, and a port that all of a job compute alike."""
    address = os.environ.get("MASTER_ADDR") or ("127.0.0.1" if local_size() == ranks else None)
    if address is None:
        raise UsageError(
            f"these are {ranks} processes on several machines, and MASTER_ADDR does not say where they meet",
            hint='before srun: export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1), '
            "or start with torchrun",
        )
    job, step = (int(os.environ.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = os.environ.get("MASTER_PORT") or PORTS[(job * 31 + step) % len(PORTS)]
    return f"tcp://{address}:{port}"
