"""Read, check and decode one image and draw its crops; an image that is also mixed into others is decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal.isal_zlib import crc32 as crc32_of

from slg_wds.errors import ImageChangedError, ImageError, ImageGoneError, ReferenceSetError, StoreError
from slg_wds.format.shards.names import IMAGE_EXTS
from slg_wds.generation.job import Job
from slg_wds.generation.read_ahead import Read
from slg_wds.generation.recipe import Recipe
from slg_wds.images import decode, image_extension, reencode
from slg_wds.images.gone import LATER
from slg_wds.transforms.drawn import DrawnCrops

if TYPE_CHECKING:
    import torch

KEPT_BYTES = 1 << 29  # of pixels that are kept for views into which they are mixed


@dataclass(frozen=True)
class LeftOut:
    """An image that `--on-error skip` leaves out, by its number in the plan, and the reason."""

    number: int
    reason: str


@dataclass(frozen=True)
class Opened:
    """A decoded image.

    Attributes:
        data: the image file that is labelled: the source, or the smaller copy that is embedded.
        pixels: uint8 [3, H, W].
        drawn: all of its crops, those of an extended set included.
        crc32: CRC-32 of `data`.
        source_crc32: CRC-32 of the source file, if a smaller copy of it is labelled; else None.
    """

    data: bytes
    pixels: torch.Tensor
    drawn: DrawnCrops
    crc32: int
    source_crc32: int | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


def open_image(job: Job, number: int, read: Read) -> Opened | LeftOut:
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
    plan, config = job.labels.plan, job.config
    path = plan.paths[number]
    try:
        source = read(number)
        data = _copy(job.recipe, source, path)
        if job.reference is not None:
            job.reference.check_image(plan.keys[number], data)
        pixels = decode(data, max_pixels=config.max_pixels, path=path)
        drawn = job.crops(number, (pixels.shape[1], pixels.shape[2]))
    except (ImageError, ReferenceSetError) as error:
        return left_out(job, number, error)
    except StoreError as error:
        error.hint = error.hint or LATER
        raise error.located(key=path) from None
    return Opened(data, pixels, drawn, crc32_of(data), crc32_of(source) if data != source else None)


def left_out(job: Job, number: int, error: ImageError | ReferenceSetError) -> LeftOut:
    """Return why an image is left out. Raise the error unless --on-error skip covers it."""
    if _mixed_into_others(job, number):
        mixed = "the set to extend has it mixed into views of others, so it cannot be left out: mend it"
        error.hint = error.hint or mixed
    # A replaced image decodes, so skip does not cover it: the user has to learn that the images changed.
    elif job.config.on_error == "fail" or isinstance(error, ImageChangedError):
        error.hint = error.hint or _hint(error, job.source.kind)
    else:
        return LeftOut(number, error.message)
    raise error.located(key=job.labels.plan.paths[number]) from None


def _mixed_into_others(job: Job, number: int) -> bool:
    """Return whether a set that is extended may have an image mixed into views of others."""
    extension = job.extension if job.mixes else None
    return extension is not None and extension.has_labels(job.labels.plan.keys[number])


def _copy(recipe: Recipe, source: bytes, path: str) -> bytes:
    """Return the image file to label: the smaller copy if one is embedded, else the source itself."""
    wanted = recipe.stored_images
    if wanted is None:
        return source
    if wanted.max_side is None:
        _check_embeddable(source, path)
        return source
    return reencode(source, wanted.max_side, wanted.quality, max_pixels=recipe.config.max_pixels, path=path)


def _check_embeddable(source: bytes, path: str) -> None:
    """Raise ImageError for an image in a format that a shard does not hold."""
    extension = image_extension(source, path)
    if extension not in IMAGE_EXTS:
        raise ImageError(
            f"images are not embedded as {extension!r}",
            hint="make it a JPEG or PNG under the same name, embed smaller copies (--embed-images max-side=512), or "
            "leave such images out with --on-error skip",
        )


def _hint(error: ImageError | ReferenceSetError, source: str) -> str:
    skip = "leave such images out with --on-error skip"
    if isinstance(error, ImageGoneError):
        return f"put it back, or {skip}"
    if isinstance(error, ReferenceSetError):
        return skip
    # The plan says where in a tar an image lies, and a mended image would lie elsewhere.
    return f"mend it, or {skip}" if source == "folder" else skip


class OpenedImages:
    """Opens images for threads that need the same ones, as views and as what is mixed into other views.

    An image is decoded once, unless its shard has more than KEPT_BYTES of pixels: then those that were not needed for
    the longest time are dropped, and decoded again. Where nothing is mixed, nothing is kept.

    Args:
        job: what the worker has open.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[Opened | LeftOut]] = OrderedDict()

    def open(self, number: int, read: Read | None = None) -> Opened | LeftOut:
        """Open an image as `open_image` does, with the same errors. Where it is another shard's, `read` is None."""
        if not self._job.mixes:
            return open_image(self._job, number, read or self._read)
        with self._lock:
            future = self._kept.get(number)
            mine = future is None
            future = self._kept.setdefault(number, Future())
            self._kept.move_to_end(number)
        if mine:
            try:
                future.set_result(open_image(self._job, number, read or self._read))
            except BaseException as error:
                future.set_exception(error)
            self._drop()
        return future.result()

    def _read(self, number: int) -> bytes:
        plan = self._job.labels.plan
        return self._job.source.reader(plan, plan.place(number)[0])(number)

    def _drop(self) -> None:
        with self._lock:
            sizes = {number: _bytes_of(future) for number, future in self._kept.items()}
            over = sum(sizes.values()) - KEPT_BYTES
            for number, size in sizes.items():
                if over <= 0:
                    break
                if size:  # others are still being opened
                    del self._kept[number]
                    over -= size


def _bytes_of(future: Future[Opened | LeftOut]) -> int:
    if not future.done() or future.exception() is not None:
        return 0
    found = future.result()
    return found.pixels.numel() if isinstance(found, Opened) else 0
