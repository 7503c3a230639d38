"""The interface of all stores: whole objects under relative names, created once and never changed."""

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

MAX_BYTES = 1 << 31  # planning refuses shards over 2 GiB, so nothing larger is ever read as a whole
TEMPORARY_PREFIX = ".tmp-"
TEMPORARY_AGE = 86400.0  # seconds

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Entry(NamedTuple):
    """One object in a listing.

    Attributes:
        name: of the object, relative to the store.
        size: in bytes.
        modified: when the object was created, in seconds since 1970 (UTC).
    """

    name: str
    size: int
    modified: float


class Stat(NamedTuple):
    """The state of an object.

    Attributes:
        size: in bytes.
        version: a text that changes when the object is replaced; "" if the store has none.
    """

    size: int
    version: str = ""


class Store(ABC):
    """A place for objects.

    Names are relative, with parts separated by `/`, and cannot lead out of the store. `create` makes a whole object,
    which never changes. A store can be pickled, and many threads may use it. Every failure is a `StoreError` whose
    `url` is that of the object.

    Attributes:
        url: of the store.
        is_local: whether it is a folder of a file system.
    """

    url: str
    is_local = False

    @abstractmethod
    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: there is no such object.
            ObjectTooLargeError: it has more than `max_bytes`. The check comes before memory is allocated.
        """

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from byte `offset` on.

        Raises:
            NotFoundError: there is no such object.
            OutOfRangeError: the object ends before the last of these bytes.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the object's size in bytes; None if there is no such object."""

    def taken(self, name: str) -> bool:
        """Return whether an object has the name, so that `create` would make none.

        Raises:
            StoreError: something else has the name, such as a folder.
        """
        return self.size(name) is not None

    @abstractmethod
    def create(self, name: str, data: Data) -> bool:
        """Create an object in one step, durably, unless there is one of this name.

        If this raises, either nothing was created or, at worst, the whole object. There is never a part of it.

        Returns:
            True if this call created the object, False if there was one already, which stays as it is.
        """

    def stat(self, name: str) -> Stat | None:
        """Return the size and version of the object, with one request; None if there is no such object."""
        size = self.size(name)
        return None if size is None else Stat(size)

    @abstractmethod
    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """Yield the objects of a folder, sorted by name, without temporary files.

        Args:
            prefix: the folder, such as "index/"; "" is the whole store.
            deep: whether to go into folders below it.
        """

    def holds(self, prefix: str = "") -> bool:
        """Return whether there is any object below the folder `prefix`."""
        return next(self.list(prefix), None) is not None

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object. It is no error if there is none."""

    @abstractmethod
    def check_writable(self) -> None:
        """Check before any work that `create` will succeed here.

        Raises:
            PermissionDeniedError, StoreFullError, StoreUnavailableError: it would not.
            NotFoundError: there is no such bucket.
            UnsupportedStoreError: the store lacks what atomic commits need.
        """

    def local_path(self, name: str) -> Path | None:
        """Return the object's path in this machine's file system; None for a remote store."""
        return None

    def url_of(self, name: str) -> str:
        """Return the URL of the object, as errors name it."""
        return f"{self.url.rstrip('/')}/{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self.url)!r})"


def check_name(name: str) -> str:
    """Return a name if it is valid and stays within its store; otherwise raise InvalidNameError."""
    parts = name.split("/")
    if not name:
        raise InvalidNameError("an empty name")
    if name.startswith("/") or "" in parts or "." in parts or ".." in parts:
        raise InvalidNameError(
            f"{name!r} is not a relative name: it is absolute, or has an empty, '.' or '..' part"
        )
    if _CONTROL.search(name):
        raise InvalidNameError(f"{name!r} has a control character")
    if is_temporary(name):
        raise InvalidNameError(
            f"{name!r}: names that begin with {TEMPORARY_PREFIX!r} are reserved for temporary files"
        )
    return name


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a temporary file."""
    return TEMPORARY_PREFIX in name and name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def check_prefix(prefix: str) -> str:
    """Return the folder that a prefix names, without its last `/`; "" for the whole store. Raises InvalidNameError."""
    return check_name(prefix.rstrip("/")) if prefix else ""


def check_range(offset: int, size: int) -> None:
    """Raise ValueError for a negative offset or size."""
    if offset < 0 or size < 0:
        raise ValueError(f"offset {offset} and size {size} must not be negative")


def buffers(data: Data) -> list[memoryview]:
    """Return data as one-dimensional views of bytes, without copying it."""
    parts = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
    return [memoryview(part).cast("B") for part in parts]


def too_large(size: int, max_bytes: int, url: str) -> ObjectTooLargeError:
    """Return the error for an object of more bytes than may be read."""
    return ObjectTooLargeError(f"{size} bytes where at most {max_bytes} were expected", url=url)


def out_of_range(offset: int, size: int, total: int, url: str) -> OutOfRangeError:
    """Return the error for a range that ends after an object of `total` bytes."""
    return OutOfRangeError(f"bytes {offset} to {offset + size} of an object of {total} bytes", url=url)
