"""Log-probabilities of crops in orthogonal components: the quadratic form that the KL has near the mean.

Shapes: M crops, N entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from slg_wds.arrays import F64
from slg_wds.labels.low_rank.tables import Table

LEAST_PROBABILITY = 1e-9
LEAST_WEIGHT = 1e-5
LEAST_SQUARE = 1e-12  # of the largest component's: smaller ones are rounding
DENSE, SUBSPACE, ITERATIONS = 128, 32, 3


@dataclass(frozen=True, eq=False)
class Weighted:
    """Log-probabilities in units of equal cost.

    Attributes:
        means: float64 [N], mean probabilities.
        weights: float64 [N], square roots of the weights of the classes.
        centre: float64 [N], mean log-probabilities.
        logs: float64 [M, N], (log-probabilities - centre) * weights. Those of each crop are less their own mean.
    """

    means: F64
    weights: F64
    centre: F64
    logs: F64

    @classmethod
    def of(cls, probabilities: F64) -> Weighted:
        """Return those of probabilities, float64 [M, N]."""
        means = probabilities.mean(axis=0)
        weights = np.sqrt(means + LEAST_WEIGHT)
        logs = np.maximum(probabilities, LEAST_PROBABILITY)
        np.log(logs, out=logs)
        logs -= (logs @ means)[:, None]
        centre = logs.mean(axis=0)
        logs -= centre
        logs *= weights
        return cls(means, weights, centre, logs)


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Log-probabilities in orthogonal components, the largest first.

    Attributes:
        weighted: the log-probabilities.
        variances: float64 [components], mean squares of the coefficients.
        directions: float64 [components, N], orthonormal.
    """

    weighted: Weighted
    variances: F64
    directions: F64

    @cached_property
    def beyond(self) -> F64:
        """What the components after the first ones hold of the variance, float64 [components + 1]."""
        logs = self.weighted.logs
        total = np.einsum("ij,ij->", logs, logs) / len(logs)
        left: F64 = np.maximum(total - np.concatenate([[0.0], np.cumsum(self.variances)]), 0.0)
        return left

    def coefficients(self, rank: int) -> F64:
        """Return those of the first components, float64 [M, rank]."""
        found: F64 = self.weighted.logs @ self.directions[:rank].T
        return found

    def table(self, rank: int) -> Table:
        """Return the first `rank` components; of none, the mean probabilities, then the best of all tables."""
        weighted = self.weighted
        mean = weighted.centre if rank else np.log(np.maximum(weighted.means, LEAST_PROBABILITY))
        return Table(mean, self.directions[:rank] / weighted.weights, self.coefficients(rank))


def decompose(probabilities: F64) -> Decomposition:
    """Return the components of probabilities, float64 [M, N]."""
    weighted = Weighted.of(probabilities)
    logs = weighted.logs
    crops, entries = logs.shape
    if entries <= crops:
        squares, vectors = _leading(logs.T @ logs)
        return Decomposition(weighted, squares / crops, vectors.T)
    return _of_crops(weighted, *_leading(logs @ logs.T), logs)


def refined(probabilities: F64, like: Decomposition) -> Decomposition:
    """Return components of probabilities in one step from those of the same crops over other entries."""
    weighted = Weighted.of(probabilities)
    basis = np.linalg.qr(like.coefficients(SUBSPACE)).Q
    rows = basis.T @ weighted.logs
    return _of_crops(weighted, *_sorted(rows @ rows.T), rows)


def _of_crops(weighted: Weighted, squares: F64, vectors: F64, rows: F64) -> Decomposition:
    """Return the components that are combinations of rows, of eigenvalues and eigenvectors of rows @ rows.T."""
    some = squares > LEAST_SQUARE * max(squares.max(initial=0.0), LEAST_SQUARE)
    directions = (vectors[:, some] / np.sqrt(squares[some])).T @ rows
    return Decomposition(weighted, squares[some] / len(weighted.logs), directions)


def _leading(gram: F64) -> tuple[F64, F64]:
    """Return the largest eigenvalues of a matrix [n, n], and their eigenvectors as columns.

    Of a large matrix only so many as labels have components: by subspace iteration (Rutishauser, 1969), from the
    columns with the largest diagonal on.
    """
    if len(gram) <= DENSE:
        return _sorted(gram)
    subspace = gram[:, np.argsort(-np.diag(gram), kind="stable")[:SUBSPACE]]
    for _ in range(ITERATIONS):
        subspace = gram @ np.linalg.qr(subspace).Q
    subspace = np.linalg.qr(subspace).Q
    squares, vectors = _sorted(subspace.T @ (gram @ subspace))
    return squares, subspace @ vectors


def _sorted(gram: F64) -> tuple[F64, F64]:
    squares, vectors = np.linalg.eigh(gram)
    return np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
