"""Mixing of records: what is written is read, by every reader; and what cannot be is refused."""

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
from slg_wds.format.records.mixing import Mixing, same_mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.records.views import Views, joined_views, same_views, with_views
from slg_wds.verification.records import all_sound
from support.format.records import make_record
from support.oracles.format_oracle import read_record

NAMES = ("partner", "crop", "lam", "box")


@st.composite
def mixing_of(draw: Any, crops: int) -> Mixing:
    images = np.array(draw(st.lists(st.integers(0, (1 << 28) - 1), min_size=1, max_size=9)))
    kind = draw(some.arrays(np.int64, crops, elements=st.integers(0, 2)))
    partner = images[draw(some.arrays(np.int64, crops, elements=st.integers(0, len(images) - 1)))]
    crop = draw(some.arrays(np.uint16, crops))
    lam = draw(some.arrays(np.uint8, crops, elements=st.integers(1, 255)))
    corner = draw(some.arrays(np.uint8, (crops, 2), elements=st.integers(0, 254)))
    extent = draw(some.arrays(np.uint8, (crops, 2), elements=st.integers(1, 255)))
    box = np.concatenate([corner, np.minimum(extent, 255 - corner)], axis=1)
    return Mixing(
        np.where(kind > 0, partner, -1),
        np.where(kind > 0, crop, 0).astype(np.uint16),
        np.where(kind == 1, lam, 0).astype(np.uint8),
        np.where((kind == 2)[:, None], box, 0).astype(np.uint8),
    )


def mixed(mixing: Mixing | None, crops: int, operations: int = 1) -> Record:
    codes = np.tile(np.arange(crops, dtype=np.uint8)[:, None] % 4, operations)
    views = Views(codes, codes, np.zeros((crops, 4), np.uint8), mixing=mixing)
    return dataclasses.replace(make_record(crops=crops), views=views)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_reader_finds_the_mixing_that_was_written(data):
    crops = data.draw(st.integers(0, 40))
    mixing = data.draw(mixing_of(crops))
    record = mixed(mixing, crops, data.draw(st.integers(0, 2)))
    encoded = encode_record(record)
    assert same_views(decode_record(encoded).views, record.views)
    oracle = read_record(encoded)
    for name in NAMES:
        assert np.array_equal(oracle[name], getattr(mixing, name))
    rows = np.array(
        data.draw(st.lists(st.integers(0, max(0, crops - 1)), max_size=5 if crops else 0)), np.int64
    )
    assert same_mixing(decode_record(encoded, rows=rows).views.mixing, mixing[rows])
    assert same_mixing(decode_rows([encoded], rows[None]).views.mixing, mixing[rows][None])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_mixing_of_several_records_is_read_and_joined(data):
    counts = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    records = [mixed(data.draw(mixing_of(crops)), crops) for crops in counts]
    views = [record.views for record in records]
    rows = np.stack(
        [np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=3, max_size=3))) for n in counts]
    )
    found = decode_rows([encode_record(one) for one in records], rows).views
    parts = [one[at][None] for one, at in zip(views, rows, strict=True)]
    assert same_views(found, joined_views(parts))
    for name in NAMES:
        expected = [getattr(one.mixing, name)[at] for one, at in zip(views, rows, strict=True)]
        assert np.array_equal(getattr(found.mixing, name), np.stack(expected))
    replaced = with_views(views[0], [0], views[-1], [counts[-1] - 1])
    assert same_mixing(replaced.mixing[0], views[-1].mixing[counts[-1] - 1])
    assert same_mixing(replaced.mixing[1:], views[0].mixing[1:])


def test_weights_are_those_of_the_own_view():
    one = Mixing(
        np.array([-1, 3, 3, 3]),
        np.zeros(4, np.uint16),
        np.array([0, 64, 0, 0], np.uint8),
        np.array([[0] * 4, [0] * 4, [0, 0, 255, 51], [0, 0, 255, 255]], np.uint8),
    )
    assert one.weights().tolist() == [1.0, 0.25, 0.8, 0.0]
    assert one.renumbered({3: 9}).partner.tolist() == [-1, 9, 9, 9]


def test_a_record_of_a_mixed_set_may_have_nothing_mixed():
    encoded = encode_record(mixed(Mixing.none(5), 5))
    assert msgpack.unpackb(encoded)["mixing"] == [0, 0, 0]
    assert same_mixing(decode_record(encoded).views.mixing, Mixing.none(5))
    with pytest.raises(RecordError, match="differ in the kind of their views"):
        decode_rows([encoded, encode_record(mixed(None, 5))], np.zeros((2, 2), np.int64))


GOOD = Mixing(
    np.array([-1, 8, 5]),
    np.array([0, 2, 65535], np.uint16),
    np.array([0, 0, 77], np.uint8),
    np.array([[0] * 4, [5, 6, 250, 249], [0] * 4], np.uint8),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partner": np.array([-1, 8, -1])}, "mixing without a partner"),
        ({"partner": np.array([-2, 8, 5])}, "not an image's number"),
        ({"partner": np.array([1 << 28, 8, 5])}, "not an image's number"),
        ({"box": np.array([[0] * 4, [5, 6, 0, 3], [0] * 4], np.uint8)}, "a side of 0"),
        ({"box": np.array([[0] * 4, [6, 6, 250, 3], [0] * 4], np.uint8)}, "not within its view"),
        ({"box": np.array([[0] * 4, [5, 6, 2, 3], [5, 6, 2, 3]], np.uint8)}, "a mix box and a weight"),
        ({"crop": np.array([0, 2, 7])}, "has the types"),
        ({"lam": np.zeros(2, np.uint8)}, "not that of 3 crops"),
    ],
)
def test_mixing_that_cannot_be_is_not_written(change, message):
    with pytest.raises(RecordError, match=message):
        encode_record(mixed(dataclasses.replace(GOOD, **change), 3))


def test_over_255_partners_are_not_written():
    crops = np.arange(256)
    many = Mixing(crops, crops.astype(np.uint16), np.full(256, 9, np.uint8), np.zeros((256, 4), np.uint8))
    encode_record(mixed(many[1:], 255))
    with pytest.raises(RecordError, match="256 partners, over 255"):
        encode_record(mixed(many, 256))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": [2, 2]}, "not three whole numbers"),
        ({"mixing": 7}, "not three whole numbers"),
        ({"mixing": [3, 2, 1]}, "out of its range"),
        ({"mixing": [2, 2, 3]}, "out of its range"),
        ({"mixing": [0, 2, 1]}, "does not fit 3 crops"),
        ({"mixing": [2, 4, 1]}, "does not fit 3 crops"),
        ({"mixing": [2, 3, 1]}, "a zstd frame declares 2 bytes where 3 belong"),
        ({"mixing": [2, 2, 2]}, "2 that belong"),
        ({"mixing": [1, 2, 1]}, "declares 2 bytes where 1 belong"),
        ({"views": None}, "does not fit 3 crops and their views"),
    ],
)
def test_damaged_mixing_is_refused_by_all_readers(changes, message):
    fields = msgpack.unpackb(encode_record(mixed(GOOD, 3)))
    assert fields["mixing"] == [2, 2, 1]
    data = msgpack.packb({**fields, **changes}, use_single_float=True)
    with pytest.raises(RecordError, match=message):
        decode_record(data)
    with pytest.raises(RecordError):
        decode_rows([data], np.zeros((1, 1), np.int64))
    assert not all_sound([{**fields, **changes}], 1e-3)
