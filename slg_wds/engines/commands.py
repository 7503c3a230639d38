"""What the commands that make a label set share: run the workers, finish the set, print a summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slg_wds.concurrency.rank import ALONE, Rank
from slg_wds.config import EngineConfig
from slg_wds.console import tell
from slg_wds.engines.claims import finish, launched_rank
from slg_wds.engines.reports.progress import RunProgress
from slg_wds.engines.reports.run_stats import RunObserver, RunStats
from slg_wds.engines.reports.summary import RunFinished, next_commands, summary
from slg_wds.labelset.labelset import LabelSet

RunWorkers = Callable[[Rank | None, RunObserver], dict[str, str]]


@dataclass(frozen=True)
class RunResult:
    """What one run of a command made, and the label set as it is now.

    Attributes:
        labels: the label set.
        run: counts of what was made, the shards given up, and whether every shard exists.
    """

    labels: LabelSet
    run: RunFinished

    @property
    def complete(self) -> bool:
        """Whether every shard exists."""
        return self.run.complete

    @property
    def crops_per_second(self) -> float:
        """Number of crops that this run made per second; 0 if it made none."""
        return float(self.run.stats.crops / self.run.seconds) if self.run.seconds else 0.0

    def check(self) -> None:
        """Raise an error unless every shard exists.

        Raises:
            LabelSetError: a shard was given up, because workers failed on it again and again.
            IncompleteSetError: other shards are missing.
        """
        self.run.check(self.labels)

    def summary(self) -> list[str]:
        """Return lines that tell a person what was made and which commands come next."""
        about_work = self._about_work() if self.run.stats.crops else []
        text = [*summary(self.labels, self.run, self._about_labels(), about_work), *self._about_findings()]
        return [*text, *next_commands(self.labels, self._extended())] if self.complete else text

    def _about_labels(self) -> str:
        """Return text for the summary's line about the set, after the label type."""
        return ""

    def _extended(self) -> list[str]:
        """Return the URLs of the sets that this one extends, which every reader needs too, the oldest first."""
        return []

    def _about_work(self) -> list[str]:
        """Return lines of the summary about the crops that were made; called only if there are any."""
        return []

    def _about_findings(self) -> list[str]:
        """Return lines of the summary about what was found beside that, such as files of no use."""
        return []


def run_to_the_end(
    run_workers: RunWorkers, stats: RunStats, config: EngineConfig, open_set: Callable[[], LabelSet]
) -> tuple[LabelSet, RunFinished]:
    """Let workers make the missing shards, show their progress, and finish the set once every shard exists.

    Args:
        run_workers: takes the rank that a launcher gave this process (None without a launcher) and the observer that
            workers report to; returns the shards that were given up, by name, and how each failed.
        stats: counts at 0, of the class that the workers report.
        config: which engine runs the workers.
        open_set: opens the set once the workers have ended.

    Returns:
        The set, and what the run made.

    Raises:
        SlgWdsError: the first error of any worker.
    """
    launched = launched_rank() if config.engine == "local" else None
    with RunProgress(stats, (launched or ALONE).world_size) as progress:
        given_up = run_workers(launched, progress)
        seconds = progress.seconds
    labels = open_set()
    complete = not given_up and finish(labels, launched)
    return labels, RunFinished(progress.total, given_up, complete, seconds)


def print_summary(result: RunResult) -> int:
    """Print a run's summary to stdout; return the command's exit status.

    Raises:
        LabelSetError, IncompleteSetError: as `RunResult.check`. The summary is printed first.
    """
    tell(*result.summary())
    result.check()
    return 0
