"""Label adaptation as a caller asks for it, checked against the label sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slg_wds.errors import UsageError
from slg_wds.labels import LabelAdaptation
from slg_wds.replay.sources.label_sets import LabelSets


def adaptation_of(given: Sequence[float] | LabelAdaptation | None, sets: LabelSets) -> LabelAdaptation | None:
    """Return the adaptation. Raises UsageError for numbers out of range, and for labels that cannot be adapted."""
    if given is None or isinstance(given, LabelAdaptation):
        adaptation = given
    else:
        if not 1 <= len(given) <= 3:
            raise UsageError(
                f"label adaptation {given}", hint="it is (below,), (below, smoothing) or those and share"
            )
        adaptation = LabelAdaptation(*given)
    if adaptation is None:
        return None
    for labels in sets.members:
        labels.refuse_embeddings()
    sure = next((one for one in sets.members if one.identity.coding == "none"), None)
    if sure is not None:
        raise UsageError(
            "label adaptation needs probabilities, and only the top class is stored", url=sure.url
        )
    other = next((one for one in sets.members if not one.targets_are_classes), None)
    if other is not None:
        raise UsageError(
            "label adaptation needs the images' classes, and the targets only number the folders of the images",
            url=other.url,
            hint="label with --class-map, which says the teacher's class of each folder",
        )
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
    return adaptation
