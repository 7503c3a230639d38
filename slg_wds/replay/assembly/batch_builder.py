"""A batch in the making: who fills what, when it is done, and what went wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from slg_wds.concurrency.waiting import wait_running
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
    """One batch of a rank, which threads fill in, some images at a time; see filling.py.

    Args:
        planned: its samples and crops.
        images: uint8 [B, 3, S, S], channels_last, to be filled.

    Attributes:
        samples: of its images [n].
        content: its labels and pixels.
        present: numbers of the images that are not padding.
        error: the first one.
    """

    def __init__(self, context: LoaderContext, planned: PlannedBatch, images: torch.Tensor) -> None:
        self.context, self.samples, self._crops = context, planned.samples, planned.crops
        self.present = [i for i, sample in enumerate(self.samples) if sample.shard >= 0]
        self.error: BaseException | None = None
        self.content = BatchContent(context, planned, images)
        self._loading: set[int] = set()
        self._unlabelled = self._left = len(self.present)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._batch: Batch | None = None
        if not self.present:
            self._batch = self.content.batch()
            self._done.set()

    @property
    def done(self) -> bool:
        """Whether the batch is filled, or has failed."""
        return self._done.is_set()

    def result(self, deadline: float) -> Batch:
        """Return the batch, for which it waits `deadline` seconds at most, without those of a stop of the process.

        Raises the first error of a thread, at once; StoreUnavailableError where neither comes in time.
        """
        if not wait_running(self._done.wait, deadline):
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
        self.fail((sorted(self._loading) or self.present)[0], late)

    def load(self, i: int) -> SampleBytes | None:
        """Read image i's bytes, which may wait for a network; None if that failed, which `result` raises."""
        try:
            self._loading.add(i)
            if self.error is None:
                return self._with_partners(i, self._load(i))
        except BaseException as error:
            self.fail(i, error)
        finally:
            self._loading.discard(i)
        self.some_done(1)
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

    def fail(self, i: int, error: BaseException) -> None:
        """End the batch with the error of image i, unless it has ended with another."""
        if isinstance(error, Exception):
            labels, sample = self.context.sets.members[0], self.samples[i]
            place = {"url": labels.url, "shard": labels.shard_name(sample.shard), "key": sample.key}
            if isinstance(error, SlgWdsError):
                error = error.located(**place)
            elif not isinstance(error, MemoryError):
                cause, error = error, ReplayError(f"{type(error).__name__}: {error}", **place)
                error.__cause__ = cause
        self._end(error)

    def drop(self) -> None:
        """End the batch, which nobody wants any more."""
        self._end(ReplayError("the batch was dropped"))

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self.error = self.error or error
        self._done.set()

    def some_labelled(self, images: int) -> None:
        """Note that the labels of so many more images are there, if nothing failed; with the last, make the batch."""
        with self._lock:
            self._unlabelled -= images
            last = self._unlabelled == 0
        if last and self.error is None:
            try:
                self._batch = self.content.batch()
            except BaseException as error:
                self._end(error)

    def some_done(self, images: int) -> None:
        """Note that so many more images are done, labels and pixels; with the last, the batch is."""
        with self._lock:
            self._left -= images
            last = self._left == 0
        if last:
            self._done.set()
