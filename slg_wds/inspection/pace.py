"""When shards were committed, and how fast lately, by the times of their files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

RECENT = 20  # least number of commits that the pace is measured on
PAUSES = 3  # at most so many pauses between runs are left out of it
PAUSE = 3600.0  # seconds: no less is a pause
TIMES_LONGER = 10  # than all other waits for a commit: a pause
OTHERS = 10  # least number of other waits for each pause: workers that commit together would look like one


@dataclass(frozen=True)
class CommitPace:
    """When shards were committed, and how fast lately.

    Attributes:
        first, last: times of the first and last commit in seconds since 1970, by the store's clock.
        measured: over how many of the last commits the pace is measured.
        shards_per_second: the pace; None for one commit, or for several in the same instant.
        left: seconds until the set is finished at this pace; None without a pace.
    """

    first: float
    last: float
    measured: int
    shards_per_second: float | None
    left: float | None

    def idle(self, now: float) -> bool:
        """Return whether nobody seems to work on the set any more, at the time `now`, in seconds since 1970."""
        pause = now - self.last
        return pause > 60 and (self.shards_per_second is None or pause * self.shards_per_second > 20)


def pace(times: Sequence[float], missing: int) -> CommitPace | None:
    """Return the pace of commits, without pauses between runs and jumps of a clock.

    Args:
        times: when each shard was committed, in seconds since 1970.
        missing: how many shards are missing.

    Returns:
        The pace; None without any commit.
    """
    if not times:
        return None
    ordered = sorted(times)
    waits = [after - before for before, after in itertools.pairwise(ordered)]
    count = min(len(ordered), max(RECENT, len(ordered) // 5))
    longest = _longest_wait(waits)
    worked = [wait for wait in waits[len(ordered) - count :] if wait <= longest]
    seconds = sum(worked)
    rate = len(worked) / seconds if seconds > 0 else None
    return CommitPace(ordered[0], ordered[-1], count, rate, missing / rate if rate else None)


def _longest_wait(waits: Sequence[float]) -> float:
    """Return the longest wait for a commit in which somebody was at work; the waits above it were pauses."""
    falling = sorted(waits, reverse=True)
    most = min(PAUSES, len(falling) // (OTHERS + 1))
    for pauses in range(most, 0, -1):
        least, longest = falling[pauses - 1], falling[pauses]
        if least > max(PAUSE, TIMES_LONGER * longest):
            return longest
    return max(falling, default=0.0)
