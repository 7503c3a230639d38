"""A few crops of many low-rank records, decoded at once, for batches: padded float arrays, ready for a device.

Shapes: n records, c crops of each, T blocks that these crops need, E entries and R components of the largest block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.low_rank.block_tables import BlockTables
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock
from slg_wds.format.records.low_rank.codec import PackedLowRank
from slg_wds.format.records.rice import RiceReader

Ints = NDArray[np.int64]
F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LowRankRows:
    """Crops of low-rank labels.

    Crop (i, j) of block b = block[i, j] has, over the entries of the block, the logits
    mean[b] + coefficients[i, j] @ rows[b]. Entry 0 is "other", which all classes that are not kept share evenly.

    Attributes:
        num_classes: C.
        classes: int64 [T, E], the class of each entry; C for entry 0 and for padding.
        kept: int64 [T], how many classes have entries of their own: entries 1 to kept.
        mean: float32 [T, E]; -inf for padding, and for entry 0 of a block that keeps all classes.
        rows: float32 [T, R, E]; 0 for padding.
        block: int64 [n, c], the block of each crop.
        coefficients: float32 [n, c, R]; 0 beyond the rank of the crop's block.
    """

    num_classes: int
    classes: Ints
    kept: Ints
    mean: F32
    rows: F32
    block: Ints
    coefficients: F32

    @classmethod
    def of(cls, labels: LowRank) -> LowRankRows:
        """Return all crops of decoded labels as those of one record."""
        coefficients = labels.coefficients.astype(np.float32)
        return _padded_rows(labels.blocks, labels.block_of[None], coefficients[None])

    @classmethod
    def joined(cls, parts: Sequence[LowRankRows]) -> LowRankRows:
        """Join rows of further records; narrower parts are padded."""
        if len(parts) == 1:
            return parts[0]
        E, R = max(part.mean.shape[1] for part in parts), max(part.rows.shape[1] for part in parts)
        firsts = np.cumsum([0, *(len(part.kept) for part in parts)])
        padded = [part._padded(E, R) for part in parts]
        return cls(
            num_classes=parts[0].num_classes,
            classes=np.concatenate([part.classes for part in padded]),
            kept=np.concatenate([part.kept for part in padded]),
            mean=np.concatenate([part.mean for part in padded]),
            rows=np.concatenate([part.rows for part in padded]),
            block=np.concatenate([part.block + first for part, first in zip(padded, firsts, strict=False)]),
            coefficients=np.concatenate([part.coefficients for part in padded]),
        )

    def _padded(self, entries: int, components: int) -> LowRankRows:
        more, further = entries - self.mean.shape[1], components - self.rows.shape[1]
        return LowRankRows(
            self.num_classes,
            np.pad(self.classes, ((0, 0), (0, more)), constant_values=self.num_classes),
            self.kept,
            np.pad(self.mean, ((0, 0), (0, more)), constant_values=-np.inf),
            np.pad(self.rows, ((0, 0), (0, further), (0, more))),
            self.block,
            np.pad(self.coefficients, ((0, 0), (0, 0), (0, further))),
        )


def decode_low_rank_rows(records: Sequence[PackedLowRank], rows: Ints) -> LowRankRows:
    """Decode some crops of records, and only what these need.

    Args:
        records: [n], at least one, over the same classes.
        rows: int64 [n, c], numbers of the crops of each record.

    Raises:
        RecordError: a record's numbers are not possible.
    """
    reader = RiceReader([one.code for one in records], [one.lengths for one in records])
    first = np.cumsum([0, *(len(one.shapes) for one in records)])[:-1, None]
    number = np.stack([one.block_of[at] for one, at in zip(records, rows, strict=True)]) + first
    needed, block = np.unique(number, return_inverse=True)
    block = block.reshape(number.shape)
    tables = BlockTables(reader, [shape for one in records for shape in one.shapes], needed)
    positions = [_positions(one, at) for one, at in zip(records, rows, strict=True)]
    return LowRankRows(
        num_classes=records[0].num_classes,
        classes=tables.classes(),
        kept=tables.kept,
        mean=tables.mean(),
        rows=tables.rows(),
        block=block,
        coefficients=tables.coefficients(block, np.stack(positions)),
    )


def _positions(one: PackedLowRank, crops: Ints) -> Ints:
    """Return the position of each crop [c] among the crops of its block."""
    if len(one.shapes) == 1:
        return crops
    order = np.argsort(one.block_of, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    firsts = np.cumsum([0, *(shape.crops for shape in one.shapes)])
    positions: Ints = place[crops] - firsts[one.block_of[crops]]
    return positions


def _padded_rows(blocks: Sequence[LowRankBlock], block: Ints, coefficients: F32) -> LowRankRows:
    C = blocks[0].num_classes if blocks else 0
    E = 1 + max((len(one.classes) for one in blocks), default=0)
    T, R = len(blocks), coefficients.shape[-1]
    classes, mean = np.full((T, E), C, np.int64), np.full((T, E), -np.inf, np.float32)
    rows = np.zeros((T, R, E), np.float32)
    for t, one in enumerate(blocks):
        n, logits, directions = len(one.classes), one.mean, one.rows
        classes[t, 1 : n + 1] = one.classes
        mean[t, 1 : n + 1] = logits[:n]
        rows[t, : one.rank, 1 : n + 1] = directions[:, :n]
        if n < C:
            mean[t, 0] = logits[n]
            rows[t, : one.rank, 0] = directions[:, n]
    kept = np.array([len(one.classes) for one in blocks], np.int64)
    return LowRankRows(C, classes, kept, mean, rows, block, coefficients)
