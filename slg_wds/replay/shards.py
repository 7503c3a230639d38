"""Bytes of the label sets' shards, each range checked against the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from slg_wds.errors import ChecksumError, NotFoundError, OutOfRangeError, SlgWdsError
from slg_wds.format.shard import check_payload
from slg_wds.labelset import LabelSet
from slg_wds.replay.files import OpenFiles

if TYPE_CHECKING:
    from slg_wds.replay.cache import ShardCache


class Shards(Protocol):
    """The shards of one label set, readable from any thread."""

    remote: bool

    def ready(self, number: int) -> bool:
        """Whether a read of this shard needs no waiting for a network."""

    def read(self, number: int, place: list[int], key: str) -> bytes:
        """The bytes at [offset, size, crc32]. Raises ChecksumError, StoreError naming the shard and the key."""


class LocalShards:
    """Shards in a folder."""

    remote = False

    def __init__(self, labels: LabelSet, files: OpenFiles) -> None:
        self._labels, self._files = labels, files
        self._paths = [str(labels.store.local_path(labels.shard_name(n))) for n in range(labels.num_shards)]

    def ready(self, number: int) -> bool:
        return True

    def read(self, number: int, place: list[int], key: str) -> bytes:
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
    """Shards in object storage: read from the cache once they are there, until then (or without one) by range."""

    remote = True

    def __init__(self, labels: LabelSet, files: OpenFiles, cache: ShardCache | None) -> None:
        self._labels, self._files, self.cache = labels, files, cache

    def ready(self, number: int) -> bool:
        return self.cache is not None and self.cache.path(number) is not None

    def read(self, number: int, place: list[int], key: str) -> bytes:
        offset, size, crc32 = place
        name = self._labels.shard_name(number)
        where = {"url": self._labels.url, "shard": name, "key": key}
        path = None if self.cache is None else self.cache.soon(number)
        if self.cache is not None and path is not None:
            try:
                data = self._files.read(path, offset, size)
                check_payload(data, size, crc32, **where)
                return data
            except (
                ChecksumError,
                NotFoundError,
            ):  # altered since it was checked, or evicted by another process
                self._files.forget(path)
                self.cache.lost(number)
        try:
            data = self._labels.store.read_range(name, offset, size)
        except OutOfRangeError as error:
            raise ChecksumError(f"the shard is truncated: {error.message}", **where) from None
        except SlgWdsError as error:
            raise error.located(**where) from None
        check_payload(data, size, crc32, **where)
        return data
