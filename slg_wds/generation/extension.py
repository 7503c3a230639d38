"""`generate --extend`: label only the crops that an existing label set lacks.

With --num-crops 700 and a set of 500 crops an image, these are crops 500 to 699.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import IdentityMismatchError, ImageError, ReferenceSetError, UsageError
from slg_wds.format.records.tail_sums import decode_tail_sums
from slg_wds.generation.reference import Reference, SetReference
from slg_wds.images import LabelledImage
from slg_wds.labelset.creating import identity_differences
from slg_wds.labelset.labelset import LabelSet
from slg_wds.transforms.drawn import DrawnCrops

# Fields of the identity in which the new set may differ from the set that it extends.
_MAY_DIFFER = ("num_crops", "extends")


class Extension(SetReference):
    """A label set that gets more crops: for its images those that it lacks, for new images all.

    Args:
        labels: the set to extend.
        num_crops: crops of each image in the end, those of the set included.
        crops_of: the reference that gives the crops; None where they are drawn.

    Raises:
        UsageError: the set has that many crops already.
    """

    def __init__(self, labels: LabelSet, num_crops: int, crops_of: Reference | None) -> None:
        if labels.num_crops >= num_crops:
            raise UsageError(
                f"the set to extend has {counted(labels.num_crops, 'crop')} an image, "
                f"and --num-crops is {num_crops}",
                hint="--num-crops is the total: give 700 to add 200 crops to 500",
            )
        super().__init__(labels, labels.num_crops)
        self.crops_of = crops_of

    @property
    def identity_field(self) -> dict[str, Any]:
        """What the new set's identity says of this set, in the field `extends`."""
        return {"digest": self.labels.digest, "first_crop": self.labels.num_crops}

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of images without crops: those that `crops_of` lacks; none where the seed draws the crops."""
        return self.crops_of.missing(keys) if self.crops_of else []

    def has_labels(self, key: str) -> bool:
        """Return whether the set has labels of an image. It has none of images that it did not plan or left out."""
        return self.keyed.labelled(key) is not None

    def count_labelled(self, keys: Sequence[str]) -> int:
        """Return of how many of these images the set has labels."""
        return len(set(self.labels.keys()).intersection(keys))

    def check(self, identity: Mapping[str, Any]) -> None:
        """Check that new labels are made as this set's labels were.

        Args:
            identity: the identity of the new set.

        Raises:
            IdentityMismatchError: they are not; the message names each difference.
        """
        found = [
            line
            for line in identity_differences(self.labels.description, identity)
            if line.partition(":")[0].partition(".")[0] not in _MAY_DIFFER
        ]
        if found:
            raise IdentityMismatchError(
                f"the set to extend was made with other options: {'; '.join(found)}",
                url=self.labels.url,
                hint="give the options that made it",
            )

    def lacking(
        self, key: str, drawn: DrawnCrops, stored: DrawnCrops, planned_keys: Sequence[str]
    ) -> DrawnCrops:
        """Return those of an image's crops that the set lacks.

        Args:
            key: the image's key.
            drawn: all crops of the image.
            stored: those that the set has.
            planned_keys: the keys of all images, by the numbers that both kinds of crops give their partners.

        Raises:
            ImageError: the set's own crops are not those drawn now, so its image had another size.
        """
        first = self.labels.num_crops
        own = slice(first - len(stored), first)  # a set that itself extends one has only its own crops
        if not self._as_then(drawn[own], planned_keys).same_as(stored):
            raise ImageError("the set to extend has other crops of this image than those drawn now", key=key)
        return drawn[first:]

    def _as_then(self, crops: DrawnCrops, keys: Sequence[str]) -> DrawnCrops:
        """Return crops as this set has them: it mixed in no image that it left out."""
        partners = [] if crops.mixing is None else crops.mixing.partners().tolist()
        return crops.without_partners([number for number in partners if not self.has_labels(keys[number])])

    def check_image(self, key: str, data: bytes) -> None:
        """Raise ImageChangedError if the set has labels of the image, and they were made from another file."""
        if self.has_labels(key):
            LabelledImage.of(self._record(key)).check(data)

    def tail_sums(self, key: str) -> NDArray[np.float64] | None:
        """Return the probability outside the top-k, summed over the crops of an image in this set, float64 [C].

        None where the set has no labels of the image.

        Raises:
            ReferenceSetError: the set's records hold no sums.
        """
        number = self.keyed.labelled(key)
        if number is None:
            return None
        found = decode_tail_sums(self.keyed.record_bytes(number))
        if found is None:
            raise ReferenceSetError(
                "the record of this image in the set to extend has no tail sums", url=self.labels.url, key=key
            )
        return found
