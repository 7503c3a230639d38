"""Which classes get an entry of their own: those of the largest mean; what it costs that the others share one.

Shapes: M crops, C classes, n kept classes, N entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F64, I64, Bools
from slg_wds.labels.low_rank.tables import Table, parts

TINY = 1e-30
LEAST_OTHER = 1e-12
COUNTS_AN_OCTAVE = 2


@dataclass(frozen=True, eq=False)
class Entries:
    """Probabilities over entries: n kept classes, then "other" where there are classes that are not kept.

    Attributes:
        num_classes: C.
        classes: int64 [n], ascending.
        probabilities: float64 [M, N].
        negative_entropy: float64 [M], the sum of p log p over all classes of each crop: other classes count by
            themselves, while a table can only spread "other" evenly over them.
    """

    num_classes: int
    classes: I64
    probabilities: F64
    negative_entropy: F64

    def of(self, crops: Bools) -> Entries:
        """Return the entries of some of the crops, bool [M]."""
        return Entries(
            self.num_classes, self.classes, self.probabilities[crops], self.negative_entropy[crops]
        )

    def divergence(self, table: Table) -> F64:
        """Return KL of each crop to its distribution in a table, "other" spread evenly, float64 [M], nats."""
        crops = parts(*self.probabilities.shape)
        cross = [self._cross(self.probabilities[part], table.of(part)) for part in crops]
        divergence: F64 = self.negative_entropy + np.concatenate(cross)
        return divergence

    def _cross(self, probabilities: F64, table: Table) -> F64:
        """Return the cross entropy of some crops."""
        logits = table.logits()
        expected = np.einsum("ij,ij->i", probabilities, logits)
        cross: F64 = np.log(np.exp(logits, out=logits).sum(axis=1)) - expected
        beyond = self.num_classes - len(self.classes)
        return cross + probabilities[:, -1] * np.log(beyond) if beyond else cross


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of crops: the sum of each one's probabilities as given, and p log p over its classes, float64 [M] each.

    Of classes: p and p log p over the crops, float64 [C] each. p are the probabilities divided by the crop's sum.
    """

    given: F64
    row_plogp: F64
    of_class: F64
    class_plogp: F64

    def of(self, crops: Bools, others: _Sums) -> _Sums:
        """Return the sums of some crops, bool [M], given those of all others."""
        of_class = np.maximum(self.of_class - others.of_class, 0.0)
        return _Sums(
            self.given[crops], self.row_plogp[crops], of_class, self.class_plogp - others.class_plogp
        )


class ClassTable:
    """The distributions of an image's crops, with the classes in order of their mean.

    Args:
        probabilities: float [M, C], rows that sum to about 1. They are divided by their sums.
        sums: of these, if they are known.
    """

    def __init__(self, probabilities: NDArray[np.floating], sums: _Sums | None = None) -> None:
        self._probabilities = probabilities
        self._sums = sums or _sums(probabilities)
        self.crops, self.classes = probabilities.shape
        means = self._sums.of_class / self.crops
        self.order = np.argsort(-means, kind="stable")
        self.counts = _counts(self.classes)
        roots = np.add.reduceat(np.sqrt(means[self.order]), self._firsts)
        self.roots = roots / np.diff(self.counts, prepend=0)

    def split(self, some: Bools) -> tuple[ClassTable, ClassTable]:
        """Return the tables of some of the crops, bool [M], and of the others. Only one is summed anew."""
        if 2 * some.sum() > self.crops:
            return self.split(~some)[::-1]
        first = ClassTable(self._probabilities[some])
        return first, ClassTable(self._probabilities[~some], self._sums.of(~some, first._sums))

    @property
    def _firsts(self) -> I64:
        return np.concatenate([[0], self.counts[:-1]])

    @cached_property
    def lost(self) -> F64:
        """The mean over crops of what each number of kept classes costs, float64 [K], nats."""
        beyond = self.classes - self.counts
        cost = np.zeros(len(beyond))
        for crops in parts(self.crops, self.classes):
            part = self._probabilities[crops]
            kept = np.add.reduceat(np.take(part, self.order, axis=1), self._firsts, axis=1, dtype=np.float64)
            kept /= self._sums.given[crops, None]
            other = np.maximum(1.0 - np.cumsum(kept, axis=1), LEAST_OTHER)
            cost += (other * np.log(other / np.maximum(beyond, 1))).sum(axis=0)
        plogp = self._sums.class_plogp[self.order]
        rest = plogp.sum() - np.cumsum(plogp)[self.counts - 1]
        lost: F64 = np.where(beyond > 0, np.maximum(rest - cost, 0.0) / self.crops, 0.0)
        return lost

    def keep(self, count: int) -> Entries:
        """Return the entries where the `count` classes of the largest mean are kept."""
        classes = np.sort(self.order[:count])
        all_kept = count == self.classes
        entries = np.empty((self.crops, count + (not all_kept)))
        for crops in parts(self.crops, self.classes):
            kept = np.take(self._probabilities[crops], classes, axis=1)
            np.divide(kept, self._sums.given[crops, None], out=entries[crops, :count])
        if not all_kept:
            entries[:, count] = np.maximum(1.0 - entries[:, :count].sum(axis=1), LEAST_OTHER)
        return Entries(self.classes, classes, entries, self._sums.row_plogp)


def _sums(probabilities: NDArray[np.floating]) -> _Sums:
    crops, classes = probabilities.shape
    found = _Sums(np.empty(crops), np.empty(crops), np.zeros(classes), np.zeros(classes))
    for some in parts(crops, classes):
        exact = probabilities[some].astype(np.float64)
        found.given[some] = given = exact.sum(axis=1)
        exact /= given[:, None]
        plogp = np.log(np.maximum(exact, TINY))
        plogp *= exact
        found.row_plogp[some] = plogp.sum(axis=1)
        found.of_class[:] += exact.sum(axis=0)
        found.class_plogp[:] += plogp.sum(axis=0)
    return found


@lru_cache(64)
def _counts(classes: int) -> I64:
    """Return the numbers of kept classes that are tried: half-octaves from 2 on, and all classes, int64 [K]."""
    tried = {round(2.0 ** (i / COUNTS_AN_OCTAVE)) for i in range(COUNTS_AN_OCTAVE, 64)}
    return np.array([*sorted(count for count in tried if count < classes), classes])
