"""Columns of many records, decompressed together.

Each call of zstd gives the interpreter to another thread, and getting it back takes longer than a small frame. So the
frames of all columns are noted first, and then decompressed in one call.

Shapes: n records, c crops of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import I64, U8
from slg_wds.errors import RecordError
from slg_wds.format.counting import before, counted
from slg_wds.format.frames import decompress_all
from slg_wds.format.records.columns import MAX_NUMBERS, MAX_PLANES
from slg_wds.format.records.mixing import width_of

NOWHERE = np.zeros((0, 0), np.int64)


@dataclass
class Planes:
    """Where the planes of one column begin in the joined content of all frames: int64 [n, planes], -1 for zeros."""

    starts: I64


class JoinedColumns:
    """Columns of records: `place` notes the frames of one, `decompress` is called once, then numbers are read.

    Args:
        columns: of each record [n].
        rows: int64 [n, c], numbers of the crops that are read.
        crops: int64 [n], the crops of each record.

    Attributes:
        rows, crops: as given.
        content: uint8, what all frames hold, one after the other; from `decompress` on.

    Raises (its methods):
        RecordError: a frame is damaged, or is not what belongs there.
    """

    content: U8

    def __init__(self, columns: Sequence[dict[str, Any]], rows: I64, crops: I64) -> None:
        self._columns, self.rows, self.crops = columns, rows, crops
        self._lists: list[list[Any]] = []  # of frames: of all records for one column, then for the next
        self._counts: list[I64] = []
        self._placed: list[Planes] = []

    def of(self, name: str) -> list[Any]:
        """What each record has as column `name`, unchecked; None if it has none."""
        return [columns.get(name) for columns in self._columns]

    def place(self, name: str, counts: I64, itemsize: int = MAX_PLANES, optional: bool = False) -> Planes:
        """Note the frames of a column, to be decompressed with all others.

        Args:
            name: of the column.
            counts: int64 [n], how many numbers it has in each record.
            itemsize: the most planes.
            optional: a record may lack the column if it has no number of it.
        """
        found = self.of(name)
        if optional:
            found = [
                [] if planes is None and not count else planes
                for planes, count in zip(found, counts.tolist(), strict=True)
            ]
        return self.note(found, counts, itemsize)

    def note(self, found: list[Any], counts: I64, itemsize: int) -> Planes:
        """Note frames, to be decompressed with all others.

        Args:
            found: of each record its frames, at most `itemsize`.
            counts: int64 [n], the bytes in each frame of a record.
            itemsize: the most frames of a record.
        """
        if set(map(type, found)) != {list} or max(map(len, found)) > itemsize or counts.max() > MAX_NUMBERS:
            raise RecordError(f"a column is not a list of at most {itemsize} planes of {MAX_NUMBERS} numbers")
        self._lists += found
        self._counts.append(counts)
        self._placed.append(Planes(NOWHERE))
        return self._placed[-1]

    def decompress(self) -> None:
        """Decompress the frames of all columns, in one call, and say where their planes begin."""
        counts = np.concatenate(self._counts)
        depths = np.fromiter(map(len, self._lists), np.int64, len(counts))
        sizes = np.repeat(counts, depths)
        contents = decompress_all(list(itertools.chain.from_iterable(self._lists)), sizes, RecordError)
        self.content = np.frombuffer(contents, np.uint8)
        starts = np.full((len(counts), MAX_PLANES), -1, np.int64)
        starts[np.arange(MAX_PLANES) < depths[:, None]] = before(sizes)
        shape = (len(self._placed), len(self._columns))
        deepest = depths.reshape(shape).max(axis=1).tolist()
        for planes, of_column, depth in zip(
            self._placed, starts.reshape(*shape, MAX_PLANES), deepest, strict=True
        ):
            planes.starts = of_column[:, : max(1, depth)]

    def across(self, planes: Planes, parts: int, dtype: Any) -> NDArray[Any]:
        """The numbers [n, c, parts] of a column that has [parts, M] of each record."""
        across = self.rows[:, None, :] + self.crops[:, None, None] * np.arange(parts)[:, None]
        numbers: NDArray[Any] = self.at(planes, across, dtype).transpose(0, 2, 1)
        return numbers

    def at(self, planes: Planes, inside: I64, dtype: Any) -> NDArray[Any]:
        """The numbers [n, ...] at positions `inside` [n, ...] of each record's column."""
        out: NDArray[Any] = np.zeros(inside.shape, dtype)
        for p in range(planes.starts.shape[1]):
            start = planes.starts[:, p].reshape(-1, *[1] * (inside.ndim - 1))
            have = planes.starts[:, p] >= 0
            some = slice(None) if have.all() else have  # numpy takes all of them faster by a slice
            out[some] |= self.content[inside[some] + start[some]].astype(dtype) << dtype(8 * p)
        return out

    def ragged(self, planes: Planes, lengths: I64, dtype: Any) -> NDArray[Any]:
        """All numbers of a column whose length differs between records, one record after the other."""
        if planes.starts.shape[1] == 1:  # nearly always; then the bytes of each record follow each other
            pairs = zip(planes.starts[:, 0].tolist(), lengths.tolist(), strict=True)
            parts = [
                np.zeros(n, np.uint8) if start < 0 else self.content[start : start + n] for start, n in pairs
            ]
            return np.concatenate(parts).astype(dtype)
        record, inside = counted(lengths)
        return self.at(Planes(planes.starts[record]), inside, dtype)

    def numbers(self, planes: Planes, i: int, name: str, count: int) -> NDArray[Any]:
        """All numbers [count] of one column of record i."""
        numbers = np.zeros((count, width_of(name)), np.uint8)
        for p, start in enumerate(planes.starts[i].tolist()):
            if start >= 0:
                numbers[:, p] = self.content[start : start + count]
        return numbers.view(f"<u{width_of(name)}")[:, 0]
