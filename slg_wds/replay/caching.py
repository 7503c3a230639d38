"""Which label sets are read through a cache, and how its bytes are shared out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slg_wds.labelset import LabelSet
from slg_wds.replay.cache import CacheDirectory, ShardCache, TarCache, largest_shard
from slg_wds.replay.files import OpenFiles
from slg_wds.replay.shards import LocalShards, RemoteShards, Shards
from slg_wds.store import Store


class Caching:
    """Opens the shards of label sets; remote ones with a cache each, in one directory.

    processes: that share the directory's `limit` bytes on this machine.
    """

    def __init__(self, files: OpenFiles, directory: str | None, limit: int, processes: int) -> None:
        self._files, self._path, self._limit, self._processes = files, directory, limit, processes
        self._directory: CacheDirectory | None = None
        self._caches: list[ShardCache] = []

    def shards(self, labels: LabelSet, file: Callable[[int], tuple[int, str]] | None) -> Shards:
        """The shards of a set. file: bytes and SHA-256 by number; None for a set that is not read shard by shard.

        Raises StoreError, UsageError where the directory cannot be written to.
        """
        if labels.store.is_local:
            return LocalShards(labels, self._files)
        if file is None:
            return RemoteShards(labels, self._files, None)
        if self._directory is None:
            self._directory = CacheDirectory(self._path, self._limit)
        self._caches.append(ShardCache(labels, file, self._directory, 0, largest_shard(labels)))
        return RemoteShards(labels, self._files, self._caches[-1])

    def tars(self, labels: LabelSet, tars: Sequence[tuple[Store, str]]) -> TarCache | None:
        """A cache of the tars of images of each label shard; None where none of them is remote, or all are empty."""
        if all(store.is_local for store, _ in tars):
            return None
        few = {0, len(tars) // 2, len(tars) - 1}
        largest = max(store.size(name) or 0 for store, name in (tars[number] for number in few))
        if self._directory is None:
            self._directory = CacheDirectory(self._path, self._limit)
        return TarCache(labels, tars, self._directory, largest)

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
