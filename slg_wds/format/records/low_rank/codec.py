"""Low-rank labels <-> the column `low_rank` of a record.

The column has a CRC-32, the sizes of every block, and one string of Rice codes of all numbers of all blocks. What
follows from the rest of a record is not stored: how many blocks there are, and how many bytes the quotients take.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import I64
from slg_wds.errors import RecordError
from slg_wds.format.records import rice
from slg_wds.format.records.low_rank.blocks import MAX_SCALE, LowRank, LowRankBlock, StatedKL

HEADER = struct.Struct("<I")  # CRC-32 of all that follows
WIDE = 1 << 16  # with so many classes, the number of those that are kept takes four bytes, else two
MAX_NUMBERS = 1 << 24  # of a record
DIGITS = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
WIDTHS = bytes.maketrans(bytes([rice.ZEROS]), b"\0")  # the bits of a remainder by the parameter
FIRST_BAND, BAND_GROWTH = 4, 4


class BlockShape(NamedTuple):
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
        entries = self.entries
        return self.listed + entries + self.rank * (1 + self.crops + entries)

    def lengths(self) -> list[int]:
        """Return how many numbers each group has, in the order of the groups."""
        entries, rank = self.entries, self.rank
        return [self.listed, entries, rank, *[self.crops] * rank, *_widths(entries) * rank]


@dataclass(frozen=True)
class PackedLowRank:
    """A column `low_rank`, its sizes read and checked, its numbers not yet.

    Attributes:
        num_classes: C.
        shapes: of every block.
        lengths: how many numbers each group of the code has.
        code: the Rice codes.
        block_of: [M], the block of each crop.
    """

    num_classes: int
    shapes: list[BlockShape]
    lengths: list[int]
    code: rice.RiceCode
    block_of: NDArray[Any]


def encode_low_rank(labels: LowRank) -> bytes:
    """Encode labels as a column. Raises RecordError for more numbers than the format allows."""
    classes = labels.blocks[0].num_classes if labels.blocks else 0
    groups, table = [], np.zeros(len(labels.blocks), _sizes(classes))
    for number, block in enumerate(labels.blocks):
        mine = labels.coefficients[labels.block_of == number, : block.rank]
        groups += _groups(block, mine)
        table[number] = (len(block.classes), block.rank, block.step_code)
    if sum(map(len, groups)) > MAX_NUMBERS:
        raise RecordError(f"low-rank labels of over {MAX_NUMBERS} numbers", hint="make fewer crops an image")
    code = rice.pack(groups)
    rest = b"".join([table.tobytes(), _pairs(code.parameters), code.quotients, code.remainders])
    return HEADER.pack(zlib.crc32(rest)) + rest


@lru_cache(64)
def _sizes(classes: int) -> np.dtype[Any]:
    """Return how the sizes of a block are stored."""
    return np.dtype([("kept", "<u4" if classes >= WIDE else "<u2"), ("rank", "u1"), ("step", "u1")])


def _pairs(parameters: bytes) -> bytes:
    """Put two parameters in each byte, the first one in its upper half."""
    padded = np.frombuffer(parameters + bytes(len(parameters) % 2), np.uint8)
    return (padded[::2] << 4 | padded[1::2]).tobytes()


def _apart(pairs: bytes, count: int) -> bytes:
    """Do the inverse of `_pairs`. Raises RecordError for a last half of a byte that is of no parameter and not 0."""
    parameters = pairs.hex().encode().translate(DIGITS)
    if any(parameters[count:]):
        raise RecordError("the parameters of low-rank labels have bits to spare")
    return parameters[:count]


def _groups(block: LowRankBlock, coefficients: I64) -> list[I64]:
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


def importance(base: I64) -> I64:
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


@lru_cache(1024)
def _widths(entries: int) -> tuple[int, ...]:
    """Return how many entries each band has."""
    return tuple(last - first for first, last in bands(entries))


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
    if zlib.crc32(memoryview(data)[HEADER.size :]) != HEADER.unpack_from(data)[0]:
        raise RecordError("the low-rank labels are damaged: their CRC-32 is another")
    count = int(block_of.max()) + 1 if len(block_of) else 0
    sizes = _sizes(num_classes)
    at = HEADER.size + count * sizes.itemsize
    if count > len(block_of) or len(data) < at:
        raise RecordError(f"{count} blocks of low-rank labels are more than there can be")
    crops = np.bincount(block_of, minlength=count).tolist()
    table = np.frombuffer(data, sizes, count, HEADER.size).tolist()
    shapes = [BlockShape(m, num_classes, *sizes) for m, sizes in zip(crops, table, strict=True)]
    _check(shapes)
    lengths = [length for shape in shapes for length in shape.lengths()]
    return PackedLowRank(num_classes, shapes, lengths, _code(data[at:], lengths), block_of)


def _code(data: bytes, lengths: Sequence[int]) -> rice.RiceCode:
    """Cut the Rice codes of groups of so many numbers: the remainders, whose bits are known, are last."""
    middle = (len(lengths) + 1) // 2
    parameters = _apart(data[:middle], len(lengths))
    bits = sum(map(mul, parameters.translate(WIDTHS), lengths))
    end = max(len(data) - (bits + 7) // 8, middle)
    return rice.RiceCode(parameters, data[middle:end], data[end:])


def _check(shapes: Sequence[BlockShape]) -> None:
    if any(shape.kept > shape.classes or not shape.crops for shape in shapes):
        raise RecordError("a block of low-rank labels keeps more classes than there are, or has no crop")
    if sum(shape.numbers for shape in shapes) > MAX_NUMBERS:
        raise RecordError(f"the low-rank labels have over {MAX_NUMBERS} numbers")


def decode_low_rank(packed: PackedLowRank, kl: StatedKL) -> LowRank:
    """Decode all of the labels. Raises RecordError for numbers that no labels have."""
    numbers = rice.RiceReader([packed.code], [packed.lengths]).take(np.arange(sum(packed.lengths)))
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


def block_of_numbers(shape: BlockShape, shared: I64, basis: I64) -> LowRankBlock:
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


def kl_fields(kl: StatedKL) -> dict[str, Any]:
    """Return the fields of a record that state the divergence of its labels."""
    parents = [None if one is None else float(one) for one in kl.parents]
    return {
        "kl_mean": float(kl.mean),
        "kl_worst": float(kl.worst),
        "kl_against": kl.against,
        "kl_parents": parents,
    }


def kl_of_fields(fields: dict[str, Any]) -> StatedKL:
    """Return the divergence that the fields of a low-rank record state."""
    return StatedKL(fields["kl_mean"], fields["kl_worst"], fields["kl_against"], tuple(fields["kl_parents"]))
