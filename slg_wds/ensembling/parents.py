"""The sets that are merged: opened, found in by key, read in any order with bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.errors import ShardError
from slg_wds.format.manifest.manifest import ShardIndex
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import Shard, check_payload
from slg_wds.images import image_extension
from slg_wds.labels.shares import shares
from slg_wds.labelset.joining import chains, joined
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.labelset import LabelSet, labels_at
from slg_wds.store import Location

WHOLE_BYTES = 1 << 26  # shards up to this size are read whole where many of their records are wanted
WHOLE_PART = 0.25  # ... at least this part of them
KEPT_SHARDS = 2
KEPT_INDEXES = 64


@dataclass(frozen=True)
class Missing:
    """Why a set has no labels of an image that it planned."""

    reason: str


class KeyedSet:
    """One label set, its records by key. Shards that follow each other are read whole, strangers by range.

    Memory: two shards of at most 64 MiB, or one record, and the places of 64 shards' records.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._numbers = KeyNumbers(labels.plan.keys)
        self._wanted: dict[int, bool] = {}
        self._shards: OrderedDict[int, tuple[Shard, dict[str, int]]] = OrderedDict()
        self._indexes: OrderedDict[int, tuple[ShardIndex, dict[str, int]]] = OrderedDict()

    def find(self, key: str, near: int = -1) -> int | None:
        """The number of an image in the plan, looked for first at `near`; None where it is not planned."""
        return self._numbers.find(key, near)

    def prepare(self, numbers: Iterable[int]) -> None:
        """Read whole the shards of which many of these images are wanted, forget those that are not wanted."""
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
        """The record of planned image `number`. Raises FormatError, StoreError."""
        key, shard = self.labels.plan.keys[number], self.labels.plan.place(number)[0]
        whole = self._whole(shard)
        if whole is not None:
            position = whole[1].get(key)
            return self._reason(whole[0], key) if position is None else whole[0].record(position)
        index, positions = self._index(shard)
        if key not in positions:
            return self._reason(self.labels.shard(shard), key)
        return self.labels.record(shard, positions[key], index)

    def image(self, number: int) -> bytes | None:
        """The embedded image of planned image `number`, None where the set embeds none."""
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
        self._shards[shard] = data, {sample.key: i for i, sample in enumerate(data.samples)}
        return self._shards[shard]

    def _index(self, shard: int) -> tuple[ShardIndex, dict[str, int]]:
        if shard not in self._indexes:
            index = self.labels.index(shard)
            if index.set_digest != self.labels.digest:
                raise ShardError(
                    "its index is that of another label set",
                    url=self.labels.url,
                    shard=self.labels.shard_name(shard),
                )
            if len(self._indexes) >= KEPT_INDEXES:
                self._indexes.popitem(last=False)
            self._indexes[shard] = index, index.positions(self.labels.plan.shard(shard).keys)
        return self._indexes[shard]


class Parent:
    """One member of the mean: a label set, or a set and those that extend it, joined.

    share: its part of the mean, 0..1. rule: how its labels are recovered, None for all that is stored.
    plan, identity: of the last, which plans every image.
    """

    def __init__(self, chain: Sequence[LabelSet], share: float) -> None:
        self.chain = [KeyedSet(labels) for labels in chain]
        self.share = share
        last = chain[-1]
        self.plan, self.identity, self.url = last.plan, last.identity, last.url
        self.tail_classes = self.identity.tail_classes
        # The tail says more than a rule without one; a set that stores none is read as its maker asked.
        self.rule = None if self.tail_classes else last.label_type

    @property
    def last(self) -> KeyedSet:
        """The set that plans every image."""
        return self.chain[-1]

    def describe(self) -> dict[str, Any]:
        """What the identity of a merged set says of this parent."""
        identity = self.identity
        return {
            "digest": self.last.labels.digest,
            "weight": self.share,
            "label_type": identity.label_type,
            "values": identity.coding,
            "tail_classes": self.tail_classes,
            **({"joined": [keyed.labels.digest for keyed in self.chain[:-1]]} if len(self.chain) > 1 else {}),
        }

    def numbers(self, keys: Sequence[str], near: int) -> list[list[int | None]]:
        """Each set's numbers of these images, which begin about number `near`, and what to read whole for them."""
        found = [[keyed.find(key, near + i) for i, key in enumerate(keys)] for keyed in self.chain]
        for keyed, numbers in zip(self.chain, found, strict=True):
            keyed.prepare(number for number in numbers if number is not None)
        return found

    def read(self, numbers: Sequence[int | None]) -> Record | Missing:
        """The record of an image by its number in each set, its parts joined."""
        found = [
            keyed.read(number)
            for keyed, number in zip(self.chain, numbers, strict=True)
            if number is not None
        ]
        if isinstance(found[-1], Missing):
            return found[-1]
        # What an older part left out, a newer one has labelled whole.
        parts = [part for part in found if not isinstance(part, Missing)]
        return joined(parts, self.last.labels)

    def image(self, numbers: Sequence[int | None]) -> tuple[bytes, str] | None:
        """The embedded image and its extension, None where there is none."""
        number = numbers[-1]
        data = self.last.image(number) if number is not None else None
        return None if data is None else (data, image_extension(data))


def open_parents(sets: Sequence[Location], weights: Sequence[float] | None) -> list[Parent]:
    """Open the sets, each with those that extend it made one. Raises UsageError, LabelSetError, StoreError."""
    found = chains([labels_at(location) for location in sets])
    return [
        Parent(chain, share)
        for chain, share in zip(found, shares(weights, len(found), "label set"), strict=True)
    ]
