"""Progress of a run: a live display on a terminal, a line for each shard elsewhere."""

from __future__ import annotations

import threading
import time

from slg_wds import console
from slg_wds.console import counted, duration, per_second
from slg_wds.engines.reports.live import LiveDisplay
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted, RunStats
from slg_wds.errors import LabelSetError
from slg_wds.store.stops import seconds_stopped


class RunProgress(LiveDisplay, RunObserver):
    """Counts the crops and shards of a run, and shows its rate and the time left.

    Several threads may report at the same time. Everything goes to stderr, so that stdout has only results. Processes
    of one launcher often share a terminal, where live displays would overwrite each other. So each prints lines, and
    estimates the time for 1/ranks of the work.

    Attributes:
        total: counts of what was made so far: those given at first plus those of every shard.
        ranks: number of processes that a launcher started for this work, including this one.
        start: what the first worker reported when it was ready; None before that.
        shards_left, crops_left: how many were missing at the start.
        done_crops: how many crops this process's workers have labelled, lost races not counted.
    """

    def __init__(self, total: RunStats, ranks: int = 1) -> None:
        super().__init__()
        self.total = total
        self.ranks = ranks
        self.start: RunStarted | None = None
        self.shards_left = 0
        self.crops_left = 0
        self.done_crops = 0
        self._done_shards: set[str] = set()
        self._began = _clock()
        self._lock = threading.Lock()

    def begin(self, start: RunStarted) -> None:
        """Start the clock and the display when the first worker is ready.

        Raises:
            LabelSetError: a later worker opened a different label set.
        """
        if self.start is not None:
            if start.digest != self.start.digest:
                raise LabelSetError(
                    "another label set took the place of this one while the run started",
                    hint="run the command again",
                )
            return
        self.start = start
        self.shards_left, self.crops_left = start.shards, start.crops
        self._began = _clock()
        console.note(*start.notes)
        if self.ranks == 1:
            self.open(start.crops_there + start.crops, start.crops_there, "crops")

    @property
    def seconds(self) -> float:
        """Seconds since the first worker was ready, without those for which Slurm or a shell stopped the process."""
        return _clock() - self._began

    def crops(self, count: int) -> None:
        """Count crops that were labelled."""
        with self._lock:
            self.done_crops += count
        self._show()

    def shard(self, name: str, stats: RunStats, made: bool) -> None:
        """Count a shard. `made` is False if another worker had committed it first."""
        with self._lock:
            self._done_shards.add(name)
            self.total.add(stats if made else stats.lost())
            if not made:
                self.done_crops -= stats.crops  # the process that was first has counted them
        if self._show():
            return
        rate = self._rate()
        left = max(0.0, self.crops_left / self.ranks - self.done_crops) / rate if rate else 0.0
        note = "" if made else " (another process was first; dropped)"
        console.note(
            f"{name}: {counted(stats.images, 'image')}, {counted(stats.crops, 'crop')}, "
            f"{stats.bytes / 1e6:.2f} MB{note}; "
            f"shard {self._shards()}, {per_second(rate)} crops/s, about {duration(left)} left"
        )

    def _show(self) -> bool:
        """Show the progress of the whole set. Return False if nothing can be updated in place."""
        if self.start is None:
            return False
        # Several processes may make the same last shards at once: their sum must not exceed the whole.
        done = self.start.crops_there + min(self.done_crops, self.crops_left)
        return self.show(done, f"{per_second(self._rate())} crops/s, shards {self._shards()}")

    def _rate(self) -> float:
        return self.done_crops / max(self.seconds, 1e-9)

    def _shards(self) -> str:
        there = self.start.shards_there if self.start else 0
        return f"{there + len(self._done_shards)}/{there + self.shards_left}"


def _clock() -> float:
    return time.monotonic() - seconds_stopped()
