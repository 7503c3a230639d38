"""What every worker of one run shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from slg_wds.labels import LabelType
from slg_wds.transforms.crops import Boxes, CropRule, Flips, sample_crops

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from slg_wds.generation.reference import Reference
    from slg_wds.images import ImageSource
    from slg_wds.labelset.labelset import LabelSet
    from slg_wds.teachers import Ensemble


@dataclass(frozen=True)
class Embedding:
    """How images are put into the shards: as they are, or re-encoded to at most `max_side` pixels a side."""

    max_side: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class Recipe:
    """What decides the bytes of a shard, beside the images and the teachers."""

    label: LabelType
    coding: str
    num_crops: int
    num_seg: int
    tail_classes: int
    crop_rule: CropRule
    seed: int
    embedding: Embedding | None = None
    max_pixels: int = 67_108_864
    on_error: Literal["fail", "skip"] = "fail"
    extendable: bool = False

    @property
    def writes_tail(self) -> bool:
        """Whether records get a shared tail: hard has no values to go with one, full needs none."""
        return self.tail_classes > 0 and self.label.kind not in ("hard", "full")


@dataclass
class Job:
    """One run of labelling: what to make, from what, where, on what.

    most_left_out: images that the set may lack in the end, see `left_out.most_left_out`.
    """

    labels: LabelSet
    source: ImageSource
    teacher: Ensemble
    recipe: Recipe
    device: torch.device
    workers: int
    ahead: int
    threads_per_forward: int
    reference: Reference | None = None
    provenance: dict[str, object] = field(default_factory=dict)
    most_left_out: int = 0

    def crops(self, key: str, size: tuple[int, int]) -> tuple[Boxes, Flips]:
        """The boxes and flips of an image: drawn by the seed, or those of the reference set."""
        recipe = self.recipe
        if self.reference is not None:
            return self.reference.crops(key, size, recipe.num_crops)
        return sample_crops(recipe.seed, key, size, recipe.num_crops, recipe.crop_rule)

    def before(self, key: str) -> NDArray[np.float64] | None:
        """What the crops of an image in the set that is extended have outside their top-k, summed, float64 [C].

        None where nothing is extended, or what is extended does not say.
        """
        from slg_wds.generation.extension import Extension

        extends = self.recipe.extendable and isinstance(self.reference, Extension)
        return self.reference.outside(key) if extends else None  # type: ignore[union-attr]
