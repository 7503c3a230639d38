"""All records of a shard checked at once: what decoding each would check, and more, in a fraction of the time.

A group of records of one shape goes through numpy as one, classes of a crop first, so that each check is a few passes
over long rows. It only says whether all is well; what is wrong, and with which record, comes from decoding them singly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.frames import decompress_all
from slg_wds.format.records.values import decode_values, value_dtype

GROUP_NUMBERS = 1 << 20  # numbers of one column in a group, as a usual shard has: 10 MB while checked
MAX_TOGETHER = 1 << 22  # numbers of one record, above which decoding it takes less memory
MAX_PAIRS = 12  # classes of a crop up to which comparing each two of them is faster than sorting
_LARGEST = {"float32": 0x3F800000, "float16": 0x3C00}  # the bits of 1
Fields = dict[str, Any]
Numbers = NDArray[Any]


class OddError(Exception):
    """Something in the group is not as it should be."""


def all_sound(records: Sequence[Fields], sum_over_one: float) -> bool:
    """Whether every record, unpacked, decodes and has rows that sum to at most 1 + `sum_over_one` + their rounding.

    False says nothing of which one, and may be wrong about a record of a form that no writer gives.
    """
    groups: defaultdict[tuple[Any, ...], list[Fields]] = defaultdict(list)
    for fields in records:
        names = ("num_crops", "k", "coding", "full", "num_classes")
        groups[tuple(fields[name] for name in names)].append(fields)
    try:
        for (M, k, *_), group in groups.items():
            if M * k > MAX_TOGETHER:
                return False
            count = max(1, GROUP_NUMBERS // max(1, M * max(k, 4)))
            for first in range(0, len(group), count):
                _check(_Group(group[first : first + count]), sum_over_one)
    except (OddError, RecordError):
        return False
    return True


class _Group:
    """n records of one shape; `column` gives a column of all of them."""

    def __init__(self, records: Sequence[Fields]) -> None:
        self.records = records
        first = records[0]
        self.M, self.k, self.classes = first["num_crops"], first["k"], first["num_classes"]
        self.coding, self.full = str(first["coding"]), bool(first["full"])
        self._found: dict[str, list[tuple[slice, list[int], list[int]]]] = {}
        frames: list[Any] = []
        sizes: list[int] = []
        end = 0
        for name, most in self._columns().items():
            counts, planes = self.counts(name), self._planes(name)
            depths = list(map(len, planes))
            if max(depths) > most:
                raise OddError
            for plane in range(max(depths)):
                have = [at for at, depth in enumerate(depths) if depth > plane]
                mine = [counts[at] for at in have]
                frames += [planes[at][plane] for at in have]
                sizes += mine
                self._found.setdefault(name, []).append((slice(end, end + sum(mine)), have, mine))
                end += sum(mine)
        self._flat = np.frombuffer(decompress_all(frames, sizes, RecordError), np.uint8)

    def _columns(self) -> dict[str, int]:
        """The columns that must be there, and the most planes of each."""
        found = {"boxes": 4, "flips": 1, "tail_classes": 4, "tail_codes": 1}
        if self.coding != "none":
            found["values"] = value_dtype(self.coding).itemsize
        return found if self.full else {**found, "palette": 4, "codes": 4}

    def counts(self, name: str) -> list[int]:
        """How many numbers each record has in a column."""
        fixed = {"boxes": 4 * self.M, "flips": (self.M + 7) // 8, "codes": self.M * self.k}
        fixed["values"] = fixed["codes"]
        if name in fixed:
            return [fixed[name]] * len(self.records)
        field = "num_palette" if name == "palette" else "num_tail"
        return [int(fields[field]) for fields in self.records]

    def _planes(self, name: str) -> list[list[Any]]:
        """Each record's planes of a column. A record without a tail may lack its columns."""
        planes = [fields["columns"].get(name) for fields in self.records]
        if name.startswith("tail") and None in planes:
            counts = self.counts(name)
            planes = [
                [] if found is None and not count else found
                for found, count in zip(planes, counts, strict=True)
            ]
        if set(map(type, planes)) != {list}:
            raise OddError
        return planes

    def column(self, name: str, itemsize: int = 0) -> Numbers:
        """Unsigned numbers [all records'], one record's after the other's; the smallest dtype that serves."""
        counts = self.counts(name)
        found = self._found.get(name, [])
        dtype = np.dtype(f"u{itemsize or (1, 1, 2, 4, 4)[len(found)]}")
        numbers: Numbers | None = None
        for plane, (place, have, mine) in enumerate(found):
            part = self._flat[place]
            if len(have) < len(counts):
                part = _spread(part, have, mine, counts)
            if dtype.itemsize > 1:  # shifted and added up, not put side by side: several times faster
                part = part.astype(dtype) << dtype.type(8 * plane)
            numbers = part if numbers is None else np.bitwise_or(numbers, part, out=numbers)
        return np.zeros(sum(counts), dtype) if numbers is None else numbers


