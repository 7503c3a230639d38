"""Shards: their exact form, and that WebDataset reads them."""

from __future__ import annotations

import gc
import io
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import webdataset
from webdataset.writer import TarWriter

from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.shards.shard import (
    Sample,
    encode_sample,
    encode_shard,
    read_shard,
)
from slg_wds.format.shards.tar import member_header, members
from support.format.records import make_record, make_samples, quantise, same
from support.format.shards import DIGEST, HEADER
from support.oracles import format_oracle as oracle

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


def test_the_trailer_of_older_sets_is_read_and_can_be_written() -> None:
    samples = make_samples(3)
    old, new = (encode_shard(samples, HEADER, name) for name in ("__slg__/shard.json", "__slg__/shard"))
    assert old.count(b"__slg__/shard.json") == 1 and new.count(b"__slg__/shard.json") == 0
    assert encode_shard(samples, HEADER) == new
    for data in (old, new):
        shard = read_shard(data)
        assert (shard.header, len(shard)) == (HEADER, 3)
