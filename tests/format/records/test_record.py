"""Records: round trips, and every kind of malformed record."""

from __future__ import annotations

import contextlib
import copy
import pickle
import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError, SlgWdsError, UnsupportedFeatureError
from slg_wds.format.records.columns import MAX_NUMBERS, decode_column, encode_column
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail
from support.format.records import make_record, quantise, records, same
from support.oracles import format_oracle as oracle


def as_read(record: Record) -> Record:
    return replace(record, value=quantise(record.value, record.coding))


@settings(max_examples=250, deadline=None)
@given(records())
def test_round_trip(record: Record) -> None:
    data = encode_record(record)
    decoded = decode_record(data)
    assert same(decoded, as_read(record))
    assert encode_record(decoded) == data
    assert (decoded.crops.dtype, decoded.flips.dtype) == (np.int64, np.bool_)
    assert (decoded.index.dtype, decoded.value.dtype) == (np.int64, np.float32)


@settings(max_examples=150, deadline=None)
@given(records())
def test_a_reader_written_from_the_specification_agrees(record: Record) -> None:
    data = encode_record(record)
    read, decoded = oracle.read_record(data), decode_record(data)
    assert (read["height"], read["width"]) == decoded.size
    assert [read[n] for n in ("key", "path", "target")] == [decoded.key, decoded.path, decoded.target]
    assert np.array_equal(read["boxes"], decoded.crops)
    assert np.array_equal(read["flips"], decoded.flips)
    assert np.array_equal(read["values"], decoded.value)
    if not record.full:
        assert np.array_equal(read["index"], decoded.index)
    if decoded.tail:
        assert np.array_equal(read["tail_classes"], decoded.tail.classes)
        assert np.array_equal(read["tail_probs"], decoded.tail.probs)
        assert read["tail_rest"] == decoded.tail.rest


@settings(max_examples=100, deadline=None)
@given(records(), st.data())
def test_some_crops_are_those_of_all(record: Record, data: st.DataObject) -> None:
    number = st.integers(0, max(0, record.num_crops - 1))
    rows = data.draw(st.lists(number, max_size=6 if record.num_crops else 0))
    encoded = encode_record(record)
    every, some = decode_record(encoded), decode_record(encoded, rows=rows)
    at = np.array(rows, np.int64)
    parts = {name: getattr(every, name)[at] for name in ("crops", "flips", "index", "value")}
    assert same(some, replace(every, **parts))


@pytest.mark.parametrize("rows", [[20], [-1], [0, 99], [[1]]])
def test_crops_that_are_not_there(rows: list[Any]) -> None:
    with pytest.raises(RecordError, match="are not among the record's 20"):
        decode_record(encode_record(make_record(crops=20)), rows=rows)


