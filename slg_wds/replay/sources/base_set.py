"""A set that another one extends: where the records of the extending set's images lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from slg_wds.arrays import I64
from slg_wds.concurrency.locks import Locks
from slg_wds.console import counted
from slg_wds.errors import IncompleteSetError, ManifestError
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.format.records.views import Views
from slg_wds.labelset.combining.renumbering import renumbered
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.labelset import LabelSet

ABSENT = (-1, 0, 0, 0)


class BaseSet:
    """A set of a chain that the last set of the chain extends, looked up by the images of the last set.

    Args:
        labels: this set.
        last: the last set of the chain.

    Attributes:
        aligned: whether both sets have one plan. Shard n then holds the same images in both.

    Raises:
        IncompleteSetError: this set is unfinished; an extended set must be complete.
    """

    def __init__(self, labels: LabelSet, last: LabelSet) -> None:
        missing = len(labels.missing()) if labels.allow_incomplete else 0
        if missing:
            raise IncompleteSetError(
                f"it lacks {missing:,} of {counted(labels.num_shards, 'shard')}, and {last.url} extends it",
                url=labels.url,
                hint="finish it with the command that began it",
            )
        self.labels = labels
        self.aligned = labels.description.plan_sha256 == last.description.plan_sha256
        self._numbers = None if self.aligned else KeyNumbers(labels.plan.keys)
        self._last = last
        self._indexes: dict[int, tuple[ShardIndex, I64]] = {}
        self._locks = Locks(16)

    def file(self, number: int) -> tuple[int, str]:
        """Return the bytes and the SHA-256 of a shard."""
        index = self._index(number)[0]
        return index.bytes, index.sha256

    def places(self, numbers: Sequence[int], keys: Sequence[str]) -> I64:
        """Return shard, offset, size and CRC-32 of each image's record, int64 [n, 4]; the shard is -1 if there is none.

        Args:
            numbers: of the images in the last set's plan.
            keys: of the same images.
        """
        if self._numbers is None:
            found: list[int | None] = list(numbers)
        else:
            found = [self._numbers.find(key, near) for near, key in zip(numbers, keys, strict=True)]
        rows = [ABSENT if number is None else self._place(number) for number in found]
        return np.array(rows, np.int64).reshape(-1, 4)

    def renumbered(self, views: Views | None) -> Views | None:
        """Return views of records of this set in which partners have their numbers in the last set's plan.

        Raises:
            LabelSetError: a partner is not in that plan.
        """
        if self.aligned or views is None or views.mixing is None:
            return views
        return renumbered(views, self.labels.plan.keys, self._in_last.find, self._last.url)

    @cached_property
    def _in_last(self) -> KeyNumbers:
        return KeyNumbers(self._last.plan.keys)

    def _place(self, number: int) -> tuple[int, int, int, int]:
        shard, planned = self.labels.plan.place(number)
        index, positions = self._index(shard)
        position = int(positions[planned])
        if position < 0:
            return ABSENT
        offset, size, crc32 = index.records[position]
        return shard, offset, size, crc32

    def _index(self, shard: int) -> tuple[ShardIndex, I64]:
        """Return a shard's index, and the position of each planned image's record, -1 if the image was left out."""
        found = self._indexes.get(shard)
        if found is None:
            with self._locks.of(shard):
                found = self._indexes.get(shard) or self._read(shard)
                self._indexes[shard] = found
        return found

    def _read(self, shard: int) -> tuple[ShardIndex, I64]:
        index = self.labels.index(shard)
        place = {"url": self.labels.url, "shard": self.labels.shard_name(shard)}
        if (index.set_digest, index.shard) != (self.labels.digest, shard):
            raise ManifestError("its index is that of another shard or set", **place)
        left_out = set(index.left_out)
        kept = np.array([key not in left_out for key in self.labels.plan.shard(shard).keys], np.bool_)
        if kept.sum() != len(index.records):
            raise ManifestError(
                f"its index has {len(index.records)} samples of {int(kept.sum())} images", **place
            )
        return index, np.where(kept, kept.cumsum() - 1, -1)
