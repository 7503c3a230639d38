"""The label sets of a report: opened together, sampled, read image by image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from slg_wds.errors import IncompleteSetError, RecordError
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.distributions import as_full
from slg_wds.labelset.class_names import class_names
from slg_wds.labelset.combining.averaging import check_classes, check_kind
from slg_wds.labelset.combining.chain import SetChain
from slg_wds.labelset.combining.joining import chains
from slg_wds.labelset.keyed import WHOLE_PART, Missing
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location


@dataclass(frozen=True)
class ReportSample:
    """Which images a report reads.

    Attributes:
        shards: of each chosen shard, its number and the numbers of the chosen images in the plan.
        present: how many shards the first set has.
    """

    shards: list[tuple[int, list[int]]]
    present: int

    @property
    def images(self) -> int:
        """How many images were chosen."""
        return sum(len(numbers) for _, numbers in self.shards)


@dataclass(frozen=True)
class ImageRecords:
    """The labels of one image.

    Attributes:
        number: the image's number in the first set's plan.
        stored: its record in every set; None for a set without it.
    """

    number: int
    stored: list[Record | None]

    @cached_property
    def records(self) -> list[Record | None]:
        """The records; those of low-rank labels as those of full ones."""
        return [None if record is None else as_full(record) for record in self.stored]


class ReportedSets:
    """The label sets of one report. The first decides which images are sampled.

    A set and those that extend it count as one.

    Args:
        locations: the sets, finished or not.

    Attributes:
        sets: each set with those that extend it, read as one.
        labels: for each of `sets`, the last in its chain of extensions.
        names: a short, distinct name for each of `sets`.
        skipped: sampled images for which the first set has no labels, counted while `read` runs.

    Raises:
        UsageError: the sets have different classes or prototypes, or some hold labels and others embeddings.
        LabelSetError, ManifestError, StoreError: as `open_labels`.
    """

    def __init__(self, locations: Sequence[Location]) -> None:
        opened = [labels_at(location, allow_incomplete=True, embeddings=True) for location in locations]
        together = chains(opened)
        self.sets = [SetChain(chain) for chain in together]
        self.labels = [chain[-1] for chain in together]
        self.names = short_names([labels.url for labels in self.labels])
        self.skipped = 0
        self._missing_shards: dict[int, set[int]] = {}
        for labels in self.labels[1:]:
            check_kind(self.labels[0], labels, "draw them one after the other")
            check_classes(self.labels[0], labels)

    @property
    def first(self) -> LabelSet:
        """The set that is sampled."""
        return self.labels[0]

    @property
    def rules(self) -> list[str]:
        """The label type of each set, by which its labels are read. Low-rank labels are read as full ones."""
        return ["full" if labels.identity.max_kl else labels.label_type for labels in self.labels]

    def class_names(self) -> list[str] | None:
        """Return a name for every class, from the first set that has names; None if none has."""
        return next((names for labels in self.labels if (names := class_names(labels)) is not None), None)

    def sample(self, samples: int) -> ReportSample:
        """Choose images from shards drawn at random with a fixed seed, so that they are the same each time.

        Args:
            samples: at most how many images; all images if the set has no more.

        Raises:
            IncompleteSetError: no shard exists yet.
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
        return ReportSample(list(_spread(labels, chosen, samples)), len(present))

    def read(self, sample: ReportSample) -> Iterator[ImageRecords]:
        """Read the sampled images from all sets. Memory: two shards, or one record, of each set."""
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
                    yield ImageRecords(number, records)

    def read_one(self, number: int) -> ImageRecords:
        """Read a single image, given by its number in the first set's plan."""
        key = self.first.plan.keys[number]
        places = [parent.numbers([key], number) for parent in self.sets]
        records = [self._record(which, [of_set[0] for of_set in found]) for which, found in enumerate(places)]
        return ImageRecords(number, records)

    def present(self) -> list[int]:
        """Return how many shards of each set exist."""
        return [labels.num_shards - len(self._missing(which)) for which, labels in enumerate(self.labels)]

    def _missing(self, which: int) -> set[int]:
        """Return the numbers of the missing shards of a set, which are listed once."""
        if which not in self._missing_shards:
            self._missing_shards[which] = set(self.labels[which].missing())
        return self._missing_shards[which]

    def _record(self, which: int, numbers: Sequence[int | None]) -> Record | None:
        """Read the record of an image, given by its numbers in the parts of a set; None if there is none.

        Raises:
            FormatError, StoreError: it cannot be read.
        """
        parent, number = self.sets[which], numbers[-1]
        if number is None or parent.plan.place(number)[0] in self._missing(which):
            return None
        # Images that are mixed in get the numbers that the first set has for them.
        record = parent.read(numbers, self.sets[0].last.find)
        if isinstance(record, Missing) or not record.num_crops:
            return None
        labels, target = self.labels[which], record.target
        classes, said = labels.num_classes, target if labels.targets_are_classes else None
        if record.num_classes != classes or (said is not None and said >= classes):
            raise RecordError(
                f"it has {record.num_classes} classes and the target {target}, but its set has {classes} classes",
                url=parent.url,
                key=record.key,
            )
        return record


def _spread(labels: LabelSet, shards: Sequence[int], samples: int) -> Iterator[tuple[int, list[int]]]:
    """Spread the samples evenly over the shards, and within each shard."""
    each = math.ceil(samples / len(shards))
    left = samples
    for shard in shards:
        start, size = int(labels.plan.starts[shard]), int(labels.plan.shard_sizes[shard])
        count = size if int(labels.plan.shard_sizes[list(shards)].sum()) <= samples else min(each, size, left)
        left -= count
        if count:
            yield shard, [start + at * size // count for at in range(count)]


def short_names(urls: Sequence[str]) -> list[str]:
    """Return the last parts of URLs, as many as make them distinct; whole URLs with numbers if two are the same."""
    parts = [url.rstrip("/").split("/") for url in urls]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(urls, 1)]
