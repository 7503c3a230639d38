"""One image's labels <-> msgpack bytes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError, UnsupportedFeatureError
from slg_wds.format.columns import decode_column, encode_column
from slg_wds.format.tail import Tail, build_tail
from slg_wds.format.values import (
    CODINGS,
    DTYPES,
    check_probabilities,
    decode_values,
    encode_values,
    quantise,
)

__all__ = [
    "CODINGS",
    "Record",
    "Tail",
    "build_tail",
    "decode_record",
    "decode_values",
    "encode_record",
    "encode_values",
    "quantise",
]

VERSION = 1
MAX_TEXT_BYTES = 4096
MAX_CROPS = 1 << 24
MAX_CLASSES = 1 << 24
MAX_SIDE = (1 << 31) - 1
MAX_RECORD_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Record:
    """One image's labels.

    key, path: text of 1 to 4096 bytes of UTF-8. target: 0 <= target, or None. size: (height, width) in pixels.
    crops: int64 [M, 4], top, left, height, width, within the image. flips: bool [M].
    index: int64 [M, k], classes of each crop, distinct, in falling order of probability; for full, 0 to C - 1.
    value: float32 [M, k], their probabilities, never rising along a row (unless full); ones where coding is "none".
    rule: the label set's default rule of recovery; not stored in the record.
    """

    key: str
    path: str
    target: int | None
    size: tuple[int, int]
    crops: NDArray[np.int64]
    flips: NDArray[np.bool_]
    index: NDArray[np.int64]
    value: NDArray[np.float32]
    tail: Tail | None
    coding: str
    full: bool
    num_classes: int
    rule: str | None = None

    @property
    def num_crops(self) -> int:
        return len(self.crops)

    @property
    def k(self) -> int:
        return int(self.index.shape[1])

    def distribution(self, num_classes: int | None = None, rule: str | None = None) -> NDArray[np.float32]:
        """The labels as distributions, float32 [M, C]; see slg_wds.labels.distribution."""
        # By name: this layer knows nothing of the ones above, and only this convenience reaches up.
        labels = importlib.import_module("slg_wds.labels")
        return cast("NDArray[np.float32]", labels.distribution(self, num_classes, rule or self.rule))


def encode_record(record: Record) -> bytes:
    """The bytes of one record. Raises RecordError for labels that the format cannot hold, naming the key."""
    try:
        _check_record(record)
        fields = _scalars(record)
        fields["columns"] = _columns(record, fields)
    except RecordError as error:
        raise error.located(key=record.key) from None
    return cast(bytes, msgpack.packb(fields, use_single_float=True))


def _scalars(record: Record) -> dict[str, Any]:
    tail = record.tail
    return {
        "version": VERSION,
        "key": record.key,
        "path": record.path,
        "target": record.target,
        "height": int(record.size[0]),
        "width": int(record.size[1]),
        "num_crops": record.num_crops,
        "k": record.k,
        "num_classes": int(record.num_classes),
        "coding": record.coding,
        "full": record.full,
        "num_palette": 0,
        "num_tail": len(tail.classes) if tail else 0,
        "tail_scale": tail.scale if tail else 0.0,
        "tail_rest": tail.rest if tail else 0.0,
    }


def _columns(record: Record, fields: dict[str, Any]) -> dict[str, list[bytes]]:
    columns = {
        "boxes": encode_column(record.crops.T.astype(np.uint32)),
        "flips": encode_column(np.packbits(record.flips, bitorder="little")),
    }
    if not record.full:
        palette, codes = _palette(record.index, record.num_classes)
        fields["num_palette"] = len(palette)
        columns["palette"] = encode_column(_differences(palette.astype(np.uint32)))
        columns["codes"] = encode_column(codes)
    if record.coding != "none":
        columns["values"] = encode_column(_stored_values(record))
    if record.tail:
        columns["tail_classes"] = encode_column(_differences(record.tail.classes.astype(np.uint32)))
        columns["tail_codes"] = encode_column(record.tail.codes)
    return columns


def _palette(index: NDArray[np.int64], num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """The distinct classes ascending, and each entry's position among them [M, k]."""
    if num_classes <= 8 * index.size:
        seen = np.zeros(num_classes, bool)
        seen[index] = True
        position = np.cumsum(seen, dtype=np.uint32) - np.uint32(1)
        return np.flatnonzero(seen), position[index]
    palette, codes = np.unique(index, return_inverse=True)
    return palette, codes.reshape(index.shape).astype(np.uint32)