def _spread(part: Numbers, have: Sequence[int], mine: Sequence[int], counts: Sequence[int]) -> Numbers:
    """A plane [all records' counts] of which only the records `have` have their part, zeros for the others."""
    out = np.zeros(sum(counts), part.dtype)
    ends = np.cumsum(counts)
    at = 0
    for record, count in zip(have, mine, strict=True):
        out[ends[record] - count : ends[record]] = part[at : at + count]
        at += count
    return out


def _check(group: _Group, sum_over_one: float) -> None:
    """Raise OddError or RecordError unless all is well."""
    n, M, k = len(group.records), group.M, group.k
    _check_boxes(group, n, M)
    _ascending(group, "tail_classes")
    if not group.full and M:
        _ascending(group, "palette")
        # Classes first: [k, n * M].
        codes = np.ascontiguousarray(group.column("codes").reshape(n * M, k).T)
        sizes = np.array(group.counts("palette"), np.int64)
        if (codes.reshape(k, n, M).max(axis=(0, 2)) >= sizes).any():
            raise OddError
        _check_distinct(codes)
    if M and group.coding != "none":
        _check_values(group, n * M, k, sum_over_one)


def _check_boxes(group: _Group, n: int, M: int) -> None:
    if not M:
        return
    boxes = group.column("boxes").reshape(n, 4, M)
    sizes = np.array([(fields["height"], fields["width"]) for fields in group.records], np.uint64)
    extents = boxes[:, 2:]
    # Wide enough that a sum cannot come round.
    ends = boxes[:, :2].astype(np.uint32 if boxes.itemsize < 4 else np.uint64) + extents
    if not extents.min() or (ends.max(axis=2) > sizes).any():
        raise OddError


def _ascending(group: _Group, name: str) -> None:
    """That each record's list of classes, stored as steps, ascends below their number."""
    counts = np.array(group.counts(name), np.int64)
    steps = group.column(name)
    if not len(steps):
        return
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts
    if (np.add.reduceat(steps, starts, dtype=np.int64) >= group.classes).any():
        raise OddError
    zeros = steps == 0
    zeros[starts] = False
    if zeros.any():
        raise OddError


def _check_distinct(codes: Numbers) -> None:
    """That no code stands twice in a column of [k, crops]."""
    k = len(codes)
    if k > MAX_PAIRS:
        ordered = np.sort(codes, axis=0)
        if (ordered[1:] == ordered[:-1]).any():
            raise OddError
        return
    for apart in range(1, k):
        if (codes[apart:] == codes[:-apart]).any():
            raise OddError


def _check_values(group: _Group, crops: int, k: int, sum_over_one: float) -> None:
    dtype = value_dtype(group.coding)
    bits = group.column("values", dtype.itemsize).reshape(crops, k).T
    if group.full:
        stored = np.ascontiguousarray(bits)
    else:
        stored = np.empty((k, crops), bits.dtype)
        stored[0] = bits[0]
        for at in range(1, k):
            np.add(stored[at - 1], bits[at], out=stored[at])
        # Bits of numbers of at least 0 are in the numbers' own order; a negative one's are above all.
        rising = stored[1:] < stored[:-1] if group.coding == "log8" else stored[1:] > stored[:-1]
        if rising.any():
            raise OddError
    if group.coding != "log8" and stored.size and stored.max() > _LARGEST[group.coding]:
        raise OddError
    if _sums(stored, group.coding).max() > 1.0 + sum_over_one + rounding(group.coding, k):
        raise OddError


def _sums(stored: Numbers, coding: str) -> NDArray[np.float32]:
    """The sum of each column of coded probabilities [k, crops], float32."""
    if coding != "float16":
        sums: NDArray[np.float32] = decode_values(stored.view(value_dtype(coding)), coding).sum(axis=0)
        return sums
    # Moved up, the bits of a half from 0 to 1 are those of a float, of 2**-112 its value; casts take ten times as long.
    small: NDArray[np.float32] = (stored.astype(np.uint32) << np.uint32(13)).view(np.float32)
    scaled: NDArray[np.float32] = small.sum(axis=0) * np.float32(2.0**112)
    return scaled


def rounding(coding: str, k: int) -> float:
    """How far k coded probabilities may sum above what they stand for: half a step of each, and of the sum."""
    relative, least = {
        "float32": (2.0**-24, 0.0),
        "float16": (2.0**-11, 2.0**-25),
        "log8": (2.0 ** (1 / 32) - 1.0, 2.0**-16.8),
        "none": (0.0, 0.0),
    }[coding]
    return float(relative + k * (least + 2.0**-24))
