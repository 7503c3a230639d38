"""The images that are mixed into crops of a set, read by their records: to show crops to a teacher again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.errors import LabelSetError
from slg_wds.format.records.record import Record
from slg_wds.labelset.keyed import KeyedSet, Missing
from slg_wds.transforms.drawn import DrawnCrops, Partner

if TYPE_CHECKING:
    import torch

Decoded = Callable[[KeyedSet, int, Record], "torch.Tensor"]  # the pixels of a planned image


def mixed_views(keyed: KeyedSet, decoded: Decoded, record: Record) -> tuple[DrawnCrops, dict[int, Partner]]:
    """Return the crops of a record and the images that are mixed into them, as `DrawnCrops.cut_mixed` takes them.

    Args:
        keyed: the label set.
        decoded: returns the pixels of an image of the set.
        record: of an image, or of some of its crops.

    Raises:
        LabelSetError: a partner has no record, or not that crop: a set that extends another holds its own crops only.
    """
    crops = DrawnCrops.of(record)
    if crops.views is None or crops.views.mixing is None:
        return crops, {}
    mixing, partners = crops.views.mixing, {}
    first = np.zeros(len(crops), np.uint16)  # of the partner's crops, those before its record
    for number in mixing.partners().tolist():
        found, labels = keyed.read(number), keyed.labels
        if isinstance(found, Missing):
            raise LabelSetError(
                f"the set has no record of image {number}, mixed in", url=labels.url, key=record.key
            )
        at = mixing.partner == number
        first[at] = labels.num_crops - found.num_crops
        if (mixing.crop[at] < first[at]).any() or int(mixing.crop[at].max()) >= labels.num_crops:
            raise LabelSetError(
                f"the set lacks a crop of {found.key}, mixed in", url=labels.url, key=record.key
            )
        partners[number] = Partner(decoded(keyed, number, found), DrawnCrops.of(found))
    views = dataclasses.replace(crops.views, mixing=dataclasses.replace(mixing, crop=mixing.crop - first))
    return dataclasses.replace(crops, views=views), partners
