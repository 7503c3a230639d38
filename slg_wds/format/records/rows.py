"""A few crops of many records at once, as batches want them: what decode_record does one by one, vectorised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.frames import decompress_all
from slg_wds.format.records.checks import check_boxes, check_distinct, check_falling
from slg_wds.format.records.columns import MAX_NUMBERS, MAX_PLANES
from slg_wds.format.records.record import unpack_record
from slg_wds.format.records.tail import Tail
from slg_wds.format.records.values import decode_values, value_dtype

I64 = NDArray[np.int64]
UNFOLDED = 1 << 26  # bytes of columns opened at a time


@dataclass(frozen=True)
class Rows:
    """c crops of each of n records.

    fields: [n], the records' own, columns apart. boxes: int64 [n, c, 4]. flips: bool [n, c].
    index: int64 [n, c, k] as in Record, None for full labels. value: float32 [n, c, k]. tails: [n].
    """

    fields: list[dict[str, Any]]
    boxes: I64
    flips: NDArray[np.bool_]
    index: I64 | None
    value: NDArray[np.float32]
    tails: list[Tail | None]


def decode_rows(data: Sequence[bytes], rows: I64) -> Rows:
    """The crops `rows` [n, c] of n records of one k, coding and kind.

    Checks all that decode_record(data, rows=...) checks. Its zstd frames are opened in one call: each call lets
    another thread have the interpreter, and waiting to have it back takes longer than a small frame.

    Raises RecordError, UnsupportedFeatureError; they do not tell which record it was: decode that one alone.
    """
    fields = [unpack_record(one) for one in data]
    first = fields[0]
    for other in fields:
        for name in ("k", "coding", "full", "num_classes"):
            if other[name] != first[name]:
                raise RecordError(f"its {name} is {other[name]!r} where {first[name]!r} belongs")
    crops = np.array([one["num_crops"] for one in fields], np.int64)
    if rows.size and not (rows.min() >= 0 and (rows < crops[:, None]).all()):
        raise RecordError(f"the crops asked for are not among the record's {crops.min()}")
    parts = [_Group(fields[run], rows[run], crops[run]).decoded() for run in _runs(fields)]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _runs(fields: Sequence[dict[str, Any]]) -> Iterator[slice]:
    """The records in parts that unfold to a bounded number of bytes, or one by one where they are large."""
    first = total = 0
    for i, one in enumerate(fields):
        M, k = one["num_crops"], one["k"]
        size = M * (8 * k + 17) + 4 * one["num_palette"] + 5 * one["num_tail"]
        if total and total + size > UNFOLDED:
            yield slice(first, i)
            first, total = i, 0
        total += size
    yield slice(first, len(fields))


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(
        fields=[fields for part in parts for fields in part.fields],
        boxes=np.concatenate([part.boxes for part in parts]),
        flips=np.concatenate([part.flips for part in parts]),
        index=None if parts[0].index is None else np.concatenate([cast(I64, part.index) for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        tails=[tail for part in parts for tail in part.tails],
    )


@dataclass
class _Place:
    """Where each record's planes of one column lie: int64 [n, planes], -1 for a plane of zeros."""

    planes: I64


