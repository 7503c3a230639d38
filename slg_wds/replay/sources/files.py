"""Reads of ranges of local files from many threads, with a bounded number of open files."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from slg_wds.errors import NotFoundError, PermissionDeniedError, StoreUnavailableError, UsageError
from slg_wds.files import regular_file
from slg_wds.replay.sources.page_cache import Parts

OPEN_AT_ONCE = 256
APART = 32  # descriptors for all else: the interpreter's, logs, the trainer's

FileBytes = bytes | memoryview


@dataclass(frozen=True)
class Contents:
    """The bytes of n files, or of parts of files, that were read together.

    Attributes:
        parts: the bytes of each, [n].
        crc32: the CRC-32 that each was compared with, [n]; None where there was none to compare with.
        memory: the memory in which all parts lie one after the other, from its first byte to its last; None where they
            do not. A compiled function then finds each by numbers, and needs no object for it.
    """

    parts: Sequence[FileBytes]
    crc32: Sequence[int | None]
    memory: memoryview | None = None

    def with_part(self, at: int, data: FileBytes) -> Contents:
        """Return the same with other bytes in one place."""
        return replace(self, parts=[*self.parts[:at], data, *self.parts[at + 1 :]], memory=None)


class OpenFiles:
    """Local files that stay open after a read; the least recently used one is closed first.

    At most 256 stay open, and at most half of what the process may open beyond one per thread. Ranges are read by
    `pread`, not through a memory mapping, because a thread that waits for the disk in `pread` lets others run, and
    because a file that was cut off then is an error, not the end of the process.

    Args:
        threads: threads that may each have one more file or connection open.

    Raises:
        UsageError: the process may open too few files for so many threads.
    """

    def __init__(self, threads: int = 0) -> None:
        allowed = _allowed()
        if allowed < APART + threads:
            raise UsageError(
                f"this process may open {allowed} files, too few for {threads} threads",
                hint=f"raise the limit before it starts (ulimit -n {max(1024, 2 * threads + APART)}), or pass threads=",
            )
        self.limit = max(1, min(OPEN_AT_ONCE, (allowed - APART - threads) // 2))
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, size: int) -> memoryview:
        """Return `size` bytes from `offset`, fewer at the end of the file. Raises NotFoundError or StoreError."""
        return self._file(path).read(offset, size)

    def fill(self, parts: Parts, places: Iterable[tuple[str, int]]) -> list[memoryview]:
        """Fill each part with the bytes of a file from an offset on; return them, shorter at the end of the file.

        Raises as `read`.
        """
        return [self._file(path).fill(parts, at, offset) for at, (path, offset) in enumerate(places)]

    def clear(self) -> None:
        """Close all files, each when no thread reads it."""
        with self._lock:
            self._files.clear()

    def _file(self, path: str) -> _File:
        try:  # without the lock: another thread may have closed it in between, and then it is opened again
            self._files.move_to_end(path)
            return self._files[path]
        except KeyError:
            file = _File(path)
        with self._lock:
            self._files[path] = file
            if len(self._files) > self.limit:
                self._files.popitem(last=False)
        return file


def read_once(path: str, ranges: Iterable[tuple[int, int]]) -> list[memoryview]:
    """Open a file, return the bytes at each (offset, size), and close it.

    The file does not stay open, so that the disk gets its space back when any process removes it. Opening costs
    10 us, while decoding an image costs 1 ms or more.

    Raises:
        NotFoundError: the file is gone.
        StoreError: it cannot be read.
    """
    file = _File(path)
    return [file.read(offset, size) for offset, size in ranges]


def _allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


class _File:
    """A descriptor that is closed when the last thread lets go of it; the size as it was at opening."""

    def __init__(self, path: str) -> None:
        self._path, self._descriptor = path, ctypes.c_int(-1)
        try:
            self._descriptor.value, self.size = regular_file(path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such file", url=path) from None
        except PermissionError as error:
            raise PermissionDeniedError(f"not permitted: {error.strerror}", url=path) from error
        except OSError as error:
            full = error.errno in (errno.EMFILE, errno.ENFILE)
            raise StoreUnavailableError(
                f"the file cannot be opened: {error.strerror}",
                url=path,
                hint=f"the process may open {_allowed()}; raise that before it starts (ulimit -n)"
                if full
                else None,
            ) from error

    def read(self, offset: int, size: int) -> memoryview:
        """The bytes from `offset`, fewer than `size` at the end of the file. Raises StoreError."""
        # What an index asks for is not yet known to be there, and memory is taken for what is asked.
        return self.fill(Parts([min(size, max(0, self.size - offset))]), 0, offset)

    def fill(self, parts: Parts, at: int, offset: int) -> memoryview:
        """Fill a part with the bytes from `offset`; return what was filled. Raises StoreError."""
        memory, done = parts.parts[at], parts.fill_cached(at, self._descriptor, offset)
        if done == len(memory):
            return memory
        done = max(0, done)
        try:
            while done < len(memory):  # at most once, but for a signal or more than 2 GiB
                read = os.preadv(self._descriptor.value, [memory[done:]], offset + done)
                if not read:
                    break
                done += read
        except OSError as error:
            raise StoreUnavailableError(
                f"the file cannot be read: {error.strerror}", url=self._path
            ) from error
        return memory[:done]

    def __del__(self) -> None:
        if self._descriptor.value >= 0:
            os.close(self._descriptor.value)
