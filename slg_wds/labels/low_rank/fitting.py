"""Mean, basis and coefficients of log-probabilities: a weighted decomposition, then steps of Newton's method on the KL.

The refinement is that of principal components for the exponential family (Collins, Dasgupta and Schapire, 2001), for
the multinomial.

Shapes: M crops, N entries, r components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from slg_wds.arrays import F64, I64, Bools
from slg_wds.labels.low_rank.classes import Entries
from slg_wds.labels.low_rank.decomposition import Decomposition
from slg_wds.labels.low_rank.tables import Table, parts

RIDGE = 1e-3
ROUNDS = 2
LARGEST_CHANGE = 4.0  # of a coefficient in one step
LARGEST_LOGIT_CHANGE, DAMPING, LEAST_CURVATURE = 2.0, 0.7, 1e-6


@dataclass(frozen=True, eq=False)
class Fitted:
    """A table of the distributions of crops.

    Attributes:
        entries: the exact distributions.
        table: the table.
        divergence: float64 [M], nats: KL of each crop from its exact distribution to that of the table.
    """

    entries: Entries
    table: Table
    divergence: F64

    def of(self, crops: Bools) -> Fitted:
        """Return some of the crops, bool [M]."""
        return Fitted(self.entries.of(crops), self.table.of(crops), self.divergence[crops])


def fit(entries: Entries, decomposition: Decomposition, rank: int) -> Fitted:
    """Return a table that is close to the smallest mean KL from the crops' distributions.

    Args:
        entries: the distributions.
        decomposition: of these.
        rank: the components of the table; it has fewer if there are not so many.
    """
    rank = min(rank, len(decomposition.variances))
    table = decomposition.table(rank)
    for _ in range(ROUNDS if rank else 0):
        table = _step_of_classes(entries.probabilities, solve(entries.probabilities, table))
    if rank:
        table = _orthogonal(table, decomposition)
    return Fitted(entries, table, entries.divergence(table))


def solve(probabilities: F64, table: Table) -> Table:
    """Take a step of Newton's method on crops' coefficients; the KL from probabilities [M, N] is convex in them."""
    i, j = _upper(len(table.rows))
    design = np.concatenate([table.rows, table.rows[i] * table.rows[j]]).T
    solved = [_newton(probabilities[crops], table.of(crops), design) for crops in parts(*probabilities.shape)]
    return replace(table, coefficients=np.concatenate(solved))


def _newton(probabilities: F64, table: Table, design: F64) -> F64:
    """Return the coefficients of some crops after a step; design [N, r + r (r + 1) / 2] are rows and their products."""
    rank, coefficients = len(table.rows), table.coefficients
    moments = table.distributions() @ design
    first = moments[:, :rank]
    gradient = first - probabilities @ table.rows.T + RIDGE * coefficients
    hessian = _symmetric(moments[:, rank:], rank) - first[:, :, None] * first[:, None]
    hessian[:, range(rank), range(rank)] += RIDGE
    change = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    largest = np.maximum(np.abs(change).max(axis=1, keepdims=True), 1e-9)
    stepped: F64 = coefficients - change * np.minimum(1.0, LARGEST_CHANGE / largest)
    return stepped


def _step_of_classes(probabilities: F64, table: Table) -> Table:
    """Take one damped Gauss-Newton step on the mean and the basis of each entry."""
    design = np.concatenate([np.ones((len(probabilities), 1)), table.coefficients], axis=1)
    size = design.shape[1]
    i, j = _upper(size)
    products = design[:, i] * design[:, j]
    curvature = np.tile(LEAST_CURVATURE * products.sum(axis=0), (probabilities.shape[1], 1))
    gradient = np.zeros((probabilities.shape[1], size))
    for crops in parts(*probabilities.shape):
        entries = table.of(crops).distributions()
        gradient += (probabilities[crops] - entries).T @ design[crops]
        entries -= np.square(entries)
        curvature += entries.T @ products[crops]
    hessian = _symmetric(curvature, size)
    hessian[:, range(size), range(size)] += RIDGE
    change = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    change = DAMPING * np.clip(change, -LARGEST_LOGIT_CHANGE, LARGEST_LOGIT_CHANGE)
    return Table(table.mean + change[:, 0], table.rows + change[:, 1:].T, table.coefficients)


@lru_cache(256)
def _upper(size: int) -> tuple[I64, I64]:
    """Return the places of the upper triangle of a matrix: numpy takes longer to find them than to use them."""
    return np.triu_indices(size)


def _symmetric(upper: F64, size: int) -> F64:
    """Return symmetric matrices [n, size, size] of their upper triangles [n, size (size + 1) / 2]."""
    i, j = _upper(size)
    full = np.empty((len(upper), size, size))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def _orthogonal(table: Table, decomposition: Decomposition) -> Table:
    """Return the same logits in orthogonal components: one step serves all coefficients, and small ones round to 0."""
    weighted = decomposition.weighted
    offset = table.coefficients.mean(axis=0)
    mean = table.mean + offset @ table.rows
    rows = table.rows - (table.rows @ weighted.means)[:, None]
    q, triangle = np.linalg.qr((rows * weighted.weights).T)
    u, s, vt = np.linalg.svd((table.coefficients - offset) @ triangle.T, full_matrices=False)
    return Table(mean, (vt @ q.T) / weighted.weights, u * s)
