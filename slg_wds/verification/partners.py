"""Checks that the second views of mixed crops are there: their images and crops exist."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from slg_wds.errors import RecordError
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.views import decode_views
from slg_wds.labelset.labelset import LabelSet


def check_partners(
    labels: LabelSet, fields: dict[str, Any], part: PlannedShard, number: int, there: Set[str]
) -> None:
    """Check what the record of an image says of the images that are mixed into its crops.

    Args:
        labels: the label set.
        fields: of the unpacked record, with its columns.
        part: the image's shard in the plan.
        number: the image's number in the plan.
        there: the keys of the shard's records.

    Raises:
        RecordError: the set is mixed and the record does not say how, or the other way round; or a partner is the image
            itself, is not planned, has no record in this shard, or has fewer crops.
    """
    if ("mixing" in fields) != labels.has_mixing:
        other = "lacks" if labels.has_mixing else "has"
        raise RecordError(f"it {other} the field mixing, unlike what slg.json requires")
    if not labels.has_mixing:
        return
    views = decode_views(fields, slice(None))
    mixing = None if views is None else views.mixing
    if mixing is None:
        return
    for partner in mixing.partners().tolist():
        if partner == number or partner >= len(labels.plan.keys):
            raise RecordError(f"image {partner} of the plan is mixed into it, which is no other image")
        if part.start <= partner < part.stop and labels.plan.keys[partner] not in there:
            raise RecordError(f"{labels.plan.keys[partner]} is mixed into it, which has no record")
    if len(mixing.crop) and int(mixing.crop.max()) >= labels.num_crops:
        raise RecordError(f"crop {mixing.crop.max()} is mixed into it, and images have {labels.num_crops}")
