"""A table of real numbers -> the integers of low-rank labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, I64, Bools
from slg_wds.format.records.low_rank.blocks import MAX_SCALE, LowRankBlock, mean_of, rows_of, step_of
from slg_wds.labels.dead_zone import round_toward_zero
from slg_wds.labels.low_rank.fitting import Fitted, solve
from slg_wds.labels.low_rank.tables import Table

DEAD_ZONE = 0.1  # of a step


@dataclass(frozen=True, eq=False)
class Rounded:
    """The integers of a block's crops.

    Attributes:
        block: what they share.
        coefficients: int64 [m, r].
        divergence: float64 [m], nats: KL of each crop from its exact distribution to the one that a reader decodes.
    """

    block: LowRankBlock
    coefficients: I64
    divergence: F64

    def of(self, crops: Bools) -> Rounded:
        """Return some of the crops, bool [m]."""
        return Rounded(self.block, self.coefficients[crops], self.divergence[crops])


def rounded(fitted: Fitted, step_code: int) -> Rounded:
    """Round a table with this step.

    Coefficients are solved once more, so that they make up for the rounding of the rest. Each number's step follows
    from that of the coefficients so that a bit spent anywhere buys as much: a mean's log-probability is as fine as that
    step divided by the root of (crops x probability); so its root has equal steps.

    Args:
        fitted: the table.
        step_code: 0 to 255.
    """
    table, entries, step = fitted.table, fitted.entries, step_of(step_code)
    crops = len(table.coefficients)
    base, scales = _base(table.mean, step, crops), _scales(table, step)
    unit = rows_of(base, np.ones((len(scales), len(base)), np.int64), scales)
    basis = round_toward_zero(table.rows / unit, DEAD_ZONE).astype(np.int64)
    coefficients = table.coefficients
    if len(basis):
        solved = solve(entries.probabilities, Table(mean_of(base), basis * unit, coefficients))
        coefficients = solved.coefficients
    integers = round_toward_zero(coefficients / step, DEAD_ZONE)
    block = LowRankBlock(entries.num_classes, entries.classes, base, basis, scales, step_code)
    return Rounded(
        block, integers.astype(np.int64), entries.divergence(Table(block.mean, block.rows, integers))
    )


def _base(mean: F64, step: float, crops: int) -> I64:
    """Return roots of the mean probabilities in steps of step / (2 root of crops), rounded to odd halves."""
    roots = np.exp((mean - mean.max()) / 2.0)
    roots /= np.sqrt(np.square(roots).sum())
    base: I64 = np.maximum(np.rint(roots * 2.0 * np.sqrt(crops) / step - 0.5), 0.0).astype(np.int64)
    return base


def _scales(table: Table, step: float) -> I64:
    """Return half-octaves of the norm of each component's coefficients in steps.

    The more the coefficients multiply a row, the finer it is.
    """
    norms = np.sqrt(np.square(table.coefficients / step).sum(axis=0))
    scales: I64 = np.clip(np.rint(2.0 * np.log2(np.maximum(norms, 1.0))), 0, MAX_SCALE).astype(np.int64)
    return scales
