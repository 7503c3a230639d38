"""What the golden files hold: labels, a plan and shards by arithmetic alone.

Most are as the first sets were made, which knew neither checksums of images nor the present trailer; those named
`checked` have both. In tests/, `python -m support.format.golden` writes all of them anew, which only a new version of
the format can call for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib

import numpy as np

from slg_wds.format.manifest.description import Description, encode_description
from slg_wds.format.manifest.identity import digest
from slg_wds.format.manifest.index import build_index, encode_index
from slg_wds.format.manifest.info import Info, encode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import encode_plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.embeddings.low_rank import EmbeddingBlock, LowRankEmbedding, StatedCosine
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock, StatedKL
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.records.views import Views
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.names import OLD_TRAILER
from slg_wds.format.shards.shard import Sample, encode_shard
from support.paths import GOLDEN


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
    records = {
        **RECORDS, "checked": CHECKED[2], "views": VIEWED, "mixed": MIXED, "embeddings": EMBEDDED, "lowrank": CODED,
        "low_rank_embeddings": CODED_EMBEDDINGS,
    }  # fmt: skip
    return {
        **{f"records/{name}.slg.msgpack": encode_record(record) for name, record in records.items()},
        "set/plain.tar": shard,
        "set/embedded.tar": encode_shard(embedded, header, OLD_TRAILER),
        "set/plan": plan_bytes,
        "set/slg.json": encode_description(description),
        "set/index": encode_index(build_index(shard, plan, 0)),
        "set/_info.json": encode_info(Info("train", ["train-000000.tar"], [3])),
        "set/checked.tar": encode_shard(checked, header),
        "set/checked.json": encode_description(
            dataclasses.replace(description, requires=["trailer"], image_checksums=True)
        ),
    }


if __name__ == "__main__":
    for name, data in made().items():
        (GOLDEN / name).write_bytes(data)
