"""Shards: their exact form, that WebDataset reads them, and that all damage is detected."""

from __future__ import annotations

import gc
import io
import pickle
import tarfile
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.writer import TarWriter

from slg_wds.errors import (
    ChecksumError,
    FormatError,
    ManifestError,
    RecordError,
    ShardError,
    ShardTruncatedError,
    UnsupportedFeatureError,
)
from slg_wds.format.canonical import canonical_json, parse_json, seal
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.shards.header import ShardHeader
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
from slg_wds.format.shards.tar import member_header, members
from support.format_records import make_record, make_samples, quantise, same
from support.oracles import format_oracle as oracle

DIGEST = "5a" * 32
HEADER = ShardHeader(DIGEST, 3, "train-000003", provenance={"num_seg": 50, "torch": "2.15"})
LONG = "d" * 90 + "/" + "f" * 60
ODD_KEYS = [
    "plain",
    "x" * 88,
    "x" * 89,
    LONG,
    "猫/三毛猫",
    "é" * 300,
    "k" * 4000,
    "sp ace/a%2Eb",
    "new%0Aline",
]


def odd_samples() -> list[Sample]:
    return [Sample(make_record(key, crops=2, k=1, tail=0)) for key in ODD_KEYS]


@pytest.mark.parametrize("embed", [False, True])
def test_round_trip(embed: bool) -> None:
    samples = make_samples(7, embed=embed)
    header = replace(HEADER, left_out=[{"key": "a", "path": "a.jpg", "reason": "not an image"}])
    shard = read_shard(encode_shard(samples, header), url="s3://b/set")
    assert shard.header == header
    assert len(shard) == 7
    for mine, read in zip(samples, shard, strict=True):
        assert same(read.record, replace(mine.record, value=quantise(mine.record.value, mine.record.coding)))
        assert (read.image, read.image_ext) == (mine.image, mine.image_ext)
    assert same(shard.record(2, rows=[1]), decode_record(encode_record(samples[2].record), rows=[1]))


def test_members_stand_in_order() -> None:
    data = encode_shard(make_samples(4, embed=True), HEADER)
    assert [member.name for member in members(memoryview(data))] == [
        "n0/image_0.cls",
        "n0/image_0.jpg",
        "n0/image_0.slg.msgpack",
        "n1/image_1.cls",
        "n1/image_1.png",
        "n1/image_1.slg.msgpack",
        "n2/image_2.cls",
        "n2/image_2.slg.msgpack",
        "n2/image_2.webp",
        "n0/image_3.jpg",  # without a target
        "n0/image_3.slg.msgpack",
        "__slg__/shard",
    ]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            assert (member.mode, member.mtime, member.uid, member.gid) == (0o444, 0, 0, 0)
            assert (member.uname, member.gname) == ("", "")
        assert tar.extractfile("n1/image_1.cls").read() == b"1"  # type: ignore[union-attr]


def test_the_same_samples_give_the_same_bytes_ready_made_or_not() -> None:
    samples = make_samples(5, embed=True)
    data = encode_shard(samples, HEADER)
    assert encode_shard([encode_sample(sample) for sample in samples], HEADER) == data
    assert encode_shard(iter(list(read_shard(data))), HEADER) == data


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 10239, 10240, 99999])
@pytest.mark.parametrize("key", [*ODD_KEYS, "a" * 100, "a" * 101, "d/" + "é" * 49])
def test_headers_are_those_that_tarfile_writes(key: str, size: int) -> None:
    stream = io.BytesIO()
    with TarWriter(stream, encoder=False, format="PAX_FORMAT", mtime=0, user="", group="") as writer:
        writer.write({"__key__": key, "x": bytes(size)})
    data = stream.getvalue()
    header = member_header(f"{key}.x", size)
    assert data.startswith((header, member_header(f"{key}.x", size, b"0000000\0" * 2)))
    (member,) = members(memoryview(data))
    assert (member.name, member.offset, member.size) == (f"{key}.x", len(header), size)


def test_keys_that_need_pax_headers() -> None:
    shard = read_shard(encode_shard(odd_samples(), HEADER))
    assert [sample.key for sample in shard.samples] == ODD_KEYS
    assert [sample.record.key for sample in shard] == ODD_KEYS
    with tarfile.open(fileobj=io.BytesIO(bytes(shard.data))) as tar:
        assert tar.getnames() == [f"{key}.slg.msgpack" for key in ODD_KEYS] + ["__slg__/shard"]


def test_a_shard_without_samples() -> None:
    shard = read_shard(encode_shard([], HEADER))
    assert (len(shard), list(shard), len(shard.data)) == (0, [], 10240)


def read_by_webdataset(path: Path, *handlers: Any) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode(*handlers)
        samples = list(dataset)
        del dataset
        gc.collect()
    return samples


