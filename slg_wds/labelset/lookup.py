"""One image of a label set, by its place or its key, without reading the others."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, SupportsIndex

from slg_wds.errors import LabelSetError
from slg_wds.masking import masked

if TYPE_CHECKING:
    from slg_wds.format.records.record import Record
    from slg_wds.labelset.labelset import LabelSet


def number_of(labels: LabelSet, image: SupportsIndex | str) -> int:
    """The number of an image in the plan, given that (negative: from the end) or its key.

    Raises IndexError, KeyError for an image that is not planned.
    """
    if isinstance(image, str):
        found = labels.key_numbers.find(image)
        if found is None:
            raise KeyError(f"no image of {masked(labels.url)} has the key {image!r}; {example_of(labels)}")
        return found
    number, count = operator.index(image), len(labels)
    if not -count <= number < count:
        raise IndexError(f"image {number} of the {count} images of {masked(labels.url)}")
    return number % count


def example_of(labels: LabelSet) -> str:
    """What keys of the set look like."""
    return f"keys are such as {labels.plan.keys[0]!r}" if len(labels) else "the set is empty"


def record_of(labels: LabelSet, number: int) -> Record:
    """Read the record of image `number` of the plan, by one range read beside the shard's index.

    Raises LabelSetError for an image that has no labels (yet), FormatError, StoreError.
    """
    shard = labels.plan.place(number)[0]
    key, name = labels.plan.keys[number], labels.shard_name(shard)
    if not labels.exists(shard):
        raise LabelSetError(
            "it is planned, and its shard is not there yet", url=labels.url, shard=name, key=key
        )
    index = labels.index(shard)
    if key in index.left_out:
        reasons = {entry["key"]: entry["reason"] for entry in labels.shard(shard).header.left_out}
        raise LabelSetError(f"it was left out: {reasons.get(key)}", url=labels.url, shard=name, key=key)
    record = labels.record(shard, index.positions(labels.plan.shard(shard).keys)[key], index)
    if record.key != key:
        raise LabelSetError(
            f"its place in the index is that of {record.key!r}", url=labels.url, shard=name, key=key,
            hint="run slg-wds verify --fix",
        )  # fmt: skip
    return record
