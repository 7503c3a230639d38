"""The tables that are tried for some crops, each of which is made once, however often it is looked at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from slg_wds.labels.low_rank.choice import MOST_RANK, Choice, choose
from slg_wds.labels.low_rank.classes import ClassTable, Entries
from slg_wds.labels.low_rank.fitting import Table, decompose, fit

Ints = NDArray[np.int64]

PROBE = 0.6  # of the target may be lost by the classes whose components foretell those of other choices


class Kept:
    """The entries of a number of kept classes, the components of their log-probabilities, and tables of these."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.decomposition = decompose(entries.probabilities)
        self._tables: dict[int, Table] = {}

    @property
    def most_rank(self) -> int:
        """The most components that there are."""
        return len(self.decomposition.variances)

    def table(self, rank: int) -> Table:
        """Return the table of `rank` components, fitted."""
        if rank not in self._tables:
            self._tables[rank] = fit(self.entries.probabilities, self.decomposition, rank)
        return self._tables[rank]


class Attempts:
    """What to try for some crops.

    Args:
        table: the distributions of these crops.
    """

    def __init__(self, table: ClassTable) -> None:
        self.table = table
        self._kept: dict[int, Kept] = {}

    def of(self, crops: NDArray[np.bool_]) -> Attempts:
        """Return those for some of the crops, bool [M]."""
        return Attempts(self.table.of(crops))

    def kept(self, count: int) -> Kept:
        """Return the entries where `count` classes are kept."""
        if count not in self._kept:
            self._kept[count] = Kept(self.table.keep(count))
        return self._kept[count]

    def probe(self, target: float) -> Kept:
        """Return the entries and components from which those of other numbers of classes are foretold."""
        costs = zip(self.table.counts, self.table.lost, strict=True)
        return self.kept(next(count for count, lost in costs if lost <= PROBE * target))

    def choice(self, target: float) -> Choice:
        """Return what to try first for a mean KL."""
        return choose(self.table, self.probe(target).decomposition.variances, target)

    def each(self, target: float) -> Iterator[tuple[Kept, int, float]]:
        """Yield what to try (entries, rank, step): the foretold choice, then about twice the components each time."""
        choice = self.choice(target)
        kept = self.kept(choice.kept)
        most = min(kept.most_rank, MOST_RANK)
        rank = min(choice.rank, kept.most_rank)
        while True:
            yield kept, rank, choice.step
            if rank == most:
                return
            rank = min(2 * rank + 1, most)
