"""Sets of embeddings of the same crops -> one set, whose records hold all of them side by side, as they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from slg_wds.config import EnsembleConfig
from slg_wds.config.checks import flag
from slg_wds.ensembling.parents import Parent
from slg_wds.errors import UsageError
from slg_wds.format.manifest.description import EXTENDS, TRAILER_FEATURE
from slg_wds.format.records.embeddings.fields import MAX_EMBEDDED
from slg_wds.format.records.record import Record
from slg_wds.labelset.combining.averaging import common_settings, embeddings_side_by_side

_OF_LABELS = ("label_type", "max_kl", "values", "tail_classes", "weights", "check_data")


def check_joined(config: EnsembleConfig, parents: Sequence[Parent]) -> bool:
    """Return whether the sets hold embeddings, which are joined and not averaged.

    Args:
        config: the options.
        parents: the sets.

    Raises:
        UsageError: embeddings cannot be joined, or an option is for labels.
    """
    kinds = embeddings_side_by_side([parent.labels for parent in parents])
    if not kinds:
        return False
    for name in _OF_LABELS:
        if getattr(config, name) is not None:
            given = "--check" if name == "check_data" else flag(name)
            raise UsageError(f"{given} is for labels: embeddings are joined as they are, not averaged")
    if len({parent.identity.normalize for parent in parents}) > 1:
        raise UsageError(
            "some sets hold embeddings of unit length and others do not",
            hint="make all by slg-wds generate --normalize, or none; SoftLabelLoader takes them as a list",
        )
    width, crops = sum(one["dim"] for one in kinds), parents[0].identity.num_crops
    if width * crops > MAX_EMBEDDED:
        raise UsageError(
            f"{crops} crops of {width} numbers are more than the {MAX_EMBEDDED} that a record holds"
        )
    return True


def joined_identity(parents: Sequence[Parent]) -> dict[str, Any]:
    """Return the identity of the joined set: the first set's, with the embeddings and teachers of all."""
    first = parents[0].identity.to_json()
    first.pop("extends", None)
    kept = ("digest", "label_type", "joined")
    return {
        **first,
        **common_settings([parent.identity for parent in parents]),
        "teachers": [teacher for parent in parents for teacher in parent.identity.teachers],
        "embeddings": embeddings_side_by_side([parent.labels for parent in parents]),
        "parents": [
            {name: value for name, value in parent.describe().items() if name in kept} for parent in parents
        ],
    }


def joined_features(parents: Sequence[Parent]) -> list[str]:
    """Return what readers of the joined set must know beyond what every new set asks of them."""
    asked = [name for parent in parents for name in parent.labels.description.requires]
    return [name for name in dict.fromkeys(asked) if name not in (EXTENDS, TRAILER_FEATURE)]


def joined_record(records: Sequence[Record], path: str) -> Record:
    """Return the record of an image with the embeddings of all its records.

    Args:
        records: the image's record in each set; their crops are the same.
        path: of the image in the joined set.
    """
    embeddings = {name: one for record in records for name, one in (record.embeddings or {}).items()}
    return dataclasses.replace(records[0], path=path, embeddings=embeddings)
