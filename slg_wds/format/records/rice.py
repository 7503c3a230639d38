"""Groups of small integers <-> Rice codes: first the quotients of all numbers, then the remainders of all.

A group has a parameter k. A number u of the group becomes its quotient u >> k, written as that many 0 bits and a 1,
and its remainder, the k low bits (R. F. Rice, 1979). Quotients stand apart from remainders, so numpy finds the places
of all numbers at once, and a reader decodes only those that it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import I64, U8
from slg_wds.errors import RecordError
from slg_wds.format.counting import before

MAX_PARAMETER = 14  # so that two parameters fit in a byte
ZEROS = 15  # the parameter of a group of zeros alone; they take no bits
MAX_NUMBER = (1 << 31) - 1
MAX_QUOTIENT_BYTES = 1 << 24


class RiceCode(NamedTuple):
    """One string of Rice codes.

    Attributes:
        parameters: one byte for each group.
        quotients: the quotients of all groups, as bits, the first bit of a byte being its most significant.
        remainders: the remainders of all groups, likewise.
    """

    parameters: bytes
    quotients: bytes
    remainders: bytes


def fold(signed: I64) -> I64:
    """Make signed numbers unsigned: 0, -1, 1, -2, 2 ... become 0, 1, 2, 3, 4 ..."""
    return (signed << 1) ^ (signed >> 63)


def unfold(unsigned: I64) -> I64:
    """Do the inverse of `fold`."""
    return (unsigned >> 1) ^ -(unsigned & 1)


def best_parameter(group: I64) -> int:
    """Return the parameter that takes the fewest bits for a group, int64 [n]; of equal ones, the smaller."""
    if not group.any():
        return ZEROS
    top = min(int(group.max()).bit_length(), MAX_PARAMETER)
    bits = [len(group) * (1 + k) + int((group >> k).sum()) for k in range(top + 1)]
    return int(np.argmin(bits))


def pack(groups: Sequence[I64]) -> RiceCode:
    """Encode groups of numbers.

    Args:
        groups: int64 [n] each, numbers from 0 to MAX_NUMBER.

    Raises:
        RecordError: a number is outside that range.
    """
    if any(group.size and not 0 <= group.min() <= group.max() <= MAX_NUMBER for group in groups):
        raise RecordError(f"a number of low-rank labels is not within 0 to {MAX_NUMBER}")
    parameters = [best_parameter(group) for group in groups]
    coded = [(group, k) for group, k in zip(groups, parameters, strict=True) if k != ZEROS]
    if not coded:
        return RiceCode(bytes(parameters), b"", b"")
    numbers = np.concatenate([group for group, _ in coded])
    widths = np.repeat([k for _, k in coded], [len(group) for group, _ in coded])
    ends = np.cumsum((numbers >> widths) + 1)
    quotients = np.zeros(int(ends[-1]), np.uint8)
    quotients[ends - 1] = 1
    remainders = np.packbits(_low_bits(numbers, widths))
    return RiceCode(bytes(parameters), np.packbits(quotients).tobytes(), remainders.tobytes())


def _low_bits(numbers: I64, widths: I64) -> U8:
    """Return the low bits of numbers, `widths` of each, one after the other, one in each uint8."""
    ends = np.cumsum(widths)
    from_last = np.repeat(ends, widths) - 1 - np.arange(int(ends[-1]))
    return (np.repeat(numbers, widths) >> from_last & 1).astype(np.uint8)


class RiceReader:
    """Several strings of Rice codes, of which single numbers can be read.

    Numbers are counted through all groups of all strings.

    Args:
        codes: the strings.
        lengths: of each string, how many numbers each of its groups has.

    Raises:
        RecordError: a string is not exactly the code of so many numbers.
    """

    def __init__(self, codes: Sequence[RiceCode], lengths: Sequence[Sequence[int]]) -> None:
        if [len(code.parameters) for code in codes] != list(map(len, lengths)):
            raise RecordError("the low-rank labels do not have one parameter for each group of numbers")
        if any(len(code.quotients) > MAX_QUOTIENT_BYTES for code in codes):
            raise RecordError(f"the quotients of low-rank labels are over {MAX_QUOTIENT_BYTES} bytes")
        parameters = np.frombuffer(b"".join([code.parameters for code in codes]), np.uint8).astype(np.int64)
        if ((parameters > MAX_PARAMETER) & (parameters != ZEROS)).any():
            raise RecordError(f"a parameter of low-rank labels is over {MAX_PARAMETER}")
        sizes = np.array([n for groups in lengths for n in groups], np.int64)
        strings = np.repeat(np.arange(len(codes)), [len(groups) for groups in lengths])
        self.starts, self._sizes = before(sizes), sizes
        self._k, self._zeros = parameters, parameters == ZEROS
        coded = np.where(self._zeros, 0, sizes)
        self._coded_starts = before(coded)
        in_string = np.bincount(strings, coded, len(codes)).astype(np.int64)
        self._quotients = _quotients(codes, in_string)
        remainders = b"".join([code.remainders for code in codes]) + bytes(4)
        # The 32 bits from every byte on: made once in order, since numpy copies scattered bytes slowly.
        self._words = np.ndarray(len(remainders) - 3, ">u4", remainders, strides=1).astype(np.uint32)
        self._remainder_starts = _remainder_starts(
            codes, np.where(self._zeros, 0, parameters * coded), strings
        )

    def take(self, at: I64) -> I64:
        """Return the numbers at these places, int64 of any shape. Raises RecordError for one over MAX_NUMBER."""
        group = np.searchsorted(self.starts, at, side="right") - 1
        return self.read(group, at - self.starts[group])

    def groups(self, groups: I64) -> I64:
        """Return all numbers of some groups, one group after the other; as `take` does."""
        sizes, coded = self._sizes[groups], ~self._zeros[groups]
        some, counts = groups[coded], sizes[coded]
        inside = np.arange(counts.sum()) - np.repeat(before(counts), counts)
        k, place = np.repeat(self._k[some], counts), np.repeat(self._coded_starts[some], counts) + inside
        offsets = np.repeat(self._remainder_starts[some], counts) + inside * k
        found = self._decoded(place, offsets, k)
        if coded.all():
            return found
        numbers = np.zeros(sizes.sum(), np.int64)
        numbers[np.repeat(coded, sizes)] = found
        return numbers

    def read(self, group: I64, inside: I64) -> I64:
        """Return numbers by their groups, counted through all strings, and their places in these; as `take` does."""
        zero = self._zeros[group]
        if zero.any():
            numbers = np.zeros(group.shape, np.int64)
            coded = ~zero
            numbers[coded] = self._read(group[coded], inside[coded])
            return numbers
        return self._read(group, inside)

    def _read(self, group: I64, inside: I64) -> I64:
        k = self._k[group]
        return self._decoded(
            self._coded_starts[group] + inside, self._remainder_starts[group] + inside * k, k
        )

    def _decoded(self, place: I64, offsets: I64, k: I64) -> I64:
        """The numbers whose quotients are at these places, their remainders of k bits at these offsets."""
        word = self._words[offsets >> 3].astype(np.int64)
        remainders = word >> (32 - k - (offsets & 7)) & ((1 << k) - 1)
        numbers: I64 = self._quotients[place].astype(np.int64) << k | remainders
        if numbers.size and numbers.max() > MAX_NUMBER:
            raise RecordError(f"a number of low-rank labels is over {MAX_NUMBER}")
        return numbers


def _quotients(codes: Sequence[RiceCode], counts: I64) -> NDArray[np.int32]:
    """Return the quotient of every number of all strings: how many 0 bits stand before its 1 bit."""
    size = np.array([8 * len(code.quotients) for code in codes], np.int64)
    bits = np.unpackbits(np.frombuffer(b"".join([code.quotients for code in codes]), np.uint8))
    ends = np.flatnonzero(bits.view(np.bool_))  # in bools, numpy finds them nine times as fast
    until, last = np.cumsum(size), np.cumsum(counts)
    if (np.searchsorted(ends, until) != last).any():
        raise RecordError("the quotients of low-rank labels are not those of so many numbers")
    some = counts > 0
    if ((size > 0) != some).any() or (until[some] - ends[last[some] - 1] > 8).any():
        raise RecordError("the quotients of low-rank labels have bytes to spare")
    quotients = np.empty(len(ends), np.int32)
    quotients[1:] = ends[1:] - ends[:-1] - 1
    starts = (last - counts)[some]
    quotients[starts] = ends[starts] - (until - size)[some]
    return quotients


def _remainder_starts(codes: Sequence[RiceCode], bits: I64, strings: I64) -> I64:
    """Return where the remainders of every group begin, in bits through all strings, int64 [groups]."""
    size = np.array([len(code.remainders) for code in codes], np.int64)
    needed = np.bincount(strings, bits, len(codes)).astype(np.int64)
    if (size != (needed + 7) // 8).any():
        raise RecordError("the remainders of low-rank labels are not those of so many numbers")
    return before(bits) + (8 * before(size) - before(needed))[strings]
