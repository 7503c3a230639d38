"""Checks all records of a shard at once. It checks more than decoding each of them would, in a fraction of the time.

Records of one shape go through numpy together, so that each check is a few passes over long rows. The answer is only
whether all are sound, that is, free of damage. To find which record is not, and why, decode them one by one.

Shapes: n records, M crops of each, k classes stored per crop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.counting import before
from slg_wds.format.frames import decompress_all
from slg_wds.format.records.embeddings.codec import decode_embeddings
from slg_wds.format.records.embeddings.fields import EMBEDDING
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.values import decode_values, value_dtype
from slg_wds.format.records.views import decode_views
from slg_wds.transforms.replaying import check_operations

# Values of one column that are checked together: about as many as a shard has, in 10 MB of memory.
GROUP_NUMBERS = 1 << 20
MAX_TOGETHER = 1 << 22  # values of one record; above, decoding it alone takes less memory
MAX_PAIRS = 12  # up to so many classes of a crop, comparing all pairs is faster than sorting
_LARGEST = {"float32": 0x3F800000, "float16": 0x3C00}  # the bits of 1
Fields = dict[str, Any]
Numbers = NDArray[Any]


class OddError(Exception):
    """A record of a group is damaged, or has a form that no writer uses."""


def all_sound(records: Sequence[Fields], sum_over_one: float) -> bool:
    """Check that every record can be decoded and that the probabilities of no crop sum to too much.

    Args:
        records: the fields of unpacked records.
        sum_over_one: how far a sum may exceed 1, apart from the rounding of the coding.

    Returns:
        True if all are sound. False if one may not be: decode them one by one to be sure, since False is also given for
        records in a form that no writer uses.
    """
    groups: defaultdict[tuple[Any, ...], list[Fields]] = defaultdict(list)
    for fields in records:
        names = ("num_crops", "k", "coding", "full", "num_classes")
        groups[tuple(fields[name] for name in names)].append(fields)
    try:
        for fields in records:
            if (views := decode_views(fields, slice(None))) is not None:
                check_operations(views)
            if fields["coding"] == EMBEDDING:
                decode_embeddings(fields, slice(None))
        for (M, k, coding, *_), group in groups.items():
            if M * k > MAX_TOGETHER or coding == LOW_RANK:
                return False
            count = max(1, GROUP_NUMBERS // max(1, M * max(k, 4)))
            for first in range(0, len(group), count):
                _check(_RecordGroup(group[first : first + count]), sum_over_one)
    except (OddError, RecordError):
        return False
    return True


class _RecordGroup:
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
        """Return the columns that must be there, and the most byte planes that each may have."""
        found = {"boxes": 4, "flips": 1, "tail_classes": 4, "tail_codes": 1}
        if self.coding == EMBEDDING:
            return found
        if self.coding != "none":
            found["values"] = value_dtype(self.coding).itemsize
        return found if self.full else {**found, "palette": 4, "codes": 4}

    def counts(self, name: str) -> list[int]:
        """Return how many values each record has in a column."""
        fixed = {"boxes": 4 * self.M, "flips": (self.M + 7) // 8, "codes": self.M * self.k}
        fixed["values"] = fixed["codes"]
        if name in fixed:
            return [fixed[name]] * len(self.records)
        field = "num_palette" if name == "palette" else "num_tail"
        return [int(fields[field]) for fields in self.records]

    def _planes(self, name: str) -> list[list[Any]]:
        """Return the byte planes of a column of each record. A record without a tail may lack the tail's columns."""
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
        """Return the column of all records joined: unsigned, 1-D, of `itemsize` bytes or the fewest that do."""
        counts = self.counts(name)
        found = self._found.get(name, [])
        dtype = np.dtype(f"u{itemsize or (1, 1, 2, 4, 4)[len(found)]}")
        numbers: Numbers | None = None
        for plane, (place, have, mine) in enumerate(found):
            part = self._flat[place]
            if len(have) < len(counts):
                part = _spread(part, have, mine, counts)
            if dtype.itemsize > 1:  # shifting is several times faster than interleaving bytes
                part = part.astype(dtype) << dtype.type(8 * plane)
            numbers = part if numbers is None else np.bitwise_or(numbers, part, out=numbers)
        return np.zeros(sum(counts), dtype) if numbers is None else numbers


