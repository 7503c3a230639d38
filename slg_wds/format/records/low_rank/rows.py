"""A few crops of many low-rank records, decoded at once, for batches: float arrays, ready for a device.

Shapes: n records, c crops of each, T blocks that these crops need, F entries of all blocks, R components of the block
that has most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F32, I64
from slg_wds.format.counting import before
from slg_wds.format.records.low_rank.block_tables import BlockTables
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock
from slg_wds.format.records.low_rank.codec import PackedLowRank
from slg_wds.format.records.rice import RiceReader


@dataclass(frozen=True, eq=False)
class LowRankRows:
    """Crops of low-rank labels.

    A block has n + 1 entries and r components. Crop (i, j) of block b = block[i, j] has, over the entries of the block,
    the logits mean + coefficients[i, j] @ rows. Entry 0 is "other", which all classes that are not kept share evenly.
    The arrays have what belongs to each block, one block after the other.

    Attributes:
        num_classes: C.
        kept: int64 [T], n, how many classes have entries of their own: entries 1 to n.
        rank: int64 [T], r.
        classes: int64 [F], the class of each entry; C for entry 0.
        mean: float32 [F]; -inf for entry 0 of a block that keeps all classes.
        rows: float32 [sum of r (n + 1)], of each block r rows of n + 1.
        block: int64 [n, c], the block of each crop.
        coefficients: float32 [n, c, R]; 0 beyond the rank of the crop's block.
    """

    num_classes: int
    kept: I64
    rank: I64
    classes: I64
    mean: F32
    rows: F32
    block: I64
    coefficients: F32

    @classmethod
    def of(cls, labels: LowRank) -> LowRankRows:
        """Return all crops of decoded labels as those of one record."""
        blocks = labels.blocks
        tables = [_tables(block) for block in blocks]
        return cls(
            num_classes=blocks[0].num_classes if blocks else 0,
            kept=np.array([len(block.classes) for block in blocks], np.int64),
            rank=np.array([block.rank for block in blocks], np.int64),
            classes=np.concatenate([np.zeros(0, np.int64), *(one[0] for one in tables)]),
            mean=np.concatenate([np.zeros(0, np.float32), *(one[1] for one in tables)]),
            rows=np.concatenate([np.zeros(0, np.float32), *(one[2] for one in tables)]),
            block=labels.block_of[None],
            coefficients=labels.coefficients.astype(np.float32)[None],
        )

    def __getitem__(self, some: slice) -> LowRankRows:
        """The crops of some of the records, which follow each other, with their own blocks alone."""
        block = self.block[some]
        if not block.size:
            return replace(self, block=block, coefficients=self.coefficients[some])
        blocks = slice(int(block.min()), int(block.max()) + 1)
        kept, rank = self.kept[blocks], self.rank[blocks]
        entries = _span(self.kept + 1, blocks)
        return LowRankRows(
            num_classes=self.num_classes,
            kept=kept,
            rank=rank,
            classes=self.classes[entries],
            mean=self.mean[entries],
            rows=self.rows[_span(self.rank * (self.kept + 1), blocks)],
            block=block - blocks.start,
            coefficients=self.coefficients[some, :, : rank.max()],
        )

    @classmethod
    def joined(cls, parts: Sequence[LowRankRows]) -> LowRankRows:
        """Join rows of further records. Coefficients of parts with fewer components are filled up with 0."""
        if len(parts) == 1:
            return parts[0]
        firsts, most = before(np.array([len(part.kept) for part in parts])), max(map(_width, parts))
        tables = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("kept", "rank", "classes", "mean", "rows")
        }
        return cls(
            num_classes=parts[0].num_classes,
            **tables,
            block=np.concatenate([part.block + first for part, first in zip(parts, firsts, strict=True)]),
            coefficients=np.concatenate(
                [np.pad(part.coefficients, ((0, 0), (0, 0), (0, most - _width(part)))) for part in parts]
            ),
        )


def decode_low_rank_rows(records: Sequence[PackedLowRank], rows: I64) -> LowRankRows:
    """Decode some crops of records, and only what these need.

    Args:
        records: [n], at least one, over the same classes.
        rows: int64 [n, c], numbers of the crops of each record.

    Raises:
        RecordError: a record's numbers are not possible.
    """
    reader = RiceReader([one.code for one in records], [one.lengths for one in records])
    shapes = [shape for one in records for shape in one.shapes]
    block_of = _numbered_through(records)
    places = before(np.array([len(one.block_of) for one in records]))[:, None] + rows
    needed, block = np.unique(block_of[places], return_inverse=True)
    block = block.reshape(rows.shape)
    tables = BlockTables(reader, shapes, needed)
    return LowRankRows(
        num_classes=records[0].num_classes,
        kept=tables.kept,
        rank=tables.rank,
        classes=tables.classes(),
        mean=tables.mean(),
        rows=tables.rows(),
        block=block,
        coefficients=tables.coefficients(block, _positions(block_of, len(shapes))[places]),
    )


def _numbered_through(records: Sequence[PackedLowRank]) -> NDArray[Any]:
    """Return the block of every crop of all records, its number among the blocks of all."""
    firsts = before(np.array([len(one.shapes) for one in records]))
    block_of = np.concatenate([one.block_of for one in records]).astype(np.int64)
    block_of += np.repeat(firsts, [len(one.block_of) for one in records])
    few = firsts[-1] + len(records[-1].shapes) <= 1 << 16
    return block_of.astype(np.uint16) if few else block_of  # which numpy sorts many times as fast


def _positions(block_of: NDArray[Any], blocks: int) -> I64:
    """Return the position of every crop among the crops of its block, for blocks that are numbered through."""
    order = np.argsort(block_of, kind="stable")
    firsts = before(np.bincount(block_of, minlength=blocks))
    positions = np.empty(len(order), np.int64)
    positions[order] = np.arange(len(order)) - firsts[block_of[order]]
    return positions


def _span(sizes: I64, some: slice) -> slice:
    """Where some of the things lie that stand one after the other and are of these sizes."""
    first = int(sizes[: some.start].sum())
    return slice(first, first + int(sizes[some].sum()))


def _width(part: LowRankRows) -> int:
    return int(part.coefficients.shape[-1])


def _tables(block: LowRankBlock) -> tuple[I64, F32, F32]:
    """The classes [n + 1], the mean [n + 1] and the rows [r (n + 1)] of a block, "other" first."""
    n, C = len(block.classes), block.num_classes
    mean, rows = np.full(n + 1, -np.inf, np.float32), np.zeros((block.rank, n + 1), np.float32)
    mean[1:], rows[:, 1:] = block.mean[:n], block.rows[:, :n]
    if n < C:
        mean[0], rows[:, 0] = block.mean[n], block.rows[:, n]
    return np.concatenate([[C], block.classes]), mean, rows.reshape(-1)
