"""Opens files that users name, only if they are regular files, and reads text in the encodings that editors write."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class SpecialFileError(OSError):
    """A pipe, socket or device stands where a file was expected; `strerror` says which."""


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a regular file for reading, following links.

    Raises:
        SpecialFileError: it is a pipe, which would block for ever, or a device, which may have no end.
        OSError: it cannot be opened.
    """
    return open(path, "rb", buffering, opener=regular_descriptor)


def regular_descriptor(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file or a folder as `open_regular` does; return its descriptor, which the caller closes.

    Raises:
        SpecialFileError: it is a pipe, a socket or a device.
        OSError: it cannot be opened.
    """
    return regular_file(path, flags)[0]


def regular_file(path: str, flags: int = os.O_RDONLY) -> tuple[int, int]:
    """Open a file as `regular_descriptor` does; return its descriptor and its size in bytes."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer opens at once
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):  # `open` itself refuses a folder
        return descriptor, found.st_size
    os.close(descriptor)
    what = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
    raise SpecialFileError(errno.EINVAL, f"it is {what}, not a file", path)


def read_file(path: str, check: Callable[[int], None]) -> bytes:
    """Read a whole regular file, with as few system calls as can be: each lets another thread run first.

    Args:
        path: of the file.
        check: is given its size before it is read, and raises for one that is too large.

    Raises:
        SpecialFileError, OSError: as `open_regular`; or it cannot be read.
    """
    descriptor, size = regular_file(path)
    try:
        check(size)
        data = os.read(descriptor, size + 1)
        if len(data) != size:  # over 2 GiB, or not of the size that was stated
            while more := os.read(descriptor, 1 << 20):
                data += more
        return data
    finally:
        os.close(descriptor)


def read_text(path: str) -> str:
    """Read a text file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding.
    """
    with open_regular(Path(path).expanduser()) as file:
        data = file.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def reason_of(error: Exception) -> str:
    """Return what went wrong. The path of an OSError is left out: the message that quotes the reason names it."""
    return getattr(error, "strerror", None) or str(error)


def folder_fault(error: OSError) -> str:
    """Return why a folder cannot be made or written to. A file that is in its way is named."""
    place = Path(error.filename or "")
    file = next((one for one in (place, *place.parents) if one.is_file()), None)
    return reason_of(error) if file is None else f"{file} is a file, not a folder"


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, stripped line) for each line that is not blank and does not begin with #."""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


class Spellings:
    """A set of names that finds a name in either Unicode form of its accents.

    It is needed because macOS decomposes accented characters, and other systems compose them.

    Args:
        names: the names, in any form.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._composed: dict[str, str | None] = {}  # None if two names differ only in form
        for name in self.names:
            if not name.isascii():
                composed = unicodedata.normalize("NFC", name)
                self._composed[composed] = None if composed in self._composed else name

    def find(self, name: str) -> str | None:
        """Return the name as it is spelled in the set; None if it is not there, or if two names would fit."""
        if name in self.names:
            return name
        return None if name.isascii() else self._composed.get(unicodedata.normalize("NFC", name))
