"""Checks that the second views of mixed crops are there: their images and crops exist."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from slg_wds.errors import RecordError, SlgWdsError
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.views import decode_views
from slg_wds.labelset.labelset import LabelSet


class PartnerChecks:
    """Checks the images that records name as mixed into their crops.

    Args:
        labels: the label set.
    """

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels
        self._left_out: dict[int, frozenset[str]] = {}  # keys, by shard: a partner may lie in another shard

    def check(self, fields: dict[str, Any], part: PlannedShard, number: int, there: Set[str]) -> None:
        """Check the record of one image.

        Args:
            fields: the fields of the unpacked record, with its columns.
            part: the image's shard in the plan.
            number: the image's number in the plan.
            there: the keys of the shard's records.

        Raises:
            RecordError: the set is mixed and the record does not say how, or the other way round; or a partner is the
                image itself, is not planned, has no record, or has fewer crops.
        """
        labels = self._labels
        if ("mixing" in fields) != labels.has_mixing:
            other = "lacks" if labels.has_mixing else "has"
            raise RecordError(f"it {other} the field mixing, unlike what slg.json requires")
        views = decode_views(fields, slice(None)) if labels.has_mixing else None
        mixing = None if views is None else views.mixing
        if mixing is None:
            return
        for partner in mixing.partners().tolist():
            if partner == number or partner >= len(labels.plan.keys):
                raise RecordError(f"image {partner} of the plan is mixed into it, which is no other image")
            inside = part.start <= partner < part.stop
            if labels.plan.keys[partner] not in there if inside else self._is_left_out(partner):
                raise RecordError(f"{labels.plan.keys[partner]} is mixed into it, which has no record")
        if len(mixing.crop) and int(mixing.crop.max()) >= labels.num_crops:
            raise RecordError(
                f"crop {mixing.crop.max()} is mixed into it, and images have {labels.num_crops}"
            )

    def _is_left_out(self, partner: int) -> bool:
        """Return whether an image of another shard is left out; False if that shard is missing or cannot be read."""
        shard = int(self._labels.plan.place(partner)[0])
        if shard not in self._left_out:
            try:
                self._left_out[shard] = frozenset(self._labels.index(shard).left_out)
            except SlgWdsError:  # the check of that shard reports it
                self._left_out[shard] = frozenset()
        return self._labels.plan.keys[partner] in self._left_out[shard]
