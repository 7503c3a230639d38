"""`slg-wds ensemble`: from options to the run of workers that merge, and the summary."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.concurrency.rank import Rank
from slg_wds.config import EnsembleConfig
from slg_wds.config.checks import check_low_rank
from slg_wds.console import counted, duration, note, per_second, warn, warnings_as_notes
from slg_wds.engines.commands import RunResult, print_summary, run_to_the_end
from slg_wds.engines.dispatch import run_on_cpus
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.ensembling.checks import check_parents
from slg_wds.ensembling.convert import check_conversion
from slg_wds.ensembling.embeddings import check_joined, joined_features, joined_identity
from slg_wds.ensembling.merge import LabelFormat
from slg_wds.ensembling.parents import Parent
from slg_wds.ensembling.prototypes import PrototypeRule, open_members
from slg_wds.ensembling.records import MergeStats
from slg_wds.ensembling.work import MergeTask
from slg_wds.errors import UsageError
from slg_wds.format.manifest.description import MIXING, VIEWS
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.labels import parse_label_type
from slg_wds.labelset.combining.averaging import common_settings, doubt_of_temperature
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import code_of_all
from slg_wds.labelset.provenance import now, versions

if TYPE_CHECKING:
    from slg_wds.ensembling.fidelity import Fidelity

TAIL_CLASSES, MAX_KL = 64, 0.1  # if neither the options nor the first set name a number


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
    joins = rule is None and check_joined(config, parents)
    _refuse_own_place(config.at(config.save_path).open().url, parents)
    check_parents(parents)
    _warn_of(parents)
    to = None if joins else label_format_of(config, parents)
    if len(parents) == 1 and to is not None:
        keyed = parents[0].identity
        check_conversion(keyed.k or keyed.num_classes, parents[0].stores_all, str(keyed.coding), to)
    labels = _begin(config, parents, to)
    missing = labels.missing()

    def run_workers(launched: Rank | None, observer: RunObserver) -> dict[str, str]:
        task = _task(config, parents, rule, to, labels, missing, launched)
        return run_on_cpus(task, config, config.processes, len(missing), observer)

    ended = run_to_the_end(run_workers, MergeStats(), config, lambda: labels)
    result = EnsembleResult(*ended, len(parents))
    if config.check_data is None or not result.complete:
        return result
    from slg_wds.ensembling.asking import Question
    from slg_wds.ensembling.fidelity import measure

    note("running the teachers on a sample of the crops")
    question = Question(config, config.at(config.check_data), config.bank)
    return dataclasses.replace(result, fidelity=measure(question, labels))


def _begin(config: EnsembleConfig, parents: list[Parent], to: LabelFormat | None) -> LabelSet:
    plan = plan_of(parents[0].plan, config.samples_per_shard)
    first = parents[0].last.labels
    if to is None:
        identity, features = joined_identity(parents), joined_features(parents)
    else:
        identity = identity_of(parents, to)
        features = _features(first, to)
    return create_labels(
        config.at(config.save_path),
        plan,
        identity,
        _provenance(parents),
        first.description.class_names,
        requires=features,
        image_checksums=first.description.image_checksums,
        targets_are_classes=first.targets_are_classes,
    )


def _provenance(parents: list[Parent]) -> dict[str, Any]:
    """Return what made the merged set, what code made the sets, and where all of them had the images from."""
    each = [keyed.labels.description.provenance for parent in parents for keyed in parent.chain]
    roots = {one.get("image_root") for one in each}
    known = {"image_root": roots.pop()} if len(roots) == 1 else {}
    return {"software": versions(), **known, **code_of_all(each), "date": now()}


def _features(first: LabelSet, to: LabelFormat) -> list[str]:
    """Return what readers of the result must know beyond what every new set asks of them."""
    needed = {VIEWS: first.has_views, MIXING: first.has_mixing, LOW_RANK: to.max_kl is not None}
    return [name for name, need in needed.items() if need]


def _task(
    config: EnsembleConfig,
    parents: list[Parent],
    rule: PrototypeRule | None,
    to: LabelFormat | None,
    labels: LabelSet,
    missing: list[int],
    launched: Rank | None,
) -> MergeTask:
    return MergeTask(
        sets=tuple(config.at(url) for url in config.sets),
        weights=config.weights,
        location=config.at(config.save_path),
        label_format=to,
        rule=rule,
        provenance={"software": versions()},
        digests=(*(parent.last.labels.digest for parent in parents), labels.digest),
        start=RunStarted.of(labels, missing, labels.num_crops),
        launched=launched,
    )


def _refuse_own_place(target: str, parents: list[Parent]) -> None:
    if any(target == keyed.labels.url for parent in parents for keyed in parent.chain):
        raise UsageError("--save-path is one of the sets to merge", url=target, hint="choose another")


def _warn_of(parents: list[Parent]) -> None:
    """Warn of a set that is given twice, and of sets that may be of several temperatures."""
    if doubt := doubt_of_temperature([parent.last.labels for parent in parents]):
        warn(doubt, level=2)
    digests = [parent.last.labels.digest for parent in parents]
    for place, parent in enumerate(parents):
        if digests.index(digests[place]) < place:
            warn(f"the label set {parent.url} is given twice", level=2)


def label_format_of(config: EnsembleConfig, parents: list[Parent]) -> LabelFormat:
    """Return the format of the merged labels. What the options leave open is as in the first set.

    Raises:
        UsageError: options contradict each other or the sets.
    """
    first = parents[0].identity
    label = parse_label_type(config.label_type or first.label_type)
    classes = first.num_classes
    label.check(classes, "--label-type")
    label.stored_k(classes)
    tail_classes = parents[0].tail_classes if config.tail_classes is None else config.tail_classes
    without = not parse_label_type(first.label_type).can_have_tail or label.kind == "shared_tail"
    if config.tail_classes is None and without and not tail_classes:
        tail_classes = TAIL_CLASSES
    if label.kind == "shared_tail" and tail_classes == 0:
        raise UsageError(f"--label-type {label} needs --tail-classes above 0, not 0")
    stored_values = first.coding or "none"
    coding = config.values or (stored_values if stored_values != "none" else "float16")
    tails = tail_classes if label.can_have_tail else 0
    return LabelFormat(label, coding, tails, classes, _max_kl(config, str(label), first.max_kl))


def _max_kl(config: EnsembleConfig, label: str, of_first: float | None) -> float | None:
    """Return the divergence that low-rank labels keep to; None for other types."""
    check_low_rank(dataclasses.replace(config, label_type=label))
    return (config.max_kl or of_first or MAX_KL) if label == LOW_RANK else None


def plan_of(plan: Plan, samples_per_shard: int | None) -> Plan:
    """Return the plan of the merged set: the first set's, with shards of another size if that is asked for.

    Args:
        plan: the first set's plan.
        samples_per_shard: images in a shard; None to keep the shards.

    Raises:
        UsageError: the images lie in shards of their own, which labels follow.
    """
    from slg_wds.images.order import shard_names, split_evenly

    if samples_per_shard is None or not plan.num_shards:
        return plan
    sizes = split_evenly(plan.num_samples, samples_per_shard)
    if np.array_equal(sizes, plan.shard_sizes):
        return plan
    if plan.image_shards is not None:
        raise UsageError(
            "--samples-per-shard does not go with labels of image shards",
            hint="they keep the image shards' own",
        )
    names = shard_names(plan.split, len(sizes))
    return dataclasses.replace(plan, shard_sizes=sizes, shard_names=names)


def identity_of(parents: list[Parent], to: LabelFormat) -> dict[str, Any]:
    """Return the identity of the merged set: the first set's, except for the labels, teachers and parents."""
    first = parents[0].identity.to_json()
    first |= common_settings([parent.identity for parent in parents])
    first.pop("extends", None)
    first.pop("extendable", None)  # merged records keep no sums
    first.pop("max_kl", None)
    teachers = [
        {**teacher, "weight": float(teacher.get("weight", 1.0)) * parent.share}
        for parent in parents
        for teacher in parent.identity.teachers
    ]
    return {
        **first,
        "teachers": teachers,
        "label_type": str(to.label),
        "k": to.k or None,
        "values": None if to.max_kl else to.stored_coding,
        "tail_classes": to.tail_classes,
        "parents": [parent.describe() for parent in parents],
        **({"max_kl": float(to.max_kl)} if to.max_kl else {}),
    }


def main(config: EnsembleConfig) -> int:
    """Run the command: merge, and print a summary to stdout."""
    with warnings_as_notes("ensemble"):
        result = run(config)
    return print_summary(result)
