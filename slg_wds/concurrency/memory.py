"""Keep freed memory in the process: large buffers come and go with every forward and every image."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1

# The same for a process yet to start, wherever in it the work is done: threads beside the main one otherwise have heaps
# of their own, which give every freed 64 MiB back whatever mallopt says.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_LARGEST)}


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse freed memory rather than return it to the kernel; whether it does.

    By default each tensor above some MiB is mapped, zeroed page by page as it is written, and unmapped again: for a
    forward on a CPU that costs more time than the arithmetic (tools/EXPERIMENTS.md: 38 against 107 crops/s). The price
    is that the process keeps its peak memory until it ends. Holds for the main thread alone, see ENVIRONMENT; does
    nothing with other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST))
