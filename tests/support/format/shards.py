"""A header, a shard with every kind of member, and tars that are as strict as shards."""

from __future__ import annotations

import zlib
from typing import Any

from slg_wds.format.canonical import canonical_json, parse_json, seal
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Sample, encode_shard
from slg_wds.format.shards.tar import member_header, members
from support.format.records import make_record

DIGEST = "5a" * 32
HEADER = ShardHeader(DIGEST, 3, "train-000003", provenance={"num_seg": 50, "torch": "2.15"})


def small_shard(embed: bool = True) -> bytes:
    """A shard with every kind of member, names that need a pax header among them."""
    samples = [Sample(make_record("a/b", crops=3, k=2, tail=0), b"\xff\xd8image", "jpg")]
    samples.append(Sample(make_record("é", crops=3, k=2, tail=0, coding="log8"), b"\x89PNG", "png"))
    return encode_shard(samples if embed else [Sample(sample.record) for sample in samples], HEADER)


def tar_of(*contents: tuple[str, bytes]) -> bytes:
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
    return tar_of(*found, ("__slg__/shard", canonical_json(seal(fields))))
