"""What a run counts and reports: counts of what was made, its start, and the interface of observers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

Self = TypeVar("Self", bound="RunStats")


@dataclass
class RunStats:
    """Counts of what was made, for the summary. Every kind of work adds fields of its own.

    Attributes:
        images, crops: how many were labelled.
        bytes: size of the shards, in bytes.
        shards: how many shards were committed.
        lost_races: shards that were dropped, because another process had committed them first.
        image_bytes: the part of `bytes` that is embedded images.
        left_out: (path, reason) of each image without a record.
    """

    images: int = 0
    crops: int = 0
    bytes: int = 0
    shards: int = 0
    lost_races: int = 0
    image_bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: RunStats) -> None:
        """Add the counts of another object of the same class to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def lost(self: Self) -> Self:
        """Return what to count instead if another process committed the shard first."""
        return type(self)(lost_races=1)


@dataclass(frozen=True)
class RunStarted:
    """What a worker reports when it has opened everything, before its first shard.

    Attributes:
        digest: digest of the label set.
        shards, crops: how many are missing in the set.
        notes: lines for the user: teachers, devices, files that are not used.
        shards_there, crops_there: how many the set has already.
    """

    digest: str
    shards: int
    crops: int
    notes: Sequence[str] = ()
    shards_there: int = 0
    crops_there: int = 0

    @classmethod
    def of(
        cls, labels: LabelSet, missing: Sequence[int], num_crops: int, notes: Sequence[str] = ()
    ) -> RunStarted:
        """Describe the start of a run that makes the `missing` shards, with `num_crops` crops per image."""
        crops = int(labels.plan.shard_sizes[list(missing)].sum()) * num_crops
        there = len(labels) * num_crops - crops
        return cls(labels.digest, len(missing), crops, notes, labels.num_shards - len(missing), there)


class RunObserver:
    """Receives the progress of a run. This class ignores it; subclasses override the methods that they need.

    Several threads may call it at the same time.
    """

    def begin(self, start: RunStarted) -> None:
        """Note that a worker is ready to make shards."""

    def retry_alone(self) -> Sequence[str]:
        """Return the names of shards to make first, one at a time.

        They were in flight when the previous worker in this slot crashed: any of them may be the cause.
        """
        return ()

    def claim(self, name: str) -> bool:
        """Note that a worker is about to make a shard. Returns False if the run has given that shard up."""
        return True

    def crops(self, count: int) -> None:
        """Note that a worker has labelled `count` more crops."""

    def shard(self, name: str, stats: Any, made: bool) -> None:
        """Note that a worker has finished a shard. `made` is False if another worker had committed it first."""

    def say(self, text: str) -> None:
        """Show a worker's line of text to the user."""
