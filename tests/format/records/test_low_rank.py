"""Low-rank records: what is stored comes back, whole, in parts and in batches, and hostile sizes are refused."""

import dataclasses
import struct
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError, RuleError, SlgWdsError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.low_rank.blocks import joined
from slg_wds.format.records.rows import decode_rows
from support.format.records import make_low_rank, make_low_rank_record, make_record, same, same_low_rank
from support.oracles.format_oracle import read_record

RECORDS = st.builds(
    make_low_rank_record,
    crops=st.integers(0, 40),
    classes=st.sampled_from([1, 2, 7, 100, 3000]),
    seed=st.integers(0, 10**6),
    blocks=st.integers(1, 4),
    rank=st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_a_record_comes_back(record):
    assert same(decode_record(encode_record(record)), record)


@settings(max_examples=25, deadline=None)
@given(RECORDS)
def test_the_reader_of_the_specification_finds_the_same_distributions(record):
    found = read_record(encode_record(record))["probabilities"]
    assert np.allclose(found, record.distribution(), atol=1e-6)
    assert found.shape == (record.num_crops, record.num_classes)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS.filter(lambda record: record.num_crops), min_size=1, max_size=5), st.integers(0, 99))
def test_rows_of_a_batch_are_those_of_each_record(records, seed):
    records = [record for record in records if record.num_classes == records[0].num_classes]
    rng = np.random.default_rng(seed)
    crops = np.stack([rng.integers(0, record.num_crops, 3) for record in records])
    rows = decode_rows([encode_record(record) for record in records], crops)
    labels = rows.low_rank
    assert rows.index.shape == rows.value.shape == (len(records), 3, 0)
    for i, record in enumerate(records):
        expected = record.low_rank.of(crops[i]).distributions()
        part = decode_record(encode_record(record), rows=crops[i])
        assert same_low_rank(part.low_rank, record.low_rank.of(crops[i]))
        assert np.array_equal(rows.boxes[i], record.crops[crops[i]])
        for j in range(3):
            # Logits are rounded to float32, so what they give is off by a share of the largest: hundreds in some cases.
            share = 1e-5 + 4 * largest_logit(labels, i, j) * 2.0**-24
            assert np.allclose(expanded(labels, i, j), expected[j], rtol=share, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS.filter(lambda record: record.num_crops), min_size=2, max_size=5), st.integers(0, 99))
def test_some_rows_of_a_batch_have_their_own_blocks_alone(records, seed):
    records = [record for record in records if record.num_classes == records[0].num_classes]
    rng = np.random.default_rng(seed)
    encoded = [encode_record(record) for record in records]
    crops = np.stack([rng.integers(0, record.num_crops, 3) for record in records])
    first = int(rng.integers(0, len(records)))
    some = slice(first, int(rng.integers(first + 1, len(records) + 1)))
    found = decode_rows(encoded, crops)[some].low_rank
    expected = decode_rows(encoded[some], crops[some]).low_rank
    for field in dataclasses.fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert np.array_equal(one, other) and np.shape(one) == np.shape(other), field.name


def table_of(labels, b):
    """The classes and the mean [n + 1] of block b, and its rows [r, n + 1]."""
    sizes = labels.kept + 1
    first, line = sizes[:b].sum(), (sizes * labels.rank)[:b].sum()
    rows = labels.rows[line : line + sizes[b] * labels.rank[b]].reshape(labels.rank[b], sizes[b])
    return labels.classes[first : first + sizes[b]], labels.mean[first : first + sizes[b]], rows


def largest_logit(labels, i, j):
    """The largest sum of magnitudes that makes up a logit of a crop."""
    _, mean, rows = table_of(labels, labels.block[i, j])
    mean, reach = np.abs(mean.astype(float)), np.abs(labels.coefficients[i, j, : len(rows)].astype(float))
    return float((mean + reach @ np.abs(rows.astype(float)))[np.isfinite(mean)].max())


def expanded(labels, i, j):
    """A crop's distribution [C] from the arrays, as their description says."""
    classes, mean, rows = table_of(labels, labels.block[i, j])
    assert not labels.coefficients[i, j, len(rows) :].any()
    z = mean.astype(float) + labels.coefficients[i, j, : len(rows)].astype(float) @ rows
    p = np.exp(z - z.max())
    p /= p.sum()
    C, n = labels.num_classes, len(classes) - 1
    full = np.full(C, p[0] / max(C - n, 1))
    full[classes[1:]] = p[1:]
    assert classes[0] == C and (mean[0] == -np.inf) == (n == C)
    return full