def _stored_values(record: Record) -> NDArray[Any]:
    stored = encode_values(record.value, record.coding)
    bits = stored.view(np.dtype(f"<u{stored.itemsize}"))
    return bits if record.full else _differences(bits)


def _differences(values: NDArray[Any]) -> NDArray[Any]:
    """Along the last axis: the first number, then each one's difference to the one before, modulo 2**bits."""
    out = values.copy()
    out[..., 1:] -= values[..., :-1]
    return out


def _check_record(record: Record) -> None:
    _check_text("key", record.key)
    _check_text("path", record.path)
    M, k = record.index.shape if record.index.ndim == 2 else (-1, -1)
    shapes = (record.crops.shape, record.flips.shape, record.value.shape)
    if shapes != ((M, 4), (M,), (M, k)):
        raise RecordError(
            f"boxes, flips and values of shapes {shapes} do not go with indices {record.index.shape}"
        )
    _check_scalars(_scalars(record))
    _check_boxes(record.crops, record.size)
    if record.full:
        return
    if record.index.size and not (record.index.min() >= 0 and record.index.max() < record.num_classes):
        raise RecordError(f"class indices are not within [0, {record.num_classes})")
    _check_distinct(record.index)
    value = check_probabilities(record.value)
    if (value[:, 1:] > value[:, :-1]).any():
        raise RecordError("probabilities rise within a crop's top-k")


def _check_text(name: str, text: Any) -> None:
    try:
        size = len(text.encode("utf-8")) if isinstance(text, str) else 0
    except UnicodeEncodeError:
        raise RecordError(f"the {name} is not UTF-8") from None
    if not 0 < size <= MAX_TEXT_BYTES:
        raise RecordError(f"the {name} is not text of 1 to {MAX_TEXT_BYTES} bytes")


_RANGES = {
    "height": (1, MAX_SIDE),
    "width": (1, MAX_SIDE),
    "num_crops": (0, MAX_CROPS),
    "k": (1, MAX_CLASSES),
    "num_classes": (1, MAX_CLASSES),
    "num_palette": (0, MAX_CLASSES),
    "num_tail": (0, MAX_CLASSES),
}


