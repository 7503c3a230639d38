"""Reads of label shards; each range is compared with its CRC-32 in the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from slg_wds.errors import ChecksumError, NotFoundError, OutOfRangeError, PermissionDeniedError, SlgWdsError
from slg_wds.format.shards.shard import check_payload
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.files import OpenFiles, read_once

if TYPE_CHECKING:
    from slg_wds.replay.cache.shard_cache import ShardCache

GAP = 16 << 10  # bytes between two ranges that are read as well, so that one request serves both

CheckedRange = list[int]  # offset, size, CRC-32


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

    def read(self, number: int, place: CheckedRange, key: str) -> bytes:
        """Return the bytes at a place. Raises ChecksumError or StoreError, which name the shard and the key."""

    def read_together(self, number: int, places: Sequence[CheckedRange], key: str) -> list[bytes]:
        """Return the bytes at places near each other; remote stores are asked once for all."""


class LocalShards:
    """Shards in a folder."""

    remote = never_cached = False

    def __init__(self, labels: LabelSet, files: OpenFiles) -> None:
        self._labels, self._files = labels, files
        self._paths = [str(labels.store.local_path(labels.shard_name(n))) for n in range(labels.num_shards)]

    def ready(self, number: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return True

    def read_together(self, number: int, places: Sequence[CheckedRange], key: str) -> list[bytes]:
        """Return the bytes at places that are near each other."""
        return [self.read(number, place, key) for place in places]

    def read(self, number: int, place: CheckedRange, key: str) -> bytes:
        """Return the bytes at a place, compared with its CRC-32."""
        offset, size, crc32 = place
        try:
            data = self._files.read(self._paths[number], offset, size)
            check_payload(data, size, crc32)
        except SlgWdsError as error:
            error.url = None
            where = {"url": self._labels.url, "shard": self._labels.shard_name(number), "key": key}
            raise error.located(**where) from None
        return data


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

    def read(self, number: int, place: CheckedRange, key: str) -> bytes:
        """Return the bytes at a place, compared with its CRC-32."""
        return self.read_together(number, [place], key)[0]

    def read_together(self, number: int, places: Sequence[CheckedRange], key: str) -> list[bytes]:
        """Return the bytes at places that are near each other."""
        path = None if self.cache is None else self.cache.path(number)
        if self.cache is not None and path is not None:
            try:
                found = read_once(path, [(offset, size) for offset, size, _ in places])
                return self._checked(number, places, key, found)
            except (ChecksumError, NotFoundError, PermissionDeniedError):
                # Altered since it was checked, or evicted or replaced by another process.
                self.cache.lost(number)
        return self._checked(number, places, key, self._ranges(number, places, key))

    def _ranges(self, number: int, places: Sequence[CheckedRange], key: str) -> list[bytes]:
        """Read places by range, with one request if they are near each other."""
        start, stop = min(place[0] for place in places), max(place[0] + place[1] for place in places)
        if stop - start > sum(place[1] for place in places) + GAP * (len(places) - 1):
            return [one for place in places for one in self._ranges(number, [place], key)]
        where = self._where(number, key)
        try:
            data = self._labels.store.read_range(where["shard"], start, stop - start)
        except OutOfRangeError as error:
            raise ChecksumError(f"the shard is truncated: {error.message}", **where) from None
        except SlgWdsError as error:
            raise error.located(**where) from None
        return [data[offset - start : offset - start + size] for offset, size, _ in places]

    def _checked(
        self, number: int, places: Sequence[CheckedRange], key: str, found: Sequence[bytes]
    ) -> list[bytes]:
        where = self._where(number, key)
        for data, (_, size, crc32) in zip(found, places, strict=True):
            check_payload(data, size, crc32, **where)
        return list(found)

    def _where(self, number: int, key: str) -> dict[str, str]:
        return {"url": self._labels.url, "shard": self._labels.shard_name(number), "key": key}


def open_shards(labels: LabelSet, cache: ShardCache | None, files: OpenFiles) -> Shards:
    """Open the shards of a label set: files of a folder, or objects that a cache holds if there is one."""
    return LocalShards(labels, files) if labels.store.is_local else RemoteShards(labels, cache)