@pytest.mark.parametrize("embed", [False, True])
def test_webdataset_reads_every_sample(tmp_path: Path, embed: bool) -> None:
    path = tmp_path / "train-000003.tar"
    samples = make_samples(6, embed=True) if embed else odd_samples()
    path.write_bytes(encode_shard(samples, HEADER))
    read = read_by_webdataset(path, webdataset.handle_extension("msgpack", msgpack.unpackb))
    assert [sample["__key__"] for sample in read] == [sample.record.key for sample in samples]
    for mine, theirs in zip(samples, read, strict=True):
        assert theirs["slg.msgpack"]["path"] == mine.record.path
        assert theirs["slg.msgpack"]["num_crops"] == mine.record.num_crops
        assert theirs.get("cls") == (mine.record.target if embed else None)
        assert not embed or theirs[mine.image_ext] == mine.image


def test_plain_decode_of_webdataset_leaves_records_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "train-000003.tar"
    path.write_bytes(encode_shard(odd_samples(), HEADER))
    record = read_by_webdataset(path)[0]["slg.msgpack"]
    assert same(decode_record(record), read_shard(path.read_bytes()).record(0))


def test_a_reader_written_from_the_specification_agrees() -> None:
    samples = make_samples(5, embed=True)
    header, read = oracle.read_shard(encode_shard(samples, HEADER))
    assert (header["set_digest"], header["shard"], header["name"]) == (DIGEST, 3, "train-000003")
    assert header["num_samples"] == 5
    records = [record for name, record in read if name.endswith(".slg.msgpack")]
    assert [record["key"] for record in records] == [sample.record.key for sample in samples]
    assert dict(read)["n0/image_0.jpg"] == samples[0].image


def small_shard(embed: bool = True) -> bytes:
    """A shard with every kind of member, names that need a pax header among them."""
    samples = [Sample(make_record("a/b", crops=3, k=2, tail=0), b"\xff\xd8image", "jpg")]
    samples.append(Sample(make_record("é", crops=3, k=2, tail=0, coding="log8"), b"\x89PNG", "png"))
    return encode_shard(samples if embed else [Sample(sample.record) for sample in samples], HEADER)


def test_every_changed_byte_is_found() -> None:
    """Each byte of a shard in turn, one bit of it and all of them: refused, and never by another error."""
    good = small_shard()
    read_shard(good)
    for at in range(len(good)):
        for change in (1 << (at % 8), 0xFF):
            bad = bytearray(good)
            bad[at] ^= change
            with pytest.raises(ShardError):
                read_shard(bad)


def test_every_truncation_is_found() -> None:
    good = small_shard()
    for end in {*range(0, len(good), 512), *range(0, len(good), 97), *range(len(good) - 600, len(good))}:
        with pytest.raises(ShardTruncatedError, match=f"ends at byte {end},"):
            read_shard(good[:end])


def test_bytes_added_or_lost_are_found() -> None:
    good = small_shard(embed=False)
    for extra in (b"\0", bytes(512), bytes(10240), b"x" * 512, good):
        with pytest.raises(ShardError):
            read_shard(good + extra)
    for at in range(0, len(good), 512):
        with pytest.raises(ShardError):
            read_shard(good[:at] + good[at + 512 :])
        with pytest.raises(ShardError):
            read_shard(good[:at] + bytes(512) + good[at:])


def test_blocks_exchanged_are_found() -> None:
    good = small_shard(embed=False)
    blocks = [good[i : i + 512] for i in range(0, len(good), 512)]
    for i in range(len(blocks)):
        for j in range(i):
            if blocks[i] != blocks[j]:
                bad = [*blocks]
                bad[i], bad[j] = bad[j], bad[i]
                with pytest.raises(ShardError):
                    read_shard(b"".join(bad))


def write(*contents: tuple[str, bytes]) -> bytes:
    """A tar of these members, as strict as a shard in everything but what they are."""
    body = b"".join(
        member_header(name, len(content)) + content + bytes(-len(content) % 512) for name, content in contents
    )
    return body + bytes(1024 + -(len(body) + 1024) % 10240)


def rewritten(change: Any) -> bytes:
    """A good shard whose members went through `change` and whose shard.json was made to fit."""
    data = memoryview(small_shard())
    found = [(m.name, bytes(data[m.offset : m.offset + m.size])) for m in members(data)]
    fields = parse_json(found.pop()[1])
    del fields["crc32"]
    found = change(found, fields) or found
    fields["members_crc32"] = [zlib.crc32(content) for _, content in found]
    fields["names_crc32"] = zlib.crc32("".join(f"{name}\n" for name, _ in found).encode())
    return write(*found, ("__slg__/shard", canonical_json(seal(fields))))


def header_with(**new: Any) -> Any:
    return lambda found, fields: fields.update(new)


