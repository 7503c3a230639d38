"""The worker loop: the same in every process of every engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from slg_wds.concurrency.rank import Rank
from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.engines.claims import claims
from slg_wds.engines.run_stats import RunObserver
from slg_wds.generation.batching import Buffers, ahead, batches_ahead, full_batches
from slg_wds.generation.collation import FinishedShard, LabelStats, finished_shards
from slg_wds.generation.decoding import prepared_images
from slg_wds.generation.inference import Forward, Labelled
from slg_wds.generation.job import Job
from slg_wds.labelset.left_out import Allowance


def work(job: Job, rank: Rank | None, observer: RunObserver) -> LabelStats:
    """Make missing shards until there are none; return what this worker made.

    Raises the first error of any thread, after which nothing more is committed.
    """
    total, lost = LabelStats(), set[int]()
    names = job.labels.plan.shard_names
    for name in observer.retry_alone():
        number = names.index(name)
        if not job.labels.exists(number) and observer.claim(name):
            total.add(label_shards(job, [number], observer, lost))
    total.add(label_shards(job, claims(job.labels, rank, observer, lost), observer, lost))
    return total


def label_shards(job: Job, shards: Iterable[int], observer: RunObserver, lost: set[int]) -> LabelStats:
    """Make these shards, the next one begun while the last is finished; return what was made.

    lost: takes the numbers of those of which another worker's was there first.
    """
    total = LabelStats()
    recipe = job.recipe
    buffers = Buffers(job.teacher.inputs, recipe.num_seg, pinned=job.device.type == "cuda")
    forward = Forward(job.teacher, recipe.label, recipe.writes_tail, job.device, buffers)
    publisher = ThreadPoolExecutor(1, "slg-commit")
    commits: deque[Future[LabelStats]] = deque()
    allowance = Allowance(job.labels, job.most_left_out)
    try:
        with threads_beside_forwards(job.workers, job.threads_per_forward) as pool:
            images = prepared_images(job, shards, pool)
            batches = ahead(full_batches(images, buffers, pool), batches_ahead(buffers, job.workers))
            for shard in finished_shards(job, _counted(forward.label_all(batches), observer), pool):
                commits.append(publisher.submit(_commit, job, shard, observer, lost, allowance))
                while len(commits) > 2 or (commits and commits[0].done()):
                    total.add(commits.popleft().result())
            for commit in commits:
                total.add(commit.result())
    finally:
        publisher.shutdown(wait=True, cancel_futures=True)
    return total


def _counted(labelled: Iterable[Labelled], observer: RunObserver) -> Iterator[Labelled]:
    for batch in labelled:
        observer.crops(batch.batch.filled)
        yield batch


def _commit(
    job: Job, shard: FinishedShard, observer: RunObserver, lost: set[int], allowance: Allowance
) -> LabelStats:
    plan = job.labels.plan
    name = plan.shard_names[shard.number]
    left_out = [
        {"key": plan.keys[image.number], "path": plan.paths[image.number], "reason": image.reason}
        for image in shard.left_out
    ]
    allowance.check(shard.number, [f"{entry['path']}: {entry['reason']}" for entry in left_out])
    samples = [sample.result() for sample in shard.samples]
    data = job.labels.encode_shard(shard.number, samples, left_out, job.provenance)
    made = job.labels.commit(shard.number, data)
    if not made:
        lost.add(shard.number)
    stats = shard.stats
    stats.bytes, stats.image_bytes = len(data), sum(sample.image_bytes for sample in samples)
    stats.shards = 1
    stats.left_out = [(entry["path"], entry["reason"]) for entry in left_out]
    observer.shard(name, stats, made)
    return stats if made else stats.lost()
