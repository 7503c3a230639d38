"""Decoding crops of several records at once equals decoding the records one by one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError, SlgWdsError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.records.tail import build_tail
from slg_wds.format.records.values import CODINGS
from slg_wds.format.records.views import same_views
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.grammar import parse_views


def made(rng, num_crops, k, classes, coding, full, tail):
    height, width = (int(n) for n in rng.integers(1, 70_000, 2))
    top, left = rng.integers(0, height, num_crops), rng.integers(0, width, num_crops)
    boxes = np.stack(
        [top, left, rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)], axis=1
    )
    if full:
        index, k = np.broadcast_to(np.arange(classes), (num_crops, classes)), classes
    else:
        index = np.argsort(rng.random((num_crops, classes)), axis=1)[:, :k]
    value = rng.dirichlet(np.ones(classes), num_crops)[:, :k].astype(np.float32)
    if not full:
        value = -np.sort(-value, axis=1)
    v = rng.dirichlet(np.ones(classes)) / 3
    return Record(
        key=f"k{rng.integers(1000)}",
        path="p.jpg",
        target=None if rng.random() < 0.3 else int(rng.integers(classes)),
        size=(height, width),
        crops=boxes,
        flips=rng.random(num_crops) < 0.5,
        index=index,
        value=np.ones((num_crops, k), np.float32) if coding == "none" else value,
        tail=build_tail(v, 5, num_crops, k) if tail and not full and coding != "none" else None,
        coding=coding,
        full=full,
        num_classes=classes,
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_rows_are_those_of_each_record(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    coding = data.draw(st.sampled_from(CODINGS))
    full = coding != "none" and data.draw(st.booleans())
    classes = data.draw(st.sampled_from([2, 7, 300, 5000] if not full else [2, 7, 300]))
    k = 1 if coding == "none" else data.draw(st.integers(1, min(classes - 1, 6)))
    counts = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=6))
    records = [made(rng, n, k, classes, coding, full, data.draw(st.booleans())) for n in counts]
    encoded = [encode_record(record) for record in records]
    rows = np.stack([rng.integers(0, n, 3) for n in counts])
    found = decode_rows(encoded, rows)
    for i, one in enumerate(encoded):
        expected = decode_record(one, rows=rows[i])
        assert np.array_equal(found.boxes[i], expected.crops) and found.boxes.dtype == np.int64
        assert np.array_equal(found.flips[i], expected.flips) and found.flips.dtype == np.bool_
        assert np.array_equal(found.value[i], expected.value) and found.value.dtype == np.float32
        if full:
            assert found.index is None
        else:
            assert np.array_equal(found.index[i], expected.index) and found.index.dtype == np.int64
        assert (found.tails[i] is None) == (expected.tail is None)
        if expected.tail is not None:
            assert np.array_equal(found.tails[i].classes, expected.tail.classes)
            assert np.array_equal(found.tails[i].probs, expected.tail.probs)
            assert found.tails[i].rest == expected.tail.rest
        fields = found.fields[i]
        assert (fields["key"], fields["target"]) == (expected.key, expected.target)
        assert (fields["height"], fields["width"]) == expected.size


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["log8", "none", "full"]), st.booleans(), st.booleans())
def test_some_of_the_rows_are_those_of_some_records(seed, kind, tail, views):
    rng = np.random.default_rng(seed)
    coding, k = ("float16", 9) if kind == "full" else (kind, 1 if kind == "none" else 3)
    records = [made(rng, int(n), k, 9, coding, kind == "full", tail) for n in rng.integers(1, 40, 5)]
    if views:
        rule = parse_views("rand-m9-n2", 0.0, 0.5)
        records = [
            dataclasses.replace(one, views=sample_views(seed, one.key, one.num_crops, rule))
            for one in records
        ]
    encoded, rows = (
        list(map(encode_record, records)),
        np.stack([rng.integers(0, len(r.crops), 2) for r in records]),
    )
    whole = decode_rows(encoded, rows)
    first = int(rng.integers(0, 5))
    for some in (slice(first, int(rng.integers(first + 1, 6))), slice(0, 5)):
        assert_same_rows(whole[some], decode_rows(encoded[some], rows[some]))


def assert_same_rows(found, expected):
    assert found.fields == expected.fields and (found.index is None) == (expected.index is None)
    for name in ("sizes", "boxes", "flips", "index", "value"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    for one, other in zip(found.tails, expected.tails, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (
            np.array_equal(one.classes, other.classes) and np.array_equal(one.codes, other.codes)
        )
    assert same_views(found.views, expected.views)


def pair(**changes):
    rng = np.random.default_rng(3)
    record = made(rng, 40, 3, 50, "float16", False, True)
    return [encode_record(record), encode_record(dataclasses.replace(record, **changes))]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 7), st.integers(0, 1))
def test_a_damaged_record_is_an_error_or_the_same_rows(place, bit, which):
    """Labels are never wrong: frames have checksums, and the index has a CRC-32 of the whole record."""
    data = pair()
    rows = np.array([[0, 5, 39]] * 2)
    expected = decode_rows(data, rows)
    damaged = bytearray(data[which])
    damaged[place % len(damaged)] ^= 1 << bit
    try:
        found = decode_rows([bytes(damaged) if i == which else data[i] for i in range(2)], rows)
    except SlgWdsError:
        return
    same = [
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("boxes", "flips", "index", "value")
    ]
    assert all(same)


def test_rows_outside_and_mixed_kinds_are_refused():
    data = pair()
    with pytest.raises(RecordError, match="crops asked for"):
        decode_rows(data, np.array([[0], [40]]))
    with pytest.raises(RecordError, match="crops asked for"):
        decode_rows(data, np.array([[0], [-1]]))
    with pytest.raises(RecordError, match="coding"):
        decode_rows(pair(coding="log8"), np.array([[0], [1]]))
