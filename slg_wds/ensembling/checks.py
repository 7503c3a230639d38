"""What must be the same in all label sets of an ensemble. An error names the first difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slg_wds.ensembling.parents import Parent
from slg_wds.errors import IdentityMismatchError, LabelSetError
from slg_wds.format.records.record import Record
from slg_wds.format.records.views import Views, same_views
from slg_wds.labelset.combining.averaging import check_averaged, differs


def check_parents(parents: Sequence[Parent]) -> None:
    """Check that all sets have the same classes, temperature, number of crops, image keys and targets.

    Raises:
        IdentityMismatchError: two sets differ in one of these.
    """
    check_averaged([parent.labels for parent in parents])
    first = parents[0]
    for other in parents[1:]:
        with_views, without = (first, other) if first.labels.has_views else (other, first)
        if with_views.labels.has_views != without.labels.has_views:
            raise _differs(with_views, without, "views: the first has them, the second only boxes and flips")
        mixed, unmixed = (first, other) if first.labels.has_mixing else (other, first)
        if mixed.labels.has_mixing != unmixed.labels.has_mixing:
            raise _differs(mixed, unmixed, "mixing: the first has mixed crops, the second none")
        mine, theirs = first.identity.num_crops, other.identity.num_crops
        if mine != theirs:
            error = _differs(first, other, f"num_crops: {mine} != {theirs}")
            error.hint = (
                "label more crops by slg-wds generate --extend, or let SoftLabelLoader average the sets"
            )
            raise error
        _check_keys(first, other)


def _check_keys(first: Parent, other: Parent) -> None:
    for here, there in ((first, other), (other, first)):
        if here.plan.keys == there.plan.keys:
            continue
        for number, key in enumerate(here.plan.keys):
            if there.last.find(key, number) is None:
                raise _differs(there, here, f"the first has no image {key!r}", key)
    for number, key in enumerate(first.plan.keys):
        at = other.last.find(key, number)
        assert at is not None
        mine, theirs = int(first.plan.targets[number]), int(other.plan.targets[at])
        if mine != theirs:
            raise _differs(first, other, f"target: {_target(mine)} != {_target(theirs)}", key)


def _target(number: int) -> str:
    return "none" if number < 0 else str(number)


def _differs(first: Parent, other: Parent, what: str, key: str | None = None) -> IdentityMismatchError:
    return differs(first.labels, other.labels, what, key)


def _view_hint(one: Views | None, other: Views | None) -> str | None:
    """Return what to do if views differ because one set left out an image, so that it mixed nothing in; else None."""
    if one is None or other is None or one.mixing is None or other.mixing is None:
        return None
    if (one.mixing.mixed == other.mixing.mixed).all():
        return None
    return (
        "only one of the sets mixes another image into a crop, perhaps because the other set left that image out: "
        "label again, with --reference_path of the set that left images out"
    )


def check_records(parents: Sequence[Parent], records: Sequence[Record]) -> None:
    """Check that the records of one image have the same image size, target, crops and number of classes.

    Args:
        parents: the sets.
        records: the image's record in each of them.

    Raises:
        IdentityMismatchError: two records differ in one of these.
    """
    first = records[0]
    for parent, other in zip(parents[1:], records[1:], strict=True):
        for field in ("num_classes", "size", "target", "num_crops"):
            mine, theirs = getattr(first, field), getattr(other, field)
            if mine != theirs:
                raise _differs(parents[0], parent, f"{field}: {mine} != {theirs}", first.key)
        if not same_views(first.views, other.views):
            what = "views: the operations, erased boxes or mixing of the crops"
            error = _differs(parents[0], parent, what, first.key)
            error.hint = _view_hint(first.views, other.views)
            raise error
        for field, name in (("crops", "box"), ("flips", "flip")):
            mine, theirs = getattr(first, field), getattr(other, field)
            if not np.array_equal(mine, theirs):
                differ = mine != theirs
                crop = int((differ.any(axis=1) if differ.ndim > 1 else differ).argmax())
                raise _differs(
                    parents[0],
                    parent,
                    f"{name} of crop {crop}: {mine[crop].tolist()} != {theirs[crop].tolist()}",
                    first.key,
                )


def check_partners(parents: Sequence[Parent], record: Record, keys: Sequence[str]) -> None:
    """Check that the merged set will have every image that is mixed into crops of a record: no set left one out.

    Args:
        parents: the sets.
        record: the record of an image.
        keys: the keys of the merged set's plan.

    Raises:
        LabelSetError: a set left such an image out.
    """
    mixing = None if record.views is None else record.views.mixing
    for number in [] if mixing is None else mixing.partners().tolist():
        for parent in parents:
            if parent.last.labelled(keys[number]) is None:
                raise LabelSetError(
                    f"{keys[number]} is mixed into its views, and is left out of a set to merge",
                    url=parent.url,
                    key=record.key,
                    hint="slg-wds verify tells more of that set",
                )