WRONG = {
    "another order": (lambda found, fields: [found[1], found[0], *found[2:]], ShardError, "are not sorted"),
    "parted": (lambda found, fields: [*found[:2], *found[3:], found[2]], ShardError, "a key occurs twice|not those"),
    "twice": (lambda found, fields: [*found, *found[:3]], ShardError, "a key occurs twice"),
    "no record": (lambda found, fields: found[:2] + found[3:], ShardError, "are not those of a sample"),
    "other member": (lambda found, fields: [("a/b.txt", b""), *found], ShardError, "not sorted|not those"),
    "two images": (lambda found, fields: [*found[:2], ("a/b.png", b""), *found[2:]], ShardError, "a/b|not those"),
    "cls alone": (lambda found, fields: [found[0], found[2], *found[3:]], ShardError, "are not those of a sample"),
    "image of some": (lambda found, fields: [found[2], *found[3:]], ShardError, "some samples have an image"),
    "count": (header_with(num_samples=3), ShardError, "2 samples, where 3 were written"),
    "version": (header_with(version=2), UnsupportedFeatureError, "is 2, this reader knows 1"),
    "no version": (header_with(version=None), ShardError, "not a map with a version"),
    "digest": (header_with(set_digest=5), ShardError, "set_digest is 5, not of type str"),
    "number": (header_with(shard=-1), ShardError, "shard is -1"),
    "bool": (header_with(shard=True), ShardError, "shard is True"),
    "left out": (header_with(left_out=[{"key": "a"}]), ShardError, "path is None"),
    "left out text": (header_with(left_out=["a"]), ShardError, "left out is not an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_each_malformation_has_its_error(case: str) -> None:
    change, kind, message = WRONG[case]
    with pytest.raises(kind, match=message) as caught:
        read_shard(rewritten(change), url="s3://b/set", shard="train-000003.tar")
    assert "shard train-000003.tar, url s3://b/set" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", ShardTruncatedError, "ends at byte 0"),
        (bytes(10240), ShardError, "its last member is not __slg__/shard"),
        (bytes(1024), ShardTruncatedError, "where 10240 are needed"),
        (b"\x1f\x8b" + bytes(10238), ShardError, "the tar header at byte 0"),
        (write(("a.slg.msgpack", b"")), ShardError, "its last member is not"),
        (write(("__slg__/shard", b"{}")), ChecksumError, "CRC-32 does not match"),
        (write(("__slg__/shard", b"[]")), ChecksumError, "JSON of a list"),
        (write(("__slg__/shard", b"{")), ChecksumError, "not JSON"),
        (write(("__slg__/shard", b'{"a":NaN}')), ChecksumError, "NaN is not JSON"),
        (write(("__slg__/shard", b"[" * 9999)), ChecksumError, "not JSON"),
        (write(("__slg__/shard", b'{"a":1e999}')), ChecksumError, "has no JSON"),
        (write(("__slg__/shard", b'{"a":"\\ud800"}')), ChecksumError, "has no JSON"),
        (write(("__slg__/shard", b"{}"))[:512] + b"x" * 10240, ShardError, "the padding after member"),
        (b"a".ljust(124, b"\0") + b"-0000000010\0" + bytes(10240 - 136), ShardError, "has no size"),
    ],
)
def test_bytes_that_are_no_shard(data: bytes, kind: type[FormatError], message: str) -> None:
    with pytest.raises(kind, match=message):
        read_shard(data)


def test_other_archives_are_refused() -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
            info = tarfile.TarInfo("d" * 120 + "/a.slg.msgpack")
            info.mode, info.mtime = 0o644, 1_700_000_000
            tar.addfile(info)
        with pytest.raises(ShardError, match=r"damaged, or not of the form|has no|is not one path|of 10"):
            read_shard(stream.getvalue())


def test_a_negative_size_does_not_go_round_for_ever() -> None:
    """A header that is right in all but its size of minus one block, checksum included."""
    block = bytearray(member_header("a.slg.msgpack", 0))
    block[124:136] = b"-0000001000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(ShardError, match="has no size"):
        read_shard(bytes(block) + bytes(20 * 512))


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


def test_the_trailer_of_older_sets_is_read_and_can_be_written() -> None:
    samples = make_samples(3)
    old, new = (encode_shard(samples, HEADER, name) for name in ("__slg__/shard.json", "__slg__/shard"))
    assert old.count(b"__slg__/shard.json") == 1 and new.count(b"__slg__/shard.json") == 0
    assert encode_shard(samples, HEADER) == new
    for data in (old, new):
        shard = read_shard(data)
        assert (shard.header, len(shard)) == (HEADER, 3)


@pytest.mark.parametrize("name", ["__slg__/shard", "__slg__/shard.json"])
def test_a_trailer_stands_last_and_once(name: str) -> None:
    shard = read_shard(encode_shard([], HEADER))
    trailer = bytes(shard.content(shard.members[-1]))
    fields = parse_json(trailer)
    del fields["crc32"]
    sums = {"members_crc32": [zlib.crc32(trailer)], "names_crc32": zlib.crc32(f"{name}\n".encode())}
    last = canonical_json(seal({**fields, **sums}))
    with pytest.raises(ShardError, match=r"has no key or no extension|are not those of a sample"):
        read_shard(write((name, trailer), ("__slg__/shard", last)))


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
