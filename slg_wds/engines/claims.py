"""Which shards a worker makes: the same loop in every process of every engine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence, Set

from slg_wds.concurrency.rank import ALONE, Rank, array_task, launched
from slg_wds.engines.run_stats import RunObserver
from slg_wds.labelset.labelset import LabelSet

LISTED_AT_ONCE = 1000  # names in one answer of an object store
COUNT_SECONDS = 0.001  # of a shard, when a finished set is counted
MOST_WAIT = 300.0  # seconds, for another rank to count it


def launched_rank() -> Rank | None:
    """The rank that a launcher gave this process, among the tasks of a Slurm array if it is one; None alone.

    Raises UsageError for variables that contradict each other.
    """
    inner = launched() or ALONE
    return (array_task() or ALONE).within(inner.rank, inner.world_size)


def claims(
    labels: LabelSet, rank: Rank | None, observer: RunObserver | None = None, lost: Set[int] = frozenset()
) -> Iterator[int]:
    """Yield the numbers of shards to make until none is missing.

    A worker with a rank first goes through its own block of the plan. Then it walks: it draws a missing shard at random
    and goes on from there in plan order. Before each shard it looks whether the shard exists by now. If a shard exists,
    or if its commit lost the race, it jumps to a random missing one: behind another worker, both would make the same
    shards for the rest of the run. Walks matter: in a purely random order without them, workers meet at shards all the
    time (tools/EXPERIMENTS.md: 5% of the work of 64 launches, 20% of 1,024, was done twice).

    The missing shards are listed again once as many single shards were looked for as a listing costs requests.

    Args:
        labels: the label set.
        rank: which worker this is; None for one without a block of its own.
        observer: is told of each shard, and refuses those that the run has given up.
        lost: numbers of shards that this worker made and another worker committed first; the caller adds to it
            during the iteration.
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
                if observer is None or observer.claim(labels.plan.shard_names[number]):
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
        while time.monotonic() < end:
            if labels.finished():
                return True
            time.sleep(min(1.0, most))
    return labels.finish()
