"""Keep freed memory in the process, since large buffers are allocated for every forward and every image."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1

# The same settings as environment variables, for a process that is yet to start. They work for all of its threads.
# Without them each thread but the main one has its own heap, which mallopt does not reach, and which returns every
# 64 MiB that are freed.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_LARGEST)}


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse freed memory instead of returning it to the kernel.

    By default each tensor above a few MiB is mapped, zeroed page by page as it is written, and unmapped again. For a
    forward on a CPU this costs more time than the arithmetic (tools/EXPERIMENTS.md: 38 against 107 crops/s). The price
    is that the process keeps its peak memory until it ends. This works for the main thread only; for the others see
    ENVIRONMENT.

    Returns:
        Whether malloc agreed; False with C libraries other than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST))
