"""Which label sets are read through a cache, and how its bytes are shared out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slg_wds.console import counted
from slg_wds.errors import ReplayError, UnsupportedStoreError
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.directory import CacheDirectory, NotCachedError, of_another_user, read_by_range
from slg_wds.replay.cache.shard_cache import ShardCache, TarCache
from slg_wds.replay.order.shuffled import Spans
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.shards import LocalShards, RemoteShards, Shards
from slg_wds.store import Store


class ShardOpener:
    """Opens the shards of label sets; remote ones with a cache each, in one directory.

    processes: that share the directory's `limit` bytes on this machine.
    """

    def __init__(self, files: OpenFiles, directory: str | None, limit: int, processes: int) -> None:
        self._files, self._path, self._limit, self._processes = files, directory, limit, processes
        self._directory: CacheDirectory | None = None
        self._closed = False
        self._caches: list[ShardCache] = []

    def shards(self, labels: LabelSet, file: Callable[[int], tuple[int, str]] | None) -> Shards:
        """The shards of a set. file: bytes and SHA-256 by number; None for a set that is not read shard by shard.

        Raises StoreError, UsageError where the directory cannot be written to.
        """
        if labels.store.is_local:
            return LocalShards(labels, self._files)
        directory = None if file is None else self._open()
        if file is None or directory is None:
            return RemoteShards(labels, None)
        self._caches.append(ShardCache(labels, file, directory, 0, largest_shard(labels)))
        return RemoteShards(labels, self._caches[-1])

    def tars(self, labels: LabelSet, tars: Sequence[tuple[Store, str]]) -> TarCache | None:
        """A cache of the tars of images of each label shard; None where none of them is remote, or all are empty."""
        directory = None if all(store.is_local for store, _ in tars) else self._open()
        if directory is None:
            return None
        few = {0, len(tars) // 2, len(tars) - 1}
        largest = max(store.size(name) or 0 for store, name in (tars[number] for number in few))
        return TarCache(labels, tars, directory, largest)

    def _open(self) -> CacheDirectory | None:
        """The directory; None where it is another user's and closed to this one, who then reads by range."""
        if self._directory is None and not self._closed:
            try:
                self._directory = CacheDirectory(self._path, self._limit)
            except NotCachedError as error:
                if error.url is None or not of_another_user(Path(error.url)):
                    raise
                self._closed = True
                read_by_range(error)
        return self._directory

    def opened(self, tars: TarCache | None, at_once: int) -> list[ShardCache]:
        """The caches with their shares of the bytes, by the size of their files.

        That of tars is among them where the files read at once, and one more, fit with it; else tars are read by range.
        """
        caches = [*self._caches, *([] if tars is None else [tars])]
        slots = self._limit // self._processes // max(1, sum(cache.largest for cache in caches))
        if tars is not None and slots <= at_once:
            return self.opened(None, at_once)
        for cache in caches:
            cache.budget = slots * cache.largest
        return caches


def largest_shard(labels: LabelSet) -> int:
    """Bytes of the largest shard of a remote set, from one listing; over http of a few shards."""
    names = {labels.shard_name(number) for number in range(labels.num_shards)}
    try:
        return max((entry.size for entry in labels.store.list(deep=False) if entry.name in names), default=0)
    except UnsupportedStoreError:
        few = {0, labels.num_shards // 2, labels.num_shards - 1}
        return max(labels.store.size(labels.shard_name(number)) or 0 for number in few)


def most_at_once(spans: Spans) -> int:
    """How many shards are read at one time."""
    events = sorted([*((t, 1) for t in spans.start.tolist()), *((t, -1) for t in spans.stop.tolist())])
    open_now = most = 0
    for _, change in events:
        open_now += change
        most = max(most, open_now)
    return most


def check_fits(caches: list[ShardCache], spans: Spans, lanes: int, window: int) -> None:
    """That the shards read at one time fit, and one more. Raises ReplayError with settings that do."""
    most = most_at_once(spans)
    for cache in caches:
        if cache.slots < most + 1:
            share = cache.slots / (most + 1)
            fitting = max(1, int(lanes * window * share) - 2)
            raise ReplayError(
                f"the cache's {cache.budget} bytes for this process hold {counted(cache.slots, 'shard')} of "
                f"{cache.largest} bytes, and {most} are read at a time",
                url=cache.url,
                hint=f"give it {(most + 1) * cache.largest} bytes for each process of this machine and label set, "
                f"or read fewer at a time: lanes={fitting}, window=1",
            )
