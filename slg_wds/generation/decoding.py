"""Read and decode the images of shards in threads, ahead of the teacher, and draw their crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.concurrency.prefetch import window
from slg_wds.errors import ImageError, ReferenceSetError
from slg_wds.generation.job import Job
from slg_wds.generation.opening import LeftOut, Opened, OpenedImages, left_out
from slg_wds.generation.read_ahead import Read, ReadAhead
from slg_wds.transforms.drawn import DrawnCrops, Partner

if TYPE_CHECKING:
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
        partners: the images that are mixed into its crops, by their numbers in the plan.
        unmixed: how many crops stay unmixed since their partner is left out.
    """

    number: int
    path: str
    pixels: torch.Tensor
    crops: DrawnCrops
    stored: bytes | None
    crc32: int
    source_crc32: int | None = None
    earlier_tail_sums: NDArray[np.float64] | None = None
    partners: Mapping[int, Partner] = field(default_factory=dict)
    unmixed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def cut(self, crops: slice, out: torch.Tensor, interpolation: str) -> None:
        """Make the pixels of some crops as the teacher sees them; `out` and `interpolation` as for `DrawnCrops.cut`."""
        self.crops[crops].cut_mixed(self.pixels, out, interpolation, self.partners)


@dataclass(frozen=True)
class ShardEnd:
    """Mark that all images of a shard have been yielded."""

    shard: int


Item = Prepared | LeftOut | ShardEnd


def prepare(job: Job, images: OpenedImages, number: int, read: Read) -> Prepared | LeftOut:
    """Open one image, and those that are mixed into its crops.

    Args:
        job: what the worker has open.
        images: opens images.
        number: the image's number in the plan.
        read: returns the bytes of an image by its number.

    Returns:
        The image, or the reason to leave it out; see `open_image`. It raises the same errors.
    """
    opened, key = images.open(number, read), job.labels.plan.keys[number]
    if isinstance(opened, LeftOut):
        return opened
    try:
        drawn = job.crops_to_label(number, opened.size, opened.drawn)
    except (ImageError, ReferenceSetError) as error:
        return left_out(job, number, error)
    crops, partners, unmixed = _with_partners(drawn, images, key)
    return Prepared(
        number,
        job.labels.plan.paths[number],
        opened.pixels,
        crops,
        stored=opened.data if job.recipe.stored_images is not None else None,
        crc32=opened.crc32,
        source_crc32=opened.source_crc32,
        earlier_tail_sums=job.earlier_tail_sums(key),
        partners=partners,
        unmixed=unmixed,
    )


def _with_partners(
    drawn: DrawnCrops, images: OpenedImages, key: str
) -> tuple[DrawnCrops, dict[int, Partner], int]:
    """Return crops with the images that are mixed into them, and how many stay unmixed since their partner is left out.

    Raises:
        ReferenceSetError: a partner lacks the crop that is mixed in. --on-error skip does not cover this, since the
            image of this key may be mixed into others itself.
    """
    mixing = drawn.mixing
    if mixing is None:
        return drawn, {}, 0
    found = {number: images.open(number) for number in mixing.partners().tolist()}
    partners = {
        number: Partner(one.pixels, one.drawn) for number, one in found.items() if isinstance(one, Opened)
    }
    for number, partner in partners.items():
        if int(mixing.crop[mixing.partner == number].max()) >= len(partner.crops):
            raise ReferenceSetError(
                "a crop of another image is mixed in that is not among the first --num-crops", key=key
            )
    lost = [number for number in found if number not in partners]
    return drawn.without_partners(lost), partners, int(np.isin(mixing.partner, lost).sum())


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
    ahead, images = ReadAhead(job.reads_ahead), OpenedImages(job)
    try:
        for shard in shards:
            part = job.labels.plan.shard(shard)
            reads = ahead.reads(range(part.start, part.stop), job.source.reader(job.labels.plan, shard))
            tasks = (pool.submit(prepare, job, images, number, read) for number, read in reads)
            for task in window(tasks, job.images_ahead):
                yield task.result()
            yield ShardEnd(shard)
    finally:
        ahead.close()
