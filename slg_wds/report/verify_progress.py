"""Progress of a verification: a live display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from slg_wds.console import note
from slg_wds.progress import counted
from slg_wds.report.verify_shard import ShardReport

PAUSE = 10.0  # seconds between lines


class VerifyProgress:
    """Passes each report on to `took` and shows how far it is, on stderr."""

    def __init__(self, shards: int, took: Callable[[ShardReport], None]) -> None:
        self.shards, self._took = shards, took
        self.done = self.bytes = self.problems = 0
        self._display: Any = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> VerifyProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._display = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("shards {task.fields[rate]} {task.fields[problems]}"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
            )
            self._task = self._display.add_task("shards", total=self.shards, rate="", problems="")
            self._display.start()
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
            self._display.update(self._task, completed=self.done, rate=rate, problems=problems)
        elif time.monotonic() - self._told > PAUSE:
            self._told = time.monotonic()
            note(f"{self.done}/{counted(self.shards, 'shard')}, {rate} {problems}".rstrip())
