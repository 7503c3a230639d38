"""How many classes, which rank and which step take the fewest bits for a target: foretold from a decomposition.

With a step d and entries in units of equal cost, rounding costs d^2 / 24 nats for each number that a crop's row rests
on; what the components beyond the rank held costs half their variance. Numbers of variance v take about
log2(1 + 12 v / d^2) / 2 bits. The estimates are within a third; the encoder then measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.labels.low_rank.classes import ClassTable

Floats = NDArray[np.float64]

MOST_RANK = 24
LARGEST_STEP = 2.0
# Of a row of the basis, in the units of a coefficient: measured on real photographs with a real teacher.
BASIS_NOISE, BASIS_BITS, BASIS_FLOOR = 0.6, 0.25, 0.6
OUTSIDE_OF_A_CLASS = 1.6  # bits to say that a class is kept, beyond log2(C / n)
WORSE = 1.25  # a search along one direction ends where the bits are so many times the fewest


@dataclass(frozen=True)
class Choice:
    """What to try first.

    Attributes:
        kept: classes with an entry of their own.
        rank: components.
        step: of the coefficients.
        bits: of the image, estimated.
    """

    kept: int
    rank: int
    step: float
    bits: float


def choose(table: ClassTable, variances: Floats, target: float) -> Choice:
    """Return the choice of the fewest estimated bits.

    Args:
        table: the distributions.
        variances: float64 [components], of a decomposition with some number of kept classes; they change little with
            that number.
        target: the mean KL to keep to, in nats.
    """
    best: Choice | None = None
    for kept, lost in zip(table.counts, table.lost, strict=True):
        if lost > 0.9 * target and kept < table.classes:
            continue
        here = min(
            _ranks(table, variances, kept, target - lost), key=lambda choice: choice.bits, default=None
        )
        if here is not None and (best is None or here.bits < best.bits):
            best = here
        elif best is not None and here is not None and here.bits > WORSE * best.bits:
            break
    return best or Choice(
        table.classes, min(table.crops - 1, len(variances), MOST_RANK), LARGEST_STEP / 64, 0.0
    )


def _ranks(table: ClassTable, variances: Floats, kept: int, room: float) -> Iterator[Choice]:
    """Yield a choice for every rank with which the target can be met, until the bits are far above the fewest."""
    beyond = np.maximum(variances.sum() - np.concatenate([[0.0], np.cumsum(variances)]), 0.0) / 2.0
    least = np.inf
    for rank in range(min(table.crops - 1, len(variances), MOST_RANK) + 1):
        if room <= beyond[rank]:
            continue
        rests_on = rank + (kept + 1) * (1 + BASIS_NOISE * rank) / table.crops
        step = min(np.sqrt(24.0 * (room - beyond[rank]) / rests_on), LARGEST_STEP)
        bits = _bits(table, variances[:rank], kept, float(step))
        least = min(least, bits)
        if bits > WORSE * least:
            return
        yield Choice(kept, rank, float(step), bits)


def _bits(table: ClassTable, variances: Floats, kept: int, step: float) -> float:
    rank, roots = len(variances), np.sqrt(table.crops * table.means[:kept]) / step
    coefficients = table.crops * (0.5 * np.log2(1.0 + 12.0 * variances / step**2) + 0.25).sum()
    mean = (np.log2(1.0 + 2.0 * roots) + 1.0).sum()
    basis = rank * (BASIS_BITS * np.log2(1.0 + 0.5 * roots).sum() + BASIS_FLOOR * kept)
    listed = kept * (np.log2(table.classes / kept) + OUTSIDE_OF_A_CLASS) if kept < table.classes else 0.0
    return float(coefficients + mean + basis + listed)
