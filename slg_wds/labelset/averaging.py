"""What label sets must share before their distributions are averaged, whether they are merged or replayed together."""

from __future__ import annotations

from collections.abc import Sequence

from slg_wds.errors import IdentityMismatchError
from slg_wds.labelset.labelset import LabelSet

# In this order: a difference in the first explains those in the others.
_SAME = ("num_classes", "class_subset", "temperature")


def check_averaged(sets: Sequence[LabelSet]) -> None:
    """Raise IdentityMismatchError for sets whose distributions are over other classes or of another temperature."""
    for other in sets[1:]:
        for field in _SAME:
            mine, theirs = getattr(sets[0].identity, field), getattr(other.identity, field)
            # An imported set may not know its teachers' temperature.
            if mine != theirs and not (field == "temperature" and None in (mine, theirs)):
                raise differs(sets[0], other, f"{field}: {mine} != {theirs}")


def differs(first: LabelSet, other: LabelSet, what: str, key: str | None = None) -> IdentityMismatchError:
    """Return the error that names a difference between two sets, of one image if `key` is given."""
    return IdentityMismatchError(
        f"the label sets are not of the same crops: {what}, in {first.url} and {other.url}", key=key
    )
