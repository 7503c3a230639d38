"""Progress of a verification: a live display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from slg_wds.console import counted, note
from slg_wds.engines.live import LiveDisplay
from slg_wds.verification.shard import ShardReport

PAUSE = 10.0  # seconds between lines


class VerifyProgress(LiveDisplay):
    """Passes each report on to `took` and shows how far the verification is, on stderr."""

    def __init__(self, shards: int, took: Callable[[ShardReport], None]) -> None:
        super().__init__()
        self.shards, self._took = shards, took
        self.done = self.bytes = self.problems = 0
        self._started = self._noted = time.monotonic()
        self.open(shards, 0, "shards")

    def checked(self, report: ShardReport) -> None:
        """A shard has been looked at."""
        self._took(report)
        self.done += 1
        self.bytes += report.bytes
        self.problems += len(report.problems)
        rate = f"{self.bytes / 1e6 / max(time.monotonic() - self._started, 1e-9):,.0f} MB/s"
        problems = counted(self.problems, "problem") if self.problems else ""
        if not self.show(self.done, f"{rate} {problems}") and time.monotonic() - self._noted > PAUSE:
            self._noted = time.monotonic()
            note(f"{self.done}/{counted(self.shards, 'shard')}, {rate} {problems}".rstrip())
