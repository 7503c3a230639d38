"""Progress of a run: a live display on a terminal, a line a shard elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from slg_wds.labelling.shards import Tally


class Progress:
    """Counts images, crops and shards of a run and shows rate and time left. Threads may report at once.

    Everything goes to stderr, so stdout keeps only results.
    """

    def __init__(self, shards_left: int, crops_left: int) -> None:
        self.shards_left = shards_left
        self.crops_left = crops_left
        self.done_shards = 0
        self.done_crops = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._display: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if sys.stderr.isatty():
            self._display = _display()
            self._task = self._display.add_task("crops", total=self.crops_left, shards=self._shards())
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def crops(self, count: int) -> None:
        """So many crops have been labelled."""
        with self._lock:
            self.done_crops += count
        if self._display is not None:
            self._display.update(self._task, completed=self.done_crops)

    def shard(self, name: str, tally: Tally, made: bool) -> None:
        """A shard is committed, or was there already."""
        with self._lock:
            self.done_shards += 1
        if self._display is not None:
            self._display.update(self._task, shards=self._shards())
            return
        rate = self.done_crops / max(self.seconds, 1e-9)
        left = max(0.0, self.crops_left - self.done_crops) / rate if rate else 0.0
        note = "" if made else " (another process was first; dropped)"
        print(
            f"{name}: {tally.images} images, {tally.crops} crops, {tally.bytes / 1e6:.2f} MB{note}; "
            f"shard {self._shards()}, {rate:,.0f} crops/s, about {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )

    def _shards(self) -> str:
        return f"{self.done_shards}/{self.shards_left}"


def _display() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Crops a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} crops/s")

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("crops"),
        Rate(),
        TextColumn("shards {task.fields[shards]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        speed_estimate_period=60,
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 12 min, 3.4 h, 2.1 days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size * 1.5:
            return f"{seconds / size:.1f} {unit}" if unit != "min" else f"{seconds / size:.0f} min"
    return f"{seconds:.0f} s"
