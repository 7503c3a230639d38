"""A tar that any program wrote (V7, ustar, GNU, PAX) -> its members, read strictly.

Python's tarfile and WebDataset stop without an error at a truncation or a damaged header. Here every header's checksum
must match, no bytes may be missing, and the archive must end with its two zero blocks and only zeros after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from slg_wds.errors import ImageShardError

BLOCK = 512
MAX_META_BYTES = 1 << 20  # of a PAX header or GNU long name
MAX_SIZE = 1 << 62
COMPRESSORS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}

FILES = (b"0", b"\0", b"7")
LINKS = (b"1", b"2")
WITHOUT_CONTENT = (b"3", b"4", b"5", b"6", b"V")  # devices, folders, pipes, GNU volume labels
PAX_NEXT, PAX_ALL, GNU_NAME, GNU_LINK = b"x", b"g", b"L", b"K"


@dataclass(frozen=True)
class TarMember:
    """A file or link in a tar.

    Attributes:
        name: the member's path in the tar.
        offset: position of the content's first byte in the tar.
        size: length of the content in bytes; 0 for a link.
        link: whether it is a link, which has no bytes of its own.
    """

    name: str
    offset: int
    size: int
    link: bool = False


class RangeReader:
    """Reads ranges of one file in pieces of at least `window` bytes, and keeps the last two pieces.

    It keeps two because a sample's target is read after the header of the next sample.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, window: int) -> None:
        """Open the reader; nothing is read yet.

        Args:
            fetch: (offset, size) -> exactly `size` bytes from `offset` on.
            size: of the file, in bytes.
            window: the smallest number of bytes to fetch at once.
        """
        self.size, self._fetch, self._window = size, fetch, window
        self._pieces: list[tuple[int, bytes]] = []

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes [offset, offset + size). Raises ImageShardError if the file ends before that."""
        if offset + size > self.size:
            raise ImageShardError(f"truncated: it ends at byte {self.size}, where {offset + size} are needed")
        for start, piece in self._pieces:
            if start <= offset and offset + size <= start + len(piece):
                return piece[offset - start : offset - start + size]
        piece = self._fetch(offset, min(max(size, self._window), self.size - offset))
        self._pieces = [(offset, piece), *self._pieces[:1]]
        return piece[:size]


@dataclass
class _Overrides:
    """What PAX headers and GNU long names before a member say about it."""

    pax: dict[str, bytes] = field(default_factory=dict)
    name: bytes | None = None


def scan_tar(read: RangeReader) -> Iterator[TarMember]:
    """Yield every file and link of a tar in order, then check its end.

    Raises:
        ImageShardError: the file is truncated, corrupt or no tar, or has a member of a kind that cannot be read, such
            as a sparse file.
    """
    at, everywhere, extra = 0, dict[str, bytes](), _Overrides()
    _refuse_compressed(read(0, min(BLOCK, read.size)))
    while any(block := read(at, BLOCK)):
        kind, size = block[156:157], check_header(block, at)
        if kind in (PAX_NEXT, PAX_ALL, GNU_NAME, GNU_LINK):
            _note(extra, everywhere, kind, _meta(read, at, size), at)
            at += BLOCK + _padded(size)
            continue
        size = _pax_size({**everywhere, **extra.pax}, size, at)
        name = _name(block, {**everywhere, **extra.pax}, extra.name, at)
        if kind in LINKS:
            yield TarMember(name, at + BLOCK, 0, link=True)
        elif kind in FILES and not (kind == b"\0" and name.endswith("/")):
            if at + BLOCK + size > read.size:
                raise ImageShardError(
                    f"truncated at byte {read.size}, within the member {name!r} at byte {at}"
                )
            yield TarMember(name, at + BLOCK, size)
        elif kind not in (*WITHOUT_CONTENT, b"\0"):
            raise ImageShardError(
                f"the member {name!r} at byte {at} is of the kind {kind!r}, which cannot be read"
            )
        at += BLOCK + (_padded(size) if kind in FILES else 0)
        extra = _Overrides()
    if extra != _Overrides():
        raise ImageShardError(f"the archive ends at byte {at} after the header of a long name")
    _check_end(read, at)


def _refuse_compressed(start: bytes) -> None:
    for magic, name in COMPRESSORS.items():
        if start.startswith(magic):
            raise ImageShardError(
                f"this is not a tar but a {name} file",
                hint="decompress it: images are read from tars by range",
            )


def stated_size(block: bytes, at: int) -> int:
    """Return the size that a header block at byte `at` states; -1 if the block is no valid header.

    In a PAX tar a member of 8 GiB or more states 0 here; its size is in another header.
    """
    try:
        return check_header(block, at)
    except ImageShardError:
        return -1


def check_header(block: bytes, at: int) -> int:
    """Return the size that a header block at byte `at` states. Raises ImageShardError if its checksum is wrong."""
    stated = _number(block[148:156], at)
    spread = 8 * 0x20 - sum(block[148:156])  # the checksum counts itself as spaces
    if stated != sum(block) + spread and stated != _signed_sum(block) + spread:
        what = "this is not a tar" if at == 0 else "corrupt"
        raise ImageShardError(f"{what}: wrong checksum of the tar header at byte {at}")
    return _number(block[124:136], at)


def _signed_sum(block: bytes) -> int:
    """Return the sum of the bytes as signed numbers, which some old programs stored."""
    return sum(block) - 256 * sum(byte > 127 for byte in block)


def _number(text: bytes, at: int) -> int:
    """Parse a number of octal digits, or of GNU's base 256."""
    if text[0] == 0x80:
        number = int.from_bytes(text[1:], "big")
    else:
        digits = text.strip(b" \0") or b"0"
        if digits.strip(b"01234567"):
            what = "this is not a tar" if at == 0 else "corrupt"
            raise ImageShardError(f"{what}: {bytes(text)!r} in the tar header at byte {at} is not a number")
        number = int(digits, 8)
    if number > MAX_SIZE:
        raise ImageShardError(f"the tar header at byte {at} states {number} bytes")
    return number


