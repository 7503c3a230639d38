"""Damaged shards kept as files, so that every later reader refuses them as well; each is one change to a golden one.

Run as a program it writes them anew.
"""

from __future__ import annotations

import io
import tarfile

import pytest

from slg_wds.errors import ChecksumError, ShardError, ShardTruncatedError
from slg_wds.format.shards.shard import read_shard
from slg_wds.format.shards.tar import members
from support.paths import GOLDEN, MALFORMED

REFUSED: dict[str, tuple[type[ShardError], str]] = {
    "cut-within-a-member": (ShardTruncatedError, "the shard ends at byte 2000, within member"),
    "cut-between-members": (ShardTruncatedError, "the shard ends at byte 2560, where 3072 are needed"),
    "cut-before-its-end": (ShardTruncatedError, "where 10240 are needed"),
    "one-bit-of-a-name": (ShardError, "the tar header at byte 0 is damaged"),
    "one-bit-of-a-record": (
        ChecksumError,
        "the CRC-32 of member 'n00000001/é%25_1%2Ex.slg.msgpack' does not match",
    ),
    "one-bit-of-shard-json": (ChecksumError, "__slg__/shard.json: its CRC-32 does not match"),
    "padding-that-is-not-zero": (ShardError, "the padding after member"),
    "bytes-after-the-end": (ShardError, "the shard goes on for 512 bytes after its end"),
    "a-member-gone": (ShardError, "2 members, where 3 were written"),
    "written-by-tar": (ShardError, "damaged, or not of the form that shards have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_shards_are_refused(name: str) -> None:
    kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        read_shard((MALFORMED / f"{name}.tar").read_bytes())


def test_every_malformed_file_is_tested() -> None:
    assert {path.stem for path in MALFORMED.glob("*.tar")} == set(REFUSED)


def made() -> dict[str, bytes]:
    """Every malformed file."""
    good = (GOLDEN / "plain.tar").read_bytes()
    first, second, _, last = members(memoryview(good))

    def flipped(at: int) -> bytes:
        return good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]

    stream = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(good)) as tar, tarfile.open(fileobj=stream, mode="w") as other:
        for member in tar:
            member.mode = 0o644
            other.addfile(member, tar.extractfile(member))
    begin, end = second.offset - 1536, second.offset + 1024
    return {
        "cut-within-a-member": good[:2000],
        "cut-between-members": good[:2560],
        "cut-before-its-end": good[: last.offset + 1024],
        "one-bit-of-a-name": flipped(first.offset - 510),
        "one-bit-of-a-record": flipped(first.offset + 100),
        "one-bit-of-shard-json": flipped(good.index(b'"set_digest":"') + 20),
        "padding-that-is-not-zero": flipped(first.offset + first.size),
        "bytes-after-the-end": good + bytes(512),
        "a-member-gone": good[:begin] + good[end:] + bytes(end - begin),
        "written-by-tar": stream.getvalue(),
    }


if __name__ == "__main__":
    for name, data in made().items():
        (MALFORMED / f"{name}.tar").write_bytes(data)
