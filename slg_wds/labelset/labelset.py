"""LabelSet: which shards of a label set exist, its records, and what a worker needs to make the others."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from slg_wds.console import counted
from slg_wds.errors import (
    IncompleteSetError,
    LabelSetError,
    NotFoundError,
    UnsupportedStoreError,
    UsageError,
)
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import MIXING, TRAILER_FEATURE, VIEWS, Description, numbers_classes
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import MAX_SHARD_BYTES, ShardIndex, build_index, decode_index
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.record import Record
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
from slg_wds.labelset.left_out import labelled_keys
from slg_wds.labelset.lookup import has_labels, number_of, record_of
from slg_wds.labelset.objects import INDEX, INFO, located
from slg_wds.masking import masked
from slg_wds.store import Store, open_store


@dataclass(frozen=True)
class LabelSet:
    """A label set at a URL.

    Iterating yields every `Record` in the order of the plan; each shard is checked whole before its first record.
    `labels[number]` and `labels[key]` read one record. `key in labels` says whether an image has labels, and
    `labels.keys()` gives the keys of those that have. `len(labels)` is the number of planned images.

    Attributes:
        store: where the set is.
        plan: which image is which sample of which shard.
        description: the content of slg.json.
        digest: the set's digest, hex.
        allow_incomplete: whether reading may skip shards that do not exist yet.
    """

    store: Store
    plan: Plan
    description: Description
    digest: str
    allow_incomplete: bool = False

    @property
    def url(self) -> str:
        """The URL or folder of the set."""
        return self.store.url

    @functools.cached_property
    def identity(self) -> Identity:
        """What decides the labels: a mapping of JSON values, with the known fields as attributes too."""
        return Identity.from_json(self.description.identity)

    @property
    def label_type(self) -> str:
        """The label type that the set was made with, and its default rule of recovery."""
        return self.identity.label_type

    @property
    def num_classes(self) -> int:
        """Number of classes of every distribution, C."""
        return self.identity.num_classes

    @property
    def temperature(self) -> float | None:
        """What the teachers' logits were divided by; None where nothing says it, as in labels of other programs."""
        return self.identity.temperature

    @property
    def holds_embeddings(self) -> bool:
        """Whether the set holds embeddings of teachers in place of labels."""
        return self.identity.embeddings is not None

    def refuse_embeddings(self) -> None:
        """Raise LabelSetError if the set holds embeddings, where labels are needed."""
        if self.holds_embeddings:
            raise LabelSetError("the set holds embeddings, and labels are needed here", url=self.url)

    def refuse_hard(self, what: str) -> None:
        """Raise UsageError if the set holds no probabilities, which `what` needs: all that is stored is the top class.

        Records of such labels read as a probability of 1.
        """
        if self.identity.coding == "none":
            raise UsageError(f"{what} needs probabilities, and only the top class is stored", url=self.url)

    @property
    def num_crops(self) -> int:
        """Crops of each image, those of the sets that this one extends included."""
        return self.identity.num_crops

    @property
    def has_views(self) -> bool:
        """Whether records say what else was done to the pixels of their crops."""
        return VIEWS in self.description.requires

    @property
    def has_mixing(self) -> bool:
        """Whether records say which second views were mixed into the views of their crops."""
        return MIXING in self.description.requires

    @property
    def targets_are_classes(self) -> bool:
        """Whether the targets number the classes of the labels; if not, they only number the images' folders."""
        return numbers_classes(self.description, self.identity)

    @classmethod
    def unsaved(cls, plan: Plan, identity: Mapping[str, Any]) -> LabelSet:
        """Make a set that exists in memory only, for a dry run: all of its shards are missing."""
        description = Description(0, 0, "", dict(identity), requires=[TRAILER_FEATURE], image_checksums=True)
        nowhere = open_store(os.devnull)  # no folder, so nothing lies below it
        return cls(nowhere, plan, description, "")

    def first(self, count: int, number: int) -> LabelSet:
        """Return the set with only the first `count` images of shard `number`, which a dry run labels."""
        sizes = self.plan.shard_sizes.copy()
        sizes[number] = min(sizes[number], count)
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, shard_sizes=sizes))

    def __len__(self) -> int:
        return len(self.plan.keys)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records. Raises IncompleteSetError, and FormatError at the first damaged shard."""
        present = self._readable_shards()
        for number in present:
            shard = self.shard(number)
            for position in range(len(shard.samples)):
                yield self._with_rule(shard.record(position))

    def __getitem__(self, image: SupportsIndex | str) -> Record:
        """Read the record of one image.

        Args:
            image: its number in the plan (negative: from the end), or its key.

        Raises:
            IndexError, KeyError: no such image is planned.
            TypeError: it is neither a number nor a key, a slice for instance.
            LabelSetError: the image was left out, or its shard does not exist yet.
        """
        return record_of(self, number_of(self, image))

    def __contains__(self, key: object) -> bool:
        """Return whether there are labels of the image with this key; False for all that is no key. Reads an index."""
        return isinstance(key, str) and has_labels(self, key)

    def keys(self) -> list[str]:
        """Return the keys of all images that have labels, in the order of the records. Raises as iterating does."""
        return labelled_keys(self)

    @functools.cached_property
    def key_numbers(self) -> KeyNumbers:
        """Finds the number of a planned image by its key."""
        return KeyNumbers(self.plan.keys)

    def __repr__(self) -> str:
        return (
            f"LabelSet({short(masked(self.url))!r}, {counted(len(self), 'image')}, "
            f"{counted(self.num_shards, 'shard')}, {counted(self.num_crops, 'crop')} an image, "
            f"{self._holdings})"
        )

    @property
    def _holdings(self) -> str:
        if self.identity.embeddings is None:
            return f"{self.label_type} of {self.num_classes} classes"
        return ", ".join(f"embedding {one['name']} of {one['dim']}" for one in self.identity.embeddings)

    def permitted_missing(self) -> set[int]:
        """Return the numbers of missing shards. Raises IncompleteSetError for any, unless `allow_incomplete`."""
        missing = set(self.missing())
        if missing and not self.allow_incomplete:
            raise IncompleteSetError(
                f"the set lacks {len(missing):,} of {counted(self.num_shards, 'shard')}",
                url=self.url,
                hint="finish it with the command that began it",
            )
        return missing

    def _readable_shards(self) -> list[int]:
        missing = self.permitted_missing()
        return [number for number in range(self.num_shards) if number not in missing]

    def _with_rule(self, record: Record) -> Record:
        return dataclasses.replace(record, rule=self.label_type, temperature=self.temperature)

    @property
    def num_shards(self) -> int:
        """Number of planned shards."""
        return len(self.plan.shard_names)

    def shard_name(self, number: int) -> str:
        """Return the name of a shard in the store."""
        return f"{self.plan.shard_names[number]}.tar"

    def exists(self, number: int) -> bool:
        """Return whether a shard exists, and so is whole and final. Raises StoreError if a folder has its name."""
        return self.store.taken(self.shard_name(number))

    def missing(self) -> list[int]:
        """Return the numbers of the shards that do not exist, by one listing, or over http by one request for each."""
        try:
            present = self.present()
        except UnsupportedStoreError:  # http: nothing can be listed
            if self.finished():  # written last, so every shard is there
                return []
            return [number for number in range(self.num_shards) if not self.exists(number)]
        return [number for number in range(self.num_shards) if number not in present]

    def present(self) -> dict[int, int]:
        """Return the size in bytes of each shard that exists, by its number, in order. Takes one listing."""
        sizes = {entry.name: entry.size for entry in self.store.list(deep=False)}
        names = map(self.shard_name, range(self.num_shards))
        return {number: sizes[name] for number, name in enumerate(names) if name in sizes}

    def shard(self, number: int) -> Shard:
        """Read a shard whole; check every byte of it, and that it is the planned one.

        Raises:
            NotFoundError: it does not exist.
            FormatError: it is damaged, or another one.
        """
        name = self.shard_name(number)
        shard = read_shard(self.store.read(name, MAX_SHARD_BYTES), url=self.url, shard=name)
        part = self.plan.shard(number)
        shard.check(self.digest, number, part.name, part.keys)
        return shard

    def index(self, number: int) -> ShardIndex:
        """Read the index part of a shard; if it is missing, make it from the shard."""
        try:
            data, url = self.index_part(number)
        except NotFoundError:
            return build_index(self.shard(number), self.plan, number)
        return located(decode_index, data, url)

    def index_part(self, number: int) -> tuple[bytes, str]:
        """Read the bytes of a shard's index part; return them and their URL. Raises NotFoundError if it is missing."""
        name = f"{INDEX}/{self.plan.shard_names[number]}"
        return self.store.read(name, MAX_JSON_BYTES), self.store.url_of(name)

    def record(self, number: int, position: int, index: ShardIndex | None = None) -> Record:
        """Read one record by a range of its shard.

        Args:
            number: the number of the shard.
            position: the position of the record in the shard.
            index: the shard's index; None to read that first.
        """
        data = self.record_bytes(number, position, index)
        return self._with_rule(decode_record(data, url=self.url, shard=self.shard_name(number)))

    def record_bytes(self, number: int, position: int, index: ShardIndex | None = None) -> bytes:
        """Read the bytes of one record, as `record` does, and check them against the index."""
        name = self.shard_name(number)
        offset, size, crc32 = (index or self.index(number)).records[position]
        data = self.store.read_range(name, offset, size)
        check_payload(data, size, crc32, url=self.url, shard=name)
        return data

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode the members of a sample, in any thread. In a set without checksums of images, these are left out.

        Raises:
            RecordError, ShardError: see `shard.encode_sample`.
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
        """Encode a shard in the form of this set.

        Args:
            number: the number of the shard.
            samples: its samples in the order of the plan.
            left_out: key, path and reason of each planned image that has no sample.
            provenance: JSON values: what could change the last bits of a probability.
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
        """Return whether _info.json exists, which says that every shard does."""
        return self.store.size(INFO) is not None

    @property
    def split(self) -> str:
        """The name of the split, with which the shards' names begin: train of train-000000."""
        return self.plan.shard_names[0].rpartition("-")[0] or "train" if self.num_shards else "train"


def short(url: str) -> str:
    """Shorten a URL to at most 100 characters by leaving out its middle."""
    return url if len(url) <= 100 else f"{url[:48]}...{url[-48:]}"
