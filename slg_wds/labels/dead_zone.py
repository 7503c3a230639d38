"""Rounding that prefers small integers."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)


def round_toward_zero(numbers: NDArray[Number], dead_zone: float) -> NDArray[Number]:
    """Round to integers, towards 0 where a number is close to a half: small integers take fewer bits.

    Args:
        numbers: of any shape.
        dead_zone: how far above a half a number is still rounded towards 0, from 0 to 0.5.

    Returns:
        Whole numbers of the same shape and dtype.
    """
    rounded: NDArray[Number] = np.copysign(np.floor(np.abs(numbers) + (0.5 - dead_zone)), numbers)
    return rounded
