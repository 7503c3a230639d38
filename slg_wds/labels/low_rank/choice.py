"""How many classes, which rank and which step take the fewest bits for a target: foretold from a decomposition.

With a step d and entries in units of equal cost, rounding costs d^2 / 24 nats for each number that a crop's row is
made of; components beyond the rank cost half their variance. Numbers of variance v take about
log2(1 + 12 v / d^2) / 2 bits. The estimates are within a third; the encoder then measures.

Shapes: K numbers of kept classes that are tried, R ranks from 0 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64
from slg_wds.labels.low_rank.classes import ClassTable
from slg_wds.labels.low_rank.decomposition import Decomposition

MOST_RANK = 24
LARGEST_STEP = 2.0
MOST_LOST = 0.9  # of the target: numbers of kept classes that cost more are not tried
# Of a row of the basis, in the units of a coefficient: measured on real photographs with a real teacher.
BASIS_NOISE, BASIS_BITS, BASIS_FLOOR = 0.6, 0.25, 1.0
OUTSIDE_OF_A_CLASS = 1.6  # bits to say that a class is kept, beyond log2(C / n)


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


def choose(table: ClassTable, components: Decomposition, target: float) -> Choice:
    """Return the choice of the fewest estimated bits.

    Args:
        table: the distributions.
        components: of some number of kept classes; their variances change little with that number.
        target: the mean KL to keep to, in nats.
    """
    variances = components.variances[: min(table.crops - 1, MOST_RANK)]
    ranks = np.arange(len(variances) + 1)
    room = target - table.lost[:, None] - components.beyond[ranks] / 2.0
    tried = (table.lost <= MOST_LOST * target) | (table.counts == table.classes)
    possible = (room > 0) & tried[:, None]
    if not possible.any():
        return Choice(table.classes, int(ranks[-1]), LARGEST_STEP / 64, 0.0)
    rests_on = ranks + (table.counts[:, None] + 1) * (1 + BASIS_NOISE * ranks) / table.crops
    steps = np.sqrt(24.0 * np.where(possible, room, target) / rests_on).clip(max=LARGEST_STEP)
    bits = np.where(possible, _bits(table, variances, steps), np.inf)
    kept, rank = np.unravel_index(int(bits.argmin()), bits.shape)
    return Choice(int(table.counts[kept]), int(rank), float(steps[kept, rank]), float(bits[kept, rank]))


def _bits(table: ClassTable, variances: F64, steps: F64) -> F64:
    """Return the bits of every number of kept classes and every rank with these steps, float64 [K, R]."""
    counts, ranks = table.counts[:, None], np.arange(steps.shape[1])
    each = 0.5 * np.log2(1.0 + 12.0 * variances / np.square(steps)[:, :, None]) + 0.25
    coefficients = table.crops * np.einsum("krj,rj->kr", each, np.tri(len(ranks), len(variances), -1))
    # Classes of about the same mean count as one, as often as there are: sizes [K, K] of those that are kept.
    sizes = np.tri(len(counts)) * np.diff(table.counts, prepend=0)
    roots = np.sqrt(table.crops) * table.roots / steps[:, :, None]
    mean = np.einsum("krg,kg->kr", np.log2(1.0 + 2.0 * roots) + 1.0, sizes)
    basis = BASIS_BITS * np.einsum("krg,kg->kr", np.log2(1.0 + 0.5 * roots), sizes) + BASIS_FLOOR * counts
    listed = np.where(
        counts < table.classes, counts * (np.log2(table.classes / counts) + OUTSIDE_OF_A_CLASS), 0.0
    )
    found: F64 = coefficients + mean + ranks * basis + listed
    return found
