"""The worker loop of a merge: the same in every process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.engines.claims import claims
from slg_wds.engines.committing import Committer, LeftOutImage
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted, RunStats
from slg_wds.ensembling.checks import check_partners, check_records
from slg_wds.ensembling.convert import Conversion
from slg_wds.ensembling.embeddings import joined_record
from slg_wds.ensembling.low_rank import mean_of_labels
from slg_wds.ensembling.merge import LabelFormat, RecordLabels, merge
from slg_wds.ensembling.parents import KeyedSet, Missing, Parent
from slg_wds.ensembling.prototypes import PrototypeRule, open_members
from slg_wds.errors import LabelSetError
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.low_rank.blocks import LOW_RANK, LowRank
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.distributions import as_full
from slg_wds.format.shards.shard import EncodedSample, Sample, load_writer
from slg_wds.labelset.combining.renumbering import Find
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import code_of_all
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location


@dataclass
class MergeStats(RunStats):
    """Counts of what was merged, and sums of probability over crops. A sum is NaN where a set stores no probabilities.

    Attributes:
        parent_tail: outside the parents' top-k, as a weighted mean of the parents.
        own_tail: outside the result's top-k.
        coded: crops that were given new low-rank labels.
        kl: of these, the KL divergence from the exact mean of what was read, in nats; summed over crops.
        worst_kl: of these, the largest KL divergence of a crop.
        low_rank_read: images of which a parent has low-rank labels.
        known: what the parents store for the classes of the result's top-k, as a weighted mean. Recovered probabilities
            do not count.
    """

    parent_tail: float = 0.0
    own_tail: float = 0.0
    known: float = 0.0
    coded: int = 0
    kl: float = 0.0
    worst_kl: float = 0.0
    low_rank_read: int = 0

    def add(self, other: RunStats) -> None:
        """Add the counts of another object to this one; of the worst crops, the worse stays."""
        worst = max(self.worst_kl, getattr(other, "worst_kl", 0.0))
        super().add(other)
        self.worst_kl = worst


@dataclass(frozen=True)
class MergeTask:
    """The work of every worker of a merge. Picklable.

    Attributes:
        sets: where the sets to merge lie.
        weights: their weights; None for equal ones.
        location: where the merged set lies. It has been begun before any worker starts.
        label_format: the format of its labels; None if embeddings are joined.
        rule: how the embeddings of the set become labels; None for sets of labels.
        provenance: what the trailer of each shard notes of how it was made.
        digests: digests of the parents and of the merged set when the run began.
        start: what was missing then.
        launched: the rank that a launcher gave the process that starts the workers; None without a launcher.
    """

    sets: tuple[Location, ...]
    weights: tuple[float, ...] | None
    location: Location
    label_format: LabelFormat | None
    rule: PrototypeRule | None
    provenance: Mapping[str, Any]
    digests: tuple[str, ...]
    start: RunStarted
    launched: Rank | None = None

    def __call__(self, worker: int, workers: int, observer: RunObserver) -> MergeStats:
        """Make shards until none is missing.

        Raises:
            LabelSetError: a set has been replaced by another since the run began.
        """
        parents = open_members(self.sets, self.weights, self.rule)
        labels = labels_at(self.location, allow_incomplete=True, embeddings=self.label_format is None)
        if (*(parent.last.labels.digest for parent in parents), labels.digest) != self.digests:
            raise LabelSetError("a label set has been replaced by another since the start", url=labels.url)
        load_writer()
        observer.begin(self.start)
        low_rank = self.label_format is not None and self.label_format.max_kl
        with one_blas_thread() if low_rank else contextlib.nullcontext():
            return self._merge(labels, parents, (self.launched or ALONE).within(worker, workers), observer)

    def _merge(
        self, labels: LabelSet, parents: Sequence[Parent], rank: Rank | None, observer: RunObserver
    ) -> MergeStats:
        total, committer = MergeStats(), Committer(labels, observer)
        find = KeyedSet(labels).find if parents[0].last.labels.has_mixing else None
        for number in claims(labels, rank, observer, committer.lost):
            part = labels.plan.shard(number)
            numbers = [parent.numbers(part.keys, part.start) for parent in parents]
            samples, left_out, stats = _merge_shard(
                labels, part, numbers, parents, self.label_format, observer, find
            )
            noted = [
                one for parent, found in zip(parents, numbers, strict=True) for one in parent.code(found)
            ]
            provenance = {**self.provenance, **code_of_all(noted)}
            total.add(committer.commit(number, samples, left_out, provenance, stats))
        return total


def _merge_shard(
    labels: LabelSet,
    part: PlannedShard,
    numbers: Sequence[list[list[int | None]]],
    parents: Sequence[Parent],
    to: LabelFormat | None,
    observer: RunObserver,
    find: Find | None,
) -> tuple[list[EncodedSample], list[LeftOutImage], MergeStats]:
    stats = MergeStats()
    samples: list[EncodedSample] = []
    left_out: list[LeftOutImage] = []
    for i, path in enumerate(part.paths):
        at = [[found[i] for found in parent_numbers] for parent_numbers in numbers]
        records, missing = _read(parents, at, find)
        if missing is not None:
            left_out.append((part.start + i, missing))
            continue
        check_partners(parents, records[0], labels.plan.keys)
        stats.images += 1
        stats.crops += records[0].num_crops
        record = joined_record(records, path) if to is None else _merged(parents, records, path, to, stats)
        image = parents[0].image(at[0]) if parents[0].identity.embed_images is not None else None
        samples.append(labels.encode_sample(Sample(record, *image) if image else Sample(record)))
        observer.crops(records[0].num_crops)
    return samples, left_out, stats


def _read(
    parents: Sequence[Parent], at: list[list[int | None]], find: Find | None
) -> tuple[list[Record], str | None]:
    """Return an image's record in each set; or no records and a reason, if a set left the image out."""
    records = []
    for place, (parent, numbers) in enumerate(zip(parents, at, strict=True)):
        record = parent.read(numbers, find)
        if isinstance(record, Missing):
            where = f" (left out of set {place + 1})" if len(parents) > 1 else ""
            return [], record.reason + where
        records.append(record)
    check_records(parents, records)
    return records, None


