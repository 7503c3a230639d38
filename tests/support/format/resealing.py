"""Change the members of shards and make every checksum right again, as someone who knows the format could."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path

import slg_wds
from slg_wds.format.manifest.index import build_index, encode_index
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.shards.header import Sums, decode_header, encode_header, names_crc32
from slg_wds.format.shards.names import IMAGE_EXTS
from slg_wds.format.shards.shard import read_shard
from slg_wds.format.shards.tar import ARCHIVE_UNIT, BLOCK, member_header, members

Members = list[tuple[str, bytes]]
Change = Callable[[str, bytes], bytes]  # of a member, by its name


def members_of(shard: bytes) -> Members:
    return [(m.name, shard[m.offset : m.offset + m.size]) for m in members(memoryview(shard))]


def tar_of(found: Members) -> bytes:
    body = b"".join(
        member_header(name, len(content)) + content + bytes(-len(content) % BLOCK) for name, content in found
    )
    return body + bytes(2 * BLOCK + -(len(body) + 2 * BLOCK) % ARCHIVE_UNIT)


def resealed(found: Members, samples: int) -> Members:
    """Return a shard of these members, with a trailer that matches them."""
    *rest, (name, header) = found
    sums = Sums(
        samples, [zlib.crc32(content) for _, content in rest], names_crc32([name for name, _ in rest])
    )
    return [*rest, (name, encode_header(decode_header(header)[0], sums))]


def samples_of(found: Members) -> list[Members]:
    """Group the members, without the trailer, by sample."""
    groups: dict[str, Members] = {}
    for name, content in found[:-1]:
        folder, slash, base = name.rpartition("/")
        groups.setdefault(folder + slash + base.partition(".")[0], []).append((name, content))
    return list(groups.values())


def rewritten(labels: Path, change: Change) -> Path:
    """Change every member of a set; correct all checksums and index parts."""
    opened = slg_wds.open_labels(str(labels))
    for number in range(opened.num_shards):
        path = labels / opened.shard_name(number)
        found = members_of(path.read_bytes())
        new = [(name, change(name, content)) for name, content in found[:-1]]
        found = [*_of_their_images(new, found), found[-1]]
        data = tar_of(resealed(found, len(samples_of(found))))
        path.write_bytes(data)
        index = build_index(read_shard(data), opened.plan, number)
        (labels / "index" / path.stem).write_bytes(encode_index(index))
    return labels


def _of_their_images(new: Members, old: Members) -> Members:
    """Give the records the checksums of the images beside them, where these were changed."""
    crc32s = {
        name.rpartition(".")[0]: zlib.crc32(content)
        for (name, content), (_, before) in zip(new, old, strict=False)
        if content != before and name.rpartition(".")[2] in IMAGE_EXTS
    }
    return [
        (name, encode_record(dataclasses.replace(decode_record(content), image_crc32=crc32s[key])))
        if name.endswith(".slg.msgpack") and (key := name.removesuffix(".slg.msgpack")) in crc32s
        else (name, content)
        for name, content in new
    ]


def of_records(change: Callable[[Record], Record]) -> Change:
    def changed(name: str, content: bytes) -> bytes:
        return encode_record(change(decode_record(content))) if name.endswith(".slg.msgpack") else content

    return changed
