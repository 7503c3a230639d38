"""Batches of images under the evaluation transforms of teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.concurrency.prefetch import window

if TYPE_CHECKING:
    import torch

    from slg_wds.config import TeacherConfig
    from slg_wds.format.manifest.plan import Plan
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Preprocessing

BATCH = 50  # images in one forward


def batches(
    config: TeacherConfig,
    source: ImageSource,
    plan: Plan,
    preprocessings: Sequence[Preprocessing],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Yield for each preprocessing a uint8 batch [N, 3, S, S], and the targets int64 [N].

    Args:
        config: says how large images may be, and how many are decoded ahead.
        source: where the images are.
        plan: which they are; those without a target are left out.
        preprocessings: of the teachers.
        pool: threads that decode.
    """
    from slg_wds.images import decode
    from slg_wds.teachers import eval_transform

    def load(number: int, read: Callable[[int], bytes]) -> list[torch.Tensor]:
        pixels = decode(read(number), max_pixels=config.max_pixels, path=plan.paths[number])
        return [eval_transform(pixels, preprocessing) for preprocessing in preprocessings]

    def submitted() -> Iterator[tuple[int, Future[list[torch.Tensor]]]]:
        for shard in range(plan.num_shards):
            part, read = plan.shard(shard), source.reader(plan, shard)
            for number in (np.flatnonzero(part.targets >= 0) + part.start).tolist():
                yield int(plan.targets[number]), pool.submit(load, number, read)

    rows: list[tuple[int, list[torch.Tensor]]] = []
    for target, image in window(submitted(), BATCH + (config.batch_size or BATCH)):
        rows.append((target, image.result()))
        if len(rows) == BATCH:
            yield _stacked(rows)
            rows = []
    if rows:
        yield _stacked(rows)


def _stacked(rows: list[tuple[int, list[torch.Tensor]]]) -> tuple[list[torch.Tensor], torch.Tensor]:
    import torch

    inputs = [torch.stack(images) for images in zip(*(images for _, images in rows), strict=True)]
    return inputs, torch.tensor([target for target, _ in rows])
