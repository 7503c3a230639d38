"""Images of a folder under the student's own evaluation transform; each process takes its part of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from slg_wds.concurrency.prefetch import window
from slg_wds.format.manifest.plan import Plan
from slg_wds.images import ImageSource, decode
from slg_wds.teachers import Preprocessing, eval_transform
from slg_wds.training.flags import Settings


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
        threads: that decode.
    """

    def __init__(
        self, args: Settings, source: ImageSource, plan: Plan, preprocessing: Preprocessing, threads: int
    ) -> None:
        self.args, self.source, self.plan = args, source, plan
        self.preprocessing, self.threads = preprocessing, threads

    def __iter__(self) -> Iterator[ImageBatch]:
        size = max(1, self.args.batch_size // self.args.ranks)
        rows: list[tuple[Tensor, int, int]] = []
        with ThreadPoolExecutor(self.threads) as pool:
            for number, image in window(self._submitted(pool), 4 * self.threads):
                rows.append((image.result(), int(self.plan.targets[number]), number))
                if len(rows) == size:
                    yield _stacked(rows)
                    rows = []
        if rows:
            yield _stacked(rows)

    def _submitted(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, Future[Tensor]]]:
        for shard in range(self.plan.num_shards):
            part, read = self.plan.shard(shard), self.source.reader(self.plan, shard)
            for number in range(part.start, part.stop):
                if number % self.args.ranks == self.args.rank and self.plan.targets[number] >= 0:
                    yield number, pool.submit(self._image, read, number)

    def _image(self, read: Callable[[int], bytes], number: int) -> Tensor:
        return eval_transform(decode(read(number), path=self.plan.paths[number]), self.preprocessing)


def _stacked(rows: list[tuple[Tensor, int, int]]) -> ImageBatch:
    images, targets, numbers = zip(*rows, strict=True)
    return ImageBatch(torch.stack(images), torch.tensor(targets), torch.tensor(numbers))
