"""The tables of many blocks of low-rank labels, decoded together: a call of numpy costs as much as one block's numbers.

`block_of_numbers` decodes a single block. Nothing is filled up to the size of the largest block: in a batch, one image
may keep all classes and have ten components, where most keep a hundred and have three.

Shapes: T blocks, r components and n kept classes of one, so n + 1 entries; F entries of all blocks, K components of all
blocks, R the largest r.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from slg_wds.arrays import F32, F64, I64
from slg_wds.errors import RecordError
from slg_wds.format.counting import before, counted
from slg_wds.format.records.low_rank.blocks import LARGEST_STEP, MAX_SCALE, STEPS_AN_OCTAVE
from slg_wds.format.records.low_rank.codec import BlockShape, bands
from slg_wds.format.records.rice import RiceReader, unfold

MAX_TABLES = (
    1 << 27
)  # numbers of tables that are decoded together, if all were as large as the largest of them


class BlockTables:
    """The tables of some blocks. Entry 0 of a block is "other", entries 1 to n are the classes that are kept.

    Args:
        reader: of the numbers of all blocks.
        shapes: of all blocks, in the order of the reader's strings.
        needed: int64 [T], the numbers of the blocks to decode.

    Attributes:
        kept: int64 [T], n of each block.
        rank: int64 [T], r of each block.

    Raises (its methods):
        RecordError: the numbers of a block are not possible.
    """

    def __init__(self, reader: RiceReader, shapes: Sequence[BlockShape], needed: I64) -> None:
        groups = np.array([3 + one.rank * (1 + len(bands(one.entries))) for one in shapes], np.int64)
        fields = [(one.kept, one.rank, one.step_code, one.entries) for one in map(shapes.__getitem__, needed)]
        self.kept, self.rank, self._step, self._numbers = np.array(fields, np.int64).reshape(-1, 4).T
        self._num_classes = shapes[0].classes if shapes else 0
        self._reader, self._first, self._groups = reader, before(groups)[needed], groups[needed]
        most = 1 + int(self.kept.max(initial=0))
        if (len(needed) + int(self.rank.sum())) * most > MAX_TABLES:
            raise RecordError(f"the tables of low-rank labels would have over {MAX_TABLES} numbers")
        self._block, self._entry = counted(self.kept + 1)
        # All entries but "other" of a block that keeps all classes, in which this one has no number.
        self._there = (self._entry > 0) | (self._numbers > self.kept)[self._block]

    def classes(self) -> I64:
        """The class of each entry, int64 [F]; C for "other"."""
        kept, listed = self._entry > 0, (self._numbers > self.kept)[self._block]
        steps = kept.astype(np.int64)  # where all classes are kept, they are not listed
        steps[kept & listed] += self._read[0]
        classes = np.cumsum(steps)
        classes -= classes[before(self.kept + 1)][self._block] + 1
        classes[~kept] = self._num_classes
        if (classes[kept] >= self._num_classes).any():
            raise RecordError("a class of low-rank labels is not below the number of classes")
        return classes

    @cached_property
    def _read(self) -> list[I64]:
        """All gaps, numbers of means ("other" last of its block), scales, and numbers of rows, by falling mean."""
        listed = self._numbers > self.kept
        block, band = counted(self._groups - 3 - self.rank)
        bands = (self._first + 3 + self.rank)[block] + band
        groups = [self._first[listed], self._first + 1, self._first + 2, bands]
        ends = np.cumsum([self.kept[listed].sum(), self._numbers.sum(), self.rank.sum()])
        return np.split(self._reader.groups(np.concatenate(groups)), ends)

    @cached_property
    def _roots(self) -> F64:
        """The roots of the mean probabilities, float64 [F]; 0 where an entry has no number."""
        last = self._entry == 0
        at = before(self._numbers)[self._block] + np.where(last, self.kept[self._block], self._entry - 1)
        w = np.zeros(len(at))
        w[self._there] = 2.0 * self._read[1][at[self._there]] + 1.0
        lengths = np.sqrt(np.add.reduceat(np.square(w), before(self.kept + 1))) if len(w) else w
        w /= lengths[self._block]
        return w

    def mean(self) -> F32:
        """The logits where all coefficients are 0, float32 [F]; -inf where an entry has no number."""
        mean = np.full(len(self._there), -np.inf, np.float32)
        mean[self._there] = 2.0 * np.log(self._roots[self._there])
        return mean

    def rows(self) -> F32:
        """What a coefficient of 1 adds to each logit: of each block r rows of n + 1, float32; 0 without a number."""
        block, _ = counted(self.rank)
        line, number = counted(self._numbers[block])
        of, entries = block[line], self.kept[block] + 1
        entry = self._by_importance()[before(self._numbers)[of] + number]
        roots = self._roots[before(self.kept + 1)[of] + entry]
        each = np.exp2(self._scales() / -2.0)[line]
        step = (LARGEST_STEP * 2.0 ** (-self._step / STEPS_AN_OCTAVE))[of]
        rows = np.zeros(int(entries.sum()), np.float32)
        rows[before(entries)[line] + entry] = step * (unfold(self._read[3]) * each / roots)
        return rows

    def _scales(self) -> I64:
        scales = self._read[2]
        if scales.max(initial=0) > MAX_SCALE:
            raise RecordError(f"a scale of low-rank labels is over {MAX_SCALE}")
        return scales

    def _by_importance(self) -> I64:
        """The entries of each block in falling order of their mean; of equal ones, the lower number first."""
        block, number = counted(self._numbers)
        entry = np.where(number < self.kept[block], number + 1, 0)
        return entry[np.argsort((block << 32) - self._read[1], kind="stable")]

    def coefficients(self, block: I64, positions: I64) -> F32:
        """Those of crops, float32 [n, c, R], by their blocks and their places among the crops of these, [n, c] each."""
        components = np.arange(self.rank.max(initial=0))
        found = np.zeros((*block.shape, len(components)), np.float32)
        at = np.nonzero((components < self.rank[:, None])[block])
        of = block[at[:2]]
        found[at] = unfold(self._reader.read(self._first[of] + 3 + at[2], positions[at[:2]]))
        return found