def _spread(part: Numbers, have: Sequence[int], mine: Sequence[int], counts: Sequence[int]) -> Numbers:
    """Return a byte plane of all records, of which only the records `have` store their part; the others are zeros."""
    out = np.zeros(sum(counts), part.dtype)
    ends = np.cumsum(counts)
    at = 0
    for record, count in zip(have, mine, strict=True):
        out[ends[record] - count : ends[record]] = part[at : at + count]
        at += count
    return out


def _check(group: _RecordGroup, sum_over_one: float) -> None:
    """Raise OddError or RecordError if a record of the group is not sound."""
    n, M, k = len(group.records), group.M, group.k
    _check_boxes(group, n, M)
    if group.coding == EMBEDDING:  # the rest is checked by decoding it
        return
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


def _check_boxes(group: _RecordGroup, n: int, M: int) -> None:
    if not M:
        return
    boxes = group.column("boxes").reshape(n, 4, M)
    sizes = np.array([(fields["height"], fields["width"]) for fields in group.records], np.uint64)
    extents = boxes[:, 2:]
    # Wide enough that no sum overflows.
    ends = boxes[:, :2].astype(np.uint32 if boxes.itemsize < 4 else np.uint64) + extents
    if not extents.min() or (ends.max(axis=2) > sizes).any():
        raise OddError


def _ascending(group: _RecordGroup, name: str) -> None:
    """Check that the classes in a column, stored as differences, ascend and stay below the number of classes."""
    counts = np.array(group.counts(name), np.int64)
    steps = group.column(name)
    if not len(steps):
        return
    counts = counts[counts > 0]
    starts = before(counts)
    if (np.add.reduceat(steps, starts, dtype=np.int64) >= group.classes).any():
        raise OddError
    zeros = steps == 0
    zeros[starts] = False
    if zeros.any():
        raise OddError


def _check_distinct(codes: Numbers) -> None:
    """Check that no class code stands twice in a crop. codes: [k, crops]."""
    k = len(codes)
    if k > MAX_PAIRS:
        ordered = np.sort(codes, axis=0)
        if (ordered[1:] == ordered[:-1]).any():
            raise OddError
        return
    for apart in range(1, k):
        if (codes[apart:] == codes[:-apart]).any():
            raise OddError


def _check_values(group: _RecordGroup, crops: int, k: int, sum_over_one: float) -> None:
    dtype = value_dtype(group.coding)
    bits = group.column("values", dtype.itemsize).reshape(crops, k).T
    if group.full:
        stored = np.ascontiguousarray(bits)
    else:
        stored = np.empty((k, crops), bits.dtype)
        stored[0] = bits[0]
        for at in range(1, k):
            np.add(stored[at - 1], bits[at], out=stored[at])
        # The bits of non-negative floats are ordered as the floats are; those of a negative float are larger.
        rising = stored[1:] < stored[:-1] if group.coding == "log8" else stored[1:] > stored[:-1]
        if rising.any():
            raise OddError
    if group.coding != "log8" and stored.size and stored.max() > _LARGEST[group.coding]:
        raise OddError
    if _sums(stored, group.coding).max() > 1.0 + sum_over_one + rounding(group.coding, k):
        raise OddError


def _sums(stored: Numbers, coding: str) -> NDArray[np.float32]:
    """Return the sum of each column of coded probabilities [k, crops], float32."""
    if coding != "float16":
        sums: NDArray[np.float32] = decode_values(stored.view(value_dtype(coding)), coding).sum(axis=0)
        return sums
    # Shifted by 13, the bits of a float16 in 0..1 are those of a float32 of 2**-112 times its value. A cast takes ten
    # times as long.
    small: NDArray[np.float32] = (stored.astype(np.uint32) << np.uint32(13)).view(np.float32)
    scaled: NDArray[np.float32] = small.sum(axis=0) * np.float32(2.0**112)
    return scaled


def rounding(coding: str, k: int) -> float:
    """Return how far rounding may lift the sum of k stored probabilities above the sum of the originals.

    It adds half a step of the coding for each probability, and the rounding of the sum itself.
    """
    relative, least = {
        "float32": (2.0**-24, 0.0),
        "float16": (2.0**-11, 2.0**-25),
        "log8": (2.0 ** (1 / 32) - 1.0, 2.0**-16.8),
        "none": (0.0, 0.0),
        LOW_RANK: (0.0, 0.0),
    }[coding]
    return float(relative + k * (least + 2.0**-24))
