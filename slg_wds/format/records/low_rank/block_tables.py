"""The tables of many blocks of low-rank labels, decoded together: a call of numpy costs as much as one block's numbers.

`block_of_numbers` decodes a single block.

Shapes: T blocks, n kept classes of a block, N entries, r components; E = 1 + the largest n, R the largest r.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank.blocks import LARGEST_STEP, MAX_SCALE, STEPS_AN_OCTAVE
from slg_wds.format.records.low_rank.codec import BlockShape, bands
from slg_wds.format.records.rice import RiceReader, unfold

Ints = NDArray[np.int64]
F32 = NDArray[np.float32]

MAX_TABLES = 1 << 27  # numbers of the tables that are decoded together, filled up to the largest of them


class BlockTables:
    """The tables of some blocks. Entry 0 is "other", if some classes are not kept; entries 1 to n are those that are.

    Args:
        reader: of the numbers of all blocks.
        shapes: of all blocks, in the order of the reader's strings.
        needed: int64 [T], the numbers of the blocks to decode.

    Raises (its methods):
        RecordError: the numbers of a block are not possible.
    """

    def __init__(self, reader: RiceReader, shapes: Sequence[BlockShape], needed: Ints) -> None:
        groups = np.array([3 + one.rank * (1 + len(bands(one.entries))) for one in shapes], np.int64)
        fields = [(one.kept, one.rank, one.step_code, one.entries) for one in map(shapes.__getitem__, needed)]
        self.kept, self._rank, self._step, self._entries = np.array(fields, np.int64).reshape(-1, 4).T
        self._num_classes = shapes[0].classes if shapes else 0
        self._reader, self._first, self._groups = reader, (np.cumsum(groups) - groups)[needed], groups[needed]
        most, rank = int(self.kept.max(initial=0)), int(self._rank.max(initial=0))
        if len(needed) * (1 + most) * (1 + rank) > MAX_TABLES:
            raise RecordError(f"the tables of low-rank labels would have over {MAX_TABLES} numbers")
        self._components, column = np.arange(rank), np.arange(1 + most)
        self._there = (column <= self.kept[:, None]) & ((column > 0) | (self._entries > self.kept)[:, None])

    def classes(self) -> Ints:
        """The class of each entry, int64 [T, E]; C where there is none, and for "other"."""
        kept, listed = self._there.copy(), self._entries > self.kept
        kept[:, 0] = False
        steps = np.zeros(kept.shape, np.int64)
        steps[kept] = 1  # where all classes are kept, they are not listed
        steps[kept & listed[:, None]] += self._reader.groups(self._first[listed])
        classes = np.cumsum(steps, axis=1) - 1
        if (classes[kept] >= self._num_classes).any():
            raise RecordError("a class of low-rank labels is not below the number of classes")
        classes[~kept] = self._num_classes
        return classes

    @cached_property
    def _base(self) -> Ints:
        """The integers of the mean, int64 [T, E]; -1 where there is no entry."""
        base = np.full(self._there.shape, -1)
        t, number = _counted(self._entries)
        base[t, np.where(number == self.kept[t], 0, number + 1)] = self._reader.groups(self._first + 1)
        return base

    @cached_property
    def _roots(self) -> NDArray[np.float64]:
        """The roots of the mean probabilities, float64 [T, E]; 0 where there is no entry."""
        w = np.where(self._there, 2.0 * self._base + 1.0, 0.0)
        w /= np.sqrt(np.square(w).sum(axis=1, keepdims=True))
        return w

    def mean(self) -> F32:
        """The logits where all coefficients are 0, float32 [T, E]; -inf where there is no entry."""
        mean = np.full(self._there.shape, -np.inf, np.float32)
        mean[self._there] = 2.0 * np.log(self._roots[self._there])
        return mean

    def rows(self) -> F32:
        """What a coefficient of 1 adds to each logit, float32 [T, R, E]; 0 where there is no entry or component."""
        rows = np.zeros((len(self._rank), len(self._components), self._there.shape[1]), np.float32)
        # Line after line of the bases, as they are stored: components of blocks, each with its entries by importance.
        block, component = _counted(self._rank)
        order = self._by_importance()
        there = np.arange(order.shape[1]) < self._entries[block, None]
        at = ((block * rows.shape[1] + component)[:, None] * rows.shape[2] + order[block])[there]
        roots = np.take_along_axis(self._roots, order, axis=1)[block][there]
        each = np.repeat(np.exp2(self._scales() / -2.0), self._entries[block])
        step = (LARGEST_STEP * 2.0 ** (-self._step / STEPS_AN_OCTAVE))[block]
        rows.reshape(-1)[at] = np.repeat(step, self._entries[block]) * (self._basis() * each / roots)
        return rows

    def _basis(self) -> Ints:
        counts = self._groups - 3 - self._rank
        block, band = _counted(counts)
        return unfold(self._reader.groups((self._first + 3 + self._rank)[block] + band))

    def _scales(self) -> Ints:
        scales = self._reader.groups(self._first + 2)
        if scales.max(initial=0) > MAX_SCALE:
            raise RecordError(f"a scale of low-rank labels is over {MAX_SCALE}")
        return scales

    def _by_importance(self) -> Ints:
        """The entries in falling order of their mean, of equal ones the lower number first, int64 [T, E]."""
        width = self._there.shape[1]
        number = (
            np.arange(width) - 1 + width * (np.arange(width) == 0)
        )  # "other" is the last entry of its block
        return np.argsort(number - self._base * (width + 1), axis=1)

    def coefficients(self, block: Ints, positions: Ints) -> F32:
        """Those of crops, float32 [n, c, R], by their blocks and their places among the crops of these, [n, c] each."""
        found = np.zeros((*block.shape, len(self._components)), np.float32)
        at = np.nonzero((self._components < self._rank[:, None])[block])
        of = block[at[:2]]
        found[at] = unfold(self._reader.read(self._first[of] + 3 + at[2], positions[at[:2]]))
        return found


def _counted(counts: Ints) -> tuple[Ints, Ints]:
    """Count each of [n] up to its number: which it is, and the count from 0 on, int64 [sum of counts] each."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
