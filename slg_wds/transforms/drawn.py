"""The crops of an image, with all that is done to them: drawn by rules, or taken from a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.views import Views, same_views
from slg_wds.transforms.crops import CropRule, cut, sample_crops
from slg_wds.transforms.mixing import mix_partners
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.rules import ViewRule
from slg_wds.transforms.replaying import apply_views

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class DrawnCrops:
    """M crops of one image.

    Attributes:
        boxes: int64 [M, 4] of top, left, height, width in pixels.
        flips: bool [M], whether a crop is mirrored.
        views: what else is done to their pixels, [M]; None for nothing.
    """

    boxes: NDArray[np.int64]
    flips: NDArray[np.bool_]
    views: Views | None = None

    @classmethod
    def draw(
        cls,
        seed: int,
        key: str,
        size: tuple[int, int],
        num_crops: int,
        crop_rule: CropRule,
        view_rule: ViewRule | None,
    ) -> DrawnCrops:
        """Draw the first crops of an image; arguments as for `sample_crops` and `sample_views`."""
        views = None if view_rule is None else sample_views(seed, key, num_crops, view_rule)
        return cls(*sample_crops(seed, key, size, num_crops, crop_rule), views)

    @classmethod
    def of(cls, record: Record) -> DrawnCrops:
        """Return the crops of a record."""
        return cls(record.crops, record.flips, record.views)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> DrawnCrops:
        """Return some of the crops."""
        return DrawnCrops(self.boxes[at], self.flips[at], None if self.views is None else self.views[at])

    @property
    def mixing(self) -> Mixing | None:
        """What is mixed into the crops, [M]; None for nothing."""
        return None if self.views is None else self.views.mixing

    def without_partners(self, numbers: Sequence[int]) -> DrawnCrops:
        """Return the crops with nothing mixed in where it would be one of the images of these numbers in the plan."""
        if self.views is None or self.mixing is None:
            return self
        mixing = self.mixing.without(np.isin(self.mixing.partner, list(numbers)))
        return replace(self, views=replace(self.views, mixing=mixing))

    def same_as(self, other: DrawnCrops) -> bool:
        """Return whether these are the same crops, with the same done to them."""
        same = np.array_equal(self.boxes, other.boxes) and np.array_equal(self.flips, other.flips)
        return same and same_views(self.views, other.views)

    def cut(self, image: torch.Tensor, out: torch.Tensor, interpolation: str) -> None:
        """Make the pixels of the crops as a network sees them: cut, resized, mirrored, then changed, but never mixed.

        Args:
            image: uint8 [3, H, W].
            out: uint8 [M, 3, S, S], channels_last; receives the crops.
            interpolation: one of `crops.INTERPOLATIONS`.
        """
        cut(image, self.boxes, self.flips, out, interpolation)
        if self.views is not None:
            apply_views(out, self.views)

    def cut_mixed(
        self, image: torch.Tensor, out: torch.Tensor, interpolation: str, partners: Mapping[int, Partner]
    ) -> None:
        """Make the pixels of the crops as `cut` does, then mix their second views in.

        Args:
            image: uint8 [3, H, W].
            out: uint8 [M, 3, S, S], channels_last; receives the crops.
            interpolation: one of `crops.INTERPOLATIONS`.
            partners: the images that are mixed in, by their numbers in the plan.
        """
        self.cut(image, out, interpolation)
        if self.mixing is None:
            return

        def crops_of(number: int, crops: NDArray[np.int64]) -> torch.Tensor:
            second = out.new_empty((len(crops), *out.shape[2:], 3)).permute(0, 3, 1, 2)
            partners[number].crops[crops].cut(partners[number].pixels, second, interpolation)
            return second

        mix_partners(out, self.mixing, crops_of)


@dataclass(frozen=True)
class Partner:
    """An image that is mixed into crops of others.

    Attributes:
        pixels: uint8 [3, H, W].
        crops: all of its own crops, by their numbers; they are mixed in without their own mix.
    """

    pixels: torch.Tensor
    crops: DrawnCrops