def _meta(read: RangeReader, at: int, size: int) -> bytes:
    if size > MAX_META_BYTES:
        raise ImageShardError(f"the name or PAX header at byte {at} has {size} bytes")
    return read(at + BLOCK, size)


def _note(extra: _Overrides, everywhere: dict[str, bytes], kind: bytes, content: bytes, at: int) -> None:
    if kind == GNU_NAME:
        extra.name = content.split(b"\0")[0]
    elif kind != GNU_LINK:
        (extra.pax if kind == PAX_NEXT else everywhere).update(_pax_records(content, at))


def _pax_records(content: bytes, at: int) -> dict[str, bytes]:
    """Parse the records of a PAX header. Each is "LENGTH NAME=VALUE" and a line feed."""
    records: dict[str, bytes] = {}
    content = content.rstrip(b"\0")
    while content:
        length, _, _ = content.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 10 else 0
        name, equals, value = content[len(length) + 1 : size].partition(b"=")
        if not equals or len(content) < size or not value.endswith(b"\n"):
            raise ImageShardError(f"corrupt: the PAX header at byte {at} is not a list of records")
        records[name.decode("utf-8", "replace")] = value[:-1]
        content = content[size:]
    if any(name.startswith("GNU.sparse.") for name in records):
        raise ImageShardError(f"the member at byte {at} is a sparse file, which cannot be read")
    return records


def _pax_size(pax: dict[str, bytes], size: int, at: int) -> int:
    text = pax.get("size")
    if text is None:
        return size
    if not text.isdigit() or int(text) > MAX_SIZE:
        raise ImageShardError(f"corrupt: the PAX header before byte {at} states a size of {text!r}")
    return int(text)


def _name(block: bytes, pax: dict[str, bytes], long_name: bytes | None, at: int) -> str:
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    name = pax.get("path", long_name if long_name is not None else name)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise ImageShardError(f"the name {name!r} of the member at byte {at} is not UTF-8") from None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_end(read: RangeReader, at: int) -> None:
    """Raise ImageShardError unless the zero block at `at` is followed by another one, and then by zeros only."""
    if at + 2 * BLOCK > read.size:
        raise ImageShardError(f"truncated: the end of the archive at byte {at} is cut short")
    while at < read.size:
        step = min(1 << 16, read.size - at)
        if any(read(at, step)):
            raise ImageShardError(
                f"something follows the end of the archive at byte {at}",
                hint="tars cannot be joined by `cat`",
            )
        at += step
