"""What a whole shard is compared with: where it stands, its records, its images; and what makes no shard."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import (
    ChecksumError,
    ManifestError,
    RecordError,
    ShardError,
)
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.shards.shard import (
    EncodedSample,
    Sample,
    Shard,
    check_payload,
    check_payloads,
    encode_sample,
    encode_shard,
    read_shard,
)
from support.format.records import make_record, make_samples
from support.format.shards import DIGEST, HEADER, rewritten, small_shard


def check(found: Shard, **new: Any) -> None:
    """That it is the shard that was made, but for what is `new`."""
    keys = [sample.key for sample in found.samples]
    given: dict[str, Any] = {"set_digest": DIGEST, "shard": 3, "name": "train-000003", "keys": keys, **new}
    found.check(**given)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"set_digest": "00" * 32}, "its set digest is 5a5a"),
        ({"shard": 4}, "its number is 3, not 4"),
        ({"name": "train-000004"}, "its name is train-000003, not train-000004"),
        ({"keys": ["é", "a/b"]}, "its samples are not the planned ones in their order"),
        ({"keys": ["a/b"]}, "its samples are not the planned ones"),
        ({"keys": ["a/b", "é", "c"]}, "its samples are not the planned ones"),
    ],
)
def test_a_shard_in_the_place_of_another(new: dict[str, Any], message: str) -> None:
    shard = read_shard(small_shard(), url="s3://b/set")
    check(shard)
    with pytest.raises(ShardError, match=message):
        check(shard, **new)


def test_images_left_out_must_have_been_planned() -> None:
    left_out = [{"key": "bad", "path": "bad.jpg", "reason": "not an image"}]
    shard = read_shard(encode_shard(make_samples(2), replace(HEADER, left_out=left_out)))
    check(shard, keys=["n0/image_0", "bad", "n1/image_1"])
    with pytest.raises(ShardError, match="left out images that were not planned"):
        check(shard)


def test_a_record_under_another_key() -> None:
    shard = read_shard(rewritten(lambda found, fields: [(n.replace("a/b", "a/c"), c) for n, c in found]))
    with pytest.raises(RecordError, match=r"it holds the record of 'a/b' \(key a/c, shard train-000003"):
        shard.record(0)


@pytest.mark.parametrize("text", [b"8", b"07", b"7\n", b""])
def test_a_target_that_is_not_the_record_s(text: bytes) -> None:
    shard = read_shard(rewritten(lambda found, fields: [("a/b.cls", text), *found[1:]]))
    with pytest.raises(RecordError, match="its cls member does not agree with its target, 7"):
        shard.record(0)
    shard = read_shard(rewritten(lambda found, fields: found[1:]))
    with pytest.raises(RecordError, match="its cls member does not agree"):
        shard.record(0)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (make_samples(2) + make_samples(1), "a key occurs twice"),
        (make_samples(1) + make_samples(2, embed=True)[1:], "some samples have an image"),
        ([Sample(make_record(), b"", "JPG")], r"images are not embedded as 'JPG' .*; make it a JPEG"),
        ([Sample(make_record(), b"", None)], "images are not embedded as None"),
    ],
)
def test_samples_that_make_no_shard(samples: list[Sample], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        encode_shard(samples, HEADER)


@pytest.mark.parametrize("key", ["a.b", "a/b.c", "a\nb/c", "__x__/a", "/a", "a//b", "../a", "a/", ".", "a/."])
def test_keys_that_no_path_gives(key: str) -> None:
    with pytest.raises(ShardError, match="no path gives this key"):
        encode_shard([Sample(make_record(key))], HEADER)


def test_provenance_that_is_not_json() -> None:
    with pytest.raises(ManifestError, match="has no JSON"):
        encode_shard([], replace(HEADER, provenance={"x": float("nan")}))


def test_single_records_are_checked() -> None:
    shard = read_shard(small_shard())
    sample = shard.samples[1]
    data = bytes(shard.content(sample.record))
    check_payload(data, sample.record.size, sample.record_crc32)
    for bad in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(ChecksumError, match=r"in the index .*key é"):
            check_payload(bad, sample.record.size, sample.record_crc32, key="é")


def test_an_image_that_is_not_the_labelled_one_is_neither_embedded_nor_read() -> None:
    (sample,) = make_samples(1, embed=True)
    assert sample.image is not None
    right = replace(sample, record=replace(sample.record, image_crc32=zlib.crc32(sample.image)))
    other = replace(sample, record=replace(sample.record, image_crc32=zlib.crc32(sample.image) ^ 1))
    assert read_shard(encode_shard([right], HEADER)).record(0).image_crc32 == zlib.crc32(sample.image)
    with pytest.raises(ShardError, match="image to embed is not the one that was labelled"):
        encode_sample(other)
    fields = {**encode_sample(right).fields, "slg.msgpack": encode_record(other.record)}
    shard = read_shard(encode_shard([EncodedSample(right.record.key, fields)], HEADER))
    with pytest.raises(RecordError, match="image beside it is not the one that was labelled"):
        shard.record(0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.data())
def test_members_are_checked_together_as_one_by_one(contents: list[bytes], data: st.DataObject) -> None:
    expected = [(len(one), zlib.crc32(one)) for one in contents]
    memory = bytearray(b"".join(contents))
    if memory and data.draw(st.booleans()):
        memory[data.draw(st.integers(0, len(memory) - 1))] ^= data.draw(st.integers(0, 255))
    end = 0
    parts = [memoryview(memory)[end : (end := end + len(one))] for one in contents]
    if parts and data.draw(st.booleans()):
        parts[-1] = parts[-1][:-1]  # a file that ends early
    if [bytes(part) for part in parts] == contents:
        check_payloads(memoryview(memory), parts, expected)
    else:
        with pytest.raises(ChecksumError, match="in the index"):
            check_payloads(memoryview(memory), parts, expected)
