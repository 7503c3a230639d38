"""The one process that a loader serves: another one would be given the same samples again."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from slg_wds.concurrency.process_group import group_rank
from slg_wds.concurrency.rank import Rank
from slg_wds.errors import UsageError
from slg_wds.replay.ranks import rank_of

_IN_EACH = (
    "make the loader in each training process, after torch.distributed is set up; with Lightning, in the hook "
    "train_dataloader()"
)


class OwnProcess:
    """The process in which a loader was made, and the rank that it found there.

    A loader has threads of its own and gives all samples of its rank to whoever asks. In a second process it would give
    every sample twice, without any sign of it. So each walk begins with `check`.

    Args:
        rank, world_size: as the caller gave them; None for what torch.distributed or the launcher says.

    Raises:
        UsageError: this is a worker of torch's DataLoader, or the rank cannot be.
    """

    def __init__(self, rank: int | None, world_size: int | None) -> None:
        self.rank, self.world_size = rank_of(rank, world_size)
        self._given = rank is not None
        self._pid = os.getpid()
        _check_no_worker()

    def check(self) -> None:
        """Raise UsageError in a process for which the loader was not made, or whose rank is another by now."""
        _check_no_worker()
        if os.getpid() != self._pid:
            raise UsageError(
                f"the loader was made in process {self._pid} and is used in process {os.getpid()}, which would get "
                "every sample again",
                hint=_IN_EACH,
            )
        found = None if self._given else group_rank()
        if found is not None and found != Rank(self.rank, self.world_size):
            raise UsageError(
                f"the loader was made for rank {self.rank} of {self.world_size}, and this is by now rank "
                f"{found.rank} of {found.world_size}",
                hint=f"{_IN_EACH}, or pass rank= and world_size=",
            )

    def __reduce__(self) -> NoReturn:
        raise UsageError("a loader cannot be copied or sent to another process", hint=_IN_EACH)


def _check_no_worker() -> None:
    data = sys.modules.get("torch.utils.data")
    worker = None if data is None else data.get_worker_info()
    if worker is not None:
        raise UsageError(
            f"a loader in a worker of torch's DataLoader: each of the {worker.num_workers} workers would give "
            "every sample",
            hint="iterate over the loader itself, which has threads of its own (threads=), or build a pipeline "
            "for workers from slg_wds.replay.stages",
        )
