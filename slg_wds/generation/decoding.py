"""Images of a shard, read, decoded and given their crops in threads, ahead of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal.isal_zlib import crc32 as crc32_of

from slg_wds.concurrency.prefetch import window
from slg_wds.errors import ImageChangedError, ImageError, ImageGoneError, ReferenceSetError, StoreError
from slg_wds.generation.job import Job
from slg_wds.generation.recipe import Recipe
from slg_wds.images import decode, reencode
from slg_wds.images.gone import LATER
from slg_wds.transforms.crops import Boxes, Flips

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prepared:
    """An image ready to be cut: pixels uint8 [3, H, W], boxes int64 [M, 4], flips bool [M].

    earlier_tail_sums: see Job. crc32, source_crc32: image_crc32 and source_crc32 of its Record.
    """

    number: int
    path: str
    pixels: torch.Tensor
    boxes: Boxes
    flips: Flips
    stored: bytes | None
    crc32: int
    source_crc32: int | None = None
    earlier_tail_sums: NDArray[np.float64] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


@dataclass(frozen=True)
class LeftOut:
    """An image that `--on-error skip` leaves out, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class ShardEnd:
    """All images of a shard have come."""

    shard: int


Item = Prepared | LeftOut | ShardEnd


def prepare(job: Job, number: int, read: Callable[[int], bytes]) -> Prepared | LeftOut:
    """Read and decode image `number` of the plan and draw its crops.

    Bytes that are no image, an image that is gone from its folder, and one without crops in the reference are left
    out where the recipe says so; else they raise ImageError or ReferenceSetError. ImageChangedError is always raised:
    the image is another one than the set that is extended has labels of. Whatever cannot be read is no fault
    of the image: StoreError or ImageSourceError stops the run, which can be resumed.
    """
    plan = job.labels.plan
    path, key = plan.paths[number], plan.keys[number]
    config = job.config
    try:
        source = read(number)
        data = _copy(job.recipe, source, path)
        if job.reference is not None:
            job.reference.check_image(key, data)
        pixels = decode(data, max_pixels=config.max_pixels, path=path)
        boxes, flips = job.crops(key, (pixels.shape[1], pixels.shape[2]))
    except (ImageError, ReferenceSetError) as error:
        # A replaced image decodes, so skip does not cover it: the user has to learn that the images changed.
        if config.on_error == "fail" or isinstance(error, ImageChangedError):
            error.hint = error.hint or _hint(error, job.source.kind)
            raise error.located(key=path) from None
        return LeftOut(number, error.message)
    except StoreError as error:
        error.hint = error.hint or LATER
        raise error.located(key=path) from None
    return Prepared(
        number,
        path,
        pixels,
        boxes,
        flips,
        stored=data if job.recipe.embedding is not None else None,
        crc32=crc32_of(data),
        source_crc32=crc32_of(source) if data != source else None,
        earlier_tail_sums=job.earlier_tail_sums(key),
    )


def _copy(recipe: Recipe, source: bytes, path: str) -> bytes:
    """The image file to label: the smaller copy that is embedded, or the source as it is."""
    embedding = recipe.embedding
    if embedding is None or embedding.max_side is None:
        return source
    return reencode(
        source, embedding.max_side, embedding.quality, max_pixels=recipe.config.max_pixels, path=path
    )


def _hint(error: ImageError | ReferenceSetError, source: str) -> str:
    skip = "leave such images out with --on-error skip"
    if isinstance(error, ImageGoneError):
        return f"put it back, or {skip}"
    # An image in a tar is planned by its place there, which mending would move.
    return f"mend it, or {skip}" if source == "folder" else skip


def prepared_images(job: Job, shards: Iterable[int], pool: ThreadPoolExecutor) -> Iterator[Item]:
    """Yield the images of the shards in plan order; up to `job.images_ahead` of them are decoded in advance.

    The next shard is taken from `shards` only when all images of this one are handed on (its batches still keep the
    device busy then): a shard claimed long before it is made is one that another process makes too.
    """
    for shard in shards:
        read = job.source.reader(job.labels.plan, shard)
        part = job.labels.plan.shard(shard)
        numbers = range(part.start, part.stop)
        tasks = (pool.submit(prepare, job, number, read) for number in numbers)
        for task in window(tasks, job.images_ahead):
            yield task.result()
        yield ShardEnd(shard)
