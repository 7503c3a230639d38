"""Where things stand that lie one after the other, so many of each."""

from __future__ import annotations

import numpy as np

from slg_wds.arrays import I64


def before(counts: I64) -> I64:
    """Return the sum of all counts before each one, int64 [n]."""
    sums: I64 = np.cumsum(counts) - counts
    return sums


def counted(counts: I64) -> tuple[I64, I64]:
    """Count each of [n] up to its number: which it is, and the count from 0 on, int64 [sum of counts] each."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - before(counts)[which]
