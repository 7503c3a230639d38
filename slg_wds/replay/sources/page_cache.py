"""Reads of what the kernel holds in memory, without giving the interpreter away."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np

_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)


def _preadv2() -> Callable[..., int] | None:
    """Return glibc's `preadv2`, called with the interpreter in hand; None where there is none."""
    if sys.platform != "linux" or not _NO_WAIT:
        return None
    with contextlib.suppress(AttributeError, OSError):
        found = ctypes.PyDLL(None).preadv64v2
        found.restype = ctypes.c_ssize_t
        return found
    return None


_PREADV2 = _preadv2()
# Numbers are given as objects of ctypes, made once: to make one at each call takes as long as the call.
_ONE_PART, _FLAGS = ctypes.c_int(1), ctypes.c_int(_NO_WAIT)


class Parts:
    """Fresh memory for parts that lie one after the other; it holds anything. Not for several threads.

    `os.preadv` lets another thread have the interpreter. With 16 threads, having it back takes several times as long as
    the copy of an image from the page cache. `fill_cached` keeps the interpreter, and so it must not wait: with
    RWF_NOWAIT the kernel (since Linux 4.14) rather says that bytes are not in memory.

    Args:
        sizes: bytes of each part.

    Attributes:
        memory: of all parts.
        parts: each of them.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        ends = np.cumsum(np.array(sizes, np.int64))
        content = np.empty(int(ends[-1]) if sizes else 0, np.uint8)
        self.memory = memory = content.data
        self.parts = [memory[end - size : end] for end, size in zip(ends.tolist(), sizes, strict=True)]
        # What the kernel calls an iovec for each part: address and bytes.
        vectors = np.empty((len(sizes), 2), np.uint64)
        vectors[:, 1] = sizes
        vectors[:, 0] = content.__array_interface__["data"][0] + ends - sizes
        self._vectors, self._first = vectors, vectors.__array_interface__["data"][0]
        self._vector, self._offset = ctypes.c_void_p(), ctypes.c_int64()

    def fill_cached(self, at: int, descriptor: ctypes.c_int, offset: int) -> int:
        """Fill a part with a file's bytes from `offset`, as far as they can be had without waiting for a disk.

        Returns:
            The number of bytes filled. 0 or less also where the system or the file system knows no such read, and
            where a read would fail: the caller reads the rest by `os.preadv`, which tells why.
        """
        if _PREADV2 is None:
            return 0
        self._vector.value, self._offset.value = self._first + 16 * at, offset
        return _PREADV2(descriptor, self._vector, _ONE_PART, self._offset, _FLAGS)
