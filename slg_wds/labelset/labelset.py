"""LabelSet: what the labels of a set are, and its records."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

from slg_wds.console import counted
from slg_wds.errors import IncompleteSetError, LabelSetError, UsageError
from slg_wds.format.manifest.description import MIXING, TRAILER_FEATURE, VIEWS, Description, numbers_classes
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.record import Record
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.stored import StoredSet
from slg_wds.masking import masked
from slg_wds.store import open_store


@dataclass(frozen=True)
class LabelSet(StoredSet):
    """A label set at a URL.

    Iterating yields every `Record` in the order of the plan; each shard is checked whole before its first record.
    `labels[number]` and `labels[key]` read one record. `key in labels` says whether an image has labels, and
    `labels.keys()` gives the keys of those that have. `len(labels)` is the number of planned images.

    Attributes:
        store, plan, description, digest: as of `StoredSet`.
        allow_incomplete: whether reading may skip shards that do not exist yet.
    """

    allow_incomplete: bool = False

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
        return self._record_of(self._number_of(image))

    def _number_of(self, image: SupportsIndex | str) -> int:
        if isinstance(image, str):
            found = self.key_numbers.find(image)
            if found is None:
                raise KeyError(f"no image of {masked(self.url)} has the key {image!r}; {self.example_key}")
            return found
        if not hasattr(image, "__index__"):
            raise TypeError(f"an image is named by its key or by its number, one at a time, not by {image!r}")
        number, count = operator.index(image), len(self)
        if not -count <= number < count:
            raise IndexError(f"image {number} of the {count} images of {masked(self.url)}")
        return number % count

    def _record_of(self, number: int) -> Record:
        """Read the record of image `number` of the plan: the index of its shard, then one range of the shard."""
        shard = self.plan.place(number)[0]
        key, name = self.plan.keys[number], self.shard_name(shard)
        if not self.exists(shard):
            raise LabelSetError(
                "it is planned, but its shard is not there yet", url=self.url, shard=name, key=key
            )
        index = self.index(shard)
        if key in index.left_out:
            reasons = {entry["key"]: entry["reason"] for entry in self.shard(shard).header.left_out}
            raise LabelSetError(f"it was left out: {reasons.get(key)}", url=self.url, shard=name, key=key)
        record = self.record(shard, index.positions(self.plan.shard(shard).keys)[key], index)
        if record.key != key:
            raise LabelSetError(
                f"the index has the record of {record.key!r} in its place", url=self.url, shard=name, key=key,
                hint="run slg-wds verify --fix",
            )  # fmt: skip
        return record

    @property
    def example_key(self) -> str:
        """A sentence that shows what keys of the set look like, for messages."""
        return f"keys are such as {self.plan.keys[0]!r}" if len(self) else "the set is empty"

    def __contains__(self, key: object) -> bool:
        """Return whether `labels[key]` would find labels; False for all that is no key. Reads an index.

        Raises:
            FormatError, StoreError: the index cannot be read.
        """
        number = self.key_numbers.find(key) if isinstance(key, str) else None
        if number is None:
            return False
        shard = self.plan.place(number)[0]
        return self.exists(shard) and key not in self.index(shard).left_out

    def keys(self) -> list[str]:
        """Return the keys of all images that have labels, in the order of the records.

        Raises:
            IncompleteSetError: shards are missing, and `allow_incomplete` is False.
            FormatError, StoreError: _info.json or an index part cannot be read.
        """
        planned = (self.plan.shard(number).keys for number in self._readable_shards())
        some = [number for number, count in self.count_left_out().items() if count]
        left_out = set(itertools.chain.from_iterable(self.left_out_of(some).values()))
        return [key for key in itertools.chain.from_iterable(planned) if key not in left_out]

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

    def record(self, number: int, position: int, index: ShardIndex | None = None) -> Record:
        """Read one record; arguments as for `record_bytes`."""
        data = self.record_bytes(number, position, index)
        return self._with_rule(decode_record(data, url=self.url, shard=self.shard_name(number)))


def short(url: str) -> str:
    """Shorten a URL to at most 100 characters by leaving out its middle."""
    return url if len(url) <= 100 else f"{url[:48]}...{url[-48:]}"
