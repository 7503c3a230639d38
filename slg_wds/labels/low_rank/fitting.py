"""Mean, basis and coefficients of log-probabilities: a weighted decomposition, then steps of Newton's method on the KL.

The weighted decomposition is that of the quadratic form which the KL has near the mean; the refinement is that of
principal components for the exponential family (Collins, Dasgupta and Schapire, 2001), for the multinomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.low_rank.blocks import softmax

Floats = NDArray[np.float64]

LEAST_PROBABILITY = 1e-9
LEAST_WEIGHT = 1e-5
RIDGE = 1e-3
ROUNDS = 2
LARGEST_CHANGE = 4.0  # of a coefficient in one step
LARGEST_LOGIT_CHANGE, DAMPING = 2.0, 0.7


@dataclass(frozen=True, eq=False)
class Table:
    """Logits of crops as mean + coefficients @ rows.

    Attributes:
        mean: float64 [N].
        rows: float64 [r, N].
        coefficients: float64 [M, r].
    """

    mean: Floats
    rows: Floats
    coefficients: Floats

    def entries(self) -> Floats:
        """Return the distributions over entries, float64 [M, N]."""
        return softmax(self.mean + self.coefficients @ self.rows)


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Centred log-probabilities in orthogonal components, the largest first.

    Attributes:
        means: float64 [N], mean probabilities.
        weights: float64 [N], square roots of the weights of the classes.
        centre: float64 [N], mean log-probabilities.
        weighted: float64 [M, N], (log-probabilities - centre) * weights.
        variances: float64 [components], mean squares of the coefficients.
        directions: float64 [components, N], orthonormal.
    """

    means: Floats
    weights: Floats
    centre: Floats
    weighted: Floats
    variances: Floats
    directions: Floats

    def table(self, rank: int) -> Table:
        """Return the first `rank` components; of none, the mean probabilities, then the best of all tables."""
        if rank == 0:
            none = np.zeros((len(self.weighted), 0))
            return Table(
                np.log(np.maximum(self.means, LEAST_PROBABILITY)), np.zeros((0, len(self.means))), none
            )
        directions = self.directions[:rank]
        return Table(self.centre, directions / self.weights, self.weighted @ directions.T)


def decompose(probabilities: Floats) -> Decomposition:
    """Return the components of log-probabilities in the metric of the mean probabilities, float64 [M, N] given."""
    means = probabilities.mean(axis=0)
    weights = np.sqrt(means + LEAST_WEIGHT)
    logs = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    logs -= (logs @ means)[:, None]
    centre = logs.mean(axis=0)
    weighted = (logs - centre) * weights
    crops, entries = weighted.shape
    if entries <= crops:
        squares, vectors = np.linalg.eigh(weighted.T @ weighted)
        squares, directions = np.maximum(squares[::-1], 0.0), vectors[:, ::-1].T
    else:
        squares, vectors = np.linalg.eigh(weighted @ weighted.T)
        squares, vectors = np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
        some = squares > max(squares[0], 1e-12) * 1e-12
        squares, directions = squares[some], (vectors[:, some] / np.sqrt(squares[some])).T @ weighted
    return Decomposition(means, weights, centre, weighted, squares / crops, directions)


def fit(probabilities: Floats, decomposition: Decomposition, rank: int) -> Table:
    """Return a table of `rank` components that is close to the smallest mean KL from probabilities [M, N]."""
    table = decomposition.table(rank)
    if not table.rows.size:
        return table
    for _ in range(ROUNDS):
        solved = solve(probabilities, table, 2)
        table = _step_of_classes(probabilities, solved)
    return _orthogonal(table, decomposition)


def solve(probabilities: Floats, table: Table, steps: int) -> Table:
    """Take steps of Newton's method on each crop's coefficients; the KL from probabilities [M, N] is convex in them."""
    mean, rows, coefficients = table.mean, table.rows, table.coefficients
    rank = len(rows)
    i, j = np.triu_indices(rank)
    products = (rows[i] * rows[j]).T
    for _ in range(steps):
        entries = softmax(mean + coefficients @ rows)
        gradient = (entries - probabilities) @ rows.T + RIDGE * coefficients
        first = entries @ rows.T
        hessian = _symmetric(entries @ products, rank) - first[:, :, None] * first[:, None]
        hessian[:, range(rank), range(rank)] += RIDGE
        change = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        largest = np.maximum(np.abs(change).max(axis=1, keepdims=True), 1e-9)
        coefficients = coefficients - change * np.minimum(1.0, LARGEST_CHANGE / largest)
    return Table(mean, rows, coefficients)


def _step_of_classes(probabilities: Floats, table: Table) -> Table:
    """One damped Gauss-Newton step on the mean and the basis of each entry."""
    entries = table.entries()
    design = np.concatenate([np.ones((len(entries), 1)), table.coefficients], axis=1)
    size = design.shape[1]
    i, j = np.triu_indices(size)
    hessian = _symmetric((entries * (1.0 - entries) + 1e-6).T @ (design[:, i] * design[:, j]), size)
    hessian[:, range(size), range(size)] += RIDGE
    gradient = (probabilities - entries).T @ design
    change = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    change = DAMPING * np.clip(change, -LARGEST_LOGIT_CHANGE, LARGEST_LOGIT_CHANGE)
    return Table(table.mean + change[:, 0], table.rows + change[:, 1:].T, table.coefficients)


def _symmetric(upper: Floats, size: int) -> Floats:
    """Symmetric matrices [n, size, size] of their upper triangles [n, size (size + 1) / 2]."""
    i, j = np.triu_indices(size)
    full = np.empty((len(upper), size, size))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def _orthogonal(table: Table, decomposition: Decomposition) -> Table:
    """The same logits in orthogonal components, so that one step serves all coefficients and small ones round to 0."""
    offset = table.coefficients.mean(axis=0)
    mean = table.mean + offset @ table.rows
    rows = table.rows - (table.rows @ decomposition.means)[:, None]
    q, triangle = np.linalg.qr((rows * decomposition.weights).T)
    u, s, vt = np.linalg.svd((table.coefficients - offset) @ triangle.T, full_matrices=False)
    return Table(mean, (vt @ q.T) / decomposition.weights, u * s)
