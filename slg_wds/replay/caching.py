"""Which label sets are read through a cache, and how its bytes are shared out."""

from __future__ import annotations

from collections.abc import Callable

from slg_wds.labelset import LabelSet
from slg_wds.replay.cache import CacheDirectory, ShardCache, largest_shard
from slg_wds.replay.files import OpenFiles
from slg_wds.replay.shards import LocalShards, RemoteShards, Shards


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

    def opened(self) -> list[ShardCache]:
        """The caches, each with its share of the bytes."""
        for cache in self._caches:
            cache.budget = self._limit // (self._processes * len(self._caches))
        return self._caches
