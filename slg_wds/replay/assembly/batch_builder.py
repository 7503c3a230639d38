"""A batch in the making: threads fill in image after image, the last one closes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from slg_wds.errors import ReplayError, SlgWdsError, StoreUnavailableError
from slg_wds.replay.assembly.batch_content import BatchContent
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.epoch import PlannedBatch
from slg_wds.replay.assembly.partners import PartnerBytes, load_partners
from slg_wds.replay.batch import Batch
from slg_wds.replay.sources.files import Contents
from slg_wds.replay.sources.images import EmbeddedImages
from slg_wds.replay.sources.records import SampleLabels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SampleBytes:
    """The bytes of one sample: its record in each set, its image, and what is mixed into it."""

    records: list[SampleLabels]
    image: Contents
    partners: list[PartnerBytes] | None = None


class BatchBuilder:
    """One batch of a rank: who fills what, when it is done, and what went wrong.

    Args:
        planned: its samples and crops.
        images: uint8 [B, 3, S, S], channels_last, to be filled.

    Attributes:
        samples: of its images [n].
        present: numbers of the images that are not padding.
        error: the first one.
    """

    def __init__(self, context: LoaderContext, planned: PlannedBatch, images: torch.Tensor) -> None:
        self.context, self.samples, self._crops = context, planned.samples, planned.crops
        self.present = [i for i, sample in enumerate(self.samples) if sample.shard >= 0]
        self.error: BaseException | None = None
        self._content = BatchContent(context, planned, images)
        self._loading: set[int] = set()
        self._left = len(self.present)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._batch: Batch | None = None
        if self._left == 0:
            self._close()

    @property
    def done(self) -> bool:
        """Whether the batch is filled, or has failed."""
        return self._done.is_set()

    def result(self, deadline: float) -> Batch:
        """Return the batch, for which it waits `deadline` seconds at most.

        Raises the first error of a thread, at once; StoreUnavailableError where neither comes in time.
        """
        if not self._done.wait(deadline):
            self._late(deadline)
        if self.error is not None:
            raise self.error
        assert self._batch is not None
        return self._batch

    def _late(self, deadline: float) -> None:
        late = StoreUnavailableError(
            f"the batch is not there after {deadline:g} s",
            hint="see what its storage does, or raise deadline=",
        )
        self._fail((sorted(self._loading) or self.present)[0], late)

    def load(self, i: int) -> SampleBytes | None:
        """Read image i's bytes, which may wait for a network; None if that failed, which `result` raises."""
        try:
            self._loading.add(i)
            if self.error is None:
                return self._with_partners(i, self._load(i))
        except BaseException as error:
            self._fail(i, error)
        finally:
            self._loading.discard(i)
        self._some_done(1)
        return None

    def _load(self, i: int) -> SampleBytes:
        sample, crops = self.samples[i], self._crops[i]
        records, images = self.context.records, self.context.images
        if isinstance(images, EmbeddedImages):
            return SampleBytes(*records.read_with_image(sample, crops, images.place(sample)))
        return SampleBytes(records.read([sample], crops[None])[0], images.read([sample]))

    def _with_partners(self, i: int, loaded: SampleBytes) -> SampleBytes:
        if not self.context.sets.has_mixing:
            return loaded
        return replace(loaded, partners=load_partners(self.context, loaded.records[0], self._crops[i]))

    def wait(self, i: int) -> bool:
        """Wait for image i's shard if it is coming; whether it is there."""
        shard = self.samples[i].shard
        self._loading.add(i)
        self.context.caches.wait(shard)
        self._loading.discard(i)
        return self.context.ready(shard)

    def fill_labels(self, images: Sequence[int], loaded: SampleBytes | None = None) -> None:
        """Fill in the labels of these images; the bytes of a single one may be `loaded`.

        Many together, and not each before its image: between the pixels of two images their code and data fall out of
        the processor's caches, and decoding one takes three times as long.
        """
        data, partners = ([loaded.records], loaded.partners) if loaded else (None, None)
        self._together(lambda some: self._content.put_labels(some, data, partners), images)

    def fill_images(self, images: Sequence[int], loaded: SampleBytes | None = None) -> None:
        """Fill in the pixels of these images, whose labels are there. Some together, for the same reason."""
        data = loaded.image if loaded else None
        self._together(lambda some: self._content.put_pixels(some, data), images)
        self._some_done(len(images))

    def _together(self, step: Callable[[Sequence[int]], None], images: Sequence[int]) -> None:
        """Take a step for some images at once. If it fails, take it for each, which tells the one at fault."""
        try:
            if self.error is None:
                step(images)
        except BaseException as error:
            if len(images) == 1 or not isinstance(error, Exception):
                self._fail(images[0], error)
            else:
                for i in images:
                    self._together(step, [i])

    def _fail(self, i: int, error: BaseException) -> None:
        if isinstance(error, Exception):
            labels, sample = self.context.sets.members[0], self.samples[i]
            place = {"url": labels.url, "shard": labels.shard_name(sample.shard), "key": sample.key}
            if isinstance(error, SlgWdsError):
                error = error.located(**place)
            elif not isinstance(error, MemoryError):
                cause, error = error, ReplayError(f"{type(error).__name__}: {error}", **place)
                error.__cause__ = cause
        with self._lock:
            self.error = self.error or error
        self._done.set()

    def _some_done(self, images: int) -> None:
        with self._lock:
            self._left -= images
            last = self._left == 0
        if last:
            self._close()

    def _close(self) -> None:
        try:
            if self.error is None:
                self._batch = self._content.batch()
        except BaseException as error:
            self.error = error
        self._done.set()
