"""A label set at a URL: see what is missing, commit a shard, finish it, read it. `creating` begins one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from slg_wds.console import counted
from slg_wds.errors import (
    IncompleteSetError,
    NotFoundError,
    UnsupportedStoreError,
)
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import TRAILER_FEATURE, Description, numbers_classes
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import MAX_SHARD_BYTES, ShardIndex, build_index, decode_index
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.record import Record, decode_record
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import (
    EncodedSample,
    Sample,
    Shard,
    check_payload,
    encode_sample,
    encode_shard,
    read_shard,
)
from slg_wds.labelset import publishing
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.lookup import number_of, record_of
from slg_wds.labelset.objects import INDEX, INFO, located
from slg_wds.masking import masked
from slg_wds.store import Store, open_store


@dataclass(frozen=True)
class LabelSet:
    """A label set: its plan, its description, and the store that its shards are in.

    Iterating yields every `Record` in plan order, each shard checked whole before its first. `labels[i]` and
    `labels[key]` read one.
    """

    store: Store
    plan: Plan
    description: Description
    digest: str
    allow_incomplete: bool = False

    @property
    def url(self) -> str:
        """Where the set is."""
        return self.store.url

    @functools.cached_property
    def identity(self) -> Identity:
        """What decides the labels: a mapping of JSON values, and its known fields as attributes."""
        return Identity.from_json(self.description.identity)

    @property
    def label_type(self) -> str:
        """The label type given when the set was made, its default rule of recovery."""
        return self.identity.label_type

    @property
    def num_classes(self) -> int:
        """Number of classes of every distribution."""
        return self.identity.num_classes

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        return self.identity.num_crops

    @property
    def targets_are_classes(self) -> bool:
        """Whether the targets number the classes of the labels; else they only number the images' folders."""
        return numbers_classes(self.description, self.identity)

    @classmethod
    def unsaved(cls, plan: Plan, identity: Mapping[str, Any]) -> LabelSet:
        """A set that exists in memory only, for a dry run."""
        description = Description(0, 0, "", dict(identity), requires=[TRAILER_FEATURE], image_checksums=True)
        return cls(open_store("unsaved"), plan, description, "")

    def first(self, count: int) -> LabelSet:
        """The same with only the first images of the first shard, for a dry run."""
        sizes = self.plan.shard_sizes.copy()
        sizes[0] = min(sizes[0], count)
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, shard_sizes=sizes))

    def __len__(self) -> int:
        return len(self.plan.keys)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records. Raises IncompleteSetError, or FormatError for the first shard that is damaged."""
        present = self._readable_shards()
        for number in present:
            shard = self.shard(number)
            for position in range(len(shard.samples)):
                yield self._with_rule(shard.record(position))

    def __getitem__(self, image: SupportsIndex | str) -> Record:
        """Read the record of one image: of that place in the plan (negative: from the end), or of that key.

        Raises IndexError, KeyError for an image that is not planned, LabelSetError for one that has no labels (yet).
        """
        return record_of(self, number_of(self, image))

    @functools.cached_property
    def key_numbers(self) -> KeyNumbers:
        """The numbers of the planned images by their keys."""
        return KeyNumbers(self.plan.keys)

    def __repr__(self) -> str:
        return (
            f"LabelSet({short(masked(self.url))!r}, {counted(len(self), 'image')}, "
            f"{counted(self.num_shards, 'shard')}, {counted(self.num_crops, 'crop')} an image, "
            f"{self.label_type} of {self.num_classes} classes)"
        )

    def permitted_missing(self) -> set[int]:
        """The numbers of shards that are missing. Raises IncompleteSetError for any, without `allow_incomplete`."""
        missing = set(self.missing())
        if missing and not self.allow_incomplete:
            raise IncompleteSetError(
                f"the set lacks {len(missing):,} of {counted(self.num_shards, 'shard')}",
                url=self.url,
                hint="finish it with the command that began it, or in Python pass allow_incomplete=True",
            )
        return missing

    def _readable_shards(self) -> list[int]:
        missing = self.permitted_missing()
        return [number for number in range(self.num_shards) if number not in missing]

    def _with_rule(self, record: Record) -> Record:
        return dataclasses.replace(record, rule=self.label_type)

    @property
    def num_shards(self) -> int:
        """Number of shards when the set is complete."""
        return len(self.plan.shard_names)

    def shard_name(self, number: int) -> str:
        """The object name of a shard."""
        return f"{self.plan.shard_names[number]}.tar"

    def exists(self, number: int) -> bool:
        """Whether a shard is there, and so whole and final. Raises StoreError where something else has its name."""
        return self.store.taken(self.shard_name(number))

    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet, from one listing (or one question each over http)."""
        try:
            present = self.present()
        except UnsupportedStoreError:  # http: nothing can be listed
            if self.finished():  # written last, so every shard is there
                return []
            return [number for number in range(self.num_shards) if not self.exists(number)]
        return [number for number in range(self.num_shards) if number not in present]

    def present(self) -> dict[int, int]:
        """The bytes of each shard that is there, by its number in order, from one listing."""
        sizes = {entry.name: entry.size for entry in self.store.list(deep=False)}
        names = map(self.shard_name, range(self.num_shards))
        return {number: sizes[name] for number, name in enumerate(names) if name in sizes}

    def shard(self, number: int) -> Shard:
        """Read one shard whole and check every byte of it and that it belongs here.

        Raises NotFoundError, FormatError.
        """
        name = self.shard_name(number)
        shard = read_shard(self.store.read(name, MAX_SHARD_BYTES), url=self.url, shard=name)
        part = self.plan.shard(number)
        shard.check(self.digest, number, part.name, part.keys)
        return shard

    def index(self, number: int) -> ShardIndex:
        """Where each record of a shard lies: the index part, or made from the shard where that is missing."""
        try:
            data, url = self.index_part(number)
        except NotFoundError:
            return build_index(self.shard(number), self.plan, number)
        return located(decode_index, data, url)

    def index_part(self, number: int) -> tuple[bytes, str]:
        """Read a shard's index part; return its bytes and its URL."""
        name = f"{INDEX}/{self.plan.shard_names[number]}"
        return self.store.read(name, MAX_JSON_BYTES), self.store.url_of(name)

    def record(self, number: int, position: int, index: ShardIndex | None = None) -> Record:
        """Read one record by a range read: that of `position` in shard `number`'s index."""
        data = self.record_bytes(number, position, index)
        return self._with_rule(decode_record(data, url=self.url, shard=self.shard_name(number)))

    def record_bytes(self, number: int, position: int, index: ShardIndex | None = None) -> bytes:
        """The bytes of `record`, checked against the index."""
        name = self.shard_name(number)
        offset, size, crc32 = (index or self.index(number)).records[position]
        data = self.store.read_range(name, offset, size)
        check_payload(data, size, crc32, url=self.url, shard=name)
        return data

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """The members of a sample; from any thread. In a set begun without checksums of images they are left out.

        Raises RecordError, ShardError.
        """
        if not self.description.image_checksums:
            record = dataclasses.replace(sample.record, image_crc32=None, source_crc32=None)
            sample = dataclasses.replace(sample, record=record)
        return encode_sample(sample)

    def encode_shard(
        self,
        number: int,
        samples: Iterable[EncodedSample],
        left_out: Sequence[Mapping[str, str]],
        provenance: Mapping[str, Any],
    ) -> bytes:
        """The bytes of shard `number`, of this set's form.

        Args:
            number: the number of the shard.
            samples: its samples in the order of the plan.
            left_out: key, path and reason of each planned image that has no sample.
            provenance: what could move the last bits of a probability, as JSON.
        """
        name = self.plan.shard_names[number]
        header = ShardHeader(self.digest, number, name, [dict(entry) for entry in left_out], dict(provenance))
        return encode_shard(samples, header, self.description.trailer)

    def commit(self, number: int, data: bytes) -> bool:
        """Publish a shard and its index part, once the shard has been checked whole.

        Args:
            number: the number of the shard.
            data: its bytes.

        Returns:
            False if another worker's shard was there first; then `data` is dropped.

        Raises:
            LabelSetError: the shard is over 2 GiB or not the one that was made, or another set has taken this one's
                place. Nothing was published.
            StoreError: the store cannot be written to.
        """
        return publishing.commit(self, number, data)

    def reopen(self) -> None:
        """Remove _info.json if shards are missing all the same: they were removed to be made again."""
        if self.finished() and self.missing():
            self.store.delete(INFO)

    def finish(self) -> bool:
        """Write the missing index parts and _info.json if every shard exists.

        Index parts and _info.json that exist are compared with the shards' sizes and the set's digest, and replaced
        if they disagree.

        Returns:
            Whether every shard exists.

        Raises:
            FormatError: a shard without a right index part is damaged or another set's.
        """
        return publishing.finish(self)

    def finished(self) -> bool:
        """Whether somebody has seen that every shard exists, and said so."""
        return self.store.size(INFO) is not None

    @property
    def split(self) -> str:
        """The split's name: what the shards' names begin with, as in train-000000."""
        return self.plan.shard_names[0].rpartition("-")[0] or "train" if self.num_shards else "train"


def short(url: str) -> str:
    """A URL of at most 100 characters: the middle of a longer one left out."""
    return url if len(url) <= 100 else f"{url[:48]}...{url[-48:]}"
