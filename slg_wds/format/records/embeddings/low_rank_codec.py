"""Low-rank embeddings <-> the columns of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F32, I64
from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.columns import decode_column, encode_column
from slg_wds.format.records.embeddings.low_rank import (
    MAX_LENGTH,
    MAX_RANK,
    MAX_SCALE,
    EmbeddingBlock,
    LowRankEmbedding,
    StatedCosine,
    vectors_of,
)
from slg_wds.format.records.rice import fold, unfold

MAX_BLOCKS = 64  # of an embedding of a record
MAX_LOW_RANK_NUMBERS = 1 << 25  # of the bases and coefficients of a record
_LEVEL = 1  # of zstd: level 12 takes 5% fewer bytes, and twelve times as long, a third of all time of coding
_WIDTHS = {"lengths": 2, "scales": 1, "mean": 4, "basis": 4, "coefficients": 4}  # bytes of a number, at most


@dataclass(frozen=True)
class BlockSizes:
    """How many numbers the blocks of an embedding have.

    Attributes:
        dim: D.
        crops: m of each block.
        ranks: r of each block.
        cosine: what is stated of all crops.
    """

    dim: int
    crops: tuple[int, ...]
    ranks: tuple[int, ...]
    cosine: StatedCosine

    @property
    def numbers(self) -> int:
        """The numbers of bases and coefficients."""
        return sum((m + self.dim) * r for m, r in zip(self.crops, self.ranks, strict=True))

    def of_blocks(self) -> list[dict[str, int]]:
        """How many numbers of each column every block has, by the beginning of the column's name."""
        return [
            {"lengths": m, "scales": 1 + r, "mean": self.dim, "basis": self.dim * r, "coefficients": m * r}
            for m, r in zip(self.crops, self.ranks, strict=True)
        ]

    def counts(self) -> dict[str, int]:
        """How many numbers each column has, by the beginning of its name."""
        blocks = self.of_blocks()
        return {name: sum(one[name] for one in blocks) for name in _WIDTHS}


def low_rank_field(one: LowRankEmbedding) -> list[Any]:
    """Return what the field `lowrank` of a record says of an embedding. Raises RecordError for crops out of order."""
    if (np.diff(one.block_of) < 0).any():
        raise RecordError("the crops of a block of a low-rank embedding do not stand together")
    there, crops = np.unique(one.block_of, return_counts=True)
    ranks = [one.blocks[number].rank for number in there.tolist()]
    return [float(one.cosine.mean), float(one.cosine.worst), crops.tolist(), ranks]


def low_rank_columns(one: LowRankEmbedding, number: int) -> dict[str, list[bytes]]:
    """Encode the columns of embedding `number` of a record. A block of which no crop is left is not stored."""
    there = np.unique(one.block_of).tolist()
    blocks = [one.blocks[at] for at in there]
    coefficients = [
        one.coefficients[one.block_of == at, : block.rank] for at, block in zip(there, blocks, strict=True)
    ]
    columns = {
        "lengths": encode_column(one.lengths.astype(np.uint32)),
        "scales": encode_column(_flat([block.scales for block in blocks]).astype(np.uint32)),
        "mean": _signed_column([block.mean for block in blocks]),
        "basis": _signed_column([block.basis for block in blocks]),
        "coefficients": _signed_column(coefficients),
    }
    return {f"{name}_{number}": planes for name, planes in columns.items()}


def _flat(parts: Sequence[I64]) -> I64:
    return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0, np.int64)


def _signed_column(parts: Sequence[I64]) -> list[bytes]:
    return encode_column(fold(_flat(parts)).astype(np.uint32), level=_LEVEL)


def check_low_rank_embedding(one: LowRankEmbedding) -> None:
    """Check the arrays of an embedding before they are encoded. Raises RecordError."""
    shapes = {(len(block.scales) - 1, *block.basis.shape) for block in one.blocks}
    if any(rank != width or dim != one.dim for rank, dim, width in shapes):
        raise RecordError("a block of a low-rank embedding does not fit the others")
    if one.block_of.shape != one.lengths.shape or one.coefficients.shape[:1] != one.lengths.shape:
        raise RecordError("lengths and coefficients of a low-rank embedding are not of the same crops")
    if len(one) and not 0 <= one.block_of.min() <= one.block_of.max() < len(one.blocks):
        raise RecordError("a crop of a low-rank embedding is of no block")
    for block in one.blocks:
        check_codes(block.scales, one.lengths)


def check_codes(scales: NDArray[Any], lengths: NDArray[Any]) -> None:
    """Check scales and codes of lengths. Raises RecordError."""
    for codes, most in ((scales, MAX_SCALE), (lengths, MAX_LENGTH)):
        if codes.size and not 0 <= codes.min() <= codes.max() <= most:
            raise RecordError(f"a scale or length of a low-rank embedding is not within 0 to {most}")


