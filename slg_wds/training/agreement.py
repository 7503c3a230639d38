"""The processes of a run take the same steps: what they were given is compared before the first one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from slg_wds.errors import UsageError
from slg_wds.training.flags import Settings


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
