"""Labels of forwards -> records of images -> samples of shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slg_wds.engines.reports.run_stats import RunStats
from slg_wds.errors import RecordError
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.format.records.low_rank.blocks import LowRank
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.format.shards.shard import EncodedSample, Sample
from slg_wds.generation.batching import Span
from slg_wds.generation.decoding import Prepared
from slg_wds.generation.inference import Labelled
from slg_wds.generation.job import Job
from slg_wds.generation.opening import LeftOut
from slg_wds.images import image_extension
from slg_wds.labels.low_rank import encode
from slg_wds.labels.low_rank_embeddings import encode_embedding

MOST_WAITING = 1 << 27  # bytes of raw labels that wait to be encoded


@dataclass
class LabelStats(RunStats):
    """Counts of what was labelled, and sums over crops for the summary.

    Attributes:
        top1: sum over crops of the highest probability.
        tail: sum over crops of the probability outside the stored classes.
        targeted: crops of images that have a target.
        agreed: crops whose most probable class is the target.
        unmixed: crops that stay unmixed since the image that they were to be mixed with is left out.
    """

    top1: float = 0.0
    tail: float = 0.0
    targeted: int = 0
    agreed: int = 0
    unmixed: int = 0


@dataclass
class PartialLabels:
    """The labels of one image, filled in as its crops come out of the teacher.

    Attributes:
        index: int64 [M, k], the top-k classes of each of the M crops; k is 0 for full and low-rank labels, and
            for embeddings.
        value: float32 [M, k], their probabilities; for full and low-rank labels [M, C]. Embeddings of the
            teachers side by side.
        tail_sums: float64 [C], the probability outside the top-k, summed over the crops so far; None without tails.
    """

    index: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    tail_sums: npt.NDArray[np.float64] | None = None

    def fill(self, labelled: Labelled, position: int, span: Span) -> bool:
        """Copy the rows of one span of a batch.

        Args:
            labelled: the batch's labels.
            position: the number of the span in the batch.
            span: the span.

        Returns:
            Whether these were the image's last crops.
        """
        rows, crops = slice(span.start, span.start + span.count), slice(span.first, span.first + span.count)
        if labelled.index is not None:
            self.index[crops] = labelled.index[rows]
        self.value[crops] = labelled.value[rows]
        if labelled.tail_sums is not None:
            sums = labelled.tail_sums[position]
            self.tail_sums = sums.copy() if self.tail_sums is None else self.tail_sums + sums
        return span.first + span.count == len(self.value)


@dataclass
class FinishedShard:
    """A shard whose crops are all labelled, and whose samples are being encoded in threads.

    Attributes:
        number: the shard's number in the plan.
        samples: the encoded samples, in the order of the plan.
        left_out: images that have no sample.
        stats: counts of the shard.
    """

    number: int
    samples: list[Future[EncodedSample]]
    left_out: list[LeftOut]
    stats: LabelStats


def finished_shards(
    job: Job, labelled: Iterable[Labelled], pool: ThreadPoolExecutor
) -> Iterator[FinishedShard]:
    """Gather labels by image, and yield each shard after its last crop.

    An image is encoded as soon as all its crops are labelled. So the raw labels of a whole shard, which are large for
    full labels, never lie in memory together. Nor do those of many images that wait to be encoded: where these have
    over MOST_WAITING bytes, the next one waits.

    Args:
        job: what the worker has open.
        labelled: labels of batches, in order.
        pool: threads that encode.

    Yields:
        Shards whose samples may still be in the making.
    """
    open_images: dict[int, PartialLabels] = {}
    waiting: deque[tuple[Future[EncodedSample], int]] = deque()
    shard = FinishedShard(-1, [], [], LabelStats())
    for batch in labelled:
        for position, span in enumerate(batch.batch.spans):
            number = span.image.number
            labels = open_images.setdefault(number, _empty(batch, span.image))
            if labels.fill(batch, position, span):
                del open_images[number]
                _count(job, shard.stats, span.image, labels)
                shard.samples.append(pool.submit(_encode, job, span.image, labels))
                waiting.append((shard.samples[-1], labels.value.nbytes))
                _wait(waiting)
        shard.left_out += batch.batch.left_out
        if batch.batch.ended is not None:
            shard.number = batch.batch.ended
            yield shard
            shard = FinishedShard(-1, [], [], LabelStats())


def _wait(waiting: deque[tuple[Future[EncodedSample], int]]) -> None:
    """Wait until the images that are not yet encoded have few bytes, or are one."""
    while waiting and (
        waiting[0][0].done() or (sum(size for _, size in waiting) > MOST_WAITING and len(waiting) > 1)
    ):
        waiting.popleft()[0].exception()  # whoever collects the sample raises it


def _empty(batch: Labelled, image: Prepared) -> PartialLabels:
    crops, width = len(image.crops), batch.value.shape[1]
    index = np.empty((crops, width), np.int64) if batch.index is not None else np.empty((crops, 0), np.int64)
    return PartialLabels(index, np.empty((crops, width), np.float32))


def _count(job: Job, stats: LabelStats, image: Prepared, labels: PartialLabels) -> None:
    stats.images += 1
    stats.crops += len(labels.value)
    stats.unmixed += image.unmixed
    if job.recipe.embeds:
        return
    dense = job.recipe.needs_all  # in class order, not by probability
    top1 = labels.value.max(axis=1) if dense else labels.value[:, 0]
    first = labels.value.argmax(axis=1) if dense else labels.index[:, 0]
    stats.top1 += float(top1.sum(dtype=np.float64))
    stats.tail += float(np.maximum(0.0, 1.0 - labels.value.sum(axis=1, dtype=np.float64)).sum())
    target = int(job.labels.plan.targets[image.number])
    if target >= 0:
        stats.targeted += len(first)
        stats.agreed += int((first == target).sum())


def _encode(job: Job, image: Prepared, labels: PartialLabels) -> EncodedSample:
    extension = image_extension(image.stored) if image.stored is not None else None
    return job.labels.encode_sample(Sample(as_record(job, image, labels), image.stored, extension))


def as_record(job: Job, image: Prepared, labels: PartialLabels) -> Record:
    """Return the record of an image whose crops are all labelled."""
    plan, recipe = job.labels.plan, job.recipe
    key, target = plan.keys[image.number], int(plan.targets[image.number])
    index, value = _stored_top(job, labels)
    tail, sums = _tail(job, image, labels)
    return Record(
        key=key,
        path=plan.paths[image.number],
        target=target if target >= 0 else None,
        size=image.size,
        crops=image.crops.boxes,
        flips=image.crops.flips,
        views=image.crops.views,
        index=index,
        value=value,
        tail=tail,
        coding=recipe.coding,
        full=recipe.label.kind == "full",
        num_classes=job.teacher.num_classes,
        tail_sums=sums if job.config.extendable else None,
        image_crc32=image.crc32,
        source_crc32=image.source_crc32,
        low_rank=_coded(job, key, labels) if recipe.max_kl else None,
        embeddings=_embeddings(job, key, labels) if recipe.embeds else None,
    )


def _stored_top(job: Job, labels: PartialLabels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the classes and probabilities of crops, [M, k] each, as records have them; k is 0 for none."""
    crops, kind = len(labels.value), job.recipe.label.kind
    if job.recipe.max_kl or job.recipe.embeds:
        return labels.index, np.zeros((crops, 0), np.float32)
    if kind == "full":
        classes = job.teacher.num_classes
        return np.broadcast_to(np.arange(classes), (crops, classes)), labels.value
    return labels.index, np.ones_like(labels.value) if kind == "hard" else labels.value


