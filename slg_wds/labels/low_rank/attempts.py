"""The tables that are tried for some crops, each of which is made once, however often it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slg_wds.labels.low_rank.choice import MOST_RANK, Choice, choose
from slg_wds.labels.low_rank.classes import ClassTable, Entries
from slg_wds.labels.low_rank.decomposition import Decomposition, decompose, refined
from slg_wds.labels.low_rank.fitting import Fitted, fit

PROBE = 0.6  # of the target may be lost by the classes whose components foretell those of other choices


class Kept:
    """The entries of a number of kept classes, the components of their log-probabilities, and tables of these.

    Args:
        entries: the entries.
        like: the components of another number of kept classes of the same crops, if there are some.
    """

    def __init__(self, entries: Entries, like: Decomposition | None = None) -> None:
        self.entries = entries
        self._like = like
        self._fitted: dict[int, Fitted] = {}

    @cached_property
    def decomposition(self) -> Decomposition:
        """All components."""
        return decompose(self.entries.probabilities)

    @cached_property
    def _near(self) -> Decomposition:
        """Only the components that another number of kept classes has: found from those, they take less time."""
        if self._like is None:
            return self.decomposition
        return refined(self.entries.probabilities, self._like)

    @property
    def most_rank(self) -> int:
        """The most components that are tried."""
        crops, entries = self.entries.probabilities.shape
        return int(min(crops, entries, MOST_RANK))

    def fitted(self, rank: int) -> Fitted:
        """Return the table of `rank` components, or of as many as there are."""
        if rank not in self._fitted:
            enough = rank <= len(self._near.variances)
            self._fitted[rank] = fit(self.entries, self._near if enough else self.decomposition, rank)
        return self._fitted[rank]


class Attempts:
    """What to try for some crops.

    Args:
        table: the distributions of these crops.
    """

    def __init__(self, table: ClassTable) -> None:
        self.table = table
        self._kept: dict[int, Kept] = {}
        self._splits: dict[bytes, tuple[Attempts, Attempts]] = {}

    def split(self, some: NDArray[np.bool_]) -> tuple[Attempts, Attempts]:
        """Return those for some of the crops, bool [M], and those for the others."""
        key = some.tobytes()
        if key not in self._splits:
            first, rest = self.table.split(some)
            self._splits[key] = Attempts(first), Attempts(rest)
        return self._splits[key]

    def probe(self, target: float) -> Kept:
        """Return the entries and components from which those of other numbers of classes are foretold."""
        first = int(np.argmax(self.table.lost <= PROBE * target))  # all classes lose nothing
        return self._keep(int(self.table.counts[first]), None)

    def choice(self, target: float) -> Choice:
        """Return what to try first for a mean KL."""
        return choose(self.table, self.probe(target).decomposition, target)

    def each(self, target: float) -> Iterator[tuple[Fitted, float]]:
        """Yield what to try (table, step): the foretold choice, then about twice the components each time."""
        choice = self.choice(target)
        kept = self._keep(choice.kept, self.probe(target).decomposition)
        rank = choice.rank
        while True:
            yield kept.fitted(rank), choice.step
            if rank >= kept.most_rank:
                return
            rank = min(2 * rank + 1, kept.most_rank)

    def _keep(self, count: int, like: Decomposition | None) -> Kept:
        if count not in self._kept:
            self._kept[count] = Kept(self.table.keep(count), like)
        return self._kept[count]
