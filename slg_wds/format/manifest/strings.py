"""A sequence of very many strings in one piece of memory."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import ManifestError

_PIECE = 1 << 18  # bytes checked at a time: they stay in the processor's cache


class StringColumn(Sequence[str]):
    """N strings as one blob of UTF-8; [i] decodes one; [a:b] and [array of numbers] give a list.

    Args:
        blob: the text.
        starts: int64 [N], the byte at which each string begins.
        ends: int64 [N], the byte after its last.
    """

    def __init__(self, blob: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.blob, self.starts, self.ends = blob, starts, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> StringColumn:
        """Make a column of these strings. Raises ManifestError for one that cannot be UTF-8."""
        parts = list(strings)
        try:
            encoded = [text.encode("utf-8") for text in parts]
        except UnicodeEncodeError as error:
            raise ManifestError(f"{error.object!r} is not UTF-8") from None
        return cls.joined(b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(encoded)))

    @classmethod
    def joined(cls, blob: bytes, lengths: NDArray[np.int64]) -> StringColumn:
        """Make a column of strings that follow each other in `blob`; `lengths` are their bytes, int64 [N]."""
        ends = lengths.cumsum(dtype=np.int64)
        return cls(blob, ends - lengths, ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each string, int64 [N]."""
        return self.ends - self.starts

    def check(self) -> None:
        """Check that every string is UTF-8, so that reading one never fails. Raises ManifestError."""
        if self.blob.isascii():
            return
        try:
            # Decoded at once, a single wide letter would make all letters take four bytes.
            decoder = codecs.getincrementaldecoder("utf-8")()
            for first in range(0, len(self.blob), _PIECE):
                decoder.decode(self.blob[first : first + _PIECE])
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            raise ManifestError("a name is not UTF-8") from None
        # The blob is UTF-8, and so is every string that does not begin or end within a character. Bytes 10xxxxxx
        # continue a character.
        data = np.frombuffer(self.blob, np.uint8)
        for edges in (self.starts, self.ends):
            inner = edges[edges < len(data)]
            if ((data[inner] & 0xC0) == 0x80).any():
                raise ManifestError("a name is not UTF-8")

    def mentions(self, byte: int) -> bool:
        """Return whether a byte is anywhere in the blob. If not, no string has it; if so, perhaps no string does."""
        return byte in self.blob

    def repeats(self, byte: int) -> bool:
        """Return whether a byte stands twice in a row in the blob. If so, it may be where two strings touch."""
        # A search for two bytes stops at each single one, and there is one after every few bytes: several times slower.
        data = np.frombuffer(self.blob, np.uint8)
        for first in range(0, len(data), _PIECE):
            found = data[first : first + _PIECE + 1] == byte
            if (found[1:] & found[:-1]).any():
                return True
        return False

    def edges(self) -> set[int]:
        """Return the bytes that strings begin or end with."""
        data = np.frombuffer(self.blob, np.uint8)
        some = self.ends > self.starts
        return {*np.unique(data[self.starts[some]]).tolist(), *np.unique(data[self.ends[some] - 1]).tolist()}

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice | NDArray[np.int64]) -> list[str]: ...
    def __getitem__(self, i: int | slice | NDArray[np.int64]) -> str | list[str]:
        if isinstance(i, (slice, np.ndarray)):
            spans = zip(self.starts[i].tolist(), self.ends[i].tolist(), strict=True)
            return [self.blob[start:end].decode("utf-8") for start, end in spans]
        return self.blob[self.starts[i] : self.ends[i]].decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        # In pieces: a list of all offsets would take more memory than the column.
        for first in range(0, len(self), 4096):
            yield from self[first : first + 4096]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StringColumn):
            return NotImplemented
        if not np.array_equal(self.lengths, other.lengths):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class LaterColumn(StringColumn):
    """A column that is unpacked when its first string is used; until then only the number of strings is known.

    Args:
        count: the number of strings.
        unpack: makes the column.
    """

    def __init__(self, count: int, unpack: Callable[[], StringColumn]) -> None:
        self._count, self._unpack = count, unpack

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for attributes that are not there yet.
        if name not in ("blob", "starts", "ends"):
            raise AttributeError(name)
        column = self._unpack()
        super().__init__(column.blob, column.starts, column.ends)
        return vars(self)[name]

    def __len__(self) -> int:
        return self._count
