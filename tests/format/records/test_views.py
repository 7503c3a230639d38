"""Views of records: what is written is read, by every reader; and what cannot be is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from slg_wds.errors import RecordError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.records.views import Views, joined_views, same_views
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.grammar import parse_views
from support.format.records import make_record
from support.oracles.format_oracle import read_record


@st.composite
def views_of(draw: Any, crops: int, operations: int | None = None) -> Views:
    S = draw(st.integers(0, 16)) if operations is None else operations
    codes = draw(some.arrays(np.uint8, (crops, S), elements=st.integers(0, 255)))
    arguments = draw(some.arrays(np.uint8, (crops, S), elements=st.integers(0, 255)))
    corner = draw(some.arrays(np.uint8, (crops, 2), elements=st.integers(0, 254)))
    extent = draw(some.arrays(np.uint8, (crops, 2), elements=st.integers(0, 255)))
    extent = np.minimum(extent, 255 - corner)
    extent[~extent.all(axis=1)] = 0
    erased = np.concatenate([np.where(extent > 0, corner, 0), extent], axis=1).astype(np.uint8)
    return Views(
        codes,
        np.where(codes > 0, arguments, 0).astype(np.uint8),
        erased,
        0x7C7468,
        draw(st.integers(0, 0xFFFFFF)),
    )


def with_views_of(views: Views | None, key: str = "a") -> Record:
    crops = 12 if views is None else len(views.erased)
    return dataclasses.replace(make_record(key, crops=crops), views=views)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_reader_finds_the_views_that_were_written(data):
    crops = data.draw(st.integers(0, 40))
    views = data.draw(views_of(crops))
    encoded = encode_record(with_views_of(views))
    assert same_views(decode_record(encoded).views, views)
    oracle = read_record(encoded)
    for name in ("operations", "arguments", "erased"):
        assert np.array_equal(oracle[name], getattr(views, name))
    assert oracle["views"][3:] == [views.fill, views.erase_fill]
    rows = np.array(
        data.draw(st.lists(st.integers(0, max(0, crops - 1)), max_size=5 if crops else 0)), np.int64
    )
    assert same_views(decode_record(encoded, rows=rows).views, views[rows])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_views_of_several_records_are_read_together(data):
    S, counts = data.draw(st.integers(0, 4)), data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    views = [dataclasses.replace(data.draw(views_of(crops, S)), erase_fill=3) for crops in counts]
    rows = np.stack(
        [np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=3, max_size=3))) for n in counts]
    )
    found = decode_rows([encode_record(with_views_of(one)) for one in views], rows).views
    assert same_views(found, joined_views([one[at][None] for one, at in zip(views, rows, strict=True)]))


def test_records_without_views_have_none():
    data = encode_record(with_views_of(None))
    assert decode_record(data).views is None and b"views" not in data
    assert decode_rows([data], np.zeros((1, 2), np.int64)).views is None


def test_records_with_and_without_views_are_not_read_together():
    some_views = Views(*np.zeros((2, 12, 1), np.uint8), np.zeros((12, 4), np.uint8))
    encoded = [encode_record(with_views_of(one)) for one in (some_views, None)]
    with pytest.raises(RecordError, match="differ in the kind of their views"):
        decode_rows(encoded, np.zeros((2, 2), np.int64))


CODES = np.array([[4, 0], [0, 9], [41, 3]], np.uint8)
GOOD = Views(
    CODES, (CODES > 0) * np.uint8(7), np.array([[0, 0, 0, 0], [5, 6, 250, 249], [0, 0, 1, 1]], np.uint8)
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": np.full((3, 2), 7, np.uint8)}, "an argument without an operation"),
        ({"erased": np.array([[1, 1, 0, 3]] * 3, np.uint8)}, "a box of which one side is 0"),
        ({"erased": np.array([[1, 1, 255, 3]] * 3, np.uint8)}, "not within its view"),
        ({"arguments": np.zeros((3, 1), np.uint8)}, "not those of 3 crops"),
        ({"operations": CODES.astype(np.int64)}, "are not bytes"),
        ({"fill": 1 << 24}, "out of its range"),
        (
            {"operations": np.zeros((3, 17), np.uint8), "arguments": np.zeros((3, 17), np.uint8)},
            "out of its range",
        ),
    ],
)
def test_views_that_cannot_be_are_not_written(change, message):
    with pytest.raises(RecordError, match=message):
        encode_record(with_views_of(dataclasses.replace(GOOD, **change)))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ([2, 4, 2, 0], "not five whole numbers"),
        ("views", "not five whole numbers"),
        ([2, 3, 2, 0, 0], "a zstd frame declares 4 bytes where 3 belong"),
        ([2, 7, 2, 0, 0], "at most 2 each"),
        ([2, 4, 4, 0, 0], "out of its range"),
        ([2, 4, 1, 0, 0], "declares 8 bytes where 4 belong"),
        ([0, 0, 3, 0, 0], "declares 8 bytes where 12 belong"),
    ],
)
def test_damaged_views_are_refused_by_both_readers(field, message):
    fields = msgpack.unpackb(encode_record(with_views_of(GOOD)))
    data = msgpack.packb({**fields, "views": field}, use_single_float=True)
    with pytest.raises(RecordError, match=message):
        decode_record(data)
    with pytest.raises(RecordError):
        decode_rows([data], np.zeros((1, 1), np.int64))


@pytest.mark.parametrize(
    ("aa", "most"), [("rand-m9-mstd0.5-inc1", 3.0), ("ra-n2-m9", 3.0), ("trivialaugment", 3.0)]
)
def test_randaugment_and_erasing_take_at_most_3_bytes_a_crop(aa, most):
    """At 500 crops of an image, columns and fields together."""
    rule = parse_views(aa, 0.0, 0.25).with_mean((0.485, 0.456, 0.406))
    sizes = []
    for key in "abcdefgh":
        plain = make_record(key, crops=500)
        viewed = dataclasses.replace(plain, views=sample_views(0, key, 500, rule))
        sizes.append((len(encode_record(viewed)) - len(encode_record(plain))) / 500)
    assert np.mean(sizes) <= most
