"""Exact bytes: files of version 1 that must stay readable, and come out the same, for ever."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard

from slg_wds.format.manifest.description import decode_description
from slg_wds.format.manifest.identity import digest
from slg_wds.format.manifest.index import build_index, decode_index
from slg_wds.format.manifest.info import decode_info
from slg_wds.format.manifest.plan_codec import decode_plan
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.views import same_views
from slg_wds.format.shards.shard import read_shard
from support.format.golden import CODED, CODED_EMBEDDINGS, EMBEDDED, IMAGES, MIXED, RECORDS, VIEWED, made
from support.format.records import quantise, same
from support.oracles.format_oracle import read_record
from support.oracles.format_oracle import read_shard as read_shard_of_oracle
from support.paths import GOLDEN

# Another libzstd may compress otherwise, and another tarfile write other device numbers: then contents are compared.
SAME_ZSTD = zstandard.ZSTD_VERSION == (1, 5, 7)

RECORD_FILES, SET = GOLDEN / "records", GOLDEN / "set"


@pytest.mark.parametrize("name", made())
def test_writers_give_the_golden_bytes(name: str) -> None:
    data = made()[name]
    if SAME_ZSTD or name.endswith(".json"):
        assert data == (GOLDEN / name).read_bytes()


def test_a_golden_record_with_views() -> None:
    data = (RECORD_FILES / "views.slg.msgpack").read_bytes()
    read, views = read_record(data), VIEWED.views
    assert views is not None and same_views(decode_record(data).views, views)
    for name in ("operations", "arguments", "erased"):
        assert np.array_equal(read[name], getattr(views, name))


def test_a_golden_record_with_mixed_views() -> None:
    data = (RECORD_FILES / "mixed.slg.msgpack").read_bytes()
    read, views = read_record(data), MIXED.views
    assert views is not None and views.mixing is not None and same_views(decode_record(data).views, views)
    for name in ("partner", "crop", "lam", "box"):
        assert np.array_equal(read[name], getattr(views.mixing, name))


def test_golden_embeddings() -> None:
    data = (RECORD_FILES / "embeddings.slg.msgpack").read_bytes()
    read, embeddings = read_record(data), EMBEDDED.embeddings
    assert embeddings is not None and same(decode_record(data), EMBEDDED)
    for (name, vectors), (expected, embedding) in zip(read["embeddings"], embeddings.items(), strict=True):
        assert name == expected and np.array_equal(vectors, embedding.vectors)


def test_golden_low_rank_embeddings() -> None:
    data = (RECORD_FILES / "low_rank_embeddings.slg.msgpack").read_bytes()
    read, embeddings = read_record(data), CODED_EMBEDDINGS.embeddings
    assert embeddings is not None and same(decode_record(data), CODED_EMBEDDINGS)
    (_, first), (name, vectors) = read["embeddings"]
    assert name == "low" and read["lowrank"] == [None, [0.9921875, 0.75, [20, 4], [2, 0]]]
    assert np.array_equal(first, embeddings["a"].vectors)
    assert np.allclose(vectors, embeddings["low"].vectors, rtol=1e-5, atol=1e-5)
    # By hand: crop 20 is of the second block, (0, 0, 3, 0, -4) of the length 2^5; crop 23 is a zero vector.
    assert np.allclose(vectors[20], [0, 0, 19.2, 0, -25.6]) and not vectors[23].any()


def test_a_golden_low_rank_record() -> None:
    data = (RECORD_FILES / "lowrank.slg.msgpack").read_bytes()
    assert same(decode_record(data), CODED)
    read = read_record(data)
    assert np.allclose(read["probabilities"], CODED.distribution(), atol=1e-7)
    assert (read["kl_mean"], read["kl_against"], read["kl_parents"]) == (0.0625, "labels", [0.125, None])
    # By hand: crop 10 is of the second block, which has no components and the roots 63 and 13.
    share = 63**2 / (63**2 + 13**2)
    assert np.isclose(read["probabilities"][10, 2], share) and np.isclose(
        read["probabilities"][10, 5], (1 - share) / 999
    )


@pytest.mark.parametrize("name", RECORDS)
def test_golden_records(name: str) -> None:
    data = (RECORD_FILES / f"{name}.slg.msgpack").read_bytes()
    record = RECORDS[name]
    expected: dict[str, Any] = {**vars(record), "value": quantise(record.value, record.coding)}
    assert same(decode_record(data), Record(**expected))
    read = read_record(data)
    assert np.array_equal(read["values"], expected["value"])
    assert np.array_equal(read["boxes"], record.crops)
    mine = msgpack.unpackb(encode_record(record))
    theirs = msgpack.unpackb(data)
    planes = [
        plane for fields in (mine, theirs) for column in fields.pop("columns").values() for plane in column
    ]
    assert mine == theirs
    contents = [zstandard.decompress(plane) for plane in planes]
    assert contents[: len(planes) // 2] == contents[len(planes) // 2 :]


@pytest.mark.parametrize("name", ["plain", "embedded"])
def test_golden_shards(name: str) -> None:
    shard = read_shard((SET / f"{name}.tar").read_bytes())
    assert shard.header.left_out == [{"key": "left/out", "path": "left/out.png", "reason": "not an image"}]
    for i, kind in enumerate(("float32", "float16", "log8")):
        golden = decode_record((RECORD_FILES / f"{kind}.slg.msgpack").read_bytes())
        assert same(shard.record(i), golden)
    images = [sample.image for sample in shard]
    assert images == ([None] * 3 if name == "plain" else [b"image", b"image" * 2, b"image" * 3])


def test_golden_files_with_checksums_of_images() -> None:
    data = (RECORD_FILES / "checked.slg.msgpack").read_bytes()
    record = decode_record(data)
    assert (record.image_crc32, record.source_crc32) == (zlib.crc32(b"image" * 3), 2**32 - 1)
    oracle = read_record(data)
    assert (oracle["image_crc32"], oracle["source_crc32"]) == (record.image_crc32, record.source_crc32)
    shard = read_shard((SET / "checked.tar").read_bytes())
    assert [member.name for member in shard.members][-1] == "__slg__/shard"
    assert [shard.record(i).image_crc32 for i in range(3)] == [s.image_crc32 for s in shard.samples]
    assert [shard.record(i).source_crc32 for i in range(3)] == [None, 0, 2**32 - 1]
    _, members = read_shard_of_oracle((SET / "checked.tar").read_bytes())
    assert [fields["image_crc32"] for name, fields in members if name.endswith("msgpack")] == [
        zlib.crc32(image) for image in IMAGES
    ]
    description = decode_description((SET / "checked.json").read_bytes())
    assert (description.requires, description.image_checksums) == (["trailer"], True)


def test_old_golden_files_have_no_checksums_of_images() -> None:
    description = decode_description((SET / "slg.json").read_bytes())
    assert (description.requires, description.image_checksums) == ([], False)
    shard = read_shard((SET / "embedded.tar").read_bytes())
    assert [member.name for member in shard.members][-1] == "__slg__/shard.json"
    assert [(s.record.image_crc32, s.record.source_crc32) for s in shard] == [(None, None)] * 3


def test_golden_manifest() -> None:
    plan = decode_plan((SET / "plan").read_bytes())
    assert list(plan.keys)[1] == "n00000001/é%25_1%2Ex"
    assert plan.targets.tolist() == [0, 1, 2, -1]
    index = decode_index((SET / "index").read_bytes())
    assert index.images == [[2560, 1001], [5120, 1002], [7680, 1003]]
    assert build_index((SET / "plain.tar").read_bytes(), plan, 0) == index
    description = decode_description((SET / "slg.json").read_bytes())
    assert index.set_digest == digest(b"golden", description.identity)
    assert decode_info((SET / "_info.json").read_bytes()).num_samples == 3
