"""The sets of a report: opened together, sampled, read image by image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slg_wds.ensembling.parents import WHOLE_PART, Missing, Parent
from slg_wds.errors import IncompleteSetError, RecordError, UsageError
from slg_wds.format.records.record import Record
from slg_wds.labelset.class_names import class_names
from slg_wds.labelset.joining import chains
from slg_wds.labelset.labelset import LabelSet, labels_at
from slg_wds.store import Location


@dataclass(frozen=True)
class Sample:
    """Which images are looked at: for each chosen shard its number and its images' numbers in the plan."""

    shards: list[tuple[int, list[int]]]
    present: int

    @property
    def images(self) -> int:
        return sum(len(numbers) for _, numbers in self.shards)


@dataclass(frozen=True)
class Read:
    """One image: its number in the first set's plan, and its record in every set, None where one has none."""

    number: int
    records: list[Record | None]


class ReportedSets:
    """One or several label sets; a set and those that extend it count as one. The first says what is sampled.

    Attributes: sets, each one's parts made one; names: short, distinct ones for people. skipped: images that the
    first set left out, or that have no crops.

    Raises UsageError for sets over different classes; LabelSetError, ManifestError, StoreError as `open_labels`.
    """

    def __init__(self, locations: Sequence[Location]) -> None:
        opened = [labels_at(location, allow_incomplete=True) for location in locations]
        together = chains(opened)
        self.sets = [Parent(chain, 1.0) for chain in together]
        self.labels = [chain[-1] for chain in together]
        self.names = short_names([labels.url for labels in self.labels])
        self.skipped = 0
        self._gone: dict[int, set[int]] = {}
        for labels in self.labels[1:]:
            _check_classes(self.labels[0], labels)

    @property
    def first(self) -> LabelSet:
        """The set that is sampled."""
        return self.labels[0]

    @property
    def comparable(self) -> bool:
        """Whether the targets number the classes of the labels."""
        return self.first.targets_are_classes

    def class_names(self) -> list[str] | None:
        """A name for every class, from the first set that has any."""
        return next((names for labels in self.labels if (names := class_names(labels)) is not None), None)

    def sample(self, samples: int) -> Sample:
        """Choose about so many images, or all: whole parts of shards drawn at random, the same each time.

        Raises IncompleteSetError where no shard is there yet.
        """
        labels = self.first
        missing = self._missing(0)
        present = [number for number in range(labels.num_shards) if number not in missing]
        if not present:
            raise IncompleteSetError("it has no shard yet", url=labels.url, hint="wait for the first one")
        sizes = labels.plan.shard_sizes[present]
        if int(sizes.sum()) <= samples:
            chosen = present
        else:
            count = min(len(present), max(1, math.ceil(samples / max(1.0, WHOLE_PART * float(sizes.mean())))))
            drawn = np.random.default_rng(0).choice(len(present), count, replace=False)
            chosen = [present[at] for at in sorted(drawn)]
        return Sample(list(_spread(labels, chosen, samples)), len(present))

    def read(self, sample: Sample) -> Iterator[Read]:
        """Every image of the sample in all sets. Memory: two shards, or one record, of each set."""
        for _, numbers in sample.shards:
            keys = [self.first.plan.keys[number] for number in numbers]
            found = [parent.numbers(keys, numbers[0]) for parent in self.sets]
            for at, number in enumerate(numbers):
                records = [
                    self._record(which, [of_set[at] for of_set in places])
                    for which, places in enumerate(found)
                ]
                if records[0] is None:
                    self.skipped += 1
                else:
                    yield Read(number, records)

    def again(self, number: int) -> Read:
        """One image once more."""
        key = self.first.plan.keys[number]
        places = [parent.numbers([key], number) for parent in self.sets]
        records = [self._record(which, [of_set[0] for of_set in found]) for which, found in enumerate(places)]
        return Read(number, records)

    def present(self) -> list[int]:
        """How many shards of each set are there."""
        return [labels.num_shards - len(self._missing(which)) for which, labels in enumerate(self.labels)]

    def _missing(self, which: int) -> set[int]:
        if which not in self._gone:
            self._gone[which] = set(self.labels[which].missing())
        return self._gone[which]

    def _record(self, which: int, numbers: Sequence[int | None]) -> Record | None:
        """An image's record in a set by its number there, None where it has none. Raises FormatError, StoreError."""
        parent, number = self.sets[which], numbers[-1]
        if number is None or parent.plan.place(number)[0] in self._missing(which):
            return None
        record = parent.read(numbers)
        if isinstance(record, Missing) or not record.num_crops:
            return None
        classes, target = self.labels[which].num_classes, record.target
        if record.num_classes != classes or (self.comparable and target is not None and target >= classes):
            raise RecordError(
                f"its {record.num_classes} classes or its target, {target}, are not of the set's {classes} classes",
                url=parent.url,
                key=record.key,
            )
        return record


def _spread(labels: LabelSet, shards: Sequence[int], samples: int) -> Iterator[tuple[int, list[int]]]:
    each = math.ceil(samples / len(shards))
    left = samples
    for shard in shards:
        start, size = int(labels.plan.starts[shard]), int(labels.plan.shard_sizes[shard])
        count = size if int(labels.plan.shard_sizes[list(shards)].sum()) <= samples else min(each, size, left)
        left -= count
        if count:
            yield shard, [start + at * size // count for at in range(count)]


def _check_classes(first: LabelSet, other: LabelSet) -> None:
    for name in ("num_classes", "class_subset"):
        a, b = getattr(first.identity, name), getattr(other.identity, name)
        if a != b:
            raise UsageError(
                f"its {name} is {b!r}, that of {first.url} {a!r}",
                url=other.url,
                hint="sets in one report are of the same classes",
            )


def short_names(urls: Sequence[str]) -> list[str]:
    """The last parts of URLs, as many as it takes to tell them apart."""
    parts = [url.rstrip("/").split("/") for url in urls]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(urls, 1)]


class Pictures(Protocol):
    """Bytes of the images of the first set."""

    def read(self, number: int, key: str) -> bytes:
        """The image of planned image `number`. Raises SlgWdsError naming it."""


class EmbeddedPictures:
    """Images inside the first set that embeds them."""

    def __init__(self, sets: ReportedSets, which: int) -> None:
        self._parent, self._keys = sets.sets[which], sets.first.plan.keys

    def read(self, number: int, key: str) -> bytes:
        numbers = self._parent.numbers([key], number)
        found = self._parent.image([of_set[0] for of_set in numbers])
        if found is None:
            raise UsageError("the shard has no images, though the set embeds them", key=key)
        return found[0]


class ExternalPictures:
    """Images where --images says, at the places of the first set's plan."""

    def __init__(self, sets: ReportedSets, images: Location) -> None:
        from slg_wds.replay.sources.files import OpenFiles
        from slg_wds.replay.sources.images import open_replayed

        self._images = open_replayed(sets.first, images, OpenFiles())

    def read(self, number: int, key: str) -> bytes:
        return self._images.read(number, key)


def open_pictures_of(sets: ReportedSets, images: Location | None) -> Pictures | None:
    """Where the images are: at `images`, inside a set, or None where neither is. Raises SlgWdsError."""
    if images is not None:
        return ExternalPictures(sets, images)
    for which, labels in enumerate(sets.labels):
        if labels.identity.embed_images:
            return EmbeddedPictures(sets, which)
    return None
