"""Which shards a worker makes, and who finishes the set: the same in every process of every engine.

Workers do not talk to each other; they only see which shards exist. Two that come to the same shard would go on making
the same shards, one behind the other, for the rest of the run. So the second jumps to a random missing shard. Between
jumps workers walk in plan order: in a purely random order they would meet at shards all the time (tools/EXPERIMENTS.md:
5% of the work of 64 launches, 20% of 1,024, was done twice).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence, Set

from slg_wds.concurrency.rank import ALONE, Rank, array_task, launched
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.publishing import finish_set

LISTED_AT_ONCE = 1000  # names in one answer of an object store to a listing
COUNT_SECONDS = 0.001  # that finishing a set takes for each shard
MOST_WAIT = 300.0  # seconds to wait for another rank to finish the set


def launched_rank() -> Rank | None:
    """Return the rank of this process over all tasks of a Slurm array and all processes of a launcher.

    Returns:
        None if this process is the only one.

    Raises:
        UsageError: the variables of a launcher contradict each other.
    """
    inner = launched() or ALONE
    return (array_task() or ALONE).within(inner.rank, inner.world_size)


def claims(
    labels: LabelSet, rank: Rank | None, observer: RunObserver | None = None, lost: Set[int] = frozenset()
) -> Iterator[int]:
    """Yield the numbers of shards to make until none is missing.

    A worker with a rank first walks its own block of the plan, then runs of missing shards that begin at random ones.
    Before it makes a shard, it looks whether the shard exists by now. If so, or if another worker committed the last
    shard first, it jumps to a random missing one. Each look costs a request. When they have cost as many as a listing,
    the missing shards are listed again.

    Args:
        labels: the label set.
        rank: which worker this is; None for one without a block of its own.
        observer: its `claim` is called for each shard, and refuses those that the run has given up; None: no observer.
        lost: numbers of shards that another worker committed first; the caller adds to it during the iteration.
    """
    claimed: set[int] = set()
    own = rank.block(labels.num_shards) if rank else range(0)
    generator = random.Random(os.urandom(16))
    listing = 1 + labels.num_shards // LISTED_AT_ONCE  # requests
    while missing := [number for number in labels.missing() if number not in claimed]:
        asked: set[int] = set()
        while missing and len(asked) < listing:
            walk = [number for number in missing if number in own] or _stretch(missing, generator)
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


def _stretch(missing: Sequence[int], generator: random.Random) -> list[int]:
    """Return a run of consecutive missing numbers that begins at a random one."""
    start = generator.randrange(len(missing))
    return [number for at, number in enumerate(missing[start:], missing[start]) if number == at]


def finish(labels: LabelSet, rank: Rank | None) -> bool:
    """Finish the set if every shard exists.

    All ranks come here at about the same time, and finishing a set takes a read for each shard. So rank 0 does it, and
    the others wait. Each waits for a random time of its own; then it assumes that rank 0 is dead, and does it itself.

    Args:
        labels: the label set.
        rank: which worker this is; None for the only one.

    Returns:
        Whether every shard exists, so that the set is finished.

    Raises:
        FormatError: a shard is damaged or belongs to another set.
        StoreError: a shard cannot be read.
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
    return finish_set(labels)
