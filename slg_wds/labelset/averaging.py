"""What label sets must share before their distributions are averaged, whether they are merged or replayed together."""

from __future__ import annotations

from collections.abc import Sequence

from slg_wds.console import counted
from slg_wds.errors import IdentityMismatchError, UsageError
from slg_wds.labelset.labelset import LabelSet

# In this order: a difference in the first explains those in the others.
_SAME = ("num_classes", "class_subset", "temperature")


def check_averaged(sets: Sequence[LabelSet]) -> None:
    """Raise IdentityMismatchError for sets whose distributions are over other classes or of another temperature."""
    for other in sets[1:]:
        for field in _SAME:
            mine, theirs = sets[0].identity.get(field), other.identity.get(field)
            # An imported set may not know its teachers' temperature.
            if mine != theirs and not (field == "temperature" and None in (mine, theirs)):
                raise differs(sets[0], other, f"{field}: {mine} != {theirs}")


def differs(first: LabelSet, other: LabelSet, what: str, key: str | None = None) -> IdentityMismatchError:
    """Return the error that names a difference between two sets, of one image if `key` is given."""
    return IdentityMismatchError(
        f"the label sets are not of the same crops: {what}, in {first.url} and {other.url}", key=key
    )


def shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return the weights of so many sets as parts of one; None: equal parts. Raises UsageError."""
    if weights is None:
        return [1.0 / count] * count
    if len(weights) != count:
        raise UsageError(
            f"{counted(len(weights), 'weight')} for {counted(count, 'label set')}",
            hint="give one for each, in order",
        )
    if not all(0 <= weight < float("inf") for weight in weights):
        raise UsageError(f"weights {list(weights)} are not all finite and at least 0")
    total = sum(weights)
    if not 0 < total < float("inf"):
        raise UsageError(f"weights {list(weights)} sum to {total:g}")
    return [float(weight) / total for weight in weights]
