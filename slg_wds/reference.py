"""Crops taken from an existing label set, so that another teacher sees exactly the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from slg_wds.crops import Boxes, Flips
from slg_wds.errors import ReferenceSetError
from slg_wds.format.manifest import ShardIndex
from slg_wds.labelset import LabelSet


class Reference:
    """Boxes and flips by image key. Records are read one by one by range, never a set or shard whole.

    Raises:
        ReferenceSetError: on opening, where the set has fewer crops than asked.
    """

    def __init__(self, labels: LabelSet, num_crops: int) -> None:
        if labels.num_crops < num_crops:
            raise ReferenceSetError(
                f"the reference has {labels.num_crops} crops an image and {num_crops} were asked",
                url=labels.url,
                hint=f"ask --num_crops {labels.num_crops} at most",
            )
        self.labels = labels
        hashes = np.fromiter((hash(key) for key in labels.plan.keys), np.int64, len(labels.plan.keys))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._starts = np.concatenate([[0], np.cumsum(labels.plan.shard_sizes)])
        self._index = lru_cache(maxsize=64)(self._read_index)

    @property
    def identity(self) -> str:
        """What a run's identity says of its reference."""
        return self.labels.digest

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys that the reference does not plan."""
        return [key for key in keys if self._find(key) is None]

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> tuple[Boxes, Flips]:
        """The first `num_crops` boxes int64 [M, 4] and flips bool [M] of an image.

        Raises ReferenceSetError where the reference lacks the image or saw one of another size.
        """
        number = self._find(key)
        shard = 0 if number is None else int(np.searchsorted(self._starts, number, "right")) - 1
        place = {"url": self.labels.url, "key": key}
        index = None if number is None else self._index(shard)
        position = None if index is None else index[1].get(key)
        if index is None or position is None:
            raise ReferenceSetError("the reference has no crops of this image", **place)
        record = self.labels.record(shard, position, index[0])
        if record.size != size:
            raise ReferenceSetError(
                f"the reference saw {record.size[0]} x {record.size[1]} pixels, the image has {size[0]} x {size[1]}",
                **place,
            )
        return record.crops[:num_crops], record.flips[:num_crops]

    def _find(self, key: str) -> int | None:
        at = int(np.searchsorted(self._hashes, hash(key)))
        while at < len(self._hashes) and self._hashes[at] == hash(key):
            number = int(self._order[at])
            if self.labels.plan.keys[number] == key:
                return number
            at += 1
        return None

    def _read_index(self, shard: int) -> tuple[ShardIndex, dict[str, int]]:
        index = self.labels.index(shard)
        left_out = set(index.left_out)
        keys = (key for key in self.labels.plan.shard(shard).keys if key not in left_out)
        return index, {key: position for position, key in enumerate(keys)}