def _tail(
    job: Job, image: Prepared, labels: PartialLabels
) -> tuple[Tail | None, npt.NDArray[np.float64] | None]:
    """Return the image's shared tail and the sums that it is made of; None for labels without a tail."""
    sums, summed = labels.tail_sums, len(image.crops)
    if sums is None:
        return None, None
    if image.earlier_tail_sums is not None:
        sums, summed = image.earlier_tail_sums + sums, job.config.num_crops
    if not summed:
        return None, sums
    return build_tail(sums / summed, job.recipe.tail_classes, summed, labels.index.shape[1]), sums


def _embeddings(job: Job, key: str, labels: PartialLabels) -> dict[str, AnyEmbedding]:
    found: dict[str, AnyEmbedding] = {}
    first = 0
    try:
        for one in job.labels.identity.embeddings or []:
            last = first + one["dim"]
            mine, min_cosine = labels.value[:, first:last], one.get("min_cosine")
            found[one["name"]] = (
                encode_embedding(mine, min_cosine) if min_cosine else Embedding.of(mine, one["values"])
            )
            first = last
    except RecordError as error:
        raise error.located(key=key) from None
    return found


def _coded(job: Job, key: str, labels: PartialLabels) -> LowRank:
    try:
        return encode(labels.value, job.recipe.max_kl or 0.0)
    except RecordError as error:
        raise error.located(key=key) from None
