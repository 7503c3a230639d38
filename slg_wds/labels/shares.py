"""The weights of an average as shares that sum to 1: for teachers, label sets and batches of labels alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from slg_wds.console import counted
from slg_wds.errors import UsageError


def shares(weights: Sequence[float] | None, count: int, of: str) -> list[float]:
    """Divide weights by their sum.

    Args:
        weights: one per member of the average, finite and at least 0, not all of them 0; None for equal shares.
        count: members of the average.
        of: what one member is called in a message, such as "teacher".

    Returns:
        `count` shares that sum to 1.

    Raises:
        UsageError: the weights are not as described.
    """
    if weights is None:
        return [1.0 / count] * count
    if len(weights) != count:
        raise UsageError(
            f"{counted(len(weights), 'weight')} for {counted(count, of)}",
            hint="give one for each; weights are in the same order",
        )
    if not all(weight >= 0 and math.isfinite(weight) for weight in weights):
        raise UsageError(f"weights must be finite and at least 0, not {list(weights)}")
    if not math.isfinite(sum(weights)):
        raise UsageError(f"the sum of the weights {list(weights)} is not finite")
    total = math.fsum(weights)
    if total == 0:
        raise UsageError(f"the weights are all zero, {list(weights)}")
    return [float(weight) / total for weight in weights]
