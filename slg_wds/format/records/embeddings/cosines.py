"""How alike vectors are: cosines between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine between the rows of two arrays [..., D]: 1 between two zero vectors, 0 if one is zero."""
    a, b = (unit_rows(part) for part in (one, other))
    both_zero = ~(a.any(axis=-1) | b.any(axis=-1))
    found: NDArray[np.float64] = (a * b).sum(axis=-1)
    return np.where(both_zero, 1.0, found)


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return rows [..., D] at unit length, float64; rows of zeros stay."""
    rows = np.asarray(rows, np.float64)
    length = np.sqrt((rows * rows).sum(axis=-1, keepdims=True))
    unit: NDArray[np.float64] = rows / np.where(length > 0, length, 1.0)
    return unit


def similarity(vectors: NDArray[Any]) -> float:
    """Return the mean cosine between two different rows of [M, D]; 1 for fewer than two. Zero vectors give 0."""
    M = len(vectors)
    if M < 2:
        return 1.0
    unit = unit_rows(vectors)
    total = float(np.square(unit.sum(axis=0)).sum() - np.square(unit).sum())
    return total / (M * (M - 1))
