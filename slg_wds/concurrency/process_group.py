"""What torch.distributed says of this process: its rank, and how many processes share this machine.

Nobody else is asked, since a process that makes no loader would leave the question open for ever. torch is not imported
here: whoever has a process group has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

from slg_wds.concurrency.rank import Rank, launched, local_size
from slg_wds.errors import UsageError


def group_rank() -> Rank | None:
    """Return the rank in torch.distributed's default group; None where there is no such group."""
    distributed = _distributed()
    return None if distributed is None else Rank(distributed.get_rank(), distributed.get_world_size())


def processes_here() -> int:
    """Return how many processes of this run share this machine, as far as can be known without asking them.

    The launcher says it. Processes that no launcher started, such as Lightning's own and those of
    `torch.multiprocessing.spawn`, have only their group. Then it is a process for each GPU that this one sees, or all
    of the group where it runs on CPUs or sees no GPU: too few threads cost time, too many cost memory.
    """
    group, said = group_rank(), local_size()
    if group is None or (said is not None and _is_of_launcher(group)):
        return said or 1
    return min(group.world_size, _gpus() or group.world_size)


def _is_of_launcher(group: Rank) -> bool:
    """Return whether the launcher started the processes of this group, and not another one that spawned them."""
    try:
        found = launched()
    except UsageError:  # Lightning's own launcher in a process of another one
        return False
    return found is not None and found.world_size == group.world_size


def _gpus() -> int:
    """Return how many GPUs this process sees, if its group may run on them."""
    distributed = _distributed()
    on_cpus = distributed is None or distributed.get_backend() == "gloo"
    return 0 if on_cpus else int(sys.modules["torch"].cuda.device_count())


def _distributed() -> Any:
    """Return the module torch.distributed, if it has a default group."""
    found = sys.modules.get("torch.distributed")
    return found if found is not None and found.is_available() and found.is_initialized() else None
