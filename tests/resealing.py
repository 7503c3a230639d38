"""Shards taken apart and put together again, with the checksums of whoever knows the format."""

from __future__ import annotations

import zlib

from slg_wds.format.header import Sums, decode_header, encode_header, names_crc32
from slg_wds.format.tar import ARCHIVE_UNIT, BLOCK, member_header, members

Members = list[tuple[str, bytes]]


def members_of(shard: bytes) -> Members:
    return [(m.name, shard[m.offset : m.offset + m.size]) for m in members(memoryview(shard))]


def tar_of(found: Members) -> bytes:
    body = b"".join(
        member_header(name, len(content)) + content + bytes(-len(content) % BLOCK) for name, content in found
    )
    return body + bytes(2 * BLOCK + -(len(body) + 2 * BLOCK) % ARCHIVE_UNIT)


def resealed(found: Members, samples: int) -> Members:
    """The members with a shard.json that says just these were written."""
    *rest, (name, header) = found
    sums = Sums(
        samples, [zlib.crc32(content) for _, content in rest], names_crc32([name for name, _ in rest])
    )
    return [*rest, (name, encode_header(decode_header(header)[0], sums))]


def samples_of(found: Members) -> list[Members]:
    """The members but shard.json, by sample."""
    groups: dict[str, Members] = {}
    for name, content in found[:-1]:
        folder, slash, base = name.rpartition("/")
        groups.setdefault(folder + slash + base.partition(".")[0], []).append((name, content))
    return list(groups.values())
