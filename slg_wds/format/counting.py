"""Where things stand that lie one after the other, so many of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def before(counts: Ints) -> Ints:
    """Return the sum of all counts before each one, int64 [n]."""
    sums: Ints = np.cumsum(counts) - counts
    return sums


def counted(counts: Ints) -> tuple[Ints, Ints]:
    """Count each of [n] up to its number: which it is, and the count from 0 on, int64 [sum of counts] each."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - before(counts)[which]
