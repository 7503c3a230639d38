"""The bytes of a record -> the record, or some of its crops. `rows.py` decodes crops of many records at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError, UnsupportedFeatureError
from slg_wds.format.records.checks import (
    CHECKSUMS,
    check_boxes,
    check_distinct,
    check_falling,
    check_fields,
)
from slg_wds.format.records.columns import decode_ascending, decode_column
from slg_wds.format.records.embeddings.codec import decode_embeddings
from slg_wds.format.records.embeddings.fields import EMBEDDING
from slg_wds.format.records.low_rank.blocks import LOW_RANK, LowRank
from slg_wds.format.records.low_rank.codec import decode_low_rank, kl_of_fields, open_low_rank
from slg_wds.format.records.record import Record
from slg_wds.format.records.shape import VERSION, unpack_fields
from slg_wds.format.records.tail import Tail
from slg_wds.format.records.values import decode_values, value_dtype
from slg_wds.format.records.views import decode_views

MAX_RECORD_BYTES = 1 << 30


def decode_record(
    data: bytes | memoryview,
    *,
    rows: Any = None,
    url: str | None = None,
    shard: str | None = None,
    key: str | None = None,
) -> Record:
    """Decode a record, or some of its crops.

    Args:
        data: the bytes of the record.
        rows: int [R], numbers of the crops to decode; only these are checked. None for all.
        url: where the record is from, for messages. So are the next two.
        shard: the name of its shard.
        key: the key that the record should have.

    Raises:
        RecordError: the bytes are no record.
        UnsupportedFeatureError: it has another version.
    """
    try:
        fields = unpack_record(data)
        key = key or fields["key"]
        return _decode(fields, _row_numbers(rows, fields["num_crops"]))
    except (RecordError, UnsupportedFeatureError) as error:
        raise error.located(url=url, shard=shard, key=key) from None


def unpack_record(data: bytes | memoryview) -> dict[str, Any]:
    """Decode and check the fields of a record, but leave its columns as they are stored. Raises as `decode_record`."""
    if not 0 < len(data) <= MAX_RECORD_BYTES:
        raise RecordError(f"a record of {len(data)} bytes is not within 1 to {MAX_RECORD_BYTES}")
    fields = unpack_fields(data)
    if fields["version"] != VERSION:
        raise UnsupportedFeatureError(
            f"the record's version is {fields['version']}, this reader knows {VERSION}", hint="update slg-wds"
        )
    check_fields(fields)
    return fields


def _row_numbers(rows: Any, num_crops: int) -> Any:
    if rows is None:
        return slice(None)
    numbers = np.asarray(rows, np.int64)
    if numbers.ndim != 1 or (len(numbers) and not (numbers.min() >= 0 and numbers.max() < num_crops)):
        raise RecordError(f"the crops asked for are not among the record's {num_crops}")
    return numbers


def _decode(fields: dict[str, Any], at: Any) -> Record:
    M, columns = fields["num_crops"], fields["columns"]
    size = (fields["height"], fields["width"])
    boxes = decode_column(columns.get("boxes"), (4, M), (slice(None), at)).T.astype(np.int64, order="C")
    check_boxes(boxes, size)
    bits = decode_column(columns.get("flips"), ((M + 7) // 8,), itemsize=1)
    low_rank = _decode_low_rank(fields, at)
    embeddings = decode_embeddings(fields, at) if fields["coding"] == EMBEDDING else None
    if low_rank is not None or embeddings is not None:
        index, value = np.zeros((len(boxes), 0), np.int64), np.zeros((len(boxes), 0), np.float32)
    else:
        index, value = _decode_index(fields, at, len(boxes)), _decode_value(fields, at, len(boxes))
    return Record(
        key=fields["key"],
        path=fields["path"],
        target=fields["target"],
        size=size,
        crops=boxes,
        flips=np.unpackbits(bits, count=M, bitorder="little").view(np.bool_)[at],
        index=index,
        value=value,
        tail=_decode_tail(fields),
        coding=fields["coding"],
        full=fields["full"],
        num_classes=fields["num_classes"],
        views=decode_views(fields, at),
        embeddings=embeddings,
        **{name: fields.get(name) for name in CHECKSUMS},
        low_rank=low_rank,
    )


def _decode_low_rank(fields: dict[str, Any], at: Any) -> LowRank | None:
    if fields["coding"] != LOW_RANK:
        return None
    columns = fields["columns"]
    block_of = decode_column(columns.get("block_of"), (fields["num_crops"],))
    packed = open_low_rank(columns.get("low_rank"), block_of, fields["num_classes"])
    return decode_low_rank(packed, kl_of_fields(fields)).of(at)


def _decode_index(fields: dict[str, Any], at: Any, count: int) -> NDArray[np.int64]:
    M, k, classes, columns = fields["num_crops"], fields["k"], fields["num_classes"], fields["columns"]
    if fields["full"]:
        return np.broadcast_to(np.arange(classes), (count, classes))
    palette = decode_ascending(columns.get("palette"), fields["num_palette"], classes)
    codes = decode_column(columns.get("codes"), (M, k), at)
    if codes.size and codes.max() >= len(palette):
        raise RecordError(f"a code is outside the palette of {len(palette)} classes")
    check_distinct(codes)
    return palette.take(codes)


def _decode_value(fields: dict[str, Any], at: Any, count: int) -> NDArray[np.float32]:
    M, k, coding = fields["num_crops"], fields["k"], fields["coding"]
    if coding == "none":
        return np.ones((count, k), np.float32)
    dtype = value_dtype(coding)
    bits = decode_column(fields["columns"].get("values"), (M, k), at, dtype.itemsize)
    if fields["full"]:
        return decode_values(bits.view(dtype), coding)
    value = decode_values(bits.cumsum(axis=1, dtype=bits.dtype).view(dtype), coding)
    check_falling(value)
    return value


def _decode_tail(fields: dict[str, Any]) -> Tail | None:
    count, columns = fields["num_tail"], fields["columns"]
    if not count:
        return None
    classes = decode_ascending(columns.get("tail_classes"), count, fields["num_classes"])
    codes = decode_column(columns.get("tail_codes"), (count,), itemsize=1)
    return Tail(classes, codes, fields["tail_scale"], fields["tail_rest"])
