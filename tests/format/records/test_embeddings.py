"""Records of embeddings: what every reader finds, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slg_wds.errors import RecordError, RuleError
from slg_wds.format.frames import compress
from slg_wds.format.records.columns import decode_pieces, encode_pieces
from slg_wds.format.records.decoding import decode_record, unpack_record
from slg_wds.format.records.embeddings.by_name import joined_embeddings
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import StatedCosine
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.verification.records import all_sound
from support.format.records import make_embedding_record, make_embeddings, make_record, same
from support.oracles.format_oracle import read_record

KINDS = st.dictionaries(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
    st.tuples(st.integers(1, 40), st.sampled_from(["float32", "float16", "int8", "lowrank"])),
    min_size=1,
    max_size=3,
)


@given(KINDS, st.integers(0, 30), st.integers(0, 99))
def test_every_reader_finds_the_same_embeddings(kinds, crops, seed):
    record = make_embedding_record(kinds=kinds, crops=crops, seed=seed)
    data = encode_record(record)
    found = decode_record(data)
    assert same(found, record) and encode_record(found) == data
    assert all_sound([unpack_record(data)], 0.0)
    for name, vectors in read_record(data)["embeddings"]:
        assert alike(vectors, record.embeddings[name].vectors)
    if crops:
        rows = np.array([crops - 1, 0])
        some = decode_record(data, rows=rows).embeddings
        batch = decode_rows([data, data], np.stack([rows, rows[::-1]])).embeddings
        for name, one in record.embeddings.items():
            assert alike(some[name].vectors, one.vectors[rows])
            assert alike(batch[name], one.vectors[np.stack([rows, rows[::-1]])])


def alike(one: Any, other: Any) -> bool:
    """Whether embeddings are the same, but for the order of sums of low-rank ones."""
    return one.dtype == other.dtype and np.allclose(
        one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max(initial=0)
    )


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_int8_is_within_half_a_step_of_the_largest_number(vectors):
    try:
        coded = Embedding.of(vectors, "int8")
    except RecordError as error:
        assert "cosine" in str(error)  # numbers so small that no float32 is 1/127 of them
        return
    half = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float64) / 254
    assert (np.abs(coded.vectors.astype(np.float64) - vectors) <= half * (1 + 1e-5) + 1e-44).all()
    assert coded.stored.nbytes + coded.scales.nbytes == 3 * (7 + 4)


@pytest.mark.parametrize("dim", [1, 8192])
def test_the_narrowest_and_the_widest_usual_embedding(dim):
    vectors = np.random.default_rng(0).normal(size=(50, dim)).astype(np.float32)
    for values, least in (("float32", 1.0), ("float16", 0.9999999), ("int8", 0.9999)):
        read = decode_record(encode_record(record_of(vectors, values))).embeddings["a"].vectors
        assert cosines(read, vectors).min() >= least - 1e-12
        assert values != "float32" or np.array_equal(read, vectors)


def test_a_zero_vector_stays_zero_and_its_cosine_is_defined():
    vectors = np.array([[0.0, 0.0], [3.0, -4.0]])
    for values in ("float32", "float16", "int8"):
        read = decode_record(encode_record(record_of(vectors, values))).embeddings["a"].vectors
        assert not read[0].any() and cosines(read, vectors).tolist() == pytest.approx([1.0, 1.0])
    assert cosines(vectors, vectors[::-1]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("vectors", "values", "message"),
    [
        ([[1.0, np.nan]], "int8", "not finite"),
        ([[np.inf, 1.0]], "float32", "not finite"),
        ([[70_000.0]], "float16", "too large for float16"),
        ([[3e38]], "int8", "too large for int8"),
        ([[1.0, *[0.003] * 9000]], "int8", "cosine .* choose --values float16"),
        ([[1e-9, 2e-9]], "float16", "cosine .* choose --values float32"),
        ([[]], "int8", "not finite numbers"),
        ([[1.0]], "log8", "not stored as 'log8'"),
    ],
)
def test_what_cannot_be_stored_is_refused(vectors, values, message):
    with pytest.raises(RecordError, match=message):
        Embedding.of(np.array(vectors), values)


def record_of(vectors: Any, values: str) -> Record:
    record = make_embedding_record(crops=len(vectors))
    return dataclasses.replace(record, embeddings={"a": Embedding.of(vectors, values)})


FIELDS: dict[str, tuple[Any, str]] = {
    "k": (3, "neither classes nor tail"),
    "num_classes": (3, "neither classes nor tail"),
    "full": (True, "neither classes nor tail"),
    "coding": ("float16", "k is 0|neither classes"),
    "embeddings": ([], "not an array of 1 to 16"),
    "names": ([["a", 48, "int8"]] * 2, "the same name"),
    "dim": ([["a", 0, "int8"]], "of 0 numbers"),
    "limit": ([[str(n), 1 << 16, "int8"] for n in range(13)], "over the limit"),
    "values": ([["a", 48, "log8"]], "'log8' is unknown"),
    "name": ([["a\n", 48, "int8"]], "printable"),
    "shape": ([["a", 49, "int8"]], "declare"),
    "more": ([["a", 48, "int8"], ["b", 2, "int8"]], "a column is not a list"),
    "wrong": ([[1, 48, "int8"]], "not a name, a number and a coding"),
    "wide": ([["a", (1 << 16) + 1, "int8"]], "of 65537 numbers"),
    "none": (None, "not an array"),
    "unstated": ([["a", 48, "lowrank"]], "not one entry for each embedding"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_do_not_fit_are_refused_by_every_reader(name):
    value, message = FIELDS[name]
    fields = msgpack.unpackb(encode_record(make_embedding_record()))
    fields[name if name in fields else "embeddings"] = value
    refused(msgpack.packb(fields, use_single_float=True), message)


@pytest.mark.parametrize(
    ("stored", "scale", "message"),
    [(-128, 1.0, "-128"), (1, -1.0, "scale"), (1, np.nan, "scale"), (1, np.inf, "scale"), (1, 1e38, "scale")],
)
def test_numbers_that_no_writer_stores_are_refused_by_every_reader(stored, scale, message, monkeypatch):
    one = Embedding(np.full((20, 3), stored, np.int8), np.full(20, scale, np.float32))
    record = dataclasses.replace(make_embedding_record(), embeddings={"a": one})
    with pytest.raises(RecordError, match=message):
        encode_record(record)
    monkeypatch.setattr("slg_wds.format.records.encoding.check_embeddings", lambda *_: None)
    refused(encode_record(record), message)


def test_a_record_without_a_field_is_refused_by_every_reader():
    fields = msgpack.unpackb(encode_record(make_embedding_record()))
    for name in ("full", "k", "num_tail", "coding", "tail_scale", "num_classes"):
        without = {other: value for other, value in fields.items() if other != name}
        refused(msgpack.packb(without, use_single_float=True), "is|neither")


STATED: dict[str, tuple[Any, str]] = {
    "nothing": ([None], "not one entry for each"),
    "no array": (3, "not one entry for each"),
    "of another": ([[1.0, 1.0, [20], [0]]] * 2, "not one entry for each"),
    "short": ([[1.0, 1.0, [20]]], "is described by"),
    "whole": ([[1, 1.0, [20], [0]]], "is described by"),
    "cosine": ([[1.5, 1.0, [20], [0]]], "not within -1 to 1"),
    "not a number": ([[1.0, float("nan"), [20], [0]]], "not within -1 to 1"),
    "ranks": ([[1.0, 1.0, [20], [0, 0]]], "a rank for each block"),
    "blocks": ([[1.0, 1.0, [1] * 64 + [0], [0] * 65]], "a rank for each block|not msgpack"),
    "bool": ([[1.0, 1.0, [20], [True]]], "a rank for each block"),
    "crops": ([[1.0, 1.0, [21], [0]]], "not of 20 crops"),
    "empty": ([[1.0, 1.0, [20, 0], [0, 0]]], "not of 20 crops"),
    "rank": ([[1.0, 1.0, [20], [4097]]], "not of 20 crops"),
    "other": ([[1.0, 1.0, [20], [4096]]], "declare"),
}


@pytest.mark.parametrize("name", STATED)
def test_low_rank_fields_that_do_not_fit_are_refused_by_every_reader(name):
    value, message = STATED[name]
    record = make_embedding_record(kinds={"a": (48, "lowrank")})
    fields = msgpack.unpackb(encode_record(record))
    assert fields["lowrank"][0][:2] == [0.5, 0.25]
    refused(msgpack.packb({**fields, "lowrank": value}, use_single_float=True), message)


def test_low_rank_embeddings_of_too_many_numbers_are_refused():
    fields = msgpack.unpackb(encode_record(make_embedding_record(kinds={"a": (48, "lowrank")})))
    wide = {"embeddings": [["a", 1 << 16, "lowrank"]], "lowrank": [[1.0, 1.0, [20], [4096]]]}
    refused(msgpack.packb({**fields, **wide}, use_single_float=True), "over 33554432 numbers")


@pytest.mark.parametrize(("part", "value"), [("scales", 129), ("lengths", 20481)])
def test_scales_and_lengths_that_no_writer_stores_are_refused_by_every_reader(part, value, monkeypatch):
    record = make_embedding_record(kinds={"a": (48, "lowrank")})
    one = record.embeddings["a"]
    if part == "lengths":
        one = dataclasses.replace(one, lengths=np.full(20, value))
    else:
        changed = dataclasses.replace(one.blocks[0], scales=np.full(1 + one.blocks[0].rank, value))
        one = dataclasses.replace(one, blocks=(changed, *one.blocks[1:]))
    record = dataclasses.replace(record, embeddings={"a": one})
    with pytest.raises(RecordError, match="scale or length"):
        encode_record(record)
    monkeypatch.setattr("slg_wds.format.records.encoding.check_embeddings", lambda *_: None)
    refused(encode_record(record), "scale or length")


def test_some_crops_of_a_low_rank_embedding_can_be_stored_again():
    record = make_embedding_record(kinds={"a": (48, "lowrank")}, crops=20)
    one, kept = record.embeddings["a"], np.array([2, 11, 12, 19])
    part = dataclasses.replace(
        record, crops=record.crops[kept], flips=record.flips[kept], index=record.index[kept],
        value=record.value[kept], embeddings={"a": one[kept]},
    )  # fmt: skip
    assert alike(decode_record(encode_record(part)).embeddings["a"].vectors, one.vectors[kept])
    mixed = dataclasses.replace(part, embeddings={"a": one[kept[::-1]]})
    with pytest.raises(RecordError, match="do not stand together"):
        encode_record(mixed)


def refused(data: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        decode_record(data)
    with pytest.raises(RecordError, match=message):
        decode_rows([data], np.zeros((1, 1), np.int64))
    try:
        fields = unpack_record(data)
    except RecordError:
        return
    assert not all_sound([fields], 0.0)


def test_a_record_of_embeddings_has_no_labels():
    record = decode_record(encode_record(make_embedding_record()))
    assert (record.k, record.num_classes, record.index.shape, record.value.shape) == (0, 0, (20, 0), (20, 0))
    with pytest.raises(RuleError, match="embeddings, not labels"):
        record.distribution()


def test_records_of_different_embeddings_are_not_read_together():
    data = [
        encode_record(make_embedding_record("a")),
        encode_record(make_embedding_record("b", kinds={"other": (48, "int8")})),
        encode_record(make_record("c", crops=20)),
    ]
    for pair in ([0, 1], [0, 2]):
        with pytest.raises(RecordError, match="belongs"):
            decode_rows([data[at] for at in pair], np.zeros((2, 1), np.int64))


def test_parts_are_joined_only_if_they_hold_the_same_embeddings():
    parts = [make_embeddings(crops, {"a": (4, "int8")}, seed=crops) for crops in (3, 2)]
    both = joined_embeddings(parts)
    assert np.array_equal(both["a"].vectors, np.concatenate([part["a"].vectors for part in parts]))
    assert joined_embeddings([None, None]) is None
    low_rank = [make_embeddings(crops, {"a": (4, "lowrank")}, seed=crops) for crops in (3, 0, 2)]
    coded, exact = joined_embeddings(low_rank)["a"], [part["a"].vectors for part in low_rank]
    assert alike(coded.vectors, np.concatenate(exact)) and coded.cosine == StatedCosine(0.5, 0.25)
    for other in (None, make_embeddings(2, {"a": (4, "float16")}), make_embeddings(2, {"b": (4, "int8")})):
        with pytest.raises(RecordError, match="differ in their embeddings"):
            joined_embeddings([parts[0], other])


def test_long_dense_embeddings_are_stored_and_sparse_ones_compressed():
    """Entropy coding would take 8% off the dense ones, and make them slow to read."""
    draw = np.random.default_rng(0)
    dense = draw.normal(size=(100, 700)).astype(np.float32)
    for vectors, least, most in ((dense, 700, 712), (np.maximum(dense - 1, 0), 100, 400)):
        made = make_embedding_record(crops=100)
        record = dataclasses.replace(made, embeddings={"t": Embedding.of(vectors, "int8")})
        data = encode_record(record)
        assert least < len(data) / 100 < most + 30
        found = decode_record(data).embeddings["t"]
        assert np.array_equal(found.stored, record.embeddings["t"].stored)
        (rows,) = decode_rows([data], np.array([[3, 99, 0]])).embeddings.values()
        assert np.array_equal(rows[0], found.vectors[[3, 99, 0]])


def test_frames_of_many_crops_are_read_and_no_more_written_than_are_read():
    vectors = np.arange(300.0, dtype=np.float32)[:, None] + 1
    data = encode_record(record_of(vectors, "float32"))
    assert np.array_equal(decode_record(data).embeddings["a"].vectors, vectors)
    assert np.array_equal(decode_rows([data], np.array([[0, 299]])).embeddings["a"][0], vectors[[0, 299]])
    with pytest.raises(RecordError, match="16385 crops of embeddings are over the limit of 16384"):
        encode_pieces(np.zeros((16385, 1), np.uint32))


def test_few_matches_are_looked_for_in_embeddings():
    """Repetitions of a few bytes would take more bytes than they save, and be slow to read."""
    draw = np.random.default_rng(0)
    codes = np.maximum(draw.normal(size=(16, 700)) * 40, 0).astype(np.uint8)
    (frame,) = encode_pieces(codes)
    assert len(frame) < 0.95 * min(len(compress(codes.tobytes(), level)) for level in (1, 3))
    assert np.array_equal(decode_pieces([frame], (16, 700), np.arange(16), 1)[..., 0], codes)


@pytest.mark.parametrize("values", ["int8", "float16"])
def test_a_few_crops_are_read_from_their_own_pieces_alone(values):
    vectors = np.random.default_rng(1).normal(size=(40, 48)).astype(np.float32)
    exact = Embedding.of(vectors, values).vectors
    fields = msgpack.unpackb(encode_record(record_of(vectors, values)))
    frames = fields["columns"]["embedding_0"]
    assert len(frames) == 3 * (1 if values == "int8" else 2)
    frames[len(frames) // 3] = b"damaged"  # the first frame of crops 16 to 31
    data = msgpack.packb(fields, use_single_float=True)
    rows = np.array([[39, 0, 15, 32]])
    assert np.array_equal(decode_rows([data], rows).embeddings["a"][0], exact[rows[0]])
    assert np.array_equal(decode_record(data, rows=rows[0]).embeddings["a"].vectors, exact[rows[0]])
    for row in (16, 31):
        with pytest.raises(RecordError, match="frame"):
            decode_rows([data], np.array([[row]]))
