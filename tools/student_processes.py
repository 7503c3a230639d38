"""The processes of one training: which of them this is, its device, and the group in which they meet."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from urllib.parse import urlsplit

import torch
import torch.distributed as dist

from slg_wds.concurrency.rank import local_rank, local_size
from slg_wds.errors import UsageError
from slg_wds.replay.ranks import rank_of

PORTS = range(20000, 30000)  # below those that a system gives out by itself


def launch(args: argparse.Namespace) -> None:
    """Become torchrun with one process per GPU of this machine."""
    host = urlsplit(args.dist_url)
    torchrun = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={max(1, torch.cuda.device_count())}",
        ),
        *(f"--nnodes={max(1, args.world_size)}", f"--node-rank={max(0, args.rank)}"),
        *(f"--master-addr={host.hostname or '127.0.0.1'}", f"--master-port={host.port or 29500}"),
    ]
    os.execv(sys.executable, [*torchrun, *sys.argv])


def start_process_group(args: argparse.Namespace) -> None:
    """Set device, rank and ranks of `args`, and meet the other processes that the launcher started.

    Raises UsageError where there are others that cannot be met: each would train and save a student of its own.
    """
    args.rank, args.ranks = rank_of(None, None)
    args.device = _device(args)
    if args.device.type == "cuda":
        torch.cuda.set_device(args.device)
    elif args.dist_backend == "nccl":
        args.dist_backend = None  # FKD's own command line, on a machine without GPUs
    backend = args.dist_backend or ("nccl" if args.device.type == "cuda" else "gloo")
    if "RANK" in os.environ:  # torchrun's
        dist.init_process_group(backend)
    elif args.ranks > 1:
        dist.init_process_group(
            backend, init_method=_meeting_place(args.ranks), rank=args.rank, world_size=args.ranks
        )


def end_together() -> None:
    """Wait for all processes: one that leaves while another still talks to it may abort on its way out."""
    if dist.is_initialized():
        gc.collect()  # what refers to the process group in a cycle would outlive it
        dist.barrier()


def _device(args: argparse.Namespace) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = local_rank() if args.ranks > 1 else None
    if number is None:
        number = args.gpu or 0
    return torch.device("cuda", number % torch.cuda.device_count())  # a process may see its own GPU alone


def _meeting_place(ranks: int) -> str:
    """Where processes that torchrun did not start find each other: all of one job at the same port of one machine."""
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
