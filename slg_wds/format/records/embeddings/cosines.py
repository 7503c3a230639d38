"""How alike vectors are: cosines between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine between the rows of two arrays [..., D]: 1 between two zero vectors, 0 if one is zero."""
    products, ones, others = (_dots(*pair) for pair in ((one, other), (one, one), (other, other)))
    lengths = np.sqrt(ones) * np.sqrt(others)
    return np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), (ones == others) * 1.0)


def _dots(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.einsum("...d,...d->...", one, other, dtype=np.float64)
    return found


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
