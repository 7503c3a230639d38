"""Crops that an existing label set lacks: `generate --num_crops 700 --extend URL` makes 500..699 of a set with 500."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import IdentityMismatchError, ImageError, ReferenceSetError, UsageError
from slg_wds.format.records.record import decode_tail_sums
from slg_wds.generation.reference import Reference, SetReference
from slg_wds.images import LabelledImage
from slg_wds.labelset.creating import identity_differences
from slg_wds.labelset.labelset import LabelSet
from slg_wds.transforms.crops import Boxes, CropRule, Flips, sample_crops

# What the set that extends may have otherwise than the one that it extends.
_MAY_DIFFER = ("num_crops", "extends")


class Extension(SetReference):
    """The further crops of each image of a set, and all crops of images that are new.

    crops_of: the reference set whose crops are used, None where they are drawn.
    Raises UsageError where the set has as many crops as asked already.
    """

    def __init__(
        self, labels: LabelSet, num_crops: int, seed: int, rule: CropRule, crops_of: Reference | None
    ) -> None:
        if labels.num_crops >= num_crops:
            raise UsageError(
                f"the set to extend has {counted(labels.num_crops, 'crop')} an image, "
                f"and --num_crops asks for {num_crops}",
                hint="ask --num_crops for the total, as in 700 to add 200 to 500",
            )
        super().__init__(labels, labels.num_crops)
        self._seed, self._rule, self.crops_of = seed, rule, crops_of

    @property
    def described(self) -> dict[str, Any]:
        """What the identity of the set that extends says of it."""
        return {"digest": self.labels.digest, "first_crop": self.labels.num_crops}

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys whose crops cannot be known: those that a reference set lacks, where one is used too."""
        return self.crops_of.missing(keys) if self.crops_of else []

    def holds(self, key: str) -> bool:
        """Whether the set has labels of an image: it is planned, and not left out."""
        number = self._find(key)
        return number is not None and key in self._index(self.labels.plan.place(number)[0])[1]

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise IdentityMismatchError, naming each difference, for labels that would be made otherwise."""
        found = [
            line
            for line in identity_differences(self.labels.description, identity)
            if line.partition(":")[0].partition(".")[0] not in _MAY_DIFFER
        ]
        if found:
            raise IdentityMismatchError(
                f"the set to extend was made otherwise: {'; '.join(found)}",
                url=self.labels.url,
                hint="give the options that made it",
            )

    def crops(self, key: str, size: tuple[int, int], num_crops: int) -> tuple[Boxes, Flips]:
        """The crops of an image that the set lacks.

        Raises ImageError where what the set has does not go with the image: it is another one of that name by now.
        """
        if self.crops_of is not None:
            boxes, flips = self.crops_of.crops(key, size, num_crops)
        else:
            boxes, flips = sample_crops(self._seed, key, size, num_crops, self._rule)
        if not self.holds(key):
            return boxes, flips
        there, there_flips = self._stored(key, size)
        first = self.labels.num_crops
        begun = slice(first - len(there), first)  # a set that itself extends one has only its own crops
        if not (np.array_equal(boxes[begun], there) and np.array_equal(flips[begun], there_flips)):
            raise ImageError("its crops in the set to extend are others than those drawn now", key=key)
        return boxes[first:], flips[first:]

    def check_image(self, key: str, data: bytes) -> None:
        """Raise ImageChangedError where the set's labels of the image are of another file."""
        if self.holds(key):
            LabelledImage.of(self._record(key)).check(data)

    def tail_sums(self, key: str) -> NDArray[np.float64] | None:
        """What all crops of an image up to here have outside their top-k, summed; None where it is new.

        Raises ReferenceSetError where the set's records do not say.
        """
        number = self._find(key)
        if number is None or not self.holds(key):
            return None
        shard = self.labels.plan.place(number)[0]
        index, positions = self._index(shard)
        found = decode_tail_sums(self.labels.record_bytes(shard, positions[key], index))
        if found is None:
            raise ReferenceSetError("its record has no sums to extend", url=self.labels.url, key=key)
        return found

    def _stored(self, key: str, size: tuple[int, int]) -> tuple[Boxes, Flips]:
        return super().crops(key, size, self.labels.num_crops)
