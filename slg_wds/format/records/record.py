"""A record, one image's labels <-> its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError, UnsupportedFeatureError
from slg_wds.format.packed import unpack
from slg_wds.format.records.checks import CHECKSUMS, check_boxes, check_distinct, check_falling, check_fields
from slg_wds.format.records.columns import decode_ascending, decode_column, encode_ascending, encode_column
from slg_wds.format.records.embeddings import (
    EMBEDDING,
    AnyEmbedding,
    check_embeddings,
    decode_embeddings,
    embedding_columns,
    embedding_fields,
)
from slg_wds.format.records.low_rank import LOW_RANK, LowRank, StatedKL
from slg_wds.format.records.low_rank_codec import decode_low_rank, encode_low_rank, open_low_rank
from slg_wds.format.records.tail import Tail
from slg_wds.format.records.tail_sums import TAIL_SUMS, encode_tail_sums
from slg_wds.format.records.values import (
    check_coding,
    check_probabilities,
    decode_values,
    encode_values,
    value_dtype,
)
from slg_wds.format.records.views import (
    Views,
    check_views,
    decode_views,
    view_columns,
    view_fields,
)
from slg_wds.format.recovery.distributions import distribution
from slg_wds.format.recovery.temperature import power_of

VERSION = 1
MAX_RECORD_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Record:
    """The labels of one image: M crops, k classes stored for each, of C classes.

    Attributes:
        key: names the image within the set; 1 to 4096 bytes of UTF-8.
        path: the image's path below its source, as long.
        target: the image's class, or None.
        size: (height, width) of the image in pixels.
        crops: int64 [M, 4], the boxes in pixels of the image: top, left, height, width.
        flips: bool [M], whether each crop is mirrored.
        index: int64 [M, k], the classes of each crop, distinct, the most probable first; for full labels 0 to C - 1,
            read-only.
        value: float32 [M, k], the probabilities of these classes, never rising along a row unless full; ones for
            coding "none".
        tail: the shared tail, or None.
        coding: how probabilities are stored, one of CODINGS, "lowrank" or "embedding".
        full: whether every class is stored, in class order.
        num_classes: C.
        rule: the default rule of recovery. It comes from the label set; records do not store it.
        tail_sums: float64 [C], for each class the sum over crops of its probability outside the top-k. Only sets
            that can be extended store it. Only `decode_tail_sums` reads it; a decoded record has None.
        image_crc32: CRC-32 of the image file whose pixels were labelled: the embedded one, if images are embedded.
            None in sets from before there were checksums.
        source_crc32: CRC-32 of the file that the embedded image was re-encoded from; None if it was not re-encoded.
        temperature: what the teachers' logits were divided by. It comes from the label set, as `rule`; else None.
        views: what is done to the pixels of the crops after they are cut, [M]; None for nothing.
        low_rank: the labels, if they are low-rank; then k is 0, and there is no tail. Else None.
        embeddings: if teachers' embeddings are stored and no labels, the embeddings of the crops by their names; then
            k and num_classes are 0. Else None.
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
    tail_sums: NDArray[np.float64] | None = None
    image_crc32: int | None = None
    source_crc32: int | None = None
    temperature: float | None = None
    views: Views | None = None
    low_rank: LowRank | None = None
    embeddings: dict[str, AnyEmbedding] | None = None

    @property
    def num_crops(self) -> int:
        """Number of crops, M."""
        return len(self.crops)

    @property
    def k(self) -> int:
        """Classes stored for each crop."""
        return int(self.index.shape[1])

    def distribution(
        self, num_classes: int | None = None, rule: str | None = None, temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Recover the labels as distributions.

        Args:
            num_classes: C, as a check; None for no check.
            rule: a label type such as "marginal_smoothing_k5"; None uses all that is stored.
            temperature: of the teachers' softmax, T; None: as the labels were made. For labels made at T0, which the
                record has from its label set, the recovered probabilities are raised to T0 / T and divided by their
                sum.

        Returns:
            float32 [M, C]; each row sums to 1 within 1e-6.

        Raises:
            UsageError: the rule is unknown, `num_classes` is not the record's, or the temperature is not above 0 or
                that of the labels not known.
            RuleError: the stored columns cannot give the rule.
        """
        return distribution(self, num_classes, rule, power_of(temperature, self.temperature))


def encode_record(record: Record) -> bytes:
    """Encode a record. Raises RecordError for labels that the format cannot hold."""
    try:
        _check_arrays(record)
        fields, columns = _fields(record), _columns(record)
        if not record.full and not record.low_rank and record.embeddings is None:
            palette, codes = _palette(record.index, record.num_classes)
            fields["num_palette"] = len(palette)
            columns |= {"palette": encode_ascending(palette), "codes": encode_column(codes)}
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
        **(_stated_fields(record.low_rank.kl) if record.low_rank else {}),
        **{name: value for name in CHECKSUMS if (value := getattr(record, name)) is not None},
        **view_fields(record.views),
        **embedding_fields(record.embeddings),
    }


def _stated_fields(kl: StatedKL) -> dict[str, Any]:
    parents = [None if one is None else float(one) for one in kl.parents]
    return {
        "kl_mean": float(kl.mean),
        "kl_worst": float(kl.worst),
        "kl_against": kl.against,
        "kl_parents": parents,
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
    try:
        fields = unpack(data)
    except Exception as error:  # msgpack raises many kinds for bytes that are not msgpack
        raise RecordError(f"the record is not msgpack: {type(error).__name__} {error}") from None
    if type(fields) is not dict or type(fields.get("version")) is not int:
        raise RecordError("the record is not a map with a version")
    if fields["version"] != VERSION:
        raise UnsupportedFeatureError(
            f"the record's version is {fields['version']}, this reader knows {VERSION}", hint="update slg-wds"
        )
    check_fields(fields)
    if type(fields.get("columns")) is not dict:
        raise RecordError("the record has no map of columns")
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
    return decode_low_rank(packed, stated_kl(fields)).of(at)


def stated_kl(fields: dict[str, Any]) -> StatedKL:
    """Return what the fields of a low-rank record say of its divergence."""
    return StatedKL(fields["kl_mean"], fields["kl_worst"], fields["kl_against"], tuple(fields["kl_parents"]))


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
