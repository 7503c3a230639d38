"""The one form of tar that a shard has: what tarfile's PAX format gives for read-only files of time 0.

Reading is strict on purpose. A header is built again from the name and size that it states, and must come out the same;
so any changed byte is found. tarfile and WebDataset stop without an error at a damaged header. tarfile's own
`frombuf` and `tobuf` are no help here: they know other forms too, and take ten times as long (30 µs a header).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from slg_wds.errors import ShardError, ShardTruncatedError

BLOCK = 512
# tarfile ends an archive with at least two blocks of zeros and fills it up to a multiple of 20 blocks.
ARCHIVE_UNIT = 20 * BLOCK

_EMPTY = bytes(BLOCK)
_ZEROS = bytes(ARCHIVE_UNIT + 2 * BLOCK)
_MAX_PAX_BYTES = 1 << 14
_MODE_FILE = b"0000444\0"
_MODE_PAX = b"0000000\0"
_TIME = b"00000000000\0"
# The device numbers of plain files are empty or octal zeros: releases of Python differ.
_DEVICES = (bytes(16), b"0000000\0" * 2)


class Member(NamedTuple):
    """One file of a shard.

    Attributes:
        name: its name.
        offset: where its content begins in the shard, in bytes.
        size: bytes of its content.
    """

    name: str
    offset: int
    size: int


def padded(size: int) -> int:
    """Round `size` up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def member_header(name: str, size: int, devices: bytes = _DEVICES[0]) -> bytes:
    """Make the header blocks of a member: a PAX header if the name needs one, then the plain header."""
    plain = name.encode("ascii", "replace")
    pax = b""
    if len(plain) > 100 or not name.isascii():
        record = _pax_record(name)
        pax = _header(b"././@PaxHeader", len(record), _MODE_PAX, b"x", devices)
        pax += record.ljust(padded(len(record)), b"\0")
    return pax + _header(plain[:100], size, _MODE_FILE, b"0", devices)


def _pax_record(name: str) -> bytes:
    text = b" path=" + name.encode("utf-8") + b"\n"
    # The record begins with its length, which counts its own digits too.
    digits = next(n for n in range(1, 9) if len(str(len(text) + n)) <= n)
    return str(len(text) + digits).encode("ascii") + text


def _header(name: bytes, size: int, mode: bytes, kind: bytes, devices: bytes) -> bytes:
    owner, after, total = _fixed(mode, kind, devices)
    length = b"%011o\0" % size
    # The checksum is the sum of all bytes, with spaces in place of its own eight.
    checksum = b"%06o\0 " % (sum(name) + sum(length) + total)
    return b"".join((name.ljust(100, b"\0"), owner, length, _TIME, checksum, after))


@functools.cache
def _fixed(mode: bytes, kind: bytes, devices: bytes) -> tuple[bytes, bytes, int]:
    """Return the bytes between name and size, those after the checksum, and what fixed bytes add to the checksum."""
    owner = mode + b"0000000\0" * 2
    after = kind + bytes(100) + b"ustar\x0000" + bytes(64) + devices + bytes(155 + 12)
    return owner, after, sum(owner) + sum(_TIME) + 8 * 32 + sum(after)


def members(data: memoryview) -> Iterator[Member]:
    """Yield every member of a whole archive in order, then check the end of the archive.

    Raises:
        ShardTruncatedError: bytes are missing.
        ShardError: a byte is not as the format has it.
    """
    at = 0
    while (block := _slice(data, at, BLOCK)) != _EMPTY:
        name, size, at = _member(data, at, block)
        yield Member(name, at, size)
        end = at + padded(size)
        if bytes(data[at + size : end]).strip(b"\0"):
            raise ShardError(f"the padding after member {name!r} is not zero")
        at = end
    _check_end(data, at)


def _member(data: memoryview, at: int, block: bytes) -> tuple[str, int, int]:
    """Return name, size and begin of the content of the member whose first header block is at byte `at`."""
    start, devices, name = at, block[329:345], None
    if block[156:157] == b"x":
        size = _size(block, at)
        if size > _MAX_PAX_BYTES:
            raise ShardError(f"the PAX header at byte {at} has {size} bytes, over {_MAX_PAX_BYTES}")
        name = _pax_name(_slice(data, at + BLOCK, padded(size))[:size], at)
        at += BLOCK + padded(size)
        block = _slice(data, at, BLOCK)
    size = _size(block, at)
    name = _plain_name(block, at) if name is None else name
    at += BLOCK
    if devices not in _DEVICES or bytes(data[start:at]) != member_header(name, size, devices):
        raise ShardError(f"the tar header at byte {start} is damaged, or not of the form that shards have")
    if at + padded(size) > len(data):
        raise ShardTruncatedError(f"the shard ends at byte {len(data)}, within member {name!r}")
    return name, size, at


def _slice(data: memoryview, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ShardTruncatedError(f"the shard ends at byte {len(data)}, where {at + size} are needed")
    return bytes(data[at : at + size])


def _size(block: bytes, at: int) -> int:
    digits = block[124:135]
    # int() would accept signs, spaces and underscores too.
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ShardError(f"the tar header at byte {at} has no size")
    return int(digits, 8)


def _plain_name(block: bytes, at: int) -> str:
    name = block[:100].rstrip(b"\0")
    if not name or not name.isascii():
        raise ShardError(f"the tar header at byte {at} has no name")
    return name.decode("ascii")


def _pax_name(record: bytes, at: int) -> str:
    try:
        name = record.partition(b"=")[2][:-1].decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name or record != _pax_record(name):
        raise ShardError(f"the PAX header at byte {at} is not one path")
    return name


def _check_end(data: memoryview, at: int) -> None:
    needed = -(-(at + 2 * BLOCK) // ARCHIVE_UNIT) * ARCHIVE_UNIT
    if len(data) < needed:
        raise ShardTruncatedError(f"the shard ends at byte {len(data)}, where {needed} are needed")
    if len(data) > needed:
        raise ShardError(f"the shard goes on for {len(data) - needed} bytes after its end")
    if bytes(data[at:]) != _ZEROS[: needed - at]:  # comparing a memoryview takes far longer
        raise ShardError(f"the end of the archive, from byte {at}, is not zero")
