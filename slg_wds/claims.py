"""Which shards a worker makes: the same loop in every process of every engine."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

from slg_wds.errors import UsageError
from slg_wds.labelset import LabelSet

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun
    ("SLURM_PROCID", "SLURM_NTASKS"),  # srun
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
)
LISTED_AT_ONCE = 1000  # names in one answer of an object store
LEAST_PATIENCE = 16


@dataclass(frozen=True)
class Rank:
    """Which worker of how many this process is."""

    rank: int
    world_size: int

    def block(self, shards: int) -> range:
        """The shards that this worker walks first."""
        return range(self.rank * shards // self.world_size, (self.rank + 1) * shards // self.world_size)


def launched_rank() -> Rank | None:
    """The rank that torchrun, srun or a Slurm array gave this process, None without one.

    Raises UsageError for variables that contradict each other.
    """
    for rank_name, size_name in LAUNCHERS:
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None and size is None:
            continue
        if rank is None or size is None:
            if rank_name == "SLURM_PROCID":  # sbatch sets SLURM_NTASKS alone
                continue
            raise UsageError(f"{rank_name if rank is None else size_name} is not set but its partner is")
        number = int(rank) - int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0") if "ARRAY" in rank_name else 0)
        if int(size) > 1 and 0 <= number < int(size):
            return Rank(number, int(size))
    return None


def claims(labels: LabelSet, rank: Rank | None) -> Iterator[int]:
    """Yield shards to make until none is missing: the worker's own block in order, then the missing at random.

    Each is looked for again immediately before. At random, because workers that walk on in plan order and meet
    would make the same shards for the rest of the run. What is missing is listed, and listed anew once as many shards
    as a listing costs requests were found made in the meantime: asking a store for each of a stale list takes hours
    (tools/simulate_cluster.py).
    """
    claimed: set[int] = set()
    order = random.Random(os.urandom(16))
    own = rank.block(labels.num_shards) if rank else range(0)
    patience = max(LEAST_PATIENCE, labels.num_shards // LISTED_AT_ONCE)
    while missing := [number for number in labels.missing() if number not in claimed]:
        candidates = [number for number in missing if number in own]
        if not candidates:
            candidates = missing
            order.shuffle(candidates)
        stale = 0
        for number in candidates:
            if not labels.exists(number):
                claimed.add(number)
                yield number
            elif (stale := stale + 1) == patience:
                break
