"""What every store can do: whole objects under relative names, made once and never changed."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from slg_wds.errors import InvalidNameError, ObjectTooLargeError, OutOfRangeError
from slg_wds.masking import masked

Buffer = bytes | bytearray | memoryview
Data = Buffer | Sequence[Buffer]

MAX_BYTES = 1 << 31  # a shard over 2 GiB is refused at planning, so nothing larger is ever read whole
TEMPORARY_PREFIX = ".tmp-"
TEMPORARY_AGE = 86400.0  # seconds

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Entry(NamedTuple):
    """One object in a listing: its name within the store, bytes, when it was made (seconds since 1970)."""

    name: str
    size: int
    modified: float


class Stat(NamedTuple):
    """An object as it is now. version: a text that is another one once it was replaced, "" where none is known."""

    size: int
    version: str = ""


class Store(ABC):
    """A place for objects, at `url`. Names are relative, in parts separated by `/`, and never leave it.

    An object is made whole by `create` and never changed. A store is picklable and usable by many threads.
    Every failure is a `StoreError` whose `url` is that of the object.
    """

    url: str
    is_local = False

    @abstractmethod
    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the whole object.

        Raises NotFoundError, or ObjectTooLargeError before taking memory where it has more than max_bytes.
        """

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset` on; OutOfRangeError where the object ends before."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the object's bytes, None where there is no such object."""

    def taken(self, name: str) -> bool:
        """Whether an object has the name, so that `create` makes none. StoreError where anything else has it."""
        return self.size(name) is not None

    @abstractmethod
    def create(self, name: str, data: Data) -> bool:
        """Publish data under name, whole and durable, unless the name is taken.

        Returns True if this call made the object, False if one is there already (never touched). Where this
        raises, either nothing is published or, at worst, the whole object is; there is never a part of it.
        """

    def stat(self, name: str) -> Stat | None:
        """Return size and version of the object, None where there is none; in one request."""
        size = self.size(name)
        return None if size is None else Stat(size)

    @abstractmethod
    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """Yield every object below the folder `prefix` ("" is all, or "index/"), in order, at any depth or not deep."""

    def holds(self, prefix: str = "") -> bool:
        """Whether any object lies below the folder `prefix`."""
        return next(self.list(prefix), None) is not None

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is no error."""

    @abstractmethod
    def check_writable(self) -> None:
        """Refuse before any work what `create` would need and this place lacks, naming it.

        Raises PermissionDeniedError, StoreFullError, UnsupportedStoreError, NotFoundError (no such bucket) or
        StoreUnavailableError.
        """

    def local_path(self, name: str) -> Path | None:
        """Return where the object lies on this machine's disk, None for a remote store."""
        return None

    def url_of(self, name: str) -> str:
        """Return the full URL of the object, as errors name it."""
        return f"{self.url.rstrip('/')}/{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self.url)!r})"


def check_name(name: str) -> str:
    """Return name if it stays within its store, else raise InvalidNameError."""
    parts = name.split("/")
    if not name:
        raise InvalidNameError("an empty name")
    if name.startswith("/") or "" in parts or "." in parts or ".." in parts:
        raise InvalidNameError(f"{name!r} is no relative name: absolute, or with an empty, '.' or '..' part")
    if _CONTROL.search(name):
        raise InvalidNameError(f"{name!r} has a control character")
    if is_temporary(name):
        raise InvalidNameError(
            f"{name!r}: names that begin with {TEMPORARY_PREFIX!r} are kept for temporaries"
        )
    return name


def is_temporary(name: str) -> bool:
    return TEMPORARY_PREFIX in name and name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def check_prefix(prefix: str) -> str:
    """Return the folder that prefix names, without its last `/` ("" for the whole store)."""
    return check_name(prefix.rstrip("/")) if prefix else ""


def check_range(offset: int, size: int) -> None:
    if offset < 0 or size < 0:
        raise ValueError(f"offset {offset} and size {size} must not be negative")


def buffers(data: Data) -> list[memoryview]:
    """Return data as flat views of bytes, without a copy."""
    parts = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
    return [memoryview(part).cast("B") for part in parts]


def too_large(size: int, max_bytes: int, url: str) -> ObjectTooLargeError:
    return ObjectTooLargeError(f"{size} bytes where at most {max_bytes} were expected", url=url)


def out_of_range(offset: int, size: int, total: int, url: str) -> OutOfRangeError:
    return OutOfRangeError(f"bytes {offset} to {offset + size} of an object of {total} bytes", url=url)
