"""Read one image's record, by its number or its key, without reading others."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, SupportsIndex

from slg_wds.errors import LabelSetError
from slg_wds.masking import masked

if TYPE_CHECKING:
    from slg_wds.format.records.record import Record
    from slg_wds.labelset.labelset import LabelSet


def number_of(labels: LabelSet, image: SupportsIndex | str) -> int:
    """Return the number of an image in the plan.

    Args:
        labels: the label set.
        image: the number (negative: from the end), or the image's key.

    Raises:
        IndexError, KeyError: no such image is planned.
        TypeError: it is neither, a slice for instance.
    """
    if isinstance(image, str):
        found = labels.key_numbers.find(image)
        if found is None:
            raise KeyError(f"no image of {masked(labels.url)} has the key {image!r}; {example_of(labels)}")
        return found
    if not hasattr(image, "__index__"):
        raise TypeError(f"an image is named by its key or by its number, one at a time, not by {image!r}")
    number, count = operator.index(image), len(labels)
    if not -count <= number < count:
        raise IndexError(f"image {number} of the {count} images of {masked(labels.url)}")
    return number % count


def has_labels(labels: LabelSet, key: str) -> bool:
    """Return whether `labels[key]` would find labels: the image is planned, its shard is there and did not omit it.

    Raises:
        FormatError, StoreError: the index cannot be read.
    """
    number = labels.key_numbers.find(key)
    if number is None:
        return False
    shard = labels.plan.place(number)[0]
    return labels.exists(shard) and key not in labels.index(shard).left_out


def example_of(labels: LabelSet) -> str:
    """Return a sentence that shows what keys of the set look like, for messages."""
    return f"keys are such as {labels.plan.keys[0]!r}" if len(labels) else "the set is empty"


def record_of(labels: LabelSet, number: int) -> Record:
    """Read the record of image `number` of the plan: the index of its shard, then one range of the shard.

    Raises:
        LabelSetError: the image was left out, or its shard does not exist yet.
        FormatError, StoreError: index or shard is damaged, or cannot be read.
    """
    shard = labels.plan.place(number)[0]
    key, name = labels.plan.keys[number], labels.shard_name(shard)
    if not labels.exists(shard):
        raise LabelSetError(
            "it is planned, but its shard is not there yet", url=labels.url, shard=name, key=key
        )
    index = labels.index(shard)
    if key in index.left_out:
        reasons = {entry["key"]: entry["reason"] for entry in labels.shard(shard).header.left_out}
        raise LabelSetError(f"it was left out: {reasons.get(key)}", url=labels.url, shard=name, key=key)
    record = labels.record(shard, index.positions(labels.plan.shard(shard).keys)[key], index)
    if record.key != key:
        raise LabelSetError(
            f"the index has the record of {record.key!r} in its place", url=labels.url, shard=name, key=key,
            hint="run slg-wds verify --fix",
        )  # fmt: skip
    return record
