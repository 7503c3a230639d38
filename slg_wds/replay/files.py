"""Ranges of local files, read from many threads with few of them open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from slg_wds.errors import NotFoundError, PermissionDeniedError, StoreUnavailableError

OPEN_AT_ONCE = 256  # of the 1,024 descriptors that a process commonly may have


class OpenFiles:
    """Files kept open after reading, the least recently used closed first.

    A range is read by pread and not from a mapping: waiting for the disk then lets the other threads run.
    """

    def __init__(self, limit: int = OPEN_AT_ONCE) -> None:
        self._limit = limit
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """The bytes from `offset`, fewer than `size` at the end of the file. Raises NotFoundError, StoreError."""
        file = self._file(path)
        try:
            # What an index asks for is not yet known to be there, and memory is taken for what is asked.
            size = min(size, max(0, file.size - offset))
            data = os.pread(file.descriptor, size, offset)
            while 0 < len(data) < size:  # a signal, or more than 2 GiB
                more = os.pread(file.descriptor, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise StoreUnavailableError(f"the file cannot be read: {error.strerror}", url=path) from error
        return data

    def forget(self, path: str) -> None:
        """Open the file anew at the next read."""
        with self._lock:
            self._files.pop(path, None)

    def clear(self) -> None:
        """Close all files, each when no thread reads it."""
        with self._lock:
            self._files.clear()

    def _file(self, path: str) -> _File:
        with self._lock:
            file = self._files.get(path)
            if file is not None:
                self._files.move_to_end(path)
                return file
        file = _File(path)
        with self._lock:
            self._files[path] = file
            if len(self._files) > self._limit:
                self._files.popitem(last=False)
        return file


class _File:
    """A descriptor that is closed when the last thread lets go of it; the size as it was at opening."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self.descriptor).st_size
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such file", url=path) from None
        except PermissionError as error:
            raise PermissionDeniedError(f"not permitted: {error.strerror}", url=path) from error
        except OSError as error:
            raise StoreUnavailableError(f"the file cannot be opened: {error.strerror}", url=path) from error

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
