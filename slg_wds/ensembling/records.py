"""The record of an image in each set -> its record in the merged set, and counts of how close it is to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.engines.reports.run_stats import RunStats
from slg_wds.ensembling.convert import Conversion
from slg_wds.ensembling.low_rank import mean_of_labels
from slg_wds.ensembling.merge import LabelFormat, RecordLabels, merge
from slg_wds.ensembling.parents import Parent
from slg_wds.format.records.low_rank.blocks import LOW_RANK, LowRank
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.distributions import as_full


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
class RecordMerger:
    """Makes merged records.

    Attributes:
        parents: the sets.
        label_format: the format of the labels that are made.
        stats: gets what is known of each record that is made.
    """

    parents: Sequence[Parent]
    label_format: LabelFormat
    stats: MergeStats

    def merged(self, records: Sequence[Record], path: str) -> Record:
        """Return the merged record of an image.

        Args:
            records: its record in each set; their crops are the same.
            path: of the image in the merged set.

        Raises:
            RecordError: no low-rank labels are so close.
        """
        first, wanted, low_rank = records[0], self.label_format, None
        self.stats.low_rank_read += any(record.low_rank is not None for record in records)
        if wanted.max_kl:
            low_rank = self._low_rank(records, wanted.max_kl)
            shape = (first.num_crops, 0)  # no top classes: the blocks hold all
            labels = RecordLabels(np.zeros(shape, np.int64), np.zeros(shape, np.float32), None)
        else:
            labels = self._labels(records)
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
            coding=wanted.stored_coding,
            full=wanted.full,
            num_classes=wanted.num_classes,
            image_crc32=first.image_crc32,
            source_crc32=first.source_crc32,
            low_rank=low_rank,
            views=first.views,
        )

    def _labels(self, records: Sequence[Record]) -> RecordLabels:
        """Return labels that are not low-rank: of one set converted, of several merged."""
        if len(self.parents) == 1:
            return self._converted(self.parents[0], records[0])
        records = [as_full(record) for record in records]
        rules = [None if parent.rule == LOW_RANK else parent.rule for parent in self.parents]
        labels = merge(records, rules, self._shares, self.label_format)
        self._count(records, labels)
        return labels

    def _converted(self, parent: Parent, record: Record) -> RecordLabels:
        conversion = Conversion(self.label_format)
        for part in map(as_full, parent.parts(record)):
            self._count([part], conversion.add(part))
        return conversion.finish()

    def _low_rank(self, records: Sequence[Record], max_kl: float) -> LowRank:
        records = [parent.labelled(record) for parent, record in zip(self.parents, records, strict=True)]
        keep = self.parents[0].identity.max_kl == max_kl
        rules = [parent.rule for parent in self.parents]
        labels = mean_of_labels(records, rules, self._shares, max_kl, keep)
        if labels is not records[0].low_rank:
            crops = len(labels.block_of)
            self.stats.coded += crops
            self.stats.kl += labels.kl.mean * crops
            self.stats.worst_kl = max(self.stats.worst_kl, labels.kl.worst)
        return labels

    @property
    def _shares(self) -> list[float]:
        return [parent.share for parent in self.parents]

    def _count(self, records: Sequence[Record], labels: RecordLabels) -> None:
        stats, made = self.stats, self.label_format
        stats.own_tail += _outside(labels.value, made.full, made.label.kind == "hard")
        for parent, record in zip(self.parents, records, strict=True):
            stats.parent_tail += parent.share * _outside(record.value, record.full, record.coding == "none")
            stats.known += parent.share * _known(record, labels.index, made)


def _known(record: Record, index: Any, label_format: LabelFormat) -> float:
    """Sum over crops the probability that a record stores for the result's classes, int64 [M, k]. NaN if unknown."""
    if record.coding == "none" or label_format.label.kind == "hard":
        return float("nan")
    if label_format.full:
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
