"""Progress of a verification: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from slg_wds.console import counted
from slg_wds.engines.reports.live import LiveDisplay
from slg_wds.verification.problems import ShardReport


class VerifyProgress(LiveDisplay):
    """Shows on stderr how far a verification is.

    Args:
        shards: shards to check.
        receive: called with the report of each shard before it is counted.
    """

    def __init__(self, shards: int, receive: Callable[[ShardReport], None]) -> None:
        super().__init__()
        self.shards, self._receive = shards, receive
        self.done = self.bytes = self.problems = 0
        self._started = time.monotonic()
        self.open(shards, 0, "shards")

    def checked(self, report: ShardReport) -> None:
        """Count a shard that has been checked."""
        self._receive(report)
        self.done += 1
        self.bytes += report.bytes
        self.problems += len(report.problems)
        rate = f"{self.bytes / 1e6 / max(time.monotonic() - self._started, 1e-9):,.0f} MB/s"
        problems = counted(self.problems, "problem") if self.problems else ""
        line = f"{self.done}/{counted(self.shards, 'shard')}, {rate} {problems}".rstrip()
        self.show_or_note(self.done, f"{rate} {problems}", line)
