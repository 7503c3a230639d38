"""Errors of the device, and of the exchange between processes, as one line that says what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch.distributed as dist

from slg_wds.errors import SlgWdsError
from slg_wds.teachers.faults import device_faults, hint_if_full
from slg_wds.teachers.weights import one_line
from slg_wds.training.flags import Settings

_NO_KERNEL = re.compile(r"no kernel image", re.IGNORECASE)
_NO_THREAD = re.compile(r"can't start new thread", re.IGNORECASE)
_EXCHANGE = re.compile(r"\bNCCL\b|\bgloo\b")


@contextlib.contextmanager
def run_faults(args: Settings) -> Iterator[None]:
    """Turn errors of the device and of the exchange between processes into errors of ours; let all others through.

    Raises:
        MemoryFullError: the device's memory is full.
        DeviceError: the device failed.
        SlgWdsError: this torch has nothing to run on the device, no thread can be started, or another process does
            not answer.
    """
    try:
        with hint_if_full(_less_memory(args)), device_faults(args.device, "the training failed"):
            yield
    except RuntimeError as error:  # what the device failed at is none any more
        if _NO_KERNEL.search(str(error)):
            raise SlgWdsError(
                f"this torch is not built for the device {args.device}: {one_line(error)}",
                hint="install a torch for this GPU (https://pytorch.org), or hide the GPU: CUDA_VISIBLE_DEVICES=",
            ) from error
        if _NO_THREAD.search(str(error)):
            raise SlgWdsError(
                f"no more threads can be started here: {one_line(error)}",
                hint="raise the limit (ulimit -u, or the pids of the container), or start fewer of them: -j",
            ) from error
        if isinstance(error, dist.DistError) or _EXCHANGE.search(str(error)):
            text = " ".join(str(error).split())[:300]  # NCCL says in a later line what is wrong
            raise SlgWdsError(
                f"process {args.rank} of {args.ranks} lost touch with the others: {text}",
                hint="the process that failed first says why; --resume auto goes on from a checkpoint, if there is one",
            ) from error
        raise


def _less_memory(args: Settings) -> str:
    """Return what this run can do with less memory."""
    ways = ["lower -b"]
    if not args.evaluate and args.embedding_loss != "relation":
        ways.append("take a batch in more pieces (--grad-accum-steps)")
    if args.amp == "off":
        ways.append("halve the activations (--amp bf16)")
    return " or ".join(ways)
