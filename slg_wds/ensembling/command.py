"""`slg-wds ensemble`: from options to the run of workers that merge, and the summary."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.concurrency.rank import Rank
from slg_wds.config import EnsembleConfig
from slg_wds.console import counted, duration, note, per_second, warn, warnings_as_notes
from slg_wds.engines.commands import RunResult, print_summary, run_to_the_end
from slg_wds.engines.dispatch import run_on_cpus
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.ensembling.checks import check_parents
from slg_wds.ensembling.convert import check_conversion
from slg_wds.ensembling.description import begin_set, label_format_of
from slg_wds.ensembling.embeddings import check_joined
from slg_wds.ensembling.merge import LabelFormat
from slg_wds.ensembling.parents import Parent
from slg_wds.ensembling.prototypes import PrototypeRule, open_members
from slg_wds.ensembling.records import MergeStats
from slg_wds.ensembling.work import MergeTask
from slg_wds.errors import UsageError
from slg_wds.labelset.combining.averaging import doubt_of_temperature
from slg_wds.labelset.provenance import versions

if TYPE_CHECKING:
    from slg_wds.ensembling.fidelity import Fidelity


@dataclass(frozen=True)
class EnsembleResult(RunResult):
    """What one run of `ensemble` did, and the merged set as it is now.

    Attributes:
        parents: how many label sets the mean is of, or the joined embeddings.
        fidelity: what --check measured; None without it.
    """

    parents: int
    fidelity: Fidelity | None = None

    @property
    def stats(self) -> MergeStats:
        """What this run made."""
        return self.run.stats  # type: ignore[no-any-return]

    @property
    def bound(self) -> float | None:
        """Upper bound on the mean total variation, 0..1, between the result and the teachers' exact ensemble.

        To every class in a crop's top-k, both distributions give at least what the sets store for it. So they overlap
        by at least the sum of that, and differ by at most the rest. Rounding of stored values comes on top. None where
        a set stores no values, or nothing was made.
        """
        stats = self.stats
        return None if not stats.crops or math.isnan(stats.known) else 1.0 - stats.known / stats.crops

    def _about_labels(self) -> str:
        return f", of {counted(self.parents, 'label set')}"

    def _about_work(self) -> list[str]:
        rate = f"  {per_second(self.crops_per_second)} crops/s over {duration(self.run.seconds)}"
        return [rate, self._bound_line()]

    def _about_findings(self) -> list[str]:
        return [f"  {self.fidelity}"] if self.fidelity else []

    def _bound_line(self) -> str:
        stats = self.stats
        if self.labels.holds_embeddings:
            return "  embeddings are as they were in the sets, to the last bit"
        if stats.coded:
            return (
                f"  mean KL {stats.kl / stats.coded:.4f} nats from the exact mean of the labels read, "
                f"{stats.worst_kl:.3f} for the worst crop"
            )
        if stats.low_rank_read:
            return (
                "  how far it is from the exact labels: the sets state a KL divergence, see slg-wds inspect"
            )
        if self.bound is None:
            return (
                "  how far it is from the exact labels cannot be bounded: hard labels hold no probabilities"
            )
        own, theirs = stats.own_tail / stats.crops, stats.parent_tail / stats.crops
        parts = (
            f"tails of the sets {theirs:.4f}, of the result {own:.4f}" if self.parents > 1 else "its own tail"
        )
        return (
            f"  at most {self.bound:.4f} of total variation from the exact labels ({parts}), rounding aside"
        )


def ensemble(config: EnsembleConfig) -> EnsembleResult:
    """Merge label sets into one, or finish or join a merge that was begun before.

    In a script that uses more than one process, call this under `if __name__ == "__main__":`, since the workers are
    new processes that import the script.

    Args:
        config: the options, as on the command line.

    Returns:
        The merged set and what this run made.

    Raises:
        SlgWdsError: the run stopped. Shards that were committed stay, and the same call resumes.
    """
    result = run(config)
    result.check()
    return result


def run(config: EnsembleConfig) -> EnsembleResult:
    """Do the same as `ensemble`, but return a result with missing shards instead of raising an error for it."""
    config.check()
    rule = PrototypeRule.of(config)
    parents = open_members([config.at(url) for url in config.sets], config.weights, rule)
    to = _checked_format(config, parents, rule)
    labels = begin_set(config, parents, to)
    missing = labels.missing()
    task = MergeTask(
        sets=tuple(config.at(url) for url in config.sets),
        weights=config.weights,
        location=config.at(config.save_path),
        label_format=to,
        rule=rule,
        provenance={"software": versions()},
        digests=(*(parent.labels.digest for parent in parents), labels.digest),
        start=RunStarted.of(labels, missing, labels.num_crops),
    )

    def run_workers(launched: Rank | None, observer: RunObserver) -> dict[str, str]:
        own = dataclasses.replace(task, launched=launched)
        return run_on_cpus(own, config, config.processes, len(missing), observer)

    ended = run_to_the_end(run_workers, MergeStats(), config, lambda: labels)
    result = EnsembleResult(*ended, len(parents))
    if config.check_data is None or not result.complete:
        return result
    from slg_wds.ensembling.fidelity import measure
    from slg_wds.verification.answers.asking import Question

    note("running the teachers on a sample of the crops")
    question = Question(config, config.at(config.check_data), config.bank)
    return dataclasses.replace(result, fidelity=measure(question, labels))


def _checked_format(
    config: EnsembleConfig, parents: list[Parent], rule: PrototypeRule | None
) -> LabelFormat | None:
    """Return the form of the merged labels; None for embeddings. Refuse sets that give no such labels together."""
    joins = rule is None and check_joined(config, parents)
    _refuse_own_place(config.at(config.save_path).open().url, parents)
    check_parents(parents)
    _warn_of(parents)
    if joins:
        return None
    to = label_format_of(config, parents)
    if len(parents) == 1:
        stored = parents[0].identity
        check_conversion(stored.k or stored.num_classes, parents[0].stores_all, str(stored.coding), to)
    return to


def _refuse_own_place(target: str, parents: list[Parent]) -> None:
    if any(target == keyed.labels.url for parent in parents for keyed in parent.chain):
        raise UsageError("--save-path is one of the sets to merge", url=target, hint="choose another")


def _warn_of(parents: list[Parent]) -> None:
    """Warn of a set that is given twice, and of sets that may be of several temperatures."""
    if doubt := doubt_of_temperature([parent.labels for parent in parents]):
        warn(doubt, level=2)
    digests = [parent.labels.digest for parent in parents]
    for place, parent in enumerate(parents):
        if digests.index(digests[place]) < place:
            warn(f"the label set {parent.url} is given twice", level=2)


def main(config: EnsembleConfig) -> int:
    """Run the command: merge, and print a summary to stdout."""
    with warnings_as_notes("slg-wds ensemble"):
        result = run(config)
    return print_summary(result)
