"""Reads of images that begin before the images are decoded: none from a fast source, many from a slow one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from slg_wds.concurrency.prefetch import window

MOST = 128  # reads under way at once, each in a thread of its own
SLOW = 1e-3  # seconds; a read that takes longer waits for a disk or a network, not for a processor
WEIGHT = 1 / 16  # of the newest value in a moving average

Read = Callable[[int], bytes]


class ReadAhead:
    """Begins as many reads at once as it takes to give the teacher its images in time.

    By Little's law, rate x latency reads are under way while images are taken at some rate. Twice as many are begun. So
    while the teacher has to wait for images, their number doubles again and again, and it stops to grow when the
    teacher sets the rate.

    Args:
        most: the most reads that may be under way; 0 leaves reading to the threads that decode.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._latency: float | None = None  # seconds of a read
        self._interval: float | None = None  # seconds from one image taken to the next
        self._last: float | None = None
        self._pool = ThreadPoolExecutor(max(1, most), "slg-read")

    @property
    def count(self) -> int:
        """How many reads to begin early."""
        if self._latency is None or self._latency < SLOW:
            return 0
        return min(self._most, math.ceil(2 * self._latency / max(self._interval or 0.0, 1e-6)))

    def reads(self, numbers: Iterable[int], read: Read) -> Iterator[tuple[int, Read]]:
        """Yield each image's number with a function that returns its bytes, or raises the error of reading them.

        Args:
            numbers: the images to read, in order.
            read: returns the bytes of an image by its number; any thread may call it.
        """
        for one in window(self._begun(numbers, read), lambda: self.count):
            yield one
            now = time.perf_counter()
            if self._last is not None:
                self._interval = _moved(self._interval, now - self._last)
            self._last = now

    def close(self) -> None:
        """Drop the reads that have not begun, and wait for the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begun(self, numbers: Iterable[int], read: Read) -> Iterator[tuple[int, Read]]:
        def timed(number: int) -> bytes:
            start = time.perf_counter()
            data = read(number)
            # Two threads may do this at once, and one value be lost: the average hardly moves.
            self._latency = _moved(self._latency, time.perf_counter() - start)
            return data

        for number in numbers:
            if self.count:
                begun = self._pool.submit(timed, number)
                yield number, lambda _, begun=begun: begun.result()  # type: ignore[misc]
            else:
                yield number, timed


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)
