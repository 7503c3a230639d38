"""What a run has made so far, and whoever is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Self = TypeVar("Self", bound="RunStats")


@dataclass
class RunStats:
    """What was made: counts, for the summary. Every kind of work adds its own.

    bytes: of whole shards; image_bytes: of the embedded images among them.
    left_out: path and reason of each image that has no record.
    """

    images: int = 0
    crops: int = 0
    bytes: int = 0
    shards: int = 0
    lost_races: int = 0
    image_bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: RunStats) -> None:
        """Add another stats of the same kind to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def lost(self: Self) -> Self:
        """What to count instead when another process made the shard first."""
        return type(self)(lost_races=1)


@dataclass(frozen=True)
class RunStarted:
    """What is known once a worker has opened everything, before its first shard.

    digest: the label set's. shards, crops: what is missing of it. said: lines for people. shards_there, crops_there:
    what exists already.
    """

    digest: str
    shards: int
    crops: int
    said: Sequence[str] = ()
    shards_there: int = 0
    crops_there: int = 0


class RunObserver:
    """Whoever is told of a run's progress. This one keeps it to itself; threads may report at once."""

    def begin(self, start: RunStarted) -> None:
        """A worker is ready to make shards."""

    def retry_alone(self) -> Sequence[str]:
        """Names of shards in whose making an earlier worker in this one's place ended: each is made alone, first."""
        return ()

    def claim(self, name: str) -> bool:
        """A shard is about to be made; False where the run has given it up."""
        return True

    def crops(self, count: int) -> None:
        """So many crops have been labelled."""

    def shard(self, name: str, stats: Any, made: bool) -> None:
        """A shard is committed, or was there already when this worker came with its own."""

    def say(self, text: str) -> None:
        """Something people should know."""