def _merged(
    parents: Sequence[Parent],
    records: Sequence[Record],
    path: str,
    to: LabelFormat,
    stats: MergeStats,
) -> Record:
    first, low_rank = records[0], None
    stats.low_rank_read += any(record.low_rank is not None for record in records)
    if to.max_kl:
        low_rank = _low_rank(parents, records, to.max_kl, stats)
        shape = (first.num_crops, 0)  # no top classes: the blocks hold all
        labels = RecordLabels(np.zeros(shape, np.int64), np.zeros(shape, np.float32), None)
    else:
        labels = _labels(parents, records, to, stats)
    return Record(
        key=first.key,
        path=path,
        target=first.target,
        size=first.size,
        crops=first.crops,
        flips=first.flips,
        index=labels.index,
        value=labels.value,
        tail=labels.tail,
        coding=to.stored_coding,
        full=to.full,
        num_classes=to.num_classes,
        image_crc32=first.image_crc32,
        source_crc32=first.source_crc32,
        low_rank=low_rank,
        views=first.views,
    )


def _labels(
    parents: Sequence[Parent], records: Sequence[Record], to: LabelFormat, stats: MergeStats
) -> RecordLabels:
    """Return the labels of an image in a format that is not low-rank: of one set converted, of several merged."""
    if len(parents) == 1:
        conversion = Conversion(to)
        for part in map(as_full, parents[0].parts(records[0])):
            _count(stats, parents, [part], conversion.add(part), to)
        return conversion.finish()
    records = [as_full(record) for record in records]
    rules = [None if parent.rule == LOW_RANK else parent.rule for parent in parents]
    labels = merge(records, rules, [parent.share for parent in parents], to)
    _count(stats, parents, records, labels, to)
    return labels


def _low_rank(
    parents: Sequence[Parent], records: Sequence[Record], max_kl: float, stats: MergeStats
) -> LowRank:
    records = [parent.labelled(record) for parent, record in zip(parents, records, strict=True)]
    keep = parents[0].identity.max_kl == max_kl
    rules, shares = [parent.rule for parent in parents], [parent.share for parent in parents]
    labels = mean_of_labels(records, rules, shares, max_kl, keep)
    if labels is not records[0].low_rank:
        crops = len(labels.block_of)
        stats.coded += crops
        stats.kl += labels.kl.mean * crops
        stats.worst_kl = max(stats.worst_kl, labels.kl.worst)
    return labels


def _count(
    stats: MergeStats,
    parents: Sequence[Parent],
    records: Sequence[Record],
    labels: RecordLabels,
    to: LabelFormat,
) -> None:
    stats.own_tail += _outside(labels.value, to.full, to.label.kind == "hard")
    for parent, record in zip(parents, records, strict=True):
        stats.parent_tail += parent.share * _outside(record.value, record.full, record.coding == "none")
        stats.known += parent.share * _known(record, labels.index, to)


def _known(record: Record, index: Any, to: LabelFormat) -> float:
    """Sum over crops the probability that a record stores for the result's classes, int64 [M, k]. NaN if unknown."""
    if record.coding == "none" or to.label.kind == "hard":
        return float("nan")
    if to.full:
        found = record.value
    elif record.full:
        found = np.take_along_axis(record.value, index, axis=1)
    else:
        found = record.value * (record.index[:, :, None] == index[:, None, :]).any(axis=2)
    return float(np.minimum(1.0, found.sum(axis=1, dtype=np.float64)).sum())


def _outside(value: Any, full: bool, hard: bool) -> float:
    """Sum over crops the probability outside the top-k. NaN if unknown."""
    if hard:
        return float("nan")
    return 0.0 if full else float(np.maximum(0.0, 1.0 - value.sum(axis=1, dtype=np.float64)).sum())
