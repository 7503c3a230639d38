"""Which classes get an entry of their own: those of the largest mean; what it costs that the others share one.

Shapes: M crops, C classes, n kept classes, N entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TINY = 1e-30
LEAST_OTHER = 1e-12
COUNTS_AN_OCTAVE = 2
CHUNK = 1 << 18  # probabilities that are widened to float64 at a time


@dataclass(frozen=True, eq=False)
class Entries:
    """Probabilities over entries: n kept classes, then "other" where there are classes that are not kept.

    Attributes:
        num_classes: C.
        classes: int64 [n], ascending.
        probabilities: float64 [M, N].
        lost: float64 [M], nats: what it costs each crop that its other classes share evenly.
    """

    num_classes: int
    classes: Ints
    probabilities: Floats
    lost: Floats

    def of(self, crops: NDArray[np.bool_]) -> Entries:
        """Return the entries of some of the crops, bool [M]."""
        return Entries(self.num_classes, self.classes, self.probabilities[crops], self.lost[crops])

    @cached_property
    def negative_entropy(self) -> Floats:
        """Sum of p log p of each crop, float64 [M]."""
        entropy: Floats = plogp(self.probabilities).sum(axis=1)
        return entropy

    def divergence(self, entries: Floats) -> Floats:
        """Return KL of each crop from its distribution to the one of these entries [M, N], float64 [M], nats."""
        logs = np.log(np.maximum(entries, TINY))
        logs *= self.probabilities
        divergence: Floats = self.negative_entropy - logs.sum(axis=1) + self.lost
        return divergence


class ClassTable:
    """The distributions of an image's crops, with the classes in order of their mean.

    Args:
        probabilities: float [M, C], rows that sum to about 1. They are divided by their sums.
    """

    def __init__(self, probabilities: NDArray[np.floating]) -> None:
        self._probabilities = probabilities
        self.crops, self.classes = probabilities.shape
        self._sums = np.concatenate([part.sum(axis=1, dtype=np.float64) for _, part in self._parts()])
        means, self._row_plogp, class_plogp = (
            np.zeros(self.classes),
            np.zeros(self.crops),
            np.zeros(self.classes),
        )
        for crops, _ in self._parts():
            exact = self._exact(crops)
            means += exact.sum(axis=0)
            each = plogp(exact)
            class_plogp += each.sum(axis=0)
            self._row_plogp[crops] = each.sum(axis=1)
        self.order = np.argsort(-means, kind="stable")
        self.means = means[self.order] / self.crops
        self.counts = [*_counts(self.classes), self.classes]
        self.lost = self._mean_lost(class_plogp[self.order] / self.crops)

    def of(self, crops: NDArray[np.bool_]) -> ClassTable:
        """Return the table of some of the crops, bool [M]."""
        return ClassTable(self._probabilities[crops])

    def _parts(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Cut the crops into parts whose float64 copies are small."""
        step = max(1, CHUNK // self.classes)
        for start in range(0, self.crops, step):
            crops = slice(start, start + step)
            yield crops, self._probabilities[crops]

    def _exact(self, crops: slice, classes: Ints | slice = slice(None)) -> Floats:
        exact: Floats = self._probabilities[crops][:, classes].astype(np.float64)
        exact /= self._sums[crops, None]
        return exact

    def _mean_lost(self, class_plogp: Floats) -> Floats:
        """Return the mean over crops of what each number of kept classes costs, float64 [len(counts)], nats."""
        counts = np.array(self.counts)
        beyond = self.classes - counts
        firsts = np.array([0, *self.counts[:-1]])
        cost = np.zeros(len(counts))
        for crops, _ in self._parts():
            kept = np.add.reduceat(self._exact(crops, self.order), firsts, axis=1)
            other = np.maximum(1.0 - np.cumsum(kept, axis=1), LEAST_OTHER)
            cost += (other * np.log(other / np.maximum(beyond, 1))).sum(axis=0)
        rest = class_plogp.sum() - np.cumsum(class_plogp)[counts - 1]
        return np.where(beyond > 0, np.maximum(rest - cost / self.crops, 0.0), 0.0)

    def keep(self, count: int) -> Entries:
        """Return the entries where the `count` classes of the largest mean are kept."""
        classes = np.sort(self.order[:count])
        all_kept = count == self.classes
        entries = np.empty((self.crops, count + (not all_kept)))
        for crops, _ in self._parts():
            entries[crops, :count] = self._exact(crops, classes)
        if all_kept:
            return Entries(self.classes, classes, entries, np.zeros(self.crops))
        kept = entries[:, :count]
        other = entries[:, count] = np.maximum(1.0 - kept.sum(axis=1), LEAST_OTHER)
        rest = self._row_plogp - plogp(kept).sum(axis=1)
        lost = rest - other * np.log(other / (self.classes - count))
        return Entries(self.classes, classes, entries, np.maximum(lost, 0.0))


def plogp(probabilities: Floats) -> Floats:
    """Return p log p, 0 where p is 0."""
    result: Floats = np.log(np.maximum(probabilities, TINY))
    result *= probabilities
    return result


def _counts(classes: int) -> list[int]:
    """Return the numbers of kept classes that are tried: half-octaves from 2 on, below all classes."""
    tried = {round(2.0 ** (i / COUNTS_AN_OCTAVE)) for i in range(COUNTS_AN_OCTAVE, 64)}
    return sorted(count for count in tried if count < classes)
