"""Images of a folder under the student's own evaluation transform; each process takes its part of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slg_wds.config import SourceConfig, parse_store_options
from slg_wds.errors import NoSplitError
from slg_wds.format.manifest.plan import Plan
from slg_wds.images import ImageSource, open_source
from slg_wds.images.planned import planned_images
from slg_wds.images.tars.files import names_tars
from slg_wds.teachers import Preprocessing, eval_transform
from slg_wds.training.flags import Settings
from slg_wds.training.processes import threads_of


def open_val(args: Settings) -> ImageSource | None:
    """Open the images of val; None where IMAGES has none, or names tars one by one: those are for training."""
    data = args.data
    if not data or names_tars(data) or not ("://" in data or Path(data).is_dir()):
        return None
    try:
        return open_split(args, "val")
    except NoSplitError:
        return None


def open_split(args: Settings, split: str) -> ImageSource:
    """Open the images of a split of IMAGES, with their targets.

    Raises:
        SlgWdsError: there is no such split, or it has no targets; it cannot be listed.
    """
    options = SourceConfig(
        split=split,
        store_options=parse_store_options(args.store_option),
        class_map=None if args.distills else args.class_map,
    )
    return open_source(args.data or "", options, need_targets=True)


class ImageBatch(NamedTuple):
    """Some images.

    Attributes:
        pixels: uint8 [N, 3, S, S].
        targets: int64 [N].
        numbers: int64 [N], of the images in the plan.
    """

    pixels: Tensor
    targets: Tensor
    numbers: Tensor


class PlannedImages:
    """The images of a plan that have a target.

    Args:
        args: the flags; a process takes every image whose number is its rank, modulo the processes.
        source: where they are.
        plan: which they are.
        preprocessing: how the student is shown them.
    """

    def __init__(self, args: Settings, source: ImageSource, plan: Plan, preprocessing: Preprocessing) -> None:
        self.args, self.source, self.plan = args, source, plan
        self.preprocessing, self.threads = preprocessing, threads_of(args)

    def __iter__(self) -> Iterator[ImageBatch]:
        wanted = np.flatnonzero(self.plan.targets >= 0)
        mine = wanted[wanted % self.args.ranks == self.args.rank]
        shown = partial(eval_transform, preprocessing=self.preprocessing)
        size = max(1, self.args.batch_size // self.args.ranks)
        with ThreadPoolExecutor(self.threads) as pool:
            images = planned_images(self.source, self.plan, mine, shown, pool, 4 * self.threads)
            while rows := list(itertools.islice(images, size)):
                numbers, pixels = zip(*rows, strict=True)
                targets = torch.tensor(self.plan.targets[list(numbers)], dtype=torch.int64)
                yield ImageBatch(torch.stack(pixels), targets, torch.tensor(numbers))
