"""What one worker of a run has open: images, teachers, the label set."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.errors import LabelSetError, ReferenceSetError
from slg_wds.generation.description import view_rule_of
from slg_wds.generation.extension import Extension
from slg_wds.generation.read_ahead import MOST
from slg_wds.generation.recipe import Recipe
from slg_wds.labelset.combining.renumbering import renumbered
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.policies.mixing import sample_mixing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slg_wds.config import GenerateConfig
    from slg_wds.generation.reference import Reference
    from slg_wds.images import ImageSource
    from slg_wds.images.targets import Targets
    from slg_wds.labelset.labelset import LabelSet
    from slg_wds.teachers import Ensemble
    from slg_wds.transforms.policies.rules import ViewRule


@dataclass(frozen=True)
class Job:
    """What a worker derives from the recipe: everything that is opened, loaded or counted before the first forward.

    Attributes:
        recipe: the run's options.
        labels: the label set to write into.
        source: the images.
        teacher: one teacher or several, loaded onto this worker's device.
        targets: which class of the labels each class folder is.
        reference: gives the crops instead of the seed; None to draw them all.
        provenance: what the trailer of each shard notes of how it was made.
        most_left_out: how many images the whole set may leave out; see `left_out.most_left_out`.
    """

    recipe: Recipe
    labels: LabelSet
    source: ImageSource
    teacher: Ensemble
    targets: Targets
    reference: Reference | None
    provenance: Mapping[str, object]
    most_left_out: int

    @property
    def config(self) -> GenerateConfig:
        """The run's options as they were given."""
        return self.recipe.config

    @property
    def extension(self) -> Extension | None:
        """The set that this run extends with further crops; None without --extend."""
        return self.reference if isinstance(self.reference, Extension) else None

    @property
    def num_seg(self) -> int:
        """Crops in one forward."""
        return self.config.crops_of_forward(self.teacher.device.type)

    @property
    def crops_each(self) -> int:
        """Crops to label of most images: all, or with --extend those that the extended set lacks."""
        return self.config.num_crops - (self.extension.labels.num_crops if self.extension else 0)

    @property
    def images_ahead(self) -> int:
        """Images to decode ahead of the teacher: as many as fill two forwards, but not more than --batch-size.

        At least 8, or a few images that take long would starve the teacher; at most 128, which bounds the memory that
        decoded images take.
        """
        fill = -(-2 * self.num_seg // max(self.crops_each, 1))
        return min(max(8, fill), self.config.batch_size or 128)

    @property
    def reads_ahead(self) -> int:
        """Images that may be read from a slow source before they are decoded: what --batch-size leaves, at most 128."""
        most = self.config.batch_size
        return MOST if most is None else max(0, min(MOST, most - self.images_ahead))

    @cached_property
    def view_rule(self) -> ViewRule | None:
        """How it is drawn what is done to crops after they are cut; None for nothing."""
        return view_rule_of(self.recipe, self.teacher)

    @property
    def crops_of(self) -> Reference | None:
        """What gives the crops, with --extend all of them; None where they are drawn by the seed."""
        return self.extension.crops_of if self.extension else self.reference

    @property
    def mixes(self) -> bool:
        """Whether second views are mixed into crops."""
        return self.recipe.mix_rule is not None or (self.crops_of is not None and self.crops_of.has_mixing)

    def crops(self, number: int, size: tuple[int, int]) -> DrawnCrops:
        """Return the crops of an image: drawn by the seed, or those of the reference.

        Args:
            number: the image's number in the plan.
            size: its (height, width) in pixels.
        """
        config, plan = self.config, self.labels.plan
        key = plan.keys[number]
        if self.crops_of is not None:
            return self._in_plan(self.crops_of, self.crops_of.crops(key, size, config.num_crops))
        rules = (self.recipe.crop_rule, self.view_rule)
        drawn = DrawnCrops.draw(config.seed, key, size, config.num_crops, *rules)
        return self._mixed(drawn, number)

    def crops_to_label(self, number: int, size: tuple[int, int], drawn: DrawnCrops) -> DrawnCrops:
        """Return those of an image's crops that are labelled: all, or with --extend those that the extended set lacks.

        Args:
            number: the image's number in the plan.
            size: its (height, width) in pixels.
            drawn: all of its crops, from `crops`.

        Raises:
            ImageError, ReferenceSetError: the extended set has other crops of this image, or had it in another size.
        """
        extension, keys = self.extension, self.labels.plan.keys
        if extension is None or not extension.has_labels(keys[number]):
            return drawn
        stored = extension.crops(keys[number], size, extension.labels.num_crops)
        return extension.lacking(keys[number], drawn, self._in_plan(extension, stored), keys)

    def _in_plan(self, reference: Reference, crops: DrawnCrops) -> DrawnCrops:
        """Return crops of a reference whose partners have their numbers in the plan of this run.

        Raises:
            ReferenceSetError: a partner is not planned.
        """
        try:
            views = renumbered(crops.views, reference.keys, self._find, reference.url)
        except LabelSetError as error:
            hint = "label all images of that set, since they are mixed into each other's views"
            raise ReferenceSetError(error.message, url=reference.url, hint=hint) from None
        return replace(crops, views=views)

    def _find(self, key: str, near: int) -> int | None:
        keys = self.labels.plan.keys
        return near if near < len(keys) and keys[near] == key else self.labels.key_numbers.find(key)

    def _mixed(self, drawn: DrawnCrops, number: int) -> DrawnCrops:
        """Draw what is mixed into the crops of an image."""
        plan, rule = self.labels.plan, self.recipe.mix_rule
        if rule is None or drawn.views is None:
            return drawn
        part = plan.shard(plan.place(number)[0])
        images = range(part.start, part.stop)
        mixing = sample_mixing(self.config.seed, plan.keys[number], len(drawn), rule, number, images)
        return replace(drawn, views=replace(drawn.views, mixing=mixing))

    def products(self) -> contextlib.AbstractContextManager[None]:
        """Return the block in which labels are made: where they are low-rank, with one thread for numpy's products."""
        low_rank = self.recipe.max_kl or self.config.min_cosine
        return one_blas_thread() if low_rank else contextlib.nullcontext()

    def earlier_tail_sums(self, key: str) -> NDArray[np.float64] | None:
        """Return an image's tail sums in the set that this run extends, float64 [C].

        They are the probability outside the top-k, summed over the crops of that set. None where the run extends no
        set, or does not keep sums.
        """
        extension = self.extension if self.config.extendable else None
        return extension.tail_sums(key) if extension else None
