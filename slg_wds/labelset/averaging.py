"""What label sets must have in common before their distributions are averaged, in a merge or in replay."""

from __future__ import annotations

from collections.abc import Sequence

from slg_wds.errors import IdentityMismatchError
from slg_wds.labelset.labelset import LabelSet

# In this order: a difference in an earlier field explains differences in later ones.
_SAME = ("bank_sha256", "num_classes", "class_subset", "temperature")


def check_averaged(sets: Sequence[LabelSet], any_temperature: bool = False) -> None:
    """Raise IdentityMismatchError if the distributions of the sets differ in their classes, bank or temperature.

    Args:
        sets: the sets.
        any_temperature: whether they may differ in their temperature, since all are read at another one.
    """
    fields = [field for field in _SAME if not (any_temperature and field == "temperature")]
    for other in sets[1:]:
        for field in fields:
            mine, theirs = getattr(sets[0].identity, field), getattr(other.identity, field)
            # An imported set may not know its teachers' temperature.
            if mine != theirs and not (field == "temperature" and None in (mine, theirs)):
                raise differs(sets[0], other, f"{field}: {mine} != {theirs}")


def differs(first: LabelSet, other: LabelSet, what: str, key: str | None = None) -> IdentityMismatchError:
    """Make the error for two sets that differ.

    Args:
        first: a set.
        other: the set that differs from it.
        what: the difference.
        key: the image in which they differ, if it is one.
    """
    return IdentityMismatchError(
        f"the label sets do not match: {what}, in {first.url} and {other.url}", key=key
    )