def block_sizes(stated: Any, num_crops: int, dim: int) -> BlockSizes:
    """Read what the field `lowrank` says of an embedding.

    Args:
        stated: the entry of the embedding.
        num_crops: M.
        dim: D.

    Raises:
        RecordError: it does not describe a low-rank embedding of so many crops.
    """
    if type(stated) is not list or [type(part) for part in stated] != [float, float, list, list]:
        raise RecordError(f"a low-rank embedding is described by {brief(stated)}")
    mean, worst, crops, ranks = stated
    if not -1.0 <= mean <= 1.0 or not -1.0 <= worst <= 1.0:
        raise RecordError("a cosine of a low-rank embedding is not within -1 to 1")
    if len(crops) != len(ranks) or len(crops) > MAX_BLOCKS or {*map(type, [*crops, *ranks])} - {int}:
        raise RecordError("a low-rank embedding does not have a rank for each block")
    if any(m < 1 for m in crops) or sum(crops) != num_crops or any(not 0 <= r <= MAX_RANK for r in ranks):
        raise RecordError(f"the blocks of a low-rank embedding are not of {num_crops} crops")
    return BlockSizes(dim, tuple(crops), tuple(ranks), StatedCosine(mean, worst))


def low_rank_sizes(sizes: BlockSizes, number: int) -> dict[str, tuple[int, int]]:
    """Return how many numbers, and of how many bytes at most, each column of embedding `number` has, by its name."""
    return {f"{name}_{number}": (count, _WIDTHS[name]) for name, count in sizes.counts().items()}


def decode_low_rank_embedding(columns: Mapping[str, Any], number: int, sizes: BlockSizes) -> LowRankEmbedding:
    """Decode embedding `number` of a record, all of its crops.

    Args:
        columns: of the record.
        number: of the embedding.
        sizes: of its blocks.

    Raises:
        RecordError: a column is damaged, or a number is not one that may be stored.
    """
    parts = {
        name: decode_column(columns.get(f"{name}_{number}"), (count,), itemsize=_WIDTHS[name]).astype(
            np.int64
        )
        for name, count in sizes.counts().items()
    }
    check_codes(parts["scales"], parts["lengths"])
    coefficients = np.zeros((sum(sizes.crops), max(sizes.ranks, default=0)), np.int64)
    blocks, first = [], 0
    for cut in block_cuts(sizes):
        scales, mean, basis, mine = (
            parts[name][cut[name]] for name in ("scales", "mean", "basis", "coefficients")
        )
        rank, last = len(scales) - 1, first + cut["lengths"].stop - cut["lengths"].start
        blocks.append(EmbeddingBlock(scales, unfold(mean), unfold(basis).reshape(sizes.dim, rank)))
        coefficients[first:last, :rank] = unfold(mine).reshape(-1, rank) if rank else 0
        first = last
    block_of = np.repeat(np.arange(len(blocks)), sizes.crops)
    return LowRankEmbedding(sizes.dim, tuple(blocks), block_of, parts["lengths"], coefficients, sizes.cosine)


def decode_crops(columns: Mapping[str, Any], number: int, sizes: BlockSizes, rows: I64) -> F32:
    """Decode some crops of embedding `number` of a record, for batches.

    Args:
        columns: of the record.
        number: of the embedding.
        sizes: of its blocks.
        rows: int64 [c], numbers of the crops.

    Returns:
        float32 [c, D].

    Raises:
        RecordError: as `decode_low_rank_embedding`.
    """
    parts = {
        name: decode_column(columns.get(f"{name}_{number}"), (count,))
        for name, count in sizes.counts().items()
    }
    check_codes(parts["scales"], parts["lengths"])
    ends, cuts = np.cumsum(sizes.crops), block_cuts(sizes)
    block_of = np.searchsorted(ends, rows, side="right")
    found = np.empty((len(rows), sizes.dim), np.float32)
    for at in np.unique(block_of).tolist():
        mine, cut, rank = block_of == at, cuts[at], sizes.ranks[at]
        inside = rows[mine] - (ends[at] - sizes.crops[at])
        coefficients = parts["coefficients"][cut["coefficients"]].reshape(sizes.crops[at], rank)
        found[mine] = vectors_of(
            parts["scales"][cut["scales"]],
            _signed_floats(parts["mean"][cut["mean"]]),
            _signed_floats(parts["basis"][cut["basis"]]).reshape(sizes.dim, rank),
            _signed_floats(coefficients[inside]),
            parts["lengths"][rows[mine]],
        )
    return found


_SIGNED_BYTES: F32 = unfold(np.arange(256)).astype(np.float32)


def _signed_floats(numbers: NDArray[Any]) -> F32:
    """Return the signed numbers that unsigned ones stand for, float32."""
    if numbers.itemsize == 1:  # nearly always; a table is several times as fast
        floats: F32 = _SIGNED_BYTES[numbers]
    else:
        floats = unfold(numbers.astype(np.int64)).astype(np.float32)
    return floats


def block_cuts(sizes: BlockSizes) -> list[dict[str, slice]]:
    """Return where the numbers of each block stand in every column, by the beginning of its name."""
    ends, cuts = dict.fromkeys(_WIDTHS, 0), []
    for counts in sizes.of_blocks():
        cuts.append({name: slice(ends[name], ends[name] + count) for name, count in counts.items()})
        ends = {name: cut.stop for name, cut in cuts[-1].items()}
    return cuts
