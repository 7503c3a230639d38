"""Directions of crops -> their mean and orthogonal components, the largest first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.embeddings.low_rank import MAX_RANK

Floats = NDArray[np.floating]

LEAST = 1e-9  # norms below it are rounding, whatever the others are
MORE = 1.2  # so many times the components that are asked for are made: the next trial may ask for a few more


class Components(NamedTuple):
    """Orthonormal rows, and how large a part the crops have along each.

    Attributes:
        rows: [r, D], of unit length.
        norms: [r], roots of the sums of the crops' squared coefficients.
        coarsest: [r], the largest step that the numbers of a row may have.
    """

    rows: Floats
    norms: Floats
    coarsest: Floats

    def and_then(self, more: Components) -> Components:
        """Return these components and more."""
        return Components(*map(np.concatenate, zip(self, more, strict=True)))


class DirectionComponents:
    """Directions as a mean and orthogonal components.

    All is computed in the precision of the directions.

    Args:
        directions: float32 or float64 [m, D], rows of unit length.
    """

    def __init__(self, directions: Floats) -> None:
        crops, dim = directions.shape
        self.directions = directions
        self.mean: Floats = directions.mean(axis=0) if crops else np.zeros(dim, directions.dtype)
        none = np.zeros(0, directions.dtype)
        self.extra = Components(none.reshape(0, dim), none, none)
        self._centred = directions - self.mean
        self._narrow = dim < crops
        products = self._centred.T @ self._centred if self._narrow else self._centred @ self._centred.T
        self.norms, self._vectors = eigenvectors(products)
        self._rows: Floats = self.extra.rows

    def components(self, rank: int) -> Components:
        """Return the `rank` largest components, and after them those that were added for single crops."""
        if rank > len(self._rows):
            count = min(len(self.norms), int(rank * MORE) + 1)
            vectors = self._vectors[:, :count]
            self._rows = vectors.T if self._narrow else (vectors / self.norms[:count]).T @ self._centred
        any_step = np.full(rank, np.inf, self.directions.dtype)
        return Components(self._rows[:rank], self.norms[:rank], any_step).and_then(self.extra)

    def add(self, off: NDArray[np.bool_], rank: int, most: float, rounding: float) -> bool:
        """Add components of what `components(rank)` leaves of some crops, the largest first.

        Args:
            off: bool [m], which crops.
            rank: of the components that all crops share.
            most: that the squared distance of each of these crops may be, before rounding.
            rounding: what the rounding of the new rows may add to it.

        Returns:
            Whether there were any to add.
        """
        rows = self.components(rank).rows
        left = self._centred[off]
        left = left - (left @ rows.T) @ rows
        norms, vectors = eigenvectors(left @ left.T)
        found = (vectors / norms).T @ left
        along = np.square(left @ found.T)
        over = np.square(left).sum(axis=1, keepdims=True) - np.cumsum(along, axis=1) > most
        count = min(int(over.any(axis=0).sum()) + 1, len(found))
        found, largest = found[:count], along[:, :count].sum(axis=1).max(initial=0.0)
        if not count or not largest > 0:
            return False
        own = np.linalg.norm(self._centred @ found.T, axis=0)
        # Rounded to a step s, the D numbers of each row add s^2 D / 12 times the square of a crop's coefficient.
        step = np.sqrt(12.0 * rounding / (found.shape[1] * largest))
        self.extra = self.extra.and_then(Components(found, own, np.full(count, step, found.dtype)))
        return True


def eigenvectors(products: Floats) -> tuple[Floats, Floats]:
    """Return the roots of the eigenvalues of a matrix of products, and its eigenvectors in columns, the largest first.

    Those that are rounding are left out. They are sought in float64, which takes no longer than float32.
    """
    dtype = products.dtype
    if not len(products):
        return np.zeros(0, dtype), products
    squares, vectors = np.linalg.eigh(products.astype(np.float64))
    norms: Any = np.sqrt(np.maximum(squares[::-1], 0.0))
    there = norms > max(float(norms[0]) * float(np.sqrt(np.finfo(dtype).eps)), LEAST)
    return norms[there][:MAX_RANK].astype(dtype), vectors[:, ::-1][:, there][:, :MAX_RANK].astype(dtype)
