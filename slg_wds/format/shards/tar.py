"""The one form of tar that a shard has: what tarfile's PAX format gives for read-only files of time 0.

Reading is strict on purpose: a header is rebuilt from the name and size that it states and must come out the
same, so a changed byte is found wherever it is. tarfile and WebDataset end quietly at a damaged header.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from slg_wds.errors import ShardError, ShardTruncatedError

BLOCK = 512
# tarfile ends an archive with at least two blocks of zeros, up to a multiple of 20 blocks.
ARCHIVE_UNIT = 20 * BLOCK

_EMPTY = bytes(BLOCK)
_ZEROS = bytes(ARCHIVE_UNIT + 2 * BLOCK)
_MAX_PAX_BYTES = 1 << 14
_MODE_FILE = b"0000444\0"
_MODE_PAX = b"0000000\0"
_TIME = b"00000000000\0"
# Releases of Python differ in the device numbers of plain files: nothing, or zeros in octal.
_DEVICES = (bytes(16), b"0000000\0" * 2)


class Member(NamedTuple):
    """One file of a shard: its name, and where its content lies."""

    name: str
    offset: int
    size: int


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def member_header(name: str, size: int, devices: bytes = _DEVICES[0]) -> bytes:
    """All header blocks of one member: a PAX header where the name needs one, then the plain one."""
    plain = name.encode("ascii", "replace")
    pax = b""
    if len(plain) > 100 or not name.isascii():
        record = _pax_record(name)
        pax = _header(b"././@PaxHeader", len(record), _MODE_PAX, b"x", devices)
        pax += record.ljust(padded(len(record)), b"\0")
    return pax + _header(plain[:100], size, _MODE_FILE, b"0", devices)


def _pax_record(name: str) -> bytes:
    text = b" path=" + name.encode("utf-8") + b"\n"
    # The length that begins the record counts its own digits.
    digits = next(n for n in range(1, 9) if len(str(len(text) + n)) <= n)
    return str(len(text) + digits).encode("ascii") + text


def _header(name: bytes, size: int, mode: bytes, kind: bytes, devices: bytes) -> bytes:
    owner, after, total = _fixed(mode, kind, devices)
    length = b"%011o\0" % size
    # The checksum adds up all bytes, its own eight taken for spaces.
    checksum = b"%06o\0 " % (sum(name) + sum(length) + total)
    return b"".join((name.ljust(100, b"\0"), owner, length, _TIME, checksum, after))


@functools.cache
def _fixed(mode: bytes, kind: bytes, devices: bytes) -> tuple[bytes, bytes, int]:
    """What a header has between name and size, what it has after its checksum, and all that these add to that."""
    owner = mode + b"0000000\0" * 2
    after = kind + bytes(100) + b"ustar\x0000" + bytes(64) + devices + bytes(155 + 12)
    return owner, after, sum(owner) + sum(_TIME) + 8 * 32 + sum(after)


def members(data: memoryview) -> Iterator[Member]:
    """Every member of a whole archive in order; after the last one, the end of the archive is checked.

    Raises ShardTruncatedError where bytes are missing, ShardError for any that should not be as they are.
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
    """(name, size, where the content begins) of the member whose first header block is at `at`."""
    start, devices, name = at, block[329:345], None
    if block[156:157] == b"x":
        size = _size(block, at)
        if size > _MAX_PAX_BYTES:
            raise ShardError(f"the PAX header at byte {at} is of {size} bytes")
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
    # int() would take signs, spaces and underscores too.
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
    if bytes(data[at:]) != _ZEROS[: needed - at]:  # a view is compared number by number
        raise ShardError(f"the end of the archive, from byte {at}, is not zero")
