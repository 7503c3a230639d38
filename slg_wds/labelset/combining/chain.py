"""A label set and the sets that extend it, read image by image as one set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slg_wds.format.records.record import Record
from slg_wds.images import image_extension
from slg_wds.labelset.combining.joining import join_records
from slg_wds.labelset.combining.renumbering import Find, renumbered
from slg_wds.labelset.keyed import KeyedSet, Missing
from slg_wds.labelset.labelset import LabelSet


class SetChain:
    """A set that extends none, and those that extend it, in order.

    Args:
        sets: the sets.

    Attributes:
        chain: the same, each with its records by key.
        plan: the plan of the last set of the chain, which has every image.
        identity: the identity of that set.
        url: the URL of that set.
    """

    def __init__(self, sets: Sequence[LabelSet]) -> None:
        self.chain = [KeyedSet(labels) for labels in sets]
        last = sets[-1]
        self.plan, self.identity, self.url = last.plan, last.identity, last.url

    @property
    def last(self) -> KeyedSet:
        """The last set of the chain, which plans every image."""
        return self.chain[-1]

    @property
    def labels(self) -> LabelSet:
        """The same, as the set itself."""
        return self.last.labels

    def numbers(self, keys: Sequence[str], near: int) -> list[list[int | None]]:
        """Find images, and announce to each set of the chain that they are read next.

        Args:
            keys: the images' keys.
            near: where the first one probably is in the plan.

        Returns:
            For each set of the chain, the images' numbers in its plan; None for an image that it does not have.
        """
        found = [[keyed.find(key, near + i) for i, key in enumerate(keys)] for keyed in self.chain]
        for keyed, numbers in zip(self.chain, found, strict=True):
            keyed.prepare(number for number in numbers if number is not None)
        return found

    def read(self, numbers: Sequence[int | None], find: Find | None = None) -> Record | Missing:
        """Return the record of an image, with the crops of all sets of the chain.

        Args:
            numbers: the image's number in each of the sets; None where it has none.
            find: gives images that are mixed in their numbers in the plan of the result; None for that of the chain's
                last set.
        """
        found = [
            _in_plan(keyed, keyed.read(number), find or self.last.find)
            for keyed, number in zip(self.chain, numbers, strict=True)
            if number is not None
        ]
        if isinstance(found[-1], Missing):
            return found[-1]
        # If the set that is extended left an image out, the set that extends it has all crops of the image.
        parts = [part for part in found if not isinstance(part, Missing)]
        return join_records(parts, self.labels)

    def code(self, numbers: Sequence[Sequence[int | None]]) -> Iterator[Mapping[str, Any]]:
        """Yield what the shards of some images note of private teachers' code, given what `numbers` returned."""
        for keyed, of_set in zip(self.chain, numbers, strict=True):
            yield from keyed.code(of_set)

    def image(self, numbers: Sequence[int | None]) -> tuple[bytes, str] | None:
        """Return the embedded image file and its extension; None where there is none. `numbers` as for `read`."""
        number = numbers[-1]
        data = self.last.image(number) if number is not None else None
        return None if data is None else (data, image_extension(data))


def _in_plan(keyed: KeyedSet, record: Record | Missing, find: Find) -> Record | Missing:
    """Return a record of a set in which partners have their numbers in the plan of the result."""
    if isinstance(record, Missing) or not keyed.labels.has_mixing:
        return record
    labels = keyed.labels
    return dataclasses.replace(record, views=renumbered(record.views, labels.plan.keys, find, labels.url))
