"""Label adaptation as a caller asks for it, checked against the label sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slg_wds.errors import UsageError
from slg_wds.labels import LabelAdaptation
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.label_sets import LabelSets


def adaptation_of(given: Sequence[float] | LabelAdaptation | None, sets: LabelSets) -> LabelAdaptation | None:
    """Return the adaptation. Raises UsageError for numbers out of range, and for labels that cannot be adapted."""
    if given is None:
        return None
    if not isinstance(given, LabelAdaptation):
        if not 1 <= len(given) <= 3:
            raise UsageError(
                f"label adaptation {given}", hint="it is (below,), (below, smoothing) or those and share"
            )
        given = LabelAdaptation(*given)
    for labels in sets.members:
        _check_labels(labels)
    _check_targets(sets)
    return given


def _check_labels(labels: LabelSet) -> None:
    labels.refuse_embeddings()
    labels.refuse_hard("label adaptation")
    if not labels.targets_are_classes:
        raise UsageError(
            "label adaptation needs the images' classes, and the targets only number the folders of the images",
            url=labels.url,
            hint="label them by slg-wds generate --class-map FILE, which says the teacher's class of each folder",
        )


def _check_targets(sets: LabelSets) -> None:
    targets = np.asarray(sets.plan.targets)
    for wrong, what in (
        (targets < 0, "have no class"),
        (targets >= sets.num_classes, "have a class above the labels'"),
    ):
        if wrong.any():
            raise UsageError(
                f"label adaptation needs the images' classes, and {int(wrong.sum())} of {len(targets)} {what}",
                url=sets.url,
            )
