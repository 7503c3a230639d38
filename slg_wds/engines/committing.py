"""The end of every worker loop: a shard's samples are encoded, committed, counted and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from slg_wds.engines.reports.run_stats import RunObserver, RunStats
from slg_wds.errors import StoreError
from slg_wds.format.shards.shard import EncodedSample
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.left_out import Allowance
from slg_wds.labelset.publishing import commit_shard

Stats = TypeVar("Stats", bound=RunStats)
RESUME = "once that is mended, run the same command again: it goes on where it stopped"
LeftOutImage = tuple[int, str]  # its number in the plan, and why it has no record


class Committer:
    """Commits the shards of one worker.

    Args:
        labels: the set that the shards go into.
        observer: its `shard` is called for every shard.
        most_left_out: the largest number of images that the whole set may leave out; None for no limit.

    Attributes:
        lost: numbers of shards that this worker made and another worker committed first. `claims` reads it.
    """

    def __init__(self, labels: LabelSet, observer: RunObserver, most_left_out: int | None = None) -> None:
        self.lost: set[int] = set()
        self._labels, self._observer = labels, observer
        self._allowance = None if most_left_out is None else Allowance(labels, most_left_out)

    def commit(
        self,
        number: int,
        samples: Sequence[EncodedSample],
        left_out: Sequence[LeftOutImage],
        provenance: Mapping[str, object],
        stats: Stats,
    ) -> Stats:
        """Commit one shard.

        Args:
            number: the shard's number in the plan.
            samples: its samples, in plan order.
            left_out: its images that have no sample.
            provenance: JSON values that say how the shard was made, for its trailer (its last member).
            stats: counts of what was made; bytes, shards and left-out images are added here.

        Returns:
            `stats`; if another worker committed the shard first, counts of one lost race and nothing else.

        Raises:
            LabelSetError: the set would leave out too many images, or another set has taken its place.
            StoreError: the shard cannot be written.
        """
        plan = self._labels.plan
        stats.left_out += [(plan.paths[image], reason) for image, reason in left_out]
        if self._allowance is not None:
            self._allowance.check(number, [f"{path}: {reason}" for path, reason in stats.left_out])
        entries = [
            {"key": plan.keys[image], "path": plan.paths[image], "reason": reason}
            for image, reason in left_out
        ]
        data = self._labels.encode_shard(number, samples, entries, dict(provenance))
        stats.shards += 1
        stats.bytes += len(data)
        stats.image_bytes += sum(sample.image_bytes for sample in samples)
        try:
            made = commit_shard(self._labels, number, data)
        except StoreError as error:
            error.hint = error.hint or RESUME
            raise
        self._observer.shard(plan.shard_names[number], stats, made)
        if made:
            return stats
        self.lost.add(number)
        return stats.lost()
