"""The worker loop of a merge: the same in every process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.engines.claims import claims
from slg_wds.engines.committing import Committer, LeftOutImage
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.ensembling.checks import check_partners, check_records
from slg_wds.ensembling.embeddings import joined_record
from slg_wds.ensembling.merge import LabelFormat
from slg_wds.ensembling.parents import Parent
from slg_wds.ensembling.prototypes import PrototypeRule, open_members
from slg_wds.ensembling.records import MergeStats, RecordMerger
from slg_wds.errors import LabelSetError
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import EncodedSample, Sample, load_writer
from slg_wds.labelset.combining.renumbering import Find
from slg_wds.labelset.keyed import Missing
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import code_of_all
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location


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
        if (*(parent.labels.digest for parent in parents), labels.digest) != self.digests:
            raise LabelSetError("a label set has been replaced by another since the start", url=labels.url)
        load_writer()
        observer.begin(self.start)
        low_rank = self.label_format is not None and self.label_format.max_kl
        with one_blas_thread() if low_rank else contextlib.nullcontext():
            merger = ShardMerger(labels, parents, self.label_format, observer)
            return self._merge(merger, (self.launched or ALONE).within(worker, workers))

    def _merge(self, merger: ShardMerger, rank: Rank | None) -> MergeStats:
        total, committer = MergeStats(), Committer(merger.labels, merger.observer)
        for number in claims(merger.labels, rank, merger.observer, committer.lost):
            made = merger.merge(number)
            provenance = {**self.provenance, **made.code}
            total.add(committer.commit(number, made.samples, made.left_out, provenance, made.stats))
        return total


@dataclass(frozen=True)
class MergedShard:
    """What a shard of the merged set holds.

    Attributes:
        samples: its samples, in the order of the plan.
        left_out: number in the plan and reason, of each image without a sample.
        code: what its provenance notes of the code of private teachers; see `code_of_all`.
        stats: counts of what was merged.
    """

    samples: list[EncodedSample]
    left_out: list[LeftOutImage]
    code: Mapping[str, Any]
    stats: MergeStats


@dataclass(frozen=True)
class ShardMerger:
    """Makes shards of the merged set.

    Attributes:
        labels: the merged set.
        parents: the sets.
        label_format: the format of its labels; None if embeddings are joined.
        observer: is told of crops that were made.
    """

    labels: LabelSet
    parents: Sequence[Parent]
    label_format: LabelFormat | None
    observer: RunObserver

    def merge(self, number: int) -> MergedShard:
        """Make the shard of this number.

        Raises:
            IdentityMismatchError, LabelSetError: the sets do not go together.
            FormatError, StoreError: a record cannot be read.
        """
        part, stats = self.labels.plan.shard(number), MergeStats()
        samples: list[EncodedSample] = []
        left_out: list[LeftOutImage] = []
        numbers = [parent.numbers(part.keys, part.start) for parent in self.parents]
        for i, path in enumerate(part.paths):
            at = [[found[i] for found in of_parent] for of_parent in numbers]
            records = self._read(at)
            if isinstance(records, Missing):
                left_out.append((part.start + i, records.reason))
            else:
                samples.append(self._sample(records, path, at[0], stats))
        # Asked for last: a shard that was read whole need not be read again for it.
        code = [
            one for parent, found in zip(self.parents, numbers, strict=True) for one in parent.code(found)
        ]
        return MergedShard(samples, left_out, code_of_all(code), stats)

    def _read(self, at: Sequence[list[int | None]]) -> list[Record] | Missing:
        """Return an image's record in each set, or why one of them left it out; `at` has its numbers in them."""
        records = []
        for place, (parent, numbers) in enumerate(zip(self.parents, at, strict=True)):
            record = parent.read(numbers, self._find)
            if isinstance(record, Missing):
                where = f" (left out of set {place + 1})" if len(self.parents) > 1 else ""
                return Missing(record.reason + where)
            records.append(record)
        check_records(self.parents, records)
        check_partners(self.parents, records[0], self.labels.plan.keys)
        return records

    @property
    def _find(self) -> Find | None:
        """Finds images that are mixed in, in the merged set's plan; None where the sets mix nothing in."""
        return self.labels.key_numbers.find if self.parents[0].labels.has_mixing else None

    def _sample(
        self, records: list[Record], path: str, first: Sequence[int | None], stats: MergeStats
    ) -> EncodedSample:
        """Encode the merged sample of an image; `first` has its numbers in the first parent."""
        stats.images += 1
        stats.crops += records[0].num_crops
        if self.label_format is None:
            record = joined_record(records, path)
        else:
            record = RecordMerger(self.parents, self.label_format, stats).merged(records, path)
        parent = self.parents[0]
        image = parent.image(first) if parent.identity.embed_images is not None else None
        sample = self.labels.encode_sample(Sample(record, *image) if image else Sample(record))
        self.observer.crops(record.num_crops)
        return sample
