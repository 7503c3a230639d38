"""The Beta distribution with two equal parameters, as tables of integers that are the same on every machine.

The logarithms and powers of numpy and of C libraries differ in the last place between processors. `decimal` defines its
results to the last digit, so what is drawn by these tables differs nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_DIGITS = 60  # of all intermediate results; the tables have 64 bits, which are 20 digits
_NEGLIGIBLE = Decimal("1e-40")
_EXACT = Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN, Emin=-(10**9), Emax=10**9)
_MOST = (1 << 64) - 1


def thresholds(alpha: float, points: Sequence[Fraction]) -> NDArray[np.uint64]:
    """Return for each point how many of the 2^64 draws of 64 bits stand for a number below it.

    A draw u stands for a number x of Beta(alpha, alpha), and x is below points[i] if u < thresholds[i].

    Args:
        alpha: the parameter of the distribution, above 0.
        points: ascending, in 0..1.
    """
    return np.array(_thresholds(alpha, tuple(points)), np.uint64)


@lru_cache(maxsize=16)
def _thresholds(alpha: float, points: tuple[Fraction, ...]) -> list[int]:
    with localcontext(_EXACT):
        a = Decimal(alpha)
        half = 2 * _part(a, Decimal("0.5"))
        return [min(_MOST, int(_share(a, point, half) * (1 << 64))) for point in points]


def _share(a: Decimal, point: Fraction, half: Decimal) -> Decimal:
    """Return the cumulative distribution at a point; `half` is twice `_part` at 1/2."""
    x = Decimal(point.numerator) / Decimal(point.denominator)
    if x <= 0 or x >= 1:
        return Decimal(int(x >= 1))
    return _part(a, x) / half if 2 * x <= 1 else 1 - _part(a, 1 - x) / half


def _part(a: Decimal, x: Decimal) -> Decimal:
    """Return a times the incomplete beta function B(x; a, a), for 0 < x <= 1/2.

    The series is 8.17.8 of the NIST Digital Library of Mathematical Functions. All of its terms are positive.
    """
    term = total = Decimal(1)
    n = 0
    while term > total * _NEGLIGIBLE:
        term *= (2 * a + n) / (a + 1 + n) * x
        total += term
        n += 1
    return (a * (x * (1 - x)).ln()).exp() * total
