"""What a merged set is: the format of its labels, its plan, its identity and its provenance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from slg_wds.config import EnsembleConfig
from slg_wds.config.checks import check_low_rank
from slg_wds.ensembling.embeddings import joined_features, joined_identity
from slg_wds.ensembling.merge import LabelFormat
from slg_wds.ensembling.parents import Parent
from slg_wds.errors import UsageError
from slg_wds.format.manifest.description import MIXING, VIEWS
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.labels import parse_label_type
from slg_wds.labelset.combining.averaging import common_settings
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import code_of_all
from slg_wds.labelset.provenance import now, versions

TAIL_CLASSES, MAX_KL = 64, 0.1  # if neither the options nor the first set name a number


def begin_set(config: EnsembleConfig, parents: list[Parent], to: LabelFormat | None) -> LabelSet:
    """Begin the merged set, or join one that was begun before; `to` is None if embeddings are joined.

    Raises:
        NotALabelSetError, IdentityMismatchError: something else is there, or a set that was made otherwise.
    """
    plan = plan_of(parents[0].plan, config.samples_per_shard)
    first = parents[0].labels
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
