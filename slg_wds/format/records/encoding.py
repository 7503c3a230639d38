"""A record -> its bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.checks import (
    CHECKSUMS,
    check_boxes,
    check_distinct,
    check_falling,
    check_fields,
)
from slg_wds.format.records.columns import encode_ascending, encode_column
from slg_wds.format.records.embeddings.by_name import check_embeddings
from slg_wds.format.records.embeddings.codec import embedding_columns
from slg_wds.format.records.embeddings.fields import embedding_fields
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.low_rank.codec import encode_low_rank, kl_fields
from slg_wds.format.records.record import Record
from slg_wds.format.records.shape import VERSION, check_shape
from slg_wds.format.records.tail_sums import TAIL_SUMS, encode_tail_sums
from slg_wds.format.records.values import check_coding, check_probabilities, encode_values
from slg_wds.format.records.views import check_views, view_columns, view_fields


def encode_record(record: Record) -> bytes:
    """Encode a record. Raises RecordError for labels that the format cannot hold."""
    try:
        _check_arrays(record)
        fields, columns = _fields(record), _columns(record)
        if not record.full and not record.low_rank and record.embeddings is None:
            palette, codes = _palette(record.index, record.num_classes)
            fields["num_palette"] = len(palette)
            columns |= {"palette": encode_ascending(palette), "codes": encode_column(codes)}
        check_shape(fields)
        check_fields(fields)
    except RecordError as error:
        raise error.located(key=record.key) from None
    return msgpack.packb({**fields, "columns": columns}, use_single_float=True)


def _fields(record: Record) -> dict[str, Any]:
    tail = record.tail
    return {
        "version": VERSION,
        "key": record.key,
        "path": record.path,
        "target": None if record.target is None else int(record.target),
        "height": int(record.size[0]),
        "width": int(record.size[1]),
        "num_crops": record.num_crops,
        "k": record.k,
        "num_classes": int(record.num_classes),
        "coding": record.coding,
        "full": record.full,
        "num_palette": 0,
        "num_tail": len(tail.classes) if tail else 0,
        "tail_scale": float(tail.scale) if tail else 0.0,
        "tail_rest": float(tail.rest) if tail else 0.0,
        **(kl_fields(record.low_rank.kl) if record.low_rank else {}),
        **{name: value for name in CHECKSUMS if (value := getattr(record, name)) is not None},
        **view_fields(record.views),
        **embedding_fields(record.embeddings),
    }


def _columns(record: Record) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "boxes": encode_column(record.crops.T.astype(np.uint32)),
        "flips": encode_column(np.packbits(record.flips, bitorder="little")),
    }
    if record.low_rank:
        columns["block_of"] = encode_column(record.low_rank.block_of.astype(np.uint32))
        columns["low_rank"] = encode_low_rank(record.low_rank)
        return columns | view_columns(record.views)
    if record.embeddings is not None:
        return columns | view_columns(record.views) | embedding_columns(record.embeddings)
    if record.coding != "none":
        stored = encode_values(record.value, record.coding)
        check_coding(record.value, stored, record.coding, record.full)
        bits = stored.view(f"<u{stored.itemsize}")
        columns["values"] = encode_column(bits if record.full else _steps(bits))
    if record.tail:
        columns["tail_classes"] = encode_ascending(record.tail.classes)
        columns["tail_codes"] = encode_column(record.tail.codes)
    if record.tail_sums is not None:
        columns[TAIL_SUMS] = encode_tail_sums(record.tail_sums)
    return columns | view_columns(record.views)


def _steps(bits: NDArray[Any]) -> NDArray[Any]:
    """The first number of each row of [M, k], then each one's difference from the one before, modulo 2**bits."""
    steps: NDArray[Any] = bits.copy()
    steps[:, 1:] -= bits[:, :-1]
    return steps


def _palette(index: NDArray[np.int64], num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """The distinct classes of [M, k], ascending [P], and the position of each class among them [M, k]."""
    if num_classes <= 8 * index.size:
        seen = np.zeros(num_classes, bool)
        seen[index] = True
        return np.flatnonzero(seen), (seen.cumsum(dtype=np.uint32) - np.uint32(1))[index]
    palette, codes = np.unique(index, return_inverse=True)
    return palette, codes.reshape(index.shape).astype(np.uint32)


def _check_arrays(record: Record) -> None:
    if record.index.ndim != 2:
        raise RecordError(f"indices of shape {record.index.shape} are not [M, k]")
    M, k = record.index.shape
    shapes = (record.crops.shape, record.flips.shape, record.value.shape)
    if shapes != ((M, 4), (M,), (M, k)):
        raise RecordError(f"boxes, flips and values of shapes {shapes} do not match indices [{M}, {k}]")
    kinds = record.crops.dtype.kind + record.flips.dtype.kind + record.index.dtype.kind
    if kinds.replace("u", "i") != "ibi":
        raise RecordError("boxes and indices are not whole numbers, or flips are not bool")
    check_boxes(record.crops, record.size)
    if record.views is not None:
        check_views(record.views, M)
    if record.low_rank or record.coding == LOW_RANK:
        _check_low_rank(record)
        return
    if record.embeddings is not None:
        check_embeddings(record.embeddings, M)
        return
    if record.full:
        if (record.index != np.arange(k)).any():
            raise RecordError("full labels are not in class order")
        return
    if record.index.size and not (record.index.min() >= 0 and record.index.max() < record.num_classes):
        raise RecordError(f"a class is not below {record.num_classes}, the number of classes, or is negative")
    check_distinct(record.index)
    check_falling(check_probabilities(record.value))


def _check_low_rank(record: Record) -> None:
    labels, M = record.low_rank, record.num_crops
    if labels is None or record.coding != LOW_RANK or record.full or record.k or record.tail is not None:
        raise RecordError("low-rank labels have the coding lowrank, and neither top-k nor tail")
    if labels.block_of.shape != (M,) or len(labels.coefficients) != M:
        raise RecordError(f"the low-rank labels are not of {M} crops")
    if any(block.num_classes != record.num_classes for block in labels.blocks):
        raise RecordError(f"the low-rank labels are not over {record.num_classes} classes")
    if not np.array_equal(np.unique(labels.block_of), np.arange(len(labels.blocks))):
        raise RecordError("a block of the low-rank labels has no crop, or a crop no block")