@pytest.mark.parametrize("classes", [255, 256, 257, 65536, 65537, 100_000])
def test_many_classes(classes: int) -> None:
    index = np.random.default_rng(1).permutation(classes)[: classes // 10 * 10].reshape(-1, 10)
    record = make_record(crops=len(index), classes=10, k=10, coding="log8")
    record = replace(record, index=index, num_classes=classes)
    assert same(decode_record(encode_record(record)), as_read(record))


def test_fields_are_written_in_the_order_of_the_specification() -> None:
    names = "version key path target height width num_crops k num_classes coding full num_palette num_tail"
    assert " ".join(msgpack.unpackb(encode_record(make_record()))) == f"{names} tail_scale tail_rest columns"
    checked = replace(make_record(), image_crc32=0, source_crc32=(1 << 32) - 1)
    found = " ".join(msgpack.unpackb(encode_record(checked)))
    assert found == f"{names} tail_scale tail_rest image_crc32 source_crc32 columns"


def test_what_numpy_gives_is_taken() -> None:
    record = make_record()
    narrow = replace(
        record,
        crops=record.crops.astype(np.uint16),
        index=record.index.astype(np.int32),
        value=record.value.astype(np.float64),
        size=tuple(np.array(record.size)),
        target=np.int64(7),  # type: ignore[arg-type]
        num_classes=np.int32(100),  # type: ignore[arg-type]
    )
    assert encode_record(narrow) == encode_record(record)


@pytest.mark.parametrize("name", ["a" * 4096, "猫/三毛猫" * 200, "a\nb", "%2E", "e\u0301"])
def test_names(name: str) -> None:
    decoded = decode_record(encode_record(replace(make_record(), key=name, path=name)))
    assert (decoded.key, decoded.path) == (name, name)


def changed(**fields: Any) -> Record:
    return replace(make_record(crops=20, k=5, classes=100, size=(375, 500)), **fields)


def with_item(name: str, at: Any, value: Any) -> Record:
    array = np.array(getattr(make_record(), name))
    array[at] = value
    return changed(**{name: array})


UNFIT = {
    "no key": (changed(key=""), "the key is not text of 1 to 4096 bytes"),
    "long key": (changed(key="é" * 2049), "the key is not text of 1 to 4096 bytes"),
    "NUL in path": (changed(path="a\0b"), "without NUL"),
    "surrogate": (changed(path="a\udc80"), "the path is not UTF-8"),
    "negative target": (changed(target=-1), r"Expected `int` >= 0 - at `\$.target`"),
    "huge target": (changed(target=1 << 31), r"Expected `int` <= 2147483647 - at `\$.target`"),
    "no height": (changed(size=(0, 500)), "a box is not within"),
    "box below": (with_item("crops", (3, 0), 400), "a box is not within the image of 375 x 500"),
    "box left": (with_item("crops", (3, 1), -1), "a box is not within"),
    "empty box": (with_item("crops", (3, 2), 0), "a box is not within"),
    "wide box": (with_item("crops", (3, 3), 501), "a box is not within"),
    "class over": (with_item("index", (3, 0), 100), "a class is not below 100"),
    "class under": (with_item("index", (3, 0), -1), "a class is not below 100"),
    "class twice": (with_item("index", (3, slice(2)), 9), "a class occurs twice within a crop's top-k"),
    "NaN": (with_item("value", (3, 0), np.nan), "are not within"),
    "negative value": (with_item("value", (3, 4), -1e-9), "are not within"),
    "value over 1": (with_item("value", (3, 0), 1.002), "are not within"),
    "infinite": (with_item("value", (3, 0), np.inf), "are not within"),
    "rising": (with_item("value", (3, 4), 0.9), "probabilities rise within a crop's top-k"),
    "coding": (changed(coding="log4"), "no values are stored with coding 'log4'"),
    "none of many": (changed(coding="none"), "labels without values hold one class, not 5"),
    "full of some": (changed(full=True), "full labels are not in class order"),
    "shapes": (changed(flips=np.zeros(19, bool)), r"of shapes \(\(20, 4\), \(19,\), \(20, 5\)\)"),
    "one axis": (changed(index=np.zeros(20, np.int64)), r"are not \[M, k\]"),
    "float boxes": (changed(crops=make_record().crops * 1.0), "are not whole numbers"),
    "float flips": (changed(flips=np.zeros(20)), "flips are not bool"),
    "k over classes": (changed(num_classes=4, index=np.tile(np.arange(5), (20, 1))), "a class is not below 4,"),
    "no classes": (changed(index=np.zeros((0, 5), int), value=np.zeros((0, 5)), crops=np.zeros((0, 4), int),
                           flips=np.zeros(0, bool), num_classes=0), "5 of 0 classes are no labels"),
    "tail too large": (changed(num_classes=7, index=np.tile(np.arange(5), (20, 1))), "a tail of 5 do not fit"),
    "checksum": (changed(image_crc32=1 << 32), r"Expected `int` <= 4294967295 - at `\$.image_crc32`"),
    "tail rest": (changed(tail=Tail(np.array([3]), np.zeros(1, np.uint8), 0.5, float("nan"))),
                  r"Expected `float` >= 0.0 - at `\$.tail_rest`"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_labels_that_cannot_be_written(case: str) -> None:
    record, message = UNFIT[case]
    with pytest.raises(RecordError, match=message) as caught:
        encode_record(record)
    assert caught.value.key == record.key
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=options.pop("checksum", True), **options).compress(data)


def malformed(change: Any) -> bytes:
    """The bytes of a good record whose fields `change` has altered."""
    fields = msgpack.unpackb(encode_record(make_record(crops=20, k=5, classes=100)))
    fields = change(fields) or fields
    return msgpack.packb(fields)


def put(name: str, value: Any) -> Any:
    return lambda fields: fields.update({name: value})


def put_column(name: str, value: Any) -> Any:
    return lambda fields: fields["columns"].update({name: value})


WRONG = {
    "version 2": (put("version", 2), "the record's version is 2"),
    "no version": (lambda f: f.pop("version") and None, "not a map with a version"),
    "version text": (put("version", "1"), "not a map with a version"),
    "a list": (lambda f: [1, 2], "not a map with a version"),
    "no key": (lambda f: f.pop("key") and None, "missing required field `key`"),
    "binary path": (put("path", b"a"), r"Expected .*, got `bytes` - at `\$.path`"),
    "bool target": (put("target", True), r"Expected `int . null`, got `bool` - at `\$.target`"),
    "no target": (lambda f: f.pop("target") and None, "missing required field `target`"),
    "huge height": (put("height", 1 << 31), r"Expected `int` <= 2147483647 - at `\$.height`"),
    "float width": (put("width", 500.0), r"Expected `int`, got `float` - at `\$.width`"),
    "many crops": (put("num_crops", 1 << 40), r"Expected `int` <= 1048576 - at `\$.num_crops`"),
    "crops": (put("num_crops", 21), "a zstd frame declares 80 bytes where 84 belong"),
    "no k": (put("k", 0), "0 of 100 classes are no labels"),
    "k over classes": (put("num_classes", 4), "do not fit in 4 classes"),
    "coding": (put("coding", "log4"), "coding 'log4' is unknown"),
    "coding list": (put("coding", ["log8"]), r"Expected `str`, got `array` - at `\$.coding`"),
    "full": (put("full", 1), r"Expected `bool`, got `int` - at `\$.full`"),
    "full of some": (put("full", True), "full labels hold a value of every class, not 5 of 100"),
    "none": (put("coding", "none"), "hold one class, not 5"),
    "tail": (put("num_tail", 96), "a tail of 96 do not fit"),
    "palette": (put("num_palette", 101), "a palette of 101 classes is more than there can be"),
    "checksum over": (put("image_crc32", 1 << 32), r"Expected `int` <= 4294967295 - at `\$.image_crc32`"),
    "checksum under": (put("source_crc32", -1), r"Expected `int` >= 0 - at `\$.source_crc32`"),
    "checksum nil": (put("image_crc32", None), r"Expected `int`, got `None` - at `\$.image_crc32`"),
    "checksum bool": (put("image_crc32", True), r"Expected `int`, got `bool` - at `\$.image_crc32`"),
    "tail scale": (put("tail_scale", -0.5), r"Expected `float` >= 0.0 - at `\$.tail_scale`"),
    "tail rest": (put("tail_rest", float("inf")), r"Expected `float` <= 2.0 - at `\$.tail_rest`"),
    "tail NaN": (put("tail_rest", float("nan")), r"Expected `float` >= 0.0 - at `\$.tail_rest`"),
    "tail text": (put("tail_rest", "0"), r"Expected `float`, got `str` - at `\$.tail_rest`"),
    "no columns": (put("columns", []), r"Expected `object`, got `array` - at `\$.columns`"),
    "columns missing": (lambda f: f.pop("columns") and None, "missing required field `columns`"),
    "no boxes": (put_column("boxes", None), "a column is not a list of at most 4 planes"),
    "five planes": (put_column("boxes", [b""] * 5), "a column is not a list of at most 4 planes"),
    "two planes": (put_column("tail_codes", [b""] * 2), "a column is not a list of at most 1 planes"),
    "text plane": (put_column("boxes", ["x"]), r"Expected `bytes`, got `str` - at `\$.columns\[...\]\[0\]`"),
    "no frame": (put_column("boxes", [b"x" * 30]), "a zstd frame is damaged"),
    "cut frame": (put_column("boxes", [frame(bytes(range(80)))[:-1]]), "a zstd frame is damaged"),
    "two frames": (put_column("boxes", [frame(bytes(80)) * 2]), "a zstd frame is damaged"),
    "no checksum": (put_column("boxes", [frame(bytes(80), checksum=False)]), "has no checksum"),
    "no size": (put_column("boxes", [frame(bytes(80), write_content_size=False)]), "where 80 belong"),
    "long content": (put_column("boxes", [frame(bytes(81))]), "declares 81 bytes where 80 belong"),
    "empty boxes": (put_column("boxes", []), "a box is not within the image"),
    "far box": (put_column("boxes", [frame(b"\xff" * 80)] * 4), "a box is not within the image"),
    "code over": (put_column("codes", [frame(b"\xfe" * 100)]), "a code is outside the palette"),
    "code twice": (put_column("codes", []), "a class occurs twice"),
    "steps of 0": (put_column("palette", []), "a list of classes does not ascend"),
    "class over": (lambda f: f["columns"].update(palette=[frame(b"\xff" * f["num_palette"])]), "ascend below 100"),
    "rising": (put_column("values", [frame(bytes(range(100)))]), "probabilities rise within"),
    "over 1": (put_column("values", [frame(n + bytes(99)) for n in (b"\1", b"\x3c")]), r"not within \[0, 1\]"),
    "NaN": (put_column("values", [frame(b"\xff" + bytes(99))] * 2), r"are not within \[0, 1\]"),
    "tail twice": (put_column("tail_classes", []), "does not ascend"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_each_malformation_has_its_error(case: str) -> None:
    change, message = WRONG[case]
    kind = UnsupportedFeatureError if case == "version 2" else RecordError
    with pytest.raises(kind, match=message) as caught:
        decode_record(malformed(change), url="s3://b/set", shard="train-000001.tar", key="cats/tabby")
    assert "(key cats/tabby, shard train-000001.tar, url s3://b/set)" in str(caught.value)


def test_a_share_may_be_a_whole_number() -> None:
    """As writers in other languages store a 0."""
    plain = decode_record(encode_record(make_record(crops=20, k=5, classes=100)))
    found = decode_record(malformed(put("tail_rest", 1)))
    assert plain.tail is not None and found.tail is not None
    assert type(found.tail.rest) is float and found.tail.rest == 1.0 and found.tail.scale == plain.tail.scale


def test_unknown_fields_and_columns_are_left_alone() -> None:
    plain = decode_record(encode_record(make_record(crops=20, k=5, classes=100)))

    def add(fields: dict[str, Any]) -> None:
        fields["colour"] = ["new"]
        fields["columns"]["depth"] = [b"whatever"]

    assert same(decode_record(malformed(add)), plain)
    assert same(decode_record(malformed(lambda fields: dict(reversed(fields.items())))), plain)


def test_a_newer_version_is_named_whatever_shape_it_has() -> None:
    newer = {"version": 2, "key": b"new", "columns": [{"boxes": [[]]}], "views": {"a": {}}}
    with pytest.raises(UnsupportedFeatureError, match="the record's version is 2, this reader knows 1"):
        decode_record(msgpack.packb(newer))


LISTS = {"in one": [[]] * 250_000, "within each other": [[[[]] * 50] * 50] * 90, "maps": [{}] * 250_000}


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize(
    "name", ["colour", "key", "views", "kl_parents", "embeddings", "lowrank", "columns", "boxes"]
)
def test_lists_take_no_more_memory_than_a_record_may(name: str, lists: str) -> None:
    put_there = put_column if name == "boxes" else put
    data = malformed(put_there(name, LISTS[lists]))
    tracemalloc.start()
    try:
        with contextlib.nullcontext() if name == "colour" else pytest.raises(RecordError):
            decode_record(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\xc7\x08\xff" + bytes(8),
     b"\xd6\xff" + bytes(4), b"\xa1\xff", b"\x81\xa1a", b"\x81\x90\x01", b"\xc6\xff\xff\xff\xff", b"\x01\x02"],
)  # fmt: skip
def test_bytes_that_are_no_record(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"msgpack|not a map|not within"):
        decode_record(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_or_gives_a_record_that_may_be_stored(data: st.DataObject) -> None:
    good = encode_record(make_record(crops=9, coding=data.draw(st.sampled_from(["float16", "log8"]))))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.none() | st.integers(0, len(bad)))
    try:
        found = decode_record(bytes(bad[:end]))
    except SlgWdsError:
        return
    assert same(decode_record(encode_record(found)), found)


def test_a_column_is_bounded_before_memory_is_taken() -> None:
    huge = {"num_crops": 1 << 20, "k": 1 << 10, "num_classes": 1 << 12, "num_tail": 0}
    with pytest.raises(RecordError, match="over the limit of"):
        decode_record(
            malformed(lambda f: f.update(huge) or f["columns"].update(boxes=[], flips=[], codes=[])), rows=[]
        )
    with pytest.raises(RecordError, match="over the limit of"):
        encode_column(np.broadcast_to(np.uint8(1), (MAX_NUMBERS + 1,)))


@pytest.mark.parametrize("top", [0, 1, 255, 256, 65535, 65536, (1 << 24) - 1, 1 << 24, (1 << 32) - 1])
def test_columns_take_the_planes_they_need(top: int) -> None:
    numbers = np.array([[0, top], [1 if top else 0, top // 2]], np.uint32)
    planes = encode_column(numbers)
    assert len(planes) == (top.bit_length() + 7) // 8
    assert np.array_equal(decode_column(planes, (2, 2)), numbers)
    assert np.array_equal(decode_column(copy.copy(planes), (2, 2), itemsize=4), numbers)
    assert encode_column(np.zeros((0, 3), np.uint8)) == []
