"""Several locks for many things, each of which always has the same one."""

from __future__ import annotations

import threading


class Locks:
    """`count` locks. A copy in another process, where nobody can hold them, has locks of its own.

    Args:
        count: of things that can be locked at a time.
    """

    def __init__(self, count: int) -> None:
        self._locks = [threading.Lock() for _ in range(count)]

    def of(self, number: int) -> threading.Lock:
        """Return the lock of a thing by its number."""
        return self._locks[number % len(self._locks)]

    def __reduce__(self) -> tuple[type[Locks], tuple[int]]:
        return Locks, (len(self._locks),)
