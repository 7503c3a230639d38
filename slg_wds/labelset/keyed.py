"""Records of one label set by key, read in any order with bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from slg_wds.errors import ShardError
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.format.records.record import Record
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Shard, check_payload
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import code_of_all

WHOLE_BYTES = 1 << 26  # a shard up to this size is read whole
WHOLE_PART = 0.25  # ... if at least this share of its records is needed
KEPT_SHARDS = 2
KEPT_INDEXES = 64


@dataclass(frozen=True)
class Missing:
    """Stands for a record that a set does not have, and gives the reason why it left the image out."""

    reason: str


class KeyedSet:
    """One label set, whose records are found by key.

    A shard of which many records are needed is read whole; from other shards, single records are read by byte range.
    Memory holds at most two shards of up to 64 MiB each, and the index parts of 64 shards. Several threads may read at
    once as long as none calls `prepare`: then no shard is read whole.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._wanted: dict[int, bool] = {}
        self._shards: OrderedDict[int, tuple[Shard, dict[str, int]]] = OrderedDict()
        self._index = lru_cache(KEPT_INDEXES)(partial(_read_index, labels))
        self._code: dict[int, dict[str, dict[str, str]]] = {}  # of every shard whose trailer was read

    def find(self, key: str, near: int = -1) -> int | None:
        """Return the number of an image in the plan, or None. Faster if `near` is that number."""
        return self.labels.key_numbers.find(key, near)

    def labelled(self, key: str) -> int | None:
        """Return the number of an image in the plan; None where the set does not plan it, or left it out."""
        number = self.find(key)
        if number is None or key not in self._index(self.labels.plan.place(number)[0])[1]:
            return None
        return number

    def prepare(self, numbers: Iterable[int]) -> None:
        """Announce which planned images are read next: decide which shards to read whole, and drop all others."""
        shards, counts = np.unique(
            [self.labels.plan.place(number)[0] for number in numbers], return_counts=True
        )
        for shard in [kept for kept in self._shards if kept not in shards]:
            del self._shards[shard]
        self._wanted = {
            int(shard): int(count) >= WHOLE_PART * int(self.labels.plan.shard_sizes[shard])
            for shard, count in zip(shards, counts, strict=True)
        }

    def read(self, number: int) -> Record | Missing:
        """Return the record of planned image `number`. Raises FormatError, StoreError."""
        key, shard = self.labels.plan.keys[number], self.labels.plan.place(number)[0]
        whole = self._whole(shard)
        if whole is not None:
            position = whole[1].get(key)
            return self._reason(whole[0], key) if position is None else whole[0].record(position)
        index, positions = self._index(shard)
        if key not in positions:
            return self._reason(self.labels.shard(shard), key)
        return self.labels.record(shard, positions[key], index)

    def record_bytes(self, number: int) -> bytes:
        """Return the bytes of the record of planned image `number`, which has labels. Raises ShardError, StoreError."""
        shard = self.labels.plan.place(number)[0]
        index, positions = self._index(shard)
        return self.labels.record_bytes(shard, positions[self.labels.plan.keys[number]], index)

    def image(self, number: int) -> bytes | None:
        """Return the image file of planned image `number`; None where the set embeds none."""
        key, shard = self.labels.plan.keys[number], self.labels.plan.place(number)[0]
        whole = self._whole(shard)
        if whole is not None:
            member = whole[0].samples[whole[1][key]].image
            return None if member is None else bytes(whole[0].content(member))
        index, positions = self._index(shard)
        if index.images is None or index.image_shard is not None:
            return None
        name = self.labels.shard_name(shard)
        offset, size, crc32 = index.images[positions[key]]
        data = self.labels.store.read_range(name, offset, size)
        check_payload(data, size, crc32, url=self.labels.url, shard=name, key=key)
        return data

    def code(self, numbers: Iterable[int | None]) -> Iterator[Mapping[str, Any]]:
        """Yield what the shards of these planned images note of private teachers' code; see `code_of_all`."""
        for shard in sorted({self.labels.plan.place(one)[0] for one in numbers if one is not None}):
            if shard not in self._code:
                self._note_code(shard, self.labels.trailer(shard, self._index(shard)[0]))
            yield self._code[shard]

    def _note_code(self, shard: int, header: ShardHeader) -> None:
        self._code[shard] = code_of_all([header.provenance])

    def _reason(self, shard: Shard, key: str) -> Missing:
        return Missing(next(str(e["reason"]) for e in shard.header.left_out if e["key"] == key))

    def _whole(self, shard: int) -> tuple[Shard, dict[str, int]] | None:
        if shard in self._shards:
            return self._shards[shard]
        if not self._wanted.get(shard):
            return None
        if (self.labels.store.size(self.labels.shard_name(shard)) or 0) > WHOLE_BYTES:
            self._wanted[shard] = False  # asked once, not for every record
            return None
        if len(self._shards) >= KEPT_SHARDS:
            self._shards.popitem(last=False)
        data = self.labels.shard(shard)
        self._note_code(shard, data.header)
        self._shards[shard] = data, {sample.key: i for i, sample in enumerate(data.samples)}
        return self._shards[shard]


def _read_index(labels: LabelSet, shard: int) -> tuple[ShardIndex, dict[str, int]]:
    """Return a shard's index part, and the position of each record by its key."""
    index = labels.index(shard)
    if index.set_digest != labels.digest:
        raise ShardError(
            "its index is that of another label set", url=labels.url, shard=labels.shard_name(shard)
        )
    return index, index.positions(labels.plan.shard(shard).keys)
