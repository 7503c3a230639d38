"""The files of caches: a directory within a number of bytes, shared by the processes of a machine."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from slg_wds.errors import PermissionDeniedError, SlgWdsError, StoreError, StoreFullError, UsageError

TEMPORARY_AGE = 3600.0  # seconds after which a temporary's writer is taken for dead
_FILE = re.compile(r"slg-[0-9a-f]{16}-.+\.tar")
_TEMPORARY = ".slg-tmp-"


class CacheDirectory:
    """The files, of any label sets, within `limit` bytes. Other files in the directory are left alone.

    Raises PermissionDeniedError, StoreError where it cannot be written to.
    """

    def __init__(self, path: str | None, limit: int) -> None:
        self.path = Path(path).expanduser() if path else default_directory()
        self.limit = limit
        self._lock = threading.Lock()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.temporary():
                pass
        except OSError as error:
            raise failure(error, self.path) from error
        self._sweep()

    @contextlib.contextmanager
    def temporary(self) -> Iterator[tuple[FileIO, Path]]:
        """A new file open for writing and its path; gone afterwards unless renamed."""
        path = self.path / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with open(path, "xb", buffering=0) as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def make_room(self, size: int, needed: set[str]) -> None:
        """Remove files, the least recently used first and none of those `needed`, until `size` more bytes fit.

        Raises StoreFullError, and removes nothing, for a file that is larger than the whole cache may be.
        """
        if size > self.limit:
            raise StoreFullError(
                f"a file of {size} bytes is more than the {self.limit} that the cache may hold",
                url=str(self.path),
                hint="raise cache_bytes",
            )
        with self._lock:
            files, total = [], size
            for entry in os.scandir(self.path):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _FILE.fullmatch(entry.name):
                        files.append((status.st_mtime_ns, status.st_size, entry.path))
                        total += status.st_size
                    elif entry.name.startswith(_TEMPORARY):
                        total += status.st_size
            for _, length, path in sorted(files):
                if total <= self.limit:
                    return
                if path not in needed:
                    Path(path).unlink(missing_ok=True)
                    total -= length

    def _sweep(self) -> None:
        for entry in os.scandir(self.path):
            if entry.name.startswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > TEMPORARY_AGE:
                        os.unlink(entry.path)  # noqa: PTH108


def default_directory() -> Path:
    """Where shards are cached when nothing is said: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slg-wds"


def write_all(file: FileIO, data: bytes) -> None:
    """All of it: a disk that fills up takes a part and says so only at the next write."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def failure(error: OSError, path: Path) -> SlgWdsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError("the cache's disk is full", url=str(path), hint="lower cache_bytes")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError("the cache cannot be written to", url=str(path), hint="pass cache_dir=")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return UsageError("a file lies where the cache should be", url=str(path), hint="pass cache_dir=")
    return StoreError(f"the cache fails: {error.strerror}", url=str(path))
