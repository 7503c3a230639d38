"""Reads of label shards; each range is compared with its CRC-32 in the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from slg_wds.errors import (
    ChecksumError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    SlgWdsError,
    StoreUnavailableError,
)
from slg_wds.format.shards.shard import check_payload, check_payloads
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.files import Contents, FileBytes, OpenFiles, read_once
from slg_wds.replay.sources.page_cache import Parts

if TYPE_CHECKING:
    from slg_wds.replay.cache.shard_cache import ShardCache

GAP = 16 << 10  # bytes between two ranges that are read as well, so that one request serves both


class ShardRange(NamedTuple):
    """Bytes of a shard, as the index places them.

    Attributes:
        shard: the number of the shard.
        key: of the sample that they are of, for messages.
        crc32: CRC-32 of the bytes.
    """

    shard: int
    key: str
    offset: int
    size: int
    crc32: int


class Shards(Protocol):
    """The shards of one label set, readable from any thread.

    Attributes:
        remote: whether they lie in object storage.
    """

    remote: bool

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""

    def ready(self, number: int) -> bool:
        """Say whether this shard can be read without waiting for a network."""

    def read(self, ranges: Sequence[ShardRange]) -> Contents:
        """Return the bytes of each range. Raises ChecksumError or StoreError, which name the shard and the key."""

    def read_together(self, ranges: Sequence[ShardRange]) -> Contents:
        """Do the same for ranges that are near each other in one shard: remote stores are asked once for all."""


class LocalShards:
    """Shards in a folder."""

    remote = never_cached = False

    def __init__(self, labels: LabelSet, files: OpenFiles) -> None:
        self._labels, self._files = labels, files
        self._paths = [str(labels.store.local_path(labels.shard_name(n))) for n in range(labels.num_shards)]

    def ready(self, number: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return True

    def read(self, ranges: Sequence[ShardRange]) -> Contents:
        """Return the bytes of each range, which lie one after the other in memory."""
        try:
            return self._read(ranges)
        except SlgWdsError as error:
            if len(ranges) > 1:  # which of them is it?
                return _contents([self.read([one]).parts[0] for one in ranges], ranges)
            error.url = None
            raise error.located(**_place(self._labels, ranges[0])) from None

    read_together = read

    def _read(self, ranges: Sequence[ShardRange]) -> Contents:
        parts = Parts([one.size for one in ranges])
        found = self._files.fill(parts, [(self._paths[one.shard], one.offset) for one in ranges])
        check_payloads(parts.memory, found, [(one.size, one.crc32) for one in ranges])
        return _contents(found, ranges, parts.memory)


class RemoteShards:
    """Shards in object storage. Once a shard is in the cache it is read there; before, or without a cache, by range."""

    remote = True

    def __init__(self, labels: LabelSet, cache: ShardCache | None) -> None:
        self._labels, self.cache = labels, cache

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""
        return self.cache is None

    def ready(self, number: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return self.cache is not None and self.cache.path(number) is not None

    def read(self, ranges: Sequence[ShardRange]) -> Contents:
        """Return the bytes of each range."""
        return _contents([self.read_together([one]).parts[0] for one in ranges], ranges)

    def read_together(self, ranges: Sequence[ShardRange]) -> Contents:
        """Return the bytes of ranges of one shard; by one request if they are near each other."""
        number = ranges[0].shard
        path = None if self.cache is None else self.cache.path(number)
        if self.cache is not None and path is not None:
            try:
                return self._checked(ranges, read_once(path, [(one.offset, one.size) for one in ranges]))
            except (ChecksumError, NotFoundError, PermissionDeniedError):
                # Altered since it was checked, or evicted or replaced by another process.
                self.cache.lost(number)
            except StoreUnavailableError as error:
                self.cache.unreadable(number, error)
        return self._checked(ranges, self._requested(ranges))

    def _requested(self, ranges: Sequence[ShardRange]) -> Sequence[bytes]:
        start, stop = min(one.offset for one in ranges), max(one.offset + one.size for one in ranges)
        if stop - start > sum(one.size for one in ranges) + GAP * (len(ranges) - 1):
            return [part for one in ranges for part in self._requested([one])]
        place = _place(self._labels, ranges[0])
        try:
            data = self._labels.store.read_range(place["shard"], start, stop - start)
        except OutOfRangeError as error:
            raise ChecksumError(f"the shard is truncated: {error.message}", **place) from None
        except SlgWdsError as error:
            raise error.located(**place) from None
        return [data[one.offset - start : one.offset - start + one.size] for one in ranges]

    def _checked(self, ranges: Sequence[ShardRange], found: Sequence[FileBytes]) -> Contents:
        for data, one in zip(found, ranges, strict=True):
            check_payload(data, one.size, one.crc32, **_place(self._labels, one))
        return _contents(found, ranges)


def _contents(
    parts: Sequence[FileBytes], ranges: Sequence[ShardRange], memory: memoryview | None = None
) -> Contents:
    """What was read of ranges, and compared with the CRC-32 of each."""
    return Contents(parts, [one.crc32 for one in ranges], memory)


def _place(labels: LabelSet, one: ShardRange) -> dict[str, str]:
    return {"url": labels.url, "shard": labels.shard_name(one.shard), "key": one.key}


def open_shards(labels: LabelSet, cache: ShardCache | None, files: OpenFiles) -> Shards:
    """Open the shards of a label set: files of a folder, or objects that a cache holds if there is one."""
    return LocalShards(labels, files) if labels.store.is_local else RemoteShards(labels, cache)
