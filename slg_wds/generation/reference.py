"""Crops taken from existing labels, so that another teacher sees exactly the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import InteropError, LabelFileError, NotALabelSetError, ReferenceSetError
from slg_wds.format.records.record import Record
from slg_wds.interop.fkd import (
    LARGE,
    FkdLabels,
    LabelFolder,
    cut_boxes,
    open_label_folder,
    read_label_file,
    stem_of_key,
)
from slg_wds.labelset.combining.joining import refuse_extending
from slg_wds.labelset.keyed import KeyedSet
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location
from slg_wds.transforms.drawn import DrawnCrops


class Reference(Protocol):
    """Existing labels that give the crops of images."""

    @property
    def url(self) -> str:
        """Where the labels lie."""

    @property
    def identity(self) -> str:
        """What the identity of a run says of its reference."""

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of images that the reference has no crops of.

        Call this once, with the keys of all images, before `crops`.
        """

    @property
    def keys(self) -> Sequence[str]:
        """The keys of its plan, in which the partners of mixed crops are numbered."""

    @property
    def has_views(self) -> bool:
        """Whether more is done to the crops than cutting and mirroring."""

    @property
    def has_mixing(self) -> bool:
        """Whether second views are mixed into the crops."""

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> DrawnCrops:
        """Return the first crops of an image.

        Args:
            key: the image's key.
            size: its (height, width) in pixels.
            num_crops: how many crops.

        Raises:
            ReferenceSetError: the reference has no or too few crops of the image, or its image had another size.
        """

    def check_image(self, key: str, data: bytes) -> None:
        """Compare an image file with the one that the reference has labels of, if the two must be the same.

        Raises:
            ImageChangedError: they differ.
        """


def open_reference(location: Location, num_crops: int, strict: bool = False) -> Reference:
    """Open a label set, or a folder of FKD's label files, to take crops from it.

    Args:
        location: where it lies.
        num_crops: how many crops of each image are needed.
        strict: whether a label file without these crops is an error wherever it is read.

    Raises:
        ReferenceSetError: the label set has fewer crops.
        NotALabelSetError: there is neither a label set nor a label file.
    """
    try:
        labels = labels_at(location, embeddings=True)  # for its crops, which any set has
        refuse_extending(labels)
        return SetReference(labels, num_crops)
    except NotALabelSetError as error:
        try:
            return FkdReference(open_label_folder(location), num_crops if strict else None)
        except InteropError:
            raise error from None


class SetReference:
    """A label set as the reference. Records are read one by one by byte range, never a whole shard.

    Args:
        labels: the label set.
        num_crops: how many crops of each image are needed.

    Raises:
        ReferenceSetError: the set has fewer crops.
    """

    def __init__(self, labels: LabelSet, num_crops: int) -> None:
        if labels.num_crops < num_crops:
            raise ReferenceSetError(
                f"the reference has {counted(labels.num_crops, 'crop')} an image, fewer than the {num_crops} asked for",
                url=labels.url,
                hint=f"give --num-crops {labels.num_crops} or fewer",
            )
        self.labels, self.keyed = labels, KeyedSet(labels)
        self._record = lru_cache(maxsize=64)(self._read_record)  # of an image it is asked for more than once

    @property
    def url(self) -> str:
        """The label set's URL."""
        return self.labels.url

    @property
    def identity(self) -> str:
        """The set's digest."""
        return self.labels.digest

    @property
    def has_views(self) -> bool:
        """Whether more is done to the set's crops than cutting and mirroring."""
        return self.labels.has_views

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the set's plan."""
        return self.labels.plan.keys

    @property
    def has_mixing(self) -> bool:
        """Whether second views are mixed into the set's crops."""
        return self.labels.has_mixing

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys that are not in the set's plan."""
        return [key for key in keys if self.keyed.find(key) is None]

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> DrawnCrops:
        """Return the first crops of an image; see `Reference.crops`."""
        record = self._record(key)
        if record.size != size:
            raise ReferenceSetError(
                f"the reference saw {record.size[0]} x {record.size[1]} pixels, the image has {size[0]} x {size[1]}",
                url=self.labels.url,
                key=key,
            )
        return DrawnCrops.of(record)[:num_crops]

    def check_image(self, key: str, data: bytes) -> None:
        """Accept any file: new labels are of the run's own copy of the image, and record its checksum."""

    def _read_record(self, key: str) -> Record:
        number = self.keyed.labelled(key)
        record = None if number is None else self.keyed.read(number)
        if not isinstance(record, Record):
            raise ReferenceSetError("the reference has no crops of this image", url=self.labels.url, key=key)
        return record


class FkdReference:
    """FKD's label files as the reference, with boxes as FKD's reader cuts them. A file is read when it is needed.

    Args:
        folder: the label files.
        least_crops: crops that every file must have whose bytes are part of the identity; None where such a file may
            be bad, and its image is left out.
    """

    def __init__(self, folder: LabelFolder, least_crops: int | None = None) -> None:
        self._folder, self._least_crops = folder, least_crops
        self._usable: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        """The URL of the folder of label files."""
        return self._folder.url

    @property
    def identity(self) -> str:
        """The digest of the images' label files. Call `missing` first: it finds which ones these are.

        Raises:
            ReferenceSetError: a file that is part of it is bad. It can then be mended before a set is begun.
        """
        try:
            return f"fkd:{self._folder.digest(self._check if self._least_crops else None)}"
        except LabelFileError as error:
            raise ReferenceSetError(error.message, hint=error.hint, url=error.url, key=error.key) from None

    def _check(self, name: str, data: bytes) -> None:
        """Raise LabelFileError for a file of an image of this run that has not the crops asked for."""
        if name in self._usable:
            _boxes(read_label_file(data), LARGE, self._least_crops or 0)

    @property
    def has_views(self) -> bool:
        """Label files hold boxes and flips alone."""
        return False

    @property
    def keys(self) -> Sequence[str]:
        """Label files name no other images."""
        return ()

    @property
    def has_mixing(self) -> bool:
        """Label files hold boxes and flips alone."""
        return False

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of images without a label file of their own.

        FKD names files by the end of a path, cut at the first dot, so images may share one label file.
        """
        stems = [stem_of_key(key) for key in keys]
        self._folder.match(stems)
        names = [self._folder.name(stem) for stem in stems]
        counts = Counter(names)
        self._usable = frozenset(name for name in self._folder.files if counts[name] == 1)
        return [key for key, name in zip(keys, names, strict=True) if name not in self._usable]

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> DrawnCrops:
        """Return the first crops of an image; see `Reference.crops`."""
        name = self._folder.name(stem_of_key(key))
        place = {"url": self.url, "key": key}
        if name not in self._usable:
            raise ReferenceSetError(
                "the reference has no label file of this image, or one that it shares with others", **place
            )
        try:
            read = self._folder.read(name)
            return DrawnCrops(_boxes(read, size, num_crops), read.flips)[:num_crops]
        except InteropError as error:
            raise ReferenceSetError(f"{name}: {error.message}", **place) from None

    def check_image(self, key: str, data: bytes) -> None:
        """Accept any file: label files do not say which image file they are of."""


def _boxes(read: FkdLabels, size: tuple[int, int], num_crops: int) -> NDArray[np.int64]:
    """Return the boxes of a label file. Raise LabelFileError where they are too few, or one has no pixel."""
    boxes = cut_boxes(read.coords, size).boxes
    if len(boxes) < num_crops:
        raise LabelFileError(
            f"the reference has {counted(len(boxes), 'crop')} of this image, fewer than the {num_crops} asked for"
        )
    return boxes
