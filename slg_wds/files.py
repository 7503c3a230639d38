"""Files that people name: opened only where they are files, read as text in the encodings that editors write."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class SpecialFileError(OSError):
    """A pipe, socket or device where a file was expected; `strerror` says which."""


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a file for reading; links are followed.

    Raises OSError; SpecialFileError for a pipe, which would block for ever, or a device, which may have no end.
    """
    return open(path, "rb", buffering, opener=regular_descriptor)


def regular_descriptor(path: str, flags: int = os.O_RDONLY) -> int:
    """The same as a descriptor, which the caller closes; also of a folder."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer opens at once
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` itself refuses a folder
        return descriptor
    os.close(descriptor)
    what = KINDS.get(stat.S_IFMT(mode), "something else")
    raise SpecialFileError(errno.EINVAL, f"it is {what}, not a file", path)


def read_text(path: str) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, or UTF-16 with one. Raises OSError, ValueError."""
    with open_regular(Path(path).expanduser()) as file:
        data = file.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line) of each line that is not blank and does not begin with #, without outer spaces."""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


class Spellings:
    """Names, found also by another Unicode normal form: macOS decomposes accents, other systems compose them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._composed: dict[str, str | None] = {}  # None: two names that differ in form alone
        for name in self.names:
            if not name.isascii():
                composed = unicodedata.normalize("NFC", name)
                self._composed[composed] = None if composed in self._composed else name

    def find(self, name: str) -> str | None:
        """The name as it is spelled here, None where it is not here."""
        if name in self.names:
            return name
        return None if name.isascii() else self._composed.get(unicodedata.normalize("NFC", name))
