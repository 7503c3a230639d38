"""Batches of images under the evaluation transforms of teachers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from slg_wds.config import EvaluateConfig
    from slg_wds.format.manifest.plan import Plan
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Preprocessing


def batches(
    config: EvaluateConfig,
    source: ImageSource,
    plan: Plan,
    preprocessings: Sequence[Preprocessing],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Yield for each preprocessing a uint8 batch [N, 3, S, S], and the targets int64 [N].

    Args:
        config: says how many images a batch has, how large they may be, and how many are decoded ahead.
        source: where the images are.
        plan: which they are; those without a target are left out.
        preprocessings: of the teachers.
        pool: threads that decode.
    """
    import torch

    from slg_wds.images.planned import planned_images
    from slg_wds.teachers import eval_transform

    def inputs_of(pixels: torch.Tensor) -> list[torch.Tensor]:
        return [eval_transform(pixels, preprocessing) for preprocessing in preprocessings]

    wanted, rows = np.flatnonzero(plan.targets >= 0), config.images_of_forward
    ahead = rows + (config.batch_size or rows)
    images = planned_images(source, plan, wanted, inputs_of, pool, ahead, config.max_pixels)
    while batch := list(itertools.islice(images, rows)):
        numbers, inputs = zip(*batch, strict=True)
        targets = torch.tensor(plan.targets[list(numbers)], dtype=torch.int64)
        yield [torch.stack(of_teacher) for of_teacher in zip(*inputs, strict=True)], targets
