"""Low-rank labels <-> the column `low_rank` of a record.

The column has a header, the sizes of every block, and one string of Rice codes of all numbers of all blocks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records import rice
from slg_wds.format.records.low_rank import MAX_SCALE, LowRank, LowRankBlock, StatedKL

Ints = NDArray[np.int64]

HEADER = struct.Struct("<III")  # number of blocks, bytes of quotients, CRC-32 of all that follows
BLOCK = np.dtype([("kept", "<u4"), ("rank", "u1"), ("step", "u1")])
MAX_NUMBERS = 1 << 24  # of a record
FIRST_BAND, BAND_GROWTH = 4, 4


@dataclass(frozen=True)
class BlockShape:
    """How many numbers of each kind a block has.

    Attributes:
        crops: m, its crops.
        classes: C.
        kept: n, classes with an entry of their own.
        rank: r.
        step_code: of its coefficients.
    """

    crops: int
    classes: int
    kept: int
    rank: int
    step_code: int

    @property
    def listed(self) -> int:
        """The classes that are listed: none if all are kept."""
        return self.kept if self.kept < self.classes else 0

    @property
    def entries(self) -> int:
        """N: the kept classes, and one for the others if there are any."""
        return self.kept + (self.kept < self.classes)

    @property
    def shared(self) -> int:
        """The numbers before the coefficients: gaps between classes, base, scales."""
        return self.listed + self.entries + self.rank

    @property
    def numbers(self) -> int:
        """All numbers of the block."""
        return self.shared + self.rank * (self.crops + self.entries)

    def lengths(self) -> list[int]:
        """Return how many numbers each group has, in the order of the groups."""
        widths = [j - i for i, j in bands(self.entries)]
        return [self.listed, self.entries, self.rank, *[self.crops] * self.rank, *widths * self.rank]


@dataclass(frozen=True)
class PackedLowRank:
    """A column `low_rank`, its sizes read and checked, its numbers not yet.

    Attributes:
        num_classes: C.
        shapes: of every block.
        code: the Rice codes.
        block_of: [M], the block of each crop.
    """

    num_classes: int
    shapes: list[BlockShape]
    code: rice.RiceCode
    block_of: NDArray[Any]

    def lengths(self) -> list[int]:
        """Return how many numbers each group of the code has."""
        return [length for shape in self.shapes for length in shape.lengths()]


def encode_low_rank(labels: LowRank) -> bytes:
    """Encode labels as a column. Raises RecordError for more numbers than the format allows."""
    groups, table = [], np.zeros(len(labels.blocks), BLOCK)
    for number, block in enumerate(labels.blocks):
        mine = labels.coefficients[labels.block_of == number, : block.rank]
        groups += _groups(block, mine)
        table[number] = (len(block.classes), block.rank, block.step_code)
    if sum(map(len, groups)) > MAX_NUMBERS:
        raise RecordError(f"low-rank labels of over {MAX_NUMBERS} numbers", hint="make fewer crops an image")
    code = rice.pack(groups)
    rest = b"".join([table.tobytes(), *code])
    return HEADER.pack(len(table), len(code.quotients), zlib.crc32(rest)) + rest


def _groups(block: LowRankBlock, coefficients: Ints) -> list[Ints]:
    order = importance(block.base)
    return [
        np.diff(block.classes, prepend=-1) - 1
        if len(block.classes) < block.num_classes
        else block.classes[:0],
        block.base,
        block.scales,
        *(rice.fold(column) for column in coefficients.T),
        *(rice.fold(row[order[i:j]]) for row in block.basis for i, j in bands(len(block.base))),
    ]


def importance(base: Ints) -> Ints:
    """Return the entries in falling order of their mean; of equal ones, the lower first."""
    return np.argsort(-base, kind="stable")


@lru_cache(1024)
def bands(entries: int) -> tuple[tuple[int, int], ...]:
    """Cut entries, in order of importance, into bands that end at 4, 16, 64 ...: each has a parameter of its own."""
    edges, edge = [0], FIRST_BAND
    while edge < entries:
        edges.append(edge)
        edge *= BAND_GROWTH
    return tuple(zip(edges, [*edges[1:], entries], strict=True))


def open_low_rank(data: Any, block_of: NDArray[Any], num_classes: int) -> PackedLowRank:
    """Read and check the sizes in a column.

    Args:
        data: the column's bytes.
        block_of: uint [M], the block of each crop.
        num_classes: C.

    Raises:
        RecordError: the column is damaged, or its sizes are not possible.
    """
    if type(data) is not bytes or len(data) < HEADER.size:
        raise RecordError("the column low_rank is not bytes with a header")
    count, quotients, crc32 = HEADER.unpack_from(data)
    if zlib.crc32(memoryview(data)[HEADER.size :]) != crc32:
        raise RecordError("the low-rank labels are damaged: their CRC-32 is another")
    if count > len(block_of) or len(data) < HEADER.size + count * BLOCK.itemsize:
        raise RecordError(f"{count} blocks of low-rank labels are more than there can be")
    if len(block_of) and block_of.max() >= count:
        raise RecordError(f"a crop is of a block that is none of the {count}")
    crops = np.bincount(block_of, minlength=count).tolist()
    table = np.frombuffer(data, BLOCK, count, HEADER.size).tolist()
    shapes = [BlockShape(m, num_classes, *sizes) for m, sizes in zip(crops, table, strict=True)]
    _check(shapes)
    at = HEADER.size + count * BLOCK.itemsize
    middle = at + sum(3 + shape.rank * (1 + len(bands(shape.entries))) for shape in shapes)
    end = middle + quotients
    return PackedLowRank(
        num_classes, shapes, rice.RiceCode(data[at:middle], data[middle:end], data[end:]), block_of
    )


def _check(shapes: Sequence[BlockShape]) -> None:
    if any(shape.kept > shape.classes or not shape.crops for shape in shapes):
        raise RecordError("a block of low-rank labels keeps more classes than there are, or has no crop")
    if sum(shape.numbers for shape in shapes) > MAX_NUMBERS:
        raise RecordError(f"the low-rank labels have over {MAX_NUMBERS} numbers")


def decode_low_rank(packed: PackedLowRank, kl: StatedKL) -> LowRank:
    """Decode all of the labels. Raises RecordError for numbers that no labels have."""
    lengths = packed.lengths()
    numbers = rice.RiceReader([packed.code], [lengths]).take(np.arange(sum(lengths)))
    width = max((shape.rank for shape in packed.shapes), default=0)
    block_of = packed.block_of.astype(np.int64)
    coefficients = np.zeros((len(block_of), width), np.int64)
    blocks, end = [], 0
    for number, shape in enumerate(packed.shapes):
        first, middle = end + shape.shared, end + shape.shared + shape.rank * shape.crops
        mine = numbers[first:middle].reshape(shape.rank, shape.crops)
        coefficients[block_of == number, : shape.rank] = rice.unfold(mine.T)
        blocks.append(block_of_numbers(shape, numbers[end:first], numbers[middle : end + shape.numbers]))
        end += shape.numbers
    return LowRank(tuple(blocks), block_of, coefficients, kl)


def block_of_numbers(shape: BlockShape, shared: Ints, basis: Ints) -> LowRankBlock:
    """Make a block of its decoded numbers.

    Args:
        shape: its sizes.
        shared: int64 [shape.shared], the numbers before the coefficients.
        basis: int64 [r N], those after them.

    Raises:
        RecordError: the numbers are not possible.
    """
    gaps, base, scales = np.split(shared, [shape.listed, shape.listed + shape.entries])
    classes = np.cumsum(gaps + 1) - 1 if shape.listed else np.arange(shape.kept)
    if len(scales) and scales.max() > MAX_SCALE:
        raise RecordError(f"a scale of low-rank labels is over {MAX_SCALE}")
    if len(classes) and classes[-1] >= shape.classes:
        raise RecordError(f"a class of low-rank labels is not below {shape.classes}, the number of classes")
    rows = np.empty((shape.rank, shape.entries), np.int64)
    rows[:, importance(base)] = rice.unfold(basis).reshape(shape.rank, shape.entries)
    return LowRankBlock(shape.classes, classes, base, rows, scales, shape.step_code)
