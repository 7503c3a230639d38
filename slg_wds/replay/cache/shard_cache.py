"""Remote files on local disk, downloaded ahead of their use: a bounded directory that the ranks of a machine share.

A file appears by rename, whole, and is checked before a process first reads from it. So neither a kill nor another
process' fault can do harm, and nothing is locked. The least recently used files are removed first, but none that this
process still needs.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Set
from itertools import islice

from slg_wds.errors import ReplayError, SlgWdsError, StoreUnavailableError
from slg_wds.replay.cache.directory import CacheDiskError, NotCachedError, read_by_range
from slg_wds.replay.cache.downloads import PIECE, Downloads
from slg_wds.replay.order.shuffled import Spans

DOWNLOADS = 4  # threads
FEW = 8  # shards that a batch may wait for whole before any of them is on its way
JOIN_SECONDS = 5.0


class ShardCache:
    """The files of one label set's shards, downloaded in the order of an epoch. Usable from any thread.

    Args:
        downloads: brings a shard's file to the disk.
        largest: bytes of the largest file.

    Attributes:
        budget: bytes that this process may need at a time; 0, as at the beginning, caches nothing.
    """

    def __init__(self, downloads: Downloads, largest: int) -> None:
        self._downloads = downloads
        self.budget, self.largest = 0, max(1, largest)
        self._ready: dict[int, str] = {}
        self._needed: dict[int, int] = {}  # shard -> the batch after its last use
        self._queue: deque[tuple[int, int]] = deque()
        self._coming: set[int] = set()  # shards of one piece that are on their way, or the next to be
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._open = self._expected = self._warned = False
        self._error: SlgWdsError | None = None

    @property
    def url(self) -> str:
        """The URL of the label set, which errors name."""
        return self._downloads.labels.url

    @property
    def slots(self) -> int:
        """How many shards fit at a time."""
        return self.budget // self.largest

    def path(self, number: int) -> str | None:
        """Return where a shard lies that is there and checked, else None."""
        return self._ready.get(number)

    def learn(self, paths: Mapping[int, str]) -> None:
        """Note where shards lie that another process has downloaded and checked."""
        self._ready.update(paths)

    def coming(self, number: int) -> bool:
        """Return whether a shard is on its way in one piece.

        Waiting for it takes no longer than asking for a part of it anew, which would delay the others.
        """
        return number in self._coming

    def wait(self, number: int) -> None:
        """Wait for a shard that is coming, until it is there, failed, or the epoch ended."""
        with self._changed:
            while number in self._coming and not self._downloads.stopped:
                self._changed.wait()

    def begin(self, spans: Spans, start: int) -> None:
        """Download the shards of an epoch from batch `start` on, in the order of use, as far ahead as fits.

        Where the first batch needs a few small shards, it waits for them. Else nothing is downloaded before it is
        finished, and it takes its samples by range: whole shards would make it wait.
        """
        for number, path in list(self._ready.items()):
            if not os.path.exists(path):  # noqa: PTH110  # evicted since
                self._ready.pop(number, None)
        spans_left = [
            span for span in zip(*(column.tolist() for column in spans), strict=True) if span[2] > start
        ]
        first = {shard for shard, begin, _ in spans_left if begin <= start}
        with self._changed:
            self._downloads.stopped = False
            self._error = None
            self._needed = {}
            self._queue = deque((shard, stop) for shard, _, stop in spans_left)
            self._coming = set()
            self._open = self.largest <= PIECE and len(first) <= min(FEW, self.slots)
            self._expected = self._open
            self._expect()
        self._threads = [
            threading.Thread(target=self._run, name=f"slg-cache-{n}", daemon=True) for n in range(DOWNLOADS)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.end)

    def expect(self) -> None:
        """Note that the first batch is under way: samples of later ones may wait for the next shards to come."""
        with self._changed:
            self._expected = True
            self._expect()

    def advance(self, batch: int) -> None:
        """Note that batches before `batch` are finished. Raises what a download failed with."""
        with self._changed:
            self._open = True
            for number in [n for n, stop in self._needed.items() if stop <= batch]:
                del self._needed[number]
            self._changed.notify_all()
            if self._error is not None:
                raise self._error

    def lost(self, number: int) -> None:
        """Download a file again that a reader found altered or gone."""
        path = self._ready.get(number)
        if path is not None:
            self._downloads.discard(path)
        with self._changed:
            path = self._ready.pop(number, None)
            if path is not None and number in self._needed:
                self._queue.appendleft((number, self._needed.pop(number)))
                self._changed.notify()

    def unreadable(self, number: int, error: StoreUnavailableError) -> None:
        """Let a file be until the epoch ends, since the disk does not give it out; each epoch tries it anew."""
        self._ready.pop(number, None)
        self._leave_out(CacheDiskError(f"the cache fails: {error.message}", url=error.url))

    def end(self) -> None:
        """Stop downloading; what is under way ends with its piece."""
        atexit.unregister(self.end)
        with self._changed:
            self._downloads.stopped = True
            self._changed.notify_all()
        end = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads = []

    def _run(self) -> None:
        while (number := self._next()) is not None:
            try:
                path = self._downloads.fetch(number, self._in_use)
                if path is not None:
                    self._ready[number] = str(path)
            except NotCachedError as error:
                self._leave_out(error)
            except Exception as error:
                self._fail(number, error)
                return
            finally:
                with self._changed:
                    self._coming.discard(number)
                    self._changed.notify_all()

    def _in_use(self) -> Set[str]:
        """Return the paths of files that this process still needs."""
        with self._changed:
            return {self._ready[number] for number in self._needed if number in self._ready}

    def _leave_out(self, error: NotCachedError) -> None:
        """Say once that shards are not cached, and why."""
        with self._changed:
            warned, self._warned = self._warned, True
        if not warned:
            read_by_range(error)

    def _fail(self, number: int, error: Exception) -> None:
        """Let `advance` raise what a download failed with, and nobody wait for downloads any more."""
        if not isinstance(error, SlgWdsError):
            cause, error = error, ReplayError(f"the download failed: {type(error).__name__}: {error}")
            error.__cause__ = cause
        with self._changed:
            self._error = self._error or error.located(
                url=self.url, shard=self._downloads.labels.shard_name(number)
            )
            self._coming.clear()  # there may be no thread left for them

    def _next(self) -> int | None:
        """Wait for the next shard that is to be fetched and fits; None at the end."""
        with self._changed:
            while not self._downloads.stopped:
                while self._free and self._queue and self._queue[0][0] in self._ready:
                    self._need_next()
                if self._free and self._queue and self._open:
                    self._expect()
                    return self._need_next()
                self._changed.wait()
        return None

    @property
    def _free(self) -> int:
        """Slots without a shard that is needed. A shard that is there takes one as much as one that is to come."""
        return self.slots - len(self._needed)

    def _need_next(self) -> int:
        """Give the queue's first shard a slot."""
        number, stop = self._queue.popleft()
        self._needed[number] = stop
        return number

    def _expect(self) -> None:
        """Let the next shards of the queue be waited for, if they are small and nothing else has to go first."""
        if self._expected and self._error is None and self.largest <= PIECE:
            next_ones = islice(self._queue, min(FEW, self._free))
            self._coming.update(n for n, _ in next_ones if n not in self._ready)
