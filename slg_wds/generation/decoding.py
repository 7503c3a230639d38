"""Read and decode the images of shards in threads, ahead of the teacher, and draw their crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal.isal_zlib import crc32 as crc32_of

from slg_wds.concurrency.prefetch import window
from slg_wds.errors import ImageChangedError, ImageError, ImageGoneError, ReferenceSetError, StoreError
from slg_wds.generation.job import Job
from slg_wds.generation.read_ahead import Read, ReadAhead
from slg_wds.generation.recipe import Recipe
from slg_wds.images import decode, reencode
from slg_wds.images.gone import LATER
from slg_wds.transforms.drawn import DrawnCrops

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prepared:
    """An image that is ready to be cut.

    Attributes:
        number: its number in the plan.
        path: its path in the plan.
        pixels: uint8 [3, H, W].
        crops: its M crops.
        stored: the bytes to embed; None where images are not embedded.
        crc32: CRC-32 of the image file that is labelled.
        source_crc32: CRC-32 of the source file, if a smaller copy of it is labelled; else None.
        earlier_tail_sums: float64 [C]; see `Job.earlier_tail_sums`.
    """

    number: int
    path: str
    pixels: torch.Tensor
    crops: DrawnCrops
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
    """An image that `--on-error skip` leaves out, by its number in the plan, and the reason."""

    number: int
    reason: str


@dataclass(frozen=True)
class ShardEnd:
    """Mark that all images of a shard have been yielded."""

    shard: int


Item = Prepared | LeftOut | ShardEnd


def prepare(job: Job, number: int, read: Read) -> Prepared | LeftOut:
    """Read and decode one image and draw its crops.

    Args:
        job: what the worker has open.
        number: the image's number in the plan.
        read: returns the bytes of an image by its number.

    Returns:
        The image, or with --on-error skip the reason to leave it out: it cannot be decoded, is gone from its folder, or
        has no crops in the reference.

    Raises:
        ImageError, ReferenceSetError: the same problems with --on-error fail.
        ImageChangedError: the file is not the one that the extended set has labels of. Never skipped.
        StoreError, ImageSourceError: the image cannot be read. The image is not at fault, so the run stops and can be
            resumed.
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
        crops = job.crops(key, (pixels.shape[1], pixels.shape[2]))
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
        crops,
        stored=data if job.recipe.embedding is not None else None,
        crc32=crc32_of(data),
        source_crc32=crc32_of(source) if data != source else None,
        earlier_tail_sums=job.earlier_tail_sums(key),
    )


def _copy(recipe: Recipe, source: bytes, path: str) -> bytes:
    """Return the image file to label: the smaller copy if one is embedded, else the source itself."""
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
    # The plan says where in a tar an image lies, and a mended image would lie elsewhere.
    return f"mend it, or {skip}" if source == "folder" else skip


def prepared_images(job: Job, shards: Iterable[int], pool: ThreadPoolExecutor) -> Iterator[Item]:
    """Yield the images of shard after shard in plan order, with up to `job.images_ahead` decoded in advance.

    Beyond these, a source that answers slowly is asked for up to `job.reads_ahead` more.

    The next shard is taken from `shards` only after the last image of the current one was yielded. A shard that is
    claimed long before it is made would often be made by another process too. The device stays busy meanwhile, with the
    batches that are already cut.

    Args:
        job: what the worker has open.
        shards: numbers of the shards to make; taking one claims it.
        pool: threads that read and decode.

    Yields:
        Images, images to leave out, and the end of each shard.
    """
    ahead = ReadAhead(job.reads_ahead)
    try:
        for shard in shards:
            part = job.labels.plan.shard(shard)
            reads = ahead.reads(range(part.start, part.stop), job.source.reader(job.labels.plan, shard))
            tasks = (pool.submit(prepare, job, number, read) for number, read in reads)
            for task in window(tasks, job.images_ahead):
                yield task.result()
            yield ShardEnd(shard)
    finally:
        ahead.close()
