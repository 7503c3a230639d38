"""Progress of a verification: a live display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from slg_wds.console import counted, note
from slg_wds.engines.live import Live, live_display
from slg_wds.verification.shard import ShardReport

PAUSE = 10.0  # seconds between lines


class VerifyProgress:
    """Passes each report on to `took` and shows how far it is, on stderr."""

    def __init__(self, shards: int, took: Callable[[ShardReport], None]) -> None:
        self.shards, self._took = shards, took
        self.done = self.bytes = self.problems = 0
        self._display: Live | None = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> VerifyProgress:
        self._display = live_display(self.shards, 0, "shards")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def checked(self, report: ShardReport) -> None:
        """A shard has been looked at."""
        self._took(report)
        self.done += 1
        self.bytes += report.bytes
        self.problems += len(report.problems)
        rate = f"{self.bytes / 1e6 / max(time.monotonic() - self._started, 1e-9):,.0f} MB/s"
        problems = counted(self.problems, "problem") if self.problems else ""
        if self._display is not None:
            self._display.show(self.done, f"{rate} {problems}")
        elif time.monotonic() - self._told > PAUSE:
            self._told = time.monotonic()
            note(f"{self.done}/{counted(self.shards, 'shard')}, {rate} {problems}".rstrip())
