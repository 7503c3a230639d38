"""The worker loop: the same in every process of every engine."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from slg_wds.errors import UsageError
from slg_wds.format.shard import ShardHeader, encode_shard
from slg_wds.labelling.batches import Buffers, ahead, batches_ahead, full_batches
from slg_wds.labelling.forward import Forward, Labelled
from slg_wds.labelling.job import Job
from slg_wds.labelling.prepare import prepared_images
from slg_wds.labelling.shards import FinishedShard, Tally, finished_shards
from slg_wds.labelset import LabelSet

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun
    ("SLURM_PROCID", "SLURM_NTASKS"),  # srun
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
)


class Watcher(Protocol):
    """Whoever is told of progress."""

    def shard(self, name: str, tally: Tally, made: bool) -> None:
        """A shard is committed, or was there already when this worker came with its own."""

    def crops(self, count: int) -> None:
        """So many crops have been labelled."""


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
    would make the same shards for the rest of the run.
    """
    claimed: set[int] = set()
    order = random.Random(os.urandom(16))
    own = rank.block(labels.num_shards) if rank else range(0)
    candidates = list(own)
    while True:
        for number in candidates:
            if not labels.exists(number):
                claimed.add(number)
                yield number
        candidates = [number for number in labels.missing() if number not in claimed]
        if not candidates:
            return
        order.shuffle(candidates)


def work(job: Job, rank: Rank | None, watcher: Watcher) -> Tally:
    """Make missing shards until there are none; return what this worker made.

    Raises the first error of any thread, after which nothing more is committed.
    """
    import torch

    total = Tally()
    recipe = job.recipe
    buffers = Buffers(job.teacher.inputs, recipe.num_seg, pinned=job.device.type == "cuda")
    forward = Forward(job.teacher, recipe.label, recipe.writes_tail, job.device, buffers)
    pool = ThreadPoolExecutor(job.workers, "slg-image", initializer=torch.set_num_threads, initargs=(1,))
    publisher = ThreadPoolExecutor(1, "slg-commit")
    pool.submit(int).result()  # start a worker first: set_num_threads also moves the default of later threads
    torch.set_num_threads(job.threads_per_forward)
    commits: deque[Future[Tally]] = deque()
    try:
        images = prepared_images(job, claims(job.labels, rank), pool)
        batches = ahead(full_batches(images, buffers, pool), batches_ahead(buffers, job.workers))
        for shard in finished_shards(job, _counted(forward.label_all(batches), watcher), pool):
            commits.append(publisher.submit(_commit, job, shard, watcher))
            while len(commits) > 2 or (commits and commits[0].done()):
                total.add(commits.popleft().result())
        for commit in commits:
            total.add(commit.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        publisher.shutdown(wait=True, cancel_futures=True)
    return total


def _counted(labelled: Iterable[Labelled], watcher: Watcher) -> Iterator[Labelled]:
    for batch in labelled:
        watcher.crops(batch.batch.filled)
        yield batch


def _commit(job: Job, shard: FinishedShard, watcher: Watcher) -> Tally:
    plan = job.labels.plan
    name = plan.shard_names[shard.number]
    left_out = [
        {"key": plan.keys[image.number], "path": plan.paths[image.number], "reason": image.reason}
        for image in shard.left_out
    ]
    header = ShardHeader(job.labels.digest, shard.number, name, left_out, dict(job.provenance))
    data = encode_shard((sample.result() for sample in shard.samples), header)
    made = job.labels.commit(shard.number, data)
    tally = shard.tally
    tally.bytes = len(data)
    tally.shards = 1
    tally.left_out = [(entry["path"], entry["reason"]) for entry in left_out]
    watcher.shard(name, tally, made)
    return tally if made else Tally(lost_races=1)
