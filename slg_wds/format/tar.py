"""The one form of tar that a shard has: what tarfile's PAX format gives for read-only files of time 0.

Reading is strict on purpose. A header is rebuilt from the name and size it states and must come out the same, so a
changed byte is found wherever it is; tarfile and WebDataset end quietly at a damaged header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slg_wds.errors import ShardError, ShardTruncatedError

BLOCK = 512
# tarfile pads archives with zeros to a multiple of 20 blocks, after at least two.
ARCHIVE_UNIT = 20 * BLOCK
MAX_NAME_BYTES = 8192
_MAX_PAX_BYTES = MAX_NAME_BYTES + 16

_MODE_FILE = b"0000444\0"
_MODE_PAX = b"0000000\0"
# Python releases differ in the device numbers of plain files: empty, or zero in octal.
_DEVICES = (bytes(16), b"0000000\0" * 2)


@dataclass(frozen=True)
class Member:
    """One file of a shard: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def member_header(name: str, size: int, devices: bytes = _DEVICES[0]) -> bytes:
    """All header blocks of one member: a PAX header where the name needs one, then the plain header."""
    plain = name.encode("ascii", "replace")
    pax = b""
    if len(plain) > 100 or not name.isascii():
        record = _pax_record(name)
        head = _header(b"././@PaxHeader", len(record), _MODE_PAX, b"x", devices)
        pax = head + record.ljust(padded(len(record)), b"\0")
    return pax + _header(plain[:100], size, _MODE_FILE, b"0", devices)


def _pax_record(name: str) -> bytes:
    text = b" path=" + name.encode("utf-8") + b"\n"
    digits = next(n for n in range(1, 9) if len(str(len(text) + n)) == n)
    return str(len(text) + digits).encode("ascii") + text


def _header(name: bytes, size: int, mode: bytes, kind: bytes, devices: bytes) -> bytes:
    number = b"0000000\0"
    head = name.ljust(100, b"\0") + mode + number + number + b"%011o\0" % size + b"%011o\0" % 0
    rest = kind + bytes(100) + b"ustar\x0000" + bytes(64) + devices + bytes(155 + 12)
    total = sum(head) + 8 * 32 + sum(rest)
    return head + b"%06o\0 " % total + rest


def members(data: memoryview) -> Iterator[Member]:
    """Every member of a whole archive in order; the end of the archive is checked after the last one.

    Raises ShardTruncatedError where bytes are missing and ShardError for any byte that should not be there.
    """
    at = 0
    while True:
        block = _block(data, at)
        if not any(block):
            _check_end(data, at)
            return
        name, size, at = _member(data, at, block)
        yield Member(name, at, size)
        if any(data[at + size : at + padded(size)]):
            raise ShardError(f"the padding after member {name!r} is not zero")
        at += padded(size)


def _member(data: memoryview, at: int, block: bytes) -> tuple[str, int, int]:
    """(name, size, where the content begins) of the member whose first header block is at `at`."""
    start, devices = at, block[329:345]
    if devices not in _DEVICES:
        raise ShardError(f"the tar header at byte {at} is damaged")
    name = None
    if block[156:157] == b"x":
        size = _octal(block, at)
        if size > _MAX_PAX_BYTES:
            raise ShardError(f"the PAX header at byte {at} is of {size} bytes")
        name = _pax_name(_slice(data, at + BLOCK, size), at)
        at += BLOCK + padded(size)
        block = _block(data, at)
    size = _octal(block, at)
    name = _plain_name(block, at) if name is None else name
    end = at + BLOCK
    if bytes(data[start:end]) != member_header(name, size, devices):
        raise ShardError(
            f"the tar header at byte {start} is damaged, or not one that a writer of shards gives"
        )
    _slice(data, end, padded(size))
    return name, size, end


def _block(data: memoryview, at: int) -> bytes:
    return bytes(_slice(data, at, BLOCK))


def _slice(data: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(data):
        raise ShardTruncatedError(f"the shard ends at byte {len(data)}, where {at + size} are needed")
    return data[at : at + size]


def _octal(block: bytes, at: int) -> int:
    digits = block[124:135]
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ShardError(f"the tar header at byte {at} has no size")
    return int(digits, 8)


def _plain_name(block: bytes, at: int) -> str:
    name = block[:100].rstrip(b"\0")
    if not name or not name.isascii():
        raise ShardError(f"the tar header at byte {at} has no name")
    return name.decode("ascii")


def _pax_name(record: memoryview, at: int) -> str:
    head, equals, name = bytes(record).partition(b"=")
    try:
        text = name[:-1].decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or not equals or bytes(record) != _pax_record(text):
        raise ShardError(f"the PAX header at byte {at} is not one path")
    return text


def _check_end(data: memoryview, at: int) -> None:
    if any(data[at:]):
        raise ShardError(f"there is something after the end of the archive at byte {at}")
    needed = -(-(at + 2 * BLOCK) // ARCHIVE_UNIT) * ARCHIVE_UNIT
    if len(data) < needed:
        raise ShardTruncatedError(f"the shard ends at byte {len(data)}, where {needed} are needed")
    if len(data) > needed:
        raise ShardError(f"the shard is {len(data)} bytes, {len(data) - needed} more than it should be")