class _Group:
    def __init__(self, fields: list[dict[str, Any]], rows: I64, crops: I64) -> None:
        self._fields, self._rows, self._crops = fields, rows, crops
        self._columns = [one["columns"] for one in fields]
        self._frames: list[Any] = []
        self._sizes: list[int] = []
        self._end = 0

    def decoded(self) -> Rows:
        fields, c = self._fields, self._rows.shape[1]
        first = fields[0]
        k, full, coding = first["k"], first["full"], first["coding"]
        itemsize = 0 if coding == "none" else value_dtype(coding).itemsize
        boxes = self._place("boxes", [4 * one["num_crops"] for one in fields])
        flips = self._place("flips", [(one["num_crops"] + 7) // 8 for one in fields], 1)
        widths = [one["num_crops"] * k for one in fields]
        values = self._place("values", widths, itemsize) if itemsize else None
        palette_sizes = [one["num_palette"] for one in fields]
        palette = None if full else self._place("palette", palette_sizes)
        codes = None if full else self._place("codes", widths)
        tail_sizes = [one["num_tail"] for one in fields]
        tail_classes, tail_codes = (
            self._place("tail_classes", tail_sizes, optional=True),
            self._place("tail_codes", tail_sizes, 1, optional=True),
        )
        self._flat = np.frombuffer(decompress_all(self._frames, self._sizes, RecordError), np.uint8)

        across = self._rows[:, None, :] + self._crops[:, None, None] * np.arange(4)[:, None]
        box = self._at(boxes, across, np.uint32).transpose(0, 2, 1).astype(np.int64)
        sizes = np.array([(one["height"], one["width"]) for one in fields], np.int64)
        check_boxes(box.reshape(-1, 4), np.repeat(sizes, c, axis=0))
        bits = self._at(flips, self._rows >> 3, np.uint8)
        inside = self._rows[:, :, None] * k + np.arange(k)
        index = None
        if palette is not None and codes is not None:
            index = self._index(palette, palette_sizes, codes, inside)
        return Rows(
            fields=fields,
            boxes=box,
            flips=(bits >> (self._rows & 7).astype(np.uint8) & 1).astype(np.bool_),
            index=index,
            value=self._value(values, inside, coding, full),
            tails=self._tails(tail_classes, tail_codes, tail_sizes),
        )

    def _place(
        self, name: str, counts: list[int], itemsize: int = MAX_PLANES, optional: bool = False
    ) -> _Place:
        """Note the frames of a column of so many numbers in each record, to be opened together.

        optional: a record without any of these numbers may lack the column.
        """
        places, missing = [], [-1] * itemsize
        for columns, count in zip(self._columns, counts, strict=True):
            planes = columns.get(name, [] if optional and not count else None)
            if type(planes) is not list or len(planes) > itemsize or count > MAX_NUMBERS:
                raise RecordError(
                    f"a column is not a list of at most {itemsize} planes of {MAX_NUMBERS} numbers"
                )
            starts = missing.copy()
            for p, plane in enumerate(planes):
                starts[p] = self._end
                self._frames.append(plane)
                self._sizes.append(count)
                self._end += count
            places.append(starts)
        return _Place(np.array(places, np.int64))

    def _at(self, place: _Place, inside: I64, dtype: Any) -> NDArray[Any]:
        """The numbers [n, ...] at the places `inside` [n, ...] of each record's column."""
        out: NDArray[Any] = np.zeros(inside.shape, dtype)
        for p in range(place.planes.shape[1]):
            start = place.planes[:, p]
            have = start >= 0
            if have.all():
                out |= self._flat[inside + start.reshape(-1, *[1] * (inside.ndim - 1))].astype(
                    dtype
                ) << dtype(8 * p)
            elif have.any():
                some = inside[have] + start[have].reshape(-1, *[1] * (inside.ndim - 1))
                out[have] |= self._flat[some].astype(dtype) << dtype(8 * p)
        return out

    def _ragged(self, place: _Place, sizes: list[int], dtype: Any) -> NDArray[Any]:
        """All numbers of a column whose length differs between records, one record after the other."""
        lengths = np.array(sizes, np.int64)
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        planes = np.repeat(place.planes, lengths, axis=0)
        return self._at(_Place(planes), inside, dtype)

    def _ascending(self, place: _Place, sizes: list[int]) -> I64:
        """Lists of ascending classes, one record's after the other's. Raises RecordError unless they ascend."""
        steps = self._ragged(place, sizes, np.uint32)
        if not steps.size:
            return np.zeros(0, np.int64)
        lengths = np.array(sizes, np.int64)
        total = np.cumsum(steps, dtype=np.int64)
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        before = np.where(starts > 0, total[starts - 1], 0)
        classes: I64 = total - np.repeat(before, lengths[lengths > 0])
        inner = np.ones(len(steps), np.bool_)
        inner[starts] = False
        if classes.max() >= self._fields[0]["num_classes"] or not steps[inner].all():
            raise RecordError(f"a list of classes does not ascend below {self._fields[0]['num_classes']}")
        return classes

    def _index(self, palette: _Place, sizes: list[int], codes: _Place, inside: I64) -> I64:
        classes, code = self._ascending(palette, sizes), self._at(codes, inside, np.uint32)
        lengths = np.array(sizes, np.int64)
        if code.size and (code >= lengths[:, None, None]).any():
            raise RecordError("a code is outside the palette")
        check_distinct(code.reshape(-1, code.shape[-1]))
        index: I64 = (
            classes[code + (np.cumsum(lengths) - lengths)[:, None, None]]
            if code.size
            else code.astype(np.int64)
        )
        return index

    def _value(self, values: _Place | None, inside: I64, coding: str, full: bool) -> NDArray[np.float32]:
        if values is None:
            return np.ones(inside.shape, np.float32)
        dtype = value_dtype(coding)
        bits = self._at(values, inside, np.dtype(f"u{dtype.itemsize}").type)
        if full:
            return decode_values(bits.view(dtype), coding)
        value = decode_values(bits.cumsum(axis=-1, dtype=bits.dtype).view(dtype), coding)
        check_falling(value.reshape(-1, value.shape[-1]))
        return value

    def _tails(self, places: _Place, codes: _Place, sizes: list[int]) -> list[Tail | None]:
        classes, code = self._ascending(places, sizes), self._ragged(codes, sizes, np.uint8)
        tails: list[Tail | None] = []
        end = 0
        for one, size in zip(self._fields, sizes, strict=True):
            part = slice(end, end := end + size)
            tails.append(
                Tail(classes[part], code[part], one["tail_scale"], one["tail_rest"]) if size else None
            )
        return tails
