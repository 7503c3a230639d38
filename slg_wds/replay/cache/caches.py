"""The caches of one loader, and how the bytes of their directory are shared out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from slg_wds.console import counted
from slg_wds.errors import ReplayError, UnsupportedStoreError
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.directory import (
    CacheDirectory,
    CacheDiskError,
    NotCachedError,
    of_another_user,
    read_by_range,
)
from slg_wds.replay.cache.downloads import ImageTarDownloads, LabelShardDownloads
from slg_wds.replay.cache.shard_cache import ShardCache
from slg_wds.replay.order.shuffled import Spans
from slg_wds.store import Store

CachedPaths = list[dict[int, str]]  # of each cache, by the number of the shard


class CacheOptions(NamedTuple):
    """Where caches lie, and how large they may be.

    Attributes:
        directory: path; None for the default one.
        limit: bytes of all files in the directory.
        processes: of this machine that use the directory together.
    """

    directory: str | os.PathLike[str] | None
    limit: int
    processes: int


class Caches:
    """One cache for each remote label set and one for remote tars of images, all in one directory.

    They are made while sets and images are opened. `share_out` then gives each its part of the bytes. Until then, and
    where it gives none, everything is read by range.

    Args:
        options: of the directory.
    """

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        self._directory: CacheDirectory | None = None
        self._closed = False
        self._of_labels: list[ShardCache] = []
        self._of_tars: ShardCache | None = None
        self.in_use: list[ShardCache] = []

    def of_labels(self, labels: LabelSet, file: Callable[[int], tuple[int, str]]) -> ShardCache | None:
        """Make the cache of a set's shards; None for a local set, or if the directory cannot be used.

        Args:
            labels: the set.
            file: gives a shard's size in bytes and its SHA-256.

        Raises:
            NotCachedError: this user may not write to a directory of their own.
            UsageError: a file lies where the directory should be.
        """
        directory = None if labels.store.is_local else self._open()
        if directory is None:
            return None
        cache = ShardCache(LabelShardDownloads(labels, file, directory), largest_shard(labels))
        self._of_labels.append(cache)
        return cache

    def of_tars(self, labels: LabelSet, tars: Sequence[tuple[Store, str]]) -> ShardCache | None:
        """Make the cache of each label shard's tar of images; None if all are local. Raises as `of_labels`."""
        directory = None if all(store.is_local for store, _ in tars) else self._open()
        if directory is None:
            return None
        few = {0, len(tars) // 2, len(tars) - 1}
        largest = max(store.size(name) or 0 for store, name in (tars[number] for number in few))
        self._of_tars = ShardCache(ImageTarDownloads(labels, tars, directory), largest)
        return self._of_tars

    def _open(self) -> CacheDirectory | None:
        """Return the directory; None if its disk is full or fails, or its owner keeps it closed: read by range then."""
        if self._directory is None and not self._closed:
            try:
                self._directory = CacheDirectory(self.options.directory, self.options.limit)
            except NotCachedError as error:
                if not isinstance(error, CacheDiskError) and not of_another_user(Path(error.url or "")):
                    raise
                self._closed = True
                read_by_range(error)
        return self._directory

    def share_out(self, spans: Spans, lanes: int, window: int) -> None:
        """Give each cache its bytes, in proportion to the size of its files.

        Tars are cached where the files that are read at one time, and one more, fit together with them. Otherwise they
        are read by range.

        Args:
            spans: of the shards in an epoch of this rank.
            lanes: of the order; the error names a number that fits.
            window: of the order, likewise.

        Raises:
            ReplayError: not even the label shards that are read at one time fit.
        """
        at_once = most_at_once(spans)
        self.in_use = list(self._of_labels)
        if self._of_tars is not None and self._slots([*self.in_use, self._of_tars]) > at_once:
            self.in_use.append(self._of_tars)
        slots = self._slots(self.in_use)
        for cache in self.in_use:
            cache.budget = slots * cache.largest
            if slots < at_once + 1:
                raise _too_small(cache, at_once, lanes * window)

    def _slots(self, caches: Sequence[ShardCache]) -> int:
        """Return how many files of each of these caches fit at a time."""
        mine = self.options.limit // self.options.processes
        return mine // max(1, sum(cache.largest for cache in caches))

    def begin(self, spans: Spans, start: int) -> None:
        """Begin to download an epoch's files, from batch `start` on."""
        for cache in self.in_use:
            cache.begin(spans, start)

    def expect(self) -> None:
        """Note that the first batch is under way; see ShardCache."""
        for cache in self.in_use:
            cache.expect()

    def advance(self, batch: int) -> None:
        """Note that all batches before `batch` are finished. Raises the error that ended a download."""
        for cache in self.in_use:
            cache.advance(batch)

    def end(self) -> None:
        """Stop downloading."""
        for cache in self.in_use:
            cache.end()

    def coming(self, shard: int) -> bool:
        """Return whether all cached files of a shard are there or on their way, so that waiting for them is right."""
        caches = self.in_use
        return bool(caches) and all(one.path(shard) is not None or one.coming(shard) for one in caches)

    @property
    def _all(self) -> list[ShardCache]:
        return [*self._of_labels, *([] if self._of_tars is None else [self._of_tars])]

    def paths(self, shards: Iterable[int]) -> CachedPaths:
        """Return where the files of some shards lie, of each cache, for `learn` in another process."""
        found = [{shard: one.path(shard) for shard in shards} for one in self._all]
        return [{shard: path for shard, path in each.items() if path is not None} for each in found]

    def learn(self, paths: CachedPaths) -> None:
        """Note where files lie that the caches of another process have downloaded and checked."""
        for cache, each in zip(self._all, paths, strict=True):
            cache.learn(each)

    def wait(self, shard: int) -> None:
        """Wait for the files of a shard that are on their way."""
        for cache in self.in_use:
            cache.wait(shard)


def largest_shard(labels: LabelSet) -> int:
    """Return the bytes of the largest shard of a remote set, from one listing; over http of a few shards."""
    names = {labels.shard_name(number) for number in range(labels.num_shards)}
    try:
        return max((entry.size for entry in labels.store.list(deep=False) if entry.name in names), default=0)
    except UnsupportedStoreError:
        few = {0, labels.num_shards // 2, labels.num_shards - 1}
        return max(labels.store.size(labels.shard_name(number)) or 0 for number in few)


def most_at_once(spans: Spans) -> int:
    """Return how many shards are read at one time."""
    events = sorted([*((t, 1) for t in spans.start.tolist()), *((t, -1) for t in spans.stop.tolist())])
    open_now = most = 0
    for _, change in events:
        open_now += change
        most = max(most, open_now)
    return most


def _too_small(cache: ShardCache, at_once: int, lanes: int) -> ReplayError:
    """Return the error for a cache whose budget does not hold the files that are read at one time, and one more."""
    fitting = max(1, int(lanes * (cache.slots / (at_once + 1))) - 2)
    return ReplayError(
        f"the cache's {cache.budget} bytes for this process hold {counted(cache.slots, 'shard')} of "
        f"{cache.largest} bytes, and {at_once} are read at a time",
        url=cache.url,
        hint=f"give it {(at_once + 1) * cache.largest} bytes for each process of this machine and label set, "
        f"or read fewer at a time: lanes={fitting}, window=1",
    )
