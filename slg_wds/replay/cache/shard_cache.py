"""Remote shards on local disk: a bounded directory, shared by the ranks of a machine.

A file's name holds its label set's digest. It appears by rename, whole, and is checked against the index (size and
SHA-256) before a process first reads from it, so neither a kill nor another process' fault can do harm; nothing is
locked. The least recently used files go first, but none that this process still needs.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from slg_wds.errors import ChecksumError, NotFoundError, ReplayError, SlgWdsError
from slg_wds.files import open_regular
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.directory import (
    CacheDirectory,
    NotCachedError,
    failure,
    read_by_range,
    remove,
    write_all,
)
from slg_wds.replay.order.shuffled import Spans
from slg_wds.store import Store

PIECE = 8 << 20  # bytes asked for at a time: what an end has to wait for
DOWNLOADS = 4
FEW = 8  # shards that a batch may wait for whole before any of them is on its way
JOIN_SECONDS = 5.0
ATTEMPTS = 2


class ShardCache:
    """The shards of one label set, downloaded ahead of their use in an epoch, from any thread.

    Args:
        file: bytes and SHA-256 of a shard by its number.
        budget: bytes that this process may need at a time. largest: bytes of the largest shard.
    """

    def __init__(
        self,
        labels: LabelSet,
        file: Callable[[int], tuple[int, str]],
        directory: CacheDirectory,
        budget: int,
        largest: int,
    ) -> None:
        self._labels, self._file, self._directory = labels, file, directory
        self.budget, self.largest = budget, max(1, largest)
        self._ready: dict[int, str] = {}
        self._needed: dict[int, int] = {}  # shard -> the batch after its last use
        self._queue: deque[tuple[int, int]] = deque()
        self._coming: set[int] = set()  # shards of one piece that are on their way, or the next to be
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._stopped = self._open = self._expected = self._told = False
        self._error: SlgWdsError | None = None

    @property
    def url(self) -> str:
        return self._labels.url

    @property
    def slots(self) -> int:
        """How many shards fit at a time."""
        return self.budget // self.largest

    def path(self, number: int) -> str | None:
        """Where a shard lies that is there and checked, else None."""
        return self._ready.get(number)

    def coming(self, number: int) -> bool:
        """Whether a shard is on its way in one piece.

        Waiting for it takes no longer than asking for a part of it anew, which would delay the others.
        """
        return number in self._coming

    def wait(self, number: int) -> None:
        """Wait for a shard that is coming, until it is there, failed, or the epoch ended."""
        with self._changed:
            while number in self._coming and not self._stopped:
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
            self._stopped = False
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
        """The first batch is under way: samples of later ones may wait for shards that are the next to come."""
        with self._changed:
            self._expected = True
            self._expect()

    def advance(self, batch: int) -> None:
        """Batches before `batch` are finished. Raises what a download failed with."""
        with self._changed:
            self._open = True
            for number in [n for n, stop in self._needed.items() if stop <= batch]:
                del self._needed[number]
            self._changed.notify_all()
            if self._error is not None:
                raise self._error

    def lost(self, number: int) -> None:
        """A file turned out to be altered, or is gone: download it again."""
        with self._changed:
            path = self._ready.pop(number, None)
            if path is not None and number in self._needed:
                self._queue.appendleft((number, self._needed.pop(number)))
                self._changed.notify()

    def end(self) -> None:
        """Stop downloading; what is under way ends with its piece."""
        atexit.unregister(self.end)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        end = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads = []

    def _run(self) -> None:
        while (number := self._next()) is not None:
            try:
                self._fetch(number)
            except NotCachedError as error:
                self._leave_out(error)
            except Exception as error:
                self._fail(number, error)
                return
            finally:
                with self._changed:
                    self._coming.discard(number)
                    self._changed.notify_all()

    def _leave_out(self, error: NotCachedError) -> None:
        """Say once that shards are not cached, and why."""
        with self._changed:
            told, self._told = self._told, True
        if not told:
            read_by_range(error)

    def _fail(self, number: int, error: Exception) -> None:
        """Let `advance` raise what a download failed with, and nobody wait for downloads any more."""
        if not isinstance(error, SlgWdsError):
            cause, error = error, ReplayError(f"the download failed: {type(error).__name__}: {error}")
            error.__cause__ = cause
        with self._changed:
            self._error = self._error or error.located(url=self.url, shard=self._labels.shard_name(number))
            self._coming.clear()  # there may be no thread left for them

    def _next(self) -> int | None:
        """Wait for the next shard that is to be fetched and fits; None at the end."""
        with self._changed:
            while not self._stopped:
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

    def _fetch(self, number: int) -> None:
        size, sha256 = self._file(number)
        path = self._directory.path / f"slg-{self._labels.digest[:16]}-{self._labels.shard_name(number)}"
        if not self._is_sound(path, size, sha256):
            for attempt in range(ATTEMPTS):
                if self._download(number, size, lambda found: path if found == sha256 else None):
                    break
                if self._stopped:
                    return
                if attempt + 1 == ATTEMPTS:
                    raise ChecksumError(
                        f"its bytes are not the {size} of SHA-256 {sha256[:16]}... in the index"
                    )
        self._is_there(number, path)

    def _is_there(self, number: int, path: Path) -> None:
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used goes first
        self._ready[number] = str(path)

    def _is_sound(self, path: Path, size: int, sha256: str) -> bool:
        """Whether a file has so many bytes, of a SHA-256 that begins so."""
        try:
            with open_regular(path) as file:
                state = hashlib.sha256()
                if os.fstat(file.fileno()).st_size == size:
                    while not self._stopped and (piece := file.read(PIECE)):
                        state.update(piece)
        except PermissionError as error:  # it could not be replaced either
            raise failure(error, path) from None
        except OSError:
            return False
        return state.hexdigest().startswith(sha256)

    def _download(self, number: int, size: int, path_of: Callable[[str], Path | None]) -> Path | None:
        """Where the file is now, by its SHA-256; None where it was stopped or there is no place for such bytes."""
        with self._changed:
            needed = {self._ready[n] for n in self._needed if n in self._ready}
        state = hashlib.sha256()
        try:
            with self._directory.temporary(size, needed) as (file, temporary):
                for offset in range(0, size, PIECE):
                    if self._stopped:
                        return None
                    piece = self._read(number, offset, min(PIECE, size - offset))
                    state.update(piece)
                    write_all(file, piece)
                path = path_of(state.hexdigest())
                if path is not None:
                    temporary.replace(path)
        except OSError as error:
            raise failure(error, self._directory.path) from error
        return path

    def _read(self, number: int, offset: int, size: int) -> bytes:
        return self._labels.store.read_range(self._labels.shard_name(number), offset, size)


class TarCache(ShardCache):
    """The tars of images that the label shards are of, likewise.

    Nothing says what their bytes should be. So a file's name holds what its tar was when it was downloaded: URL and
    version (the server's ETag), size and SHA-256. A tar that was replaced at its URL is downloaded anew. Whether it is
    the one that was labelled is seen where an image is read.

    Args:
        tars: store and name of each label shard's tar.
    """

    def __init__(
        self, labels: LabelSet, tars: Sequence[tuple[Store, str]], directory: CacheDirectory, largest: int
    ) -> None:
        super().__init__(labels, lambda _: (0, ""), directory, 0, largest)
        self._tars = tars

    def _fetch(self, number: int) -> None:
        store, name = self._tars[number]
        found = store.stat(name)
        if found is None:
            raise NotFoundError("no such object", url=store.url_of(name))
        size = found.size
        place = hashlib.sha256(f"{store.url_of(name)}\n{found.version}".encode()).hexdigest()[:16]
        start = f"slg-{place}-{size}-"
        for path in sorted(self._directory.path.glob(f"{start}*.tar")):
            if self._is_sound(path, size, path.stem[len(start) :]):
                return self._is_there(number, path)
            if self._stopped:
                return None
            remove(path)
        downloaded = self._download(
            number, size, lambda sha256: self._directory.path / f"{start}{sha256[:32]}.tar"
        )
        if downloaded is not None:
            self._is_there(number, downloaded)
        return None

    def lost(self, number: int) -> None:
        """See ShardCache. The file goes too: it looks sound, and would be taken for the tar again."""
        path = self.path(number)
        if path is not None:
            remove(Path(path))
        super().lost(number)

    def _read(self, number: int, offset: int, size: int) -> bytes:
        store, name = self._tars[number]
        return store.read_range(name, offset, size)