@pytest.mark.parametrize(
    "kind", ["hard", "smoothing", "marginal_smoothing_k3", "marginal_renorm_k90", "full"]
)
def test_every_rule_reads_them_as_full_labels(kind):
    record = make_low_rank_record(crops=9, classes=90, seed=4)
    value = record.low_rank.distributions().astype(np.float32)
    full = dataclasses.replace(
        make_record(crops=9, classes=90, k=90, full=True), value=value, coding="float32"
    )
    assert np.array_equal(record.distribution(rule=kind), full.distribution(rule=kind))
    assert np.array_equal(record.distribution(), record.distribution(rule="full"))
    assert np.array_equal(record.distribution(), record.distribution(rule="lowrank"))


def test_other_rules_are_refused():
    with pytest.raises(RuleError, match="shared tail"):
        make_low_rank_record().distribution(rule="shared_tail_k5")
    with pytest.raises(RuleError, match="low-rank"):
        make_record().distribution(rule="lowrank")


def test_parts_join():
    parts = [make_low_rank(7, 50, blocks=2, seed=2), make_low_rank(5, 50, rank=1, seed=4)]
    both = joined(parts)
    assert np.array_equal(both.distributions(), np.concatenate([part.distributions() for part in parts]))
    assert both.kl.against == "teacher" and both.kl.mean == 0.0625
    assert joined([make_low_rank(3, 9, seed=1), parts[1]]).kl.against == "labels"


def changed(record, **fields):
    stored = msgpack.unpackb(encode_record(record))
    for name, value in fields.items():
        (stored if name in stored else stored["columns"])[name] = value
    return msgpack.packb(stored, use_single_float=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 1},
        {"num_tail": 1},
        {"full": True},
        {"kl_mean": -1.0},
        {"kl_mean": float("nan")},
        {"kl_worst": 1},
        {"kl_against": "nothing"},
        {"kl_parents": [0.1] * 65},
        {"kl_parents": ["x"]},
        {"low_rank": b""},
        {"low_rank": [b""]},
        {"block_of": None},
        {"num_classes": 3},
        {"coding": "log8"},
    ],
)
def test_fields_that_cannot_be_are_refused(fields):
    with pytest.raises(RecordError):
        decode_record(changed(make_low_rank_record(), **fields))


def sized(blocks, rest=b"", kept="H"):
    body = b"".join(struct.pack(f"<{kept}BB", *block) for block in blocks) + rest
    return struct.pack("<I", zlib.crc32(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        sized([]),
        sized([(101, 0, 0)]),
        sized([(5, 0, 0), (5, 0, 0)]),
        sized([(5, 0, 0)], b"\0\0"),
        sized([(5, 0, 0)], b"\xff\xff"),
        sized([(5, 2, 0)], b"\xff"),
        sized([(100, 255, 0)] * 20),
    ],
)
def test_impossible_sizes_are_refused(data):
    with pytest.raises(RecordError):
        decode_record(changed(make_low_rank_record(), low_rank=data))


def test_zeros_that_would_fill_memory_are_refused():
    record = make_low_rank_record(crops=1)
    bands = 12
    data = sized([((1 << 24) - 1, 255, 0)], b"\xff" * (2 + 255 * (1 + bands) // 2), "I")
    with pytest.raises(RecordError, match="numbers"):
        decode_record(changed(record, low_rank=data, num_classes=1 << 24))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_damaged_record_is_an_error_or_the_same_labels(place, bit):
    record = make_low_rank_record(crops=12, classes=60, blocks=2, seed=5)
    data = bytearray(encode_record(record))
    data[place % len(data)] ^= 1 << bit
    try:
        found = decode_record(bytes(data))
    except SlgWdsError:
        return
    assert np.array_equal(found.low_rank.coefficients, record.low_rank.coefficients)
    assert np.array_equal(found.low_rank.blocks[0].basis, record.low_rank.blocks[0].basis)


def test_what_a_record_cannot_hold_is_refused():
    record = make_low_rank_record(crops=6, classes=20, blocks=2)
    labels = record.low_rank
    wrong = [
        dataclasses.replace(record, low_rank=labels.of(np.arange(5))),
        dataclasses.replace(record, num_classes=21),
        dataclasses.replace(record, coding="log8"),
        dataclasses.replace(record, low_rank=None),
        dataclasses.replace(record, low_rank=dataclasses.replace(labels, block_of=np.zeros(6, np.int64))),
    ]
    for one in wrong:
        with pytest.raises(RecordError):
            encode_record(one)
