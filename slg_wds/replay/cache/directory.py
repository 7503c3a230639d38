"""The files of caches: a directory within a number of bytes, shared by the processes of a machine."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Set
from io import FileIO
from pathlib import Path

from slg_wds.console import warn
from slg_wds.errors import PermissionDeniedError, SlgWdsError, UsageError

TEMPORARY_AGE = 3600.0  # seconds after which a temporary's writer is taken for dead
IDLE = 600.0  # seconds after which a file that was not used makes room on a full disk
FULL = (errno.ENOSPC, errno.EDQUOT)
_FILE = re.compile(r"slg-[0-9a-f]{16}-.+\.tar")
_TEMPORARY = ".slg-tmp-"
_RESERVED = re.compile(r"\.slg-tmp-\d+-(\d+)-.+")


class NotCachedError(PermissionDeniedError):
    """The cache cannot take a file: it is too large, all bytes are in use, another user forbids it, or files vanish."""


class CacheDiskError(NotCachedError):
    """The disk of the cache is full or fails. What it cannot take can still be read by range."""


class CacheDirectory:
    """The files, of any label sets, within `limit` bytes. Other files in the directory are left alone.

    Raises NotCachedError where this user cannot write to it; UsageError where a file lies in its place.
    """

    def __init__(self, path: str | os.PathLike[str] | None, limit: int) -> None:
        self.path = Path(path).expanduser() if path else default_directory()
        self.limit = limit
        try:
            with self.temporary():
                pass
        except OSError as error:
            raise failure(error, self.path) from error
        self._sweep()

    @contextlib.contextmanager
    def temporary(
        self, size: int = 0, in_use: Callable[[], Set[str]] = frozenset
    ) -> Iterator[tuple[FileIO, Path]]:
        """Yield a new file open for writing and its path; gone afterwards unless renamed.

        Its name reserves `size` bytes, so that what all threads and processes download at a time is within the limit
        together. Files that are not `in_use` are removed for it; NotCachedError is raised where that is not enough.
        """
        self.path.mkdir(parents=True, exist_ok=True)  # a folder of temporary files may be cleared at any time
        self.make_room(size, in_use())
        path = self.path / f"{_TEMPORARY}{os.getpid()}-{size}-{secrets.token_hex(8)}"
        try:
            with open(path, "xb", buffering=0) as file:
                if size and not self._fits(in_use):
                    raise NotCachedError(
                        f"the cache's {self.limit} bytes are taken by files in use",
                        url=str(self.path),
                        hint="raise cache_bytes, or pass a cache_dir= that no other job uses",
                    )
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _fits(self, in_use: Callable[[], Set[str]]) -> bool:
        """Make all files fit; whether they do.

        A file that was in use may be so no more by now, and another download may have begun in its place.
        """
        before: Set[str] | None = None
        while (now := in_use()) != before:
            if self.make_room(0, now):
                return True
            before = now
        return False

    def make_room(self, size: int, needed: Set[str]) -> bool:
        """Remove files, the least recently used first and none of those `needed`, until `size` more bytes fit.

        Returns whether they fit now: files that another user's permissions protect stay.

        Raises NotCachedError, and removes nothing, for a file that is larger than the whole cache may be.
        """
        if size > self.limit:
            raise NotCachedError(
                f"a file of {size} bytes is more than the {self.limit} that the cache may hold",
                url=str(self.path),
                hint="raise cache_bytes",
            )
        files = self._files()
        total = size + sum(length for _, length, _ in files)
        for _, length, path in files:
            if total <= self.limit:
                break
            if path not in needed and not os.path.basename(path).startswith(_TEMPORARY):  # noqa: PTH119
                total -= length if remove(Path(path)) else 0
        return total <= self.limit

    def free(self, size: int, needed: Set[str]) -> bool:
        """Remove files that nobody used for a while, none of those `needed`, until `size` bytes are free on the disk.

        Files that were used a moment ago may be those of other processes: each would remove what another needs.

        Returns whether any was removed.
        """
        freed, idle = 0, time.time_ns() - int(IDLE * 1e9)
        for used, length, path in self._files():
            if freed >= size or used > idle:
                break
            if path not in needed and not os.path.basename(path).startswith(_TEMPORARY):  # noqa: PTH119
                freed += length if remove(Path(path)) else 0
        return freed > 0

    def _files(self) -> list[tuple[int, int, str]]:
        """Return time of last use, bytes and path of each file, and of each download with the bytes it will have."""
        found = []
        for entry in os.scandir(self.path):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if _FILE.fullmatch(entry.name):
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
                elif entry.name.startswith(_TEMPORARY):
                    reserved = _RESERVED.fullmatch(entry.name)
                    length = max(status.st_size, int(reserved[1]) if reserved else 0)
                    found.append((status.st_mtime_ns, length, entry.path))
        return sorted(found)

    def _sweep(self) -> None:
        for entry in os.scandir(self.path):
            if entry.name.startswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > TEMPORARY_AGE:
                        os.unlink(entry.path)  # noqa: PTH108


def default_directory() -> Path:
    """Return where shards are cached when nothing is said: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slg-wds"


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part and says so only at the next write."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def failure(error: OSError, path: Path) -> SlgWdsError:
    """Return the error to raise for an error of the cache's disk."""
    if error.errno in (*FULL, errno.EFBIG):
        hint = "make room there, or pass a cache_dir= on another disk"
        return CacheDiskError("the cache's disk is full", url=str(path), hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotCachedError(
            "the cache cannot be written to",
            url=str(path),
            hint="pass cache_dir=, or let its owner open it and its files to others (umask 002)",
        )
    if isinstance(error, FileNotFoundError):
        return NotCachedError(
            "another program removes files of the cache that are being written",
            url=str(path),
            hint="pass a cache_dir= that nobody clears",
        )
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return UsageError("a file lies where the cache should be", url=str(path), hint="pass cache_dir=")
    return CacheDiskError(f"the cache fails: {error.strerror}", url=str(path))


def read_by_range(error: NotCachedError) -> None:
    """Warn that, and why, shards are read by range instead of from the cache."""
    warn(f"shards are read by range, which is slower: {error}")


def remove(path: Path) -> bool:
    """Remove a file if it is there and another user's permissions do not protect it; whether it is gone."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True


def of_another_user(path: Path) -> bool:
    """Return whether a directory is there and another user's."""
    try:
        return path.stat().st_uid != os.geteuid()
    except OSError:
        return False
