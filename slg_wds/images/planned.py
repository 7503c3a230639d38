"""Images of a plan, one after the other, read and decoded ahead in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from slg_wds.concurrency.prefetch import window
from slg_wds.format.manifest.plan import Plan
from slg_wds.images.header import MAX_PIXELS
from slg_wds.images.pixels import decode
from slg_wds.images.source import ImageSource

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def planned_images(
    source: ImageSource,
    plan: Plan,
    numbers: NDArray[np.int64],
    make: Callable[[torch.Tensor], T],
    pool: ThreadPoolExecutor,
    ahead: int,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[int, T]]:
    """Yield the number of each wanted image, and what `make` returns for its pixels.

    Args:
        source: where the images are.
        plan: the plan of the source.
        numbers: int64 [n], ascending: the wanted images, by their numbers in the plan.
        make: called in a thread with the pixels of an image, uint8 [3, H, W].
        pool: threads that read, decode and call `make`.
        ahead: how many images may be read and decoded before they are asked for.
        max_pixels: an image with more is an error.

    Raises:
        SlgWdsError: an image cannot be read or decoded.
    """

    def load(read: Callable[[int], bytes], number: int) -> T:
        return make(decode(read(number), max_pixels=max_pixels, path=plan.paths[number]))

    def submitted() -> Iterator[tuple[int, Future[T]]]:
        shards = plan.starts.searchsorted(numbers, "right") - 1
        for shard in np.unique(shards).tolist():
            read = source.reader(plan, shard)
            for number in numbers[shards == shard].tolist():
                yield number, pool.submit(load, read, number)

    for number, image in window(submitted(), ahead):
        yield number, image.result()
