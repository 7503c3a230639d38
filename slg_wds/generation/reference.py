"""Crops taken from an existing label set, so that another teacher sees exactly the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from slg_wds.console import counted
from slg_wds.errors import InteropError, NotALabelSetError, ReferenceSetError
from slg_wds.format.manifest.manifest import ShardIndex
from slg_wds.format.records.record import Record
from slg_wds.interop.fkd import LabelFolder, cut_boxes, open_label_folder, stem_of_key
from slg_wds.labelset.joining import refuse_alone
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.labelset import LabelSet, labels_at
from slg_wds.store import Location
from slg_wds.transforms.crops import Boxes, Flips


class Reference(Protocol):
    """Boxes and flips by image key."""

    @property
    def url(self) -> str:
        """Where they come from."""

    @property
    def identity(self) -> str:
        """What a run's identity says of its reference."""

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys that the reference has no crops of. Asked once, of all, before `crops`."""

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> tuple[Boxes, Flips]:
        """The first `num_crops` boxes int64 [M, 4] and flips bool [M] of an image of (height, width).

        Raises ReferenceSetError where the reference lacks the image or saw one of another size.
        """

    def check_image(self, key: str, data: bytes) -> None:
        """Raise ImageChangedError where the labels to come must be of the reference's own file, and are not."""


def open_reference(location: Location, num_crops: int) -> Reference:
    """Open a label set of ours, or a folder of FKD's label files, as a reference for so many crops.

    Raises ReferenceSetError where it has fewer, NotALabelSetError where it is neither.
    """
    try:
        labels = labels_at(location)
        refuse_alone(labels)
        return SetReference(labels, num_crops)
    except NotALabelSetError as error:
        try:
            return FkdReference(open_label_folder(location))
        except InteropError:
            raise error from None


class SetReference:
    """Boxes and flips of a label set. Records are read one by one by range, never a set or shard whole.

    Raises:
        ReferenceSetError: on opening, where the set has fewer crops than asked.
    """

    def __init__(self, labels: LabelSet, num_crops: int) -> None:
        if labels.num_crops < num_crops:
            raise ReferenceSetError(
                f"the reference has {counted(labels.num_crops, 'crop')} an image, fewer than the {num_crops} asked for",
                url=labels.url,
                hint=f"ask --num_crops {labels.num_crops} at most",
            )
        self.labels = labels
        self._numbers = KeyNumbers(labels.plan.keys)
        self._index = lru_cache(maxsize=64)(self._read_index)
        self._record = lru_cache(maxsize=64)(self._read_record)  # of an image it is asked for more than once

    @property
    def url(self) -> str:
        """The label set's place."""
        return self.labels.url

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
        record = self._record(key)
        if record.size != size:
            raise ReferenceSetError(
                f"the reference saw {record.size[0]} x {record.size[1]} pixels, the image has {size[0]} x {size[1]}",
                url=self.labels.url,
                key=key,
            )
        return record.crops[:num_crops], record.flips[:num_crops]

    def check_image(self, key: str, data: bytes) -> None:
        """Take any file: the labels to come are of their own copies of the images."""

    def _read_record(self, key: str) -> Record:
        number = self._find(key)
        shard = 0 if number is None else self.labels.plan.place(number)[0]
        index = None if number is None else self._index(shard)
        position = None if index is None else index[1].get(key)
        if index is None or position is None:
            raise ReferenceSetError("the reference has no crops of this image", url=self.labels.url, key=key)
        return self.labels.record(shard, position, index[0])

    def _find(self, key: str) -> int | None:
        return self._numbers.find(key)

    def _read_index(self, shard: int) -> tuple[ShardIndex, dict[str, int]]:
        index = self.labels.index(shard)
        return index, index.positions(self.labels.plan.shard(shard).keys)


class FkdReference:
    """Boxes and flips of FKD's label files, as FKD's reader would cut them from an image. Each is read when needed."""

    def __init__(self, folder: LabelFolder) -> None:
        self._folder = folder
        self._usable: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        """The folder of label files."""
        return self._folder.url

    @property
    def identity(self) -> str:
        """The digest of the folder, once `missing` has found the label files of the images."""
        return f"fkd:{self._folder.digest()}"

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys without a label file of their own; two keys that are one up to the first dot share theirs."""
        stems = [stem_of_key(key) for key in keys]
        self._folder.match(stems)
        counts = Counter(stems)
        self._usable = frozenset(stem for stem in self._folder.stems if counts[stem] == 1)
        return [key for key, stem in zip(keys, stems, strict=True) if stem not in self._usable]

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> tuple[Boxes, Flips]:
        """The first `num_crops` boxes int64 [M, 4] and flips bool [M] of an image.

        Raises ReferenceSetError where its label file is missing, has fewer crops or cannot be read.
        """
        stem = stem_of_key(key)
        place = {"url": self.url, "key": key}
        if stem not in self._usable:
            raise ReferenceSetError("the reference has no label file of this image alone", **place)
        try:
            read = self._folder.read(stem)
            boxes = cut_boxes(read.coords, size).boxes
        except InteropError as error:
            raise ReferenceSetError(f"{self._folder.name(stem)}: {error.message}", **place) from None
        if len(boxes) < num_crops:
            raise ReferenceSetError(
                f"the reference has {counted(len(boxes), 'crop')} of this image, fewer than the {num_crops} asked for",
                **place,
            )
        return boxes[:num_crops], read.flips[:num_crops]

    def check_image(self, key: str, data: bytes) -> None:
        """Take any file: label files do not say which they are of."""
