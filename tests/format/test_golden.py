"""Exact bytes: files of version 1 that must stay readable, and come out the same, for ever.

Most are as the first sets were made, which knew neither checksums of images nor the present trailer; those of NEW have
both. Run as a program it writes them anew, which only a new version of the format can call for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard

from slg_wds.format.manifest.description import Description, decode_description, encode_description
from slg_wds.format.manifest.identity import digest
from slg_wds.format.manifest.index import build_index, decode_index, encode_index
from slg_wds.format.manifest.info import Info, decode_info, encode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.embeddings.low_rank import EmbeddingBlock, LowRankEmbedding, StatedCosine
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock, StatedKL
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.records.views import Views, same_views
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.names import OLD_TRAILER
from slg_wds.format.shards.shard import Sample, encode_shard, read_shard
from support.format_records import quantise, same
from support.oracles.format_oracle import read_record
from support.oracles.format_oracle import read_shard as read_shard_of_oracle
from support.paths import GOLDEN

# Another libzstd may compress otherwise, and another tarfile write other device numbers: then contents are compared.
SAME_ZSTD = zstandard.ZSTD_VERSION == (1, 5, 7)


def made_record(number: int, coding: str, *, full: bool = False) -> Record:
    """Labels by arithmetic alone, so that no library can change them: 24 crops, classes among 1000."""
    n = np.arange(24)
    k = 12 if full else 1 if coding == "none" else 3
    boxes = np.stack([n, 2 * n + number, 300 - n, 400 - 3 * n], axis=1)
    index = (n[:, None] % 7 * 131 + np.arange(k) * 17 + number) % 1000
    value = (0.9 - n[:, None] / 64) * 0.3 ** np.arange(k)
    rest = np.arange(1000) % 13 / 2.0**17
    return Record(
        key=f"n0000000{number}/é%25_{number}%2Ex",
        path=f"n0000000{number}/é%_{number}.x.JPEG",
        target=None if number == 3 else number,
        size=(375, 500),
        crops=boxes,
        flips=n % 3 == 1,
        index=np.broadcast_to(np.arange(k), (24, k)) if full else index,
        value=np.ones((24, 1), np.float32) if coding == "none" else value.astype(np.float32),
        tail=None if full or coding == "none" else build_tail(rest, 64, 24, k),
        coding=coding,
        full=full,
        num_classes=12 if full else 1000,
    )


RECORDS = {
    "float32": made_record(1, "float32"),
    "float16": made_record(2, "float16"),
    "log8": made_record(3, "log8"),
    "hard": made_record(4, "none"),
    "full": made_record(5, "float16", full=True),
}
N = np.arange(24)[:, None]
CODES = np.where((N + np.array([0, 1])) % 3 > 0, (N * 5 + np.array([3, 8])) % 16 + 1, 0)
BOXES = np.where(N % 4 == 1, np.array([10, 20, 30, 40]) + N, 0)
VIEWED = dataclasses.replace(
    made_record(6, "float16"),
    views=Views(
        CODES.astype(np.uint8),
        np.where(CODES > 0, (N * 11 + np.array([0, 7])) % 256, 0).astype(np.uint8),
        BOXES.astype(np.uint8),
        0x7C7468,
        0x010203,
    ),
)

# Every third crop is not mixed, the next is blended, the one after it has a box of its partner.
KIND = np.arange(24) % 3
MIXED = dataclasses.replace(
    VIEWED,
    views=dataclasses.replace(
        VIEWED.views,
        mixing=Mixing(
            np.where(KIND > 0, 70_000 + np.arange(24) % 5 * 3, -1),
            np.where(KIND > 0, np.arange(24) ** 2 + 3, 0).astype(np.uint16),
            np.where(KIND == 1, np.arange(24) * 9 + 1, 0).astype(np.uint8),
            np.where(KIND[:, None] == 2, np.array([11, 21, 31, 41]) + N, 0).astype(np.uint8),
        ),
    ),
)

EIGHTHS = ((N * 37 + np.arange(16) * 11) % 33 - 16) / 8.0
EMBEDDED = dataclasses.replace(
    made_record(7, "none"),
    index=np.zeros((24, 0), np.int64),
    value=np.zeros((24, 0), np.float32),
    coding="embedding",
    num_classes=0,
    embeddings={
        "a.b": Embedding.of(EIGHTHS * (N % 5), "int8"),
        "ü": Embedding.of(EIGHTHS[:, :3] * 3, "float16"),
        "c": Embedding.of(EIGHTHS[:, :1] / 3, "float32"),
    },
)

CODED_EMBEDDINGS = dataclasses.replace(
    EMBEDDED,
    embeddings={
        "a": Embedding.of(EIGHTHS, "int8"),
        "low": LowRankEmbedding(
            dim=5,
            blocks=(
                EmbeddingBlock(
                    np.array([4, 1, 0]), np.array([9, -300, 0, 2, 1]), np.arange(-5, 5).reshape(5, 2)
                ),
                EmbeddingBlock(np.array([0]), np.array([0, 0, 3, 0, -4]), np.zeros((5, 0), np.int64)),
            ),
            block_of=np.repeat([0, 1], [20, 4]),
            lengths=np.where(np.arange(24) % 6 == 5, 0, 10240 + np.arange(24) * 16),
            coefficients=np.where(np.arange(24)[:, None] < 20, (N * 7) % 23 - 11 + np.array([0, 200]), 0),
            cosine=StatedCosine(0.9921875, 0.75),
        ),
    },
)

CLASSES = np.array([2, 3, 17, 400, 401, 999])
CODED = dataclasses.replace(
    made_record(8, "none"),
    index=np.zeros((24, 0), np.int64),
    value=np.zeros((24, 0), np.float32),
    coding="lowrank",
    low_rank=LowRank(
        blocks=(
            LowRankBlock(
                1000, CLASSES, np.array([9, 40, 3, 0, 12, 5, 7]), N[:14].reshape(2, 7) % 9 - 4, N[4:6, 0], 33
            ),
            LowRankBlock(1000, CLASSES[:1], np.array([31, 6]), np.zeros((0, 2), np.int64), N[:0, 0], 255),
        ),
        block_of=np.where(N[:, 0] % 11 == 10, 1, 0),
        coefficients=np.where(N % 11 == 10, 0, N * np.array([5, 3]) % 17 - 8),
        kl=StatedKL(0.0625, 0.25, "labels", (0.125, None)),
    ),
)

IMAGES = [b"image" * count for count in (1, 2, 3)]
CHECKED = [
    dataclasses.replace(RECORDS[name], image_crc32=zlib.crc32(image), source_crc32=source)
    for name, image, source in zip(("float32", "float16", "log8"), IMAGES, (None, 0, 2**32 - 1), strict=True)
]


def made() -> dict[str, bytes]:
    """Every golden file."""
    plain = [Sample(RECORDS[name]) for name in ("float32", "float16", "log8")]
    extensions = ("jpg", "png", "webp")
    embedded = [Sample(s.record, image, ext) for s, image, ext in zip(plain, IMAGES, extensions, strict=True)]
    checked = [Sample(*one) for one in zip(CHECKED, IMAGES, extensions, strict=True)]
    paths = ["left/out.png", *(sample.record.path for sample in plain)]
    keys = ["left/out", *(sample.record.key for sample in plain)]
    plan = Plan(
        ["train-000000"], np.array([4]), StringColumn.of(paths), StringColumn.of(keys),
        np.array([0, 1, 2, -1], np.int32), "shards", ["images.tar"], np.arange(4) * 2560, np.arange(4) + 1000,
    )  # fmt: skip
    plan_bytes = encode_plan(plan)
    identity = {"label_type": "shared_tail_k3", "seed": 0, "teachers": [{"arch": "größer", "mean": [0.485]}]}
    # Of the contents: the plan's own bytes depend on the release of zstd.
    set_digest = digest(b"golden", identity)
    left_out = [{"key": "left/out", "path": "left/out.png", "reason": "not an image"}]
    header = ShardHeader(set_digest, 0, "train-000000", left_out, {"num_seg": 50})
    shard = encode_shard(plain, header, OLD_TRAILER)
    description = Description(
        4, 1, hashlib.sha256(b"golden").hexdigest(), identity, {"date": "2026-01-01"}, ["a", "ü"]
    )
    return {
        **{f"{name}.slg.msgpack": encode_record(record) for name, record in RECORDS.items()},
        "plain.tar": shard,
        "embedded.tar": encode_shard(embedded, header, OLD_TRAILER),
        "plan": plan_bytes,
        "slg.json": encode_description(description),
        "index": encode_index(build_index(shard, plan, 0)),
        "_info.json": encode_info(Info("train", ["train-000000.tar"], [3])),
        "checked.slg.msgpack": encode_record(CHECKED[2]),
        "checked.tar": encode_shard(checked, header),
        "views.slg.msgpack": encode_record(VIEWED),
        "mixed.slg.msgpack": encode_record(MIXED),
        "embeddings.slg.msgpack": encode_record(EMBEDDED),
        "lowrank.slg.msgpack": encode_record(CODED),
        "embeddings/low_rank.slg.msgpack": encode_record(CODED_EMBEDDINGS),
        "checked.json": encode_description(
            dataclasses.replace(description, requires=["trailer"], image_checksums=True)
        ),
    }


NAMES = [
    *(f"{name}.slg.msgpack" for name in RECORDS),
    "plain.tar", "embedded.tar", "plan", "slg.json", "index", "_info.json",
    *(NEW := ("checked.slg.msgpack", "checked.tar", "checked.json", "views.slg.msgpack", "embeddings.slg.msgpack",
    "lowrank.slg.msgpack", "mixed.slg.msgpack", "embeddings/low_rank.slg.msgpack")),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_writers_give_the_golden_bytes(name: str) -> None:
    data = made()[name]
    if SAME_ZSTD or name.endswith(".json"):
        assert data == (GOLDEN / name).read_bytes()


def test_a_golden_record_with_views() -> None:
    data = (GOLDEN / "views.slg.msgpack").read_bytes()
    read, views = read_record(data), VIEWED.views
    assert views is not None and same_views(decode_record(data).views, views)
    for name in ("operations", "arguments", "erased"):
        assert np.array_equal(read[name], getattr(views, name))


def test_a_golden_record_with_mixed_views() -> None:
    data = (GOLDEN / "mixed.slg.msgpack").read_bytes()
    read, views = read_record(data), MIXED.views
    assert views is not None and views.mixing is not None and same_views(decode_record(data).views, views)
    for name in ("partner", "crop", "lam", "box"):
        assert np.array_equal(read[name], getattr(views.mixing, name))


def test_golden_embeddings() -> None:
    data = (GOLDEN / "embeddings.slg.msgpack").read_bytes()
    read, embeddings = read_record(data), EMBEDDED.embeddings
    assert embeddings is not None and same(decode_record(data), EMBEDDED)
    for (name, vectors), (expected, embedding) in zip(read["embeddings"], embeddings.items(), strict=True):
        assert name == expected and np.array_equal(vectors, embedding.vectors)


def test_golden_low_rank_embeddings() -> None:
    data = (GOLDEN / "embeddings/low_rank.slg.msgpack").read_bytes()
    read, embeddings = read_record(data), CODED_EMBEDDINGS.embeddings
    assert embeddings is not None and same(decode_record(data), CODED_EMBEDDINGS)
    (_, first), (name, vectors) = read["embeddings"]
    assert name == "low" and read["lowrank"] == [None, [0.9921875, 0.75, [20, 4], [2, 0]]]
    assert np.array_equal(first, embeddings["a"].vectors)
    assert np.allclose(vectors, embeddings["low"].vectors, rtol=1e-5, atol=1e-5)
    # By hand: crop 20 is of the second block, (0, 0, 3, 0, -4) of the length 2^5; crop 23 is a zero vector.
    assert np.allclose(vectors[20], [0, 0, 19.2, 0, -25.6]) and not vectors[23].any()


def test_a_golden_low_rank_record() -> None:
    data = (GOLDEN / "lowrank.slg.msgpack").read_bytes()
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
    data = (GOLDEN / f"{name}.slg.msgpack").read_bytes()
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
    shard = read_shard((GOLDEN / f"{name}.tar").read_bytes())
    assert shard.header.left_out == [{"key": "left/out", "path": "left/out.png", "reason": "not an image"}]
    for i, kind in enumerate(("float32", "float16", "log8")):
        golden = decode_record((GOLDEN / f"{kind}.slg.msgpack").read_bytes())
        assert same(shard.record(i), golden)
    images = [sample.image for sample in shard]
    assert images == ([None] * 3 if name == "plain" else [b"image", b"image" * 2, b"image" * 3])


def test_golden_files_with_checksums_of_images() -> None:
    data = (GOLDEN / "checked.slg.msgpack").read_bytes()
    record = decode_record(data)
    assert (record.image_crc32, record.source_crc32) == (zlib.crc32(b"image" * 3), 2**32 - 1)
    oracle = read_record(data)
    assert (oracle["image_crc32"], oracle["source_crc32"]) == (record.image_crc32, record.source_crc32)
    shard = read_shard((GOLDEN / "checked.tar").read_bytes())
    assert [member.name for member in shard.members][-1] == "__slg__/shard"
    assert [shard.record(i).image_crc32 for i in range(3)] == [s.image_crc32 for s in shard.samples]
    assert [shard.record(i).source_crc32 for i in range(3)] == [None, 0, 2**32 - 1]
    _, members = read_shard_of_oracle((GOLDEN / "checked.tar").read_bytes())
    assert [fields["image_crc32"] for name, fields in members if name.endswith("msgpack")] == [
        zlib.crc32(image) for image in IMAGES
    ]
    description = decode_description((GOLDEN / "checked.json").read_bytes())
    assert (description.requires, description.image_checksums) == (["trailer"], True)


def test_old_golden_files_have_no_checksums_of_images() -> None:
    description = decode_description((GOLDEN / "slg.json").read_bytes())
    assert (description.requires, description.image_checksums) == ([], False)
    shard = read_shard((GOLDEN / "embedded.tar").read_bytes())
    assert [member.name for member in shard.members][-1] == "__slg__/shard.json"
    assert [(s.record.image_crc32, s.record.source_crc32) for s in shard] == [(None, None)] * 3


def test_golden_manifest() -> None:
    plan = decode_plan((GOLDEN / "plan").read_bytes())
    assert list(plan.keys)[1] == "n00000001/é%25_1%2Ex"
    assert plan.targets.tolist() == [0, 1, 2, -1]
    index = decode_index((GOLDEN / "index").read_bytes())
    assert index.images == [[2560, 1001], [5120, 1002], [7680, 1003]]
    assert build_index((GOLDEN / "plain.tar").read_bytes(), plan, 0) == index
    description = decode_description((GOLDEN / "slg.json").read_bytes())
    assert index.set_digest == digest(b"golden", description.identity)
    assert decode_info((GOLDEN / "_info.json").read_bytes()).num_samples == 3


if __name__ == "__main__":
    for name, data in made().items():
        (GOLDEN / name).write_bytes(data)