def _check_scalars(fields: dict[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        number = fields.get(name)
        if type(number) is not int or not low <= number <= high:
            raise RecordError(f"{name} is {number!r}, not a whole number from {low} to {high}")
    target = fields.get("target")
    if target is not None and (type(target) is not int or not 0 <= target < 1 << 31):
        raise RecordError(f"target is {target!r}, neither a class nor nil")
    k, classes, coding, full = (fields.get(name) for name in ("k", "num_classes", "coding", "full"))
    if not isinstance(coding, str) or coding not in CODINGS or type(full) is not bool:
        raise RecordError(f"coding {coding!r} with full {full!r} is unknown")
    if full and (k != classes or coding == "none"):
        raise RecordError(f"full labels hold a value of every class, not {k} of {classes} as {coding!r}")
    if coding == "none" and k != 1:
        raise RecordError(f"labels without values hold one class, not {k}")
    if k > classes or fields["num_tail"] > classes - k or fields["num_palette"] > classes:
        raise RecordError(f"k {k} and tail {fields['num_tail']} do not fit in {classes} classes")
    for name in ("tail_scale", "tail_rest"):
        if type(fields.get(name)) is not float or not 0.0 <= fields[name] < float("inf"):
            raise RecordError(f"{name} is {fields.get(name)!r}, not a finite number")


def _check_boxes(boxes: NDArray[np.int64], size: tuple[int, int]) -> None:
    corner, extent = boxes[:, :2], boxes[:, 2:]
    if len(boxes) and ((corner < 0) | (extent < 1) | (extent > np.array(size) - corner)).any():
        raise RecordError(f"a box is not within the image of {size[0]} x {size[1]}")


def _check_distinct(index: NDArray[Any]) -> None:
    ordered = np.sort(index, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise RecordError("a class occurs twice within a crop's top-k")


def decode_record(
    data: bytes | memoryview,
    *,
    rows: Any = None,
    url: str | None = None,
    shard: str | None = None,
    key: str | None = None,
) -> Record:
    """One record from its bytes; with `rows` (crop numbers, int [R]) only those crops, checked alone.

    Raises RecordError for every malformation and UnsupportedFeatureError for a newer version; url, shard and key
    are what their messages name.
    """
    try:
        fields = _unpack(data)
        key = key or fields["key"]
        return _decode(fields, None if rows is None else np.asarray(rows, np.int64))
    except (RecordError, UnsupportedFeatureError) as error:
        raise error.located(url=url, shard=shard, key=key) from None


def _unpack(data: bytes | memoryview) -> dict[str, Any]:
    if not 0 < len(data) <= MAX_RECORD_BYTES:
        raise RecordError(f"a record of {len(data)} bytes is not within 1 to {MAX_RECORD_BYTES}")
    try:
        fields = msgpack.unpackb(data, max_array_len=64, max_map_len=256, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds for bytes that are not msgpack
        raise RecordError(f"the record is not msgpack: {type(error).__name__} {error}") from None
    if not isinstance(fields, dict) or type(fields.get("version")) is not int:
        raise RecordError("the record is not a map with a version")
    if fields["version"] != VERSION:
        raise UnsupportedFeatureError(
            f"the record's version is {fields['version']}, this reader knows {VERSION}", hint="update slg-wds"
        )
    _check_text("key", fields.get("key"))
    _check_text("path", fields.get("path"))
    _check_scalars(fields)
    if not isinstance(fields.get("columns"), dict):
        raise RecordError("the record has no map of columns")
    return fields


def _decode(fields: dict[str, Any], rows: NDArray[np.int64] | None) -> Record:
    M, k, columns = fields["num_crops"], fields["k"], fields["columns"]
    if rows is not None and len(rows) and not (rows.min() >= 0 and rows.max() < M):
        raise RecordError(f"crops asked for are not within the record's {M}")
    at = slice(None) if rows is None else rows
    size = (fields["height"], fields["width"])
    wide = 2 if max(size) < 1 << 16 else 4
    boxes = decode_column(columns.get("boxes"), wide, 4 * M).reshape(4, M)[:, at].T.astype(np.int64)
    _check_boxes(boxes, size)
    bits = decode_column(columns.get("flips"), 1, (M + 7) // 8)
    flips = np.unpackbits(bits, count=M, bitorder="little").view(np.bool_)[at]
    index = _decode_index(fields, at, len(boxes))
    return Record(
        key=fields["key"],
        path=fields["path"],
        target=fields["target"],
        size=size,
        crops=boxes,
        flips=flips,
        index=index,
        value=_decode_value(fields, at, len(boxes)),
        tail=_decode_tail(fields),
        coding=fields["coding"],
        full=fields["full"],
        num_classes=fields["num_classes"],
    )


def _decode_index(fields: dict[str, Any], at: Any, count: int) -> NDArray[np.int64]:
    M, k, classes = fields["num_crops"], fields["k"], fields["num_classes"]
    if fields["full"]:
        return np.broadcast_to(np.arange(classes), (count, classes))
    palette = _ascending(fields["columns"].get("palette"), fields["num_palette"], classes)
    wide = 1 if len(palette) <= 1 << 8 else 2 if len(palette) <= 1 << 16 else 4
    codes = decode_column(fields["columns"].get("codes"), wide, M * k).reshape(M, k)[at]
    if codes.size and codes.max() >= len(palette):
        raise RecordError(f"a code is outside the palette of {len(palette)} classes")
    _check_distinct(codes)
    return palette[codes]


def _ascending(planes: Any, count: int, classes: int) -> NDArray[np.int64]:
    steps = decode_column(planes, 2 if classes <= 1 << 16 else 4, count)
    out = np.cumsum(steps, dtype=np.int64)
    if count and (out[-1] >= classes or (count > 1 and steps[1:].min() < 1)):
        raise RecordError(f"a list of classes does not ascend within {classes}")
    return out


def _decode_value(fields: dict[str, Any], at: Any, count: int) -> NDArray[np.float32]:
    M, k, coding = fields["num_crops"], fields["k"], fields["coding"]
    if coding == "none":
        return np.ones((count, k), np.float32)
    kind = DTYPES[coding]
    bits = decode_column(fields["columns"].get("values"), kind.itemsize, M * k).reshape(M, k)[at]
    if not fields["full"]:
        bits = np.cumsum(bits, axis=1, dtype=bits.dtype)
    value = decode_values(bits.view(kind), coding)
    if not fields["full"] and k > 1 and (value[:, 1:] > value[:, :-1]).any():
        raise RecordError("probabilities rise within a crop's top-k")
    return value


def _decode_tail(fields: dict[str, Any]) -> Tail | None:
    if not fields["num_tail"]:
        return None
    columns, count = fields["columns"], fields["num_tail"]
    classes = _ascending(columns.get("tail_classes"), count, fields["num_classes"])
    codes = decode_column(columns.get("tail_codes"), 1, count)
    return Tail(classes, codes, fields["tail_scale"], fields["tail_rest"])
