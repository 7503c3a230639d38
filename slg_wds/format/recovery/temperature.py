"""The temperature at which labels are read: softmax(z / T) from what was stored as softmax(z / T0).

softmax(z / T) is softmax(z / T0) to the power T0 / T, divided by its sum.
"""

from __future__ import annotations

import math
from typing import Any

from slg_wds.arrays import F64
from slg_wds.errors import UsageError

# What the top-k leave is 1 minus a sum of float32 values. A softmax in float32 sums to 1 within 2^-21 or so. Up to that
# it is rounding alone, which a power like 1/8 would make the greater part of a row.
LEAST_LEFT = 2.0**-21


def checked_temperature(value: Any, name: str = "the temperature") -> float:
    """Return a temperature as a float. Raises UsageError, which calls it `name`, unless it is above 0 and finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(f"{name} must be above 0, not {value}")
    return number


def power_of(temperature: float | None, made_at: float | None) -> float:
    """Return the power that makes probabilities of one temperature those of another.

    Args:
        temperature: T, at which labels are wanted; None: as they were made.
        made_at: T0, at which they were made; None if that is not known here.

    Returns:
        T0 / T; 1 for labels as they were made.

    Raises:
        UsageError: a temperature is not above 0 and finite, or T0 would be needed and is not known.
    """
    if temperature is None:
        return 1.0
    if made_at is None:
        raise UsageError(
            f"labels at temperature {temperature} need the one that they were made at, which is not known here",
            hint="records that open_labels(url) gives have it if the set says it; else give it: "
            "dataclasses.replace(record, temperature=1.0), or CollateCrops(made_at=1.0)",
        )
    made = checked_temperature(made_at, "the temperature that labels were made at")
    return made / checked_temperature(temperature)


def tempered(rows: F64, power: float) -> F64:
    """Raise distributions to a power and divide them by their new sums.

    Args:
        rows: float64 [M, C], none negative, each with a sum above 0.
        power: above 0.

    Returns:
        float64 [M, C]; 0 stays 0.
    """
    powered: F64 = (rows / rows.max(axis=1, keepdims=True)) ** power
    powered /= powered.sum(axis=1, keepdims=True)
    return powered
