"""Ranges of several local shards, read at once and checked at once: each is what one read alone gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import slg_wds
from slg_wds.errors import ChecksumError, NotFoundError
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.shards import LocalShards, ShardRange
from support.sets.replay_sets import make


@pytest.fixture(scope="module")
def labels(photographs, tmp_path_factory):
    return make(photographs, tmp_path_factory.mktemp("ranges") / "set", embed_images="original")


@pytest.fixture
def copied(labels, tmp_path):
    return shutil.copytree(labels, tmp_path / "set")


def opened(folder: Path | str) -> tuple[LocalShards, list[ShardRange]]:
    """The shards, and the record and image of two samples of each, in an order of no use."""
    labels = slg_wds.open_labels(str(folder))
    ranges = []
    for number in reversed(range(labels.num_shards)):
        index, keys = labels.index(number), labels.plan.shard(number).keys
        for places in (index.images, index.records):
            ranges += [ShardRange(number, keys[at], *places[at]) for at in (1, 0) if at < len(keys)]
    return LocalShards(labels, OpenFiles(1)), ranges


def content(folder: Path | str, one: ShardRange) -> bytes:
    data = (Path(folder) / f"train-{one.shard:06d}.tar").read_bytes()
    return data[one.offset : one.offset + one.size]


def test_each_range_is_what_lies_there(labels):
    shards, ranges = opened(labels)
    assert len({one.shard for one in ranges}) == 8 and len(ranges) > 24
    found = shards.read(ranges)
    assert [bytes(data) for data in found.parts] == [content(labels, one) for one in ranges]
    assert found.memory is not None and bytes(found.memory) == b"".join(found.parts)
    assert list(found.crc32) == [one.crc32 for one in ranges]
    assert shards.read([]).parts == []


@pytest.mark.parametrize("which", [0, 7, -1])
@pytest.mark.parametrize("damage", ["first bit", "last bit", "cut off", "gone"])
def test_the_one_at_fault_is_named(copied, which, damage):
    shards, ranges = opened(copied)
    fault = ranges[which]
    path = copied / f"train-{fault.shard:06d}.tar"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        if damage == "cut off":
            del data[fault.offset + fault.size - 1 :]
        else:
            data[fault.offset + (0 if damage == "first bit" else fault.size - 1)] ^= 1
        path.write_bytes(data)
    with pytest.raises(NotFoundError if damage == "gone" else ChecksumError) as caught:
        shards.read(ranges)
    at_fault = (
        [one for one in ranges if one.shard == fault.shard] if damage in ("gone", "cut off") else [fault]
    )
    assert caught.value.shard == path.name and str(copied) == caught.value.url
    assert caught.value.key in {one.key for one in at_fault}


def test_two_ranges_that_are_exchanged_are_noticed(copied):
    """All bytes are there, in another order."""
    shards, ranges = opened(copied)
    first, second = (one for one in ranges if one.shard == 3 and one.size > 10_000)
    exchanged = [first._replace(crc32=second.crc32), second._replace(crc32=first.crc32)]
    with pytest.raises(ChecksumError, match=first.key):
        shards.read(exchanged)
