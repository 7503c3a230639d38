"""Real logits of crops as a mean, a basis and coefficients, and numbers of crops whose tables stay in a core's cache.

Shapes: M crops, N entries, r components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, Bools

CACHED = 1 << 15  # numbers in float64 that are worked on at a time


def parts(crops: int, width: int) -> list[slice]:
    """Cut crops into parts whose tables [part, width] stay in the cache of a core; the last one may be smaller."""
    step = max(1, CACHED // width)
    return [slice(start, start + step) for start in range(0, crops, step)]


@dataclass(frozen=True, eq=False)
class Table:
    """Logits of crops as mean + coefficients @ rows.

    Attributes:
        mean: float64 [N].
        rows: float64 [r, N].
        coefficients: float64 [M, r].
    """

    mean: F64
    rows: F64
    coefficients: F64

    def of(self, crops: slice | Bools) -> Table:
        """Return some of the crops, bool [M] or a slice."""
        return Table(self.mean, self.rows, self.coefficients[crops])

    def logits(self) -> F64:
        """Return the logits, less the largest of each crop, float64 [M, N]."""
        logits: F64 = self.coefficients @ self.rows
        logits += self.mean
        logits -= logits.max(axis=1, keepdims=True)
        return logits

    def distributions(self) -> F64:
        """Return the distributions, float64 [M, N]."""
        logits = self.logits()
        exponentials = np.exp(logits, out=logits)
        exponentials /= exponentials.sum(axis=1, keepdims=True)
        return exponentials
