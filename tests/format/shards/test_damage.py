"""Damaged shards, and what is no shard: each is refused by its error."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from typing import Any

import pytest

from slg_wds.errors import (
    ChecksumError,
    FormatError,
    ShardError,
    ShardTruncatedError,
    UnsupportedFeatureError,
)
from slg_wds.format.canonical import canonical_json, parse_json, seal
from slg_wds.format.shards.shard import (
    encode_shard,
    read_shard,
)
from slg_wds.format.shards.tar import member_header
from support.format.shards import HEADER, rewritten, small_shard, tar_of


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
        (tar_of(("a.slg.msgpack", b"")), ShardError, "its last member is not"),
        (tar_of(("__slg__/shard", b"{}")), ChecksumError, "CRC-32 does not match"),
        (tar_of(("__slg__/shard", b"[]")), ChecksumError, "JSON of a list"),
        (tar_of(("__slg__/shard", b"{")), ChecksumError, "not JSON"),
        (tar_of(("__slg__/shard", b'{"a":NaN}')), ChecksumError, "NaN is not JSON"),
        (tar_of(("__slg__/shard", b"[" * 9999)), ChecksumError, "not JSON"),
        (tar_of(("__slg__/shard", b'{"a":1e999}')), ChecksumError, "has no JSON"),
        (tar_of(("__slg__/shard", b'{"a":"\\ud800"}')), ChecksumError, "has no JSON"),
        (tar_of(("__slg__/shard", b"{}"))[:512] + b"x" * 10240, ShardError, "the padding after member"),
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


@pytest.mark.parametrize("name", ["__slg__/shard", "__slg__/shard.json"])
def test_a_trailer_stands_last_and_once(name: str) -> None:
    shard = read_shard(encode_shard([], HEADER))
    trailer = bytes(shard.content(shard.members[-1]))
    fields = parse_json(trailer)
    del fields["crc32"]
    sums = {"members_crc32": [zlib.crc32(trailer)], "names_crc32": zlib.crc32(f"{name}\n".encode())}
    last = canonical_json(seal({**fields, **sums}))
    with pytest.raises(ShardError, match=r"has no key or no extension|are not those of a sample"):
        read_shard(tar_of((name, trailer), ("__slg__/shard", last)))
