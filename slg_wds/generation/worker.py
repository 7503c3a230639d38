"""The worker loop: the same in every process of every engine."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from slg_wds.concurrency.rank import Rank
from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.engines.claims import claims
from slg_wds.engines.committing import Committer
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.batching import Buffers, batches_ahead, full_batches
from slg_wds.generation.collation import FinishedShard, LabelStats, finished_shards
from slg_wds.generation.decoding import prepared_images
from slg_wds.generation.inference import Forward, Labelled
from slg_wds.generation.job import Job


def work(job: Job, rank: Rank | None, observer: RunObserver) -> LabelStats:
    """Make shards until none is missing.

    Args:
        job: what this worker has open.
        rank: which worker this is; None for one without a block of shards of its own.
        observer: is told of crops and shards.

    Returns:
        Counts of what this worker made.

    Raises:
        SlgWdsError: the first error of any thread; nothing is committed after it.
    """
    total = LabelStats()
    committer = Committer(job.labels, observer, job.most_left_out)
    names = job.labels.plan.shard_names
    for name in observer.retry_alone():
        number = names.index(name)
        if not job.labels.exists(number) and observer.claim(name):
            total.add(label_shards(job, [number], observer, committer))
    shards = claims(job.labels, rank, observer, committer.lost)
    total.add(label_shards(job, shards, observer, committer))
    return total


def label_shards(job: Job, shards: Iterable[int], observer: RunObserver, committer: Committer) -> LabelStats:
    """Label these shards in order; while one is encoded and committed, the next one is already labelled."""
    total = LabelStats()
    publisher = ThreadPoolExecutor(1, "slg-commit")
    commits: deque[Future[LabelStats]] = deque()
    try:
        with labelling_threads(job) as pool:
            labelled = _counted(labelled_batches(job, shards, pool), observer)
            for shard in finished_shards(job, labelled, pool):
                before = commits[-1] if commits else None
                commits.append(publisher.submit(_commit, job, shard, committer, before))
                while len(commits) > 2 or (commits and commits[0].done()):
                    total.add(commits.popleft().result())
            for commit in commits:
                total.add(commit.result())
    finally:
        publisher.shutdown(wait=True, cancel_futures=True)
    return total


@contextlib.contextmanager
def labelling_threads(job: Job) -> Iterator[ThreadPoolExecutor]:
    """Yield the threads that decode, cut and encode beside the teachers, with the numbers of threads that a run has."""
    config = job.config
    with job.products(), threads_beside_forwards(config.num_workers, config.forward_threads) as pool:
        yield pool


def labelled_batches(job: Job, shards: Iterable[int], pool: ThreadPoolExecutor) -> Iterator[Labelled]:
    """Yield the labels of these shards in order, forward by forward. Images are decoded and cut ahead in the threads.

    Args:
        job: what the worker has open.
        shards: numbers of the shards; taking one claims it.
        pool: of `labelling_threads`.

    Raises:
        SlgWdsError: the first error of any thread.
    """
    device = job.teacher.device
    buffers = Buffers(job.teacher.inputs, job.num_seg, pinned=device.type == "cuda")
    forward = Forward(job.teacher, job.recipe.label, job.recipe.writes_tail, device, buffers)
    images = prepared_images(job, shards, pool)
    ahead = batches_ahead(buffers, job.config.num_workers)
    return forward.label_all(full_batches(images, buffers, pool, ahead))


def _counted(labelled: Iterable[Labelled], observer: RunObserver) -> Iterator[Labelled]:
    for batch in labelled:
        observer.crops(batch.batch.filled)
        yield batch


def _commit(
    job: Job, shard: FinishedShard, committer: Committer, before: Future[LabelStats] | None
) -> LabelStats:
    if before is not None:
        before.result()  # its error is this one's too: a store that fails is not waited for twice
    samples = [sample.result() for sample in shard.samples]
    left_out = [(image.number, image.reason) for image in shard.left_out]
    return committer.commit(shard.number, samples, left_out, job.provenance, shard.stats)
