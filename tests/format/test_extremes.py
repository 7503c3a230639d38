"""The limits of the format: no crops, one crop, no images, 100,000 classes, the longest and oddest names."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slg_wds.errors import FormatError, ImageSourceError
from slg_wds.format.manifest.index import build_index, decode_index, encode_index
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.records.values import CODINGS
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.names import MAX_KEY_BYTES, key_of
from slg_wds.format.shards.shard import Sample, encode_shard, read_shard
from support.format.records import make_record, quantise, same

CLASSES = 100_000
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
PARTS = st.text(LETTERS, min_size=1, max_size=40) | st.builds(
    lambda text, times: text * times, st.text(LETTERS, min_size=1, max_size=9), st.integers(1, 450)
)


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Paths that have keys, up to the longest: any letters, any depth."""
    path = "/".join(draw(st.lists(PARTS, min_size=1, max_size=6))) + draw(
        st.sampled_from([".JPEG", "", ".é"])
    )
    assume(not {".", ".."} & set(path.split("/")))
    try:
        key_of(path)
    except ImageSourceError:
        assume(False)
    return path


def as_read(record: Record) -> Record:
    return replace(record, value=quantise(record.value, record.coding))


def plan_of(names: list[str]) -> Plan:
    return Plan(
        ["train-000000"], np.array([len(names)], np.int64), StringColumn.of(names),
        StringColumn.of([key_of(name) for name in names]), np.full(len(names), -1, np.int32),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(paths(), min_size=1, max_size=3, unique_by=key_of))
def test_names_of_any_length_and_script(names: list[str]) -> None:
    plan = plan_of(names)
    assert decode_plan(encode_plan(plan)) == plan
    records = [make_record(key_of(name), path=name, crops=1) for name in names]
    data = encode_shard([Sample(record) for record in records], ShardHeader("d", 0, "train-000000"))
    shard = read_shard(data)
    assert [sample.record.key for sample in shard] == [key_of(name) for name in names]
    assert [sample.record.path for sample in shard] == names
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:  # another reader's opinion of the names
        found = [name.removesuffix(".slg.msgpack") for name in tar.getnames()]
    assert found == [*(key_of(name) for name in names), "__slg__/shard"]
    index = build_index(shard, plan, 0)
    assert decode_index(encode_index(index)) == index


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
def test_the_longest_name_and_one_byte_more(letter: str) -> None:
    longest = letter * (MAX_KEY_BYTES // len(letter.encode()))
    record = make_record(key_of(longest), path=longest, crops=1)
    assert same(decode_record(encode_record(record)), as_read(record))
    assert decode_plan(encode_plan(plan_of([longest]))).keys[0] == longest
    with pytest.raises(ImageSourceError, match="over 4096 bytes"):
        key_of(longest + "a")
    with pytest.raises(FormatError, match="4096"):
        encode_record(replace(record, key=longest + "a"))


@pytest.mark.parametrize("crops", [0, 1])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("full", [False, True])
def test_no_crop_and_one_crop(crops: int, coding: str, full: bool) -> None:
    if full and coding == "none":
        return
    k = 1 if coding == "none" else 7 if full else 5
    record = make_record(crops=crops, coding=coding, full=full, k=k, classes=7 if full else 100)
    data = encode_record(record)
    decoded = decode_record(data)
    assert same(decoded, as_read(record)) and encode_record(decoded) == data
    assert decoded.distribution().shape == (crops, record.num_classes)
    if crops:
        assert decoded.distribution().sum() == pytest.approx(1, abs=2e-3)


def wide(crops: int, k: int, seed: int, coding: str) -> Record:
    """Every crop has different classes out of 100,000: the largest palettes."""
    chance = np.random.default_rng(seed)
    index = np.stack([chance.choice(CLASSES, k, replace=False) for _ in range(crops)])
    value = -np.sort(-chance.dirichlet(np.ones(k) * 0.3, crops).astype(np.float32) * np.float32(0.9), axis=1)
    made = make_record(crops=crops, k=k, classes=CLASSES, coding=coding, seed=seed)
    return replace(made, index=index, value=value, tail=None)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 200),
    st.sampled_from([1, 2, 5, 12, 13, 50]),
    st.integers(0, 9),
    st.sampled_from(CODINGS[1:]),
)
def test_a_hundred_thousand_classes(crops: int, k: int, seed: int, coding: str) -> None:
    record = wide(crops, k, seed, coding if coding != "none" else "float32")
    data = encode_record(record)
    assert same(decode_record(data), as_read(record))
    rows = decode_rows([data] * 2, np.array([[0], [crops - 1]]))
    assert np.array_equal(rows.index.reshape(2, k), record.index[[0, crops - 1]])


def test_more_classes_in_use_than_two_bytes_number() -> None:
    record = wide(1500, 60, 0, "float16")
    assert len(np.unique(record.index)) > 1 << 15
    assert same(decode_record(encode_record(record)), as_read(record))
    every = replace(
        record, index=np.arange(1500 * 60).reshape(1500, 60), value=record.value
    )  # 90,000 classes: three planes of codes
    assert same(decode_record(encode_record(every)), as_read(every))


def test_all_of_a_hundred_thousand_classes() -> None:
    value = np.full((2, CLASSES), np.float32(1 / CLASSES))
    index = np.broadcast_to(np.arange(CLASSES), (2, CLASSES))
    made = make_record(crops=2, k=7, classes=7, full=True, coding="float32")
    record = replace(made, index=index, value=value, num_classes=CLASSES)
    assert same(decode_record(encode_record(record)), record)


def test_no_images() -> None:
    empty = Plan([], np.zeros(0, np.int64), StringColumn.of([]), StringColumn.of([]), np.zeros(0, np.int32))
    assert decode_plan(encode_plan(empty)) == empty
    shard = read_shard(encode_shard([], ShardHeader("d", 0, "train-000000")))
    assert len(shard) == 0 and list(shard) == []
