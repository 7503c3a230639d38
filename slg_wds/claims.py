"""Which shards a worker makes: the same loop in every process of every engine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from slg_wds.errors import UsageError
from slg_wds.labelset import LabelSet
from slg_wds.tally import Watcher

LISTED_AT_ONCE = 1000  # names in one answer of an object store
COUNT_SECONDS = 0.001  # of a shard, when a finished set is counted
MOST_WAIT = 300.0  # seconds, for another rank to count it


@dataclass(frozen=True)
class Rank:
    """Which worker of how many this process is."""

    rank: int
    world_size: int

    def block(self, shards: int) -> range:
        """The shards that this worker walks first."""
        return range(self.rank * shards // self.world_size, (self.rank + 1) * shards // self.world_size)

    def within(self, worker: int, workers: int) -> Rank | None:
        """The rank of one of the workers that this process starts; None where it is the only one anywhere."""
        size = self.world_size * workers
        return Rank(self.rank * workers + worker, size) if size > 1 else None


ALONE = Rank(0, 1)


def launched_rank() -> Rank | None:
    """The rank that torchrun or srun gave this process, among the tasks of a Slurm array if it is one; None alone.

    Raises UsageError for variables that contradict each other.
    """
    inner = _numbered("RANK", "WORLD_SIZE") or _of_srun() or ALONE
    return (_of_array() or ALONE).within(inner.rank, inner.world_size)


def _of_srun() -> Rank | None:
    if "SLURM_PROCID" not in os.environ:  # sbatch sets SLURM_NTASKS alone
        return None
    return _numbered("SLURM_PROCID", "SLURM_NTASKS")


def _of_array() -> Rank | None:
    """The place of an array's task in START-END:STEP; None where the array is a list with gaps."""
    number, count = _number("SLURM_ARRAY_TASK_ID"), _number("SLURM_ARRAY_TASK_COUNT")
    if number is None or count is None:
        return _numbered("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    place = (number - (_number("SLURM_ARRAY_TASK_MIN") or 0)) // (_number("SLURM_ARRAY_TASK_STEP") or 1)
    return Rank(place, count) if 0 <= place < count else None


def _numbered(rank_name: str, size_name: str) -> Rank | None:
    rank, size = _number(rank_name), _number(size_name)
    if rank is None and size is None:
        return None
    if rank is None or size is None:
        found, lacking = (size_name, rank_name) if rank is None else (rank_name, size_name)
        raise UsageError(f"{found} is set but {lacking} is not", hint=_LAUNCH)
    if not 0 <= rank < size:
        raise UsageError(f"{rank_name} is {rank} and {size_name} {size}", hint=_LAUNCH)
    return Rank(rank, size)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}, not a number", hint=_LAUNCH) from None


_LAUNCH = "start every process with torchrun or srun, or unset it to start one by hand"


def claims(
    labels: LabelSet, rank: Rank | None, watcher: Watcher | None = None, lost: Set[int] = frozenset()
) -> Iterator[int]:
    """Yield shards to make until none is missing: the worker's own block in order, then walks from random places.

    A walk begins at any missing shard and goes on in plan order while shards are missing; each is looked for again
    immediately before. Whoever comes to a shard that exists, or hears that one of this walk was lost to another worker,
    has met that worker, and begins elsewhere: behind it both would make the same shards for the rest of the run. A
    random order without walks has them meet by chance at every shard (tools/EXPERIMENTS.md: 5% of the work of 64
    launches, 20% of 1,024).

    lost: numbers of shards of which another worker's was there first; may grow at any time. The watcher is told of each
    shard, and may refuse one that the run has given up. What is missing is listed anew once as many shards as a listing
    costs requests were looked for.
    """
    claimed: set[int] = set()
    own = rank.block(labels.num_shards) if rank else range(0)
    chance = random.Random(os.urandom(16))
    listing = 1 + labels.num_shards // LISTED_AT_ONCE  # requests
    while missing := [number for number in labels.missing() if number not in claimed]:
        asked: set[int] = set()
        while missing and len(asked) < listing:
            walk = [number for number in missing if number in own] or _stretch(missing, chance)
            own, begun = range(0), set[int]()
            for number in walk:
                asked.add(number)
                if labels.exists(number):
                    break
                claimed.add(number)
                begun.add(number)
                if watcher is None or watcher.claim(labels.plan.shard_names[number]):
                    yield number
                if not lost.isdisjoint(begun):
                    break
            missing = [number for number in missing if number not in asked]


def _stretch(missing: Sequence[int], chance: random.Random) -> list[int]:
    """From one of the numbers, drawn by chance, as far as they follow each other."""
    start = chance.randrange(len(missing))
    return [number for at, number in enumerate(missing[start:], missing[start]) if number == at]


def finish(labels: LabelSet, rank: Rank | None) -> bool:
    """Finish the set if every shard exists; whether it does.

    All ranks come here within moments of each other, and counting the set takes a read a shard: the first rank counts,
    the others wait for that, each of them until a moment of its own, at which it takes the first to be dead.
    """
    if rank and rank.rank:
        if labels.missing():
            return False
        most = min(MOST_WAIT, COUNT_SECONDS * labels.num_shards * rank.world_size)
        end = time.monotonic() + random.uniform(0.0, most)
        while time.monotonic() < end and not labels.finished():
            time.sleep(min(1.0, most))
    return labels.finish()
