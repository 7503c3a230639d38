"""Decode a few crops of many records at once, for batches. decode_record does the same for one record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, cast

import numpy as np

from slg_wds.arrays import F32, I64, Bools
from slg_wds.errors import RecordError
from slg_wds.format.counting import before
from slg_wds.format.records.checks import check_boxes, check_distinct, check_falling
from slg_wds.format.records.columns import PIECE
from slg_wds.format.records.decoding import unpack_record
from slg_wds.format.records.embeddings.fields import EMBEDDING, EMBEDDINGS
from slg_wds.format.records.embeddings.rows import EmbeddingRows
from slg_wds.format.records.joined_columns import JoinedColumns, Planes
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.low_rank.codec import open_low_rank
from slg_wds.format.records.low_rank.rows import LowRankRows, decode_low_rank_rows
from slg_wds.format.records.mixing import width_of
from slg_wds.format.records.tail import Tail
from slg_wds.format.records.values import decode_values, value_dtype
from slg_wds.format.records.views import Views, assembled, joined_views, view_column_sizes

UNPACKED_BYTES = 1 << 26  # of columns that are decompressed at a time
# Fields of which records that are decoded together have one value.
AGREED = ("k", "coding", "full", "num_classes", EMBEDDINGS)
_SHARED = itemgetter(*AGREED[:-1])


@dataclass(frozen=True)
class Rows:
    """Crops of n records, c of each; see `Record`.

    Attributes:
        fields: [n], the fields of each record, without its columns.
        sizes: int64 [n, 2], height and width of each image in pixels.
        boxes: int64 [n, c, 4], in pixels: top, left, height, width.
        flips: bool [n, c].
        index: int64 [n, c, k]; None for full labels.
        value: float32 [n, c, k].
        tails: [n].
        views: what is done to the pixels of the crops, [n, c]; None for nothing.
        low_rank: low-rank labels, with k = 0; None for all other kinds.
        embeddings: of records of embeddings, with k = 0: float32 [n, c, D] by name. None for labels.
    """

    fields: list[dict[str, Any]]
    sizes: I64
    boxes: I64
    flips: Bools
    index: I64 | None
    value: F32
    tails: list[Tail | None]
    views: Views | None = None
    low_rank: LowRankRows | None = None
    embeddings: dict[str, F32] | None = None

    def __getitem__(self, some: slice) -> Rows:
        """The crops of some of the records, which follow each other."""
        embeddings = self.embeddings
        return Rows(
            fields=self.fields[some],
            sizes=self.sizes[some],
            boxes=self.boxes[some],
            flips=self.flips[some],
            index=None if self.index is None else self.index[some],
            value=self.value[some],
            tails=self.tails[some],
            views=None if self.views is None else self.views[some],
            low_rank=None if self.low_rank is None else self.low_rank[some],
            embeddings=embeddings and {name: one[some] for name, one in embeddings.items()},
        )


def decode_rows(data: Sequence[bytes | memoryview], rows: I64, labels: bool = True) -> Rows:
    """Decode some crops of records that agree in k, coding, kind, number of classes, and what all their views share.

    The checks are those of `decode_record`. All zstd frames are decompressed in one call: each call gives the
    interpreter to another thread, and getting it back takes longer than a small frame.

    Args:
        data: [n], the bytes of each record.
        rows: int64 [n, c], numbers of the crops to decode of each record.
        labels: False for boxes, flips and views alone, as partners of mixed views need: k is 0, and there are no tails.

    Raises:
        RecordError, UnsupportedFeatureError: one of the records is damaged or newer. The error does not say which;
            decode them one by one to find it.
    """
    fields = [unpack_record(one) for one in data]
    _check_agreement(fields)
    crops = np.array([one["num_crops"] for one in fields], np.int64)
    if rows.size and not (rows.min() >= 0 and (rows < crops[:, None]).all()):
        raise RecordError(f"the crops asked for are not among the record's {crops.min()}")
    parts = [
        _Group(fields[run], rows[run], crops[run]).decoded(labels) for run in _runs(fields, rows.shape[1])
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _check_agreement(fields: Sequence[dict[str, Any]]) -> None:
    """Raise RecordError if records differ in what all have in common that are decoded together."""
    first = fields[0]
    shared, embeddings = _SHARED(first), first.get(EMBEDDINGS)
    for other in fields:
        if _SHARED(other) != shared or other.get(EMBEDDINGS) != embeddings:
            name = next(one for one in AGREED if other.get(one) != first.get(one))
            raise RecordError(f"its {name} is {other.get(name)!r} where {first.get(name)!r} belongs")


def _runs(fields: Sequence[dict[str, Any]], crops: int) -> Iterator[slice]:
    """Split the records into parts that unpack to at most UNPACKED_BYTES each, or to one larger record.

    Of embeddings, so many crops may lie in as many pieces; low-rank ones are unpacked record by record.
    """
    first = total = 0
    for i, one in enumerate(fields):
        M, k = one["num_crops"], one["k"]
        views = sum(view_column_sizes(one).values())
        size = M * (8 * k + 17) + 4 * one["num_palette"] + 5 * one["num_tail"] + views
        if one["coding"] == LOW_RANK:  # a bit of Rice codes takes nine bytes
            data = one["columns"].get("low_rank")
            size += 72 * len(data) if isinstance(data, bytes) else 0  # what is no bytes is refused later
        if one["coding"] == EMBEDDING:
            size += 4 * PIECE * crops * sum(dim for _, dim, _ in one[EMBEDDINGS])
        if total and total + size > UNPACKED_BYTES:
            yield slice(first, i)
            first, total = i, 0
        total += size
    yield slice(first, len(fields))


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(
        fields=[fields for part in parts for fields in part.fields],
        sizes=np.concatenate([part.sizes for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        flips=np.concatenate([part.flips for part in parts]),
        index=None if parts[0].index is None else np.concatenate([cast(I64, part.index) for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        tails=[tail for part in parts for tail in part.tails],
        views=joined_views([part.views for part in parts]),
        low_rank=_joined_low_rank(parts),
        embeddings=_joined_embeddings([part.embeddings for part in parts]),
    )


def _joined_embeddings(
    parts: Sequence[dict[str, F32] | None],
) -> dict[str, F32] | None:
    known = [part for part in parts if part is not None]
    return {name: np.concatenate([part[name] for part in known]) for name in known[0]} if known else None


def _joined_low_rank(parts: Sequence[Rows]) -> LowRankRows | None:
    found = [part.low_rank for part in parts if part.low_rank is not None]
    return LowRankRows.joined(found) if found else None


class _Group:
    """Records that are decoded together."""

    def __init__(self, fields: list[dict[str, Any]], rows: I64, crops: I64) -> None:
        self._fields, self._rows, self._crops = fields, rows, crops
        self._columns = JoinedColumns([one["columns"] for one in fields], rows, crops)
        self._sizes = np.array([(one["height"], one["width"]) for one in fields], np.int64)

    def decoded(self, labels: bool) -> Rows:
        fields, first = self._fields, self._fields[0]
        if not labels:
            return self._decoded_crops()
        if first["coding"] == LOW_RANK:
            return self._decoded_low_rank()
        if first["coding"] == EMBEDDING:
            return self._decoded_embeddings()
        k, full, coding = first["k"], first["full"], first["coding"]
        itemsize = 0 if coding == "none" else value_dtype(coding).itemsize
        boxes, flips = self._place_boxes()
        values = self._columns.place("values", self._crops * k, itemsize) if itemsize else None
        palette_sizes, tail_sizes = self._field("num_palette"), self._field("num_tail")
        palette = None if full else self._columns.place("palette", palette_sizes)
        codes = None if full else self._columns.place("codes", self._crops * k)
        tail_classes = self._columns.place("tail_classes", tail_sizes, optional=True)
        tail_codes = self._columns.place("tail_codes", tail_sizes, 1, optional=True)
        views = self._place_views()
        self._columns.decompress()
        inside = self._rows[:, :, None] * k + np.arange(k)
        index = None
        if palette is not None and codes is not None:
            index = self._index(palette, palette_sizes, codes, inside)
        return Rows(
            fields=fields,
            sizes=self._sizes,
            boxes=self._boxes(boxes),
            flips=self._flips(flips),
            index=index,
            value=self._value(values, inside, coding, full),
            tails=self._tails(tail_classes, tail_codes, tail_sizes),
            views=self._views(views),
        )

    def _decoded_crops(self) -> Rows:
        boxes, flips = self._place_boxes()
        views = self._place_views()
        self._columns.decompress()
        return self._without_top_k(boxes, flips, views)

    def _decoded_low_rank(self) -> Rows:
        fields = self._fields
        boxes, flips = self._place_boxes()
        blocks, views = self._columns.place("block_of", self._crops), self._place_views()
        self._columns.decompress()
        block_of = np.split(self._columns.ragged(blocks, self._crops, np.uint32), np.cumsum(self._crops)[:-1])
        packed = [
            open_low_rank(one["columns"].get("low_rank"), part, one["num_classes"])
            for one, part in zip(fields, block_of, strict=True)
        ]
        low_rank = decode_low_rank_rows(packed, self._rows)
        return replace(self._without_top_k(boxes, flips, views), low_rank=low_rank)

    def _decoded_embeddings(self) -> Rows:
        boxes, flips = self._place_boxes()
        embeddings, views = EmbeddingRows(self._columns, self._fields), self._place_views()
        self._columns.decompress()
        return replace(self._without_top_k(boxes, flips, views), embeddings=embeddings.decoded())

    def _without_top_k(self, boxes: Planes, flips: Planes, views: dict[str, Planes]) -> Rows:
        """The rows of records that store no top-k: k is 0, and there are no tails."""
        none = (*self._rows.shape, 0)
        return Rows(
            fields=self._fields,
            sizes=self._sizes,
            boxes=self._boxes(boxes),
            flips=self._flips(flips),
            index=np.zeros(none, np.int64),
            value=np.zeros(none, np.float32),
            tails=[None] * len(self._fields),
            views=self._views(views),
        )

    def _place_boxes(self) -> tuple[Planes, Planes]:
        """Note the frames of boxes and flips."""
        return self._columns.place("boxes", 4 * self._crops), self._columns.place(
            "flips", (self._crops + 7) // 8, 1
        )

    def _flips(self, flips: Planes) -> Bools:
        bits = self._columns.at(flips, self._rows >> 3, np.uint8)
        flipped: Bools = (bits >> (self._rows & 7).astype(np.uint8) & 1).astype(np.bool_)
        return flipped

    def _field(self, name: str) -> I64:
        return np.array([one[name] for one in self._fields], np.int64)

    def _boxes(self, planes: Planes) -> I64:
        boxes: I64 = self._columns.across(planes, 4, np.uint32).astype(np.int64)
        check_boxes(boxes.reshape(-1, 4), np.repeat(self._sizes, self._rows.shape[1], axis=0))
        return boxes

    def _ascending(self, planes: Planes, lengths: I64) -> I64:
        """Lists of ascending classes, one record's after the other's. Raises RecordError unless they ascend."""
        steps = self._columns.ragged(planes, lengths, np.uint32)
        if not steps.size:
            return np.zeros(0, np.int64)
        total, there = np.cumsum(steps, dtype=np.int64), lengths[lengths > 0]
        starts = before(there)
        first = steps[starts]
        classes: I64 = total - np.repeat(total[starts] - first, there)
        flat = np.count_nonzero(steps) - np.count_nonzero(first) < len(steps) - len(first)
        if flat or classes.max() >= self._fields[0]["num_classes"]:
            raise RecordError(f"a list of classes does not ascend below {self._fields[0]['num_classes']}")
        return classes

    def _index(self, palette: Planes, lengths: I64, codes: Planes, inside: I64) -> I64:
        classes, code = self._ascending(palette, lengths), self._columns.at(codes, inside, np.uint32)
        if code.size and (code >= lengths[:, None, None]).any():
            raise RecordError("a code is outside the palette")
        check_distinct(code.reshape(-1, code.shape[-1]))
        index: I64 = classes[code + before(lengths)[:, None, None]] if code.size else code.astype(np.int64)
        return index

    def _value(self, values: Planes | None, inside: I64, coding: str, full: bool) -> F32:
        if values is None:
            return np.ones(inside.shape, np.float32)
        dtype = value_dtype(coding)
        bits = self._columns.at(values, inside, np.dtype(f"u{dtype.itemsize}").type)
        if full:
            return decode_values(bits.view(dtype), coding)
        value = decode_values(bits.cumsum(axis=-1, dtype=bits.dtype).view(dtype), coding)
        check_falling(value.reshape(-1, value.shape[-1]))
        return value

    def _tails(self, kept: Planes, codes: Planes, lengths: I64) -> list[Tail | None]:
        if not lengths.any():
            return [None] * len(lengths)
        classes, code = self._ascending(kept, lengths), self._columns.ragged(codes, lengths, np.uint8)
        tails: list[Tail | None] = []
        end = 0
        for one, size in zip(self._fields, lengths.tolist(), strict=True):
            part = slice(end, end := end + size)
            tails.append(
                Tail(classes[part], code[part], one["tail_scale"], one["tail_rest"]) if size else None
            )
        return tails

    def _place_views(self) -> dict[str, Planes]:
        """Note the frames of the columns of views; return the planes of each."""
        sizes = [view_column_sizes(one) for one in self._fields]
        names = dict.fromkeys(name for one in sizes for name in one)
        counts = {name: np.array([one.get(name, 0) for one in sizes], np.int64) for name in names}
        return {
            name: self._columns.place(name, each, width_of(name), optional=True)
            for name, each in counts.items()
        }

    def _views(self, placed: dict[str, Planes]) -> Views | None:
        if all(one.get("views") is None for one in self._fields):
            return None
        found = []
        for i, (fields, rows) in enumerate(zip(self._fields, self._rows, strict=True)):
            sizes = view_column_sizes(fields)
            columns = {
                name: self._columns.numbers(placed[name], i, name, count) for name, count in sizes.items()
            }
            views = assembled(fields, columns, rows)
            found.append(None if views is None else views[None])
        return joined_views(found)
